"""Access patterns per file, computed while the events pass by.

`FilePatterns` takes batches of raw slots and keeps a bounded amount per file; nothing it holds grows with the number
of events. Work is done on chunks of a fixed number of slots, counted from the first slot of the run, so the figures
do not depend on how the stream was cut into batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flak._records import SLOT_SIZE
from flak.analysis.cursors import Cursors
from flak.analysis.groups import Ints, only
from flak.analysis.histogram import Histograms
from flak.analysis.identity import Files
from flak.analysis.ids import IdMap
from flak.analysis.intervals import Ranges, Unions
from flak.analysis.rows import FileRow
from flak.analysis.slots import FAULT, KINDS, NO_RESULT, READ, SLOT, WRITE, Columns, columns, kind_of, with_file
from flak.analysis.totals import Sum, Totals
from flak.events import Batch, EventSource, Exit, Folded, Mark, Tables

_CHUNK = 1 << 15  # slots; a chunk's columns stay in the caches
_MAX_RW_COUNT = 0x7FFF_F000  # INT_MAX & PAGE_MASK: the most that a call moves (read(2), sendfile(2)), in bytes
_CALL_LATENCY, _FAULT_LATENCY, _SIZE = range(3)  # series of histograms, KINDS of them per file


class FilePatterns:
    """Figures per file of everything added so far. `page_size` is the traced host's, in bytes."""

    def __init__(self, *, page_size: int = 4096) -> None:
        self._page_size = page_size
        self._tables = Tables()
        self._staging = np.empty(_CHUNK * SLOT_SIZE, np.uint8)
        self._staged = 0  # bytes
        self._files = Files()
        self._tasks = IdMap()  # task_id → number of its process
        self._processes: dict[tuple[int, int], int] = {}  # Task.process → its number, of those that live
        self._process_count = 0
        self._ending: set[tuple[int, int]] = set()  # processes whose end came with the current chunk
        self._ended: set[tuple[int, int]] = set()  # … with the chunk before: their last accesses are behind us
        self._totals = Totals()
        self._cursors = Cursors()
        self._unions = Unions()
        self._histograms = Histograms()

    @property
    def process_count(self) -> int:
        """Processes that read, wrote or faulted."""
        return self._process_count

    def add(self, batch: Batch, tables: Tables) -> None:
        """Take the accesses of one drain round; `tables` resolve its ids."""
        self._tables = tables
        left = np.frombuffer(batch.slots, np.uint8) if len(batch.slots) else self._staging[:0]
        while left.size:
            if not self._staged and left.size >= self._staging.size:
                self._add_chunk(left[: self._staging.size])
                left = left[self._staging.size :]
                continue
            taken = min(left.size, self._staging.size - self._staged)
            self._staging[self._staged : self._staged + taken] = left[:taken]
            self._staged += taken
            left = left[taken:]
            if self._staged == self._staging.size:
                self._flush()
        if batch.folded:
            self._flush()
            self._add_folded(batch.folded)
        for event in batch.process_events:
            if isinstance(event, Exit) and event.is_last and event.task:
                self._ending.add(event.task.process)

    def results(self) -> list[FileRow]:
        """A row per file that was read, written or faulted on, in the order of first access."""
        self._flush()
        rows = self._rows()
        rows.sort(key=lambda row: row.first_ns)
        return rows

    def _flush(self) -> None:
        staged, self._staged = self._staged, 0
        self._add_chunk(self._staging[:staged])

    def _add_chunk(self, raw: NDArray[np.uint8]) -> None:
        self._fold()
        accesses = with_file(raw.view(SLOT))
        if accesses.size:
            file = self._files.numbers(accesses["file_id"], accesses["path_id"], self._tables)
            self._totals.reserve(len(self._files) * KINDS)
            chunk = columns(accesses, file)
            if chunk.owner.size:
                self._count(chunk)
        self._forget_ended()

    def _add_folded(self, folded: Sequence[Folded]) -> None:
        """Lost accesses count by what is known of them: how many, how they ended, how much they moved."""
        for lost in folded:
            kind = kind_of(lost.access.opcode)
            if kind is None or not lost.access.raw_file_id:
                continue
            file_ids, path_ids = np.array([[lost.access.raw_file_id], [lost.access.path_id]], np.uint32)
            owner = self._files.numbers(file_ids, path_ids, self._tables) * KINDS + kind
            self._totals.reserve(len(self._files) * KINDS)
            self._totals.span(owner, np.array([lost.first_ns]), np.zeros(1, np.int64))
            self._totals.span(owner, np.array([lost.ts_ns]), np.zeros(1, np.int64))
            for which, amount in _amounts(lost).items():
                self._totals.sums[which, owner] += amount

    def _count(self, chunk: Columns) -> None:
        """Everything that was tried."""
        has_result = chunk.has_result
        is_done = has_result & (chunk.ret >= 0)
        is_unfinished = (chunk.marks & Mark.UNFINISHED) != 0
        self._totals.span(chunk.owner, chunk.ts_ns, np.where(is_unfinished, chunk.latency_ns, 0))
        if not is_done.all():
            sums = {
                Sum.FAILED: has_result & ~is_done,
                Sum.UNFINISHED: is_unfinished,
                Sum.NO_RESULT: ~(has_result | is_unfinished),
            }
            self._totals.add(chunk.owner, sums)
        pair = self._cursors.pairs(chunk.file, self._tasks.lookup(chunk.task_id, self._processes_of))
        self._count_done(chunk.where(is_done), *only(is_done, pair))

    def _count_done(self, done: Columns, pair: Ints) -> None:
        """What succeeded: amounts, sizes, latencies."""
        if not done.owner.size:
            return
        is_fault = done.kind == FAULT
        sums = {Sum.COUNT: np.ones(done.ret.size, np.int64), Sum.BYTES: np.where(is_fault, 0, done.ret)}
        if is_fault.any():
            sums |= {
                Sum.MAJOR: (done.marks & Mark.IS_MAJOR) != 0,
                Sum.WINDOWS: is_fault & (done.ret > 1),
                Sum.LONE: is_fault & (done.ret == 0),
            }
        self._totals.add(done.owner, sums)
        series = done.file * KINDS
        latencies = series + np.where(is_fault, _FAULT_LATENCY, _CALL_LATENCY)
        self._histograms.add(*only(done.latency_ns >= 0, latencies, done.latency_ns))
        sizes = np.where(done.size_req > _MAX_RW_COUNT, done.ret, done.size_req)  # more is asked for: all there is
        self._histograms.add(*only(~is_fault & (sizes >= 0), series + _SIZE, sizes))
        is_placed = done.file_offset >= 0
        self._count_placed(done.where(is_placed), *only(is_placed, pair))

    def _count_placed(self, placed: Columns, pair: Ints) -> None:
        """What happened at a known place in its file: order and repetition."""
        if not placed.owner.size:
            return
        is_fault = placed.kind == FAULT
        moved = np.where(is_fault, 1, placed.ret)
        is_sequential, is_consecutive = self._cursors.advance(pair, placed.kind, placed.file_offset, moved)
        sums = {
            Sum.PLACED: np.ones(moved.size, np.int64),
            Sum.PLACED_BYTES: np.where(is_fault, 0, placed.ret),
            Sum.SEQUENTIAL: is_sequential,
            Sum.CONSECUTIVE: is_consecutive,
            Sum.SHARED: (placed.marks & Mark.OFFSET_SHARED) != 0,
        }
        self._totals.add(placed.owner, sums)
        begin, end = placed.file_offset, placed.file_offset + placed.ret
        if is_fault.any():
            pages_before = np.clip(placed.fd, 0, np.maximum(placed.ret - 1, 0))
            window_begin = np.maximum(placed.file_offset - pages_before * self._page_size, 0)
            window_end = window_begin + np.maximum(placed.ret, 1) * self._page_size
            begin, end = np.where(is_fault, window_begin, begin), np.where(is_fault, window_end, end)
        self._unions.add(Ranges(*only(end > begin, placed.owner, begin, end)))

    def _processes_of(self, task_ids: Ints, _first: Ints) -> Ints:
        return np.array([self._process_of(task_id) for task_id in task_ids.tolist()], np.int64)

    def _process_of(self, task_id: int) -> int:
        task, number = self._tables.tasks.get(task_id), self._process_count
        if task is not None:
            number = self._processes.setdefault(task.process, number)
        self._process_count = max(self._process_count, number + 1)
        return number

    def _forget_ended(self) -> None:
        """Drop the cursors of processes that ended a chunk ago.

        Not at once: a round's process events are drained after its accesses were cut off, so the last accesses of a
        process may follow its end by a round.
        """
        if self._ended:
            numbers = [self._processes.pop(process) for process in self._ended if process in self._processes]
            self._cursors.forget(np.array(sorted(numbers), np.int64))
        self._ended, self._ending = self._ending, set()

    def _fold(self) -> None:
        """Put together what was counted apart because a file's identity arrived late."""
        for number, true_number in self._files.fold(self._tables):
            for kind in range(KINDS):
                old, new = number * KINDS + kind, true_number * KINDS + kind
                self._totals.rename(old, new)
                self._unions.rename(old, new)
                self._histograms.rename(old, new)
            self._cursors.rename(number, true_number)

    def _rows(self) -> list[FileRow]:
        file_count = len(self._files)
        owner_count, shape = file_count * KINDS, (file_count, KINDS)
        self._totals.reserve(owner_count)
        sums = self._totals.sums[:, :owner_count].reshape(len(Sum), *shape)
        unions, granules = (column.reshape(shape) for column in self._unions.totals(owner_count))
        p50_ns = self._histograms.quantiles(owner_count, 50).reshape(shape)
        p99_ns = self._histograms.quantiles(owner_count, 99).reshape(shape)
        longest_ns = self._totals.longest_ns[:owner_count].reshape(shape).max(axis=1)
        fault_pages = unions[:, FAULT] // self._page_size
        is_window = sums[Sum.WINDOWS, :, FAULT] > 0
        label = self._files.labels(self._tables)
        columns: dict[str, list[Any]] = {
            "file_id": self._files.file_ids.tolist(),
            "path": [label(number) for number in range(file_count)],
            "fault_count": sums[Sum.COUNT, :, FAULT].tolist(),
            "major_count": sums[Sum.MAJOR, :, FAULT].tolist(),
            "fault_pages": fault_pages.tolist(),
            "fault_bytes": (fault_pages * self._page_size).tolist(),
            "fault_pattern_count": sums[Sum.PLACED, :, FAULT].tolist(),
            "fault_sequential_count": sums[Sum.SEQUENTIAL, :, FAULT].tolist(),
            "pages_is_upper_bound": (is_window | (granules[:, FAULT] > self._page_size)).tolist(),
            "pages_is_lower_bound": (is_window | (sums[[Sum.LONE, Sum.FOLDED], :, FAULT].max(axis=0) > 0)).tolist(),
            "reread_ratio": _ratio(sums[Sum.PLACED_BYTES, :, READ], unions[:, READ]),
            "unique_granule": granules[:, [READ, WRITE]].max(axis=1).tolist(),
            "typical_size": _or_none(self._histograms.modes(owner_count).reshape(shape)[:, _SIZE]),
            "call_p50_ns": _or_none(p50_ns[:, _CALL_LATENCY]),
            "call_p99_ns": _or_none(p99_ns[:, _CALL_LATENCY]),
            "fault_p50_ns": _or_none(p50_ns[:, _FAULT_LATENCY]),
            "fault_p99_ns": _or_none(p99_ns[:, _FAULT_LATENCY]),
            "failed_count": sums[Sum.FAILED].sum(axis=1).tolist(),
            "unfinished_count": sums[Sum.UNFINISHED].sum(axis=1).tolist(),
            "no_result_count": sums[Sum.NO_RESULT].sum(axis=1).tolist(),
            "longest_unfinished_ns": _or_none(np.where(longest_ns > 0, longest_ns, -1)),
            "folded_count": sums[Sum.FOLDED].sum(axis=1).tolist(),
            "inexact_offsets": sums[Sum.SHARED].sum(axis=1).tolist(),
            "process_count": self._cursors.process_counts(file_count).tolist(),
            "first_ns": self._totals.first_ns[:owner_count].reshape(shape).min(axis=1).tolist(),
            "last_ns": self._totals.last_ns[:owner_count].reshape(shape).max(axis=1).tolist(),
        }
        for verb, kind in (("read", READ), ("write", WRITE)):
            columns |= {
                f"{verb}_count": sums[Sum.COUNT, :, kind].tolist(),
                f"{verb}_bytes": sums[Sum.BYTES, :, kind].tolist(),
                f"unique_{verb}_bytes": unions[:, kind].tolist(),
                f"{verb}_pattern_count": sums[Sum.PLACED, :, kind].tolist(),
                f"{verb}_sequential_count": sums[Sum.SEQUENTIAL, :, kind].tolist(),
                f"{verb}_consecutive_count": sums[Sum.CONSECUTIVE, :, kind].tolist(),
            }
        attempts = sums[[Sum.COUNT, Sum.FAILED, Sum.UNFINISHED, Sum.NO_RESULT]]
        was_touched = attempts.sum(axis=(0, 2)) > 0
        values = compress(zip(*columns.values(), strict=True), was_touched.tolist())
        return [FileRow(**dict(zip(columns, row, strict=True))) for row in values]


def _amounts(lost: Folded) -> dict[Sum, int]:
    marks, count = lost.access.raw_marks, lost.count
    if marks & Mark.UNFINISHED:
        return {Sum.FOLDED: count, Sum.UNFINISHED: count}
    if marks & NO_RESULT:
        return {Sum.FOLDED: count, Sum.NO_RESULT: count}
    if lost.access.raw_ret < 0:
        return {Sum.FOLDED: count, Sum.FAILED: count}
    is_major = count if marks & Mark.IS_MAJOR else 0
    return {Sum.FOLDED: count, Sum.COUNT: count, Sum.BYTES: lost.size_ret or 0, Sum.MAJOR: is_major}


def _or_none(values: Ints) -> list[int | None]:
    """−1 becomes None."""
    return [None if value < 0 else value for value in values.tolist()]


def _ratio(part: Ints, whole: Ints) -> list[float | None]:
    return [a / b if b else None for a, b in zip(part.tolist(), whole.tolist(), strict=True)]


def analyse(source: EventSource, *, page_size: int = 4096) -> list[FileRow]:
    """A row per file of a whole run. Reads the source to its end."""
    patterns = FilePatterns(page_size=page_size)
    for batch in source.batches():
        patterns.add(batch, source.tables)
    return patterns.results()
