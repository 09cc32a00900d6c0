"""Statistics of repeated measurements: medians, quartiles, and which rounds were disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of `count` values, with the quartiles around it and the smallest."""

    median: float
    low: float
    high: float
    minimum: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Raises ValueError when there are no values."""
        return cls(quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75), min(values), len(values))

    def text(self, form: str = ",.0f", unit: str = "") -> str:
        """For a table: "1.80x (1.78–1.83)"."""
        return f"{self.median:{form}}{unit} ({self.low:{form}}–{self.high:{form}})"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies, interpolated between neighbours."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def undisturbed(baselines: Sequence[float], *, tolerance: float, at_least: int = 3) -> list[int]:
    """Numbers of the rounds whose baseline is within `tolerance` of the fastest: interference only ever adds.

    Of rounds that were nearly all disturbed the `at_least` fastest are kept.
    """
    by_speed = sorted(range(len(baselines)), key=baselines.__getitem__)
    quiet = [number for number in by_speed if baselines[number] <= tolerance * baselines[by_speed[0]]]
    return sorted(by_speed[: max(len(quiet), at_least)])
