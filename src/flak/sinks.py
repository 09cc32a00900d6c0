"""Where events go when people or programs read them as they come: columns of text, or JSON lines.

A sink takes the events of one drain round after another (`write`) and is closed. It does not know whether they are
live or recorded, and interprets nothing: the closing table is `report`'s. Lines are made by `lines`, `columns` and
`jsontext`, and go to an outlet (`outlets`, `terminal`).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

from flak.columns import Columns
from flak.events import WORDS, Access, Counters, Event, Folded, Lost
from flak.jsontext import JsonText
from flak.lines import Clock, Lines, paint_hidden
from flak.outlets import Outlet
from flak.text import counted

__all__ = ["JsonLinesSink", "Sink", "TextSink", "hidden_as_json", "hidden_as_text"]

_PIECE = 512  # lines, about 64 KiB: a round may have seven times as many


class Sink(Protocol):
    """What events are written to."""

    def write(self, events: Iterable[Event]) -> None:
        """Take the events of one round and hand on their lines. Raises as the outlet does."""

    def close(self) -> None:
        """Hand on what is left and close the outlet. May be called twice."""


class JsonLinesSink:
    """One JSON object a line, in the words of docs/events.md. The last event written should be the `Counters`.

    fields: these words only, in this order.
    """

    def __init__(self, outlet: Outlet, *, fields: Sequence[str] = ()) -> None:
        self._outlet = outlet
        self._text = JsonText(fields or WORDS)

    def write(self, events: Iterable[Event]) -> None:
        """Write the events' objects."""
        text, rest = self._text, iter(events)
        while lines := [f"{text(event)}\n" for event in islice(rest, _PIECE)]:
            self._outlet.put(lines)

    def close(self) -> None:
        """Close the outlet."""
        self._outlet.close()


class TextSink:
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
        self._outlet = outlet
        self._width = width
        self._lines = Lines(clock, timestamp=timestamp, is_fitted=width() is not None, color=color, page_size=page_size)
        self._form = Columns(self._lines, fields) if fields else self._lines
        self._form.fit(width())
        self._waiting = [self._form.head]  # for the first round

    def write(self, events: Iterable[Event]) -> None:
        """Write the events' lines."""
        # Hot path: no attribute chains.
        form, lost = self._form, self._lines.lost
        form.fit(self._width())
        access, process = form.access, form.process
        lines, self._waiting = self._waiting, []
        for event in events:
            if isinstance(event, Access):
                lines.append(access(event))
            elif isinstance(event, Lost):
                lines.append(lost(event))
            elif not isinstance(event, Counters | Folded):  # the closing table has those
                lines.append(process(event))
            if len(lines) >= _PIECE:
                self._outlet.put(lines)
                lines = []
        if lines:
            self._outlet.put(lines)

    def close(self) -> None:
        """Write the titles if there was no event, and close the outlet."""
        try:
            self.write(())
        finally:
            self._outlet.close()


def hidden_as_text(count: int, *, color: bool = False) -> str:
    """The line that stands for lines a terminal did not take."""
    return paint_hidden(f"... {counted(count, 'line')} not shown: the terminal was too slow", color=color) + "\n"


def hidden_as_json(count: int) -> str:
    """The same as an object."""
    return f'{{"op":"not_shown","count":{count}}}\n'
