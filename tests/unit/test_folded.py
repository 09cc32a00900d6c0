"""Sums of lost accesses, as user space reads them: here the table is plain memory, filled as bpf/folded.bpf.c does."""

from __future__ import annotations

from collections import Counter

import pytest

from flak import folded
from flak._records import FOLDED, FOLDED_SLOTS, FoldedRecord, Meta
from flak.folded import FoldedSums


class Table:
    """The programs' side."""

    def __init__(self) -> None:
        self.rows = memoryview(bytearray(FOLDED.size * FOLDED_SLOTS))
        self.owners = memoryview(bytearray(16 * FOLDED_SLOTS))

    def add(self, file_id: int, count: int = 1) -> bool:
        """Accesses of 10 bytes to a file. False: no room near its own."""
        for place in range(file_id, file_id + 32):
            place %= FOLDED_SLOTS
            start = place * FOLDED.size
            row = FoldedRecord._make(FOLDED.unpack_from(self.rows, start))
            owner = int.from_bytes(self.owners[place * 16 : place * 16 + 8], "little")
            if owner not in (0, file_id):
                continue
            self.owners[place * 16 : place * 16 + 8] = file_id.to_bytes(8, "little")
            row = row._replace(type=Meta.FOLDED, size=FOLDED.size, file_id=file_id)
            row = row._replace(accesses=row.accesses + count, result=row.result + 10 * count)
            FOLDED.pack_into(self.rows, start, *row)
            return True
        return False


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(folded, "_INTERVAL_S", 0.0)
    return Table()


def test_news_are_what_has_been_added(table: Table) -> None:
    sums = FoldedSums(table.rows, table.owners, lambda: True)
    table.add(7, 3)
    assert [(s.file_id, s.accesses, s.result) for s in sums.news()] == [(7, 3, 30)]
    assert sums.news() == []
    table.add(7, 2)
    table.add(8)
    assert [(s.file_id, s.accesses, s.result) for s in sums.news()] == [(7, 2, 20), (8, 1, 10)]


def test_many_times_more_files_than_the_table_holds_are_summed_exactly_if_not_at_once(table: Table) -> None:
    sums = FoldedSums(table.rows, table.owners, lambda: True)
    told: Counter[int] = Counter()
    made: Counter[int] = Counter()
    for number in range(1, 5 * FOLDED_SLOTS):
        assert table.add(number, number % 3 + 1), "a row was not given back"
        made[number] += number % 3 + 1
        table.add(1)  # one that never rests
        made[1] += 1
        if number % 1000 == 0:
            for row in sums.news():
                told[row.file_id] += row.accesses
                assert row.result == 10 * row.accesses
    for row in sums.news(is_last=True):
        told[row.file_id] += row.accesses
    assert told == made


def test_rows_are_kept_while_there_is_room(table: Table) -> None:
    sums = FoldedSums(table.rows, table.owners, lambda: True)
    table.add(7)
    for number in range(100, 200):
        table.add(number)
        sums.news()
    assert int.from_bytes(table.owners[7 * 16 : 7 * 16 + 8], "little") == 7
