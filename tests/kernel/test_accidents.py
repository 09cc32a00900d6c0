"""What may befall a run: full disks, readers that go away, kills, stops, storms, refusals. Each with the real thing.

Two promises hold throughout: what is missing is said, and the traced program notices nothing. Losses while the tracer
is stopped are in test_accounting, cgroups that are removed in test_cgroups.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import flak
from flak import bpf, probes
from flak.analysis import analyse
from flak.errors import AttachError, LoadError
from flak.events import Access, Exec, Exit, Fault, Folded, Fork, Open, Read

from .conftest import Traced
from .running import (
    Workloads,
    flak_environment,
    is_blocked_in,
    lost_ranges,
    missing_numbers,
    running,
    trace_command,
    wait_until,
    write_pages,
)

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("privileged"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a tmpfs and make a setuid program of root's"),
]

FLAK = [sys.executable, "-m", "flak"]
ENVIRONMENT = flak_environment()
READ = {"x86_64": 0, "aarch64": 63}[os.uname().machine]
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
BPF_PROG_GET_FD_BY_ID = 13
READS = 20_011

# The pause is for FLAK to write what came before it: all the rest may come at once.
BURST = f"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
for number in range({READS}):
    os.pread(fd, 1, number % 4096)
    if number == 99:
        time.sleep(0.5)
print("whole")
"""

# 10,000 reads a second, without an end.
STEADY = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
print("ready", flush=True)
number = 0
while True:
    os.pread(fd, 1, number % 4096)
    number += 1
    if number % 50 == 0:
        time.sleep(0.005)
"""


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    """flak, running."""
    command = [*FLAK, *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **options)


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """flak, to its end."""
    command = [*FLAK, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=25, **options)


def wait_for_line(tracer: subprocess.Popen[str], beginning: str) -> None:
    """Waits for a line on stderr."""
    assert tracer.stderr
    assert select.select([tracer.stderr], [], [], 15)[0], f"flak never said {beginning!r}"
    line = tracer.stderr.readline()
    assert line.startswith(beginning), line


def end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


# --- where the output goes


def test_a_recording_on_a_full_disk_holds_what_came_before_and_counts_the_rest(small_disk: Path, indexed: Path) -> None:
    path = small_disk / "run.flak"
    done = run("record", "-o", path, "--", sys.executable, "-c", BURST, indexed)
    assert done.stdout == "whole\n", "the command went on to its end"
    assert done.returncode == 1
    assert f"cannot write {path}: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    with flak.open(path) as source:
        *events, stats = source
    assert stats.is_complete and stats.is_exact
    assert len(events) >= stats.written > 0
    assert stats.lost["user_write_failed"] > 0
    offsets = [e.file_offset for e in events if isinstance(e, Read) and e.path == str(indexed)]
    assert offsets == [number % 4096 for number in range(len(offsets))]


@pytest.mark.parametrize(("name", "options"), [("lines", ()), ("run.jsonl", ()), ("json", ("--json",))])
def test_lines_on_a_full_disk_end_in_one_message_and_the_command_goes_on(
    small_disk: Path, indexed: Path, name: str, options: Sequence[str]
) -> None:
    path = small_disk / name
    done = run("trace", *options, "-o", path, "--", sys.executable, "-c", BURST, indexed)
    assert done.stdout == "whole\n"
    assert done.returncode == 1
    assert done.stderr.count(f"cannot write {path}: No space left on device") == 1
    assert "Traceback" not in done.stderr
    text = path.read_text()
    assert path.stat().st_size > 200_000, "what could be written was"
    if name != "lines":
        for line in text.splitlines()[:-1]:
            json.loads(line)


def test_a_reader_that_goes_away_ends_the_trace_and_not_the_program(indexed: Path) -> None:
    with running([sys.executable, "-c", STEADY, str(indexed)]) as program:
        tracer = start("trace", "--json", "-p", program.pid, stdout=subprocess.PIPE)
        try:
            assert tracer.stdout
            assert json.loads(tracer.stdout.readline())["pid"] == program.pid
            tracer.stdout.close()
            assert tracer.wait(timeout=10) == 0
            assert tracer.stderr
            said = tracer.stderr.read()
            assert "Traceback" not in said and "Broken pipe" not in said
        finally:
            tracer.kill()
            tracer.wait()
            tracer.stderr.close()
        assert program.process.poll() is None


# --- the tracer is killed


def programs_of(pid: int) -> set[int]:
    """Ids of the BPF programs that a process holds."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        found |= set(map(int, re.findall(r"^prog_id:\s*(\d+)$", path.read_text(), re.MULTILINE)))
    return found


def is_loaded(program: int) -> bool:
    """Is there a BPF program of this id?"""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = (ctypes.c_uint32 * 4)(program, 0, 0, 0)
    fd = libc.syscall(BPF, BPF_PROG_GET_FD_BY_ID, attributes, ctypes.sizeof(attributes))
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_tracer_that_is_killed_leaves_no_program_loaded_and_a_valid_prefix(
    indexed: Path, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "run.flak"
    with running([sys.executable, "-c", STEADY, str(indexed)]) as program:
        tracer = start("record", "-p", program.pid, "-o", path)
        try:
            wait_until(lambda: path.exists() and path.stat().st_size, "the recording", 15)
            time.sleep(random.Random(seed).uniform(0, 0.4))
            programs = programs_of(tracer.pid)
            assert len(programs) > 5 and all(map(is_loaded, programs))
        finally:
            end(tracer)
        wait_until(lambda: not any(map(is_loaded, programs)), "unloading all programs", 1)
        time.sleep(0.01)
        assert program.process.poll() is None, "the program goes on"
    with flak.open(path) as source:
        *events, stats = source
    assert not stats.is_complete
    assert any("never closed" in warning for warning in source.warnings), source.warnings
    reads = [e for e in events if isinstance(e, Read) and e.path == str(indexed)]
    first = reads[0].file_offset if reads else 0
    assert [e.file_offset for e in reads] == [(first + number) % 4096 for number in range(len(reads))]
    assert missing_numbers((e.cpu, e.seq) for e in events if isinstance(e, Access)) == lost_ranges(events) == {}


def test_a_command_outlives_its_tracer(indexed: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    program = (
        f"import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(1)\nopen({str(output)!r}, 'w').write('whole')"
    )
    tracer = start("record", "-o", tmp_path / "run.flak", "--", sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert tracer.stdout
    assert tracer.stdout.readline()
    end(tracer)
    wait_until(lambda: output.exists() and output.read_text() == "whole", "the end of the command")


# --- several at once


def test_two_tracers_of_one_flood_are_both_exact(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    count = 100_003
    flood = shutil.copy(workloads("preads"), tmp_path / f"fl{os.getpid()}")
    paths = [tmp_path / f"{number}.flak" for number in range(2)]
    tracers = [start("record", "-n", flood.name, "-e", "read", "--buffer-size", "16K", "-o", path) for path in paths]
    try:
        for tracer in tracers:
            wait_for_line(tracer, "flak: tracing")
        subprocess.run([flood, indexed, str(count), "2"], check=True, stdout=subprocess.DEVNULL)
        for tracer in tracers:
            tracer.send_signal(signal.SIGINT)
        for tracer in tracers:
            assert tracer.wait(timeout=20) == 0
    finally:
        for tracer in tracers:
            end(tracer)
    for path in paths:
        with flak.open(path) as source:
            (row,) = (row for row in analyse(source) if row.path == str(indexed))
            stats = source.stats
        assert row.read_count == row.read_bytes == 2 * count
        assert stats.is_exact and stats.recursion_misses == 0
        assert row.folded_count == stats.lost.get("ring_full", 0) > 0


def test_a_recording_counts_what_its_sums_hold(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.flak"
    run(
        "record",
        "--buffer-size",
        "4K",
        "-e",
        "read",
        "-o",
        path,
        "--",
        *workloads.command("preads", indexed, 100_003, 1),
    )
    with flak.open(path) as source:
        *events, stats = source
    assert stats.folded == sum(e.count for e in events if isinstance(e, Folded)) > 0


# --- what the program goes through


COUNTING = """
import mmap, os, sys
note = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)
fd = os.open(sys.argv[1], os.O_RDONLY)
number = 0
while True:
    os.pread(fd, 1, number % 4096)
    number += 1
    note[:8] = number.to_bytes(8, "little")
"""


def test_a_program_that_is_killed_is_seen_to_its_last_call(indexed: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_bytes(bytes(4096))

    def made() -> int:
        return int.from_bytes(note.read_bytes()[:8], "little")

    with flak.trace(command=[sys.executable, "-c", COUNTING, str(indexed), str(note)]) as session:
        events = iter(session)
        (pid,) = {event.pid for event in (next(events),)}

        def kill() -> None:
            wait_until(lambda: made() > 1009, "a thousand reads")
            os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        *seen, stats = events
        killer.join()
    assert session.command_status == -signal.SIGKILL
    reads = [e for e in seen if isinstance(e, Read) and e.path == str(indexed)]
    # Killed between a call and the note of it, it has made one more.
    assert len(reads) + stats.lost_total in (made(), made() + 1)
    assert [(e.exit_code, e.is_last) for e in seen if isinstance(e, Exit)] == [(signal.SIGKILL, True)]
    assert stats.is_exact and stats.recursion_misses == 0


def test_a_setuid_program_has_its_rights_and_is_traced() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip(f"{folder.parent} is mounted nosuid")
        folder.chmod(0o755)
        secret, program = folder / "secret", folder / "show"
        secret.write_text("of root\n")
        secret.chmod(0o600)
        shutil.copy(shutil.which("cat") or "/bin/cat", program)
        program.chmod(0o4755)
        done = run(
            "trace", "--json", "-o", folder / "seen.jsonl", "--user", "nobody", "--",
            "sh", "-c", f"cat {secret}; exec {program} {secret}",
        )  # fmt: skip
        assert done.stdout == "of root\n", "by the first it was refused, by the second it was read"
        assert done.returncode == 0
        events = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    opened = [e for e in events if e["op"] == "openat" and e["path"] == str(secret)]
    assert [e["errno"] for e in opened] == ["EACCES", None]
    assert [e["size_ret"] for e in events if e["op"] == "read" and e["path"] == str(secret)] == [8, 0]
    assert any(e["op"] == "exec" and e["path"] == str(program) for e in events)


BLOCKED = """
import os, sys, threading
threading.stack_size(65536)
fd = os.open(sys.argv[1], os.O_RDWR)
for number in range(3000):
    threading.Thread(target=os.read, args=(fd, 5), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_three_thousand_blocked_threads_are_each_told(tmp_path: Path, ending: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pids: list[int] = []
    with flak.trace(
        command=[sys.executable, "-c", BLOCKED, str(fifo)], events=["read", "process"], all_files=True
    ) as session:
        events = iter(session)
        first = next(events)
        pids.append(first.pid)

        def blocked() -> int:
            tasks = [int(path.name) for path in Path(f"/proc/{first.pid}/task").iterdir()]
            return len(tasks) == 3001 and sum(is_blocked_in(tid, READ) for tid in tasks) == 3000

        def finish() -> None:
            try:
                wait_until(blocked, "3,000 blocked reads", 15)
            finally:
                session.stop() if ending == "stopped" else os.kill(first.pid, signal.SIGKILL)

        finisher = threading.Thread(target=finish)
        finisher.start()
        *seen, stats = events
        finisher.join()
        if ending == "stopped":
            os.kill(first.pid, signal.SIGKILL)
    reads = [e for e in seen if isinstance(e, Read) and e.path == str(fifo)]
    assert len({e.tid for e in reads}) == len(reads) == 3000
    mark = {"stopped": "unfinished", "killed": "interrupted"}[ending]
    assert all(mark in e.marks and e.size_ret is None for e in reads)
    assert stats.lost_total == 0 and stats.is_exact


STORM = """
i=0
while [ $i -lt 3001 ]; do
    ( : < "$1" ) &
    i=$((i + 1))
    [ $((i % 50)) = 0 ] && wait
done
wait
"""


def test_a_storm_of_forks_is_seen_whole(indexed: Path, tmp_path: Path) -> None:
    seen = trace_command(["sh", "-c", STORM, "sh", indexed], tmp_path, events=["open", "process"])
    assert len(seen.on(indexed, Open)) == 3001
    assert len({e.pid for e in seen.on(indexed, Open)}) >= 3001 / 2, "numbers may have been used again"
    assert len(seen.of(Fork)) == 3001
    assert [e.is_last for e in seen.of(Exit)] == 3002 * [True]
    assert len(seen.of(Exec)) == 1
    assert seen.stats.recursion_misses == 0
    assert seen.stats.lost_total == 0 and seen.stats.is_exact


# --- the host refuses


def limited(limit: int, *words: object) -> subprocess.CompletedProcess[str]:
    """flak with so few descriptors."""
    return run(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))


@pytest.mark.parametrize("limit", [8, 32])
def test_without_descriptors_a_run_ends_before_it_began(limit: int, tmp_path: Path) -> None:
    done = limited(limit, "trace", "--", "touch", tmp_path / "ran")
    assert done.returncode == 125
    assert "Too many open files" in done.stderr
    first, *quoted = done.stderr.splitlines()
    assert first.startswith("flak: ")
    assert all(line.startswith(("  libbpf: ", "flak: ")) for line in quoted)
    assert not (tmp_path / "ran").exists()


def test_without_descriptors_there_is_never_a_traceback() -> None:
    for limit in (40, 64):
        assert "Traceback" not in limited(limit, "trace", "-s", "--", "true").stderr, limit


def test_a_refusal_is_told_in_lines_that_can_be_read() -> None:
    assert "\\n" not in limited(8, "trace", "--", "true").stderr


def refuse_faults(self: bpf.BpfObject, name: str, event: int) -> None:
    raise AttachError(f"cannot attach {name}: not today")


def test_without_page_faults_the_rest_is_traced(
    workloads: Workloads, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "FAULTS", probes.FAULTS[:1])
    monkeypatch.setattr(bpf.BpfObject, "attach_software_event", refuse_faults)
    with flak.trace(command=workloads.command("rw", "pread64", indexed)) as session:
        events = list(session)
    assert len([e for e in events if isinstance(e, Read) and e.path == str(indexed)]) == 23
    assert session.stats.is_exact
    assert session.missing.keys() == {"page faults", "pages per fault"}
    assert "not today" in session.missing["page faults"]
    assert session.header()["missing"] == session.missing
    assert "io_uring" in session.served


def refuse_to_load_pages(
    self: bpf.BpfObject, programs: Sequence[str], select: Callable[..., None] = bpf.BpfObject.select
) -> None:
    if "flak_map_pages" in programs:
        raise LoadError("refused", log="libbpf: prog 'flak_map_pages': BPF program load failed: -EACCES")
    select(self, programs)


def refuse_to_attach_pages(self: bpf.BpfObject, name: str, attach: Callable[..., None] = bpf.BpfObject.attach) -> None:
    if name == "flak_map_pages":
        raise AttachError(f"cannot attach {name}: refused")
    attach(self, name)


@pytest.mark.parametrize(("step", "refusal"), [("select", refuse_to_load_pages), ("attach", refuse_to_attach_pages)])
def test_without_the_hooks_of_pages_faults_are_traced_all_the_same(
    step: str, refusal: Any, workloads: Workloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf.BpfObject, step, refusal)
    mapped = write_pages(tmp_path / "mapped", 103)
    with flak.trace(command=workloads.command("maps", "private", mapped, 103)) as session:
        faults = [e for e in session if isinstance(e, Fault) and e.path == str(mapped)]
    assert len(faults) == 103
    assert {fault.page_count for fault in faults} == {None}
    assert session.stats.is_exact
    assert "refused" in session.missing["pages per fault"]
    assert session.missing.keys() == {"pages per fault"}


def test_without_io_uring_its_calls_are_counted_and_the_rest_is_traced(
    traced: Traced, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tuple(replace(way, programs=(*way.programs, "flak_none")) for way in probes.IO_URING)
    monkeypatch.setattr(probes, "IO_URING", gone)
    seen = traced("uring", "readv", indexed, 61, 4)
    assert [e for e in seen.of(Access) if e.via == "io_uring"] == []
    assert seen.stats.not_decoded["io_uring"] > 0
    assert len([e for e in seen.on(indexed, Open) if e.errno is None]) > 0
    assert seen.stats.is_exact


def test_what_cannot_be_traced_is_told_before_the_command_runs(tmp_path: Path) -> None:
    script = tmp_path / "flak-refused.py"
    script.write_text(
        "import sys\nfrom flak import probes\nprobes.FAULTS = ()\nfrom flak.cli import main\nsys.exit(main())\n"
    )
    command = [sys.executable, str(script), "record", "-o", str(tmp_path / "run.flak"), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=20)
    assert done.returncode == 0
    assert "flak: not traced on this host: what is read and written through memory maps" in done.stderr
    with flak.open(tmp_path / "run.flak") as source:
        assert "page faults" in source.header["missing"]


def test_the_reason_told_is_that_of_the_best_way(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1, 100))
    best = probes.FAULTS[0]

    def refuse(self: bpf.BpfObject, name: str, event: int) -> None:
        raise AttachError(f"refusal {next(times)}")

    monkeypatch.setattr(probes, "FAULTS", (best, replace(best, name="another")))
    monkeypatch.setattr(bpf.BpfObject, "attach_software_event", refuse)
    with flak.trace(command=["true"]) as session:
        list(session)
    assert "refusal 1" in session.missing["page faults"]


# --- the traced program notices nothing


SELF = r"""
import json, os, re, resource, sys
status = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "environment": sorted(os.environ.items()), "arguments": sys.argv[1:], "stdin": sys.stdin.read(),
    "folder": os.getcwd(), "niceness": os.nice(0), "cpus": sorted(os.sched_getaffinity(0)),
    "policy": os.sched_getscheduler(0), "groups": os.getgroups(), "session": os.getsid(0), "pgrp": os.getpgrp(),
    "limits": [resource.getrlimit(number) for number in range(16)],
    "oom": open("/proc/self/oom_score_adj").read(), "cgroup": open("/proc/self/cgroup").read(),
    "namespaces": sorted(os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")),
    "descriptors": [
        (fd, re.sub(r"\d+", "", os.readlink(f"/proc/self/fd/{fd}"))) for fd in range(64)
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ],
    "status": {name: value for name, value in status.items() if name in (
        "Umask", "Uid", "Gid", "TracerPid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm",
        "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Cpus_allowed_list", "THP_enabled", "CoreDumping")},
}))
print("on stderr", file=sys.stderr)
"""


def odd_surroundings() -> None:
    """What a program may inherit that FLAK has to pass on."""
    os.nice(3)
    os.umask(0o027)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))
    Path("/proc/self/oom_score_adj").write_text("101")


@pytest.mark.parametrize("verb", ["trace", "record"])
def test_a_program_has_the_same_surroundings_as_without(verb: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", SELF, "", "a b", "--", "-p"]
    environment = ENVIRONMENT | {"FLAK_TEST": "ä\n=", "SUDO_X": ""}

    def look(*before: object) -> tuple[bytes, bytes]:
        with (tmp_path / "inherited").open("w") as inherited:
            done = subprocess.run(
                [*map(str, before), *program], input=b"typed", capture_output=True, check=True, env=environment,
                cwd=tmp_path, preexec_fn=odd_surroundings, pass_fds=(inherited.fileno(),), timeout=20,
            )  # fmt: skip
        return done.stdout, done.stderr

    plain, said = look()
    traced, heard = look(*FLAK, verb, "-q", "-o", tmp_path / f"{verb}.flak", "--")
    assert json.loads(traced) == json.loads(plain)
    assert traced == plain
    assert said == b"on stderr\n" and said in heard


@pytest.mark.parametrize("death", ["exit 7", "kill -TERM $$", "kill -SEGV $$", "kill -9 $$"])
def test_a_program_ends_as_it_does_without(death: str, tmp_path: Path) -> None:
    plain = subprocess.run(["sh", "-c", f"ulimit -c 0; {death}"], timeout=20)
    done = run("record", "-q", "-o", tmp_path / "run.flak", "--", "sh", "-c", f"ulimit -c 0; {death}")
    assert done.returncode == plain.returncode


def test_the_bytes_of_its_output_are_its_own(tmp_path: Path) -> None:
    program = [
        "sh",
        "-c",
        r"head -c 1000003 /dev/urandom >x; sha256sum <x; cat x; printf '\0\377\033[2J'; sha256sum <x",
    ]
    done = subprocess.run(
        [*FLAK, "trace", "-s", "--", *program], capture_output=True, cwd=tmp_path, env=ENVIRONMENT, timeout=20
    )
    assert done.returncode == 0
    digest = subprocess.run(["sha256sum"], input=(tmp_path / "x").read_bytes(), capture_output=True, check=True).stdout
    assert done.stdout == digest + (tmp_path / "x").read_bytes() + b"\0\xff\x1b[2J" + digest


def test_what_it_counts_is_what_it_would_count_without(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    steps: list[Counter[Any]] = []
    for prefix in ([], [*FLAK, "record", "-q", "-o", str(tmp_path / "run.flak"), "--"]):
        done = subprocess.run(
            [*prefix, *workloads.command("rw", "preadv2", indexed)], capture_output=True, env=ENVIRONMENT, timeout=20
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
        steps.append(Counter((s["op"], s.get("offset"), s.get("size"), s.get("result")) for s in lines))
    assert steps[0] == steps[1] and steps[0].total() == 23
