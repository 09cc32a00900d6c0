"""Calls that do not return: killed, interrupted, restarted by the kernel, or still waiting when tracing stops."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

import flak
from flak.events import Read

from .conftest import Traced
from .running import Workloads, is_blocked_in, wait_until

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
    with flak.trace(command=command, stdout=writer, all_files=True, duration=0.5) as session:
        pid = int(os.read(reader, 64).split()[1])
        seen = [e for e in session if isinstance(e, Read) and e.path == str(fifo)]
        os.kill(pid, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    (waiting,) = seen
    assert "unfinished" in waiting.marks
    assert (waiting.size_ret, waiting.errno, waiting.size_req) == (None, None, 5)
    assert 0 < waiting.latency_ns < 10_000_000_000
    assert session.stats.is_exact


def test_interrupted_reads_are_marked_and_not_counted_as_failed(traced: Traced, fifo: Path) -> None:
    run = traced("blocked", "interrupted", fifo, all_files=True)
    seen = run.on(fifo, Read)
    assert [(e.size_ret, e.errno) for e in seen] == 3 * [(None, None)]
    assert all("interrupted" in e.marks for e in seen)


def test_a_restarted_read_is_seen_twice_and_completes_once(traced: Traced, fifo: Path) -> None:
    seen = traced("blocked", "restarted", fifo, all_files=True).on(fifo, Read)
    assert [(e.size_ret, "interrupted" in e.marks) for e in seen] == [(None, True), (5, False)]
