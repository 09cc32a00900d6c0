"""What a traced system call costs: a tight loop of 1-byte pread64, the worst case there is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import Comparison, interleave
from benchmarks.tables import Section, Verdict
from benchmarks.workloads import Cost

UNTRACED = "untraced"
FLOOR, FLOOR_EXIT = "empty programs, enter and exit", "empty program, exit"
FLAK, FLAK_EXIT = "flak record", "flak record --no-latency"
LIMIT, LIMIT_EXIT = 1.80, 1.60
EXPLANATION = """\
One thread reads one byte at a time, in a tight loop. strace, perf trace and bpftrace printing show each call, as FLAK
does; bpftrace counting keeps one number per descriptor and nothing else. The last column is wall time."""
LESS_THAN = {"strace, each call": 50, "perf trace, each call": 50, "bpftrace, printing each": 20}


def measure(bench: Bench) -> Section:
    """Cost by CPU time and by wall time; the latter for tools that make the traced program wait."""
    count = bench.rounds(15, 3)
    ways, missing = _ways(bench)
    rounds = interleave(bench, "calls", ways, count)
    cpu = Comparison(rounds, lambda cost: cost.cpu_ns, UNTRACED)
    wall = Comparison(rounds, lambda cost: cost.wall_ns, UNTRACED)
    head = ["pread64 of 1 byte", "CPU ns a call", "against untraced", "wall, added ns", "added, FLAK = 1"]
    body = [[name, *_cells(name, cpu, wall)] for name in cpu.names]
    parts = [EXPLANATION, tables.table(head, body), *missing, *tables.dropped(cpu.dropped, count)]
    return Section("A traced system call", parts, _verdicts(cpu, wall))


def _ways(bench: Bench) -> tuple[dict[str, Callable[[], Cost]], list[str]]:
    """Everything to measure, by name; sentences on what cannot be measured here."""
    file = bench.data / "page"
    file.write_bytes(bytes(4096))
    calls = bench.rounds(100_000, 50_000)
    fast = bench.workloads.command("loops", "pread", calls, file)

    def under(*programs: str) -> Cost:
        with tracers.attached(bench, *programs):
            return tracers.run(fast)

    def recorded(latency: bool) -> Cost:
        return Cost.told(tracers.record(bench, fast, latency=latency).output)

    ways: dict[str, Callable[[], Cost]] = {
        UNTRACED: partial(tracers.run, fast),
        FLOOR_EXIT: partial(under, "floor_exit"),
        FLOOR: partial(under, "floor_enter", "floor_exit"),
        FLAK_EXIT: partial(recorded, latency=False),
        FLAK: partial(recorded, latency=True),
    }
    missing = []
    for peer in tracers.PEERS:
        line = tracers.peer_line(bench, peer, bench.workloads.command("loops", "pread", calls // peer.slowness, file))
        if line:
            ways[peer.name] = partial(tracers.run, line)
        else:
            missing.append(f"Not measured: {peer.name}; it is not installed.")
            print(f"calls: {missing[-1]}", file=sys.stderr)
    return ways, missing


def _cells(name: str, cpu: Comparison, wall: Comparison) -> list[str]:
    cost = cpu.cost(name).text()
    if name == UNTRACED:
        return [cost, "", "", ""]
    against_flak = "1" if name == FLAK else wall.added_against(name, FLAK).text(",.1f")
    return [cost, tables.times(cpu.ratio(name)), wall.added(name).text(), against_flak]


def _verdicts(cpu: Comparison, wall: Comparison) -> list[Verdict]:
    found = []
    for what, name, limit in (
        ("traced 1-byte pread loop, durations and all features", FLAK, LIMIT),
        ("the same without durations", FLAK_EXIT, LIMIT_EXIT),
    ):
        ratio = cpu.ratio(name)
        found.append(Verdict(what, f"≤ {limit:.2f}x", tables.times(ratio), ratio.median <= limit))
    for name, limit in LESS_THAN.items():
        if name in wall.names:
            less = wall.added_against(name, FLAK)
            measured = f"{less.text()}x less"
            found.append(
                Verdict(f"time added per event, against {name}", f"≥ {limit}x less", measured, less.median >= limit)
            )
    return found
