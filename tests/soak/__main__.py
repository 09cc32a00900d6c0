"""python -m tests.soak [--minutes 60] [--folder DIR]: see docs/trust.md.

Loads alternate until the time is over. After each, what the stream of JSON lines has of its folder is compared with
what the load says it made; each minute a line tells how it stands. In the end the recording is compared likewise, and a
table for docs/trust.md is printed. The first wrong number ends the soak with status 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import flak
from flak.analysis import analyse
from flak.events import as_dict

from .loads import FLOOD, Made, build_flood, files, fio, flood, forks, sqlite
from .tracers import (
    Held,
    Stage,
    Stream,
    Tracer,
    Wrong,
    attach_and_detach,
    check,
    check_counters,
    record_flood,
)

READS = {"read", "pread64", "pread"}
WRITES = {"write", "pwrite64", "pwrite"}
WARM_UP = 0.25  # the share of the time after which memory is measured
GROWTH_KIB = 16 << 10  # what a tracer may grow by after that, besides
BYTES_A_NAME = 512  # for each name and task it has met: these are kept, though packed; claims are not counted apart


class Soak:
    """The long tracers, the stage, and what was found."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.minutes = folder, minutes
        self.stage = Stage()
        self.recording = folder / "long.flak"
        pid = self.stage.process.pid
        log = folder / "logs"
        log.mkdir()
        (folder / "loads").mkdir()
        self.top = folder / "loads"
        self.recorder = Tracer(["record", "-p", pid, "-o", self.recording], log / "record")
        words = ["trace", "--json", "--no-summary", "--buffer-size", "8M", "-p", pid]
        self.stream = Stream(words, log / "trace", self.top)
        self.made: dict[str, Made] = {}
        self.runs: Counter[str] = Counter()
        self.lost_short = 0
        self.attached = 0
        self.held: list[tuple[int, Held, Held]] = []
        self.started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def run(self) -> None:
        program = build_flood(self.folder)
        self.recorder.wait_attached()
        self.stream.wait_attached()
        loads = {
            "fio psync": fio("psync"), "fio io_uring": fio("io_uring"), "fio libaio": fio("libaio"),
            "fio mmap": fio("mmap"), "fork storm": forks, "sqlite": sqlite, "many files": files,
            "flood": flood(program),
        }  # fmt: skip
        next_line = 60.0
        while self.elapsed_s < self.minutes * 60:
            for name, load in loads.items():
                number = sum(self.runs.values())
                folder = self.top / f"{number}"
                folder.mkdir()
                coming = threading.Thread(target=self._come_and_go)
                if name in ("fio psync", "fork storm"):
                    coming.start()
                self.made[folder.name] = load(self.stage.run, folder)
                self.runs[name] += 1
                if coming.ident:
                    coming.join()
                    if self.failure:
                        raise self.failure
                self.stream.wait_for(folder.name, self.made[folder.name].ops)
                if name == "flood":
                    self._flood_alone(program)
                shutil.rmtree(folder)
                for tracer in (self.recorder, self.stream):
                    check(f"exit status of a long tracer: {tracer.log.read_text()[-300:]}", tracer.process.poll(), None)
                if self.elapsed_s >= next_line:
                    self.line()
                    next_line += 60
        self.line()

    failure: Wrong | None = None

    def _come_and_go(self) -> None:
        try:
            attach_and_detach(self.stage.process.pid, 3)
            self.attached += 3
        except Wrong as wrong:
            self.failure = wrong

    def _flood_alone(self, program: Path) -> None:
        folder = self.folder / "short"
        folder.mkdir()
        (folder / "data").write_bytes(bytes(4096))
        command = [str(program), str(folder / "data"), str(FLOOD), "2"]
        self.lost_short += record_flood(self.stage, folder, command, 2 * FLOOD)
        shutil.rmtree(folder)

    def line(self) -> None:
        """How it stands, as a line; memory and BPF objects are judged."""
        self.held.append((self.stream.names + self.stream.tasks, self.recorder.held(), self.stream.held()))
        _, record, trace = self.held[-1]
        print(
            f"{self.elapsed_s / 60:6.1f} min  {sum(self.runs.values()):4} loads  {self.stream.lines:10} lines  "
            f"{self.stream.folded:9} folded  {self.stream.lost:9} lost  {self.held[-1][0]:7} names and tasks  "
            f"record {record.pss_kib:7} KiB  trace {trace.pss_kib:7} KiB  "
            f"{record.programs}+{trace.programs} programs  {record.maps}+{trace.maps} maps "
            f"{record.map_kib}+{trace.map_kib} KiB  {record.descriptors}+{trace.descriptors} fds",
            flush=True,
        )
        for before, now in zip(self.held[0][1:], self.held[-1][1:], strict=True):
            check("BPF programs of a long tracer", now.programs, before.programs)
            check("BPF maps of a long tracer", now.maps, before.maps)
            check("memory of its maps, KiB", now.map_kib, before.map_kib)
            if abs(now.descriptors - before.descriptors) > 2:  # some are open for a moment
                check("descriptors of a long tracer", now.descriptors, before.descriptors)
        for which in (1, 2):
            warm = self._warm()
            if warm is not None:
                grown = self.held[-1][which].anonymous_kib - self.held[warm][which].anonymous_kib  # type: ignore[union-attr]
                names = self.held[-1][0] - self.held[warm][0]
                if grown > GROWTH_KIB + BYTES_A_NAME * names // 1024:
                    raise Wrong(
                        f"a long tracer has grown by {grown} KiB since its warm-up, with {names} new names and tasks"
                    )

    def _warm(self) -> int | None:
        """The first line after the warm-up."""
        first = int(self.minutes * WARM_UP)
        return first if len(self.held) > first else None

    def finish(self) -> None:
        """The end of the long tracers, and what they hold in the end."""
        check_counters("long trace --json", (last := self.stream.finish()))
        check("lost in the stream", self.stream.lost, sum(last["lost"].values()))
        check("folded in the stream", self.stream.folded, last["folded"])
        self.recorder.stop()
        with flak.open(self.recording) as source:
            rows = analyse(source)
            stats = source.stats
            warnings = list(source.warnings)
        check("warnings of the recording", warnings, [])
        check("the recording is complete", stats.is_complete, True)
        check_counters("long record", as_dict(stats))
        reads: Counter[str] = Counter()
        writes: Counter[str] = Counter()
        for row in rows:
            if row.path and row.path.startswith(f"{self.top}/"):
                name = row.path.removeprefix(f"{self.top}/").partition("/")[0]
                reads[name] += row.read_count
                writes[name] += row.write_count
        for name, made in self.made.items():
            if made.ops.keys() & (READS | WRITES):
                check(f"reads of load {name} in the recording", reads[name], sum(made.ops.get(op, 0) for op in READS))
                check(
                    f"writes of load {name} in the recording", writes[name], sum(made.ops.get(op, 0) for op in WRITES)
                )
        self.table(last, as_dict(stats))

    def table(self, trace: dict[str, object], record: dict[str, object]) -> None:
        """What docs/trust.md shows."""
        warm = self.held[self._warm() or 0]
        last = self.held[-1]
        size = self.recording.stat().st_size >> 20

        def lost(counters: dict[str, object]) -> int:
            causes = counters["lost"]
            assert isinstance(causes, dict)
            return sum(causes.values())

        runs = ", ".join(f"{count} {name}" for name, count in self.runs.items())
        rows = [
            ("length", f"{self.elapsed_s / 60:.1f} minutes"),
            ("loads", f"{sum(self.runs.values())}: {runs}"),
            ("accesses that the loads counted themselves", f"{sum(made.total for made in self.made.values()):,}"),
            ("of these missing in `trace --json`, though not in its sums of lost accesses", f"{self.stream.missing:,}"),
            ("reads and writes of these missing in the recording, or too many", "0"),
            ("events matched by `flak record`; lost", f"{record['matched']:,}; {lost(record):,}"),
            ("events matched by `flak trace --json`, ring of 8 MiB; lost", f"{trace['matched']:,}; {lost(trace):,}"),
            ("of these lost in sums", f"{trace['folded']:,}"),
            ("lost by short recordings of floods with a ring of 64 KiB, all in sums", f"{self.lost_short:,}"),
            ("recursion misses", "0"),
            ("short tracers attached and detached meanwhile", f"{self.attached}"),
            ("size of the recording", f"{size:,} MiB"),
            ("memory of `flak record` (Pss)", f"{warm[1].pss_kib:,} KiB, in the end {last[1].pss_kib:,} KiB"),
            ("memory of `flak trace --json` (Pss)", f"{warm[2].pss_kib:,} KiB, in the end {last[2].pss_kib:,} KiB"),
            ("names and tasks that it has met by then", f"{warm[0]:,}, in the end {last[0]:,}"),
            ("BPF programs and maps of each, all the time", f"{last[1].programs} and {last[1].maps}"),
        ]  # fmt: skip
        print("\n| what | figure |\n|---|---|")
        for what, figure in rows:
            print(f"| {what} | {figure} |")

    def close(self) -> None:
        self.stream.kill()
        self.recorder.kill()
        self.stage.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--folder", type=Path, help="where files and the recording go (some 250 MiB a minute)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="flak-soak-", dir=options.folder))
    soak = Soak(folder, options.minutes)
    try:
        soak.run()
        soak.finish()
    except Wrong as wrong:
        print(f"soak: {wrong}; all files are kept in {folder}", file=sys.stderr)
        return 1
    finally:
        soak.close()
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
