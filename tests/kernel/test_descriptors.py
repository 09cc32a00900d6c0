"""Descriptors: opened, doubled, replaced, inherited, closed. An access names the file, whatever its number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flak.events import Close, Dup, Exec, Open, Read

from .conftest import FILE, Runs, Together, Traced

pytestmark = pytest.mark.kernel

DOUBLED, INHERITED = ("dups", "all", FILE), ("dups", "exec", FILE)


@pytest.fixture(scope="module")
def dups(together: Together) -> Runs:
    return together([DOUBLED, INHERITED])


def test_an_open_carries_the_descriptor_it_made_and_its_flags(dups: Runs) -> None:
    run, indexed = dups[DOUBLED]
    (opened,) = run.on(indexed, Open)
    assert (opened.op, opened.new_fd, opened.errno) == ("openat", run.steps[0]["fd"], None)
    assert opened.open_flags == os.O_RDONLY | os.O_CLOEXEC


def test_each_way_to_double_a_descriptor_is_seen_with_the_copy_it_made(dups: Runs) -> None:
    run, indexed = dups[DOUBLED]
    steps = [s for s in run.steps if s["op"] in ("dup", "dup2", "dup3", "fcntl")]
    assert [(e.op, e.fd, e.new_fd) for e in run.on(indexed, Dup)] == [(s["op"], s["fd"], s["result"]) for s in steps]
    assert len(steps) == 5


def test_reads_through_copies_name_the_file(dups: Runs) -> None:
    run, indexed = dups[DOUBLED]
    seen = run.on(indexed, Read)
    assert len(seen) == 17
    assert [e.fd for e in seen] == [s["fd"] for s in run.steps if s["op"] == "read"]
    assert len({(e.file_id, e.path_id) for e in seen}) == 1


def test_each_copy_is_closed_once(dups: Runs) -> None:
    run, indexed = dups[DOUBLED]
    steps = [s["fd"] for s in run.steps if s["op"] == "close"]
    assert [e.fd for e in run.on(indexed, Close)] == steps
    assert len(steps) == 5


def test_a_replaced_descriptor_names_its_new_file(traced: Traced, indexed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(100))
    run = traced("dups", "replace", indexed, other)
    number = run.steps[0]["fd"]
    assert [(e.path, e.fd) for e in run.of(Read) if e.path in (str(indexed), str(other))] == [
        *5 * [(str(other), number)],
        *7 * [(str(indexed), number)],
    ]


def test_a_descriptor_inherited_over_exec_keeps_file_and_position(dups: Runs) -> None:
    run, indexed = dups[INHERITED]
    seen = run.on(indexed, Read)
    assert [e.file_offset for e in seen] == [7 * i for i in range(7)]
    assert len({e.pid for e in seen}) == 1
    assert len(run.of(Exec)) == 2
    second = run.of(Exec)[1]
    assert [e.ts_ns > second.ts_ns for e in seen] == 2 * [False] + 5 * [True]
