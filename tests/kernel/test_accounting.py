"""The accounting contract: every event is in the stream or in a counter, and a loss stands where it happened."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import Access, Exec, Exit, Fork, Lost, Read
from flak.tracefile import Writer

from .conftest import INDEXED, Traced
from .running import Run, Workloads, missing_numbers, trace_command

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

TRACER = Path(__file__).parent / "tracer.py"
STOPPED_S = 1.0
FLOOD = 2_500_009  # reads of each of two threads: well above a second


def test_nothing_is_lost_normally(traced: Traced, indexed: Path) -> None:
    run = traced("preads", indexed, 100_003, 1)
    assert len(run.on(indexed, Read)) == 100_003
    assert run.stats.lost_total == 0
    assert run.stats.recursion_misses == 0
    assert run.of(Lost) == []


@pytest.fixture(scope="module")
def everything(privileged: dict[str, str], workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All that several processes do, with pipes and devices."""
    folder = tmp_path_factory.mktemp("everything")
    (folder / "indexed").write_bytes(INDEXED)
    return trace_command(workloads.command("spawn", "vfork", folder / "indexed"), folder, all_files=True)


def test_every_event_of_the_stream_is_counted_once(everything: Run) -> None:
    stats, events = everything.stats, everything.events
    accesses, process_events = len(everything.of(Access)), len(everything.of(Fork, Exec, Exit))
    assert accesses + process_events == len(events)
    assert stats.matched == stats.submitted == stats.received == stats.written == len(events)
    assert stats.is_exact


def test_what_is_filtered_is_counted(traced: Traced, indexed: Path) -> None:
    run = traced("preads", indexed, 1009, 1, events=["open"])
    assert run.on(indexed, Read) == []
    assert run.stats.is_exact
    assert run.stats.written == len(run.events)


def test_numbers_of_each_cpu_have_no_gap(everything: Run) -> None:
    assert {"openat", "read", "pread64", "close", "mmap"} <= {e.op for e in everything.of(Access)}
    assert missing_numbers((e.cpu, e.seq) for e in everything.of(Access)) == {}
    assert missing_numbers((e.cpu, e.seq) for e in everything.of(Fork, Exec, Exit)) == {}


def test_many_threads_are_counted_each(traced: Traced, indexed: Path) -> None:
    run = traced("preads", indexed, 211, 199)
    assert len(run.on(indexed, Read)) == 211 * 199
    assert run.stats.is_exact


def trace_stopped(command: Sequence[str], result: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Traces a command by a tracer that is stopped for a second; returns what it found."""
    source = str(Path(__file__).parent.parent.parent / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    tracer = subprocess.Popen(
        [sys.executable, TRACER, result, json.dumps(options), *command], stdout=subprocess.PIPE, env=environment
    )
    try:
        assert tracer.stdout
        assert select.select([tracer.stdout], [], [], 20)[0], "the tracer saw no read"
        assert tracer.stdout.readline() == b"tracing\n"
        tracer.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        tracer.send_signal(signal.SIGCONT)
        assert tracer.wait(timeout=60) == 0
    finally:
        tracer.kill()
        tracer.communicate()
    return json.loads(result.read_text())


@pytest.fixture(scope="module")
def flood(privileged: dict[str, str], workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a tracer found that was stopped for a second, with a ring that holds some milliseconds."""
    folder = tmp_path_factory.mktemp("flood")
    (folder / "data").write_bytes(bytes(4096))
    command = workloads.command("preads", folder / "data", FLOOD, 2)
    found = trace_stopped(command, folder / "result", {"buffer_size": 1 << 20, "all_files": True})
    return found | {"file": str(folder / "data")}


def test_a_stopped_tracer_does_not_hold_up_the_program(flood: dict[str, Any]) -> None:
    assert flood["status"] == 0


def test_the_equations_hold_under_loss(flood: dict[str, Any]) -> None:
    counters = flood["counters"]
    lost = sum(counters["lost"].values())
    assert lost > 0, "the ring never got full: the test proved nothing"
    assert counters["matched"] == counters["submitted"] + lost
    assert counters["submitted"] == counters["received"] == counters["written"]
    assert flood["is_exact"]


def test_reads_seen_and_lost_add_up_to_those_made(flood: dict[str, Any]) -> None:
    assert flood["accesses"] + flood["others"] == flood["counters"]["written"]
    assert flood["paths"][flood["file"]] == 2 * FLOOD
    assert flood["folded_bytes"]["pread64"] == flood["folded"]["pread64"], "each read was of one byte"


def test_every_lost_access_is_in_a_sum(flood: dict[str, Any]) -> None:
    assert sum(flood["folded"].values()) == flood["counters"]["folded"] == flood["counters"]["lost"]["ring_full"]


def test_gaps_in_the_numbers_are_what_the_stream_says_was_lost(flood: dict[str, Any]) -> None:
    said = {cpu: [tuple(part) for part in parts] for cpu, parts in flood["lost"].items()}
    gaps = {cpu: [tuple(part) for part in parts] for cpu, parts in flood["gaps"].items()}
    # A loss at the very end leaves no gap: only the counters know it, and the stream says so.
    for cpu, parts in gaps.items():
        assert said[cpu][: len(parts)] == parts
        assert len(said[cpu]) - len(parts) <= 1
    assert sum(count for parts in said.values() for _, count in parts) == flood["counters"]["lost"]["ring_full"]


def test_a_loss_has_the_time_when_it_happened(flood: dict[str, Any]) -> None:
    largest = flood["largest"]
    assert largest["count"] > 100_000, "the tracer was not stopped long enough: the test proved nothing"
    assert largest["before_ns"] <= largest["ts_ns"] <= largest["behind_ns"]


def test_a_recording_of_some_events_holds_what_its_footer_counts(
    workloads: Workloads, indexed: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "run.flak"
    command = workloads.command("preads", indexed, 1009, 1)
    with flak.trace(command=command, events=["read"]) as session, Writer(recording, session.header()) as writer:
        session.record(writer)
        writer.close(session.stats, session.sequences())
    with flak.open(recording) as source:
        *events, counters = source
    assert {event.op for event in events} <= {"read", "pread64", "fork", "exec", "exit"}
    assert len(events) == counters.written
    assert source.warnings == []
