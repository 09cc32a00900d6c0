"""What trace and dump have in common: a line per event as they pass, a table when all have passed."""

from __future__ import annotations

from collections.abc import Iterable
from io import RawIOBase

from flak.cli.closing import ClosingTable, tell_counters
from flak.cli.console import Console, uses_color, width_of
from flak.cli.request import Display
from flak.events import Batch, Counters, Event, Tables
from flak.sinks import Clock, JsonLinesSink, ReaderGone, Sink, TextSink, write_text

__all__ = ["Viewer"]


class Viewer:
    """Shows one run: events on the stream `lines`, the table on the stream `closing`.

    Call `begin` once, `show` and `count` for each round, `end` once. JSON and a table don't share a stream.
    """

    def __init__(
        self, display: Display, console: Console, *, lines: RawIOBase, closing: RawIOBase, page_size: int
    ) -> None:
        self._display = display
        self._console = console
        self._lines = lines
        self._closing = closing
        self._page_size = page_size
        self._sink: Sink | None = None
        has_table = display.has_table and not (display.form == "json" and lines is closing)
        self._table = ClosingTable(page_size=page_size) if has_table else None
        if self._table and not display.has_lines:
            self._table.prepare()  # every round goes through it, the first one too

    def begin(self, anchor: tuple[int, int]) -> None:
        """Get ready for lines. `anchor` is the start of the run as (CLOCK_BOOTTIME, CLOCK_REALTIME), in ns."""
        display = self._display
        if not display.has_lines:
            return
        if display.form == "json":
            self._sink = JsonLinesSink(self._lines)
            return
        boot_ns, wall_ns = anchor
        self._sink = TextSink(
            self._lines,
            Clock(start_ns=boot_ns, wall_offset_ns=wall_ns - boot_ns),
            timestamp=display.timestamp,
            width=None if display.wide else width_of(self._lines),
            color=uses_color(display.color, self._lines),
            page_size=self._page_size,
        )

    @property
    def has_lines(self) -> bool:
        """Whether events are worth decoding."""
        return self._sink is not None

    def show(self, events: Iterable[Event]) -> bool:
        """Write the lines of one round; False when their reader has gone, and nothing is left to do."""
        if not self._sink:
            return True
        try:
            for event in events:
                self._sink.write(event)
            self._sink.flush()
        except ReaderGone:
            self._sink = None
            if self._lines is self._closing:
                self._table = None
            return False
        return True

    def count(self, batch: Batch, tables: Tables) -> None:
        """Take the accesses of one round into the table."""
        if self._table:
            self._table.add(batch, tables)

    def end(self, tail: Iterable[Event], stats: Counters, duration_s: float) -> None:
        """Write the last lines and the table, or the counters where there is none."""
        self.show([*tail, stats])
        if not (self._table and self._write_table(self._table, stats, duration_s)):
            tell_counters(self._console, stats, duration_s)

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
