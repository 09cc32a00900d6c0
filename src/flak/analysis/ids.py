"""Numbers met in the stream → numbers of our own, a whole column at a time.

Used for file ids, task ids and (file, process) pairs. Keys may be any 63-bit number, so a damaged or hostile
recording costs a search, not memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flak.analysis.groups import Ints

_CACHE_BITS = 14
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: Fibonacci hashing (Knuth, TAOCP 3, 6.4)

Resolve = Callable[[Ints, Ints], Ints]
"""New keys, ascending, and the index at which each was first met → their values."""


class IdMap:
    """A growing map of non-negative keys.

    A direct-mapped cache answers first, a binary search over the sorted keys what the cache misses.
    """

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._values = np.empty(0, np.int64)
        self._clear_cache()

    def lookup(self, keys: Ints, resolve: Resolve) -> Ints:
        """The value of each key; keys never met before are given one by `resolve`."""
        place = (keys.view(np.uint64) * _SPREAD >> np.uint64(64 - _CACHE_BITS)).view(np.int64)
        values = self._cached_values[place]
        missed = np.flatnonzero(self._cached_keys[place] != keys)
        if missed.size:
            values[missed] = self._search(keys[missed], missed, resolve)
            self._cached_keys[place[missed]] = keys[missed]
            self._cached_values[place[missed]] = values[missed]
        return values

    def items(self) -> tuple[Ints, Ints]:
        """Keys, ascending, and their values."""
        return self._keys, self._values

    def replace(self, keys: Ints, values: Ints) -> None:
        """Hold these and nothing else; keys ascending."""
        self._keys, self._values = keys, values
        self._clear_cache()

    def _search(self, keys: Ints, where: Ints, resolve: Resolve) -> Ints:
        at = np.searchsorted(self._keys, keys)
        is_new = np.ones(keys.size, np.bool_)
        if self._keys.size:
            is_new = self._keys[np.minimum(at, self._keys.size - 1)] != keys
        if is_new.any():
            new, first = np.unique(keys[is_new], return_index=True)
            self._insert(new, resolve(new, where[is_new][first]))
            at = np.searchsorted(self._keys, keys)
        return self._values[at]

    def _insert(self, keys: Ints, values: Ints) -> None:
        at = np.searchsorted(self._keys, keys)
        self._keys = np.insert(self._keys, at, keys)
        self._values = np.insert(self._values, at, values)

    def _clear_cache(self) -> None:
        self._cached_keys = np.full(1 << _CACHE_BITS, -1, np.int64)
        self._cached_values = np.zeros(1 << _CACHE_BITS, np.int64)
