"""Markdown → roff, as much of each as FLAK's documents use; `manual` makes man pages of them.

Headings, paragraphs, lists, tables, code. Everything outside ASCII is written as an escape, so that a page reads the
same in every locale, and every hyphen as a minus, so that an option can be copied out of a page and pasted.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

__all__ = ["entry", "escaped", "example", "from_markdown", "section"]

_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})
_SPAN = re.compile(
    r"`(?P<bold>[^`]+)`|\*\*(?P<strong>.+?)\*\*|\*(?P<italic>[^*\s][^*]*?)\*|\[(?P<link>.+?)\]\((?P<to>[^#)]*).*?\)"
)
_NARROW = 20
"""A column of a table that is wider than this shares the line's width with the others of its kind."""


def escaped(text: str) -> str:
    """The text as roff shows it verbatim, also at the beginning of a line."""
    plain = text.translate(_ESCAPES)
    shown = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in plain)
    return rf"\&{shown}" if shown.startswith(".") else shown


def section(title: str, body: str) -> str:
    """A section; "" when there is nothing in it."""
    return f'.SH "{escaped(title)}"\n{body}' if body else ""


def entry(term: str, text: str) -> str:
    """An item of a list of definitions; `term` is roff, `text` plain."""
    return f".TP\n{term}\n{_filled(text)}"


def example(lines: Sequence[str]) -> str:
    """Lines to be shown as they are."""
    body = "\n".join(escaped(line) for line in textwrap.dedent("\n".join(lines)).strip("\n").split("\n"))
    return f".PP\n.RS 4\n.EX\n{body}\n.EE\n.RE\n"


def from_markdown(text: str) -> str:
    """A document in roff: ## is a section, ### one within it."""
    return "".join(_block(kind, lines) for kind, lines in _blocks(text))


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """What the lines belong to, "text" or a key of `_STARTS`, and the lines."""
    kind, lines = "", list[str]()
    for line in [*text.split("\n"), "", "#"]:
        if kind == "fence":
            if line == "```":
                yield "code", lines[1:]
                kind = ""
            else:
                lines.append(line)
            continue
        starts = next((name for name, start in _STARTS.items() if line.startswith(start)), "text" if line else "")
        continues = starts == kind or (kind == "code" and not line) or (kind in ("list", "text") and line[:2] == "  ")
        if (continues or (kind == "list" and starts == "text")) and kind != "heading":
            lines.append(line)
        else:
            if kind:
                yield kind, lines
            kind, lines = starts, [line]


_STARTS = {"heading": "#", "fence": "```", "code": "    ", "table": "|", "list": "- "}


def _block(kind: str, lines: list[str]) -> str:
    match kind:
        case "heading":
            marks, _, title = _bare(lines[0]).partition(" ")
            return f'.SH "{escaped(title.upper())}"\n' if marks == "##" else f'.SS "{escaped(title)}"\n'
        case "code":
            return example(lines)
        case "table":
            return _table([_cells(line) for line in lines])
        case "list":
            items = re.split(r"\n(?=- )", "\n".join(lines))
            return "".join(f".IP \\(bu 2\n{_filled(item[2:])}" for item in items)
    return f".PP\n{_filled(' '.join(lines))}"


def _filled(text: str) -> str:
    """A paragraph in lines that are easy to look at."""
    words = _inline(" ".join(text.split()))
    lines = textwrap.wrap(words, 100, break_long_words=False, break_on_hyphens=False)
    return "".join(rf"\&{line}" if line.startswith(".") else line for line in (f"{line}\n" for line in lines))


def _inline(text: str) -> str:
    parts, at = [], 0
    for span in _SPAN.finditer(text):
        parts.append(escaped(text[at : span.start()]))
        if span["link"]:
            is_named = not span["to"] or span["to"] == span["link"]
            parts.append(_inline(span["link"] if is_named else f"{span['link']} ({span['to']})"))
        else:
            font = "I" if span["italic"] else "B"
            inner = span["bold"] or span["italic"] or _bare(span["strong"])
            parts.append(rf"\f{font}{escaped(inner)}\fR")
        at = span.end()
    return "".join([*parts, escaped(text[at:])])


def _bare(text: str) -> str:
    return text.replace("`", "")


def _cells(row: str) -> list[str]:
    r"""Of a row; a cell's own | is written as \|."""
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]


def _table(rows: list[list[str]]) -> str:
    """Two columns become a list of definitions, more a table."""
    head, _, *body = rows
    if len(head) == 2:
        return "".join(entry(_inline(term) or r"\&", text) for term, text in body)
    widths = [max(len(row[column]) for row in body) for column in range(len(head))]
    kinds = " ".join("l" if width <= _NARROW else "lx" for width in widths)
    lines = ["\t".join(_inline(cell) for cell in head)]
    lines += ["\t".join(f"T{{\n{_filled(cell)}T}}" if cell else "" for cell in row) for row in body]
    return "\n".join([".PP", ".TS", " ".join("lb" for _ in head), f"{kinds}.", *lines, ".TE", ""])
