"""Who is traced by cgroup: by path or id, with all below it, at each call, from when it is there till it is gone."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flak
from flak import cgroups
from flak.errors import NotSupported, TargetError
from flak.events import Fault, Read

from .conftest import give_up
from .running import PAGE, Workloads, wait_until, write_pages
from .test_selection import Actor, Cast, Watching, joined, own

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

number = itertools.count()
READ = {"x86_64": 0, "aarch64": 63}[os.uname().machine]


class Grove:
    """Cgroups of a test, below one of its own in the version 2 hierarchy."""

    def __init__(self, hierarchy: Path, name: str) -> None:
        self.hierarchy = hierarchy
        self.top = hierarchy / name
        self.top.mkdir()

    def make(self, name: str) -> Path:
        """A cgroup below ours."""
        path = self.top / name
        path.mkdir(parents=True)
        return path

    def remove(self, path: Path) -> None:
        """Takes a cgroup away, its processes first."""
        folders = [Path(folder) for folder, _, _ in os.walk(path)]
        for folder in folders:
            if (folder / "cgroup.type").read_text() != "threaded\n":  # its processes are those of the one above
                for pid in (folder / "cgroup.procs").read_text().split():
                    put(int(pid), self.hierarchy)
        for folder in reversed(folders):
            # A process that has just ended may hold it for a moment.
            wait_until(lambda folder=folder: is_removed(folder), f"removing {folder}")


def is_removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def put(pid: int, cgroup: Path) -> None:
    """Moves a process into a cgroup."""
    (cgroup / "cgroup.procs").write_text(str(pid))


def cgroup_id(path: Path) -> int:
    return path.stat().st_ino


@pytest.fixture
def grove() -> Iterator[Grove]:
    """Cgroups for a test, removed in the end."""
    try:
        hierarchy = cgroups.mount()
    except NotSupported as error:
        give_up(f"no cgroups of version 2: {error.message}")
    try:
        grove = Grove(hierarchy, f"flak-test-{os.getpid()}-{next(number)}")
    except OSError as error:
        give_up(f"cannot make a cgroup in {hierarchy}: {error.strerror}; tests of cgroups need to write there")
    yield grove
    grove.remove(grove.top)


@pytest.fixture
def cast(workloads: Workloads, tmp_path: Path, grove: Grove) -> Iterator[Cast]:
    """Starts actors; ends them before the cgroups go."""
    cast = Cast(workloads("actor"), tmp_path)
    yield cast
    cast.close()


def actor_in(cast: Cast, cgroup: Path, name: str = "actor") -> Actor:
    actor = cast(name)
    put(actor.pid, cgroup)
    return actor


# --- which one is meant


NAMES: dict[str, Callable[[Path, Path], Any]] = {
    "path": lambda cgroup, hierarchy: cgroup,
    "text of the path": lambda cgroup, hierarchy: f"{cgroup}/",
    "id": lambda cgroup, hierarchy: cgroup_id(cgroup),
    "text of the id": lambda cgroup, hierarchy: str(cgroup_id(cgroup)),
    "place in the hierarchy": lambda cgroup, hierarchy: str(cgroup.relative_to(hierarchy)),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_cgroup_is_named_by_its(cast: Cast, grove: Grove, kind: str) -> None:
    web, other = grove.make("web"), grove.make("other")
    inside, outside, elsewhere = actor_in(cast, web), actor_in(cast, other), cast()
    with flak.trace(cgroup=NAMES[kind](web, grove.hierarchy)) as session:
        outside.read(3)
        elsewhere.read(5)
        expected = inside.read(7)
        seen = cast.seen(session)
    assert seen.offsets == expected
    assert {event.cgroup_id for event in seen.reads} == {cgroup_id(web)}


def test_what_is_no_cgroup_is_refused_by_name(grove: Grove, tmp_path: Path) -> None:
    file = grove.top / "cgroup.procs"
    for name, message in (
        (str(grove.top / "absent"), "no cgroup '.*absent'"),
        ("flak-test-absent", "no cgroup 'flak-test-absent'"),
        (str(tmp_path), "is not the directory of a cgroup"),
        (str(file), "is not the directory of a cgroup|no cgroup"),
        ("4294967291", "no cgroup with id 4294967291"),
    ):
        with pytest.raises(TargetError, match=message) as refusal, flak.trace(cgroup=name):
            pass
        assert refusal.value.hint


def version_1() -> list[Path]:
    """Where version 1 hierarchies are mounted."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(fields[4]) for fields in lines if fields[fields.index("-") + 1] == "cgroup"]


@pytest.mark.skipif(not version_1(), reason="this machine has no cgroup hierarchy of version 1")
def test_a_version_1_directory_is_refused_as_such() -> None:
    with pytest.raises(TargetError, match="is in a version 1 hierarchy"), flak.trace(cgroup=str(version_1()[0])):
        pass


def test_a_cgroup_whose_name_begins_alike_is_another(cast: Cast, grove: Grove) -> None:
    web = grove.make("web")
    inside = actor_in(cast, web)
    others = [actor_in(cast, grove.make(name)) for name in ("web2", "we", "other/web")]
    with flak.trace(cgroup=str(web)) as session:
        for actor in others:
            actor.read(3)
        expected = inside.read(7)
        seen = cast.seen(session)
    assert seen.offsets == expected


# --- judged at each call


def test_everything_below_is_included_also_what_is_made_later(cast: Cast, grove: Grove) -> None:
    pod = grove.make("pod")
    old = grove.make("pod/old/deep")
    top, below = actor_in(cast, pod), actor_in(cast, old)
    with flak.trace(cgroup=str(pod)) as session:
        new = grove.make("pod/new/deeper/deepest")
        later = actor_in(cast, new)
        expected = [top.read(3), below.read(5), later.read(7), later.fork().read(11)]
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)
    ids = {event.file_offset: event.cgroup_id for event in seen.reads}
    assert [ids[offsets[0]] for offsets in expected] == [cgroup_id(path) for path in (pod, old, new, new)]


def test_a_process_is_traced_while_it_is_in_the_cgroup(cast: Cast, grove: Grove) -> None:
    web, other = grove.make("web"), grove.make("other")
    mover, stayer = cast(), actor_in(cast, web)
    thread, child = mover.thread(), stayer.fork()
    with flak.trace(cgroup=str(web)) as session:
        mover.read(3)
        thread.read(5)
        put(mover.pid, web)
        expected = [mover.read(7), thread.read(11), child.read(13)]
        put(stayer.pid, other)  # its child stays
        stayer.read(17)
        expected.append(child.read(19))
        put(mover.pid, other)
        thread.read(23)
        put(mover.pid, web)
        expected.append(mover.read(29))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_a_thread_may_be_in_a_cgroup_of_its_own(cast: Cast, grove: Grove) -> None:
    pod, threads = grove.make("pod"), grove.make("pod/threads")
    (threads / "cgroup.type").write_text("threaded")
    actor = actor_in(cast, pod)
    inside, outside = actor.thread(), actor.thread()
    (threads / "cgroup.threads").write_text(str(inside.tid))
    with flak.trace(cgroup=str(threads)) as session:
        actor.read(3)
        outside.read(5)
        expected = [inside.read(7)]
        (threads / "cgroup.threads").write_text(str(outside.tid))
        expected.append(outside.read(11))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)
    assert {e.tid for e in seen.reads} == {inside.tid, outside.tid}


def test_a_call_that_waits_while_its_process_is_moved_is_recorded(cast: Cast, grove: Grove, tmp_path: Path) -> None:
    web = grove.make("web")
    comes, goes = cast(), actor_in(cast, web)
    fifos = [tmp_path / "comes", tmp_path / "goes"]
    with flak.trace(cgroup=str(web), all_files=True) as session:
        for actor, fifo, cgroup in zip((comes, goes), fifos, (web, grove.top), strict=True):
            os.mkfifo(fifo)
            actor.begin(f"take {fifo}")
            wait_until(lambda actor=actor, fifo=fifo: waits_at(actor.pid, fifo), "the blocking read")
            put(actor.pid, cgroup)
            fifo.write_bytes(b"12345")
            actor.answer()
        seen = cast.seen(session)
    moved_in, moved_out = ([e for e in seen.of(Read) if e.path == str(fifo)] for fifo in fifos)
    assert [(e.size_ret, e.latency_ns, e.marks) for e in moved_in] == [(5, None, ("no_enter",))]
    assert [(e.size_ret, e.marks) for e in moved_out] == [(5, ())]
    assert moved_out[0].latency_ns > 0


def test_a_call_that_still_waits_after_its_process_was_moved_is_unfinished(
    cast: Cast, grove: Grove, tmp_path: Path
) -> None:
    web = grove.make("web")
    actor, fifo = actor_in(cast, web), tmp_path / "fifo"
    os.mkfifo(fifo)
    with flak.trace(cgroup=str(web), all_files=True) as session:
        actor.begin(f"take {fifo}")
        wait_until(lambda: waits_at(actor.pid, fifo), "the blocking read")
        put(actor.pid, grove.top)
        seen = cast.seen(session)
    fifo.write_bytes(b"12345")
    actor.answer()
    assert [e.marks for e in seen.of(Read) if e.path == str(fifo)] == [("unfinished",)]


FAULTS_ON_DEMAND = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
file = os.open(sys.argv[1], os.O_RDONLY)
mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ)
mapped.madvise(mmap.MADV_RANDOM)
for count in sys.stdin:
    mapped[int(count) * mmap.PAGESIZE]
    with mmap.mmap(-1, int(count) * mmap.PAGESIZE) as pages:
        for page in range(int(count)):
            pages[page * mmap.PAGESIZE] = 1
    libc.pread(file, ctypes.c_void_p(8), ctypes.c_size_t(1), ctypes.c_long(0))  # a fault that fails: EFAULT
    print(flush=True)
"""


def test_faults_outside_the_cgroup_are_neither_recorded_nor_counted(grove: Grove, tmp_path: Path) -> None:
    web, file = grove.make("web"), tmp_path / "file"
    write_pages(file, 2048)
    argv = [sys.executable, "-c", FAULTS_ON_DEMAND, str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin and program.stdout

        def fault(count: int) -> None:
            print(count, file=program.stdin, flush=True)
            program.stdout.readline()

        fault(5)
        put(program.pid, web)
        with flak.trace(cgroup=str(web)) as session:
            fault(107)
            put(program.pid, grove.top)
            fault(1009)
            put(program.pid, web)
            fault(211)
            program.stdin.close()
            program.wait()
            session.stop()
            events = list(session)
    faults = [e.file_offset for e in events if isinstance(e, Fault) and e.path == str(file)]
    assert faults == [107 * PAGE, 211 * PAGE]
    assert session.stats.not_decoded.get("gup_fault", 0) < 1009


def waits_at(pid: int, fifo: Path) -> bool:
    """Does a process wait for something to be written there?"""
    number, *arguments = Path(f"/proc/{pid}/syscall").read_text().split()
    return number == str(READ) and Path(f"/proc/{pid}/fd/{int(arguments[0], 16)}").readlink() == fifo


def test_a_cgroup_below_can_be_excluded(cast: Cast, grove: Grove) -> None:
    pod = grove.make("pod")
    paths = [pod, grove.make("pod/app"), grove.make("pod/sidecar"), grove.make("pod/sidecar/deep")]
    actors = [actor_in(cast, path) for path in paths]
    with flak.trace(cgroup=[str(pod), f"!{paths[2]}"]) as session:
        paths.append(grove.make("pod/sidecar/later"))
        actors.append(actor_in(cast, paths[-1]))
        offsets = [actor.read(calls) for actor, calls in zip(actors, (3, 5, 7, 11, 13), strict=True)]
        put(actors[2].pid, pod)
        offsets.append(actors[2].read(17))
        seen = cast.seen(session)
    assert seen.offsets == joined(offsets[0], offsets[1], offsets[5])


def test_what_a_chosen_process_does_in_a_cgroup_can_be_excluded(cast: Cast, grove: Grove) -> None:
    web = grove.make("web")
    actor = cast()
    child = actor.fork()
    put(child.pid, web)
    with flak.trace(pid=actor.pid, cgroup=f"!{web}") as session:
        expected = [actor.read(3)]
        child.read(5)
        put(child.pid, grove.top)
        expected.append(child.read(7))
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_several_cgroups_are_alternatives(cast: Cast, grove: Grove) -> None:
    paths = [grove.make(name) for name in ("a", "b/below", "c", "d")]
    actors = [actor_in(cast, path) for path in paths]
    with flak.trace(cgroup=[str(paths[0]), cgroup_id(paths[1].parent), str(paths[3])]) as session:
        offsets = [actor.read(calls) for actor, calls in zip(actors, (3, 5, 7, 11), strict=True)]
        seen = cast.seen(session)
    assert seen.offsets == joined(offsets[0], offsets[1], offsets[3])


def test_name_and_cgroup_must_both_hold(cast: Cast, grove: Grove) -> None:
    web = grove.make("web")
    both, named, inside = actor_in(cast, web, own("chosen")), cast(own("chosen")), actor_in(cast, web, "other")
    with flak.trace(comm=own("chosen"), cgroup=str(web)) as session:
        expected = [both.read(3)]
        named.read(5)
        inside.read(7)
        put(named.pid, web)
        expected.append(named.read(11))
        inside.exec(own("chosen"))
        expected.append(inside.read(13))
        put(both.pid, grove.top)
        both.read(17)
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


def test_flak_is_left_out_of_its_own_cgroup(cast: Cast, grove: Grove) -> None:
    web = grove.make("web")
    actor = actor_in(cast, web)
    home = cgroups.named(cgroups.of_process(os.getpid()))
    assert home, "our own cgroup is not to be seen"
    put(os.getpid(), web)
    try:
        with flak.trace(cgroup=str(web)) as session:
            expected = actor.read(7)
            seen = cast.seen(session)
    finally:
        put(os.getpid(), home.path)
    assert seen.offsets == expected
    assert seen.stats.excluded_self > 0
    assert os.getpid() not in {event.pid for event in seen.events}


# --- from when it is there till it is gone


def test_a_trace_ends_when_its_cgroups_are_gone(cast: Cast, grove: Grove) -> None:
    web, pod = grove.make("web"), grove.make("pod")
    actor = actor_in(cast, web)
    with flak.trace(cgroup=[str(web), str(pod)]) as session:
        watching = Watching(session)
        try:
            expected = [actor.read(3)]
            grove.remove(web)
            actor.read(5)
            put(actor.pid, pod)
            expected.append(actor.read(7))
            assert watching.thread.is_alive(), "the other one is still there"
            grove.remove(pod)
            seen = watching.seen(cast)
        finally:
            watching.close()
    assert seen.offsets == joined(*expected)


def test_a_cgroup_that_is_made_later_is_waited_for(cast: Cast, grove: Grove) -> None:
    path = grove.top / "late"
    actor = cast()
    with flak.trace(cgroup=str(path), wait=True) as session:
        assert session.awaits
        watching = Watching(session)
        try:
            actor.read(3)
            late = grove.make("late")
            put(actor.pid, late)
            tried: list[int] = []
            wait_until(lambda: tried.extend(actor.read(1)) or watching.reads, "finding the cgroup")
            assert not session.awaits
            expected = [actor.read(5), actor_in(cast, grove.make("late/below")).read(7)]
            grove.remove(late)
            seen = watching.seen(cast)
        finally:
            watching.close()
    # From some read on, every one.
    whole = joined(tried, *expected)
    assert len(seen.offsets) > 5 + 7
    assert seen.offsets == whole[-len(seen.offsets) :]


def test_without_wait_a_cgroup_must_be_there(grove: Grove) -> None:
    with pytest.raises(TargetError, match="no cgroup"), flak.trace(cgroup=str(grove.top / "late")):
        pass


def test_a_cgroup_made_at_this_moment_is_there_or_not_yet(grove: Grove) -> None:
    path = grove.top / "late"
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.wait(0.0005):
            path.mkdir()
            is_over.wait(0.0005)
            path.rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    said: Counter[str] = Counter()
    try:
        for _ in range(997):
            try:
                cgroups.resolve(str(path))
                said["found"] += 1
            except TargetError as error:
                said[type(error).__name__] += 1
    finally:
        is_over.set()
        thread.join()
    assert set(said) == {"found", "NotThere"}
