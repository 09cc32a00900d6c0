"""Who is traced: by number, name, thread, user; everything but some; and what is refused before anything starts.

The programs are actors (tests/workloads/actor.c): they do what a test tells them, one command at a time. Every read of
a test has an offset of its own, so the offsets that FLAK saw tell which reads it saw. `Cast` and `Actor` are for the
tests of cgroups, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.errors import TargetError
from flak.events import Counters, Event, Exec, Exit, Fork, Lost, Open, Read, escape

from .running import Running, Workloads, flak_environment, running, write_pages

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
SOMEBODY, ANOTHER, THIRD = 54321, 54323, 54331  # users that own no other process


@dataclass
class Actor:
    """A process or thread that does what it is told: `way` leads to it from its program's first loop."""

    cast: Cast
    program: Running
    pid: int
    tid: int
    way: str = ""
    helpers: int = 0
    first: Actor | None = None  # of a thread: the actor that its process began with

    def begin(self, command: str) -> None:
        """Tells it to do something, and does not wait."""
        assert self.program.process.stdin
        self.program.process.stdin.write(os.fsencode(f"{self.way}{command}\n"))
        self.program.process.stdin.flush()

    def answer(self) -> int:
        """Waits until what was begun is done."""
        assert self.program.process.stdout
        words = self.program.process.stdout.readline().split()
        assert words and words[0] in (b"done", b"ready"), f"the actor said {words} and is gone"
        return int(words[1])

    def do(self, command: str) -> int:
        self.begin(command)
        return self.answer()

    def read(self, calls: int) -> list[int]:
        """So many reads, at offsets that nobody else uses."""
        offsets = self.cast.offsets(calls)
        self.do(f"read {offsets[0]} {calls}")
        return offsets

    def rename(self, name: str) -> None:
        """Another name for the thread."""
        self.do(f"name {name}")

    def exec(self, name: str) -> None:
        """Becomes a program of that name; of a thread the whole process does, and only its first actor is left."""
        assert self.do(f"exec {self.cast.path(name)}") == self.pid
        (self.first or self).helpers = 0

    def fork(self) -> Actor:
        """A child."""
        number = self.do("fork")
        return self._helper(number, number, None)

    def thread(self, name: str = "") -> Actor:
        """A thread."""
        thread = self._helper(self.pid, self.do("thread"), self.first or self)
        if name:
            thread.rename(name)
        return thread

    def _helper(self, pid: int, tid: int, first: Actor | None) -> Actor:
        self.helpers += 1
        return Actor(self.cast, self.program, pid, tid, f"{self.way}{self.helpers} ", first=first)

    def spawn(self, name: str, calls: int) -> list[int]:
        """A child that becomes a program of that name, reads, and ends."""
        offsets = self.cast.offsets(calls)
        self.do(f"spawn {self.cast.path(name)} {offsets[0]} {calls}")
        return offsets

    def storm(self, names: Sequence[str], children: int, at_once: int, calls: int) -> dict[str, list[int]]:
        """Many such children, of these names in turn; by name, what they read."""
        offsets = self.cast.offsets(children * calls)
        paths = " ".join(str(self.cast.path(name)) for name in names)
        self.do(f"storm {children} {at_once} {offsets[0]} {calls} {paths}")
        found: dict[str, list[int]] = {name: [] for name in names}
        for child in range(children):
            found[names[child % len(names)]] += offsets[child * calls : (child + 1) * calls]
        return found

    def end(self) -> None:
        """A helper ends, and is waited for; of a program's first loop the program does."""
        if self.way:
            self.do("end")
        else:
            self.program.close()


@dataclass
class Seen:
    """What a trace saw."""

    file: Path
    events: list[Event]
    stats: Counters

    def of(self, *classes: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, classes)]

    @property
    def reads(self) -> list[Read]:
        """Reads of the actors' file."""
        return [event for event in self.of(Read) if event.path == str(self.file)]

    @property
    def offsets(self) -> list[int]:
        """Where they were, in ascending order."""
        return sorted(event.file_offset for event in self.reads if event.file_offset is not None)


class Cast:
    """All actors of a test, and the file that they read."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._next_offset = 0
        self._started: list[Running] = []
        self.file = folder / "script"
        self.file.write_bytes(bytes(4096))
        folder.chmod(0o755)

    def path(self, name: str) -> Path:
        """The actor's program under a name."""
        path = self._folder / "bin" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            shutil.copy(self._program, path)
        return path

    def __call__(self, name: str = "actor") -> Actor:
        """An actor, ready."""
        program = Running([str(self.path(name)), str(self.file), "serve", "0", "1"])
        self._started.append(program)
        actor = Actor(self, program, program.pid, program.pid)
        assert actor.answer() == program.pid
        return actor

    def at(self, pid: int, name: str) -> Actor:
        """An actor that is given this number, which must be free."""
        for _ in range(50):
            LAST_PID.write_text(str(pid - 1))
            actor = self(name)
            if actor.pid == pid:
                return actor
            actor.end()
        pytest.fail(f"others start so many processes that number {pid} cannot be had")

    def offsets(self, count: int) -> list[int]:
        """So many offsets that nobody has read at."""
        first, self._next_offset = self._next_offset, self._next_offset + count
        return list(range(first, self._next_offset))

    def seen(self, session: Any) -> Seen:
        """What a trace has seen that ends now; all of it, and exactly counted."""
        session.stop()
        return self.seen_to_end(session)

    def seen_to_end(self, session: Any) -> Seen:
        """The same of a trace that ends by itself."""
        return whole(session, self.file, session)

    def close(self) -> None:
        for program in self._started:
            program.close()


class Watching:
    """A trace whose events are taken by another thread, so that its rounds go on."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.events: list[Event] = []
        self.thread = threading.Thread(target=self._take)
        self.thread.start()

    def _take(self) -> None:
        for event in self.session:
            self.events.append(event)

    @property
    def reads(self) -> list[Event]:
        """Reads that were seen so far."""
        return [event for event in self.events if isinstance(event, Read)]

    def seen(self, cast: Cast) -> Seen:
        """What there was, once it has ended by itself."""
        self.thread.join(20)
        assert not self.thread.is_alive(), "the trace did not end"
        return whole(self.events, cast.file, self.session)

    def close(self) -> None:
        self.session.stop()
        self.thread.join(20)


def whole(events: Iterable[Event], file: Path, session: Any) -> Seen:
    """All that a trace saw, which is over: nothing was lost."""
    *events, last = events
    assert last == session.stats, "a run ends with its counters"
    assert_exact(session.stats)
    assert not [event for event in events if isinstance(event, Lost)]
    return Seen(file, events, session.stats)


def assert_exact(stats: Counters) -> None:
    """Everything is accounted for, and nothing was lost."""
    assert stats.is_exact and stats.is_complete, stats
    assert (stats.lost, stats.recursion_misses) == ({}, 0)


@pytest.fixture
def cast(workloads: Workloads, tmp_path: Path) -> Iterator[Cast]:
    """Starts actors: `cast("postgres")`; ends them in the end."""
    cast = Cast(workloads("actor"), tmp_path)
    yield cast
    cast.close()


def joined(*parts: Iterable[int]) -> list[int]:
    return sorted(offset for part in parts for offset in part)


# --- by name


def own(name: str) -> str:
    """A name that nobody else's processes have: names are looked for on the whole machine."""
    return f"{name}.{os.getpid() & 0xFFFF:x}"


ODD_NAMES = [
    "two words",
    "grüße",
    "\x1b[31mred\x1b[0m",
    "exactly-fifteen",
    "longer-than-fifteen-bytes",
    "w[1]*",
    "(x) Z",
]


def kept(name: str) -> str:
    """What the kernel keeps of a name."""
    return os.fsdecode(os.fsencode(name)[:15])


def literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in kept(name))


def test_processes_are_found_by_name_whenever_they_start(cast: Cast) -> None:
    before = [cast(name) for name in ODD_NAMES]
    decoys = [cast(name) for name in ("two", "two word", "gr", "[31mred", "exactly-fiftee", "w1")]
    with flak.trace(comm=[literal(name) for name in ODD_NAMES]) as session:
        during = [cast(name) for name in ODD_NAMES]
        expected = [actor.read(5) for actor in before] + [actor.read(7) for actor in during]
        for decoy in decoys:
            decoy.read(3)
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)
    comm_of = {event.file_offset: event.comm for event in seen.reads}
    for name, offsets in zip(2 * ODD_NAMES, expected, strict=True):
        assert {comm_of[offset] for offset in offsets} == {escape(os.fsencode(kept(name)))}


def test_a_file_that_was_open_already_is_listed_for_those_found_by_name(cast: Cast) -> None:
    actor, decoy = cast("chosen"), cast("decoy")
    with flak.trace(comm="chosen") as session:
        seen = cast.seen(session)
    opened = [event for event in seen.of(Open) if event.path == str(cast.file)]
    assert [(event.pid, event.marks) for event in opened] == [(actor.pid, ("attached",))]
    assert decoy.pid not in {event.pid for event in seen.events}


def test_threads_are_their_process_s_whatever_they_are_called(cast: Cast) -> None:
    java, decoy = cast(own("java-like")), cast("decoy")
    workers = [java.thread(name) for name in ("GC Thread#0", "C2 CompilerThre", "http-nio-8080-e")]
    impostor = decoy.thread(own("java-like"))
    with flak.trace(comm=own("java-like")) as session:
        workers.append(java.thread("started-later"))
        expected = {worker.tid: worker.read(calls) for worker, calls in zip(workers, (11, 13, 17, 19), strict=True)}
        impostor.read(7)
        decoy.read(5)
        decoy.thread(own("java-like")).read(3)
        seen = cast.seen(session)
    assert {tid: [e.file_offset for e in seen.reads if e.tid == tid] for tid in expected} == expected
    assert seen.offsets == joined(*expected.values())
    assert {e.comm for e in seen.reads} == {"GC Thread#0", "C2 CompilerThre", "http-nio-8080-e", "started-later"}
    assert {event.pid for event in seen.events if event.op != "counters"} == {java.pid}


def test_a_process_that_takes_the_name_is_traced_from_then_on(cast: Cast) -> None:
    first, second, third = cast("first"), cast("second"), cast("third")
    helper = second.thread("helper")
    with flak.trace(comm="chosen") as session:
        for actor in (first, second, third):
            actor.read(3)
        first.rename("chosen")
        helper.do("comm chosen")  # another thread renames the process's leader
        third.thread("chosen")  # only a thread's name
        expected = [first.read(5), second.read(7), helper.read(11)]
        third.read(13)
        first.rename("other")  # sticks
        expected.append(first.read(17))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_an_exec_under_another_name_ends_it_and_one_under_the_name_begins_it(cast: Cast) -> None:
    leaves, joins = cast(own("chosen")), cast("other")
    with flak.trace(comm=own("chosen")) as session:
        expected = [leaves.read(5)]
        joins.read(3)
        leaves.exec("other")
        joins.exec(own("chosen"))
        leaves.read(7)
        expected.append(joins.read(11))
        joins.rename("third")
        joins.exec("other")  # a name that was taken after the exec does not outlast the next one
        joins.read(13)
        joins.exec(own("chosen"))
        expected.append(joins.read(17))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)
    assert [(e.pid, Path(e.argv0).name) for e in seen.of(Exec)] == [
        (leaves.pid, "other"), (joins.pid, own("chosen")), (joins.pid, "other"), (joins.pid, own("chosen")),
    ]  # fmt: skip


def test_an_exec_by_another_thread_changes_name_and_number(cast: Cast) -> None:
    joins, leaves = cast("other"), cast(own("chosen"))
    worker, leaver = joins.thread("worker"), leaves.thread("worker")
    with flak.trace(comm=own("chosen")) as session:
        worker.read(3)
        expected = [leaver.read(5)]
        worker.exec(own("chosen"))
        leaver.exec("other")
        expected.append(joins.read(7))
        leaves.read(11)
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)
    assert {(e.tid, e.comm) for e in seen.reads if e.pid == joins.pid} == {(joins.pid, own("chosen"))}
    # A thread that had no part in the trace before is known by its new number; where it had, the old one is told too.
    assert [(e.pid, e.tid) for e in seen.of(Exec)] == [(joins.pid, joins.pid), (leaves.pid, leaves.pid)]


def test_names_are_patterns_and_can_be_excluded(cast: Cast) -> None:
    actors = {name: cast(own(name)) for name in ("w1", "w2", "w22", "x1", "tea", "toa")}
    with flak.trace(comm=[own("w*"), f"!{own('w2')}", own("t[!o]?")]) as session:
        actors["w3"] = cast(own("w3"))
        offsets = {name: actor.read(7) for name, actor in actors.items()}
        actors["w1"].rename(own("w2"))  # takes an excluded name
        actors["w1"].read(5)
        actors["w1"].exec(own("w1"))
        again = actors["w1"].read(11)
        seen = cast.seen(session)
    assert seen.offsets == joined(again, *(offsets[name] for name in ("w1", "w22", "tea", "w3")))


def test_children_are_followed_whatever_they_become(cast: Cast) -> None:
    parent = cast("chosen")
    old = parent.fork()
    old.exec("older")
    with flak.trace(comm="chosen") as session:
        child = parent.fork()
        child.exec("other")
        grandchild = child.fork()
        grandchild.exec("third")
        expected = [old.read(3), child.read(5), grandchild.read(7), parent.spawn("fourth", 11), parent.read(13)]
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_without_follow_a_child_is_traced_while_it_has_the_name(cast: Cast) -> None:
    parent = cast("chosen")
    with flak.trace(comm="chosen", follow=False) as session:
        child = parent.fork()
        expected = [parent.read(3), child.read(5)]
        child.exec("other")
        child.read(7)
        parent.spawn("third", 11)
        expected.append(child.spawn("chosen", 13))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


@pytest.mark.parametrize("at_once", [1, 8])
def test_every_access_of_a_hundred_short_processes_is_seen_and_none_of_others(cast: Cast, at_once: int) -> None:
    starter = cast("starter")
    with flak.trace(comm=own("wanted")) as session:
        offsets = starter.storm([own("wanted"), own("unwanted")], 202, at_once, 7)
        seen = cast.seen(session)
    assert len(offsets[own("wanted")]) == 101 * 7
    assert seen.offsets == offsets[own("wanted")]
    assert len({event.pid for event in seen.reads}) == len(seen.of(Exit)) == len(seen.of(Exec)) == 101


def test_a_process_that_was_joined_in_a_storm_of_them_is_followed_by_all_that_come(cast: Cast) -> None:
    starter = cast("starter")
    offsets = cast.offsets(1009 * 7)
    starter.begin(f"storm 1009 1 {offsets[0]} 7 {cast.path('wanted')}")
    with flak.trace(comm="wanted") as session:
        starter.answer()
        seen = cast.seen(session)
    assert seen.offsets, "the storm was over before the trace began: the test proved nothing"
    # One was under way when it was found; from then on everything is there.
    assert seen.offsets == offsets[seen.offsets[0] :]


def test_a_process_whose_first_thread_has_ended_keeps_its_name(
    workloads: Workloads, indexed: Path, tmp_path: Path
) -> None:
    mapped = write_pages(tmp_path / "mapped", 13)
    waiter = shutil.copy(workloads("waiter"), tmp_path / own("waiter"))
    command = [str(waiter), "leaderless", str(indexed), str(mapped)]
    with running(command) as program, flak.trace(comm=own("waiter")) as session:
        program.process.communicate(b"go\n", timeout=10)
        session.stop()
        seen = whole(session, indexed, session)
    assert len(seen.reads) == 13


def test_the_exec_that_takes_an_excluded_name_is_told(cast: Cast) -> None:
    actor = cast(own("w1"))
    with flak.trace(comm=[own("w?"), f"!{own('w2')}"]) as session:
        expected = actor.read(3)
        actor.exec(own("w2"))
        actor.read(5)
        seen = cast.seen(session)
    assert seen.offsets == expected
    assert [Path(e.argv0).name for e in seen.of(Exec)] == [own("w2")]


def test_a_call_under_way_when_its_process_takes_the_name_again_has_its_result(cast: Cast) -> None:
    actor = cast("chosen")
    with flak.trace(comm="chosen", all_files=True) as session:
        actor.read(3)
        actor.exec("other")
        helper = actor.thread()
        helper.do("comm chosen")  # meanwhile the first thread waits in a read for the answer
        seen = cast.seen(session)
    pipe = [e for e in seen.of(Read) if e.tid == actor.pid and e.kind == "pipe" and e.fd != 0 and e.size_ret]
    assert [e.size_ret for e in pipe] == len("done 0\n") * [1]
    assert [e.marks for e in pipe] == [("no_enter",), *6 * [()]]


def test_flak_s_own_calls_are_counted_without_durations_too() -> None:
    with flak.trace(all_processes=True, latency=False, events=["open"], buffer_size=128 << 20) as session:
        for _ in range(7):
            Path("/proc/self/comm").read_text()
        session.stop()
        *_, stats = session
    assert_exact(stats)
    assert stats.excluded_self >= 7


def test_flak_is_left_out_when_it_has_the_name_itself(cast: Cast) -> None:
    own = Path("/proc/self/comm").read_text().rstrip("\n")
    actor = cast(own)
    with flak.trace(comm=literal(own), events=["read", "write", "open"]) as session:
        expected = actor.read(7)
        seen = cast.seen(session)
    assert seen.offsets == expected
    assert seen.stats.excluded_self > 0
    assert os.getpid() not in {event.pid for event in seen.events}


# --- by number


def test_several_processes_are_traced_and_the_others_not(cast: Cast) -> None:
    actors = [cast() for _ in range(5)]
    with flak.trace(pid=[actors[0].pid, actors[2].pid, actors[4].pid]) as session:
        expected = [actor.read(calls) for actor, calls in zip(actors, (3, 5, 7, 11, 13), strict=True)]
        for actor in actors:
            actor.end()
        seen = cast.seen_to_end(session)
    assert seen.offsets == joined(*expected[::2])
    assert {event.pid for event in seen.of(Exit)} == {actor.pid for actor in actors[::2]}


def test_children_that_are_there_already_are_followed(cast: Cast) -> None:
    parent = cast()
    child = parent.fork()
    grandchild = child.fork()
    youngest = grandchild.fork()
    with flak.trace(pid=parent.pid) as session:
        later = youngest.thread().fork()
        expected = [
            a.read(n) for a, n in zip((parent, child, grandchild, youngest, later), (3, 5, 7, 11, 13), strict=True)
        ]
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_children_that_are_there_already_are_left_out_on_request(cast: Cast) -> None:
    parent = cast()
    child = parent.fork()
    with flak.trace(pid=parent.pid, follow=False) as session:
        expected = parent.read(3)
        for other in (child, child.fork(), parent.fork()):
            other.read(5)
        seen = cast.seen(session)
    assert seen.offsets == expected


def test_a_child_is_excluded_with_all_it_makes(cast: Cast) -> None:
    parent = cast()
    child, excluded = parent.fork(), parent.fork()
    below = excluded.fork()
    with flak.trace(pid=[parent.pid, f"!{excluded.pid}"]) as session:
        expected = [parent.read(3), child.read(5)]
        for other in (excluded, below, excluded.fork(), below.fork()):
            other.read(7)
        excluded.spawn("other", 11)
        below.exec("another")
        below.read(13)
        expected.append(child.fork().read(17))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)
    assert not {event.pid for event in seen.events} & {excluded.pid, below.pid}


@pytest.mark.skipif(not LAST_PID.exists(), reason="this kernel does not let a test choose a process number")
@pytest.mark.parametrize("is_by_name", [True, False])
def test_a_number_that_was_given_to_another_process_is_not_traced_again(cast: Cast, is_by_name: bool) -> None:
    ends, stays = cast("chosen"), cast("chosen")
    with flak.trace(**{"comm": "chosen"} if is_by_name else {"pid": [ends.pid, stays.pid]}) as session:
        expected = [ends.read(3)]
        ends.end()
        other = cast.at(ends.pid, "other")
        other.read(5)
        other.fork().read(7)
        expected.append(stays.read(11))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_number_and_name_must_both_hold(cast: Cast) -> None:
    parent, stranger = cast("other"), cast("chosen")
    child = parent.fork()
    with flak.trace(pid=parent.pid, comm="chosen") as session:
        parent.read(3)
        stranger.read(5)
        child.exec("chosen")
        expected = child.read(11)
        child.exec("third")
        child.read(7)
        seen = cast.seen(session)
    assert seen.offsets == expected


def test_the_number_of_a_thread_is_refused_and_its_process_is_named(cast: Cast) -> None:
    actor = cast()
    thread = actor.thread()
    with (
        pytest.raises(TargetError, match=f"{thread.tid} is a thread of process {actor.pid}") as refusal,
        flak.trace(pid=thread.tid),
    ):
        pass
    assert f"--pid {actor.pid}" in (refusal.value.hint or "")


def test_the_number_of_a_thread_is_refused_where_it_excludes_too(cast: Cast) -> None:
    actor = cast()
    thread = actor.thread()
    with (
        pytest.raises(TargetError, match=f"{thread.tid} is a thread of process {actor.pid}"),
        flak.trace(pid=[actor.pid, f"!{thread.tid}"]),
    ):
        pass


# --- by thread


def test_only_the_thread_is_traced_until_it_ends(cast: Cast) -> None:
    actor = cast()
    wanted, other = actor.thread("wanted"), actor.thread("wanted")
    with flak.trace(tid=wanted.tid) as session:
        actor.read(3)
        expected = wanted.read(5)
        other.read(7)
        wanted.fork().read(11)
        wanted.end()
        actor.thread().read(13)
        seen = cast.seen_to_end(session)
    assert seen.offsets == expected
    assert {event.tid for event in seen.events if event.op not in ("counters",)} == {wanted.tid}
    assert [(event.tid, event.is_last) for event in seen.of(Exit)] == [(wanted.tid, False)]


def test_a_thread_that_makes_an_exec_goes_on_as_the_first_one(cast: Cast) -> None:
    actor = cast()
    wanted = actor.thread()
    with flak.trace(tid=wanted.tid) as session:
        expected = [wanted.read(5)]
        actor.read(3)
        wanted.exec("again")
        expected.append(actor.read(7))
        actor.thread().read(11)
        actor.end()
        seen = cast.seen_to_end(session)
    assert seen.offsets == joined(*expected)
    assert [event.tid for event in seen.reads] == 5 * [wanted.tid] + 7 * [actor.pid]


def test_a_thread_that_only_waits_for_its_parent_to_notice_has_ended(cast: Cast) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(TargetError, match=f"thread {pid} has ended"), flak.trace(tid=pid):
            pass
    finally:
        os.waitpid(pid, 0)


def test_a_thread_can_be_excluded_from_its_process(cast: Cast) -> None:
    actor = cast()
    left_out, other = actor.thread(), actor.thread()
    with flak.trace(pid=actor.pid, tid=f"!{left_out.tid}") as session:
        expected = [actor.read(3), other.read(5)]
        left_out.read(7)
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


# --- by user


def test_a_process_is_traced_while_it_runs_as_the_user(cast: Cast) -> None:
    actor = cast()
    child = actor.fork()
    with flak.trace(pid=actor.pid, uid=os.getuid()) as session:
        expected = [actor.read(3), child.read(5)]
        child.do(f"user {SOMEBODY}")
        child.read(7)
        expected.append(actor.read(11))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_several_users_are_traced_whoever_started_their_processes(cast: Cast) -> None:
    actors = {uid: cast() for uid in (SOMEBODY, ANOTHER, THIRD)}
    already = cast()
    already.do(f"user {SOMEBODY}")
    with flak.trace(uid=[SOMEBODY, ANOTHER]) as session:
        offsets = {}
        for uid, actor in actors.items():
            actor.read(3)
            actor.do(f"user {uid}")
            offsets[uid] = actor.read(5)
        expected = [offsets[SOMEBODY], offsets[ANOTHER], already.read(7)]
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_a_user_can_be_excluded(cast: Cast) -> None:
    actor = cast()
    with flak.trace(pid=actor.pid, uid=f"!{SOMEBODY}") as session:
        expected = [actor.read(3)]
        child, other = actor.fork(), actor.fork()
        child.do(f"user {SOMEBODY}")
        other.do(f"user {ANOTHER}")
        child.read(5)
        expected.append(other.read(7))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


# --- everybody, and a command


def test_all_processes_are_traced_but_flak(cast: Cast) -> None:
    actor = cast()
    with flak.trace(all_processes=True, events=["read", "write"], buffer_size=128 << 20) as session:
        expected = [actor.read(97), cast().read(101)]
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)
    assert seen.stats.excluded_self > 0
    assert os.getpid() not in {event.pid for event in seen.events}


def test_of_all_processes_some_can_be_excluded(cast: Cast) -> None:
    by_number, by_name, other = cast("one"), cast("two"), cast("three")
    excluded = {"pid": f"!{by_number.pid}", "comm": "!tw*"}
    with flak.trace(all_processes=True, events=["read"], buffer_size=128 << 20, **excluded) as session:
        by_number.read(3)
        by_name.read(5)
        by_number.fork().read(7)
        cast("twice").read(11)
        expected = other.read(13)
        seen = cast.seen(session)
    assert seen.offsets == expected


def test_of_a_command_s_children_some_can_be_excluded(cast: Cast) -> None:
    offsets = cast.offsets(3 * 2 * 7)
    command = [cast.path("starter"), cast.file, "do", f"storm 6 2 0 7 {cast.path('kept')} {cast.path('noise')}"]
    with flak.trace(command=[str(word) for word in command], comm="!noise") as session:
        seen = cast.seen_to_end(session)
    assert session.command_status == 0
    assert seen.offsets == [offset for offset in offsets if offset // 7 % 2 == 0]
    assert len(seen.of(Fork)) == 6  # made by the one that is traced


# --- usage errors


def flak_trace(*words: str) -> subprocess.CompletedProcess[str]:
    environment = flak_environment()
    return subprocess.run(
        [sys.executable, "-m", "flak", "trace", *words], capture_output=True, text=True, env=environment, timeout=20
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to trace"),
        (["--pid", "1", "--", "true"], "a command and --pid cannot be traced in one run"),
        (["--comm", "x", "--", "true"], "a command and --comm cannot be traced in one run"),
        (["--cgroup", "/", "--", "true"], "a command and --cgroup cannot be traced in one run"),
        (["--comm", "sixteen-letters-"], "--comm 'sixteen-letters-' is 16 bytes long and matches nothing"),
        (["--comm", "!sshd", "--pid", "!1"], "--pid only excludes, so nothing is left to trace"),
        (["--pid", "1", "--wait"], "--wait is for --container and --cgroup"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(words: list[str], message: str) -> None:
    done = flak_trace(*words)
    first, *hints = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert first.startswith(f"flak: {message}")
    assert len(hints) == 1 or not words, "a line that says what, a line that says what to do"


def test_with_nothing_selected_the_ways_to_choose_are_listed() -> None:
    listed = flak_trace().stderr
    assert all(option in listed for option in ("-p PID", "-n NAME", "-- CMD", "-G PATH", "-c CONTAINER"))
    assert "Traceback" not in listed


def test_a_thread_that_does_not_exist_cannot_be_excluded(cast: Cast) -> None:
    actor = cast()
    with pytest.raises(TargetError, match="no thread 4194303"), flak.trace(pid=actor.pid, tid="!4194303"):
        pass
