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
PATIENCE_S = 60.0
BUSY = 0.1  # share of the CPUs that others may use


class Bench:
    """A context manager: two temporary folders, programs compiled into one, this process pinned away from them.

    data: a folder on tmpfs. disk: one that programs can be run from. workloads: run on the CPU set aside for them.
    """

    def __init__(self, *, is_quick: bool = False) -> None:
        self.is_quick = is_quick
        self.disturbed_rounds = 0
        self._patience_s = PATIENCE_S / 6 if is_quick else PATIENCE_S
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
        """Wait until nobody else traces or keeps the CPUs busy; when patience ends, go on and count it."""
        deadline = time.monotonic() + self._patience_s
        reason = _disturbance()
        while reason and time.monotonic() < deadline:
            print(f"waiting: {reason}", file=sys.stderr, flush=True)
            time.sleep(1)
            reason = _disturbance()
        self._patience_s = max(deadline - time.monotonic(), 0)
        self.disturbed_rounds += bool(reason)


def _disturbance() -> str:
    """What else is going on, "" when nothing is."""
    if tracers := machine.other_tracers():
        return f"process {', '.join(map(str, sorted(tracers)))} traces system calls"
    busy = machine.busy_share(0.1)
    return f"others use {busy:.0%} of the CPUs" if busy > BUSY else ""
