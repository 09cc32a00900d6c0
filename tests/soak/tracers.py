"""The tracers of a soak: a recording and a stream of JSON lines that live as long as it, and short ones beside them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flak
from flak.analysis import analyse

FLAK = [sys.executable, "-m", "flak"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(flak.__file__).parents[1])}
_NUMBER = (1 << 31) - 1  # of a path_id; above is a bit that says what kind of name it is
_OP = re.compile(rb'"op":"(\w+)"')


class Wrong(Exception):
    """A number that is not what it has to be."""


def check(what: str, is_value: object, must_be: object) -> None:
    if is_value != must_be:
        raise Wrong(f"{what}: {is_value}, must be {must_be}")


def check_counters(who: str, counters: dict[str, Any]) -> None:
    """The equations, and nothing unknown."""
    lost = counters["lost"]
    in_kernel = sum(count for cause, count in lost.items() if not cause.startswith("user_"))
    in_user = sum(lost.values()) - in_kernel
    check(f"{who}: matched = submitted + lost", counters["matched"], counters["submitted"] + in_kernel)
    check(f"{who}: submitted = received", counters["submitted"], counters["received"])
    kept = counters["written"] + sum(counters["filtered"].values()) + in_user
    check(f"{who}: received = written + filtered + lost by flak", counters["received"], kept)
    check(f"{who}: recursion misses", counters["recursion_misses"], 0)


class Tracer:
    """A flak of its own process that traces the stage."""

    def __init__(self, words: Sequence[object], log: Path, **options: Any) -> None:
        self.log = log
        with log.open("wb") as stderr:
            command = [*FLAK, *map(str, words)]
            self.process = subprocess.Popen(command, stderr=stderr, env=ENVIRONMENT, **options)

    def wait_attached(self) -> None:
        deadline = time.monotonic() + 20
        while b"flak: tracing" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Wrong(f"flak did not start: {self.log.read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        check("exit status of flak", self.process.wait(timeout=120), 0)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def held(self) -> Held:
        return Held.of(self.process.pid)


@dataclass(frozen=True)
class Held:
    """What a tracer holds."""

    pss_kib: int
    anonymous_kib: int
    descriptors: int
    programs: int
    maps: int
    map_kib: int

    @classmethod
    def of(cls, pid: int) -> Held:
        rollup = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
        texts = []
        for path in Path(f"/proc/{pid}/fdinfo").iterdir():
            try:
                texts.append(path.read_text())
            except FileNotFoundError:
                continue
        programs = {number for text in texts for number in re.findall(r"^prog_id:\s*(\d+)$", text, re.MULTILINE)}
        maps = {
            number[0]: int(size[0])
            for text in texts
            if (number := re.findall(r"^map_id:\s*(\d+)$", text, re.MULTILINE))
            and (size := re.findall(r"^memlock:\s*(\d+)$", text, re.MULTILINE))
        }
        return cls(
            int(rollup["Pss"]), int(rollup["Anonymous"]), len(texts), len(programs), len(maps),
            sum(maps.values()) // 1024,
        )  # fmt: skip


class Stream(Tracer):
    """`flak trace --json` whose lines are counted as they come, by folder below `top` and operation."""

    def __init__(self, words: Sequence[object], log: Path, top: Path) -> None:
        super().__init__(words, log, stdout=subprocess.PIPE)
        self._top = f'"path":"{top}/'.encode()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.lines = 0
        self.lost = 0
        self.folded = 0
        self.missing = 0
        self.names = 0
        self.tasks = 0
        self.counters: dict[str, Any] | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines += 1
            op = _OP.search(line)
            name = op.group(1).decode() if op else ""
            count = 1
            if name in ("folded", "lost", "counters"):
                said = json.loads(line)
                if name == "counters":
                    self.counters = said
                    continue
                if name == "lost":
                    self.lost += said["count"]
                    continue
                name, count = said["of"], said["count"]
                self.folded += count
            elif name == "fork":
                self.tasks += 1
            elif self.lines % 64 == 0:
                self.names = max(self.names, (json.loads(line)["path_id"] or 0) & _NUMBER)
            begin = line.find(self._top)
            if begin >= 0 and b'"attached"' not in line:
                begin += len(self._top)
                end = min(e for e in (line.find(b"/", begin), line.find(b'"', begin)) if e > 0)
                self.counts[line[begin:end].decode()][name] += count

    def wait_for(self, folder: str, ops: dict[str, int]) -> None:
        """Waits until the stream has as many accesses of a folder as were made; it may never have more.

        It may have fewer by what was lost when the table of sums was full: that is known, and counted as `missing`.
        """
        begun = time.monotonic()
        while True:
            seen = {op: self.counts[folder][op] for op in ops}
            waited_s = time.monotonic() - begun
            missing = sum(ops.values()) - sum(seen.values())
            if seen == ops or any(seen[op] > ops[op] for op in ops) or waited_s > 60:
                break
            if waited_s > 5 and self.missing + missing <= self.lost - self.folded:
                self.missing += missing
                return
            time.sleep(0.05)
        check(f"accesses of {folder} in the stream, lost ones included", seen, ops)

    def finish(self) -> dict[str, Any]:
        self.stop()
        self._thread.join(60)
        if self.counters is None:
            raise Wrong("the stream ended without counters")
        return self.counters


class Stage:
    """The process that all loads are children of: it is what the long tracers trace."""

    _PROGRAM = """
import json, subprocess, sys
for line in sys.stdin:
    done = subprocess.run(json.loads(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(json.dumps([done.returncode, done.stdout]), flush=True)
"""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, command: Sequence[str]) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(list(command)) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], 120)[0]:
            raise Wrong(f"{command[0]} did not end within 120 s")
        status, output = json.loads(self.process.stdout.readline())
        check(f"exit status of {command}: {output[-500:]!r}", status, 0)
        return str(output)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def record_flood(stage: Stage, folder: Path, command: Sequence[str], reads: int) -> int:
    """A short recording of a flood with a ring of 64 KiB. Returns how many were lost; all must be in the sums."""
    path = folder / "flood.flak"
    tool = ["env", f"PYTHONPATH={ENVIRONMENT['PYTHONPATH']}", *FLAK]
    stage.run([*tool, "record", "-q", "--buffer-size", "64K", "-o", str(path), "--", *command])
    with flak.open(path) as source:
        (row,) = (row for row in analyse(source) if row.path == str(folder / "data"))
        stats = source.stats
    path.unlink()
    check("reads of a flood, lost ones included", row.read_count, reads)
    check("bytes of a flood, lost ones included", row.read_bytes, reads)
    check_counters("flood", flak.events.as_dict(stats))
    return stats.lost_total


def attach_and_detach(pid: int, times: int) -> None:
    """Tracers that come and go while the stage works."""
    for _ in range(times):
        done = subprocess.run(
            [*FLAK, "trace", "--json", "-p", str(pid), "-d", "0.2"],
            capture_output=True, env=ENVIRONMENT, timeout=60,
        )  # fmt: skip
        check(f"exit status of a short tracer: {done.stderr[-300:]!r}", done.returncode, 0)
        check_counters("short tracer", json.loads(done.stdout.splitlines()[-1]))
