"""One guest: its boot under QEMU's emulation, and what it reported."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

from . import MARK
from .images import Architecture
from .kernels import Kernel

LOCKUPS = 4
"""So many complaints of the kernel, one in 22 s for each CPU, and a guest is given up; fewer may be a busy host's."""

LINES = 3
"""A refusal has at most as many: what cannot be done, why, and the remedy."""


@dataclass
class Guest:
    """What came of a guest. status: of its tests, None when it never told, because it hung or crashed."""

    architecture: Architecture
    kernel: Kernel
    variant: str = ""
    """Words for the kernel's command line."""
    modules: tuple[str, ...] = ()
    """Files of tests/kernel/: of the subset only their tests run. None means all."""
    refusal: str = ""
    """What FLAK is to say where it cannot trace: that it says so in one line is what is tested there."""
    status: int | None = None
    seconds: float = 0
    attempts: int = 0
    output: str = ""
    console: str = ""
    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is called: 6.12 x86_64, lockdown=integrity."""
        return f"{self.kernel.series} {self.architecture.machine}{self.variant and ', ' + self.variant}"

    @property
    def host(self) -> dict[str, Any]:
        """What the guest told of itself: its kernel, and which hooks FLAK has there."""
        return next((report for report in self.reports if "served" in report), {})

    def tests(self, outcome: str) -> list[dict[str, Any]]:
        """The tests that ended so: passed, failed or skipped."""
        return [report for report in self.reports if report.get("outcome") == outcome]

    def failure(self) -> str | None:
        """Why it counts as failed, with the end of what it said: tests failed, or it never told. None: it does not."""
        if self.refusal:
            said = self.host.get("said", "")
            is_clear = self.refusal in said and len(said.splitlines()) <= LINES
            return None if is_clear else f"{self.name}: status {self.status}, FLAK said: {said}\n{self.output}"
        if self.status == 0 and self.tests("passed"):
            return None
        if self.status is None:
            said = "\n".join([*self.output.splitlines()[-15:], "console:", *self.console.splitlines()[-30:]])
            return f"{self.name}: no end within {self.seconds:.0f} s\n{said}"
        return f"{self.name}: status {self.status}\n{self.output}"


def boot(guest: Guest, initramfs: Path, disks: Sequence[Path], arguments: Sequence[str], limit: float) -> None:
    """Run a guest to its end, at most `limit` seconds. disks: images for /dev/vda and /dev/vdb, which stay as they are.
    arguments: of tests/vm/inside.py. What came of it is written into `guest`.
    """
    guest.attempts += 1
    output, console = initramfs.with_name("output"), initramfs.with_name("console")
    output.touch()
    console.touch()
    command_line = f"loglevel=4 panic=-1 {guest.variant} inside={','.join(arguments)} modules={','.join(guest.modules)}"
    if guest.architecture.machine == "x86_64":
        machine = ["qemu-system-x86_64", "-cpu", "max", "-serial", f"file:{console}", "-serial", f"file:{output}"]
        command_line = f"console=ttyS0 {command_line}"
    else:  # with its newest features, pointer authentication above all, this one is half as fast
        machine = ["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72", "-serial", f"file:{console}"]
        machine += ["-chardev", f"file,id=output,path={output}", "-device", "pci-serial,chardev=output"]
        command_line = f"console=ttyAMA0 {command_line}"
    drives = []
    for number, disk in enumerate(disks):
        drives += ["-drive", f"file={disk},format=raw,if=none,id=d{number},snapshot=on"]
        drives += ["-device", f"virtio-blk-pci,drive=d{number}"]
    command = [
        *machine,
        *("-accel", "tcg,thread=multi", "-smp", "2", "-m", "2G", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", str(guest.kernel.image), "-initrd", str(initramfs), "-append", command_line),
        *drives,
    ]
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=PIPE, text=True) as qemu:
        try:
            complaint = _wait(qemu, console, limit)
        finally:
            qemu.kill()
    guest.seconds = time.monotonic() - start
    guest.console = f"{console.read_text(errors='replace')}\n{complaint}"
    guest.reports = list(_reports(output.read_text(errors="replace").splitlines()))
    guest.output = "\n".join(
        line for line in output.read_text(errors="replace").splitlines() if not line.startswith(MARK)
    )
    statuses = [report["status"] for report in guest.reports if "status" in report]
    guest.status = statuses[-1] if statuses else None


def _wait(qemu: subprocess.Popen[str], console: Path, limit: float) -> str:
    """Wait for the end of a guest, or kill it when it has hung; returns what QEMU or this has to say.

    Under emulation with several threads a CPU can go on to meet an int3 that the kernel, which patches its static
    branches so, has long replaced; then its CPUs stay in system calls for ever, and the kernel says "soft lockup".
    """
    end = time.monotonic() + limit
    while True:
        try:
            return qemu.communicate(timeout=5)[1]
        except subprocess.TimeoutExpired:
            has_locked_up = console.read_bytes().count(b"BUG: soft lockup") >= LOCKUPS
            if has_locked_up or time.monotonic() > end:
                qemu.kill()
                why = "its CPUs are stuck" if has_locked_up else f"{limit:.0f} s were not enough"
                return f"killed: {why}\n{qemu.communicate()[1]}"


def _reports(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError):  # one cut off, where the guest was killed while it wrote
            if line.startswith(f"{MARK}EXIT="):
                yield {"status": int(line.partition("=")[2])}
            elif line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))
