"""Copies within the kernel: two records of one call, at the right places on both sides."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from flak.events import CopyFrom, CopyTo

from .running import Run, trace_command, write_pages

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

PROGRAM = """
import os, sys, shutil
a, b = os.open(sys.argv[1], os.O_RDWR), os.open(sys.argv[2], os.O_RDWR)
"""


@pytest.fixture
def copied(tmp_path: Path) -> Any:
    """Runs Python statements on two files, `a` and `b`, of 13 and 7 pages."""
    source, target = write_pages(tmp_path / "a", 13), write_pages(tmp_path / "b", 7)

    def run(statements: str, **options: Any) -> Run:
        command = [sys.executable, "-I", "-S", "-c", PROGRAM + statements, source, target]
        return trace_command(command, tmp_path, **({"events": ["copy"]} | options))

    return run


def sides(run: Run) -> list[tuple[str, str, str, int | None, int | None]]:
    """Each record as (op, role, file, offset, bytes)."""
    return [(e.op, e.role, Path(e.path).name, e.file_offset, e.size_ret) for e in run.of(CopyFrom, CopyTo)]


def test_copy_file_range_with_and_without_offsets(copied: Any) -> None:
    run = copied("""
os.copy_file_range(a, b, 5000, 4097, 101)
os.lseek(a, 100, 0); os.lseek(b, 200, 0)
os.copy_file_range(a, b, 3001); os.copy_file_range(a, b, 7, None, 11)
""")
    assert sides(run) == [
        ("copy_file_range", "source", "a", 4097, 5000), ("copy_file_range", "target", "b", 101, 5000),
        ("copy_file_range", "source", "a", 100, 3001), ("copy_file_range", "target", "b", 200, 3001),
        ("copy_file_range", "source", "a", 3101, 7), ("copy_file_range", "target", "b", 11, 7),
    ]  # fmt: skip
    assert [e.is_write for e in run.of(CopyFrom, CopyTo)] == 3 * [False, True]
    numbers = [e.call_id for e in run.of(CopyFrom, CopyTo)]
    assert numbers[::2] == numbers[1::2] and len(set(numbers)) == 3, "the two records of a call are linked"
    assert not any(e.marks for e in run.of(CopyFrom, CopyTo))


def test_sendfile_of_an_offset_and_of_the_position(copied: Any) -> None:
    run = copied("""
os.sendfile(b, a, 4096, 8191)
os.lseek(a, 17, 0); os.sendfile(b, a, None, 1009)
""")
    (first, second) = zip(run.of(CopyFrom), run.of(CopyTo), strict=True)
    assert [(e.file_offset, e.size_ret) for e in first] == [(4096, 8191), (0, 8191)]
    assert [(e.file_offset, e.size_ret) for e in second] == [(17, 1009), (8191, 1009)]


def test_splice_through_a_pipe_shows_the_files_or_all(copied: Any) -> None:
    statements = """
r, w = os.pipe()
os.splice(a, w, 4096, offset_src=8192)
os.splice(r, b, 4096, offset_dst=123)
"""
    assert sides(copied(statements)) == [("splice", "source", "a", 8192, 4096), ("splice", "target", "b", 123, 4096)]
    run = copied(statements, all_files=True)
    assert [(e.role, e.kind, e.file_offset) for e in run.of(CopyFrom, CopyTo)] == [
        ("source", "file", 8192), ("target", "pipe", None), ("source", "pipe", None), ("target", "file", 123),
    ]  # fmt: skip


def test_copies_that_fail_say_so_on_both_sides(copied: Any) -> None:
    run = copied("""
import fcntl
clone, within = (fcntl.ioctl, b, 0x40049409, a), (os.copy_file_range, a, a, 100, 0, 50)
closed = (os.sendfile, b, 99, 0, 1)
for call, *arguments in (clone, within, closed):
    try: call(*arguments)
    except OSError as error: print(error.errno)
""")
    told = [(e.op, e.role, e.errno) for e in run.of(CopyFrom, CopyTo)]
    assert [t for t in told if t[0] == "copy_file_range"] == [
        ("copy_file_range", "source", "EINVAL"), ("copy_file_range", "target", "EINVAL"),
    ]  # fmt: skip
    assert [t[1:] for t in told if t[0] == "sendfile64"] == [("source", "EBADF"), ("target", "EBADF")]
    cloned = [t for t in told if t[0] == "ficlone"]
    assert [t[1] for t in cloned] == ["source", "target"], "whether the file system can clone or not"


def test_totals_count_each_byte_once_on_each_side(copied: Any, tmp_path: Path) -> None:
    run = copied("shutil.copyfile(sys.argv[1], sys.argv[2] + '2')", events=None)
    copied_bytes = 13 * 4096
    assert sum(e.size_ret or 0 for e in run.of(CopyFrom)) == copied_bytes
    assert sum(e.size_ret or 0 for e in run.of(CopyTo)) == copied_bytes
    assert "copy" not in run.stats.not_decoded and run.stats.is_exact
