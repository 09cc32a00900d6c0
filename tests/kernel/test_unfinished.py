"""Calls that do not return: killed, interrupted, restarted by the kernel, or still waiting when tracing stops."""

from __future__ import annotations

import bisect
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import Read

from .conftest import Traced
from .running import Workloads, is_blocked_in, running, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

READ = {"x86_64": 0, "aarch64": 63}[os.uname().machine]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def kill_when_blocked(stdout: int) -> None:
    pid = int(os.read(stdout, 64).split()[1])
    wait_until(lambda: is_blocked_in(pid, READ), "the blocking read")
    os.kill(pid, signal.SIGKILL)


def test_a_read_ended_by_a_kill_is_marked_as_interrupted(workloads: Workloads, fifo: Path) -> None:
    reader, writer = os.pipe()
    command = workloads.command("blocked", "forever", fifo)
    with flak.trace(command=command, stdout=writer, all_files=True) as session:
        killer = threading.Thread(target=kill_when_blocked, args=(reader,))
        killer.start()
        seen = [e for e in session if isinstance(e, Read) and e.path == str(fifo)]
        killer.join()
    os.close(reader)
    os.close(writer)
    assert [(e.size_req, e.size_ret, e.errno) for e in seen] == [(5, None, None)]
    assert "interrupted" in seen[0].marks
    assert session.command_status == -signal.SIGKILL
    assert session.stats.is_exact


def test_a_read_still_waiting_when_tracing_stops_is_marked_with_its_age(workloads: Workloads, fifo: Path) -> None:
    reader, writer = os.pipe()
    command = workloads.command("blocked", "forever", fifo)
    with flak.trace(command=command, stdout=writer, all_files=True, duration=30) as session:
        pid = int(os.read(reader, 64).split()[1])
        wait_until(lambda: is_blocked_in(pid, READ), "the blocking read")
        session.stop()
        seen = [e for e in session if isinstance(e, Read) and e.path == str(fifo)]
        os.kill(pid, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    (waiting,) = seen
    assert "unfinished" in waiting.marks
    assert (waiting.size_ret, waiting.errno, waiting.size_req) == (None, None, 5)
    assert 0 < waiting.latency_ns < 10_000_000_000
    assert session.stats.is_exact


REFUSING = """
import sys
from flak import pending
from flak.cli import main
from flak.errors import AttachError

def refuse(self):
    raise AttachError("cannot run iterator flak_pending: no descriptors")

pending.Pending.finish = refuse
sys.exit(main())
"""


@pytest.mark.parametrize("verb", ["trace", "record"])
def test_what_was_seen_is_kept_where_the_kernel_refuses_the_last_look(
    verb: str, workloads: Workloads, indexed: Path, tmp_path: Path
) -> None:
    target = workloads.command("preads", indexed, 997, 1)
    out = tmp_path / ("lines" if verb == "trace" else "run.flak")
    options = ["--json"] if verb == "trace" else []
    command = [sys.executable, "-c", REFUSING, verb, *options, "-o", out, "--", *target]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("cannot run iterator flak_pending: no descriptors") == 1
    assert "Traceback" not in done.stderr
    if verb == "record":
        with flak.open(out) as recording:
            reads = [e for e in recording if isinstance(e, Read) and e.path == str(indexed)]
            assert recording.stats.is_exact
        assert len(reads) == 997
    else:
        events = [json.loads(line) for line in out.read_text().splitlines()]
        assert sum(e["op"] == "pread64" and e["path"] == str(indexed) for e in events) == 997
        assert events[-1]["op"] == "counters"


def test_without_latency_a_read_still_waiting_has_no_age_and_is_not_attached(workloads: Workloads, fifo: Path) -> None:
    reader, writer = os.pipe()
    command = workloads.command("blocked", "forever", fifo)
    with flak.trace(command=command, stdout=writer, all_files=True, latency=False, duration=30) as session:
        pid = int(os.read(reader, 64).split()[1])
        wait_until(lambda: is_blocked_in(pid, READ), "the blocking read")
        session.stop()
        seen = [e for e in session if isinstance(e, Read) and e.path == str(fifo)]
        os.kill(pid, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    (waiting,) = seen
    assert set(waiting.marks) == {"unfinished", "no_enter"}
    assert (waiting.latency_ns, waiting.size_ret, waiting.errno, waiting.size_req) == (None, None, None, 5)
    assert session.stats.is_exact


UNSURE_NS = 2_000_000  # from the program's look at the clock to its call, or back


def assert_each_is_seen_once(seen: Sequence[Read], steps: Sequence[dict[str, Any]]) -> None:
    """Every read that began between the first and the last that FLAK saw begin is one record of it."""
    made: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for step in steps:
        made[step["tid"]].append((step["offset"], step["offset"] + step["size"]))
    begun = [e for e in seen if "no_enter" not in e.marks]
    times: Counter[tuple[int, int]] = Counter()
    for access in begun:
        assert access.tid is not None and access.latency_ns is not None
        number = bisect.bisect_right(made[access.tid], (access.ts_ns, 1 << 63)) - 1
        assert number >= 0
        _, end = made[access.tid][number]
        assert access.ts_ns <= end, "the thread was in no read"
        assert access.ts_ns + access.latency_ns <= end + UNSURE_NS, "older than it can be"
        times[access.tid, number] += 1
    assert [key for key, count in times.items() if count > 1] == []
    first, last = min(e.ts_ns for e in begun), max(e.ts_ns for e in begun)
    missing = [
        (tid, begin - last, end - last)
        for tid, reads in made.items()
        for number, (begin, end) in enumerate(reads)
        if first < begin < last - UNSURE_NS and (tid, number) not in times
    ]
    assert missing == []


def test_short_reads_in_progress_when_tracing_stops_are_each_recorded_once(workloads: Workloads) -> None:
    traces = []
    with running(workloads.command("hang", "busy", 40)) as program:
        for stop in range(4):
            duration = 0.15 + 0.0013 * stop
            with flak.trace(pid=program.pid, all_files=True, events=["read"], duration=duration) as session:
                traces.append([e for e in session if isinstance(e, Read)])
            assert session.stats.lost_total == 0 and session.stats.is_exact
        steps = program.finish()
    for seen in traces:
        assert_each_is_seen_once(seen, steps)
        assert [e for e in seen if {"unfinished", "attached"} <= set(e.marks)] == [], "none lasted that long"
    assert any("unfinished" in e.marks for seen in traces for e in seen)


def test_interrupted_reads_are_marked_and_not_counted_as_failed(traced: Traced, fifo: Path) -> None:
    run = traced("blocked", "interrupted", fifo, all_files=True)
    seen = run.on(fifo, Read)
    assert [(e.size_ret, e.errno) for e in seen] == 3 * [(None, None)]
    assert all("interrupted" in e.marks for e in seen)


def test_a_restarted_read_is_seen_twice_and_completes_once(traced: Traced, fifo: Path) -> None:
    seen = traced("blocked", "restarted", fifo, all_files=True).on(fifo, Read)
    assert [(e.size_ret, "interrupted" in e.marks) for e in seen] == [(None, True), (5, False)]
