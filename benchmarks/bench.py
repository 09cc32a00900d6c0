"""Where and how thoroughly to measure."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from benchmarks import machine
from benchmarks.workloads import Workloads

SHARED_MEMORY = Path("/dev/shm")  # a tmpfs on every Linux: what is written there waits for no disk
BUSY = 0.1  # share of all CPUs' time that others may use


class Bench:
    """A context manager: two temporary folders, programs compiled into one, this process pinned away from them.

    patience_s: how long to wait, in all, for others to leave the machine alone. data: a folder on tmpfs. disk: one that
    programs can be run from. workloads: run on the CPU set aside for them.
    """

    def __init__(self, *, is_quick: bool = False, patience_s: float) -> None:
        self.is_quick = is_quick
        self.rounds_taken = 0
        self.disturbed = 0  # of these, for want of better ones
        self._patience_s = patience_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._affinity = os.sched_getaffinity(0)
        traced_cpu, drain_cpu = machine.cpus()
        self.all_cpus = ",".join(map(str, sorted(self._affinity)))
        parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.data = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="flak-bench-", dir=parent)))
        self.disk = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="flak-bench-")))
        self.workloads = Workloads(self.disk, traced_cpu)
        os.sched_setaffinity(0, {drain_cpu})
        return self

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._affinity)
        self._stack.close()

    def rounds(self, thorough: int, quick: int) -> int:
        """How often to measure something."""
        return quick if self.is_quick else thorough

    def wait_for_quiet(self) -> None:
        """Wait until nobody else traces or keeps the CPUs busy, or patience ends."""
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline and (reason := _disturbance()):
            print(f"waiting: {reason}", file=sys.stderr, flush=True)
            time.sleep(1)
            self._patience_s = max(deadline - time.monotonic(), 0)


def _disturbance() -> str:
    """What else is going on, "" when nothing is."""
    if tracers := machine.other_tracers():
        return f"process {', '.join(map(str, sorted(tracers)))} traces system calls"
    usage = machine.Usage()
    time.sleep(0.1)
    share = usage.others_share()
    return f"others use {share:.0%} of the CPUs" if share > BUSY else ""
