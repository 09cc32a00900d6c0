"""What a traced request costs: 1-byte reads through io_uring, one at a time and many at a time; and what others pay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flak
from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import Comparison, interleave
from benchmarks.tables import Section, Verdict
from benchmarks.workloads import Cost

UNTRACED, BESIDE, FLAK = "untraced", "FLAK traces another", "flak record"
EXPLANATION = """\
One thread reads one byte at a time through io_uring, from the page cache: one request for each io_uring_enter, or 32.
A request is seen twice, where it is submitted and where it completes, and is kept in a table in between."""


def measure(bench: Bench) -> Section:
    """CPU time per request."""
    file = bench.data / "page"
    file.write_bytes(bytes(4096))
    requests = bench.rounds(96_000, 48_000)
    count = bench.rounds(15, 3)
    body, verdicts, was_dropped = [], [], 0
    for title, kind in (("one at a time", "ring"), ("32 at a time", "rings")):
        command = bench.workloads.command("loops", kind, requests, file)
        rounds = interleave(bench, f"requests ({title})", _ways(bench, command), count)
        cpu = Comparison(rounds, lambda cost: cost.cpu_ns, UNTRACED)
        was_dropped = max(was_dropped, cpu.dropped)
        for name in cpu.names:
            added = [cpu.added(name).text(), tables.times(cpu.ratio(name))] if name != UNTRACED else ["", ""]
            body.append([f"{title}, {name}", cpu.cost(name).text(), *added])
        verdicts.append(Verdict(f"a read through io_uring, {title}", "", f"+{cpu.added(FLAK).text()} ns a request"))
    table = tables.table(["request", "CPU ns a request", "added ns", "against untraced"], body)
    return Section("A request of io_uring", [EXPLANATION, table, *tables.dropped(was_dropped, count)], verdicts)


def _ways(bench: Bench, command: list[str]) -> dict[str, Callable[[], Cost]]:
    def beside() -> Cost:
        with tracers.sleeper() as pid, flak.trace(pid=pid):
            return tracers.run(command)

    return {
        UNTRACED: partial(tracers.run, command),
        BESIDE: beside,
        FLAK: lambda: Cost.told(tracers.record(bench, command).output),
    }
