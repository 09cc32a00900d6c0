"""Configurations measured in turn, so that what disturbs one disturbs all, and compared within their round."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from benchmarks.bench import BUSY, Bench
from benchmarks.machine import Usage
from benchmarks.spread import Spread, undisturbed

T = TypeVar("T")


def interleave(bench: Bench, title: str, ways: Mapping[str, Callable[[], T]], count: int) -> list[dict[str, T]]:
    """`count` rounds; in each every way once, in reversed order every other round.

    Rounds in which others kept the machine busy are repeated, up to half as many again; if that does not give enough,
    the least disturbed ones are taken.
    """
    attempts: list[tuple[float, dict[str, T]]] = []
    while sum(share <= BUSY for share, _ in attempts) < count and len(attempts) < count + (count + 1) // 2:
        bench.wait_for_quiet()
        names = list(ways)[:: -1 if len(attempts) % 2 else 1]
        usage = Usage()
        samples = {name: ways[name]() for name in names}
        attempts.append((usage.others_share(), {name: samples[name] for name in ways}))
        share, number = attempts[-1][0], len(attempts)
        print(f"{title}: round {number}, others used {share:.0%} of the CPUs", file=sys.stderr, flush=True)
    quiet = sum(share <= BUSY for share, _ in attempts)
    bench.disturbed += max(count - quiet, 0)
    bench.rounds_taken += count
    return [samples for _, samples in sorted(attempts, key=lambda attempt: attempt[0])[:count]]


class Comparison:
    """One figure of each way, round by round, against a baseline.

    Rounds whose baseline is more than `tolerance` times the fastest are left out; `dropped` says how many.
    """

    def __init__(
        self,
        rounds: Sequence[Mapping[str, T]],
        figure: Callable[[T], float],
        baseline: str,
        *,
        tolerance: float = 1.15,
    ) -> None:
        self._baseline = baseline
        figures = [{name: figure(sample) for name, sample in each.items()} for each in rounds]
        kept = undisturbed([each[baseline] for each in figures], tolerance=tolerance)
        self._rounds = [figures[number] for number in kept]
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
