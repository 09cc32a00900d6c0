"""Ten million events in one recording: is everything there, how long did it take, how large is it?"""

from __future__ import annotations

import shutil
from functools import partial

from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import interleave
from benchmarks.tables import Section, Verdict
from benchmarks.tracers import MIB

EVENT_SIZE = 80  # bytes in a recording, rounded up: is there room?


def measure(bench: Bench) -> Section:
    """Once with each ring."""
    file = bench.data / "page"
    file.write_bytes(bytes(4096))
    calls = bench.rounds(10_000_019, 1_000_003)
    room = shutil.disk_usage(bench.data).free // 2
    if calls * EVENT_SIZE > room:
        calls = room // EVENT_SIZE
    command = bench.workloads.command("preads", file, calls, 1)
    ways = {f"{mib} MiB": partial(tracers.record, bench, command, buffer_size=mib * MIB) for mib in (8, 16)}
    (runs,) = interleave(bench, "volume", ways, 1)
    body, verdicts = [], []
    for ring, run in runs.items():
        body.append(
            [
                ring,
                f"{run.stats.matched:,}",
                f"{run.stats.lost_total:,}",
                f"{run.elapsed_s:.1f}",
                f"{run.size / run.stats.written:.1f}",
            ]
        )
        verdicts.append(
            Verdict(
                f"{calls:,} preads recorded, {ring} ring",
                "0 lost",
                f"{run.stats.lost_total:,} lost",
                not run.stats.lost_total,
            )
        )
    head = ["ring", "events", "lost", "seconds", "bytes an event"]
    return Section("A long recording", ["The same loop, for longer.", tables.table(head, body)], verdicts)
