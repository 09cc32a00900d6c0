"""Where in the file: appends, seeks and positions that several share. Exact, or marked."""

from __future__ import annotations

import errno
import struct
import sys
from pathlib import Path

import pytest

from flak.events import Read, Seek, Write

from .conftest import FILE, Runs, Together, Traced
from .running import by_tid, trace_command

pytestmark = pytest.mark.kernel

BEFORE, SIZE, CALLS = 37, 101, 19


def log(path: Path) -> None:
    path.write_bytes(bytes(BEFORE))


APPENDS = ["write", "pwrite64", "pwritev2", "pwritev2-here", "race"]
SEEKS, DOUBLED, INHERITED = ("lseek", FILE), ("dups", "all", FILE), ("dups", "fork", FILE)


@pytest.fixture(scope="module")
def runs(together: Together) -> Runs:
    return together([*(("append", variant, log) for variant in APPENDS), SEEKS, DOUBLED, INHERITED])


@pytest.mark.parametrize(
    ("variant", "op", "arguments"),
    [
        ("write", "write", CALLS * [None]),
        ("pwrite64", "pwrite64", [5 * i for i in range(CALLS)]),
        ("pwritev2", "pwritev2", CALLS * [3]),
        ("pwritev2-here", "pwritev2", CALLS * [None]),
    ],
)
def test_an_append_lands_at_the_end_wherever_the_program_asked(
    runs: Runs, variant: str, op: str, arguments: list[int | None]
) -> None:
    run, file = runs["append", variant, log]
    seen = run.on(file, Write)
    assert [e.op for e in seen] == CALLS * [op]
    assert [e.file_offset for e in seen] == [BEFORE + SIZE * i for i in range(CALLS)]
    assert [e.arg_offset for e in seen] == arguments
    assert {e.marks for e in seen} == {("offset_from_size",)}


def test_appends_of_two_processes_at_once_do_not_overlap(runs: Runs) -> None:
    run, file = runs["append", "race", log]
    seen = run.on(file, Write)
    assert len(seen) == 2 * 1009
    assert len({e.pid for e in seen}) == 2
    assert sorted(e.file_offset for e in seen) == [BEFORE + SIZE * i for i in range(2 * 1009)]


def test_a_seek_carries_argument_whence_and_new_position(runs: Runs) -> None:
    run, path = runs[SEEKS]
    steps = [s for s in run.steps if s["op"] == "lseek"]
    seen = run.on(path, Seek)
    assert len(seen) == 7
    # The workload writes null for -1.
    arguments = [-1 if s["offset"] is None else s["offset"] for s in steps]
    assert [(e.size_req, e.arg_offset) for e in seen] == list(zip((s["size"] for s in steps), arguments, strict=True))
    assert [e.errno or e.file_offset for e in seen] == [
        s["result"] if s["result"] >= 0 else errno.errorcode[-s["result"]] for s in steps
    ]
    assert [e.file_offset for e in seen[:5]] == [101, 158, (1 << 20) + 4096 - 10, 1 << 20, 4096]


def test_a_read_after_a_seek_is_where_the_seek_led(runs: Runs) -> None:
    run, path = runs[SEEKS]
    seen = run.on(path, Read)
    assert [(e.file_offset, e.size_ret) for e in seen] == [
        (101, 7), (158, 7), ((1 << 20) + 4096 - 10, 7), (1 << 20, 7), (4096, 7),
    ]  # fmt: skip


def test_copies_of_a_descriptor_share_its_position(runs: Runs) -> None:
    run, indexed = runs[DOUBLED]
    seen = run.on(indexed, Read)
    assert [e.file_offset for e in seen] == [7 * i for i in range(17)]


def test_parent_and_child_share_the_position_of_an_inherited_descriptor(runs: Runs) -> None:
    run, indexed = runs[INHERITED]
    seen = run.on(indexed, Read)
    assert [e.file_offset for e in seen] == [7 * i for i in range(10)]
    parent, child = seen[0].pid, seen[2].pid
    assert [e.pid for e in seen] == 2 * [parent] + 5 * [child] + 3 * [parent]


def test_racing_reads_through_one_descriptor_are_exact_or_marked(traced: Traced, indexed: Path) -> None:
    run = traced("threads", "shared", indexed, 5, 997)
    seen = run.on(indexed, Read)
    assert len(seen) == 5 * 997
    truth = {tid: [s["offset"] for s in run.steps if s["tid"] == tid] for tid in {s["tid"] for s in run.steps}}
    for tid, accesses in by_tid(seen).items():
        assert len(accesses) == 997
        wrong = [
            (access.file_offset, offset)
            for access, offset in zip(accesses, truth[tid], strict=True)
            if access.file_offset != offset and "offset_shared" not in access.marks
        ]
        assert wrong == []


def test_a_vector_that_its_own_read_overwrote_asked_for_an_unknown_number_of_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(struct.pack("QQ", 5, 7) + bytes(16))
    script = (
        "import ctypes, os, struct; vector = ctypes.create_string_buffer(32); at = ctypes.addressof(vector);"
        "struct.pack_into('QQ', vector, 0, at, 32); readv = ctypes.CDLL(None).readv;"
        f"assert readv(os.open({str(file)!r}, os.O_RDONLY), vector, 1) == 32"
    )
    (seen,) = trace_command([sys.executable, "-c", script], tmp_path).on(file, Read)
    assert (seen.size_req, seen.size_ret) == (None, 32)


def test_reads_that_others_seek_amid_are_marked_but_for_a_few_in_a_thousand(traced: Traced, indexed: Path) -> None:
    # Four places: the position is often what it would be had nobody moved it. docs/limits.md has the microsecond left.
    run = traced("threads", "seek", indexed, 3, 20_000)
    seen = by_tid(run.on(indexed, Read))
    wrong = 0
    for tid, accesses in seen.items():
        places = [s["offset"] for s in run.steps if s["tid"] == tid]
        for access, place in zip(accesses, places, strict=True):
            wrong += access.file_offset != place and "offset_shared" not in access.marks
    assert wrong <= 60


def test_reads_through_own_descriptors_are_never_marked_as_shared(traced: Traced, indexed: Path) -> None:
    run = traced("threads", "own", indexed, 5, 997)
    for accesses in by_tid(run.on(indexed, Read)).values():
        assert [e.file_offset for e in accesses] == [4 * i for i in range(997)]
        assert {e.marks for e in accesses} == {()}
