"""Writes the man pages: `python -m flak.cli.manual DIR [DOCS]`, from a source tree, where DOCS is by default docs.

flak(1) and a page for each verb come from what --help comes from (`reference`) and from the prose of docs/cli.md,
flak-format(5) from docs/format.md. Packages run this at their build; nothing of it is imported when FLAK runs.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from flak import __version__
from flak.cli.reference import commands, description, headline, is_option
from flak.cli.roff import entry, escaped, example, from_markdown, section

__all__ = ["pages"]

_FILES = {
    "/sys/kernel/btf/vmlinux": "types of the running kernel, which tracing needs",
    "*.flak": "recordings; flak-format(5) says what is in them",
}
_FILES_OF = {"dump": ["*.flak"], "doctor": ["/sys/kernel/btf/vmlinux"]}
_TRACING_ONLY = re.compile(r"^\| `(FLAK_BUFFER_SIZE|SUDO_UID)`.*\n", re.MULTILINE)
_STATUS_OF_TRACING = re.compile(r"^\| (4|12\d|otherwise) .*\n", re.MULTILINE)


def pages(docs: Path) -> dict[str, str]:
    """The pages by the names of their files. Raises OSError where `docs` lacks one of its documents."""
    text = (docs / "cli.md").read_text()
    intro, *rest = re.split(r"^## ", _BLOCK.sub("", text), flags=re.MULTILINE)
    prose = {title: body for title, _, body in (part.partition("\n") for part in rest)}
    found = commands()
    made = {f"flak-{verb}.1": _of_verb(verb, command, prose, found) for verb, command in found.items() if verb}
    made["flak.1"] = _of_flak(found, intro.partition("\n")[2], prose)
    made["flak-format.5"] = _of_format((docs / "format.md").read_text())
    return made


_BLOCK = re.compile(r"^<!-- flak.*?^<!-- end -->\n", re.MULTILINE | re.DOTALL)


def _of_flak(found: dict[str, Any], intro: str, prose: dict[str, str]) -> str:
    flak = found[""]
    verbs = [verb for verb in found if verb]
    body = [
        section("SYNOPSIS", "\\fBflak\\fR \\fIVERB\\fR [\\fIOPTIONS\\fR] ...\n"),
        section("DESCRIPTION", from_markdown(f"{description(flak)}\n{intro}")),
        section("COMMANDS", "".join(entry(_reference(f"flak-{verb}", 1), headline(found[verb])) for verb in verbs)),
        section("OPTIONS", _options(flak)),
        section("STOPPING", from_markdown(prose["Stopping"])),
        section("EXIT STATUS", from_markdown(prose["Exit status"])),
        section("ENVIRONMENT", from_markdown(prose["Environment"])),
        section("FILES", _files(list(_FILES))),
        section("EXAMPLES", _examples(flak)),
    ]
    return _page("flak", 1, headline(flak), body, [f"flak-{verb}(1)" for verb in verbs])


def _of_verb(verb: str, command: Any, prose: dict[str, str], found: dict[str, Any]) -> str:
    is_tracing = any("--on-loss" in parameter.opts for parameter in command.params)
    statuses = prose["Exit status"] if is_tracing else _STATUS_OF_TRACING.sub("", prose["Exit status"])
    variables = prose["Environment"] if is_tracing else _TRACING_ONLY.sub("", prose["Environment"])
    arguments = [escaped(parameter.metavar) for parameter in command.params if not is_option(parameter)]
    body = [
        section("SYNOPSIS", f"\\fBflak {verb}\\fR [\\fIOPTIONS\\fR] {' '.join(arguments)}".rstrip() + "\n"),
        section("DESCRIPTION", from_markdown(description(command))),
        section("OPTIONS", _options(command)),
        section("DETAILS", from_markdown(prose[verb])),
        section("EXIT STATUS", from_markdown(statuses)),
        section("ENVIRONMENT", from_markdown(variables)),
        section("FILES", _files(_FILES_OF.get(verb, list(_FILES)))),
        section("EXAMPLES", _examples(command)),
    ]
    others = [f"flak-{other}(1)" for other in found if other not in ("", verb)]
    return _page(f"flak-{verb}", 1, headline(command), body, ["flak(1)", *others])


def _of_format(document: str) -> str:
    title, _, text = document.removeprefix("# ").partition("\n")
    intro, _, rest = text.partition("\n## ")
    body = [section("DESCRIPTION", from_markdown(intro)), from_markdown(f"## {rest}")]
    return _page("flak-format", 5, title, body, ["flak(1)", "flak-record(1)", "flak-dump(1)"])


def _page(name: str, number: int, line: str, sections: list[str], others: list[str]) -> str:
    """A page from its sections. SOURCE_DATE_EPOCH dates it, so that packages can be made twice alike."""
    moment = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    summary = escaped(line[0].lower() + line[1:].rstrip("."))
    links = [_reference(*other.removesuffix(")").split("(")) for other in others if other != f"{name}({number})"]
    if number == 1 and name != "flak-doctor":
        links.append(_reference("flak-format", 5))
    body = "".join(
        [
            section("NAME", f"{escaped(name)} \\- {summary}\n"),
            *sections,
            section("SEE ALSO", ",\n".join(links) + "\n"),
        ]
    )
    body = re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", body, flags=re.MULTILINE)  # of no effect there
    table = "'\\\" t\n" if ".TS\n" in body else ""
    date = time.strftime("%Y-%m-%d", moment)
    return f'{table}.TH {escaped(name.upper())} {number} {date} "flak {__version__}" "FLAK manual"\n.nh\n.ad l\n{body}'


def _reference(name: str, number: int | str) -> str:
    return rf"\fB{escaped(name)}\fR({number})"


def _options(command: Any) -> str:
    made = []
    for option in command.params:
        if is_option(option):
            names = ", ".join(rf"\fB{escaped(name)}\fR" for name in option.opts)
            value = rf" \fI{escaped(option.metavar)}\fR" if option.metavar else ""
            made.append(f".TP\n{names}{value}\n{_breakable(escaped(option.help))}\n")
    return "".join([*made, ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nshow a summary of this and end\n"])


def _breakable(text: str) -> str:
    """Long lists of words may go on in the next line."""
    return re.sub(r",(?=\w)", r",\:", text)


def _files(names: list[str]) -> str:
    return "".join(entry(rf"\fI{escaped(name)}\fR", _FILES[name]) for name in names)


def _examples(command: Any) -> str:
    return example(command.help.partition("EXAMPLES\n")[2].split("\n"))


def main(folder: str, docs: str = "docs") -> None:
    """Write every page into the folder, which is made if need be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages(Path(docs)).items():
        Path(folder, name).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:3])
