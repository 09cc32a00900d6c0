"""What trace and dump have in common: a line per event as they pass, a table when all have passed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import RawIOBase
from typing import Self

from flak.cli.closing import ClosingTable, tell_counters
from flak.cli.console import Console, uses_color, width_of
from flak.cli.request import Display
from flak.errors import OutputError
from flak.events import Batch, Counters, Event, Tables
from flak.lines import Clock
from flak.outlets import Collected, Direct, Outlet, ReaderGone, write_text
from flak.sinks import JsonLinesSink, Sink, TextSink, hidden_as_json, hidden_as_text
from flak.terminal import terminal_outlet
from flak.text import counted

__all__ = ["Viewer"]


class Viewer:
    """Shows one run: events on the stream `lines`, the table on the stream `closing`.

    Call `begin` once, `show` and `count` for each round, `end` once; leave it as a context manager, so that no line
    stays behind when a run fails. JSON and a table don't share a stream. is_live: nothing must be waited for longer
    than needed, so a terminal that is too slow gets fewer lines.
    """

    def __init__(
        self,
        display: Display,
        console: Console,
        *,
        lines: RawIOBase,
        closing: RawIOBase,
        page_size: int,
        is_live: bool = True,
    ) -> None:
        self._display = display
        self._console = console
        self._lines = lines
        self._closing = closing
        self._page_size = page_size
        self._is_live = is_live
        self._outlet: Outlet | None = None
        self._sink: Sink | None = None
        self._has_reader = True
        has_table = display.has_table and not (display.form == "json" and lines is closing)
        self._table = ClosingTable(page_size=page_size) if has_table else None
        if self._table and not display.has_lines:
            self._table.prepare()  # every round goes through it, the first one too

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Lines that a run left behind when it failed are written; when it was abandoned, nobody waits for that."""
        if self._outlet and (kind is None or issubclass(kind, Exception)):
            with contextlib.suppress(ReaderGone, OutputError):
                self._outlet.close()

    def begin(self, anchor: tuple[int, int]) -> None:
        """Get ready for lines. `anchor` is the start of the run as (CLOCK_BOOTTIME, CLOCK_REALTIME), in ns."""
        display = self._display
        if not display.has_lines:
            return
        if display.form == "json":
            self._outlet = self._outlet_for(hidden_as_json)
            self._sink = JsonLinesSink(self._outlet, fields=display.fields)
            return
        boot_ns, wall_ns = anchor
        color = uses_color(display.color, self._lines)
        self._outlet = self._outlet_for(partial(hidden_as_text, color=color))
        self._sink = TextSink(
            self._outlet,
            Clock(start_ns=boot_ns, wall_offset_ns=wall_ns - boot_ns),
            timestamp=display.timestamp,
            width=(lambda: None) if display.wide else partial(width_of, self._lines),
            color=color,
            page_size=self._page_size,
            fields=display.fields,
        )

    def _outlet_for(self, notice: Callable[[int], str]) -> Outlet:
        """Terminals get lines at once; pipes and files when there are some."""
        if not self._lines.isatty():
            return Collected(self._lines)
        return terminal_outlet(self._lines, notice) if self._is_live else Direct(self._lines)

    @property
    def has_lines(self) -> bool:
        """Whether events are worth decoding."""
        return self._sink is not None

    def show(self, events: Iterable[Event]) -> bool:
        """Write the lines of one round; False when their reader has gone, and nothing is left to do."""
        with self._reading():
            if self._sink:
                self._sink.write(events)
        return self._has_reader

    def count(self, batch: Batch, tables: Tables) -> None:
        """Take the accesses of one round into the table."""
        if self._table:
            self._table.add(batch, tables)

    def end(self, tail: Iterable[Event], stats: Counters, duration_s: float) -> bool:
        """Write the last lines and the table, or the counters where there is none; nothing more for a reader who has
        seen enough of a recording, then False.
        """
        has_reader = self._drain_lines() and self.show([*tail, stats]) and self._end_lines()
        if not has_reader and not self._is_live:
            return False
        if not (self._table and self._write_table(self._table, stats, duration_s)):
            tell_counters(self._console, stats, duration_s)
        hidden = self._outlet.hidden_count if self._outlet else 0
        if hidden:
            text = f"{counted(hidden, 'line')} not shown: the terminal was too slow; -o FILE keeps every line"
            self._console.say(text)
        return True

    def _drain_lines(self) -> bool:
        """Have all lines of the run written: the last ones, which count, are not to be dropped."""
        with self._reading():
            if self._outlet:
                self._outlet.drain()
        return self._has_reader

    def _end_lines(self) -> bool:
        """Have all lines where they belong before anything follows them."""
        with self._reading():
            if self._sink:
                self._sink.close()
        return self._has_reader

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """In here the reader may turn out to have gone: then there are no more lines, and no table in their place."""
        try:
            yield
        except ReaderGone:
            self._sink = None
            self._has_reader = False
            if self._lines is self._closing:
                self._table = None

    def _write_table(self, table: ClosingTable, stats: Counters, duration_s: float) -> bool:
        stream = self._closing
        text = table.render(
            stats,
            duration_s=duration_s,
            width=None if self._display.wide else width_of(stream),
            color=uses_color(self._display.color, stream),
        )
        try:
            write_text(stream, text)
        except ReaderGone:
            return False
        return True
