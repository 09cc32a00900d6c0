"""The man pages: every option of every verb is in its page, all of the documents is, and no formatter complains."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flak.cli import roff
from flak.cli.manual import pages
from flak.cli.reference import commands, is_option

DOCS = Path(__file__).parents[2] / "docs"
PAGES = pages(DOCS)
CHECKERS = {
    "mandoc": ["mandoc", "-Tlint", "-Wwarning"],
    "groff": ["groff", "-man", "-t", "-ww", "-Tutf8", "-z"],
    "man": ["man", "--warnings", "-l"],
}


def plain(page: str) -> str:
    """Roff without fonts and escapes, its lines joined."""
    text = re.sub(r"\\f[BIR]|\\&|\\:", "", page).replace(r"\(aq", "'").replace(r"\-", "-").replace(r"\(ti", "~")
    text = re.sub(r"\\\[u(\w+)\]", lambda escape: chr(int(escape[1], 16)), text)
    return " ".join(text.replace(r"\(ha", "^").replace(r"\(ga", "`").replace(r"\e", "\\").split())


def test_there_is_a_page_for_each_verb_and_the_format() -> None:
    assert set(PAGES) == {"flak.1", "flak-format.5"} | {f"flak-{verb}.1" for verb in commands() if verb}


@pytest.mark.parametrize("verb", commands())
def test_every_option_of_a_verb_is_in_its_page_with_its_help(verb: str) -> None:
    page = PAGES[f"flak-{verb}.1" if verb else "flak.1"]
    for parameter in commands()[verb].params:
        if is_option(parameter):
            names = f"{', '.join(parameter.opts)} {parameter.metavar or ''}".strip()
            assert f".TP {names} {parameter.help}" in plain(page)
        else:
            assert parameter.metavar in plain(page)


@pytest.mark.parametrize("verb", commands())
def test_a_page_has_the_sections_that_readers_look_for(verb: str) -> None:
    page = PAGES[f"flak-{verb}.1" if verb else "flak.1"]
    for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"):
        assert f'.SH "{title}"\n' in page
    for line in commands()[verb].help.partition("EXAMPLES\n")[2].split("\n"):
        assert " ".join(line.split()) in plain(page)


def test_the_page_of_the_format_has_all_words_of_its_document() -> None:
    shown = re.sub(r"[^\w.]", "", plain(PAGES["flak-format.5"]).lower())
    document = re.sub(
        r"^\| [^|]*\| [^|]*\|\n(?=\|-)|#[-\w]+(?=\))|```python",
        "",
        (DOCS / "format.md").read_text(),
        flags=re.MULTILINE,
    )
    for word in re.findall(r"[\w.]{4,}", document):  # titles of the lists that were tables are left out
        assert re.sub(r"[^\w.]", "", word.lower()) in shown, word


@pytest.mark.parametrize("tool", CHECKERS)
@pytest.mark.parametrize("name", PAGES)
def test_a_formatter_has_no_complaint(tool: str, name: str, tmp_path: Path) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed: apt install {'man-db' if tool == 'man' else tool}")
    file = tmp_path / name
    file.write_text(PAGES[name])
    done = subprocess.run([*CHECKERS[tool], str(file)], capture_output=True, text=True)
    complaints = done.stdout if tool == "mandoc" else done.stderr
    assert (done.returncode, complaints) == (0, "")


def test_signs_of_roff_in_a_text_are_only_text() -> None:
    assert roff.escaped(".TH -x 'a' \\n") == r"\&.TH \-x \(aqa\(aq \en"
    assert roff.from_markdown("a\n`.b` → *c* **d** [e](f.md#g) `x|y`") == (
        ".PP\na \\fB\\&.b\\fR \\[u2192] \\fIc\\fR \\fBd\\fR e (f.md) \\fBx|y\\fR\n"
    )


def test_code_keeps_its_lines_and_lists_their_continuations() -> None:
    text = "- one\n  more\n- two\n\n```\n# no heading\n\n.x\n```\n\n    a\n\n     b\n"
    assert roff.from_markdown(text) == (
        ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo\n"
        ".PP\n.RS 4\n.EX\n# no heading\n\n\\&.x\n.EE\n.RE\n.PP\n.RS 4\n.EX\na\n\n b\n.EE\n.RE\n"
    )


def test_the_date_is_that_of_the_release_where_a_package_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert " 1 1970-01-01 " in pages(DOCS)["flak.1"]
