"""Running sums and time spans per owner: the figures that need nothing but addition, minimum and maximum."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flak.analysis.groups import Ints, grown, starts, sums

_LATE = np.iinfo(np.int64).max


class Sum(IntEnum):
    """What is added up per owner."""

    COUNT = 0  # accesses that succeeded
    BYTES = 1  # … and the bytes they moved
    PLACED = 2  # … those of them whose offset is known
    PLACED_BYTES = 3
    SEQUENTIAL = 4
    CONSECUTIVE = 5
    MAJOR = 6
    WINDOWS = 7  # faults that brought in more pages than one, as far as told
    LONE = 8  # faults that did not tell
    SHARED = 9  # mark offset_shared
    FAILED = 10
    UNFINISHED = 11  # mark unfinished
    NO_RESULT = 12  # interrupted, or the result was not seen
    FOLDED = 13  # lost, and in the sums above: place, order and duration are not known


class Totals:
    """A column of `sums` per owner, and the owner's first and last time stamp."""

    def __init__(self) -> None:
        self.sums = np.zeros((len(Sum), 0), np.int64)
        self.first_ns = np.zeros(0, np.int64)
        self.last_ns = np.zeros(0, np.int64)
        self.longest_ns = np.zeros(0, np.int64)

    def reserve(self, owner_count: int) -> None:
        """Have room for owners 0 … owner_count - 1."""
        self.sums = grown(self.sums, owner_count)
        self.first_ns = grown(self.first_ns, owner_count, _LATE)
        self.last_ns = grown(self.last_ns, owner_count)
        self.longest_ns = grown(self.longest_ns, owner_count)

    def add(self, owner: Ints, columns: Mapping[Sum, NDArray[Any]]) -> None:
        """Add columns whose rows are grouped by `owner`."""
        first = starts(owner)
        for which, column in columns.items():
            self.sums[which, owner[first]] += sums(column, first)

    def span(self, owner: Ints, ts_ns: Ints, age_ns: Ints) -> None:
        """Widen the owners' time spans by these starts, and raise the ages of calls that had not returned."""
        first = starts(owner)
        owners = owner[first]
        self.first_ns[owners] = np.minimum(self.first_ns[owners], np.minimum.reduceat(ts_ns, first))
        self.last_ns[owners] = np.maximum(self.last_ns[owners], np.maximum.reduceat(ts_ns, first))
        self.longest_ns[owners] = np.maximum(self.longest_ns[owners], np.maximum.reduceat(age_ns, first))

    def rename(self, owner: int, new_owner: int) -> None:
        """What was added to one owner belongs to another from now on."""
        self.sums[:, new_owner] += self.sums[:, owner]
        self.sums[:, owner] = 0
        self.first_ns[new_owner] = min(self.first_ns[new_owner], self.first_ns[owner])
        self.last_ns[new_owner] = max(self.last_ns[new_owner], self.last_ns[owner])
        self.longest_ns[new_owner] = max(self.longest_ns[new_owner], self.longest_ns[owner])
