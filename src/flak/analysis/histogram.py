"""Distributions in bounded memory: log-linear histograms, one per series, for any number of series at once.

A value is filed by its power of two and the next five bits, 32 buckets per octave. Values of one bucket therefore
differ by at most 1/32; a bucket remembers how many values it holds and their sum, and is represented by their mean.
So any value read back is within 3.2 % of the true one (1/32 = 3.125 %), and exact where all values of its bucket
were equal. The method is HdrHistogram's (https://hdrhistogram.org); the five bits are read from the mantissa of the
value as a float64.

Most series hold a few values: those are kept as a sorted list of buckets in use. Series of many values get a row of
all buckets, 32 KiB, where filing a value is an addition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flak.analysis.groups import Flags, Ints, group_order, grown, lengths, starts

_SUB_BITS = 5
_SHIFT = np.int64(52 - _SUB_BITS)
_BEFORE_ONE = np.int64((1023 << _SUB_BITS) - 1)  # bucket 0 is the value 0, bucket 1 begins at 1
_KEY_BITS = 11  # 2,018 buckets: the last one begins at 2**63
_HIGHEST = np.nextafter(2.0**63, 0)  # what is nearer to 2**63 than to this, as a read of SSIZE_MAX bytes, would not fit
_MANY = 1024
_PATIENCE = 1 << 16

Floats = NDArray[np.float64]


def buckets(values: Ints) -> Ints:
    """Bucket of each non-negative value: 0 for 0, from 1 on 32 for each power of two."""
    bucket: Ints = (values.astype(np.float64).view(np.int64) >> _SHIFT) - _BEFORE_ONE
    return np.maximum(bucket, 0)


@dataclass(slots=True)
class Bins:
    """Buckets in use: `key` is series << 11 | bucket, `total` the sum of the values."""

    key: Ints
    count: Ints
    total: Floats

    @property
    def series(self) -> Ints:
        """Series of each bucket."""
        return self.key >> _KEY_BITS

    @property
    def mean(self) -> Ints:
        """What each bucket stands for."""
        return np.minimum(np.rint(self.total / self.count), _HIGHEST).astype(np.int64)

    def take(self, rows: Ints | Flags) -> Bins:
        """These rows only."""
        return Bins(self.key[rows], self.count[rows], self.total[rows])


def _merged(parts: list[Bins]) -> Bins:
    """All parts as one row per key, ascending."""
    key = np.concatenate([part.key for part in parts])
    count = np.concatenate([part.count for part in parts])
    total = np.concatenate([part.total for part in parts])
    order = group_order(key)
    if order is not None:
        key, count, total = key[order], count[order], total[order]
    first = starts(key)
    if first.size == key.size:
        return Bins(key, count, total)
    return Bins(key[first], np.add.reduceat(count, first), np.add.reduceat(total, first))


class Histograms:
    """One histogram per series; series are small numbers."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._few = Bins(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
        self._waiting: list[Bins] = []
        self._waiting_count = 0
        self._row = np.empty(0, np.int64)  # by series: its row below << 11, −1 while it holds few values
        self._row_series: list[int] = []
        self._counts = np.zeros(0, np.int64)
        self._totals = np.zeros(0, np.float64)

    def add(self, series: Ints, values: Ints) -> None:
        """File each value, 0 or more, under its series' number."""
        if not values.size:
            return
        bucket, row, amount = buckets(values), self._row_of(series), values.astype(np.float64)
        has_row = row >= 0
        if not has_row.all():
            key = (series << _KEY_BITS | bucket)[~has_row]
            self._wait(Bins(key, np.ones_like(key), amount[~has_row]))
            bucket, row, amount = bucket[has_row], row[has_row], amount[has_row]
        np.add.at(self._counts, row + bucket, 1)
        np.add.at(self._totals, row + bucket, amount)

    def rename(self, series: int, new_series: int) -> None:
        """What was filed under one series belongs to another from now on."""
        bins = self._all()
        bins.key[bins.series == series] += (new_series - series) << _KEY_BITS
        self._clear()
        self._wait(bins)

    def quantiles(self, series_count: int, percent: int) -> Ints:
        """Of each series the smallest value that at least `percent` of its values do not exceed; −1 without values."""
        bins, result = self._all(), np.full(series_count, -1, np.int64)
        first = starts(bins.series)
        if first.size:
            up_to = np.cumsum(bins.count)
            below = up_to[first] - bins.count[first]
            rank = -(-np.add.reduceat(bins.count, first) * percent // 100)  # nearest rank, rounded up
            at = np.searchsorted(up_to, below + rank)
            result[bins.series[first]] = bins.mean[at]
        return result

    def modes(self, series_count: int) -> Ints:
        """Of each series the most frequent value, the larger where two are equally frequent; −1 without values.

        Values of one bucket count as one.
        """
        bins, result = self._all(), np.full(series_count, -1, np.int64)
        first = starts(bins.series)
        if first.size:
            most = np.repeat(np.maximum.reduceat(bins.count, first), lengths(first, bins.key.size))
            winners = bins.take(bins.count == most)
            # Several may remain per series: keys ascend and the last assignment stands, so the largest wins.
            result[winners.series] = winners.mean
        return result

    def _all(self) -> Bins:
        self._settle()
        at = np.flatnonzero(self._counts)
        series = np.array(self._row_series, np.int64)[at >> _KEY_BITS]
        key = series << _KEY_BITS | at & ((1 << _KEY_BITS) - 1)
        return _merged([self._few, Bins(key, self._counts[at], self._totals[at])])

    def _wait(self, bins: Bins) -> None:
        self._waiting.append(bins)
        self._waiting_count += bins.key.size
        if self._waiting_count > max(_PATIENCE, self._few.key.size):
            self._settle()

    def _settle(self) -> None:
        """Merge what waits; give a row to each series that now holds many values."""
        bins = _merged([self._few, *self._waiting])
        self._waiting, self._waiting_count = [], 0
        first = starts(bins.series)
        if first.size:
            held = np.add.reduceat(bins.count, first)
            holders = bins.series[first]
            self._give_rows(holders[(held > _MANY) & (self._row_of(holders) < 0)])
            row = self._row[bins.series]
            has_row = row >= 0
            at = (row + (bins.key & ((1 << _KEY_BITS) - 1)))[has_row]
            self._counts[at] += bins.count[has_row]
            self._totals[at] += bins.total[has_row]
            bins = bins.take(~has_row)
        self._few = bins

    def _row_of(self, series: Ints) -> Ints:
        self._row = grown(self._row, int(series.max()) + 1, -1)
        row: Ints = self._row[series]
        return row

    def _give_rows(self, series: Ints) -> None:
        self._row[series] = (len(self._row_series) + np.arange(series.size)) << _KEY_BITS
        self._row_series += series.tolist()
        size = len(self._row_series) << _KEY_BITS
        self._counts, self._totals = grown(self._counts, size), grown(self._totals, size)
