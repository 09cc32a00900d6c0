"""Where events go when people or programs read them as they come: columns of text, or JSON lines.

A sink takes events one by one (`write`), is told when a drain round is over (`flush`), and is closed. It does not
know whether the events are live or recorded, and interprets nothing: the closing table is `report`'s. Lines are made
by `lines`, `columns` and `jsontext`, and go to an outlet (`outlets`, `terminal`).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Protocol

from flak.columns import Columns
from flak.events import WORDS, Access, Counters, Event, Lost
from flak.jsontext import JsonText
from flak.lines import Clock, Lines, paint_hidden
from flak.outlets import Outlet, ReaderGone, write_text
from flak.text import counted

__all__ = ["JsonLinesSink", "ReaderGone", "Sink", "TextSink", "hidden_as_json", "hidden_as_text", "write_text"]

_PENDING_LINES = 512  # about 64 KiB


class Sink(Protocol):
    """What events are written to."""

    def write(self, event: Event) -> None:
        """Take one event."""

    def flush(self) -> None:
        """A round is over: hand on what was written so far."""

    def close(self) -> None:
        """Hand on what is left and close the outlet. May be called twice."""


class _LineSink:
    """Lines are collected, and handed on when a round is over or enough have come."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._lines: list[str] = []

    def flush(self) -> None:
        """Hand on the lines collected so far. Raises as the outlet does; the lines are gone then."""
        lines, self._lines = self._lines, []
        self._outlet.put(lines)

    def close(self) -> None:
        """Hand on what is left and close the outlet."""
        try:
            if self._lines:
                self.flush()
        finally:
            self._outlet.close()


class JsonLinesSink(_LineSink):
    """One JSON object a line, in the words of docs/events.md. The last event written should be the `Counters`.

    fields: these words only, in this order.
    """

    def __init__(self, outlet: Outlet, *, fields: Sequence[str] = ()) -> None:
        super().__init__(outlet)
        self._text = JsonText(fields or WORDS)

    def write(self, event: Event) -> None:
        """Add the event's object."""
        self._lines.append(self._text(event) + "\n")
        if len(self._lines) >= _PENDING_LINES:
            self.flush()


class TextSink(_LineSink):
    """Columns for people. `counters` events are left to the closing table.

    width: asked before each round for the columns of the terminal; lines are fitted to them. Without one (None)
    nothing is shortened.
    fields: these columns in place of the usual ones (`columns.chosen`).
    """

    def __init__(
        self,
        outlet: Outlet,
        clock: Clock,
        *,
        timestamp: str = "rel",
        width: Callable[[], int | None] = lambda: None,
        color: bool = False,
        page_size: int = mmap.PAGESIZE,
        fields: Sequence[str] = (),
    ) -> None:
        super().__init__(outlet)
        lines = Lines(clock, timestamp=timestamp, is_fitted=width() is not None, color=color, page_size=page_size)
        form = Columns(lines, fields) if fields else lines
        self._width, self._fit = width, form.fit
        self._access, self._process, self._lost = form.access, form.process, lines.lost
        self._fit(width())
        self._lines.append(form.head)

    def write(self, event: Event) -> None:
        """Add the event's line."""
        # Hot path.
        lines = self._lines
        if not lines:
            self._fit(self._width())
        if isinstance(event, Access):
            lines.append(self._access(event))
        elif isinstance(event, Lost):
            lines.append(self._lost(event))
        elif not isinstance(event, Counters):
            lines.append(self._process(event))
        if len(lines) >= _PENDING_LINES:
            self.flush()


def hidden_as_text(count: int, *, color: bool = False) -> str:
    """The line that stands for lines a terminal did not take."""
    return paint_hidden(f"... {counted(count, 'line')} not shown: the terminal was too slow", color=color) + "\n"


def hidden_as_json(count: int) -> str:
    """The same as an object."""
    return f'{{"op":"not_shown","count":{count}}}\n'
