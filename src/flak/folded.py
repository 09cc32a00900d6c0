"""Sums of lost accesses: what the programs have added to their table since it was last looked at.

The table is memory shared with the programs (struct flak_folded in bpf/flak.h; bpf/folded.bpf.c says how it is
filled). Here its rows become records of the meta stream, each with what is new. Used by session.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flak._records import FOLDED, FoldedRecord

__all__ = ["FoldedSums"]

_INTERVAL_S = 1.0  # looking at all of the table takes some 5 ms


class FoldedSums:
    """News of a table of sums, once a second at most. is_losing: whether there are sums, which is cheap to ask."""

    def __init__(self, table: memoryview, is_losing: Callable[[], bool]) -> None:
        self._table = table
        self._is_losing = is_losing
        self._seen: dict[int, FoldedRecord] = {}  # by place in the table
        self._next_s = 0.0

    def news(self, *, is_last: bool = False) -> list[FoldedRecord]:
        """What each sum that has grown has grown by; none before a second has passed, unless it is the last time."""
        now_s = time.monotonic()
        if now_s < self._next_s and not is_last:
            return []
        self._next_s = now_s + _INTERVAL_S
        if not self._is_losing():
            return []
        found = []
        for place, row in enumerate(FOLDED.iter_unpack(bytes(self._table))):
            if not row[0]:  # its type: not filled in yet
                continue
            sums = FoldedRecord._make(row)
            seen = self._seen.get(place)
            if sums == seen:
                continue
            self._seen[place] = sums
            found.append(_since(seen, sums) if seen else sums)
        return found


def _since(seen: FoldedRecord, sums: FoldedRecord) -> FoldedRecord:
    """What has been added. The programs add one number after the other, so a sum may lag behind its count by an access;
    what is missing comes with the next news, and the last are taken when nothing is added any more.
    """
    return sums._replace(
        accesses=sums.accesses - seen.accesses,
        result=sums.result - seen.result,
        latency_ns=sums.latency_ns - seen.latency_ns,
    )
