"""Joining a program that is running already: what it has open and mapped is known, its children too, nothing missed."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import flak
from flak import probes
from flak.errors import TargetError
from flak.events import Access, Exit, Fault, Mmap, Open, Read

from .conftest import INDEXED
from .running import PAGE, Workloads, running, wait_until, write_pages

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]


class Counters:
    """The words that a waiter shares with its watcher: word 0 stops it, the others count."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(64))
        self.path = path
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 64)

    def __getitem__(self, word: int) -> int:
        return int.from_bytes(self.memory[8 * word : 8 * word + 8], "little")

    def stop(self) -> None:
        self.memory[0] = 1


@pytest.fixture
def counters(tmp_path: Path) -> Iterator[Counters]:
    counters = Counters(tmp_path / "counters")
    yield counters
    counters.stop()
    counters.memory.close()


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    return write_pages(tmp_path / "mapped", 13)


class Went(NamedTuple):
    """What came of a program that was joined after it had opened and mapped its files."""

    indexed: Path
    mapped: Path
    events: list[Any]
    steps: list[dict[str, Any]]


@pytest.fixture(scope="module")
def went(workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> Went:
    folder = tmp_path_factory.mktemp("went")
    indexed, mapped = folder / "indexed", write_pages(folder / "mapped", 13)
    indexed.write_bytes(INDEXED)
    with running(workloads.command("waiter", "go", indexed, mapped)) as program:
        with flak.trace(pid=program.pid) as session:
            program.process.send_signal(signal.SIGUSR1)
            events = list(session)
        assert session.stats.is_exact
        return Went(indexed, mapped, events, program.finish())


def test_every_read_after_joining_is_seen_at_its_offset(went: Went) -> None:
    indexed, _, events, steps = went
    seen = [e for e in events if isinstance(e, Read) and e.path == str(indexed)]
    assert [(e.file_offset, e.size_ret) for e in seen] == [(s["offset"], 7) for s in steps if s["op"] == "read"]
    assert len(seen) == 13


@pytest.mark.usefixtures("sees_faults")
def test_every_page_touched_after_joining_is_seen(went: Went) -> None:
    _, mapped, events, steps = went
    seen = [e for e in events if isinstance(e, Fault) and e.path == str(mapped)]
    assert [e.file_offset for e in seen] == [s["offset"] for s in steps if s["op"] == "touch"]
    assert len(seen) == 11


def test_files_that_were_open_already_are_listed_with_their_position(went: Went) -> None:
    indexed, _, events, steps = went
    (listed,) = (e for e in events if isinstance(e, Open) and e.path == str(indexed))
    assert "attached" in listed.marks
    assert (listed.new_fd, listed.file_offset) == (steps[0]["fd"], 2 * 7)


def test_what_was_there_already_is_listed_only_where_asked_for(
    workloads: Workloads, indexed: Path, mapped: Path
) -> None:
    with running(workloads.command("waiter", "go", indexed, mapped)) as program:
        with flak.trace(pid=program.pid, events=["read"]) as session:
            program.process.send_signal(signal.SIGUSR1)
            events = list(session)
        program.finish()
    assert {event.op for event in events} <= {"read", "counters"}


def test_maps_that_were_there_already_are_listed(went: Went) -> None:
    _, mapped, events, _ = went
    (listed,) = (e for e in events if isinstance(e, Mmap) and e.path == str(mapped))
    assert "attached" in listed.marks
    assert (listed.file_offset, listed.size_req) == (0, 12 * PAGE)


def test_paths_are_whole_from_the_first_event(went: Went) -> None:
    paths = [e.path for e in went.events if isinstance(e, Access) and e.kind in ("file", "dir")]
    assert paths
    assert all(path.startswith("/") for path in paths)


def test_steady_reads_of_four_generations_are_seen_without_a_gap(
    workloads: Workloads, indexed: Path, counters: Counters
) -> None:
    with running(workloads.command("waiter", "steady", indexed, counters.path)) as program:
        with flak.trace(pid=program.pid) as session:
            at_attach = [counters[1 + level] for level in range(4)]
            wait_until(
                lambda: all(counters[1 + level] > at_attach[level] + 199 for level in range(4)), "199 reads each"
            )
            counters.stop()
            offsets: dict[int, list[int]] = defaultdict(list)
            for event in session:
                if isinstance(event, Read) and event.path == str(indexed):
                    assert event.pid is not None and event.file_offset is not None
                    offsets[event.pid].append(event.file_offset)
        steps = program.finish()
    assert set(offsets) == {s["pid"] for s in steps}
    assert len(steps) == 4
    for step in steps:
        seen = offsets[step["pid"]]
        assert seen == list(range(seen[0], step["count"]))
        # One read may have been under way.
        assert seen[0] <= at_attach[step["level"]] + 1
    assert session.stats.lost_total == 0


def test_children_made_while_joining_are_seen_whole(workloads: Workloads, indexed: Path, counters: Counters) -> None:
    with running(workloads.command("waiter", "forks", indexed, counters.path)) as program:
        with flak.trace(pid=program.pid) as session:
            at_attach = counters[1]
            wait_until(lambda: counters[1] > at_attach + 199, "199 children")
            counters.stop()
            offsets: dict[int, list[int]] = defaultdict(list)
            for event in session:
                if isinstance(event, Read) and event.path == str(indexed):
                    assert event.file_offset is not None
                    offsets[event.file_offset // 8].append(event.file_offset % 8)
        (step,) = program.finish()
    for child in range(at_attach + 1, step["count"]):
        assert offsets[child] == list(range(7)), f"child {child} of {step['count']}, joined at {at_attach}"


def test_a_process_whose_first_thread_has_ended_can_be_joined(
    workloads: Workloads, indexed: Path, mapped: Path
) -> None:
    with running(workloads.command("waiter", "leaderless", indexed, mapped)) as program:
        with flak.trace(pid=program.pid) as session:
            program.process.send_signal(signal.SIGUSR1)
            events = list(session)
        program.finish()
    assert len([e for e in events if isinstance(e, Read) and e.path == str(indexed)]) == 13
    assert [e.is_last for e in events if isinstance(e, Exit)] == [True]


def test_a_process_that_has_ended_is_refused(workloads: Workloads, indexed: Path, mapped: Path) -> None:
    with running(workloads.command("waiter", "go", indexed, mapped)) as program:
        program.process.kill()
        # Not waited for: its number is still taken, by a zombie.
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(TargetError), flak.trace(pid=program.pid):
            pass


def test_a_child_that_has_ended_already_does_not_keep_the_trace_going(
    workloads: Workloads, indexed: Path, mapped: Path
) -> None:
    with running(workloads.command("waiter", "zombie", indexed, mapped)) as program:
        with flak.trace(pid=program.pid) as session:
            program.process.send_signal(signal.SIGUSR1)
            seen = [e for e in session if isinstance(e, Read) and e.path == str(indexed)]
        assert len(seen) == 13
        program.finish()


def test_children_made_while_processes_are_adopted_are_waited_for_once() -> None:
    forks = "i=0; while [ $i -lt 4000 ]; do (:); i=$((i+1)); done"
    with (
        subprocess.Popen(["sh", "-c", forks]) as program,
        flak.trace(pid=program.pid, events=["process"], duration=20) as session,
    ):
        while program.poll() is None:  # as a long adoption: the iterator meets children before their fork is told
            session._bpf.run_iterator(probes.ADOPT)
        for _ in session:
            pass
        assert session.elapsed_s < 20, "it ends with the last process, not by the clock"


def test_a_duration_ends_the_trace_and_not_the_program(workloads: Workloads, indexed: Path, counters: Counters) -> None:
    with running(workloads.command("waiter", "steady", indexed, counters.path)) as program:
        begin = time.monotonic()
        with flak.trace(pid=program.pid, duration=0.3) as session:
            seen = [e for e in session if isinstance(e, Read)]
        assert 0.3 <= time.monotonic() - begin < 5
        assert seen
        assert session.stats.is_exact
        assert program.process.poll() is None
        counters.stop()
        program.finish()
