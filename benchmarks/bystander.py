"""What others pay: a process that is not traced, while FLAK traces another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import flak
from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import Comparison, interleave
from benchmarks.tables import Section, Verdict
from benchmarks.workloads import Cost

ALONE, BESIDE, BESIDE_EXIT = "nobody traces", "FLAK traces another", "FLAK traces another, --no-latency"
LIMIT_NS = 150
EXPLANATION = """\
While anybody's program sits at the entry or exit of system calls, the kernel takes its slow path in every process."""


def measure(bench: Bench) -> Section:
    """Added nanoseconds a call, of the cheapest call and of a pread64."""
    file = bench.data / "page"
    file.write_bytes(bytes(4096))
    calls = bench.rounds(100_000, 50_000)
    loops = {"getppid": ("getppid", calls), "pread64 of 1 byte": ("pread", calls, file)}

    def both() -> dict[str, Cost]:
        return {call: tracers.run(bench.workloads.command("loops", *loop)) for call, loop in loops.items()}

    def beside(latency: bool) -> dict[str, Cost]:
        with tracers.sleeper() as pid, flak.trace(pid=pid, latency=latency):
            return both()

    count = bench.rounds(15, 3)
    ways: dict[str, Callable[[], dict[str, Cost]]] = {
        ALONE: both,
        BESIDE_EXIT: partial(beside, latency=False),
        BESIDE: partial(beside, latency=True),
    }
    rounds = interleave(bench, "bystander", ways, count)
    body, verdicts, was_dropped = [], [], 0
    for call in loops:
        cpu = Comparison([_of_call(each, call) for each in rounds], lambda cost: cost.cpu_ns, ALONE)
        was_dropped = max(was_dropped, cpu.dropped)
        for name in cpu.names:
            added = [cpu.added(name).text(), tables.times(cpu.ratio(name))] if name != ALONE else ["", ""]
            body.append([f"{call}, {name}", cpu.cost(name).text(), *added])
        added_ns = cpu.added(BESIDE)
        verdicts.append(
            Verdict(
                f"a process that is not traced, {call}",
                f"≤ +{LIMIT_NS} ns a call",
                f"+{added_ns.text()} ns",
                added_ns.median <= LIMIT_NS,
            )
        )
    table = tables.table(["not traced", "CPU ns a call", "added ns", "against nobody tracing"], body)
    return Section("A process that is not traced", [EXPLANATION, table, *tables.dropped(was_dropped, count)], verdicts)


def _of_call(costs: Mapping[str, Mapping[str, Cost]], call: str) -> dict[str, Cost]:
    return {name: by_call[call] for name, by_call in costs.items()}
