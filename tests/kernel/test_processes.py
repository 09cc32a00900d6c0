"""Processes and threads: children followed however they are made, threads told apart, ends seen when they are ends."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

import flak
from flak import roster
from flak.bpf import BpfObject
from flak.events import Exec, Exit, Fork, Read

from .conftest import FILE, Runs, Together, Traced
from .running import Run, by_tid, count_by

pytestmark = pytest.mark.kernel

CHILDREN = [5, 7, 11]
PARENT = 13
THREADS, EXEC = ("threads", "own", FILE, 5, 997), ("threads", "exec", FILE, 1, 97)


@pytest.fixture(scope="module")
def runs(together: Together) -> Runs:
    variants = ["fork", "vfork", "posix_spawn", "tree"]
    return together([*(("spawn", variant, FILE) for variant in variants), THREADS, EXEC])


def steps_by_pid(run: Run) -> Counter[int]:
    return Counter(step["pid"] for step in run.steps)


@pytest.mark.parametrize("variant", ["fork", "vfork", "posix_spawn"])
def test_children_are_followed_from_their_first_access(runs: Runs, variant: str) -> None:
    run, indexed = runs["spawn", variant, FILE]
    seen = run.on(indexed, Read)
    assert sorted(count_by(seen, "pid").values()) == sorted([*CHILDREN, PARENT])
    assert count_by(seen, "pid") == steps_by_pid(run)


@pytest.mark.parametrize(("variant", "programs"), [("fork", 1), ("vfork", 4), ("posix_spawn", 4)])
def test_each_process_is_made_and_ends_once(traced: Traced, indexed: Path, variant: str, programs: int) -> None:
    run = traced("spawn", variant, indexed)
    pids = set(steps_by_pid(run))
    root = run.of(Exec)[0].pid
    assert {e.child_pid for e in run.of(Fork)} == pids - {root}
    assert [e.pid for e in run.of(Fork)] == 3 * [root]
    assert len(run.of(Exec)) == programs
    assert sorted(e.pid for e in run.of(Exit) if e.is_last) == sorted(pids)
    assert {e.exit_code for e in run.of(Exit)} == {0}


def test_an_exec_names_the_program_and_what_it_was_called(traced: Traced, indexed: Path) -> None:
    run = traced("spawn", "fork", indexed)
    (executed,) = run.of(Exec)
    assert executed.path == executed.argv0
    assert Path(executed.argv0).name == "spawn"


def test_a_tree_three_levels_deep_is_followed_whole(runs: Runs) -> None:
    run, indexed = runs["spawn", "tree", FILE]
    seen = run.on(indexed, Read)
    assert len(seen) == 129
    assert count_by(seen, "pid") == steps_by_pid(run)
    assert Counter(steps_by_pid(run).values()) == {3: 1, 5: 2, 7: 4, 11: 8}


def test_children_are_left_out_on_request(traced: Traced, indexed: Path) -> None:
    seen = traced("spawn", "fork", indexed, follow=False).on(indexed, Read)
    assert len(seen) == PARENT
    assert len({e.pid for e in seen}) == 1


def test_each_thread_has_its_own_accesses(runs: Runs) -> None:
    run, indexed = runs[THREADS]
    threads = by_tid(run.on(indexed, Read))
    assert set(threads) == {s["tid"] for s in run.steps}
    assert [len(accesses) for accesses in threads.values()] == 5 * [997]
    assert len({e.pid for e in run.on(indexed, Read)}) == 1


def test_threads_are_made_within_their_process(traced: Traced, indexed: Path) -> None:
    run = traced("threads", "own", indexed, 5, 97)
    forks = run.of(Fork)
    assert {e.child_tid for e in forks} == {s["tid"] for s in run.steps}
    assert {(e.pid, e.child_pid) for e in forks} == {(forks[0].pid, forks[0].pid)}


def test_a_process_outlives_its_first_thread(traced: Traced, indexed: Path) -> None:
    run = traced("threads", "leader-first", indexed, 5, 997)
    seen = run.on(indexed, Read)
    assert sorted(count_by(seen, "tid").values()) == 5 * [997]
    exits = run.of(Exit)
    (leader,) = (e for e in exits if e.tid == e.pid)
    assert not leader.is_last
    assert leader.ts_ns < min(e.ts_ns for e in seen)
    assert [e.is_last for e in exits] == (len(exits) - 1) * [False] + [True]


def test_threads_that_end_in_any_order_leave_one_end_of_the_process(traced: Traced, indexed: Path) -> None:
    exits = traced("threads", "own", indexed, 7, 11).of(Exit)
    assert len(exits) == 8
    assert [e.is_last for e in exits].count(True) == 1
    assert exits[-1].is_last


def test_an_exec_from_another_thread_keeps_the_process_traced(runs: Runs) -> None:
    run, indexed = runs[EXEC]
    seen = run.on(indexed, Read)
    assert len(seen) == 2 * 97
    before, after = seen[0], seen[-1]
    assert (before.pid, after.pid, after.tid) == (after.pid, after.pid, after.pid)
    assert [e.tid for e in seen] == 97 * [before.tid] + 97 * [after.tid]
    executed = run.of(Exec)[1]
    assert (executed.tid, executed.old_tid) == (after.pid, before.tid)
    assert run.of(Exit)[-1].is_last


@pytest.mark.parametrize(("choice", "living"), [("pid", "live_processes"), ("tid", "live_threads")])
def test_a_trace_ends_though_the_kernel_skipped_the_end_of_a_target(
    choice: str, living: str, privileged: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with waiting as program, flak.trace(**{choice: program.pid}, duration=20) as session:
        assert program.stdin
        session._shared[living][0] += 1  # as if another one had ended unseen
        monkeypatch.setattr(BpfObject, "recursion_misses", lambda bpf, programs: 1)
        monkeypatch.setattr(roster, "EMPTY_COUNTS", 2)
        began = time.monotonic()
        for _ in range(3):
            time.sleep(1.1)  # long enough for one that lives to be counted, too
            assert not session._roster.is_exhausted()
        program.stdin.close()
        exits = [e.pid for e in session if isinstance(e, Exit)]
    assert exits == [program.pid]
    assert time.monotonic() - began < 15
