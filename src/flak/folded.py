"""Sums of lost accesses: what the programs have added to their table since it was last looked at.

The table is memory shared with the programs (struct flak_folded in bpf/flak.h; bpf/folded.bpf.c says how it is
filled). Here its rows become records of the meta stream, each with what is new, and rows that nothing is added to any
more are given back, so that a trace that loses something every day has room for what it loses next. Used by session.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flak._records import FOLDED, FoldedRecord

__all__ = ["FoldedSums"]

_INTERVAL_S = 1.0  # looking at all of the table takes some 5 ms
_IDLE_LOOKS = 5
"""A row that has not grown for so many looks may be given back."""
_OWNER_SIZE = 16  # struct folded_owner: its first eight bytes are zero when the row is free


class FoldedSums:
    """News of a table of sums, once a second at most.

    table: struct flak_folded[]; owners: struct folded_owner[], as many; the programs write both.
    is_losing: whether there are sums, which is cheap to ask.
    """

    def __init__(self, table: memoryview, owners: memoryview, is_losing: Callable[[], bool]) -> None:
        self._table = table
        self._owners = owners
        self._is_losing = is_losing
        self._seen: dict[int, FoldedRecord] = {}  # by place in the table
        self._grew: dict[int, int] = {}  # rows in use, with the look at which they last grew
        self._looks = 0
        self._next_s = 0.0

    def news(self, *, is_last: bool = False) -> list[FoldedRecord]:
        """What each sum that has grown has grown by; none before a second has passed, unless it is the last time."""
        now_s = time.monotonic()
        if now_s < self._next_s and not is_last:
            return []
        self._next_s = now_s + _INTERVAL_S
        if not self._is_losing():
            return []
        self._looks += 1
        found = []
        for place, row in enumerate(FOLDED.iter_unpack(bytes(self._table))):
            if not row[0]:  # its type: not filled in yet
                continue
            sums = FoldedRecord._make(row)
            seen = self._seen.get(place)
            if sums == seen:
                continue
            self._seen[place] = sums
            self._grew[place] = self._looks
            found.append(_since(seen, sums) if seen else sums)
        if len(self._grew) * FOLDED.size > len(self._table) // 2:
            self._give_back()
        return found

    def _give_back(self) -> None:
        """Free the rows that are idle. Their numbers stay and are counted from by whoever has the row next: should a
        program add to it at this very moment, that access has the wrong key, but none is missing.
        """
        for place, look in [*self._grew.items()]:
            if self._looks - look >= _IDLE_LOOKS:
                start = place * FOLDED.size
                self._table[start : start + 2] = bytes(2)  # its type first: a row without is not looked at
                self._owners[place * _OWNER_SIZE : place * _OWNER_SIZE + 8] = bytes(8)
                del self._grew[place]


def _since(seen: FoldedRecord, sums: FoldedRecord) -> FoldedRecord:
    """What has been added. The programs add one number after the other, so a sum may lag behind its count by an access;
    what is missing comes with the next news, and the last are taken when nothing is added any more.
    """
    return sums._replace(
        accesses=sums.accesses - seen.accesses,
        result=sums.result - seen.result,
        latency_ns=sums.latency_ns - seen.latency_ns,
    )
