"""Configurations measured in turn, so that what disturbs one disturbs all, and compared within their round."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from benchmarks.bench import Bench
from benchmarks.spread import Spread, undisturbed

T = TypeVar("T")


def interleave(bench: Bench, title: str, ways: Mapping[str, Callable[[], T]], count: int) -> list[dict[str, T]]:
    """`count` rounds; in each every way once, in reversed order every other round. The machine should be quiet."""
    rounds = []
    for number in range(count):
        bench.wait_for_quiet()
        print(f"{title}: round {number + 1} of {count}", file=sys.stderr, flush=True)
        names = list(ways)[:: -1 if number % 2 else 1]
        rounds.append({name: ways[name]() for name in names})
    return rounds


class Comparison:
    """One figure of each way, round by round, against a baseline. `dropped` rounds had a disturbed baseline."""

    def __init__(self, rounds: Sequence[Mapping[str, T]], figure: Callable[[T], float], baseline: str) -> None:
        self._baseline = baseline
        figures = [{name: figure(sample) for name, sample in each.items()} for each in rounds]
        self._rounds = [figures[number] for number in undisturbed([each[baseline] for each in figures])]
        self.dropped = len(figures) - len(self._rounds)

    @property
    def names(self) -> list[str]:
        """The ways that were measured, the baseline first."""
        return sorted(self._rounds[0], key=lambda name: name != self._baseline)

    def cost(self, name: str) -> Spread:
        """The figure itself."""
        return Spread.of([each[name] for each in self._rounds])

    def added(self, name: str) -> Spread:
        """How much more than the baseline of the same round."""
        return Spread.of([each[name] - each[self._baseline] for each in self._rounds])

    def ratio(self, name: str) -> Spread:
        """How many times the baseline of the same round."""
        return Spread.of([each[name] / each[self._baseline] for each in self._rounds])

    def added_against(self, name: str, other: str) -> Spread:
        """How many times what another way adds."""
        return Spread.of(
            [(each[name] - each[self._baseline]) / (each[other] - each[self._baseline]) for each in self._rounds]
        )
