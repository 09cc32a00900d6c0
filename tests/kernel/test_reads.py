"""Reads and writes by every call that makes them: each seen once, with its file, offset, size and result."""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path

import pytest

from flak.events import Read, Write

from .conftest import FILE, Runs, Together, Traced
from .running import outcome

pytestmark = pytest.mark.kernel

READS = ["read", "readv", "pread64", "preadv", "preadv2", "preadv2-here"]
WRITES = ["write", "writev", "pwrite64", "pwritev", "pwritev2", "pwritev2-here"]


DATA = bytes(23 * 4099)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module")
def calls(together: Together) -> Runs:
    """Every variant on a file of its own."""
    return together([("rw", variant, FILE) for variant in (*READS, *WRITES, "fail")], content=DATA)


@pytest.mark.parametrize("variant", READS + WRITES)
def test_each_of_23_calls_is_seen_once_with_offset_size_and_result(calls: Runs, variant: str) -> None:
    run, data = calls["rw", variant, FILE]
    seen = run.on(data, Read, Write)
    assert len(seen) == 23
    assert [(e.op, e.pid, e.tid, e.fd, e.file_offset, e.size_req, e.size_ret) for e in seen] == [
        (s["op"], s["pid"], s["tid"], s["fd"], s["offset"], s["size"], s["result"]) for s in run.steps
    ]
    assert {e.is_write for e in seen} == {variant in WRITES}


def test_marks_of_a_plain_read_are_empty(calls: Runs) -> None:
    run, data = calls["rw", "read", FILE]
    assert {e.marks for e in run.on(data, Read)} == {()}


def test_calls_of_a_thread_follow_each_other_in_time(calls: Runs) -> None:
    run, data = calls["rw", "pread64", FILE]
    seen = run.on(data, Read)
    assert all(e.latency_ns > 0 for e in seen)
    assert all(a.ts_ns + a.latency_ns <= b.ts_ns for a, b in pairwise(seen))


def test_reads_at_the_end_of_a_file_return_less_than_asked(traced: Traced, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(16 * 4099 + 17))
    run = traced("rw", "short", path)
    seen = run.on(path, Read)
    assert [e.size_ret for e in seen] == 16 * [4099] + [17, 0, 0]
    assert [e.file_offset for e in seen] == [s["offset"] for s in run.steps]
    assert {e.size_req for e in seen} == {4099}


def test_calls_that_fail_carry_their_errno_and_no_result(calls: Runs) -> None:
    run, data = calls["rw", "fail", FILE]
    seen = [e for e in run.of(Read, Write) if e.errno]
    assert [(e.op, e.fd, e.errno) for e in seen] == [
        (s["op"], s["fd"], errno.errorcode[-s["result"]]) for s in run.steps
    ]
    assert len(seen) == 7
    assert {e.size_ret for e in seen} == {None}
    assert [e.path for e in seen] == [None, None, str(data), str(data), str(data), str(data), "/"]


def test_groups_that_were_not_asked_for_are_not_seen(traced: Traced, data: Path) -> None:
    run = traced("rw", "write", data, events=["write"])
    assert len(run.on(data, Write)) == 23
    assert {e.op for e in run.on(data)} == {"write"}


def test_a_device_is_traced_when_all_files_are_asked_for(traced: Traced) -> None:
    seen = traced("rw", "read", "/dev/zero", all_files=True).on(Path("/dev/zero"), Read)
    assert [(outcome(e), e.kind, e.file_offset) for e in seen] == 23 * [(4099, "char", None)]


def test_devices_are_left_out_unless_asked_for(traced: Traced) -> None:
    assert traced("rw", "read", "/dev/zero").on(Path("/dev/zero")) == []
