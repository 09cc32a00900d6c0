"""The statistics behind docs/overhead.md, on figures made up here; the measurements themselves are no tests."""

from __future__ import annotations

import random
import statistics

import pytest

from benchmarks.rounds import Comparison
from benchmarks.spread import Spread, quantile, undisturbed
from benchmarks.tables import table


def test_quantiles_are_those_of_the_standard_library() -> None:
    values = random.Random(7).sample(range(1000), 23)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    assert Spread.of(values) == Spread(middle, low, high, min(values), 23)


def test_quantile_of_one_value_is_that_value() -> None:
    assert [quantile([5.0], share) for share in (0, 0.25, 0.5, 1)] == [5.0] * 4


def test_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_spread_is_written_with_its_quartiles() -> None:
    assert Spread.of([1.7, 1.8, 1.9]).text(".2f", "x") == "1.80x (1.75–1.85)"
    assert Spread.of([1234.4]).text() == "1,234 (1,234–1,234)"


def test_rounds_with_a_slow_baseline_are_left_out() -> None:
    assert undisturbed([100, 300, 114, 101, 116, 99], tolerance=1.15) == [0, 3, 5]


def test_fastest_rounds_are_kept_when_nearly_all_were_disturbed() -> None:
    assert undisturbed([300, 100, 250, 200], tolerance=1.15) == [1, 2, 3]
    assert undisturbed([300, 100], tolerance=1.15) == [0, 1]


def test_ways_are_compared_within_their_round() -> None:
    """A machine that is slower in one round changes no ratio."""
    rounds = [{"plain": 100.0 * slow, "traced": 180.0 * slow, "other": 500.0 * slow} for slow in (1, 1.1, 1.05)]
    comparison = Comparison(rounds, float, "plain")
    assert comparison.dropped == 0
    assert comparison.names == ["plain", "traced", "other"]
    assert comparison.ratio("traced").text(".3f") == "1.800 (1.800–1.800)"
    assert comparison.added("traced").median == pytest.approx(84)
    assert comparison.added_against("other", "traced").median == pytest.approx(5)


def test_disturbed_round_does_not_count() -> None:
    rounds = [{"plain": plain, "traced": 180.0} for plain in (100.0, 101.0, 102.0, 170.0)]
    comparison = Comparison(rounds, float, "plain")
    assert comparison.dropped == 1
    assert comparison.cost("plain").median == 101


def test_columns_of_a_table_line_up() -> None:
    assert table(["what", "ns"], [["getppid", "168"], ["pread64", "1,445"]]).splitlines() == [
        "| what    |    ns |",
        "| ------- | ----: |",
        "| getppid |   168 |",
        "| pread64 | 1,445 |",
    ]
