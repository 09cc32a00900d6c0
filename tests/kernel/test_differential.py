"""FLAK and strace watch the same run: per thread and in order, they must tell of the same calls.

strace is what FLAK starts and follows; the program is strace's child, so both see it whole.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flak.events import (
    Access,
    Advise,
    Check,
    Close,
    CopyFrom,
    CopyTo,
    Dup,
    Exec,
    Link,
    ListDir,
    Mkdir,
    Mmap,
    Open,
    Read,
    Rename,
    Seek,
    Stat,
    StatFs,
    Sync,
    Truncate,
    Unlink,
    Write,
)

from . import strace_log
from .running import Workloads, by_tid, trace_command
from .strace_log import Call, Log

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]


@pytest.fixture(autouse=True)
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")


def as_call(access: Any) -> Call | None:
    """An access in strace's terms; None for what strace was not asked about."""
    if "by_exec" in access.marks:
        return None
    if "interrupted" in access.marks:
        return Call(access.op, "interrupted", access.path)
    match access:
        case CopyFrom() | CopyTo():
            return None
        case Read() | Write():
            result = access.size_ret
        case Open():
            return Call(access.op, access.errno or access.new_fd, access.claimed_path if access.errno else access.path)
        case Dup():
            result = access.new_fd
        case Seek():
            result = access.file_offset
        case Close():
            result = 0
        case Mmap():
            result = int(access.addr, 16) if access.addr else None
        case ListDir():
            result = access.size_ret
        case Advise() if access.op == "madvise":
            return None
        case Stat() | StatFs() | Check() | Rename() | Link() | Unlink() | Mkdir() | Truncate() | Sync() | Advise():
            return Call(access.op, access.errno or 0, access.claimed_path or access.path)
        case _:
            return None
    return Call(access.op, access.errno or result, access.path)


def seen_by_flak(accesses: list[Access]) -> list[Call]:
    return [call for access in accesses if (call := as_call(access))]


def compare(command: list[str], folder: Path) -> int:
    """Runs a command under both and compares; returns how many calls they agreed upon."""
    prefix = folder / "strace"
    run = trace_command(["strace", *strace_log.OPTIONS, "-o", prefix, *command], folder)
    log = Log(prefix)
    threads = by_tid(run.of(Access))
    # strace's child is strace itself until it executes the program.
    begin = min(e.ts_ns for e in run.of(Exec) if e.tid == log.first)
    assert log.first is not None
    threads[log.first] = [e for e in threads[log.first] if e.ts_ns > begin]
    for tid, calls in log.threads.items():
        assert seen_by_flak(threads.get(tid, [])) == calls
    assert run.stats.is_exact
    return sum(len(calls) for calls in log.threads.values())


@pytest.mark.parametrize("variant", ["read", "readv", "pread64", "preadv2-here", "pwritev2", "write", "short", "fail"])
def test_reads_and_writes_agree(workloads: Workloads, tmp_path: Path, variant: str) -> None:
    data = tmp_path / "data"
    data.write_bytes(bytes(23 * 4099))
    assert compare(workloads.command("rw", variant, data), tmp_path) >= 7


@pytest.mark.parametrize("variant", ["all", "replace", "fork", "exec"])
def test_descriptors_agree(workloads: Workloads, indexed: Path, tmp_path: Path, variant: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(100))
    assert compare(workloads.command("dups", variant, indexed, other), tmp_path) >= 7


@pytest.mark.parametrize("variant", ["fork", "vfork", "posix_spawn", "tree"])
def test_processes_agree(workloads: Workloads, indexed: Path, tmp_path: Path, variant: str) -> None:
    assert compare(workloads.command("spawn", variant, indexed), tmp_path) >= 36


@pytest.mark.parametrize("variant", ["own", "leader-first"])
def test_threads_agree(workloads: Workloads, indexed: Path, tmp_path: Path, variant: str) -> None:
    assert compare(workloads.command("threads", variant, indexed, 5, 97), tmp_path) >= 5 * 97


@pytest.mark.parametrize("variant", ["open", "rename", "link", "fail"])
def test_names_agree(workloads: Workloads, folder: Path, tmp_path: Path, variant: str) -> None:
    assert compare(workloads.command("names", variant, folder), tmp_path) >= 8


def test_seeks_agree(workloads: Workloads, tmp_path: Path) -> None:
    assert compare(workloads.command("lseek", tmp_path / "sparse"), tmp_path) >= 12


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_a_sqlite_query_agrees(tmp_path: Path) -> None:
    base = tmp_path / "base.db"
    statements = "CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4001) "
    statements += "INSERT INTO t SELECT i, hex(randomblob(50)) FROM n; CREATE INDEX x ON t(b);"
    subprocess.run([tool("sqlite3"), base, statements], check=True)
    query = "SELECT count(*), sum(a) FROM t WHERE b > '8'; UPDATE t SET a = 0 WHERE a < 100;"
    assert compare([tool("sqlite3"), str(base), query], tmp_path) > 100


def test_tar_of_a_tree_agrees(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for part in range(7):
        (tree / f"{part}").mkdir(parents=True)
        for file in range(11):
            (tree / f"{part}" / f"{file}").write_bytes(bytes(1009 * file))
    assert compare([tool("tar"), "-C", str(tmp_path), "-cf", str(tmp_path / "tree.tar"), "tree"], tmp_path) > 77 * 3


def test_a_compilation_agrees(workloads: Workloads, tmp_path: Path) -> None:
    source = tmp_path / "hello.c"
    source.write_text('#include <stdio.h>\nint main(void) { puts("hello"); }\n')
    assert compare([workloads.compiler, "-O1", "-o", str(tmp_path / "hello"), str(source)], tmp_path) > 200


TREE = """
    set -e; cd "$1"; mkdir -p a/b/c; touch a/x a/y; ln -s x a/l; ln a/x a/h; mv a/y a/z; cp -r a copy; ls -lR >/dev/null
    truncate -s 100 a/x; stat a/x a/l . >/dev/null; find . -type f >/dev/null; sync a/x; chmod 600 a/x; mv a moved
    rm -r copy; rmdir moved/b/c; ! stat nothing 2>/dev/null; ! rm moved 2>/dev/null; rm -rf moved; df . >/dev/null
"""


def test_the_life_of_a_tree_agrees(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    assert compare([tool("sh"), "-c", TREE, "sh", str(tmp_path / "tree")], tmp_path) > 300


def test_git_agrees(tmp_path: Path) -> None:
    script = """
        set -e; cd "$1"; git init -q .; for i in 1 2 3 4 5; do echo $i >f$i; done; git add .
        git -c user.name=x -c user.email=x@y commit -qm one; git mv f1 g1; git status --short >/dev/null; git gc -q
    """
    tool("git")
    (tmp_path / "repo").mkdir()
    assert compare([tool("sh"), "-c", script, "sh", str(tmp_path / "repo")], tmp_path) > 1000


def test_a_python_start_agrees(tmp_path: Path) -> None:
    assert compare([sys.executable, "-I", "-c", "import json, argparse"], tmp_path) > 100
