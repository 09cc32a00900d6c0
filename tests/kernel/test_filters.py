"""Which accesses are wanted: by path, failure, duration, size. What is left out is counted, and is no loss."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import Access, Exec, Exit, Fault, Fork, Lost, Open, Read, Write

from .conftest import Traced
from .running import PAGE, Run, Workloads, count_by, flak_environment, trace_command, wait_until, write_pages
from .test_selection import Cast, Watching, assert_exact

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]


@pytest.fixture
def cast(workloads: Workloads, tmp_path: Path) -> Iterator[Cast]:
    """Starts actors; ends them in the end."""
    cast = Cast(workloads("actor"), tmp_path)
    yield cast
    cast.close()


TREE = {
    "data/a.db": 3,
    "data/b.txt": 5,
    "data/sub/c.db": 7,
    "data/sub/[d] e*.db": 11,
    "data.old/a.db": 13,
    "database.db": 17,
    "other/db": 19,
    "other/n\u00e4her\x1b.db": 23,
    "other/link.db": 29,  # data/b.txt's other name
}
"""Reads of each file in the workload's tree."""

MANY, EVERY = 1511, 97
WANTED = [number for number in range(MANY) if number % EVERY == 0]


def below(run: Run, folder: Path, *classes: type) -> list[Any]:
    """Accesses to files in a folder."""
    return [e for e in run.of(*classes or (Access,)) if e.path and e.path.startswith(f"{folder}/")]


def reads_by_name(run: Run, folder: Path) -> dict[str, int]:
    """Reads of each file, by its name as it is."""
    names = [os.fsdecode(e.file.raw_path) for e in below(run, folder, Read)]
    return dict(Counter(name.removeprefix(f"{folder}/") for name in names))


def assert_nothing_missing(run: Run) -> None:
    assert_exact(run.stats)
    assert run.of(Lost) == []
    assert run.stats.written == len(run.events)


@pytest.fixture(scope="module")
def whole_tree(privileged: dict[str, str], workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every read of the tree."""
    folder = tmp_path_factory.mktemp("tree")
    run = trace_command(workloads.command("files", "tree", folder), tmp_path_factory.mktemp("out"), events=["read"])
    assert reads_by_name(run, folder) == TREE
    return run


# --- by path


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["{}/data/a.db"], ["data/a.db"]),
        (["{}/data"], ["data/a.db", "data/b.txt", "data/sub/c.db", "data/sub/[d] e*.db"]),
        (["{}/data/"], ["data/a.db", "data/b.txt", "data/sub/c.db", "data/sub/[d] e*.db"]),
        (["{}/data/*.db"], ["data/a.db", "data/sub/c.db", "data/sub/[d] e*.db"]),
        (["*.txt", "database.??"], ["data/b.txt", "database.db"]),
        (["db"], ["other/db"]),
        (["{}/*", "!*.db"], ["data/b.txt", "other/db"]),
        (["!{}/data", "!*/data.old/*"], ["database.db", "other/db", "other/n\u00e4her\x1b.db", "other/link.db"]),
        (["{}/data/sub/[[]d] e[*].db"], ["data/sub/[d] e*.db"]),
        (["{}/other/n?her\x1b.db"], ["other/n\u00e4her\x1b.db"]),
        (["{}/other/link.db"], ["other/link.db"]),
        (["{}/data/b.txt"], ["data/b.txt"]),
        (["{}/absent"], []),
    ],
)
def test_only_reads_of_wanted_paths_are_seen(
    traced: Traced, whole_tree: Run, folder: Path, patterns: list[str], wanted: list[str]
) -> None:
    run = traced("files", "tree", folder, events=["read"], path=[p.format(folder) for p in patterns])
    assert reads_by_name(run, folder) == {name: TREE[name] for name in wanted}
    assert_nothing_missing(run)
    # The program does the same each time: what is not seen is counted as what it is.
    assert run.stats.matched == whole_tree.stats.matched
    assert run.stats.filtered["path"] == whole_tree.stats.written - run.stats.written


@pytest.mark.parametrize(
    ("variant", "name", "calls"),
    [("rename", "old", 3), ("rename", "new", 5), ("rename-parent", "d", 3), ("rename-parent", "e", 5)],
)
def test_the_name_at_the_time_of_the_access_counts(
    traced: Traced, folder: Path, variant: str, name: str, calls: int
) -> None:
    run = traced("names", variant, folder, events=["read"], path=folder / name)
    assert len(run.of(Read)) == len(below(run, folder)) == calls
    assert_nothing_missing(run)


def test_of_hard_links_the_name_that_was_opened_counts(traced: Traced, folder: Path) -> None:
    run = traced("names", "link", folder, events=["read"], path=[folder / "b"])
    assert [e.path for e in run.of(Read)] == 5 * [str(folder / "b")]
    assert_nothing_missing(run)


def test_a_failed_open_is_wanted_by_the_path_that_was_claimed(traced: Traced, folder: Path) -> None:
    run = traced("names", "fail", folder, events=["open"], path=[str(folder / "absent"), "below"])
    steps = [run.steps[number] for number in (0, 1, 2, 9)]
    assert [(e.op, e.claimed_path, e.errno) for e in run.of(Open)] == [
        (step["op"], step["path"], errno.errorcode[-step["result"]]) for step in steps
    ]
    assert [step["path"] for step in steps] == [f"{folder}/absent", "absent", "f/below", f"{folder}/absent/f"]
    assert_nothing_missing(run)


def test_a_failed_open_of_an_unwanted_path_is_left_out(traced: Traced, folder: Path) -> None:
    run = traced("names", "fail", folder, events=["open"], path=[f"!{folder}", "!/etc"])
    # One has no folder to start from: it was given a descriptor that is closed.
    assert [(e.claimed_path, e.errno) for e in run.of(Open) if e.errno] == [("f", "EBADF")]
    assert_nothing_missing(run)


# --- by failure, duration, size


def test_only_calls_that_failed_are_seen(traced: Traced, indexed: Path) -> None:
    run = traced("rw", "fail", indexed, failed=True)
    assert [(e.op, e.errno) for e in run.of(Read, Write)] == [
        (s["op"], errno.errorcode[-s["result"]]) for s in run.steps
    ]
    assert len(run.of(Read, Write)) == 7
    assert all(e.errno for e in run.of(Access))
    assert_nothing_missing(run)
    assert run.stats.filtered["failed"] > 0
    assert run.of(Fork, Exec, Exit) == [], "a process event is no call that failed"


def test_an_interrupted_call_has_not_failed(traced: Traced, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    run = traced("blocked", "interrupted", fifo, all_files=True, failed=True)
    assert_nothing_missing(run)
    assert all(e.errno for e in run.of(Access))


def test_only_what_took_long_is_seen(traced: Traced, folder: Path) -> None:
    run = traced("files", "waits", folder, all_files=True, events=["read"], min_latency_ns=20_000_000)
    waited = run.on(folder / "fifo", Read)
    assert [e.size_ret for e in waited] == 3 * [5]
    assert all(e.latency_ns >= 50_000_000 for e in waited)
    # A machine that is busy may have made others wait, too.
    assert all(e.latency_ns >= 20_000_000 for e in run.of(Access))
    assert len(run.steps) == 100
    assert_nothing_missing(run)
    assert run.stats.filtered["min_latency"] >= 100 - len(run.of(Access))


def test_a_call_that_hangs_has_taken_long(cast: Cast, tmp_path: Path) -> None:
    fifo = tmp_path / "hangs"
    os.mkfifo(fifo)
    actor = cast()
    with flak.trace(pid=actor.pid, all_files=True, events=["read"], min_latency_ns=20_000_000) as session:
        actor.read(97)
        actor.begin(f"take {fifo}")
        wait_until(lambda: is_waiting(actor.pid), "the blocking read")
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + 0.03, "the time that the filter asks for")
        seen = cast.seen(session)
        fifo.write_bytes(b"12345")
        actor.answer()
    (hangs,) = (e for e in seen.of(Read) if e.path == str(fifo))
    assert hangs.marks == ("unfinished",)
    assert hangs.latency_ns >= 30_000_000
    assert all(e.latency_ns is None or e.latency_ns >= 20_000_000 for e in seen.of(Access))
    assert seen.stats.filtered["min_latency"] >= 97 - len(seen.reads)


def is_waiting(pid: int) -> bool:
    """Does a process wait in a call on a descriptor that is not the one its commands come from?"""
    number, *arguments = Path(f"/proc/{pid}/syscall").read_text().split()
    return number.isdecimal() and int(arguments[0], 16) != 0


SIZES = Counter(
    {
        ("pwrite64", 101): 5, ("pwrite64", 4099): 7, ("pwrite64", 8192): 11,
        ("pread64", 101): 13, ("pread64", 4099): 17, ("pread64", 8192): 19,
        ("pread64", 0): 3,
    }
)  # fmt: skip
"""What the workload moved, by call and bytes; besides, it failed to read 8192 bytes twice and 101 bytes once."""


@pytest.mark.parametrize("least", [1, 101, 102, 4099, 8192, 8193])
def test_only_what_moved_enough_is_seen(traced: Traced, folder: Path, least: int) -> None:
    run = traced("files", "sizes", folder, events=["read", "write"], min_size=least)
    transfers = run.on(folder / "f", Read, Write)
    assert Counter((e.op, e.size_ret) for e in transfers if not e.errno) == {
        what: calls for what, calls in SIZES.items() if what[1] >= least
    }
    failed = [e.size_req for e in transfers if e.errno]
    assert failed == [size for size in (8192, 8192, 101) if size >= least]
    assert_nothing_missing(run)
    assert run.stats.filtered.get("min_size", 0) >= SIZES.total() + 3 - len(transfers)


@pytest.mark.usefixtures("sees_faults")
@pytest.mark.parametrize(("pattern", "seen"), [("*/mapped", 257), ("!*/mapped", 0)])
def test_faults_are_chosen_by_the_path_of_their_file(traced: Traced, tmp_path: Path, pattern: str, seen: int) -> None:
    mapped = write_pages(tmp_path / "mapped", 260)
    run = traced("maps", "private", mapped, 257, events=["fault"], path=pattern)
    assert len(run.on(mapped, Fault)) == seen
    assert len(run.of(Access)) == seen or not seen
    assert_nothing_missing(run)


@pytest.mark.usefixtures("sees_faults")
@pytest.mark.parametrize(("least", "seen"), [(PAGE, 257), (PAGE + 1, 0)])
def test_a_fault_is_as_large_as_the_memory_it_mapped(traced: Traced, tmp_path: Path, least: int, seen: int) -> None:
    mapped = write_pages(tmp_path / "mapped", 260)
    run = traced("maps", "private", mapped, 257, events=["fault"], min_size=least)
    assert len(run.on(mapped, Fault)) == seen  # stores to a private map: a page each
    assert all((e.page_count or 1) * PAGE >= least for e in run.of(Fault))
    assert_nothing_missing(run)


def test_all_filters_must_hold_and_the_first_that_does_not_is_counted(traced: Traced, folder: Path) -> None:
    run = traced("files", "sizes", folder, events=["read"], path=str(folder), failed=True, min_size=8192)
    assert [(e.size_req, e.errno) for e in run.of(Access)] == 2 * [(8192, "EFAULT")]
    assert_nothing_missing(run)
    filtered = run.stats.filtered
    assert filtered["min_size"] == 1
    # The loader's reads failed by their paths or, as long as those were undecided, by having succeeded.
    assert filtered["failed"] + filtered.get("path", 0) >= 13 + 17 + 19 + 3
    assert sum(filtered.values()) == run.stats.matched - 2


# --- many files, so that programs are ahead of the verdicts


def assert_only_wanted(run: Run, folder: Path, calls: int) -> None:
    """Everything that was done to the wanted files, and nothing else."""
    expected = [
        (f"{folder}/wanted-{n}", op) for n in WANTED for op in ("openat", "write", *calls * ["pread64"], "close")
    ]
    assert [(e.path, e.op) for e in run.of(Access)] == expected


@pytest.mark.parametrize("variant", ["many", "many-slow"])
def test_of_many_files_only_the_wanted_ones_are_seen(traced: Traced, folder: Path, variant: str) -> None:
    run = traced("files", variant, folder, MANY, 3, path="wanted-*", events=["open", "read", "write", "close"])
    assert_only_wanted(run, folder, 3)
    assert_nothing_missing(run)
    assert run.stats.filtered["path"] >= 6 * (MANY - len(WANTED))


@pytest.mark.parametrize("variant", ["many", "many-slow"])
def test_a_recording_holds_only_the_wanted_ones(workloads: Workloads, folder: Path, variant: str) -> None:
    program = workloads.command("files", variant, folder, MANY, 3)
    run = record(folder, "--path", "wanted-*", "--events", "open,read,write,close", command=program)
    assert_only_wanted(run, folder, 3)
    assert_exact(run.stats)
    assert run.of(Lost) == []
    assert run.stats.filtered["path"] >= 6 * (MANY - len(WANTED))
    assert run.stats.written == len(run.events)


def test_a_file_known_to_be_unwanted_takes_no_room_in_the_ring(cast: Cast) -> None:
    actor = cast()
    with flak.trace(pid=actor.pid, path=f"!{cast.file}", events=["read"], buffer_size=64 << 10) as session:
        watching = Watching(session)
        try:
            actor.read(1)
            wait_until(lambda: session.stats.filtered.get("path"), "the verdict")
            actor.do("read 0 100003")  # a hundred times what the ring holds, within a tenth of a second
        finally:
            watching.close()
        seen = watching.seen(cast)
    assert seen.reads == []
    assert_exact(seen.stats)
    assert seen.stats.filtered["path"] == 100_004


def test_a_limit_on_events_is_no_loss_when_paths_are_chosen_too(cast: Cast) -> None:
    actor = cast()
    chosen = {"path": str(cast.file), "events": ["read", "open"], "max_events": 5}
    with flak.trace(pid=actor.pid, **chosen) as session:
        actor.read(7)
        events = []
        for event in session:
            if not events:
                actor.spawn("other", 3)  # begins with libraries, of which no program knows yet that nobody wants them
            events.append(event)
    assert len([e for e in events if isinstance(e, Access)]) == 5
    assert_exact(session.stats)
    assert [e for e in events if isinstance(e, Lost)] == []


def record(folder: Path, *options: str, command: list[str]) -> Run:
    """What a recording made by the command line says."""
    recording = folder.parent / "run.flak"
    environment = flak_environment()
    done = subprocess.run(
        [sys.executable, "-m", "flak", "record", "--quiet", "-o", recording, *options, "--", *command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with flak.open(recording) as source:
        *events, stats = source
        assert source.warnings == []
    return Run(events, stats, 0, done.stdout)


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        (["--min-size", "4099"], {"min_size"}),
        (["--failed"], {"failed"}),
        (["--failed", "--min-size", "8K", "--path", "f"], {"failed", "min_size"}),
    ],
)
def test_a_recording_is_filtered_like_a_live_trace(
    workloads: Workloads, folder: Path, options: list[str], filters: set[str]
) -> None:
    run = record(folder, *options, "--events", "read,write", command=workloads.command("files", "sizes", folder))
    moved = Counter((e.op, e.size_ret or e.errno) for e in run.on(folder / "f"))
    large = {what: calls for what, calls in SIZES.items() if what[1] >= 4099}
    if filters == {"min_size"}:
        assert moved == {**large, ("pread64", "EFAULT"): 2}
    else:
        assert moved == {("pread64", "EFAULT"): 3 if filters == {"failed"} else 2}
    assert_exact(run.stats)
    assert run.of(Lost) == []
    assert filters <= run.stats.filtered.keys()
    assert run.stats.written == len(run.events)


# --- with --events


OPS = {
    "read": {"read", "pread64"},
    "write": {"write"},
    "open": {"openat"},
    "close": {"close"},
    "process": {"exec", "exit"},
}
"""What the tree's workload makes of each group."""


@pytest.mark.parametrize(
    "events", [["read"], ["open", "close"], ["write", "process"], ["open", "read", "write"], ["process"]]
)
def test_events_and_paths_are_chosen_together(traced: Traced, folder: Path, events: list[str]) -> None:
    run = traced("files", "tree", folder, events=events, path=str(folder / "data"))
    wanted = set().union(*(OPS[name] for name in events)) - {"read"}  # the loader's, of other files
    assert set(count_by(run.events, "op")) == wanted
    assert {e.path.split("/")[-2] for e in run.of(Access)} <= {"data", "sub"}
    per_file = len(events) - ("process" in events) - ("read" in events)
    reads = 3 + 5 + 7 + 11 if "read" in events else 0
    assert len(run.of(Access)) == 4 * per_file + reads
    assert_nothing_missing(run)
    assert ("events" in run.stats.filtered) == ("process" not in events)
