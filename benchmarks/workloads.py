"""The programs that are traced: compiled at first use, run on one CPU, and what they say they cost."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = (HERE, HERE.parent / "tests" / "workloads")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one turn of a loop cost in thread CPU time and in wall time, and how many page faults all turns took."""

    cpu_ns: float
    wall_ns: float
    count: int
    faults: int

    @classmethod
    def told(cls, output: str) -> Cost:
        """From what loops.c printed, among other things perhaps."""
        (line,) = (line for line in output.splitlines() if line.startswith('{"loop"'))
        said = json.loads(line)
        return cls(said["cpu_ns"] / said["count"], said["wall_ns"] / said["count"], said["count"], said["faults"])

    @property
    def cpu_ns_per_fault(self) -> float:
        """Thread CPU time by faults."""
        return self.cpu_ns * self.count / self.faults


def output_of(command: Sequence[str | os.PathLike[str]], environment: Mapping[str, str] | None = None) -> str:
    """What a command prints. Raises RuntimeError, with what it complained about, when it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


class Workloads:
    """Programs of this folder and of tests/workloads/, by name, and their command lines on the CPU `cpu`."""

    def __init__(self, folder: Path, cpu: int) -> None:
        self._folder = folder
        self.cpu = cpu

    def program(self, name: str) -> Path:
        """The compiled program."""
        program = self._folder / name
        if not program.exists():
            options = ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
            output_of(["cc", *options, "-o", program, _source(f"{name}.c")])
        return program

    def bpf_object(self, name: str) -> bytes:
        """A compiled BPF object."""
        result = self._folder / f"{name}.bpf.o"
        if not result.exists():
            target = {"x86_64": "x86", "aarch64": "arm64"}[platform.machine()]
            options = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", f"-D__TARGET_ARCH_{target}", f"-I{HERE.parent}"]
            output_of(["clang", *options, "-c", _source(f"{name}.bpf.c"), "-o", result])
        return result.read_bytes()

    def command(self, name: str, *args: object) -> list[str]:
        """The command line, pinned."""
        return [shutil.which("taskset") or "taskset", "-c", str(self.cpu), str(self.program(name)), *map(str, args)]


def _source(name: str) -> Path:
    (found,) = (folder / name for folder in SOURCES if (folder / name).exists())
    return found


def write_pages(path: Path, pages: int) -> Path:
    """A file of that many pages, clean and in the page cache.

    One write a page: larger writes make larger folios, and newer kernels map all pages of a folio at one fault.
    """
    with path.open("wb", buffering=0) as file:
        for page in range(pages):
            file.write(bytes([page & 0xFF]) * 4096)
        os.fsync(file.fileno())
    return path
