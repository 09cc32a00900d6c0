"""How fast a recording is analysed, and in how much memory. Run as a program it analyses one, in a fresh process."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import interleave
from benchmarks.spread import Spread
from benchmarks.tables import Section, Verdict
from benchmarks.workloads import output_of, write_pages
from flak.analysis import analyse
from flak.tracefile import open_recording

LIMIT_M = 10
FILES = 16
EXPLANATION = "From the file on tmpfs to a row per file (`flak dump -s`), in a fresh process, by CPU time."


def measure(bench: Bench) -> Section:
    """One page read over and over, and random pages of several files; each recorded short and four times as long."""
    page = bench.data / "page"
    page.write_bytes(bytes(4096))
    files = [write_pages(bench.data / f"pages{number}", 1024) for number in range(FILES)]
    short = bench.rounds(1_000_000, 250_000)
    body, verdicts = [], []
    for what, loop, paths in (
        ("1 byte of one page in turn", "pread", [page]),
        (f"random pages of {FILES} files", "scatter", files),
    ):
        recordings = [
            _record(bench, bench.workloads.command("loops", loop, calls, *paths)) for calls in (short, 4 * short)
        ]
        ways = {path.name: partial(_in_fresh_process, path) for path in recordings}
        rounds = interleave(bench, f"analysis, {what}", ways, bench.rounds(5, 2))
        peaks = []
        for path in recordings:
            runs = [each[path.name] for each in rounds]
            rate = Spread.of([run["events"] / run["cpu_s"] / 1e6 for run in runs])
            peaks.append(min(run["peak_kib"] for run in runs) / 1024)
            body.append([what, f"{runs[0]['events']:,}", f"{rate.text('.1f')} M", f"{peaks[-1]:.0f} MiB"])
            path.unlink()
        is_fast, is_flat = rate.median >= LIMIT_M, peaks[1] <= 1.1 * peaks[0]
        growth = f"{peaks[0]:.0f} → {peaks[1]:.0f} MiB"
        verdicts.append(Verdict(f"analysis, {what}", f"≥ {LIMIT_M} M events/s", f"{rate.text('.1f')} M", is_fast))
        verdicts.append(Verdict("its memory, four times the events", "flat", growth, is_flat))
    head = ["recording", "events", "events/s", "peak memory"]
    return Section("Analysis of a recording", [EXPLANATION, tables.table(head, body)], verdicts)


def _record(bench: Bench, command: list[str]) -> Path:
    path = bench.data / f"{time.monotonic_ns()}.flak"
    tracers.record(bench, command, path)
    return path


def _in_fresh_process(recording: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(output_of([sys.executable, "-m", "benchmarks.analysis", recording]))
    return found


def _main() -> None:
    with open_recording(sys.argv[1]) as recording:
        begin = time.process_time()
        analyse(recording)
        cpu_s = time.process_time() - begin
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak_kib = int(status["VmHWM"].split()[0])
    print(json.dumps({"events": recording.stats.written, "cpu_s": cpu_s, "peak_kib": peak_kib}))


if __name__ == "__main__":
    _main()
