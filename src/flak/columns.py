"""Columns that were asked for (--fields): which there are, how wide they are, and lines of them.

A column is a word of docs/events.md, its value as JSON has it, or one of the usual columns by its title in lower case.
The usual lines are made by `lines`, much faster; their columns are borrowed from there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flak.errors import UsageError
from flak.events import WORDS, Event
from flak.lines import LEAST_ROOM, NOTHING, Lines
from flak.text import cell_width, elide_path

__all__ = ["ALIASES", "Columns", "chosen"]

ALIASES = {"time": "ts_ns", "offset": "file_offset", "size": "size_ret", "lat": "latency_ns", "file": "path"}
"""Usual columns that have a name of their own, and the word that stands for them in JSON."""

_NUMBERS = {
    "ts_ns": 16, "latency_ns": 11, "pid": 7, "tid": 7, "ns_pid": 7, "cgroup_id": 10, "fd": 4, "file_id": 7,
    "path_id": 7, "ino": 10, "ino_gen": 10, "file_offset": 13, "arg_offset": 13, "size_req": 11, "size_ret": 11,
    "page_count": 10, "call_id": 7, "addr": 14, "prot": 4, "map_flags": 9, "open_flags": 10, "new_fd": 6,
    "child_pid": 9, "cpu": 3, "seq": 10, "offset": 6, "size": 5, "lat": 6,
}  # fmt: skip
"""Columns on whose right end the values stand, and how wide they are: what is longer pushes the others aside."""

_TEXTS = {"time": 8, "comm": 15, "op": 8, "dev": 7, "kind": 6, "is_write": 8, "is_major": 8, "errno": 7, "role": 6}
_TEXT_WIDTH = 12  # of other texts

_PATHS = {"file", "path", "path_bytes", "new_path", "claimed_path", "argv0"}
_PATH_WIDTH = 40  # where a path is neither last nor on a terminal

_ESCAPE = "\033"
_COLOR = re.compile(f"{_ESCAPE}\\[[0-9]*m")


def chosen(names: Sequence[str], *, is_json: bool) -> tuple[str, ...]:
    """The columns of these names, in JSON the words; UsageError where there is no such column."""
    known = (*ALIASES, *WORDS)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            question = f", did you mean {near[0]}?" if near else ""
            raise UsageError(f"--fields {name!r} is not known{question}", f"choose from: {', '.join(known)}")
    return tuple(dict.fromkeys(ALIASES.get(name, name) for name in names)) if is_json else tuple(names)


@dataclass(slots=True)
class _Column:
    """One column. `room` is how wide a path may be, None for as wide as it is."""

    name: str
    title: str
    width: int
    is_right: bool
    value: Callable[[Any], str]
    room: int | None = None
    is_last: bool = False

    @property
    def is_path(self) -> bool:
        """It takes what room there is."""
        return self.name in _PATHS

    def cell(self, event: Event) -> str:
        """What it says of an event, as wide as it has to be."""
        text = self.value(event)
        if self.is_path and self.room is not None and self.name != "file":
            text = elide_path(text, self.room)
        return self.padded(text)

    def padded(self, text: str) -> str:
        """The text with blanks on the side where they belong; behind the last column there are none."""
        if self.is_last and not self.is_right:
            return text
        width = self.width if self.room is None else self.room
        if text.isascii() and _ESCAPE not in text:
            return text.rjust(width) if self.is_right else text.ljust(width)
        blanks = " " * (width - cell_width(_COLOR.sub("", text)))
        return blanks + text if self.is_right else text + blanks


class Columns:
    """Makes lines of chosen columns. Call `fit` before the first, as with `Lines`, whose columns are used."""

    def __init__(self, lines: Lines, fields: Sequence[str]) -> None:
        self._lines = lines
        self._columns = [_column(lines, name) for name in fields]
        self._columns[-1].is_last = True

    @property
    def head(self) -> str:
        """The titles."""
        return _joined([column.padded(column.title) for column in self._columns])

    def fit(self, width: int | None) -> None:
        """From the next line on a terminal has this many columns; paths share what the others leave."""
        paths = [column for column in self._columns if column.is_path]
        taken = sum(column.width for column in self._columns if not column.is_path) + len(self._columns) - 1
        room = None if width is None or not paths else max((width - taken) // len(paths), LEAST_ROOM)
        for column in paths:
            column.room = room
        self._lines.leave_room(room)

    def access(self, event: Event) -> str:
        """The line of an access."""
        return _joined([column.cell(event) for column in self._columns])

    def process(self, event: Event) -> str:
        """The line of a fork, exec or exit."""
        return self.access(event)


def _joined(cells: Sequence[str]) -> str:
    return " ".join(cells) + "\n"


def _column(lines: Lines, name: str) -> _Column:
    borrowed: dict[str, Callable[[Any], str]] = {
        "time": lambda event: lines.stamp(event.ts_ns),
        "op": lines.op,
        "offset": lines.offset,
        "size": lines.size,
        "lat": lines.latency,
        "file": lines.file,
    }
    title = lines.time_title if name == "time" else name.upper()
    width = _NUMBERS.get(name) or _TEXTS.get(name, _PATH_WIDTH if name in _PATHS else _TEXT_WIDTH)
    if name == "comm":
        width = lines.comm_width
        borrowed["comm"] = lambda event: (event.comm or "?")[:width]
    return _Column(name, title, max(width, len(title)), name in _NUMBERS, borrowed.get(name) or _value(name))


def _value(word: str) -> Callable[[Any], str]:
    """A word's value as text: as JSON has it, without quotes."""

    def text(event: Any) -> str:
        value = getattr(event, word)
        if value is None or value == () or (word == "path_id" and not value):
            return NOTHING
        if isinstance(value, bool):
            return str(value).lower()
        return ",".join(value) if isinstance(value, tuple) else str(value)

    return text
