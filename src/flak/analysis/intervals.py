"""Which bytes have been touched: unions of byte ranges, one per owner, for any number of owners at once.

An owner is a number (a file's reads, its writes, the pages of its faults). Ranges are kept merged and sorted in one
table for all owners, because most traces touch many files in few places. New ranges wait in a list and are merged in
when they are as many as the table, hence a constant number of times each. An owner with more than `MAX_RANGES` gaps
is kept by the page from then on (`coverage.Coverage`), so memory per owner is bounded and its union an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flak.analysis.coverage import Coverage
from flak.analysis.groups import Flags, Ints, group_order, grown, lengths, only, starts

MAX_RANGES = 4096
"""Disjoint ranges kept exactly per owner: 24 bytes each."""
_PATIENCE = 1 << 16


@dataclass(slots=True)
class Ranges:
    """Byte ranges [begin, end) with their owners; none is empty."""

    owner: Ints
    begin: Ints
    end: Ints

    def take(self, rows: Ints | Flags) -> Ranges:
        """These rows only, in this order."""
        return Ranges(self.owner[rows], self.begin[rows], self.end[rows])

    def merged(self) -> Ranges:
        """The same bytes as disjoint ranges that do not touch, sorted by owner and begin."""
        ranges = self.by_owner()
        falls = (ranges.begin[1:] < ranges.begin[:-1]) & (ranges.owner[1:] == ranges.owner[:-1])
        if falls.any():
            ranges = ranges.take(np.argsort(ranges.begin)).by_owner()
        reach = _running_max(ranges.owner, ranges.end)
        is_start = np.ones(reach.size, np.bool_)
        is_start[1:] = (ranges.owner[1:] != ranges.owner[:-1]) | (ranges.begin[1:] > reach[:-1])
        first = np.flatnonzero(is_start)
        last = np.append(first[1:], reach.size) - 1
        return Ranges(ranges.owner[first], ranges.begin[first], reach[last[: first.size]])

    def by_owner(self) -> Ranges:
        """The same rows, grouped by owner, each owner's in the order they were in."""
        order = group_order(self.owner)
        return self if order is None else self.take(order)


def _joined(parts: list[Ranges]) -> Ranges:
    return Ranges(
        np.concatenate([part.owner for part in parts]),
        np.concatenate([part.begin for part in parts]),
        np.concatenate([part.end for part in parts]),
    )


def _running_max(owner: Ints, value: Ints) -> Ints:
    """Highest value so far within each run of one owner.

    Each pass looks twice as far back as the one before. A pass that changes nothing ends it: what lies further back
    is then no higher either. Ranges of one size take a single pass.
    """
    result = value.copy()
    reach = 1
    while reach < result.size:
        is_higher = (owner[reach:] == owner[:-reach]) & (result[:-reach] > result[reach:])
        if not is_higher.any():
            break
        result[reach:] = np.where(is_higher, result[:-reach], result[reach:])
        reach *= 2
    return result


class Unions:
    """The union of all ranges added, per owner."""

    def __init__(self) -> None:
        nothing = np.empty(0, np.int64)
        self._table = Ranges(nothing, nothing, nothing)
        self._waiting: list[Ranges] = []
        self._waiting_count = 0
        self._coverages: dict[int, Coverage] = {}
        self._is_covered = np.zeros(0, np.bool_)  # by owner: it is in _coverages

    def add(self, ranges: Ranges) -> None:
        """Add ranges in any order, overlapping or not."""
        if self._coverages:
            ranges = self._covered(ranges)
        merged = ranges.merged()
        self._waiting.append(merged)
        self._waiting_count += merged.owner.size
        if self._waiting_count > max(_PATIENCE, self._table.owner.size):
            self._settle()

    def rename(self, owner: int, new_owner: int) -> None:
        """What was touched under one owner's number belongs to another's from now on."""
        self._settle()
        self._table.owner[self._table.owner == owner] = new_owner
        coverage = self._coverages.pop(owner, None)
        if coverage:
            self._coverages.setdefault(new_owner, Coverage()).absorb(coverage)
            self._is_covered = grown(self._is_covered, new_owner + 1)
            self._is_covered[owner], self._is_covered[new_owner] = False, True
        self._settle()

    def totals(self, owner_count: int) -> tuple[Ints, Ints]:
        """For owners 0 … owner_count - 1: bytes in the union, and bytes told apart (1: the union is exact)."""
        self._settle()
        table = self._table
        union = np.zeros(owner_count, np.int64)
        granule = np.ones(owner_count, np.int64)
        first = starts(table.owner)
        if first.size:
            union[table.owner[first]] = np.add.reduceat(table.end - table.begin, first)
        for owner, coverage in self._coverages.items():
            union[owner], granule[owner] = coverage.covered, coverage.granule
        return union, granule

    def _settle(self) -> None:
        """Merge what waits into the table; move owners that have grown too ragged out of it."""
        table = self._covered(_joined([self._table, *self._waiting])).merged()
        self._waiting, self._waiting_count = [], 0
        first = starts(table.owner)
        is_ragged = lengths(first, table.owner.size) > MAX_RANGES
        if is_ragged.any():
            ragged = table.owner[first[is_ragged]]
            self._coverages |= {owner: Coverage() for owner in ragged.tolist()}
            self._is_covered = grown(self._is_covered, int(ragged.max()) + 1)
            self._is_covered[ragged] = True
            table = self._covered(table)
        self._table = table

    def _covered(self, ranges: Ranges) -> Ranges:
        """Put the ranges of owners that are kept by the page where they belong; the others."""
        if not self._coverages or not ranges.owner.size:
            return ranges
        self._is_covered = grown(self._is_covered, int(ranges.owner.max()) + 1)
        is_own = self._is_covered[ranges.owner]
        if not is_own.any():
            return ranges
        own = Ranges(*only(is_own, ranges.owner, ranges.begin, ranges.end)).by_owner()
        first = starts(own.owner)
        for at, until in zip(first.tolist(), np.append(first[1:], own.owner.size).tolist(), strict=True):
            self._coverages[int(own.owner[at])].add(own.begin[at:until], own.end[at:until])
        return ranges.take(~is_own)
