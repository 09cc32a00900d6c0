"""Running a workload untraced, under FLAK, under programs that do nothing, and under other tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flak
from benchmarks.bench import Bench
from benchmarks.workloads import Cost, output_of
from flak.bpf import BpfObject
from flak.events import Counters
from flak.session import Session
from flak.tracefile import Writer

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Traced:
    """What a traced command printed, and what tracing it took."""

    output: str
    stats: Counters
    elapsed_s: float
    cpu_s: float  # of FLAK, from the command's start to the end of the trace
    size: int = 0  # of the recording

    @property
    def events_per_s(self) -> float:
        """Events that reached user space, by the time the command ran."""
        return self.stats.received / self.elapsed_s

    @property
    def cpu_share(self) -> float:
        """Share of one CPU that FLAK used while the command ran."""
        return self.cpu_s / self.elapsed_s


def trace(bench: Bench, command: Sequence[str], use: Callable[[Session], int], **options: Any) -> Traced:
    """Trace a command with FLAK in this process. `use` takes the events, and returns the size of what it wrote."""
    output = bench.data / "stdout"
    with (
        output.open("wb") as stdout,
        flak.trace(command=command, stdout=stdout.fileno(), user="root", **options) as session,
    ):
        begin = time.process_time()
        size = use(session)
        cpu_s = time.process_time() - begin
    if session.command_status:
        raise RuntimeError(f"{command} ended with status {session.command_status}")
    return Traced(output.read_text(), session.stats, session.elapsed_s, cpu_s, size)


def record(bench: Bench, command: Sequence[str], path: Path | None = None, **options: Any) -> Traced:
    """Trace a command into a recording on tmpfs, which is kept when it is given a path."""
    target = path or bench.data / "run.flak"

    def write(session: Session) -> int:
        with Writer(target, session.header(), force=True) as writer:
            session.record(writer)
            writer.close(session.stats, session.sequences())
        return writer.size

    traced = trace(bench, command, write, **options)
    if not path:
        target.unlink()
    return traced


def run(command: Sequence[str]) -> Cost:
    """What the command's loop cost."""
    return Cost.told(output_of(command))


@contextmanager
def attached(bench: Bench, *programs: str) -> Iterator[None]:
    """Attach programs of floor.bpf.c. Raises LoadError or AttachError where the kernel lacks their hook."""
    with BpfObject(bench.workloads.bpf_object("floor")) as floor:
        floor.select(programs)
        floor.load()
        for program in programs:
            floor.attach(program)
        yield


@contextmanager
def sleeper() -> Iterator[int]:
    """A process that sleeps; its number."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


_PRINT_EACH = """
tracepoint:syscalls:sys_enter_pread64 /pid == cpid/ { @start[tid] = nsecs; @fd[tid] = args->fd; @pos[tid] = args->pos; }
tracepoint:syscalls:sys_exit_pread64 /@start[tid]/ {
    printf("%d %d %d %d %d\\n", tid, @fd[tid], @pos[tid], args->ret, nsecs - @start[tid]); delete(@start[tid]);
}"""
_COUNT = "tracepoint:syscalls:sys_enter_pread64 /pid == cpid/ { @calls[args->fd] = count(); }"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool that looks at the pread64 calls of a command; slowness: by how much fewer calls it is given."""

    name: str
    slowness: int
    line: Callable[[list[str]], list[str]]


PEERS = (
    Peer("strace, each call", 20, lambda command: ["strace", "-f", "-e", "trace=pread64", "-o", os.devnull, *command]),
    Peer("perf trace, each call", 20, lambda command: ["perf", "trace", "-e", "pread64", "-o", os.devnull, *command]),
    Peer("bpftrace, printing each", 5, lambda command: _bpftrace(_PRINT_EACH, command)),
    Peer("bpftrace, counting by fd", 1, lambda command: _bpftrace(_COUNT, command)),
)


def _bpftrace(program: str, command: list[str]) -> list[str]:
    return ["bpftrace", "-o", os.devnull, "-e", program, "-c", " ".join(command)]


def peer_line(bench: Bench, peer: Peer, command: list[str]) -> list[str]:
    """The command line that runs a command under a tool; empty where the tool is missing.

    Each tool runs where it does best: strace on the CPU of what it traces, since they take turns; the others on any.
    """
    line = peer.line(command)
    if not shutil.which(line[0]):
        return []
    cpus = str(bench.workloads.cpu) if line[0] == "strace" else bench.all_cpus
    return ["taskset", "-c", cpus, *line]
