"""Keeps docs/cli.md true: `python -m flak.cli.reference docs/cli.md` writes each verb's usage into its block.

A block begins with a line `<!-- flak VERB -->` and ends with `<!-- end -->`; all other text is left alone. What --help
prints depends on typer's version, so the text is made here from names and help texts.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer

from flak.cli.app import app

__all__ = ["commands", "description", "headline", "is_option", "names", "updated"]

_BLOCK = re.compile(r"^<!-- flak ?(\w*) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def commands() -> dict[str, Any]:
    """The verbs by name, as typer (or the click inside it) has them; "" is flak itself."""
    group: Any = typer.main.get_command(app)
    return {"": group, **group.commands}


def updated(text: str) -> str:
    """The document with every block rewritten."""
    known = commands()
    return _BLOCK.sub(lambda block: _block(block[1], known[block[1]]), text)


def _block(verb: str, command: Any) -> str:
    name = f"flak {verb}".strip()
    arguments = [parameter.metavar for parameter in command.params if not is_option(parameter)]
    usage = " ".join([name, "[OPTIONS]", *arguments]) if verb else f"{name} VERB [OPTIONS] …"
    rows = [(verb, headline(command)) for verb, command in getattr(command, "commands", {}).items()]
    rows += [(names(option), option.help) for option in command.params if is_option(option)]
    width = max(len(left) for left, _ in rows)
    body = "\n".join([usage, "", *(f"{left:{width}}  {right}" for left, right in rows)])
    return f"<!-- {name} -->\n{description(command)}\n\n```\n{body}\n```\n<!-- end -->"


def is_option(parameter: Any) -> bool:
    """Whether it is one, or an argument."""
    return bool(parameter.opts[0].startswith("-"))


def names(option: Any) -> str:
    """Of an option: "-p, --pid PID"."""
    return f"{', '.join(option.opts)} {option.metavar or ''}".strip()


def headline(command: Any) -> str:
    """The first line of the help text."""
    return description(command).partition("\n")[0]


def description(command: Any) -> str:
    """The help text up to its examples."""
    return str(command.help.partition("\b")[0].strip())


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(updated(document.read_text()))
