"""Ten million events in one recording: is everything there, how long did it take, how large is it?"""

from __future__ import annotations

import shutil

from benchmarks import tables, tracers
from benchmarks.bench import Bench
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
    body, verdicts = [], []
    for ring_mib in (8, 16):
        bench.wait_for_quiet()
        command = bench.workloads.command("preads", file, calls, 1)
        run = tracers.record(bench, command, buffer_size=ring_mib * MIB)
        body.append(
            [
                f"{ring_mib} MiB",
                f"{run.stats.matched:,}",
                f"{run.stats.lost_total:,}",
                f"{run.elapsed_s:.1f}",
                f"{run.size / run.stats.written:.1f}",
            ]
        )
        verdicts.append(
            Verdict(
                f"{calls:,} preads recorded, {ring_mib} MiB ring",
                "0 lost",
                f"{run.stats.lost_total:,} lost",
                not run.stats.lost_total,
            )
        )
    head = ["ring", "events", "lost", "seconds", "bytes an event"]
    return Section("A long recording", ["The same loop, for longer.", tables.table(head, body)], verdicts)
