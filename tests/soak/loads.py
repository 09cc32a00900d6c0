"""The loads of a soak: real programs, and how many accesses each made, counted by the program itself.

A load runs in a folder of its own and returns `Made`: what a trace must have of that folder. One whose program does not
count what it does returns nothing to compare; the equations hold for it all the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGES = 4096
TRANSFERS = {
    "psync": ("pread64", "pwrite64"),
    "io_uring": ("read", "write"),
    "libaio": ("pread", "pwrite"),
}


@dataclass
class Made:
    """Accesses by operation that a load made in its folder; operations that are not named are not compared."""

    ops: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.ops.values())


Run = Callable[[Sequence[str]], str]
"""Runs a command where it is traced and returns its output."""


def fio(engine: str) -> Callable[[Run, Path], Made]:
    """Random reads and writes by fio, whose own report tells how many."""

    def load(run: Run, folder: Path) -> Made:
        with (folder / "data").open("wb") as data:  # or fio would lay it out, which its report leaves out
            for _ in range(PAGES):
                data.write(bytes(4096))
        output = run(
            [
                shutil.which("fio") or "fio", "--name=job", f"--filename={folder}/data", f"--ioengine={engine}",
                "--rw=randrw", "--bs=4k", f"--size={PAGES * 4096}", "--iodepth=16", "--output-format=json",
            ]
        )  # fmt: skip
        (job,) = json.loads(output[output.index("{") :])["jobs"]
        if engine not in TRANSFERS:
            return Made()
        read, write = TRANSFERS[engine]
        return Made({read: job["read"]["total_ios"], write: job["write"]["total_ios"]})

    return load


_STORM = "i=0; while [ $i -lt 1009 ]; do ( : < $1/data ) & i=$((i+1)); [ $((i % 50)) = 0 ] && wait; done; wait"


def forks(run: Run, folder: Path) -> Made:
    """A storm of children, each of which opens one file."""
    (folder / "data").write_bytes(b"x")
    run(["sh", "-c", _STORM, "sh", str(folder)])
    return Made({"openat": 1009})


_FILES = """
import os, sys
for i in range(2003):
    path = f"{sys.argv[1]}/{i}"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"1234567", 0)
    os.pread(fd, 7, 0)
    os.close(fd)
for i in range(2003):
    os.unlink(f"{sys.argv[1]}/{i}")
"""


def files(run: Run, folder: Path) -> Made:
    """Many files: made, written, read, removed."""
    run([sys.executable, "-c", _FILES, str(folder)])
    return Made({"openat": 2003, "pwrite64": 2003, "pread64": 2003, "close": 2003})


_SQLITE = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1] + "/data.db")
base.execute("create table t (a integer primary key, b text)")
for part in range(50):
    with base:
        base.executemany("insert into t (b) values (?)", [(f"{part}-{i}" * 20,) for i in range(200)])
assert base.execute("select count(*) from t").fetchone() == (10000,)
base.execute("vacuum")
base.close()
"""


def sqlite(run: Run, folder: Path) -> Made:
    """Fifty transactions of SQLite."""
    run([sys.executable, "-c", _SQLITE, str(folder)])
    return Made()


FLOOD = 200_003


def flood(program: Path) -> Callable[[Run, Path], Made]:
    """Two threads that do nothing but read: more than a small ring holds."""

    def load(run: Run, folder: Path) -> Made:
        (folder / "data").write_bytes(bytes(4096))
        run([str(program), f"{folder}/data", str(FLOOD), "2"])
        return Made({"pread64": 2 * FLOOD})

    return load


def build_flood(folder: Path) -> Path:
    """tests/workloads/preads.c, compiled."""
    source = Path(__file__).parents[1] / "workloads" / "preads.c"
    program = folder / "preads"
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-pthread", "-o", program, source], check=True)
    return program
