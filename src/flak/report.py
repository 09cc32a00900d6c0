"""Words the closing table: what was traced, what was lost, and per file how it was accessed.

Turns figures into text and computes none: those come from `analysis`, and their definitions are in docs/patterns.md.
Columns that no file has anything to say in are left out, and when the width does not do, the least telling ones,
which is then said. Plain string formatting: the table is one shape, and rich would take longer to import than to use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flak.events import Counters
from flak.text import cell_width, counted, elide_path, format_count, format_latency, format_size

if TYPE_CHECKING:
    from flak.analysis import FileRow

__all__ = ["not_decoded", "render_summary"]

_NOTHING = "-"
_FEW = 5  # a share of fewer accesses is chance
_FILE_WIDTH = 20  # what a path is left at least before columns give way

_RED, _YELLOW, _DIM, _RESET = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


def render_summary(
    rows: Sequence[FileRow] | None,
    stats: Counters,
    *,
    duration_s: float,
    width: int | None = 80,
    color: bool = False,
    limit: int = 20,
    processes: int | None = None,
) -> str:
    """The closing table as text that ends in a newline.

    rows: figures per file in any order; None where numpy is missing, then only the counters are worded.
    duration_s: how long was traced, in seconds.
    width: columns of the terminal; None shows every column and whole paths.
    limit: files shown at most, those with the most bytes read, written and faulted in first.
    processes: how many processes the rows are of, left out when None.
    """
    paint = _paint if color else _plain
    lines = [_headline(rows, stats, duration_s, processes, paint), *_caveats(stats, paint)]
    if rows is None:
        lines.append("the table of files needs numpy: pip install numpy")
    elif rows:
        # Paths break ties, so that equal runs print equal tables.
        ranked = sorted(rows, key=lambda row: (-row.touched_bytes, row.path))
        lines += _table(ranked[:limit], width, paint)
        if len(ranked) > limit:
            lines.append(f"… {counted(len(ranked) - limit, 'more file')}")
        lines += _footnotes(rows, width, paint)
    return "\n".join(lines) + "\n"


def not_decoded(stats: Counters) -> str:
    """What was seen and not recorded, with how often; empty when that is nothing."""
    return ", ".join(f"{format_count(n)} {what}" for what, n in stats.not_decoded.items() if n)


Paint = Callable[[str, str], str]


def _paint(sgr: str, text: str) -> str:
    return f"{sgr}{text}{_RESET}"


def _plain(_sgr: str, text: str) -> str:
    return text


# The line above the table, and what one has to know before believing it.


def _headline(
    rows: Sequence[FileRow] | None, stats: Counters, duration_s: float, processes: int | None, paint: Paint
) -> str:
    took = f"{duration_s:.1f} s" if duration_s >= 1 else f"{duration_s * 1000:.0f} ms"
    parts = [counted(stats.written, "event"), took]
    if processes is not None:
        parts.append(counted(processes, "process"))
    if rows is not None:
        parts.append(counted(len(rows), "file"))
    return ", ".join([*parts, _loss(stats, paint)])


def _loss(stats: Counters, paint: Paint) -> str:
    """How many events are missing. Recursion misses are not counted as events, so with them the number is unknown."""
    misses = counted(stats.recursion_misses, "recursion miss")
    if not stats.is_complete:
        return paint(_RED, f"at least {format_count(stats.lost_total)} lost")
    if not stats.lost_total:
        return paint(_RED, f"unknown lost: {misses}") if stats.recursion_misses else "0 lost"
    causes = ", ".join(f"{cause} {format_count(n)}" for cause, n in stats.lost.items() if n)
    text = f"{format_count(stats.lost_total)} lost ({causes}"
    text += f"; and unknown: {misses})" if stats.recursion_misses else ")"
    is_too_small = stats.lost.get("ring_full")
    return paint(_RED, text) + (", try a larger --buffer-size" if is_too_small else "")


def _caveats(stats: Counters, paint: Paint) -> list[str]:
    lines = []
    if not stats.is_complete:
        lines.append(paint(_YELLOW, "incomplete: the run ends before its last counters"))
    elif not stats.is_exact:
        names = ("matched", "submitted", "received", "written")
        counts = ", ".join(f"{name} {format_count(getattr(stats, name))}" for name in names)
        lines.append(paint(_RED, f"the counters disagree, which is a bug in FLAK: {counts}"))
    if missing := not_decoded(stats):
        lines.append(paint(_YELLOW, f"not decoded, so missing below: {missing}"))
    if stats.excluded_self:
        lines.append(f"left out: {counted(stats.excluded_self, 'access')} by FLAK itself")
    return lines


# The table.


@dataclass(slots=True, frozen=True)
class _Column:
    """One column: its title, what a file says in it, and how soon it gives way (1: last)."""

    title: str
    rank: int
    cell: Callable[[FileRow], str]


def _count(value: int) -> str:
    return str(value) if value else _NOTHING


def _size(value: int | None) -> str:
    return format_size(value) if value else _NOTHING


def _latency(value: int | None) -> str:
    return _NOTHING if value is None else format_latency(value)


def _share(part: int, whole: int) -> str:
    """A percentage; none of few accesses, and 0 and 100 only where they are exact."""
    if whole < _FEW:
        return _NOTHING
    if 0 < part * 100 < whole:
        return "<1%"
    return f"{100 * part // whole}%"


def _ratio(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:.1f}x" if value < 99.95 else f"{value:.0f}x"


def _unique(row: FileRow) -> str:
    bound = "≤" if row.unique_granule > 1 and row.unique_read_bytes else ""
    return bound + _size(row.unique_read_bytes)


def _fault_bytes(row: FileRow) -> str:
    bounds = (row.pages_is_upper_bound, row.pages_is_lower_bound)
    return {(True, False): "≤", (False, True): "≥", (True, True): "~"}.get(bounds, "") + _size(row.fault_bytes)


def _sequential(row: FileRow) -> str:
    return _share(row.read_sequential_count + row.write_sequential_count, row.pattern_count)


def _consecutive(row: FileRow) -> str:
    return _share(row.read_consecutive_count + row.write_consecutive_count, row.pattern_count)


_COLUMNS = (
    _Column("READS", 3, lambda row: _count(row.read_count)),
    _Column("R-BYTES", 1, lambda row: _size(row.read_bytes)),
    _Column("RE-READ", 5, lambda row: _ratio(row.reread_ratio)),
    # Side by side: how much of the file came in by reading it, and how much by touching its mapping.
    _Column("UNIQUE", 1, _unique),
    _Column("F-BYTES", 1, _fault_bytes),
    _Column("FAULTS", 4, lambda row: _count(row.fault_count)),
    _Column("MAJ%", 7, lambda row: _share(row.major_count, row.fault_count)),
    _Column("F-SEQ%", 2, lambda row: _share(row.fault_sequential_count, row.fault_pattern_count)),
    _Column("F-p50", 10, lambda row: _latency(row.fault_p50_ns)),
    _Column("F-p99", 8, lambda row: _latency(row.fault_p99_ns)),
    _Column("WRITES", 6, lambda row: _count(row.write_count)),
    _Column("W-BYTES", 1, lambda row: _size(row.write_bytes)),
    _Column("LOST", 1, lambda row: _count(row.folded_count)),
    _Column("FAILED", 7, lambda row: _count(row.failed_count)),
    _Column("CONSEC%", 9, _consecutive),
    _Column("SEQ%", 2, _sequential),
    _Column("SIZE", 6, lambda row: _size(row.typical_size)),
    _Column("p50", 8, lambda row: _latency(row.call_p50_ns)),
    _Column("p99", 3, lambda row: _latency(row.call_p99_ns)),
)


def _table(rows: Sequence[FileRow], width: int | None, paint: Paint) -> list[str]:
    """Header and one line per file; behind them which columns did not fit."""
    cells = {column: [column.cell(row) for row in rows] for column in _COLUMNS}
    telling = [column for column in _COLUMNS if any(cell != _NOTHING for cell in cells[column])]
    columns = telling.copy()
    widths = {column: max(len(column.title), *map(len, cells[column])) for column in columns}

    def room() -> int:
        return (width or 0) - sum(widths[column] + 1 for column in columns) - 1

    wanted = min(_FILE_WIDTH, max(cell_width(row.path) for row in rows))
    while width is not None and len(columns) > 1 and room() < wanted:
        columns.remove(max(columns, key=lambda column: column.rank))

    lines = [" ".join([*(column.title.rjust(widths[column]) for column in columns), " FILE"])]
    for at, row in enumerate(rows):
        path = row.path if width is None else elide_path(row.path, room())
        lines.append(" ".join([*(cells[column][at].rjust(widths[column]) for column in columns), f" {path}"]))
    hidden = [column.title for column in telling if column not in columns]
    if hidden:
        lines.append(paint(_DIM, f"-w shows more columns: {' '.join(hidden)}"))
    return lines


def _footnotes(rows: Sequence[FileRow], width: int | None, paint: Paint) -> list[str]:
    """What the columns can't say: calls that never returned, offsets that are not certain."""
    lines = []
    hung = [row for row in rows if row.unfinished_count]
    if hung:
        oldest = max(hung, key=lambda row: row.longest_unfinished_ns or 0)
        calls = counted(sum(row.unfinished_count for row in hung), "call")
        text = f"{calls} had not returned, the oldest after {format_latency(oldest.longest_unfinished_ns or 0)}: "
        path = oldest.path if width is None else elide_path(oldest.path, max(width - len(text), _FILE_WIDTH))
        lines.append(paint(_YELLOW, text + path))
    folded = sum(row.folded_count for row in rows)
    if folded:
        lost = counted(folded, "access")
        lines.append(f"counts and bytes include {lost} that were lost (LOST); the other figures are of the rest")
    inexact = sum(row.inexact_offsets for row in rows)
    if inexact:
        lines.append(f"{counted(inexact, 'offset')} inexact (shared file position): UNIQUE, SEQ%, CONSEC% may be off")
    return lines
