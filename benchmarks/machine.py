"""The machine: its CPUs, what it is, and whether something else is going on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path


def cpus() -> tuple[int, int]:
    """A CPU for the traced thread and one for whoever drains; the same when there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


def facts() -> list[tuple[str, str]]:
    """What a reader must know of the machine to judge figures taken on it."""
    virtual = ", virtual" if "hypervisor" in _cpu_info("flags").split() else ""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return [
        ("CPU", f"{_cpu_info('model name') or platform.machine()}, {os.cpu_count()} CPUs{virtual}, {memory:.0f} GiB"),
        ("mitigations", ", ".join(_mitigations())),
        ("kernel", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("Python", platform.python_version()),
        ("other tools", ", ".join(_versions("strace", "bpftrace", "perf"))),
    ]


def _cpu_info(name: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _mitigations() -> list[str]:
    """Those that make system calls dearer, and which way of them is on."""
    found = []
    for name in ("meltdown", "spectre_v2", "spec_rstack_overflow", "retbleed"):
        path = Path("/sys/devices/system/cpu/vulnerabilities") / name
        state = path.read_text().strip() if path.exists() else ""
        if state.startswith("Mitigation: "):
            found.append(f"{name}: {state.removeprefix('Mitigation: ').partition(';')[0]}")
    return found or ["none"]


def _versions(*tools: str) -> list[str]:
    found = []
    for tool in tools:
        if shutil.which(tool):
            said = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout.split()
            number = next((word for word in said if word.lstrip("v")[:1].isdigit()), "?")
            found.append(f"{tool} {number.lstrip('v')}")
        else:
            found.append(f"no {tool}")
    return found


class Usage:
    """How much others use the CPUs, from here on: processes that are not ours, and what the hypervisor takes."""

    def __init__(self) -> None:
        self._total, self._others = _seconds()

    def others_share(self) -> float:
        """Share of all CPUs' time since then."""
        total, others = _seconds()
        return max(others - self._others, 0) / max(total - self._total, 0.01)


def _seconds() -> tuple[float, float]:
    """Time of all CPUs so far, and what of it others used; of ours, children count once they have ended."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]  # see proc(5)
    idle = ticks[3] + ticks[4]
    per_second = os.sysconf("SC_CLK_TCK")
    return sum(ticks) / per_second, (sum(ticks) - idle) / per_second - sum(os.times()[:4])


def other_tracers() -> set[int]:
    """Processes, this one excluded, with a BPF program at every system call: any such program slows everybody."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            infos = [info.read_text() for info in (process / "fdinfo").iterdir()]
        except OSError:
            continue  # it has ended
        if any("tp_name:\tsys_e" in info for info in infos):
            found.add(int(process.name))
    return found - {os.getpid()}
