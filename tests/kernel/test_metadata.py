"""Metadata calls: which paths, which file was found, which results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flak.events import (
    Access,
    Advise,
    Check,
    Link,
    ListDir,
    Mkdir,
    Open,
    Rename,
    Stat,
    StatFs,
    Sync,
    Truncate,
    Unlink,
)

from .running import Run, trace_command

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]


@pytest.fixture
def traced(tmp_path: Path) -> Any:
    """Runs Python statements in a folder of their own under FLAK."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def run(statements: str, **options: Any) -> Run:
        program = f"import os, mmap\nos.chdir({str(folder)!r})\n{statements}"
        return trace_command([sys.executable, "-I", "-S", "-c", program], tmp_path, **options)

    run.folder = folder  # type: ignore[attr-defined]
    return run


def of(run: Run, folder: Path, *classes: type) -> list[Any]:
    """Accesses of these classes below the folder."""
    return [e for e in run.of(*classes) if (e.path or "").startswith(str(folder))]


def test_a_path_is_what_was_passed_behind_the_folder_it_starts_from(traced: Any) -> None:
    folder = traced.folder
    run = traced("""
os.mkdir("d", 0o750)
fd = os.open("d", os.O_RDONLY)
os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
os.stat("d/f"); os.stat("f", dir_fd=fd); os.stat(os.getcwd() + "/d/f"); os.fstat(fd)
os.access("d/f", os.R_OK | os.X_OK)
""")
    looks = [(e.claimed_path, e.path) for e in of(run, folder / "d", Stat)]
    assert looks == [
        ("d/f", f"{folder}/d/f"), ("f", f"{folder}/d/f"), (f"{folder}/d/f", f"{folder}/d/f"), (None, f"{folder}/d"),
    ]  # fmt: skip
    (made,) = of(run, folder, Mkdir)
    assert (made.path, made.mode, made.errno) == (f"{folder}/d", 0o750, None)
    (asked,) = of(run, folder, Check)
    assert (asked.path, asked.mode) == (f"{folder}/d/f", os.R_OK | os.X_OK)


def test_what_stat_found_is_the_file_that_is_read(traced: Any) -> None:
    folder = traced.folder
    (folder / "f").write_bytes(b"x")
    (folder / "l").symlink_to("f")
    run = traced('os.stat("f"); os.stat("l"); os.close(os.open("f", os.O_RDONLY)); os.stat("f"); os.lstat("l")')
    status, link = (folder / "f").stat(), (folder / "l").lstat()
    before, through, after, itself = [e for e in of(run, folder, Stat) if e.claimed_path in ("f", "l")]
    (opened,) = [e for e in of(run, folder, Open) if e.errno is None]
    dev = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    assert {(e.dev, e.ino, e.kind) for e in (before, through, after)} == {(dev, status.st_ino, "file")}
    assert {e.file_id for e in (before, through, after)} == {opened.file_id}, "they are rows of one file"
    assert (itself.ino, itself.op) == (link.st_ino, "newfstatat")


def test_names_come_and_go(traced: Any) -> None:
    folder = traced.folder
    run = traced("""
open("a", "w").close()
os.rename("a", "b"); os.link("b", "c"); os.symlink("b", "l"); os.unlink("c"); os.mkdir("d"); os.rmdir("d")
for name in ("b", "gone"):
    try: os.rmdir(name)
    except OSError: pass
os.rename("b", "e", src_dir_fd=os.open(".", os.O_RDONLY))
""")
    has_old = os.uname().machine == "x86_64"  # newer architectures have no unlink(2), only what takes a descriptor too
    (renamed, again), (hard, soft) = of(run, folder, Rename), run.of(Link)
    assert (renamed.path, renamed.new_path) == (f"{folder}/a", f"{folder}/b")
    assert (again.op, again.path, again.new_path) == ("renameat", f"{folder}/b", f"{folder}/e")
    assert (hard.path, hard.new_path) == (f"{folder}/b", f"{folder}/c")
    assert (soft.path, soft.new_path) == ("b", f"{folder}/l"), "what a symbolic link says is not looked up here"
    assert [(e.op, Path(e.path).name, e.errno) for e in of(run, folder, Unlink)] == [
        ("unlink" if has_old else "unlinkat", "c", None),
        ("rmdir" if has_old else "unlinkat", "d", None),
        ("rmdir" if has_old else "unlinkat", "b", "ENOTDIR"),
        ("rmdir" if has_old else "unlinkat", "gone", "ENOENT"),
    ]


def test_sizes_and_places(traced: Any) -> None:
    folder = traced.folder
    run = traced("""
fd = os.open("f", os.O_CREAT | os.O_RDWR)
os.posix_fallocate(fd, 4096, 8209); os.ftruncate(fd, 5000); os.truncate("f", 4999)
os.posix_fadvise(fd, 4096, 100, os.POSIX_FADV_RANDOM)
os.fsync(fd); os.fdatasync(fd)
map = mmap.mmap(fd, 4999); map.madvise(mmap.MADV_WILLNEED); map.flush()
os.listdir("."); os.statvfs("."); os.fstatvfs(fd)
""")
    assert [(e.op, e.file_offset, e.size_req) for e in of(run, folder, Truncate)] == [
        ("fallocate", 4096, 8209), ("ftruncate", None, 5000), ("truncate", None, 4999),
    ]  # fmt: skip
    assert [(e.op, e.flags) for e in of(run, folder, Advise)] == [("fadvise64", 1), ("madvise", 3)]
    assert [e.op for e in of(run, folder, Sync)] == ["fsync", "fdatasync", "msync"]
    listed = of(run, folder, ListDir)
    assert [e.size_ret > 0 for e in listed] == [True, False] and {e.path for e in listed} == {str(folder)}
    assert [(e.op, e.path) for e in of(run, folder, StatFs)] == [
        ("statfs", f"{folder}/."), ("fstatfs", f"{folder}/f"),
    ]  # fmt: skip
    assert not [e for e in of(run, folder, Access) if e.errno]


def test_the_same_string_is_sent_once_and_others_are_told_apart(traced: Any) -> None:
    folder = traced.folder
    run = traced("""
for number in range(211):
    for name in ("missing", f"missing-{number}"):
        try: os.stat(name)
        except OSError: pass
""", events=["stat"])  # fmt: skip
    looks = [e for e in of(run, folder, Stat) if "missing" in e.path]
    assert [Path(e.path).name for e in looks] == [
        name for number in range(211) for name in ("missing", f"missing-{number}")
    ]
    assert {e.errno for e in looks} == {"ENOENT"}
    assert len({e.path_id for e in looks}) == 212, "an id for each string"


def test_only_what_is_asked_for_is_recorded(traced: Any) -> None:
    run = traced('os.mkdir("d"); os.stat("d"); os.rename("d", "e"); os.rmdir("e")', events=["stat"])
    assert {type(e) for e in run.of(Access)} <= {Stat, Check, StatFs}
    run = traced('os.mkdir("d"); os.stat("d"); os.rename("d", "e"); os.rmdir("e")', events=["meta"])
    assert not run.of(Stat) and [e.op for e in of(run, traced.folder, Mkdir, Rename, Unlink)] == [
        "mkdir",
        "rename",
        "rmdir",
    ]


def test_a_file_that_is_renamed_by_a_program_that_is_not_traced_shows_its_new_name(traced: Any) -> None:
    folder = traced.folder
    (folder / "old").write_bytes(b"12345")
    run = traced(
        'fd = os.open("old", os.O_RDONLY); os.read(fd, 1); os.system("mv old new"); os.read(fd, 1)',
        events=["read"],
        follow=False,
    )
    assert [Path(e.path).name for e in of(run, folder, Access)] == ["old", "new"]


def test_a_stat_finds_the_new_file_where_an_inode_number_comes_again(folder: Path, tmp_path: Path) -> None:
    program = """
import os, sys
for _ in range(3):
    os.close(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR))
    os.stat(sys.argv[1])
    os.unlink(sys.argv[1])
"""
    run = trace_command([sys.executable, "-c", program, folder / "f"], tmp_path)
    ours = [e for e in run.of(Open, Stat) if e.path == str(folder / "f") and e.errno is None]
    assert [type(e) for e in ours] == [Open, Stat] * 3
    if len({e.ino for e in ours}) > 1:
        pytest.skip("this file system does not use an inode number again at once")
    opened, found = ([e.file_id for e in ours if isinstance(e, kind)] for kind in (Open, Stat))
    assert found == opened
    assert len(set(opened)) == 3
