"""How much FLAK takes in, and with how much of a CPU: recording, and as Python objects."""

from __future__ import annotations

import time
from collections.abc import Callable

import flak
from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import interleave
from benchmarks.spread import Spread
from benchmarks.tables import Section, Verdict
from benchmarks.tracers import MIB, Traced
from flak.session import Session
from flak.tracefile import open_recording
from flak.wire import Decoder

RECORD, OBJECTS = "flak record, 8 MiB ring", "for event in session, 16 MiB ring"
EXPLANATION = """\
The source is one thread in a tight pread64 loop: more events than a program makes that works on what it reads. Shares
are of the CPU that FLAK runs on."""
LIMIT_SHARE = 0.10
LIMIT_OBJECTS = 2e6


def measure(bench: Bench) -> Section:
    """One thread in a tight loop is the source: more than any program that does something with what it reads."""
    file = bench.data / "page"
    file.write_bytes(bytes(4096))
    command = bench.workloads.command("preads", file, bench.rounds(2_000_003, 500_009), 1)
    kept = bench.data / "kept.flak"
    count = bench.rounds(5, 2)
    ways: dict[str, Callable[[], Traced]] = {
        RECORD: lambda: tracers.record(bench, command, kept, buffer_size=8 * MIB),
        OBJECTS: lambda: tracers.trace(bench, command, _iterate),
    }
    rounds = interleave(bench, "drain", ways, count)
    runs = {name: [each[name] for each in rounds] for name in ways}
    rows = [_row(name, runs[name]) for name in ways]
    decoded = interleave(bench, "decoding", {"": lambda: _decode_rate(kept)}, count)
    decoding = Spread.of([each[""] for each in decoded])
    rows.append(["Decoder alone, of that recording", f"{decoding.median / 1e6:.2f} M", "100 %", "", ""])
    rows.append(["idle: the target sleeps", "0", f"{_idle_share(bench.rounds(4, 2)):.1%}", "", ""])
    kept.unlink()

    share = Spread.of([run.cpu_share for run in runs[RECORD]])
    lost = sum(run.stats.lost_total for run in runs[RECORD])
    rate = Spread.of([run.events_per_s for run in runs[RECORD]])
    is_met = not lost and share.median <= LIMIT_SHARE
    verdicts = [
        Verdict(
            f"record one tight thread ({rate.median / 1e6:.2f} M events/s), 8 MiB ring",
            f"0 lost, ≤ {LIMIT_SHARE:.0%} of one CPU",
            f"{lost:,} lost, {share.text('.1%')}",
            is_met,
        ),
        Verdict(
            "typed Python objects",
            f"≥ {LIMIT_OBJECTS / 1e6:.0f} M events/s",
            f"{_millions(decoding)} M",
            decoding.median >= LIMIT_OBJECTS,
        ),
    ]
    head = ["way", "events/s", "of one CPU", "CPU ns an event", "lost"]
    return Section("Draining", [EXPLANATION, tables.table(head, rows)], verdicts)


def _iterate(session: Session) -> int:
    for _ in session:
        pass
    return 0


def _row(name: str, runs: list[Traced]) -> list[str]:
    return [
        name,
        f"{_millions(Spread.of([run.events_per_s for run in runs]))} M",
        Spread.of([run.cpu_share for run in runs]).text(".1%"),
        Spread.of([run.cpu_s * 1e9 / run.stats.received for run in runs]).text(),
        f"{sum(run.stats.lost_total for run in runs):,} of {sum(run.stats.matched for run in runs):,}",
    ]


def _decode_rate(path: object) -> float:
    """Events that the decoder makes in a second of CPU time, from the batches of a recording."""
    with open_recording(str(path)) as recording:
        batches = list(recording.batches())
        decoder = Decoder(recording.tables)
        begin = time.process_time()
        for batch in batches:
            decoder.decode(batch)
        return decoder.received / (time.process_time() - begin)


def _idle_share(seconds: float) -> float:
    with tracers.sleeper() as pid, flak.trace(pid=pid, duration=seconds) as session:
        begin = time.process_time()
        _iterate(session)
        return (time.process_time() - begin) / session.elapsed_s


def _millions(rate: Spread) -> str:
    return Spread(rate.median / 1e6, rate.low / 1e6, rate.high / 1e6, rate.minimum / 1e6, rate.count).text(".2f")
