"""Requests through io_uring: each seen once, with the submitter's name, the right file and offset, and its result."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import (
    Access,
    Advise,
    Close,
    CopyFrom,
    CopyTo,
    Link,
    Mkdir,
    Open,
    Read,
    Rename,
    Stat,
    Sync,
    Truncate,
    Unlink,
    Write,
)
from flak.text import errno_name

from .conftest import FILE, Runs, Together, Traced
from .running import PAGE, Run, Workloads, by_tid, outcome, running

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged", "sees_io_uring")]

READS = ["read", "readv", "read_fixed", "readv_fixed"]
WRITES = ["write", "writev", "write_fixed", "writev_fixed"]
FIXED = [*READS[2:], *WRITES[2:]]
DEPTHS = [1, 16]  # requests a submission
COUNT, SIZE, WAITING, BEFORE = 61, 4100, 5, 37
HUNG_S = 0.1
NO_RESULT = -9999  # the workload's word for a completion that never came


def through(run: Run, *classes: type, via: str = "io_uring") -> list[Any]:
    """Accesses by this road, in the order in which they were submitted."""
    return sorted((e for e in run.of(*classes or (Access,)) if e.via == via), key=lambda e: e.ts_ns)


def result(step: dict[str, Any]) -> int | str | None:
    """What the program was told: bytes or the like, the errno's name, None where it was told nothing."""
    told: int = step["result"]
    if told == NO_RESULT:
        return None
    return errno_name(-told) if told < 0 else told


def told(step: dict[str, Any]) -> tuple[Any, ...]:
    """A transfer as the program tells it."""
    return step["op"], step["pid"], step["tid"], step["fd"], step["offset"], step["size"], result(step)


def seen_as(access: Any) -> tuple[Any, ...]:
    """A transfer as FLAK tells it, in the same words."""
    return (
        access.op, access.pid, access.tid, access.fd, access.file_offset, access.size_req, outcome(access),
    )  # fmt: skip


def skip_unknown_opcode(run: Run) -> None:
    """Skips where this kernel does not know the opcode: it refused one of each submission and took none after it."""
    if {s["result"] for s in run.steps} <= {-errno.EINVAL, NO_RESULT}:
        pytest.skip(f"this kernel's io_uring knows no {run.steps[0]['op']}")


def skip_unknown_flag(run: Run) -> None:
    """Skips where this kernel does not know RWF_NOAPPEND (Linux 6.9): it refused every request."""
    if {s["result"] for s in run.steps} <= {-errno.EINVAL, -errno.EOPNOTSUPP}:
        pytest.skip("this kernel knows no RWF_NOAPPEND")


def skip_without_direct(folder: Path) -> None:
    """Skips where this file system knows no O_DIRECT."""
    path = folder / "direct"
    path.touch()
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"no O_DIRECT in {folder}: {error.strerror}")


def word_at(content: bytes, offset: int) -> int:
    """The number that lies there: write i wrote i + 1."""
    return int.from_bytes(content[offset : offset + 4], "little")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


# --- transfers

WAYS = [
    "files", "async", "async files", "defer", "defer files", "coop", "link", "drain", "ring", "ring files", "cold",
    "cold defer", "cold files async", "direct", "direct defer",
]  # fmt: skip
"""How requests are handed over and carried out: options of the workload."""
POLLED = ["sqpoll", "sqpoll files"]
HERE = ["here", "here cold", "here files", "here async"]
RACES = ["here", "here cold", "here async"]
APPENDS = ["append", "append files", "append async", "append sqpoll"]
ASKED_APPENDS = [("write", 16, "rwf_append"), ("writev", 1, "rwf_append"), ("write", 16, "rwf_append async")]
NO_APPENDS = ["noappend", "noappend async"]


def arguments(kind: str, depth: int, options: str = "", file: object = FILE) -> tuple[object, ...]:
    """Of the workload, for this many requests on a file of their own."""
    return ("uring", kind, file, COUNT, depth, *options.split())


def absent(path: Path) -> None:
    """For a file that the program makes."""


@pytest.fixture(scope="module")
def plain(together: Together) -> Runs:
    """Reads in a file of known content and writes to files that were not there, handed over in the usual way."""
    cases = [arguments(kind, depth) for kind in READS for depth in DEPTHS]
    cases += [arguments(kind, depth, "", absent) for kind in WRITES for depth in DEPTHS]
    return together([*cases, *(arguments(kind, 1, "here", absent) for kind in WRITES[:2])])


@pytest.fixture(scope="module")
def transfers(together: Together) -> Runs:
    """Reads and writes in a file of known content, handed over in all ways."""
    cases = [(kind, 16, way) for kind in ("read", "write") for way in WAYS]
    cases += [(kind, 16, "files") for kind in FIXED]
    cases += [(kind, depth, way) for kind in ("read", "write") for way in POLLED for depth in DEPTHS]
    cases += [(kind, 1, way) for kind in ("read", "readv") for way in HERE] + [("read", 16, way) for way in RACES]
    return together([arguments(*case) for case in cases])


@pytest.fixture(scope="module")
def appends(together: Together) -> Runs:
    """Writes behind what is there, or not."""
    cases = [(kind, depth, way) for kind in WRITES[:3] for way in APPENDS for depth in DEPTHS]
    cases += [*ASKED_APPENDS, *(("write", 16, way) for way in NO_APPENDS)]
    return together([arguments(*case) for case in cases], content=bytes(BEFORE))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", READS)
def test_each_read_is_seen_once_as_the_program_made_it(plain: Runs, kind: str, depth: int) -> None:
    run, indexed = plain[arguments(kind, depth)]
    skip_unknown_opcode(run)
    seen = through(run)
    assert len(seen) == COUNT
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]
    assert {type(e) for e in seen} == {Read} and {e.is_write for e in seen} == {False}
    assert {(e.path, e.comm, e.marks) for e in seen} == {(str(indexed), "uring", ())}
    assert {(e.dev, e.ino) for e in seen} == {identity(indexed)}
    assert all(e.latency_ns > 0 for e in seen)
    assert run.stats.is_exact


def identity(path: Path) -> tuple[str, int]:
    """Device and inode number, as events have them."""
    status = path.lstat()
    return f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}", status.st_ino


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", WRITES)
def test_each_write_is_seen_once_as_the_program_made_it(plain: Runs, kind: str, depth: int) -> None:
    run, target = plain[arguments(kind, depth, "", absent)]
    skip_unknown_opcode(run)
    seen = through(run)
    assert len(seen) == COUNT
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]
    assert {type(e) for e in seen} == {Write} and {e.is_write for e in seen} == {True}
    assert {(e.path, e.comm, e.marks) for e in seen} == {(str(target), "uring", ())}
    content = target.read_bytes()
    assert [word_at(content, e.file_offset) for e in seen] == [i + 1 for i in range(COUNT)]
    assert run.stats.is_exact


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["read", "write"])
def test_transfers_are_the_same_whatever_way_they_take(transfers: Runs, tmp_path: Path, kind: str, way: str) -> None:
    if "direct" in way:
        skip_without_direct(tmp_path)
    run, indexed = transfers[arguments(kind, 16, way)]
    seen = through(run)
    assert len(seen) == COUNT
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]
    assert {(e.path, e.comm, e.marks) for e in seen} == {(str(indexed), "uring", ())}
    assert {e.fd is None for e in seen} == {"files" in way}, "a registered file has no descriptor"
    assert {(e.dev, e.ino) for e in seen} == {identity(indexed)}
    assert run.stats.is_exact


@pytest.mark.parametrize("kind", FIXED)
def test_registered_buffers_and_files_at_once(transfers: Runs, kind: str) -> None:
    run, indexed = transfers[arguments(kind, 16, "files")]
    skip_unknown_opcode(run)
    assert [seen_as(e) for e in through(run)] == [told(s) for s in run.steps]
    assert {(e.path, e.fd) for e in through(run)} == {(str(indexed), None)}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("way", POLLED)
@pytest.mark.parametrize("kind", ["read", "write"])
def test_the_kernels_polling_thread_submits_for_its_process(transfers: Runs, kind: str, way: str, depth: int) -> None:
    run, indexed = transfers[arguments(kind, depth, way)]
    seen = through(run)
    # All but the thread.
    assert [(*seen_as(e)[:2], *seen_as(e)[3:]) for e in seen] == [(*told(s)[:2], *told(s)[3:]) for s in run.steps]
    assert {e.path for e in seen} == {str(indexed)}
    (pid,) = {s["pid"] for s in run.steps}
    (tid,) = {e.tid for e in seen}
    assert tid != pid
    assert {e.comm for e in seen} == {f"iou-sqp-{pid}"}
    assert run.stats.is_exact


def test_a_device_without_polled_queues_refuses_and_that_is_seen(traced: Traced, indexed: Path) -> None:
    skip_without_direct(indexed.parent)
    run = traced("uring", "read", indexed, COUNT, 16, "direct", "iopoll")
    # Where the device has such queues they are ordinary reads.
    assert [seen_as(e) for e in through(run)] == [told(s) for s in run.steps]
    assert len(run.steps) == COUNT


@pytest.mark.parametrize("kind", ["read", "readv"])
@pytest.mark.parametrize("way", HERE)
def test_a_read_at_the_position_is_where_the_data_says(transfers: Runs, kind: str, way: str) -> None:
    run, _ = transfers[arguments(kind, 1, way)]
    seen = through(run)
    assert [e.file_offset for e in seen] == [SIZE * i for i in range(COUNT)]
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]
    assert {e.marks for e in seen} == {()}


@pytest.mark.parametrize("way", RACES)
def test_reads_at_the_position_that_race_are_exact_or_marked(transfers: Runs, way: str) -> None:
    run, _ = transfers[arguments("read", 16, way)]
    seen = through(run)
    assert len(seen) == COUNT
    wrong = [
        (e.file_offset, s["offset"])
        for e, s in zip(seen, run.steps, strict=True)
        if e.file_offset != s["offset"] and "offset_shared" not in e.marks
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", WRITES[:2])
def test_a_write_at_the_position_is_where_the_file_says(plain: Runs, kind: str) -> None:
    run, target = plain[arguments(kind, 1, "here", absent)]
    seen, content = through(run), target.read_bytes()
    assert [e.file_offset for e in seen] == [SIZE * i for i in range(COUNT)]
    assert [word_at(content, e.file_offset) for e in seen] == [i + 1 for i in range(COUNT)]
    assert {e.marks for e in seen} == {()}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("way", APPENDS)
@pytest.mark.parametrize("kind", WRITES[:3])
def test_an_append_lands_at_the_end_wherever_the_program_asked(appends: Runs, kind: str, way: str, depth: int) -> None:
    assert_appended(*appends[arguments(kind, depth, way)])


@pytest.mark.parametrize(("kind", "depth", "way"), ASKED_APPENDS)
def test_a_request_that_asks_to_append_lands_at_the_end(appends: Runs, kind: str, depth: int, way: str) -> None:
    assert_appended(*appends[arguments(kind, depth, way)])


def assert_appended(run: Run, target: Path) -> None:
    seen, content = through(run), target.read_bytes()
    assert sorted(e.file_offset for e in seen) == [BEFORE + SIZE * i for i in range(COUNT)]
    assert [word_at(content, e.file_offset) for e in seen] == [i + 1 for i in range(COUNT)]
    assert [e.arg_offset for e in seen] == [5 * i for i in range(COUNT)]
    assert {e.marks for e in seen} == {("offset_from_size",)}
    assert run.stats.is_exact


@pytest.mark.parametrize("way", NO_APPENDS)
def test_a_write_that_is_no_append_lands_where_it_was_asked_to(appends: Runs, way: str) -> None:
    run, target = appends[arguments("write", 16, way)]
    skip_unknown_flag(run)
    seen, content = through(run), target.read_bytes()
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]
    assert [word_at(content, e.file_offset) for e in seen] == [i + 1 for i in range(COUNT)]
    assert {(e.arg_offset, e.marks) for e in seen} == {(None, ())}


def test_reads_at_the_end_of_a_file_return_less_than_asked(traced: Traced, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(16 * SIZE + 17))
    run = traced("uring", "short", path)
    seen = through(run)
    assert [e.size_ret for e in seen] == 16 * [SIZE] + [17, 0, 0]
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]


def test_ten_thousand_reads_are_seen_each(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "read", indexed, 10007, 16)
    assert [seen_as(e) for e in through(run)] == [told(s) for s in run.steps]
    assert len(run.steps) == 10007
    assert run.stats.lost_total == 0 and run.stats.is_exact


# --- requests that fail


def test_requests_that_fail_carry_their_errno_and_their_file(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "fail", indexed)
    seen = through(run)
    assert [(e.op, e.fd, e.errno) for e in seen] == [(s["op"], s["fd"], result(s)) for s in run.steps]
    assert len(seen) == 7
    assert [e.path for e in seen] == [None, None, str(indexed), str(indexed), str(indexed), "/", None]
    assert [(e.file_offset, e.size_req, e.size_ret) for e in seen[2:5]] == [
        (s["offset"], s["size"], None) for s in run.steps[2:5]
    ]
    assert run.stats.is_exact


def test_requests_that_the_kernel_refuses_to_parse_are_seen_too(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "refused", indexed)
    assert [(e.op, e.errno) for e in through(run)] == [(s["op"], result(s)) for s in run.steps]
    assert len(run.steps) == 5
    assert run.stats.is_exact


def test_linked_requests_behind_one_that_failed_are_cancelled(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "links", indexed)
    seen = through(run)
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]
    assert Counter(e.errno for e in seen) == {None: 2 + 4 + 3, "EBADF": 2, "ECANCELED": 4}
    assert {e.path for e in seen if e.errno is None} == {str(indexed)}
    assert run.stats.is_exact


def test_only_requests_that_failed_are_seen(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "links", indexed, failed=True)
    assert [seen_as(e) for e in through(run)] == [told(s) for s in run.steps if s["result"] < 0]
    assert run.stats.filtered["failed"] >= 9
    assert run.stats.is_exact


# --- everything but transfers


@pytest.fixture
def meta(traced: Traced, folder: Path) -> Run:
    """Everything that is no transfer."""
    return traced("uring", "meta", folder)


def test_every_request_that_is_no_transfer_is_seen_once(meta: Run) -> None:
    # Before Linux 6.9 there is no ftruncate.
    steps = [s for s in meta.steps if (s["op"], result(s)) != ("ftruncate", "EINVAL")]
    assert [(e.op, e.errno) for e in through(meta)] == [
        (s["op"], result(s) if s["result"] < 0 else None) for s in steps
    ]
    assert {e.tid for e in through(meta)} == {s["tid"] for s in steps}
    assert all(e.latency_ns > 0 for e in through(meta))
    assert meta.stats.is_exact
    assert not [name for name in meta.stats.not_decoded if name.startswith("io_uring")]


def test_opens_carry_path_flags_and_the_new_descriptor(meta: Run, folder: Path) -> None:
    made, again, missing = through(meta, Open)
    steps = [s for s in meta.steps if s["op"].startswith("openat")]
    assert [(e.op, e.fd, e.new_fd) for e in (made, again)] == [(s["op"], s["fd"], s["result"]) for s in steps[:2]]
    assert {(e.path, e.dev, e.ino, e.kind) for e in (made, again)} == {
        (f"{folder}/f", *identity(folder / "f"), "file"),
    }  # fmt: skip
    # The kernel adds O_LARGEFILE before anybody can look.
    kept = os.O_ACCMODE | os.O_CREAT
    assert [e.open_flags & kept for e in (made, again, missing)] == [os.O_RDWR | os.O_CREAT, os.O_RDONLY, os.O_RDONLY]
    assert (missing.op, missing.path, missing.claimed_path) == ("openat", f"{folder}/missing", "missing")
    assert (missing.errno, missing.new_fd) == ("ENOENT", None)
    assert "path_claimed" in missing.marks
    assert not [e for e in (made, again) if e.marks]


def test_closes_carry_the_path_of_what_they_close(meta: Run, folder: Path) -> None:
    steps = [s for s in meta.steps if s["op"] == "close"]
    assert [(e.fd, e.path, e.errno) for e in through(meta, Close)] == [
        (steps[0]["fd"], f"{folder}/f", None), (steps[1]["fd"], f"{folder}/f", None), (987, None, "EBADF"),
    ]  # fmt: skip


def test_sizes_and_places(meta: Run, folder: Path) -> None:
    truncates = {e.op: e for e in through(meta, Truncate)}
    assert (truncates["fallocate"].file_offset, truncates["fallocate"].size_req) == (4096, 8209)
    if "ftruncate" in truncates:
        assert truncates["ftruncate"].size_req == 4999
    syncs = through(meta, Sync)
    assert [e.op for e in syncs] == ["sync_file_range", "fsync", "fsync"]
    assert (syncs[0].file_offset, syncs[0].size_req, syncs[0].flags) == (17, 4001, 2)
    assert [e.flags or 0 for e in syncs[1:]] == [0, 1], "the second asks for the data only"
    advised, of_memory = through(meta, Advise)
    assert (advised.op, advised.file_offset, advised.size_req, advised.flags) == ("fadvise", 4096, 101, 1)
    assert (of_memory.op, of_memory.size_req, of_memory.flags) == ("madvise", 4096, 3)
    (written,) = through(meta, Write)
    assert (written.file_offset, written.size_req, written.size_ret) == (0, 5003, 5003)
    assert {e.path for e in (*truncates.values(), *syncs, advised, of_memory, written)} == {f"{folder}/f"}


def test_what_statx_found_is_told(meta: Run, folder: Path) -> None:
    by_name, by_descriptor, missing = through(meta, Stat)
    assert (by_name.claimed_path, by_name.path, by_name.dev, by_name.ino) == (
        "f", f"{folder}/f", *identity(folder / "f"),
    )  # fmt: skip
    assert "path_claimed" in by_name.marks
    assert (by_descriptor.claimed_path, by_descriptor.path) == (None, f"{folder}/f")
    assert (by_descriptor.dev, by_descriptor.ino) == identity(folder / "f")
    assert (missing.claimed_path, missing.path, missing.errno) == ("missing", f"{folder}/missing", "ENOENT")


def test_names_come_and_go(meta: Run, folder: Path) -> None:
    (made,) = through(meta, Mkdir)
    assert (made.op, made.path, made.mode) == ("mkdirat", f"{folder}/d", 0o750)
    hard, soft = through(meta, Link)
    assert (hard.op, hard.path, hard.new_path) == ("linkat", f"{folder}/f", f"{folder}/h")
    assert (soft.op, soft.path, soft.new_path) == ("symlinkat", "f", f"{folder}/l")
    (renamed,) = through(meta, Rename)
    assert (renamed.op, renamed.path, renamed.new_path) == ("renameat", f"{folder}/h", f"{folder}/g")
    assert [(e.op, e.path, e.flags or 0, e.errno) for e in through(meta, Unlink)] == [
        ("unlinkat", f"{folder}/g", 0, None), ("unlinkat", f"{folder}/d", 512, None),
        ("unlinkat", f"{folder}/gone", 0, "ENOENT"),
    ]  # fmt: skip


def test_a_file_opened_into_a_slot_is_known_by_its_path(traced: Traced, folder: Path) -> None:
    run = traced("uring", "slots", folder)
    seen = through(run)
    assert [(e.op, e.errno) for e in seen] == [
        (s["op"], result(s) if s["result"] < 0 else None) for s in run.steps
    ]  # fmt: skip
    assert [e.path for e in through(run, Open)] == [f"{folder}/f", f"{folder}/g", f"{folder}/missing"]
    assert {e.new_fd for e in through(run, Open)} == {None}, "a slot is no descriptor"
    written, read, gone = through(run, Read, Write)
    assert [(e.fd, e.path, e.file_offset, e.size_ret) for e in (written, read)] == [
        (None, f"{folder}/f", 7, 4001), (None, f"{folder}/f", 11, 3997),
    ]  # fmt: skip
    assert (gone.fd, gone.path, gone.errno) == (None, None, "EBADF")
    (closed,) = through(run, Close)
    assert (closed.fd, closed.path) == (None, f"{folder}/f")
    assert run.stats.is_exact


def test_splices_show_the_files_or_all(traced: Traced, indexed: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run = traced("uring", "splice", indexed, target)
    sides = [(e.role, e.op, e.path, e.file_offset, e.size_ret) for e in through(run, CopyFrom, CopyTo)]
    assert sides == [
        ("source", "splice", str(indexed), 8192, 4096), ("target", "splice", str(target), 123, 4096),
        ("source", "splice", str(indexed), 4099, 101), ("target", "splice", str(target), 0, 101),
    ]  # fmt: skip
    assert run.stats.is_exact
    target.unlink()
    run = traced("uring", "splice", indexed, target, all_files=True)
    numbers: dict[int, list[tuple[str, str]]] = {}
    for event in through(run, CopyFrom, CopyTo):
        numbers.setdefault(event.call_id, []).append((event.role, event.kind))
    assert [sorted(sides) for sides in numbers.values()] == 2 * [
        [("source", "file"), ("target", "pipe")],
        [("source", "pipe"), ("target", "file")],
    ], "the two records of a request are linked"
    assert run.stats.is_exact


# --- requests without a completion, without a file, without a meaning


def test_a_success_without_a_completion_is_seen_without_a_result(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "skip", indexed)
    seen = through(run)
    assert len(seen) == 12
    assert [seen_as(e) for e in seen] == [told(s) for s in run.steps]
    assert ["result_unknown" in e.marks for e in seen] == [s["result"] == NO_RESULT for s in run.steps]
    assert {e.path for e in seen if e.errno is None} == {str(indexed)}
    assert run.stats.is_exact


def test_members_of_a_silent_chain_that_failed_are_seen_without_a_result(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "chain", indexed)
    head, *members = through(run)
    assert seen_as(head) == told(run.steps[0])
    assert (head.errno, head.marks) == ("EBADF", ())
    assert [seen_as(e) for e in members] == [told(s) for s in run.steps[1:]]
    assert {(e.path, e.latency_ns, e.marks) for e in members} == {(str(indexed), None, ("result_unknown",))}
    assert len(members) == 5
    assert run.stats.is_exact


@pytest.mark.parametrize("count", [67, 997])
def test_requests_whose_completions_find_no_room_are_seen_once(traced: Traced, indexed: Path, count: int) -> None:
    run = traced("uring", "overflow", indexed, count)
    seen = through(run)
    assert {s["result"] for s in run.steps} == {SIZE}, "the program was told all in the end"
    assert [seen_as(e)[:-1] for e in seen] == [told(s)[:-1] for s in run.steps]
    assert {e.path for e in seen} == {str(indexed)}
    known = [e for e in seen if e.marks == ()]
    unknown = [e for e in seen if e.marks == ("result_unknown",)]
    assert len(known) + len(unknown) == count
    assert len(known) >= 16, "those for which there was room"
    assert {(e.errno, e.size_ret) for e in known} == {(None, SIZE)}
    assert {(e.errno, e.size_ret, e.latency_ns) for e in unknown} == {(None, None, None)}
    assert run.stats.lost_total == 0 and run.stats.is_exact


@pytest.mark.parametrize("arguments", [["chain"], ["overflow", 67]], ids=["chain", "overflow"])
def test_requests_that_ended_without_a_word_do_not_hang(traced: Traced, indexed: Path, arguments: list[object]) -> None:
    variant, *more = map(str, arguments)
    run = traced("uring", variant, indexed, *more, hung=HUNG_S)
    assert [e for e in through(run) if {"hung", "unfinished"} & set(e.marks)] == []
    assert through(run)
    assert run.stats.is_exact


def test_silent_requests_of_rings_that_are_gone_take_no_room(traced: Traced, tmp_path: Path, indexed: Path) -> None:
    target = tmp_path / "target"
    run = traced("uring", "rings", target, indexed, events=["io_uring"])
    silent = through(run, Write)
    assert sorted(e.file_offset for e in silent) == list(range(17 * 1021))
    assert {(e.path, e.size_req, e.size_ret, e.errno, e.marks) for e in silent} == {
        (str(target), 1, None, None, ("result_unknown",)),
    }  # fmt: skip
    assert [seen_as(e) for e in through(run, Read)] == [told(s) for s in run.steps if s["op"] == "read"]
    assert {(e.path, e.marks) for e in through(run, Read)} == {(str(indexed), ())}
    assert len(through(run, Read)) == COUNT
    assert run.stats.lost_total == 0 and run.stats.is_exact


def test_a_silent_request_is_not_told_with_the_error_of_the_next(traced: Traced, tmp_path: Path, indexed: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(2 * PAGE))
    run = traced("uring", "stale", target, indexed)
    assert [s["result"] for s in run.steps if s["op"] == "read"] == 19 * [-errno.EINVAL]
    silent, refused = through(run, Write), through(run, Read)
    assert [seen_as(e) for e in silent] == [told(s) for s in run.steps if s["op"] == "write"]
    assert {(e.path, e.errno, e.marks) for e in silent} == {(str(target), None, ("result_unknown",))}
    assert {(e.errno, e.file_offset, e.size_req, e.size_ret) for e in refused} == {("EINVAL", None, None, None)}
    assert {e.path for e in refused} == {None}
    assert {e.marks for e in refused} == {("no_enter",)}
    assert (len(silent), len(refused)) == (19, 19)
    assert run.stats.is_exact


@pytest.mark.parametrize("all_files", [False, True])
def test_requests_that_touch_no_file_are_no_accesses(traced: Traced, indexed: Path, all_files: bool) -> None:
    run = traced("uring", "silent", indexed, all_files=all_files)
    assert through(run) == []
    assert not [name for name in run.stats.not_decoded if name.startswith("io_uring")]
    assert [e.via for e in run.on(indexed, Read)] == ["syscall"]
    assert run.stats.is_exact


def test_requests_that_are_not_decoded_are_counted_by_opcode(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "others", indexed)
    assert through(run) == []
    assert {name: n for name, n in run.stats.not_decoded.items() if name.startswith("io_uring")} == {
        "io_uring_41": 2, "io_uring_42": 1, "io_uring_43": 5, "io_uring_44": 3, "io_uring_46": 2,
    }  # fmt: skip
    assert run.stats.is_exact


def test_an_opcode_that_does_not_exist_disturbs_nothing(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "unknown", indexed)
    assert [s["result"] for s in run.steps] == 3 * [-errno.EINVAL] + [SIZE]
    assert [seen_as(e) for e in through(run)] == [told(run.steps[-1])]
    assert run.stats.is_exact


# --- who submits


def test_two_threads_with_a_ring_each_are_told_apart(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "threads", indexed, 997)
    threads = by_tid(through(run))
    assert len(threads) == 2
    for tid, accesses in threads.items():
        assert [seen_as(e) for e in accesses] == [told(s) for s in run.steps if s["tid"] == tid]
        assert len(accesses) == 997
    assert run.stats.is_exact


def test_a_second_thread_submits_through_the_ring_of_the_first(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "second", indexed, 97)
    assert [seen_as(e) for e in through(run)] == [told(s) for s in run.steps]
    assert sorted(len(accesses) for accesses in by_tid(through(run)).values()) == [97, 97]


def test_a_child_submits_through_the_ring_it_inherited(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "fork", indexed, 97)
    assert [seen_as(e) for e in through(run)] == [told(s) for s in run.steps]
    assert sorted(Counter(e.pid for e in through(run)).values()) == [97, 97]
    assert run.stats.is_exact


# --- requests that wait


def test_a_request_that_reads_again_and_again_is_counted(traced: Traced) -> None:
    # Its completions do not say whose they are: docs/limits.md.
    run = traced("uring", "multishot", all_files=True)
    steps = [s for s in run.steps if s["op"] == "read_multishot"]
    if [s["result"] for s in steps] == [-errno.EINVAL]:
        pytest.skip("this kernel's io_uring knows no read_multishot")
    assert [s["result"] for s in steps] == [5, 1, 23, 2, 17, 0]
    assert through(run, Read) == []
    assert run.stats.not_decoded == {"io_uring_49": 1}
    assert run.stats.is_exact


def test_pipes_are_left_out_unless_asked_for(traced: Traced) -> None:
    run = traced("uring", "multishot")
    assert through(run) == []
    assert run.stats.is_exact


def test_a_request_keeps_its_file_when_the_descriptor_is_closed_meanwhile(traced: Traced, fifo: Path) -> None:
    run = traced("uring", "closed", fifo, all_files=True)
    (read,) = through(run)
    assert (read.path, read.kind, read.fd, read.size_ret) == (str(fifo), "pipe", run.steps[0]["fd"], WAITING)


def test_a_request_that_is_cancelled_says_so(traced: Traced, fifo: Path) -> None:
    (read,) = through(traced("uring", "cancel", fifo, all_files=True))
    assert (read.path, read.size_req, read.size_ret, read.errno) == (str(fifo), WAITING, None, "ECANCELED")


@pytest.mark.parametrize("variant", ["leave", "left"])
def test_a_request_that_waits_when_its_program_ends_is_cancelled(traced: Traced, fifo: Path, variant: str) -> None:
    # The kernel does so before the program's exit, so that the trace lives to see it, whoever else is traced.
    run = traced("uring", variant, fifo, all_files=True)
    (read,) = through(run)
    assert (read.path, read.pid, read.size_req, read.size_ret) == (str(fifo), run.steps[0]["pid"], WAITING, None)
    assert (read.errno, read.marks) == ("ECANCELED", ())
    assert read.latency_ns > 0
    assert run.stats.is_exact


def test_a_request_that_waits_when_tracing_stops_is_marked_with_its_age(workloads: Workloads, fifo: Path) -> None:
    reader, writer = os.pipe()
    command = workloads.command("uring", "stay", fifo)
    with flak.trace(command=command, stdout=writer, all_files=True, duration=0.5) as session:
        pid = int(os.read(reader, 64).split()[1])
        seen: list[Any] = [e for e in session if isinstance(e, Read) and e.via == "io_uring"]
        os.kill(pid, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    (waiting,) = seen
    assert "unfinished" in waiting.marks
    assert (waiting.pid, waiting.path, waiting.size_req) == (pid, str(fifo), WAITING)
    assert (waiting.size_ret, waiting.errno) == (None, None)
    assert 0 < waiting.latency_ns < 10_000_000_000
    assert session.stats.is_exact


def test_requests_that_wait_when_tracing_begins_are_marked_and_in_the_right_place(
    workloads: Workloads, fifo: Path, indexed: Path
) -> None:
    with running(workloads.command("uring", "began", fifo, indexed)) as program:
        with flak.trace(pid=program.pid, all_files=True, events=["io_uring"]) as session:
            assert program.process.stdin
            program.process.stdin.write(b"x")
            program.process.stdin.flush()
            seen = [e for e in session if isinstance(e, Read)]
        steps = program.finish()
    assert session.stats.is_exact
    assert len(seen) == 9
    begun = sorted((e for e in seen if "no_enter" in e.marks), key=lambda e: e.size_req or 0)
    assert [(e.op, e.pid, e.path, e.size_req, e.size_ret) for e in begun] == [
        ("read", program.pid, str(fifo), WAITING, WAITING), ("read", program.pid, str(indexed), SIZE, SIZE),
    ]  # fmt: skip
    assert begun[1].file_offset == 3 * SIZE
    whole = sorted((e for e in seen if "no_enter" not in e.marks), key=lambda e: e.ts_ns)
    assert [seen_as(e) for e in whole] == [told(s) for s in steps[2:]]
    assert {e.marks for e in whole} == {()}


def test_a_trace_that_begins_and_ends_while_requests_wait_is_exact(
    workloads: Workloads, fifo: Path, indexed: Path
) -> None:
    # Requests that FLAK never saw begin are seen where they complete, which these do not. That the program was looked
    # at is told by its read(2) of stdin.
    with (
        running(workloads.command("uring", "began", fifo, indexed)) as program,
        flak.trace(pid=program.pid, all_files=True, events=["read", "io_uring"], duration=0.3) as session,
    ):
        seen = [e for e in session if isinstance(e, Access)]
    (waiting,) = seen
    assert (waiting.via, waiting.op, waiting.pid) == ("syscall", "read", program.pid)
    assert {"unfinished", "attached", "no_enter"} <= set(waiting.marks)
    assert session.stats.written == 1
    assert session.stats.is_exact


def test_requests_under_way_when_tracing_stops_have_their_own_file(workloads: Workloads, folder: Path) -> None:
    skip_without_direct(folder)
    truth = {}
    for number in range(61):
        path = folder / f"f{number:03}"
        truth[str(path)] = number * PAGE
        with path.open("wb") as file:
            file.seek(number * PAGE)
            file.write(bytes(PAGE))
            os.fsync(file.fileno())
    with running(workloads.command("uring", "mix", folder)) as program:
        for _ in range(3):
            seen = []
            with flak.trace(pid=program.pid, events=["io_uring"], duration=10) as session:
                for event in session:
                    if isinstance(event, Read):
                        seen.append(event)
                        if len(seen) == 199:
                            session.stop()
            wrong = [(e.path, e.file_offset, e.marks) for e in seen if truth.get(e.path or "") != e.file_offset]
            assert (len(wrong), wrong[:5]) == (0, [])
            assert session.stats.lost_total == 0 and session.stats.is_exact
            assert len(seen) >= 199


# --- which are wanted


def test_the_group_has_all_of_them_and_nothing_else(traced: Traced, folder: Path) -> None:
    run = traced("uring", "meta", folder, events=["io_uring"])
    assert {e.via for e in run.of(Access)} == {"io_uring"}
    assert len(through(run)) in (len(run.steps), len(run.steps) - 1)  # without ftruncate before Linux 6.9
    assert run.stats.is_exact


def test_without_the_group_there_are_none(traced: Traced, indexed: Path) -> None:
    run = traced("uring", "read", indexed, COUNT, 16, events=["read", "open"])
    assert through(run) == []
    assert run.on(indexed, Open)
    assert run.stats.is_exact


def test_only_requests_on_wanted_paths_are_seen(traced: Traced, folder: Path) -> None:
    run = traced("uring", "waits", folder, all_files=True, path=[str(folder / "f")])
    assert len(through(run)) == 97
    assert {e.path for e in run.of(Access)} == {str(folder / "f")}
    assert run.stats.filtered["path"] >= 3
    assert run.stats.is_exact


def test_only_requests_that_took_long_are_seen(traced: Traced, folder: Path) -> None:
    run = traced("uring", "waits", folder, all_files=True, events=["io_uring"], min_latency_ns=20_000_000)
    slow = [e for e in through(run) if e.path == str(folder / "fifo")]
    assert [(e.size_ret, e.latency_ns >= 50_000_000) for e in slow] == 3 * [(WAITING, True)]
    assert all(e.latency_ns >= 20_000_000 for e in through(run))
    assert run.stats.filtered["min_latency"] >= 100 - len(through(run))
    assert run.stats.is_exact


@pytest.mark.parametrize(("least", "count"), [(SIZE, 16), (SIZE + 1, 0), (17, 17)])
def test_only_requests_of_some_size_are_seen(traced: Traced, tmp_path: Path, least: int, count: int) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(16 * SIZE + 17))
    run = traced("uring", "short", path, events=["io_uring"], min_size=least)
    assert len(through(run)) == count
    assert run.stats.is_exact


def test_programs_that_are_not_traced_leave_no_records(workloads: Workloads, fifo: Path, indexed: Path) -> None:
    with running(workloads.command("uring", "began", fifo, indexed)) as other:
        with flak.trace(command=workloads.command("uring", "read", indexed, COUNT, 16)) as session:
            assert other.process.stdin
            other.process.stdin.write(b"x")
            other.process.stdin.flush()
            seen = [e for e in session if isinstance(e, Access) and e.via == "io_uring"]
        other.finish()
    assert len(seen) == COUNT
    assert other.pid not in {e.pid for e in seen}
    assert session.stats.is_exact
