"""Calls that hang: told while they are under way, at last as an access, or as an unfinished one when tracing stops.

What they hang on is let go in every case, for nothing else ends a program that a file system keeps waiting: by
`let_go_in_the_end`, at the latest after `PATIENCE_S`.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import Access, Counters, Event, Lost

from .conftest import skip_unseen
from .fuse import SIZE, CannotMount, Fuse, mounted, unmount
from .running import PAGE, Run, Running, Workloads, flak_environment, is_blocked_in, running, wait_until
from .test_selection import own

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

HUNG_S = 0.2
LATE_S = 0.5  # that a notice may come later on a busy machine
PATIENCE_S = 2.5
NUMBERS = {"x86_64": {"read": 0, "openat": 257}, "aarch64": {"read": 63, "openat": 56}}[os.uname().machine]
IMAGE_SIZE = 16 << 20
OFFSET = 2 * PAGE

# Thaws when its stdin ends, hence also when the tests are killed.
FREEZER = """
import fcntl, os, sys
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
folder = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(folder, FIFREEZE, 0)
try:
    print("frozen", flush=True)
    sys.stdin.read()
finally:
    fcntl.ioctl(folder, FITHAW, 0)
"""


# --- what calls hang on


class Fifo:
    """A FIFO that nobody has open until it is let go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._turn = threading.Lock()
        os.mkfifo(path)

    def let_go(self) -> None:
        """Opens the other end and writes 5 bytes: opens and reads return."""
        with self._turn:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
                os.write(self._fd, b"12345")

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


class Frozen:
    """An ext4 file system in an image, on a loop device, with the file `path`. Frozen, it lets nobody write."""

    def __init__(self, folder: Path) -> None:
        image, self.folder = folder / "image", folder / "frozen"
        self.path = self.folder / "data"
        self.folder.mkdir()
        with image.open("wb") as file:
            file.truncate(IMAGE_SIZE)
        self._freezer: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        for command in (
            ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(image)],
            ["mount", "-o", "loop", str(image), str(self.folder)],
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip(f"{command[0]} (e2fsprogs, util-linux) is not installed")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no file system to freeze here: {command[0]}: {error.stderr.strip()}")
        try:
            self.path.write_bytes(bytes(16 * PAGE))
            self._freeze()
        except BaseException:
            self.close()
            raise

    def _freeze(self) -> None:
        command = [sys.executable, "-c", FREEZER, str(self.folder)]
        self._freezer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._freezer.stdout
        assert self._freezer.stdout.readline() == b"frozen\n", "the file system could not be frozen"

    def let_go(self) -> None:
        """Thaws it."""
        with self._turn:
            if self._freezer and self._freezer.poll() is None:
                self._freezer.communicate(timeout=10)

    def close(self) -> None:
        self.let_go()
        unmount(self.folder)


FILES = ("a", "b", "c", "d", "e", "direct")


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    made = Fifo(tmp_path / "fifo")
    yield made
    made.close()


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Fuse]:
    folder = tmp_path / "fuse"
    folder.mkdir()
    try:
        with mounted(folder, FILES) as made:
            yield made
    except CannotMount as error:
        pytest.skip(str(error))


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Frozen]:
    made = Frozen(tmp_path)
    yield made
    made.close()


# --- a program that hangs


@dataclass
class Scene:
    """A program (`command`) whose one call hangs, and what is to be told of that call."""

    command: list[str]
    wait_blocked: Callable[[int], object]
    let_go: Callable[[], object]
    path: Path
    op: str
    offset: int | None = None
    claimed: str | None = None
    via: str = "syscall"
    is_named_when_attached: bool = True

    @property
    def marks(self) -> set[str]:
        return {"path_claimed"} if self.claimed else set()


@dataclass
class Scenes:
    """Makes the scenes by their names; the file systems they need are made when asked for."""

    request: pytest.FixtureRequest
    workloads: Workloads = field(init=False)

    def __post_init__(self) -> None:
        self.workloads = self.request.getfixturevalue("workloads")

    def __call__(self, name: str) -> Scene:
        kind, _, variant = name.partition(" ")
        return {"fifo": self.on_fifo, "fuse": self.on_fuse, "frozen": self.on_frozen}[kind](variant)

    def on_fifo(self, variant: str) -> Scene:
        fifo: Fifo = self.request.getfixturevalue("fifo")
        args = [fifo.path] if variant == "open" else [fifo.path, 0]
        op = "openat" if variant == "open" else "read"
        is_blocked = is_asleep if variant == "uring" else functools.partial(is_blocked_in, number=NUMBERS[op])
        return Scene(
            self.workloads.command("hang", variant, *args),
            lambda pid: wait_until(lambda: is_blocked(pid), f"the blocking {op}"),
            fifo.let_go,
            fifo.path,
            op,
            claimed=str(fifo.path) if variant == "open" else None,
            via="io_uring" if variant == "uring" else "syscall",
        )

    def on_fuse(self, variant: str) -> Scene:
        fuse: Fuse = self.request.getfixturevalue("fuse")
        name = "direct" if variant == "direct-read" else "b"
        path = fuse / name
        held, args, op, offset, claimed = {
            "read": ("read", ["read", path, OFFSET], "read", OFFSET, None),
            "direct-read": ("read", ["read", path, OFFSET], "read", OFFSET, None),
            "stat": ("lookup", ["stat", fuse.folder, name], "newfstatat", None, name),
            "statat": ("lookup", ["statat", fuse.folder, name], "newfstatat", None, name),
            "open": ("open", ["open", path], "openat", None, str(path)),
            "open-lookup": ("lookup", ["open", path], "openat", None, str(path)),
            "close": ("flush", ["close", path], "close", None, None),
            "load": ("read", ["load", path, OFFSET], "fault", OFFSET, None),
            "uring": ("read", ["uring", path, OFFSET], "read", OFFSET, None),
            "aio": ("read", ["aio", path, OFFSET], "pread", OFFSET, None),
        }[variant]
        fuse.hold(held, name)

        def wait_blocked(pid: int) -> None:
            fuse.wait_held(held, name)
            wait_until(lambda: is_asleep(pid), "falling asleep")

        return Scene(
            self.workloads.command("hang", *args),
            wait_blocked,
            fuse.let_go,
            path,
            op,
            offset=offset,
            claimed=claimed,
            via={"load": "fault", "uring": "io_uring", "aio": "aio"}.get(variant, "syscall"),
            is_named_when_attached=variant != "close",  # its descriptor is free already
        )

    def on_frozen(self, variant: str) -> Scene:
        frozen: Frozen = self.request.getfixturevalue("frozen")
        return Scene(
            self.workloads.command("hang", variant, frozen.path, OFFSET),
            lambda pid: wait_until(lambda: state_of(pid) == "D", "the wait for a thaw"),
            frozen.let_go,
            frozen.path,
            "fault" if variant == "store" else variant,
            offset=OFFSET,
            via="fault" if variant == "store" else "syscall",
        )


CALLS = [
    "fifo read", "fifo open", "fuse read", "fuse direct-read", "fuse stat", "fuse statat", "fuse open",
    "fuse open-lookup", "fuse close", "frozen write",
]  # fmt: skip
FAULTS = ["fuse load", "frozen store"]
REQUESTS = ["fifo uring", "fuse uring", "fuse aio"]


@pytest.fixture
def scenes(request: pytest.FixtureRequest) -> Scenes:
    return Scenes(request)


@pytest.fixture
def scene(request: pytest.FixtureRequest, scenes: Scenes) -> Scene:
    """The scene that the test's parameter names."""
    if request.param in FAULTS:
        request.getfixturevalue("sees_faults")
    made = scenes(request.param)
    if made.via == "io_uring" and is_without_io_uring():
        pytest.skip("io_uring is disabled here (kernel.io_uring_disabled)")
    missing = request.getfixturevalue("privileged")
    skip_unseen(made.via, missing)
    if made.claimed:
        skip_unseen("paths of blocked calls", missing)
    return made


def all_of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scene", names, indirect=True)


def is_without_io_uring() -> bool:
    with suppress(FileNotFoundError):
        return Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() == "2"
    return False


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_asleep(pid: int) -> bool:
    return state_of(pid) in "SD"


@contextmanager
def let_go_in_the_end(let_go: Callable[[], object], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Lets go on leaving, or when that time has gone by."""
    timer = threading.Timer(patience_s, let_go)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        let_go()


@contextmanager
def hanging(scene: Scene) -> Iterator[Running]:
    """Starts a scene's program and waits until it hangs; let it go and ends it in the end."""
    program = Running(scene.command)
    try:
        program.wait_ready()
        scene.wait_blocked(program.pid)
        yield program
    finally:
        scene.let_go()
        program.close()


# --- what is seen of it


def is_notice(event: Event) -> bool:
    return isinstance(event, Access) and "hung" in event.marks


def notices_of(events: Sequence[Event]) -> list[Any]:
    return [event for event in events if is_notice(event)]


def accesses_of(events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, Access) and not is_notice(event)]


def unfinished_of(events: Sequence[Event]) -> list[Any]:
    return [event for event in accesses_of(events) if "unfinished" in event.marks]


def follow(session: flak.session.Session, scene: Scene, until: Callable[[Any], bool] | None = None) -> list[Event]:
    """All events of a session; the call is let go at the first notice that `until` is true of, or when all is over.

    The counters are exact, and no notice is among them.
    """
    events: list[Event] = []
    with let_go_in_the_end(scene.let_go):
        for event in session:
            events.append(event)
            if until and is_notice(event) and until(event):
                scene.let_go()
    stats = session.stats
    assert stats.is_exact
    assert stats.lost_total == 0
    told = [e for e in events if not is_notice(e) and not isinstance(e, Counters | Lost)]
    assert len(told) == stats.written, "notices are not counted, all else is"
    return events


def follow_command(scene: Scene, folder: Path, until: Callable[[Any], bool] | None = None, **options: Any) -> Run:
    """Runs a scene's program under FLAK, and `follow`s it."""
    output = folder / "stdout"
    with (
        output.open("wb") as stdout,
        flak.trace(command=scene.command, stdout=stdout.fileno(), **options) as session,
    ):
        events = follow(session, scene, until)
    run = Run(events, session.stats, session.command_status, output.read_text())
    assert run.status == 0
    return run


def assert_is_of(event: Any, scene: Scene, step: dict[str, Any]) -> None:
    """An event of the call that hung, with all that is known while it is under way."""
    assert (event.op, event.via) == (scene.op, scene.via)
    assert event.path == str(scene.path)
    assert event.file_offset == scene.offset
    assert event.fd == step["fd"]
    assert event.pid == step["pid"]
    if scene.via != "io_uring":  # whom a request is ascribed to, a worker or who submitted it, is told elsewhere
        assert event.tid == step["tid"]
    if step["size"]:
        assert event.size_req == step["size"]


def assert_is_under_way(event: Any, scene: Scene, step: dict[str, Any]) -> None:
    """An event of the call while it had not returned."""
    assert_is_of(event, scene, step)
    assert (event.errno, event.size_ret, event.new_fd) == (None, None, None)
    assert event.claimed_path == scene.claimed
    assert {"unfinished", *scene.marks} <= set(event.marks)


# --- told while it is under way


@all_of(*CALLS, *FAULTS, *REQUESTS)
def test_what_hangs_is_told_while_it_does_and_counted_once_when_it_returns(scene: Scene, tmp_path: Path) -> None:
    run = follow_command(scene, tmp_path, lambda notice: True, hung=HUNG_S)
    (step,) = run.steps
    first, *others = notices_of(run.events)
    assert_is_under_way(first, scene, step)
    doubt = {"result_unknown"} if scene.via == "aio" else set()  # the program may have seen its end in memory
    assert set(first.marks) == {"unfinished", "hung", *scene.marks, *doubt}
    assert first.seq is None
    assert HUNG_S <= first.latency_ns / 1e9 <= 1.5 * HUNG_S + LATE_S
    assert all(other.latency_ns >= 2 * HUNG_S * 1e9 for other in others)
    (access,) = (e for e in accesses_of(run.events) if e.op == scene.op)
    assert_is_of(access, scene, step)
    assert not {"unfinished", "hung", "attached"} & set(access.marks)
    assert access.seq is not None
    assert access.latency_ns >= first.latency_ns
    assert abs(access.ts_ns - first.ts_ns) < 1_000_000, "both tell when it began"
    assert run.events.index(first) < run.events.index(access)


def test_it_is_told_again_each_time_its_age_has_doubled(scenes: Scenes, tmp_path: Path) -> None:
    hung_s = 0.1
    run = follow_command(scenes("fifo read"), tmp_path, lambda n: n.latency_ns >= 0.8e9, hung=hung_s)
    ages = [notice.latency_ns / 1e9 for notice in notices_of(run.events)]
    assert 2 <= len(ages) <= 4  # a busy machine may leave one out
    assert all(age >= hung_s * 2**number for number, age in enumerate(ages))
    assert ages[0] <= 1.5 * hung_s + LATE_S
    assert all(later <= 2 * age + hung_s / 2 + LATE_S for age, later in itertools.pairwise(ages))
    assert len({notice.ts_ns for notice in notices_of(run.events)}) == 1
    assert len(accesses_of(run.events)) == 1


@all_of("fifo read", "fuse load")
def test_what_takes_less_is_not_shown(scene: Scene, tmp_path: Path) -> None:
    with (
        (tmp_path / "stdout").open("wb") as stdout,
        flak.trace(command=scene.command, stdout=stdout.fileno(), hung=5) as session,
    ):
        soon = threading.Timer(HUNG_S, scene.let_go)
        soon.start()
        events = follow(session, scene)
        soon.join()
    assert [e for e in events if isinstance(e, Access)] == []
    assert session.stats.filtered["min_latency"] > 0


def test_each_thread_that_hangs_is_told_with_its_own_file(fuse: Fuse, workloads: Workloads, tmp_path: Path) -> None:
    scene = threads_scene(fuse, workloads)
    seen: set[int] = set()

    def all_seen(notice: Any) -> bool:
        seen.add(notice.tid)
        return len(seen) == 5

    run = follow_command(scene, tmp_path, all_seen, hung=HUNG_S)
    expected = [(str(fuse / name), PAGE * number) for number, name in enumerate("abcde", 1)]
    truth = {(s["tid"], path, at) for s, (path, at) in zip(run.steps, expected, strict=True)}
    assert {(n.tid, n.path, n.file_offset) for n in notices_of(run.events)} == truth
    assert sorted((e.tid, e.path, e.file_offset) for e in accesses_of(run.events)) == sorted(truth)


def threads_scene(fuse: Fuse, workloads: Workloads) -> Scene:
    """Five threads that hang, each on a file of its own."""
    for name in "abcde":
        fuse.hold("read", name)

    def wait_blocked(pid: int) -> None:
        for name in "abcde":
            fuse.wait_held("read", name)
        threads = [task.name for task in Path(f"/proc/{pid}/task").iterdir()]
        wait_until(lambda: all(is_asleep(int(tid)) for tid in threads), "falling asleep")

    command = workloads.command("hang", "threads", *(fuse / name for name in "abcde"))
    return Scene(command, wait_blocked, fuse.let_go, fuse / "a", "pread64")


def test_only_what_hangs_on_wanted_files_is_told(fuse: Fuse, workloads: Workloads, tmp_path: Path) -> None:
    scene, wanted = threads_scene(fuse, workloads), str(fuse / "c")

    def is_again(notice: Any) -> bool:  # by then the others would have been told, too
        return bool(notice.path == wanted and notice.latency_ns >= 2e9 * HUNG_S)

    run = follow_command(scene, tmp_path, is_again, hung=HUNG_S, path=[wanted])
    assert len(run.steps) == 5
    assert {n.path for n in notices_of(run.events)} == {wanted}
    assert [(e.path, e.file_offset) for e in accesses_of(run.events)] == [(wanted, 3 * PAGE)]


# --- hung before tracing began


@all_of(*CALLS)
def test_a_call_that_hung_already_is_told_and_is_an_access_when_it_returns(scene: Scene) -> None:
    began = time.monotonic()
    with hanging(scene) as program:
        with flak.trace(pid=program.pid, hung=HUNG_S) as session:
            events = follow(session, scene, lambda notice: True)
        (step,) = program.finish()
    first, *_ = notices_of(events)
    if not scene.is_named_when_attached:
        assert (first.op, first.fd, first.pid) == (scene.op, step["fd"], program.pid)
    else:
        assert_is_under_way(first, scene, step)
    assert {"attached", "no_enter", "unfinished", "hung"} <= set(first.marks)
    assert first.seq is None
    assert HUNG_S <= first.latency_ns / 1e9 < time.monotonic() - began
    (access,) = (e for e in accesses_of(events) if e.op == scene.op and "no_enter" in e.marks)
    assert not {"unfinished", "hung"} & set(access.marks)
    assert access.errno is None
    if scene.op in ("read", "write"):
        assert (access.path, access.size_ret) == (str(scene.path), step["result"])


@all_of(*CALLS)
def test_a_call_that_hung_before_tracing_and_after_is_an_unfinished_record(scene: Scene) -> None:
    began = time.monotonic()
    with hanging(scene) as program:
        with flak.trace(pid=program.pid, all_files=True, duration=HUNG_S) as session:
            events = follow(session, scene)
        (step,) = program.finish()
    assert notices_of(events) == []
    (waiting,) = unfinished_of(events)
    if scene.is_named_when_attached:
        assert_is_under_way(waiting, scene, step)
    assert {"attached", "no_enter", "unfinished"} <= set(waiting.marks)
    assert waiting.seq is not None
    assert HUNG_S * 0.9 <= waiting.latency_ns / 1e9 < time.monotonic() - began


def test_threads_that_hung_already_are_told_each_with_its_own_file(fuse: Fuse, workloads: Workloads) -> None:
    scene = threads_scene(fuse, workloads)
    seen: set[int] = set()

    def all_seen(notice: Any) -> bool:
        seen.add(notice.tid)
        return len(seen) == 5

    with hanging(scene) as program:
        with flak.trace(pid=program.pid, hung=HUNG_S) as session:
            events = follow(session, scene, all_seen)
        steps = program.finish()
    truth = {(s["tid"], s["fd"], s["offset"]) for s in steps}
    assert {(n.tid, n.fd, n.file_offset) for n in notices_of(events)} == truth
    paths = {str(fuse / name): PAGE * number for number, name in enumerate("abcde", 1)}
    assert {n.path: n.file_offset for n in notices_of(events)} == paths


def test_a_process_of_a_traced_name_that_hung_already_is_told(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes("fuse read")
    scene.command[0] = shutil.copy(scene.command[0], tmp_path / own("hang"))

    def stop(notice: Any) -> bool:
        session.stop()
        return False

    with hanging(scene) as program, flak.trace(comm=own("hang"), hung=HUNG_S, duration=PATIENCE_S) as session:
        events = follow(session, scene, stop)
    assert (program.pid, str(scene.path), OFFSET) in {(n.pid, n.path, n.file_offset) for n in notices_of(events)}


# --- still hanging when tracing stops


@all_of(*CALLS, *FAULTS, *REQUESTS)
def test_what_never_returns_is_an_unfinished_record(scene: Scene, tmp_path: Path) -> None:
    run = follow_command(scene, tmp_path, all_files=True, duration=2 * HUNG_S)
    (step,) = run.steps
    (waiting,) = unfinished_of(run.events)
    assert_is_under_way(waiting, scene, step)
    assert not {"attached", "no_enter", "hung"} & set(waiting.marks)
    assert waiting.seq is not None
    assert 0 < waiting.latency_ns / 1e9 <= 2 * HUNG_S + LATE_S


@all_of("fifo read", "fuse load", "fuse stat")
def test_what_was_told_and_never_returns_is_one_unfinished_record(scene: Scene, tmp_path: Path) -> None:
    run = follow_command(scene, tmp_path, hung=HUNG_S, duration=3 * HUNG_S)
    notices = notices_of(run.events)
    (waiting,) = accesses_of(run.events)
    assert notices
    assert_is_under_way(waiting, scene, run.steps[0])
    assert waiting.latency_ns > notices[-1].latency_ns
    assert run.stats.written == 1


# --- what does not hang


def test_who_sleeps_or_computes_under_a_trace_is_not_told(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    command = workloads.command("hang", "idle", indexed)
    with flak.trace(command=command, stdout=writer, hung=HUNG_S / 2, duration=4 * HUNG_S) as session:
        pid = int(os.read(reader, 64).split()[1])
        try:
            events = list(session)
        finally:
            os.kill(pid, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    assert [e for e in events if isinstance(e, Access)] == []
    assert session.stats.is_exact


@pytest.mark.parametrize("is_stopped", [False, True], ids=["going", "stopped"])
def test_who_slept_or_computed_already_is_not_told(workloads: Workloads, indexed: Path, is_stopped: bool) -> None:
    with running(workloads.command("hang", "idle", indexed)) as program:
        time.sleep(0.05)  # until all sleep
        if is_stopped:
            program.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: state_of(program.pid) == "T", "the stop")
        with flak.trace(pid=program.pid, hung=HUNG_S / 2, duration=4 * HUNG_S) as session:
            events = list(session)
    assert [e for e in events if isinstance(e, Access) and "unfinished" in e.marks] == []
    assert session.stats.is_exact


def test_a_program_stopped_amid_a_read_is_told_when_it_goes_on_and_hangs_again(scenes: Scenes) -> None:
    # What a stopped task would show as its call is one that has been broken off, to be started anew.
    scene = scenes("fifo read")
    with hanging(scene) as program:
        program.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(program.pid) == "T", "the stop")
        with flak.trace(pid=program.pid, hung=HUNG_S / 2) as session:
            at_least = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(2 * HUNG_S * 1e9)
            goes_on = threading.Timer(2 * HUNG_S, program.process.send_signal, [signal.SIGCONT])
            goes_on.start()
            events = follow(session, scene, lambda notice: True)
            goes_on.join()
        program.finish()
    notices = notices_of(events)
    assert notices
    assert all(n.ts_ns >= at_least for n in notices), "none while it was stopped"
    assert {(n.op, n.path) for n in notices} == {("read", str(scene.path))}


# --- the command line


def flak_command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    environment = flak_environment()
    environment.pop("COLUMNS", None)
    return [sys.executable, "-m", "flak", *map(str, arguments)], environment


@contextmanager
def flak_process(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Runs flak, and ends it if it is still there in the end."""
    command, environment = flak_command(*arguments)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Output:
    """What a process prints, as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout and process.stderr
        self.process, self.fd = process, process.stdout.fileno()
        self.data = b""

    @property
    def lines(self) -> list[str]:
        return self.data.decode().splitlines()

    def wait_for(self, words: str) -> str:
        """The first whole line with these words."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = [line for line in self.data.decode().split("\n")[:-1] if words in line]
            if found:
                return found[0]
            room = max(deadline - time.monotonic(), 0)
            assert select.select([self.fd], [], [], room)[0], f"no line with {words!r} in {self.lines}"
            more = os.read(self.fd, 1 << 16)
            assert more, f"it ended: {self.process.communicate()[1].decode()}"
            self.data += more

    def wait_for_talk(self, word: str) -> None:
        """Waits until stderr has a word; FLAK may be slow to start on a busy machine."""
        assert self.process.stderr
        said = b""
        while word.encode() not in said:
            assert select.select([self.process.stderr], [], [], 4 * PATIENCE_S)[0], f"it does not say {word!r}"
            more = os.read(self.process.stderr.fileno(), 1 << 16)
            assert more, f"it ended: {said.decode()}"
            said += more

    def stop(self) -> str:
        """Stops the process by SIGINT, within 3 s; what it says on stderr."""
        self.process.send_signal(signal.SIGINT)
        rest, talk = self.process.communicate(timeout=3)
        self.data += rest
        return talk.decode()


def test_a_line_says_how_long_it_has_been_hanging_and_where(scenes: Scenes) -> None:
    scene = scenes("fuse read")
    with hanging(scene) as program, flak_process("trace", "--hung", "200ms", "-p", program.pid) as process:
        output = Output(process)
        line = output.wait_for("hung")
        talk = output.stop()
    match = re.fullmatch(rf" *-?[\d.]+ hang +{program.pid} read +8\.0K +4\.0K +>(\d+)ms (\S+)  (.*)", line)
    assert match, line
    assert 200 <= int(match[1]) <= 1000 * (1.5 * HUNG_S + LATE_S)
    assert match[2] == str(scene.path)
    assert "hung" in match[3]
    assert process.returncode == 0, talk
    assert [line for line in output.lines if re.match(r"1 event, .* 0 lost$", line)], "notices are in no table"


def test_json_has_the_mark_and_no_number(scenes: Scenes) -> None:
    scene = scenes("fifo open")
    with hanging(scene) as program, flak_process("trace", "--json", "--hung", "0.2", "-p", program.pid) as process:
        output = Output(process)
        output.wait_for('"hung"')
        output.stop()
    objects = [json.loads(line) for line in output.lines]
    notices = [o for o in objects if "hung" in o.get("marks", ())]
    for notice in notices:
        assert (notice["op"], notice["path"], notice["pid"]) == ("openat", str(scene.path), program.pid)
        assert {"unfinished", "attached", "no_enter", "path_claimed"} <= set(notice["marks"])
        assert notice["seq"] is None
        assert notice["latency_ns"] >= 200_000_000
    assert objects[-1]["op"] == "counters"
    assert objects[-1]["written"] == len(objects) - len(notices) - 1 == 1


def test_no_notice_is_in_a_recording(scenes: Scenes, tmp_path: Path) -> None:
    scene, path = scenes("fuse read"), tmp_path / "run.flak"
    command, environment = flak_command("trace", "--hung", "100ms", "-d", "0.5", "-o", path, "-q")
    with hanging(scene) as program:
        subprocess.run([*command, "-p", str(program.pid)], env=environment, check=True, capture_output=True)
    with flak.open(path) as recording:
        accesses = [event for event in recording if isinstance(event, Access)]
    assert [(e.op, e.path, e.file_offset, "hung" in e.marks) for e in accesses] == [
        ("read", str(scene.path), OFFSET, False)
    ]
    assert "unfinished" in accesses[0].marks
    assert recording.stats.is_exact


@pytest.mark.parametrize("arguments", [["--no-latency", "-a"], ["--no-latency", "--", "true"]])
def test_without_durations_nothing_can_hang(arguments: list[str]) -> None:
    command, environment = flak_command("trace", "--hung", "1s", *arguments)
    tried = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)
    assert tried.returncode == 2
    assert tried.stdout == ""
    (line,) = (line for line in tried.stderr.splitlines() if not line.startswith("flak: hint: "))
    assert line.startswith("flak: ")
    assert "--hung" in line


@pytest.mark.parametrize("verb", [["trace"], ["trace", "--hung", "100ms"]], ids=" ".join)
@all_of("frozen write", "frozen store", "fuse read", "fuse load", "fuse stat", "fuse direct-read")
def test_flak_stops_while_its_target_hangs(scene: Scene, verb: list[str], tmp_path: Path) -> None:
    with hanging(scene) as program, flak_process(*verb, "-p", program.pid) as process:
        output = Output(process)
        output.wait_for_talk("tracing")
        time.sleep(0.3)  # until it has met the call
        talk = output.stop()
        assert process.returncode == 0, talk
        assert "Traceback" not in talk
        assert is_asleep(program.pid)


@pytest.mark.parametrize("options", [[], ["--hung", "200ms"]], ids=" ".join)
def test_a_path_in_a_page_that_does_not_come_holds_nobody_up(
    fuse: Fuse, workloads: Workloads, options: list[str]
) -> None:
    fuse.hold("read", "a")
    program = Running(workloads.command("hang", "path", fuse / "a"))
    try:
        program.wait_ready()
        fuse.wait_held("read", "a")
        with (
            flak_process("trace", *options, "-p", program.pid) as process,
            let_go_in_the_end(fuse.let_go, 6 * PATIENCE_S),
        ):
            output = Output(process)
            output.wait_for_talk("tracing")
            time.sleep(0.8)  # until it has met the call
            began = time.monotonic()
            talk = output.stop()
            stopped_s = time.monotonic() - began
            assert fuse.held() == [("read", "a")], "the call still hangs"
        (step,) = program.finish()
    finally:
        fuse.let_go()
        program.close()
    assert process.returncode == 0, talk
    assert stopped_s < 2
    assert step["size"] > 10
    assert step["result"] / 1e9 < 0.5, "the longest time in which the other thread could not map memory"


# --- what the tests stand on


def test_files_that_are_not_held_can_be_read_and_mapped(fuse: Fuse, workloads: Workloads) -> None:
    fuse.hold("read", "a")
    assert (fuse / "b").read_bytes()[OFFSET : OFFSET + 4] == (OFFSET // 4).to_bytes(4, "little")
    assert (fuse / "direct").stat().st_size == SIZE
    with pytest.raises(FileNotFoundError):
        (fuse / "nowhere").stat()
    done = subprocess.run(workloads.command("hang", "load", fuse / "c", OFFSET), check=True, capture_output=True)
    assert json.loads(done.stdout.splitlines()[1])["op"] == "fault"


@all_of(*CALLS, *FAULTS, *REQUESTS)
def test_the_scene_hangs_until_it_is_let_go(scene: Scene) -> None:
    with hanging(scene) as program:
        time.sleep(0.02)
        assert program.process.poll() is None
        scene.let_go()
        (step,) = program.finish()
    assert step["op"] == scene.op
    assert step["result"] >= 0


def test_who_hangs_and_was_killed_ends_with_the_server(scenes: Scenes, fuse: Fuse) -> None:
    scene = scenes("fuse direct-read")
    program = Running(scene.command)
    try:
        scene.wait_blocked(program.pid)
        program.process.kill()
        wait_until(lambda: state_of(program.pid) == "D", "the wait that no signal ends")
    finally:
        fuse.close()
        program.close()
    assert program.process.returncode == -signal.SIGKILL
    assert str(fuse.folder) not in Path("/proc/mounts").read_text()
