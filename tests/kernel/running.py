"""Running programs under FLAK and under their own witness.

A workload prints what it did as JSON lines (tests/workloads/work.h); `Run` holds those `steps` beside the events that
FLAK saw. Nothing here judges: the tests do.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import Access, Counters, Event, Fork, Lost

SOURCES = Path(__file__).parent.parent / "workloads"
PAGE = 4096
PATIENCE = int(os.environ.get("FLAK_TEST_PATIENCE", "1"))
"""How many times longer than usual a test waits for something: under emulation all is slow."""


def flak_environment(**variables: str) -> dict[str, str]:
    """The environment of a program that is to find this very flak, and what flak itself needs, with more variables."""
    places = [str(Path(flak.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **variables}


class Workloads:
    """The programs of tests/workloads/, each compiled when first asked for, or those of a folder when there is no
    compiler.
    """

    def __init__(self, compiler: str | None, folder: Path) -> None:
        self.compiler = compiler
        self.folder = folder

    def __call__(self, name: str) -> Path:
        program = self.folder / name
        if not program.exists():
            if self.compiler is None:
                pytest.skip(f"no program {name} in {self.folder}")
            source = SOURCES / f"{name}.c"
            options = ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
            subprocess.run([self.compiler, *options, "-o", program, source], check=True)
        return program

    def command(self, name: str, *args: object) -> list[str]:
        """The command line of a workload."""
        return [str(self(name)), *map(str, args)]


@dataclass
class Run:
    """One program's run: what FLAK saw, what FLAK counted, what the program says it did."""

    events: list[Event]
    stats: Counters
    status: int | None
    output: str
    missing: dict[str, str] = field(default_factory=dict)
    """What FLAK says it could not see, by concern."""

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The lines that the workload printed."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    def of(self, *classes: type) -> list[Any]:
        """Events of these classes, in order."""
        return [event for event in self.events if isinstance(event, classes)]

    def on(self, path: Path, *classes: type) -> list[Any]:
        """Accesses of these classes (of all, when none is given) to a file by its path, in order."""
        return [event for event in self.of(*classes or (Access,)) if event.path == str(path)]

    def step(self, op: str) -> dict[str, Any]:
        """The one line of this op."""
        (step,) = (step for step in self.steps if step["op"] == op)
        return step


def trace_command(command: Sequence[object], folder: Path, check: bool = True, **options: Any) -> Run:
    """Runs a command under FLAK, its stdout in a file of `folder`; `check` expects it to succeed."""
    output = folder / "stdout"
    with (
        output.open("wb") as stdout,
        flak.trace(command=[str(part) for part in command], stdout=stdout.fileno(), **options) as session,
    ):
        *events, last = session
        assert last == session.stats, "a run ends with its counters"
    run = Run(events, session.stats, session.command_status, output.read_text(), session.missing)
    if check:
        assert run.status == 0
    return run


def trace_commands(commands: Sequence[Sequence[object]], folder: Path) -> list[Run]:
    """Runs commands one after the other in one trace: to start a trace takes as long as many of them.

    Each has a `Run` of its own, with what its processes did. The counters are those of all.
    """
    outputs = [folder / f"stdout-{number}" for number in range(len(commands))]
    lines = [
        f"{shlex.join(map(str, command))} >{shlex.quote(str(output))}; echo $?"
        for command, output in zip(commands, outputs, strict=True)
    ]
    every = trace_command(["sh", "-c", "\n".join(lines)], folder)
    forks = sorted((e for e in every.of(Fork) if e.child_tid == e.child_pid), key=lambda e: e.ts_ns)
    shell = forks[0].pid
    which: dict[int, int] = {}  # process → command
    for fork in forks:
        assert fork.child_pid not in which, "a process number came again: whose events are these?"
        which[fork.child_pid] = which[fork.pid] if fork.pid != shell else max(which.values(), default=-1) + 1
    statuses = [int(line) for line in every.output.splitlines()]
    runs = [
        Run([], every.stats, status, output.read_text(), every.missing)
        for status, output in zip(statuses, outputs, strict=True)
    ]
    assert set(which.values()) == set(range(len(runs)))
    for event in every.events:
        pid = getattr(event, "pid", None)
        assert pid in which or pid == shell or isinstance(event, Lost), f"of nobody: {event}"
        for run in [runs[which[pid]]] if pid in which else runs if isinstance(event, Lost) else []:
            run.events.append(event)
    return runs


class Running:
    """A program that is running already: its stdin is a pipe that stays open, its stdout a pipe that is read later."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid

    def wait_ready(self) -> str:
        """Waits for the line that begins with "ready"; returns it."""
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], 10 * PATIENCE)[0], "the workload never got ready"
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready"), line
        return line

    def finish(self) -> list[dict[str, Any]]:
        """Waits for the end; returns the lines it printed."""
        output, _ = self.process.communicate(timeout=20 * PATIENCE)
        return [json.loads(line) for line in output.decode().splitlines()]

    def close(self) -> None:
        """Ends it if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextmanager
def running(command: Sequence[str]) -> Iterator[Running]:
    """Starts a program, waits until it says it is ready, and ends it in the end."""
    program = Running(command)
    try:
        program.wait_ready()
        yield program
    finally:
        program.close()


def wait_until(is_so: Callable[[], object], what: str, seconds: float = 10) -> None:
    """Waits for a condition, and fails when it has not come true in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.002)


def is_blocked_in(pid: int, number: int) -> bool:
    """Is the process inside the system call of this number, and asleep?"""
    fields = Path(f"/proc/{pid}/syscall").read_text().split()
    return fields[0] == str(number)


def write_pages(path: Path, pages: int) -> Path:
    """Makes a file of that many pages, clean and in the page cache.

    One write a page: larger writes make larger folios, of which Linux 6.18 maps all pages at one fault.
    """
    with path.open("wb", buffering=0) as file:
        for page in range(pages):
            file.write(bytes([page & 0xFF]) * PAGE)
        os.fsync(file.fileno())
    return path


def drop_from_cache(path: Path) -> None:
    """Takes a clean file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def by_tid(accesses: Iterable[Access]) -> dict[int, list[Access]]:
    """Accesses of each thread, in order."""
    threads: dict[int, list[Access]] = defaultdict(list)
    for access in accesses:
        assert access.tid is not None
        threads[access.tid].append(access)
    return dict(threads)


def outcome(access: Any) -> int | str | None:
    """What a transfer returned, as the workloads note it: bytes, or the errno's name."""
    return access.errno or access.size_ret


def missing_numbers(numbers: Iterable[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
    """Gaps in the sequence numbers of each CPU, as (first missing, count). `numbers` are (cpu, seq), in any order."""
    seen: dict[int, list[int]] = defaultdict(list)
    for cpu, seq in numbers:
        seen[cpu].append(seq)
    gaps: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for cpu, sequence in seen.items():
        sequence.sort()
        expected = 0
        for seq in sequence:
            assert seq >= expected, f"number {seq} of CPU {cpu} came twice"
            if seq > expected:
                gaps[cpu].append((expected, seq - expected))
            expected = seq + 1
    return dict(gaps)


def lost_ranges(events: Iterable[Event], cause: str = "ring_full") -> dict[int, list[tuple[int, int]]]:
    """What the stream reports as lost on each CPU, in the form of `missing_numbers`; touching ranges are joined."""
    ranges: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        if isinstance(event, Lost) and event.cause == cause:
            ranges[event.cpu].append((event.first_seq, event.count))
    for cpu, parts in ranges.items():
        joined: list[tuple[int, int]] = []
        for first, count in sorted(parts):
            if joined and sum(joined[-1]) == first:
                joined[-1] = (joined[-1][0], joined[-1][1] + count)
            else:
                joined.append((first, count))
        ranges[cpu] = joined
    return dict(ranges)


def count_by(accesses: Iterable[Any], attribute: str) -> Counter[Any]:
    """How many accesses have each value of an attribute."""
    return Counter(getattr(access, attribute) for access in accesses)
