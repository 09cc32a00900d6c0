"""What the bpftrace wrapper that FLAK replaces gets wrong, one test for each fault, named after it.

Other tests look closer at most of this; here the list stands as a whole.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flak
from flak import bpf as flak_bpf
from flak import probes
from flak._records import Op
from flak.events import Close, Dup, Exec, Exit, Fault, Lost, Mmap, Mremap, Munmap, Open, Read, Seek, Write

from . import test_cgroups
from .conftest import Traced
from .running import PAGE, Workloads, flak_environment, running, trace_command, write_pages
from .test_cgroups import Grove, actor_in
from .test_selection import Cast, assert_exact, joined, own

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

ROOT = Path(__file__).parents[2]
grove = test_cgroups.grove


@pytest.fixture
def cast(workloads: Workloads, tmp_path: Path) -> Iterator[Cast]:
    """Starts actors; ends them in the end."""
    cast = Cast(workloads("actor"), tmp_path)
    yield cast
    cast.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 64 pages."""
    return write_pages(tmp_path / "file", 64)


def flak_cli(*words: object) -> subprocess.CompletedProcess[str]:
    environment = flak_environment()
    command = [sys.executable, "-m", "flak", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20)


def test_fault_1_no_offset_anywhere(traced: Traced, file: Path) -> None:
    run = traced("original", "offsets", file)
    seen = run.on(file, Read, Write, Mmap, Seek)
    assert [(e.op, e.file_offset) for e in seen] == [(s["op"], s["offset"]) for s in run.steps]
    assert Counter(e.op for e in seen) == {
        "pread64": 3, "pwrite64": 5, "preadv": 7, "pwritev": 11, "preadv2": 3, "pwritev2": 5, "mmap": 7, "lseek": 5,
    }  # fmt: skip
    # Where nothing says so, the position does.
    assert all(e.file_offset is not None and not e.marks for e in run.of(Read, Write) if e.kind == "file")
    assert_exact(run.stats)


def test_fault_2_the_command_runs_twice_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["sh", "-c", f"echo $$ >> {log}"]
    run = trace_command(command, tmp_path)
    assert len(log.read_text().splitlines()) == 1
    assert {e.pid for e in run.of(Exec)} == {int(log.read_text())}
    assert flak_cli("record", "-q", "-o", tmp_path / "run.flak", "--", *command).returncode == 0
    assert len(log.read_text().splitlines()) == 2
    assert_exact(run.stats)


def test_fault_3_the_end_of_a_thread_ends_the_trace_of_its_process(cast: Cast) -> None:
    actor = cast()
    stays = actor.thread()
    with flak.trace(pid=actor.pid) as session:
        expected = []
        for calls in (3, 5, 7, 11, 13):
            ends = actor.thread()
            expected.append(ends.read(calls))
            ends.end()
            expected += [actor.read(calls), stays.read(calls)]
        actor.end()
        seen = cast.seen_to_end(session)
    assert seen.offsets == joined(*expected)
    assert [e.is_last for e in seen.of(Exit)] == 6 * [False] + [True]


def test_fault_4_a_name_misses_processes_that_run_already(cast: Cast) -> None:
    actors = [cast(own("chosen")), cast(own("chosen"))]
    child = actors[0].fork()
    with flak.trace(comm=own("chosen")) as session:
        expected = [actor.read(7) for actor in (*actors, child)]
        seen = cast.seen(session)
    assert seen.offsets == joined(*expected)


@pytest.mark.parametrize("verb", ["trace", "record"])
def test_fault_5_the_output_folder_is_removed_whatever_it_holds(tmp_path: Path, verb: str) -> None:
    folder, suffix = tmp_path / "logs", {"trace": "jsonl", "record": "flak"}[verb]
    kept = [folder / f"old.{suffix}", folder / "thesis.txt"]
    folder.mkdir()
    for path in kept:
        path.write_text("years of work")
    for output in (folder, kept[0]):
        done = flak_cli(verb, "-o", output, "--", "touch", tmp_path / "ran")
        assert done.returncode not in (0, -9), done
        assert str(output) in done.stderr and "Traceback" not in done.stderr
        assert [path.read_text() for path in kept] == 2 * ["years of work"]
        assert sorted(folder.iterdir()) == sorted(kept)
        assert not (tmp_path / "ran").exists(), "what cannot be recorded need not be run"


@pytest.mark.usefixtures("sees_faults")
def test_fault_6_what_was_open_and_mapped_before_is_unknown(
    workloads: Workloads, indexed: Path, tmp_path: Path
) -> None:
    mapped = write_pages(tmp_path / "mapped", 13)
    command = workloads.command("waiter", "go", indexed, mapped)
    with running(command) as program, flak.trace(pid=program.pid) as session:
        program.process.communicate(b"go\n", timeout=10)
        events = list(session)
    assert_exact(session.stats)
    by_path = Counter((e.path, type(e)) for e in events if isinstance(e, Read | Fault) and "attached" not in e.marks)
    assert by_path[str(indexed), Read] == 13
    assert by_path[str(mapped), Fault] == 11
    listed = {(type(e), e.path) for e in events if "attached" in (e.marks or ())}
    assert {(Open, str(indexed)), (Open, str(mapped)), (Mmap, str(mapped))} <= listed


def test_fault_6_children_made_before_are_not_followed(cast: Cast) -> None:
    parent = cast()
    grandchild = parent.fork().fork()
    with flak.trace(pid=parent.pid) as session:
        expected = grandchild.read(7)
        seen = cast.seen(session)
    assert seen.offsets == expected


def test_fault_6_cgroups_below_the_chosen_one_are_not_matched(cast: Cast, grove: Grove) -> None:
    pod = grove.make("pod")
    below = actor_in(cast, grove.make("pod/container/init"))
    with flak.trace(cgroup=str(pod)) as session:
        expected = below.read(7)
        seen = cast.seen(session)
    assert seen.offsets == expected


@pytest.mark.usefixtures("sees_faults")
def test_fault_7_reads_and_faults_have_no_common_order(traced: Traced, file: Path) -> None:
    run = traced("original", "order", file)
    events = run.on(file)
    assert [type(e) for e in events[:2]] == [Open, Mmap]
    assert [(e.op, e.file_offset // PAGE) for e in events[2:]] == [
        (op, page) for page in range(13) for op in ("pread64", "fault")
    ]
    times = [e.ts_ns for e in events]
    assert times == sorted(times)
    assert_exact(run.stats)


def test_fault_8_paths_are_raw_relative_and_cut(traced: Traced, folder: Path, tmp_path: Path) -> None:
    strings = tmp_path / "strings"
    strings.write_bytes(b"no/such/name\0")
    run = traced("original", "paths", folder, strings)
    *steps, failed = run.steps
    parts = [folder.joinpath(*depth * ["p" * 101]) for depth in range(1, 6)]
    expected = [*parts, parts[4], parts[3], parts[4]]
    opened = [e for e in run.of(Open) if e.path and e.path.endswith("/file")]
    assert [e.path for e in opened] == [str(path / "file") for path in expected]
    assert len(opened[0].path) > 150 and len(opened[3].path) > 255
    assert [(e.fd, e.new_fd, e.open_flags) for e in opened] == [(s["fd"], s["result"], s["size"]) for s in steps]
    assert [e.mode & 0o7777 for e in opened[:5]] == 5 * [0o640]
    # A name on a page that the kernel is the first to touch.
    (missed,) = (e for e in run.of(Open) if e.claimed_path == "no/such/name")
    assert (missed.errno, missed.path) == ("ENOENT", str(parts[4] / "no/such/name"))
    assert failed["result"] == -2
    assert_exact(run.stats)


def test_fault_9_newer_calls_are_missing(traced: Traced, file: Path) -> None:
    run = traced("original", "modern", file)
    seen = run.on(file, Open, Read, Write, Seek, Dup, Mmap, Mremap, Munmap)
    assert [(e.op, e.file_offset) for e in seen] == [(s["op"], s["offset"]) for s in run.steps]
    assert [e.new_fd for e in seen if isinstance(e, Dup)] == [71, 73, 79]
    (executed,) = run.of(Exec)
    assert executed.argv0.endswith("/original")
    assert_exact(run.stats)


def test_fault_9_other_roads_are_passed_over_in_silence(traced: Traced, file: Path) -> None:
    run = traced("original", "roads", file)
    made = Counter(step["op"] for step in run.steps)
    assert made == {"copy": 15, "aio": 2, "io_uring": 3}
    sources = [e for e in run.on(file) if e.role == "source"]
    assert Counter(e.op for e in sources) == {"sendfile64": 3, "copy_file_range": 5, "splice": 7}
    assert [(e.file_offset, e.size_ret) for e in sources] == [(7 * i, 7) for i in range(15)]
    # What they fill: a file for the first two; a pipe, which nobody asked for, for the third.
    targets = [e for e in run.events if e.role == "target"]
    assert [(e.file_offset, e.call_id) for e in targets] == [(7 * i, e.call_id) for i, e in enumerate(sources[:8])]
    requests = [e for e in run.on(file) if e.via == "aio"]
    assert [(e.op, e.file_offset, e.size_req, e.size_ret) for e in requests] == 2 * [("pread", 0, 7, 7)]
    assert run.stats.not_decoded == {}, "io_uring_enter was called to submit nothing"
    assert_exact(run.stats)


@pytest.fixture(scope="module")
def meta_ops(privileged: dict[str, str], workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Operations seen of a program that makes every call about names, times and sizes; those counted, too."""
    folder = tmp_path_factory.mktemp("meta")
    run = trace_command(workloads.command("original", "meta", folder), tmp_path_factory.mktemp("out"))
    assert_exact(run.stats)
    assert len(run.steps) == 23
    return {e.op for e in run.events} | set(run.stats.not_decoded)


@pytest.mark.parametrize(
    "calls",
    [
        "newfstatat statx newfstat",
        "statfs fstatfs",
        "faccessat",
        "renameat2 linkat symlinkat unlinkat mkdirat",
        "truncate ftruncate fallocate",
        "fsync fdatasync sync_file_range",
        "readahead fadvise64",
        "getdents64",
        "madvise msync",
        "close_range",
    ],
)
def test_fault_9_metadata_calls_are_missing(meta_ops: set[str], calls: str) -> None:
    assert set(calls.split()) <= meta_ops


def test_fault_10_losses_are_told_where_nobody_reads(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    output = tmp_path / "run.jsonl"
    command = workloads.command("preads", indexed, 300_007, 2)
    done = flak_cli("trace", "--buffer-size", "4K", "-o", output, "--no-summary", "--", *command)
    assert done.returncode == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    counters = lines[-1]
    lost = counters["lost"]["ring_full"]
    assert lost > 0, "the ring never got full: the test proved nothing"
    assert sum(line["count"] for line in lines if line["op"] == "lost") == lost
    assert sum(line["op"] not in ("lost", "folded", "counters") for line in lines) == counters["written"]
    assert counters["matched"] == counters["written"] + lost
    ours = [line for line in lines if line.get("path") == str(indexed)]
    folded = sum(line["count"] for line in ours if line["op"] == "folded" and line["of"] == "pread64")
    assert folded + sum(line["op"] == "pread64" for line in ours) == 2 * 300_007
    assert counters["recursion_misses"] == 0
    assert f"ring_full{lost}" in "".join(done.stderr.split()), "a person is told, too"


def test_fault_10_losses_stand_in_the_stream(cast: Cast) -> None:
    actor = cast()
    with flak.trace(pid=actor.pid, events=["read"], buffer_size=1 << 16) as session:
        actor.do("read 0 20011")
        session.stop()
        *events, stats = session
    assert stats.is_exact and stats.recursion_misses == 0
    seen = sum(isinstance(e, Read) for e in events)
    lost = sum(e.count for e in events if isinstance(e, Lost))
    assert lost == stats.lost_total == stats.lost["ring_full"] > 0
    assert seen + lost == 20011


def test_fault_11_the_clock_stops_while_the_machine_sleeps(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    output = tmp_path / "stdout"
    with (
        output.open("wb") as stdout,
        flak.trace(command=workloads.command("original", "clock", indexed), stdout=stdout.fileno()) as session,
    ):
        seen = [e for e in session if isinstance(e, Read) and e.path == str(indexed)]
        boot_ns, wall_ns = session.anchor
    assert_exact(session.stats)
    steps = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(seen) == len(steps) == 17
    for event, step in zip(seen, steps, strict=True):
        assert step["before"] <= event.ts_ns <= event.ts_ns + event.latency_ns <= step["behind"]
        # A wall clock may be set meanwhile, a little.
        assert abs(wall_ns + event.ts_ns - boot_ns - step["wall"]) < 200_000_000 + step["behind"] - step["before"]
    assert abs(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boot_ns) < 60_000_000_000


@pytest.mark.usefixtures("sees_faults")
def test_fault_12_dup_close_and_stat_confuse_the_descriptors(traced: Traced, file: Path, indexed: Path) -> None:
    run = traced("original", "fds", indexed, file)
    seen = [e for e in run.of(Read) if e.path in (str(file), str(indexed))]
    assert [(e.path, e.fd) for e in seen] == [(s["path"], s["fd"]) for s in run.steps]
    assert len(seen) == 3 + 5 + 7 + 2 + 11 + 13 + 17
    # A mapping is of the file it was made of, whatever its descriptor means by now.
    assert [e.file_offset for e in run.on(file, Fault)] == [0, PAGE, 2 * PAGE]
    assert run.on(indexed, Fault) == []
    numbers = {s["fd"] for s in run.steps}
    assert [(e.path, e.errno) for e in run.of(Close) if e.fd in numbers and e.path in (str(file), str(indexed))] == [
        (str(indexed), None), (str(file), None),
    ]  # fmt: skip
    assert_exact(run.stats)


def calls_of_object(machine: str) -> dict[int, int]:
    """The table of system calls in the object for a machine: number → operation."""
    path = Path(flak.__file__).parent / "_bpf" / f"flak.{machine}.bpf.o"
    if not path.exists():
        pytest.skip(f"{path.name} was not built: that needs clang")
    loaded = flak_bpf.BpfObject(path.read_bytes())
    try:
        return {number: op for number, op in enumerate(loaded.initial("op_of_nr")) if op}
    finally:
        loaded.close()


def test_fault_13_calls_that_arm64_does_not_have() -> None:
    x86, arm = calls_of_object("x86_64"), calls_of_object("aarch64")
    at = {Op.NEWSTAT, Op.NEWLSTAT, Op.ACCESS, Op.RENAME, Op.LINK, Op.SYMLINK, Op.UNLINK, Op.MKDIR, Op.RMDIR}
    only_x86 = at | {Op.OPEN, Op.CREAT, Op.DUP2}
    assert not only_x86 & set(arm.values())
    assert only_x86 < set(x86.values())
    operations = {int(op) for op in Op}
    assert set(x86.values()) & operations == (set(arm.values()) & operations) | only_x86
    numbers = Path("/usr/include/asm-generic/unistd.h")
    if numbers.exists():
        names = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", numbers.read_text(), re.MULTILINE)
        name_of = {int(number): name for name, number in names}
        names_there = {
            Op.NEWFSTAT: "fstat", Op.NEWFSTATAT: "fstatat", Op.SENDFILE64: "sendfile", Op.FICLONE: "ioctl",
        }  # fmt: skip
        assert {number: name_of[number] for number, op in arm.items() if op in operations} == {
            number: names_there.get(Op(op)) or Op(op).name.lower() for number, op in arm.items() if op in operations
        }


def test_fault_13_page_faults_need_a_tracepoint_that_only_x86_has() -> None:
    class Arm:
        """BTF of a kernel for arm64: no page_fault_user."""

        def has_tracepoint(self, name: str) -> bool:
            return not name.startswith("page_fault_")

        def has_function(self, name: str) -> bool:
            return True

    btf: Any = Arm()
    first = next(way for way in probes.FAULTS if way.is_possible(btf))
    assert first.name.startswith("kprobe on handle_mm_fault")


REFUSAL = """
import flak
from flak.errors import NotPermitted

def trace(**options):
    raise NotPermitted("no programs may be loaded", "run flak as root")

flak.trace = trace
"""


@pytest.mark.parametrize("is_required", [True, False])
def test_fault_14_tests_pass_that_test_nothing(tmp_path: Path, is_required: bool) -> None:
    (tmp_path / "refusal.py").write_text(REFUSAL)
    environment = os.environ | {
        "FLAK_REQUIRE_KERNEL": "1" if is_required else "",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src"), str(ROOT)]),
    }
    test = f"{__file__}::test_fault_2_the_command_runs_twice_at_once"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "refusal", "-p", "no:cacheprovider", test],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=20,
    )  # fmt: skip
    assert "no programs may be loaded" in done.stdout
    assert "passed" not in done.stdout
    assert done.returncode == (1 if is_required else 0)
    assert ("1 error" if is_required else "1 skipped") in done.stdout
