"""The pieces of the analysis: grouping, id maps, unions of ranges, histograms."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from access_slots import access, result
from hypothesis import given
from hypothesis import strategies as st

from flak.analysis.coverage import Coverage
from flak.analysis.groups import group_order, grown, lengths, starts, sums
from flak.analysis.histogram import Histograms, buckets
from flak.analysis.ids import IdMap
from flak.analysis.intervals import MAX_RANGES, Ranges, Unions


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


class TestGroups:
    @given(st.lists(st.sampled_from([0, 1, 2, 65_535, 65_536, 65_537, 1 << 40])))
    def test_order_is_stable(self, values: list[int]) -> None:
        group = ints(*values)
        order = group_order(group)
        expected = np.argsort(group, kind="stable")
        assert (np.arange(group.size) if order is None else order).tolist() == expected.tolist()

    def test_order_is_none_when_nothing_is_to_do(self) -> None:
        assert group_order(ints(1, 1, 7)) is None
        assert group_order(ints()) is None

    def test_runs_begin_where_any_column_changes(self) -> None:
        first = starts(ints(1, 1, 1, 2), ints(5, 5, 6, 6))
        assert first.tolist() == [0, 2, 3]
        assert lengths(first, 4).tolist() == [2, 1, 1]
        assert starts(ints()).size == 0

    @pytest.mark.parametrize("runs", [1, 3, 100])
    def test_sums_are_the_same_for_long_runs_and_short(self, runs: int) -> None:
        column = np.arange(200) + (1 << 40)
        first = np.arange(0, 200, 200 // runs)
        expected = [int(part.sum()) for part in np.split(column, first[1:])]
        assert sums(column, first).tolist() == expected

    def test_growing_keeps_what_is_there(self) -> None:
        assert grown(ints(4, 5), 3, -1)[:3].tolist() == [4, 5, -1]
        assert grown(ints(4, 5), 2).tolist() == [4, 5]


@given(st.lists(st.lists(st.integers(0, 30) | st.integers(0, (1 << 63) - 1)), max_size=6))
def test_id_map_is_a_dict(columns: list[list[int]]) -> None:
    expected: dict[int, int] = {}
    with patch("flak.analysis.ids._CACHE_BITS", 2):
        ids = IdMap()
        for column in columns:

            def resolve(new: np.ndarray, first: np.ndarray, column: list[int] = column) -> np.ndarray:
                assert [column.index(key) for key in new.tolist()] == first.tolist()
                numbers = range(len(expected), len(expected) + new.size)
                expected.update(zip(new.tolist(), numbers, strict=True))
                return ints(*numbers)

            values = ids.lookup(ints(*column), resolve)
            assert values.tolist() == [expected[key] for key in column]


ranges = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(1, 60)), max_size=30)


def as_ranges(rows: list[tuple[int, int, int]]) -> Ranges:
    return Ranges(*(ints(*column) for column in zip(*((o, b, b + n) for o, b, n in rows), strict=True)))


def byte_counts(rows: list[tuple[int, int, int]]) -> list[int]:
    return [len({byte for o, b, n in rows for byte in range(b, b + n) if o == owner}) for owner in range(4)]


class TestUnions:
    @given(st.lists(ranges.filter(bool), max_size=5), st.integers(0, 20))
    def test_bytes_are_counted_once(self, parts: list[list[tuple[int, int, int]]], patience: int) -> None:
        with patch("flak.analysis.intervals._PATIENCE", patience):
            unions = Unions()
            for part in parts:
                unions.add(as_ranges(part))
            union, granule = unions.totals(4)
        assert union.tolist() == byte_counts([row for part in parts for row in part])
        assert granule.tolist() == [1] * 4

    @given(ranges.filter(bool))
    def test_ragged_owners_are_kept_by_the_page(self, rows: list[tuple[int, int, int]]) -> None:
        paged = [(owner, begin * 4096, 4096 * size) for owner, begin, size in rows]
        with patch("flak.analysis.intervals.MAX_RANGES", 1), patch("flak.analysis.intervals._PATIENCE", 3):
            unions = Unions()
            for row in paged:
                unions.add(as_ranges([row]))
            union, granule = unions.totals(4)
        assert union.tolist() == [4096 * n for n in byte_counts(rows)]
        assert granule.tolist() == [1] * 4

    def test_unaligned_ragged_owner_says_so(self) -> None:
        unions = Unions()
        begin = np.arange(MAX_RANGES + 1) * 8192
        unions.add(Ranges(np.zeros_like(begin), begin, begin + 100))
        unions.add(Ranges(ints(0, 2), ints(50, 10), ints(60, 20)))
        union, granule = unions.totals(3)
        assert union.tolist() == [(MAX_RANGES + 1) * 4096, 0, 10]
        assert granule.tolist() == [4096, 1, 1]

    def test_ranges_that_touch_become_one(self) -> None:
        merged = as_ranges([(0, 20, 5), (0, 10, 10), (1, 25, 5), (0, 26, 1)]).merged()
        assert (merged.owner.tolist(), merged.begin.tolist()) == ([0, 0, 1], [10, 26, 25])
        assert merged.end.tolist() == [25, 27, 30]

    def test_renamed_owner_joins_the_other(self) -> None:
        with patch("flak.analysis.intervals.MAX_RANGES", 1):
            unions = Unions()
            unions.add(as_ranges([(0, 0, 10), (0, 9000, 10), (1, 5000, 1), (2, 0, 1), (2, 9000, 1)]))
            unions.rename(1, 0)
            unions.rename(2, 0)
            unions.rename(0, 3)
            union, _ = unions.totals(4)
        assert union.tolist() == [0, 0, 0, 3 * 4096]

    def test_highest_offsets_do_not_overflow(self) -> None:
        top = (1 << 63) - 1
        row = result(access(offset=top - 10, size=10), access(offset=top - 5, size=10))
        assert (row.read_count, row.unique_read_bytes) == (2, 10)  # the second wraps: it can't have happened


class TestCoverage:
    def test_it_counts_whole_granules(self) -> None:
        coverage = Coverage()
        coverage.add(ints(4095, 5 * 4096), ints(4097, 5 * 4096 + 1))
        assert (coverage.covered, coverage.granule) == (3 * 4096, 4096)

    def test_aligned_ranges_are_exact(self) -> None:
        coverage = Coverage()
        coverage.add(ints(0, 1 << 20), ints(4096, 3 << 20))
        assert (coverage.covered, coverage.granule) == (4096 + (2 << 20), 1)

    def test_long_files_are_kept_coarser(self) -> None:
        coverage = Coverage()
        coverage.add(ints(0, 3 * 4096), ints(4096, 4 * 4096))
        coverage.add(ints(1 << 60), ints((1 << 60) + 1))
        assert coverage.granule == 1 << (60 - 23)
        assert coverage.covered == 2 * coverage.granule

    def test_absorbing_a_coarser_one_coarsens(self) -> None:
        fine, coarse = Coverage(), Coverage()
        fine.add(ints(0), ints(4096))
        coarse.add(ints(1 << 37), ints((1 << 37) + 1))
        fine.absorb(coarse)
        assert (fine.covered, fine.granule) == (2 * 16384, 16384)

    def test_absorbing_an_inexact_one_is_inexact(self) -> None:
        exact, inexact = Coverage(), Coverage()
        exact.add(ints(0), ints(4096))
        inexact.add(ints(100), ints(200))
        exact.absorb(inexact)
        assert (exact.covered, exact.granule) == (4096, 4096)

    def test_absorbing_a_finer_one_keeps_everything(self) -> None:
        fine, coarse = Coverage(), Coverage()
        fine.add(ints(0, 3 << 20), ints(4096, 4 << 20))
        coarse.add(ints(1 << 37), ints((1 << 37) + 1))
        coarse.absorb(fine)
        assert coarse.covered == (1 << 20) + 2 * 16384


class TestHistograms:
    @given(st.lists(st.integers(0, (1 << 53) - 1), min_size=1), st.integers(1, 100))
    def test_quantiles_are_within_a_32nd(self, values: list[int], percent: int) -> None:
        histograms = Histograms()
        histograms.add(np.zeros(len(values), np.int64), ints(*values))
        exact = sorted(values)[-(-len(values) * percent // 100) - 1]
        assert int(histograms.quantiles(1, percent)[0]) == pytest.approx(exact, rel=1 / 32, abs=0.5)

    def test_buckets_ascend_and_have_a_last_one(self) -> None:
        edges = np.unique(np.concatenate([1 << np.arange(63), (1 << np.arange(63)) - 1, ints((1 << 63) - 1)]))
        assert buckets(edges).tolist() == sorted(buckets(edges).tolist())
        assert buckets(ints(0, 1, 2, 3, (1 << 63) - 1)).tolist() == [0, 1, 33, 49, 2017]

    def test_series_of_many_values_answer_like_those_of_few(self) -> None:
        values = np.arange(1, 3001)
        few, many = Histograms(), Histograms()
        few.add(np.full(3000, 5), values)
        with patch("flak.analysis.histogram._MANY", 10), patch("flak.analysis.histogram._PATIENCE", 100):
            for part in np.split(values, 30):
                many.add(np.full(part.size, 5), part)
        for percent in (1, 50, 99, 100):
            assert many.quantiles(6, percent).tolist() == few.quantiles(6, percent).tolist()
        assert many.modes(6).tolist() == few.modes(6).tolist()
        assert many.quantiles(6, 50).tolist()[:5] == [-1] * 5

    @pytest.mark.parametrize("many", [1, 1000])
    def test_renamed_series_joins_the_other(self, many: int) -> None:
        with patch("flak.analysis.histogram._MANY", many), patch("flak.analysis.histogram._PATIENCE", 1):
            histograms = Histograms()
            histograms.add(ints(0, 0, 1, 1, 1), ints(10, 10, 10, 30, 30))
            histograms.rename(0, 1)
            histograms.add(ints(1), ints(10))
            assert histograms.modes(2).tolist() == [-1, 10]
            assert histograms.quantiles(2, 60).tolist() == [-1, 10]

    def test_size_does_not_grow_with_the_values(self) -> None:
        histograms = Histograms()
        for seed in range(20):
            rng = np.random.default_rng(seed)
            histograms.add(rng.integers(0, 3, 50_000), rng.integers(0, 1 << 62, 50_000))
        histograms.quantiles(3, 50)
        assert histograms._few.key.size == 0
        assert histograms._counts.size <= 2 * 3 << 11
