"""Rows that belong together: bring them side by side, find where each group begins, add them up.

Small tools the rest of the analysis is made of. All work on whole columns at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_DIGIT = 16  # bits: numpy's stable sort of 16-bit integers is a radix sort, 5 times faster than sorting 64 bits


def group_order(group: Ints) -> Ints | None:
    """Indices that bring equal numbers together, ascending, rows of one group in the order they came.

    Takes numbers of 0 … 2**48 - 1. None when the rows are in order already, which is common and saves all gathering.
    """
    if group.size < 2 or bool((group[1:] >= group[:-1]).all()):
        return None
    order = np.argsort((group & 0xFFFF).astype(np.uint16), kind="stable")
    rest = group >> _DIGIT
    while rest.any():
        digit = (rest & 0xFFFF).astype(np.uint16)[order]
        order = order[np.argsort(digit, kind="stable")]
        rest = rest >> _DIGIT
    return order


def only(wanted: Flags, *columns: Ints) -> tuple[Ints, ...]:
    """The rows wanted of each column; the columns themselves where that is all of them, which is common."""
    return columns if wanted.all() else tuple(column[wanted] for column in columns)


def starts(*columns: NDArray[Any]) -> Ints:
    """Index of the first row of each run in which every column stays the same. No rows, no runs."""
    size = columns[0].size
    if not size:
        return np.empty(0, np.int64)
    is_start = np.zeros(size, np.bool_)
    is_start[0] = True
    for column in columns:
        is_start[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(is_start)


def lengths(first: Ints, size: int) -> Ints:
    """Rows in each run, given where the runs start and how many rows there are."""
    return np.diff(np.append(first, size))


def sums(column: NDArray[Any], first: Ints) -> Ints:
    """Sum of each run of rows, given where the runs start. Exact as long as a sum is below 2**53."""
    if first.size * 8 < column.size:
        return np.add.reduceat(column, first, dtype=np.int64)
    # reduceat costs about 20 ns a run; short runs are cheaper as bins.
    run = np.repeat(np.arange(first.size), lengths(first, column.size))
    return np.bincount(run, weights=column, minlength=first.size).astype(np.int64)


def grown(column: NDArray[Any], size: int, fill: int = 0) -> NDArray[Any]:
    """The column itself, or a longer copy when it has fewer than `size` places along its last axis.

    Grows to twice what is needed, so that adding one by one costs a constant each.
    """
    have = column.shape[-1]
    if size <= have:
        return column
    shape = (*column.shape[:-1], max(2 * size, 64))
    longer = np.full(shape, fill, column.dtype) if fill else np.zeros(shape, column.dtype)
    longer[..., :have] = column
    return longer
