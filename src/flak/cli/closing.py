"""The end of a run in words: the table of files, or the counters alone.

The table is computed by `analysis`, which needs numpy, and worded by `report`. Importing numpy takes longer than all
else at the start of FLAK, so rounds are kept until there is a table to make, or too many of them wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flak.cli.console import Console
from flak.events import Batch, Counters, Tables
from flak.report import not_decoded, render_summary
from flak.text import counted, format_count, format_latency

if TYPE_CHECKING:
    from flak.analysis import FilePatterns

__all__ = ["ClosingTable", "tell_counters"]

_MOST_WAITING = 32 << 20  # bytes
_OF_EVENT = 200  # bytes that a round takes besides its slots, and a process event, roughly


class ClosingTable:
    """Takes rounds as they come (`add`) and words the table in the end (`render`)."""

    def __init__(self, *, page_size: int) -> None:
        self._page_size = page_size
        self._patterns: FilePatterns | None = None
        self._waiting: list[tuple[Batch, Tables]] = []
        self._waiting_bytes = 0

    def prepare(self) -> bool:
        """Import what a table needs now rather than amid the run; False where numpy is missing."""
        if self._patterns is None:
            try:
                from flak.analysis import FilePatterns
            except ImportError:
                return False
            self._patterns = FilePatterns(page_size=self._page_size)
        return True

    def add(self, batch: Batch, tables: Tables) -> None:
        """Take the accesses of one round."""
        self._waiting.append((batch, tables))
        self._waiting_bytes += len(batch.slots) + _OF_EVENT * (1 + len(batch.process_events))
        if self._waiting_bytes > _MOST_WAITING:
            self._fold()

    def render(self, stats: Counters, *, duration_s: float, width: int | None, color: bool) -> str:
        """The table, ending in a newline; without numpy the counters, and what is missing."""
        patterns = self._fold()
        return render_summary(
            patterns.results() if patterns else None,
            stats,
            duration_s=duration_s,
            width=width,
            color=color,
            processes=patterns.process_count if patterns else None,
        )

    def _fold(self) -> FilePatterns | None:
        if self.prepare() and self._patterns:
            for batch, tables in self._waiting:
                self._patterns.add(batch, tables)
        self._waiting.clear()
        self._waiting_bytes = 0
        return self._patterns


def tell_counters(console: Console, stats: Counters, duration_s: float) -> None:
    """Say in a line what a run amounts to, and in another what was not decoded. Losses are told with -q too."""
    lost = f"{format_count(stats.lost_total)} lost"
    if not stats.is_complete:
        lost = f"at least {lost}, the end is missing"
    if stats.lost_total:
        lost += f" ({', '.join(f'{cause} {format_count(n)}' for cause, n in stats.lost.items())})"
    if stats.recursion_misses:
        lost = f"{lost if stats.lost_total else 'unknown lost'}, {counted(stats.recursion_misses, 'recursion miss')}"
    has_lost = stats.lost_total or stats.recursion_misses
    tell = console.warn if has_lost else console.say
    tell(f"{counted(stats.written, 'event')}, {format_latency(round(duration_s * 1e9))}, {lost}")
    missing = not_decoded(stats)
    if missing:
        console.say(f"not decoded: {missing}")
