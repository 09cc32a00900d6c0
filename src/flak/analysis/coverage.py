"""Which granules of one file have been touched, in bounded memory.

The fallback of `intervals.Unions` for files touched in very many places: a bit per 4 KiB, and once a file is longer
than `_MAX_GRANULES` of those, granules twice as large, and so on. What it counts is an upper bound, and exact as long
as every range began and ended at a granule's edge, as most random access does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flak.analysis.groups import Ints, grown

_PAGE_BITS = 12
_MAX_GRANULES = 1 << 24  # 2 MiB of memory: files up to 64 GiB by the page
_NARROW = 32  # granules: ranges of up to so many are expanded together, of longer ones the middle is filled
_BITS_SET = np.array([n.bit_count() for n in range(256)], np.uint8)


class Coverage:
    """Touched granules of one file."""

    def __init__(self) -> None:
        self._shift = _PAGE_BITS
        self._is_exact = True
        self._seen: NDArray[np.uint8] = np.zeros(0, np.uint8)  # granule n is bit n & 7 of byte n >> 3

    @property
    def granule(self) -> int:
        """Bytes that are told apart, a power of two; 1 when what is covered is exact."""
        return 1 if self._is_exact else 1 << self._shift

    @property
    def covered(self) -> int:
        """Bytes of all granules touched."""
        return int(_BITS_SET[self._seen].sum(dtype=np.int64)) << self._shift

    def add(self, begin: Ints, end: Ints) -> None:
        """Touch the byte ranges [begin, end), none of them empty."""
        if not begin.size:
            return
        highest = int(end.max()) - 1
        while highest >> self._shift >= _MAX_GRANULES:
            self._coarsen()
        if self._is_exact and ((begin | end) & ((1 << self._shift) - 1)).any():
            self._is_exact = False
        self._seen = grown(self._seen, (highest >> self._shift + 3) + 1)
        first, until = begin >> self._shift, ((end - 1) >> self._shift) + 1
        is_wide = until - first > _NARROW
        if is_wide.any():
            first, until = self._fill(first, until, is_wide)
        granules = first if bool((until - first == 1).all()) else _expanded(first, until)
        np.bitwise_or.at(self._seen, granules >> 3, (1 << (granules & 7)).astype(np.uint8))

    def absorb(self, other: Coverage) -> None:
        """Touch everything that `other` has; `other` may be left coarser than it was."""
        while self._shift < other._shift:
            self._coarsen()
        while other._shift < self._shift:
            other._coarsen()
        self._is_exact = self._is_exact and other._is_exact
        self._seen = grown(self._seen, other._seen.size)
        self._seen[: other._seen.size] |= other._seen

    def _fill(self, first: Ints, until: Ints, is_wide: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Set the whole bytes of wide ranges of granules; the ranges that are left to set."""
        wide_first, wide_until = first[is_wide], until[is_wide]
        from_byte, to_byte = (wide_first + 7) >> 3, wide_until >> 3
        for a, b in zip(from_byte.tolist(), to_byte.tolist(), strict=True):
            self._seen[a:b] = 0xFF
        left_first = np.concatenate([first[~is_wide], wide_first, to_byte << 3])
        left_until = np.concatenate([until[~is_wide], from_byte << 3, wide_until])
        return left_first, left_until

    def _coarsen(self) -> None:
        self._shift += 1
        self._is_exact = False
        pairs = np.unpackbits(self._seen, bitorder="little").reshape(-1, 2)
        self._seen = np.packbits(pairs.any(axis=1), bitorder="little")


def _expanded(first: Ints, until: Ints) -> Ints:
    """Every number of the ranges [first, until), one range after the other."""
    counts = until - first
    ends = np.cumsum(counts)
    return np.repeat(first - (ends - counts), counts) + np.arange(int(ends[-1]))
