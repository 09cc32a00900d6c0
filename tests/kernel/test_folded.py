"""A lost access still counts: with a ring of 56 accesses most are lost, and sums per file are exact all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.analysis import analyse
from flak.events import Access, Fault, Folded, as_dict

from .conftest import Traced
from .running import Run, trace_command

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

TINY = 4096  # bytes of ring
READS, WRITES, STATS, THREADS = 3001, 1009, 53, 3
SUMS = 16384
FLAK = [sys.executable, "-m", "flak"]

BUSY = f"""
import os, sys, threading
folder = sys.argv[1]
def work(size):
    fd = os.open(folder + "/data", os.O_RDWR)
    for i in range({READS}):
        os.pread(fd, size, i)
        if i < {WRITES}:
            os.pwrite(fd, b"abc", i)
        if i < {STATS}:
            try:
                os.stat(folder + "/none")
            except OSError:
                pass
    os.close(fd)
threads = [threading.Thread(target=work, args=(size,)) for size in (7, 8, 9)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if os.fork() == 0:
    work(10)
    os._exit(0)
os.wait()
"""


def dumped(*arguments: object) -> list[str]:
    """What flak dump prints."""
    return subprocess.run(
        [*FLAK, "dump", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()


def amounts(run: Run, folder: Path) -> tuple[Counter[Any], Counter[Any]]:
    """Accesses, and bytes, by process, op, name and whether they failed: those seen with those lost."""
    counts: Counter[Any] = Counter()
    sizes: Counter[Any] = Counter()
    for event in run.of(Access, Folded):
        access = event.access if isinstance(event, Folded) else event
        if access.path and access.path.startswith(str(folder)):
            key = access.pid, access.op, Path(access.path).name, access.raw_ret < 0
            counts[key] += event.count if isinstance(event, Folded) else 1
            sizes[key] += event.size_ret or 0
    return counts, sizes


@pytest.fixture
def busy(folder: Path, tmp_path: Path) -> Run:
    """Three threads, then a child, at one file."""
    (folder / "data").write_bytes(bytes(8192))
    return trace_command([sys.executable, "-c", BUSY, folder], tmp_path, buffer_size=TINY)


def test_counts_and_bytes_are_exact(busy: Run, folder: Path) -> None:
    counts, sizes = amounts(busy, folder)
    parent, child = sorted({pid for pid, *_ in counts}, key=lambda pid: counts[pid, "pread64", "data", False])[::-1]
    for pid, threads, size in ((parent, THREADS, 7 + 8 + 9), (child, 1, 10)):
        assert counts[pid, "pread64", "data", False] == threads * READS
        assert sizes[pid, "pread64", "data", False] == size * READS
        assert counts[pid, "pwrite64", "data", False] == threads * WRITES
        assert sizes[pid, "pwrite64", "data", False] == threads * WRITES * 3
        assert counts[pid, "newfstatat", "none", True] == threads * STATS
        assert counts[pid, "openat", "data", False] == threads
        assert counts[pid, "close", "data", False] == threads
    assert not any(counts[key] for key in counts if key[3] and key[1] != "newfstatat")


def test_every_lost_access_is_in_a_sum(busy: Run) -> None:
    lost = busy.stats.lost["ring_full"]
    assert lost > THREADS * READS, "hardly anything was lost: the test proved nothing"
    assert sum(event.count for event in busy.of(Folded)) == busy.stats.folded == lost
    assert busy.stats.is_exact


def test_a_recording_keeps_the_sums(folder: Path, tmp_path: Path) -> None:
    (folder / "data").write_bytes(bytes(8192))
    recording = tmp_path / "run.flak"
    record = [*FLAK, "record", "--buffer-size", str(TINY), "-q", "-o", recording]
    subprocess.run([*record, "--", sys.executable, "-c", BUSY, folder], check=True)
    with flak.open(recording) as source:
        rows = {row.path: row for row in analyse(source)}
        lost = source.stats.lost["ring_full"]
    row = rows[str(folder / "data")]
    assert row.read_count == (THREADS + 1) * READS
    assert row.read_bytes == (7 + 8 + 9 + 10) * READS
    assert row.write_count == (THREADS + 1) * WRITES
    assert row.write_bytes == (THREADS + 1) * WRITES * 3
    assert row.read_pattern_count + row.write_pattern_count + row.folded_count == row.read_count + row.write_count

    said = [json.loads(line) for line in dumped("--json", recording)]
    assert sum(event["count"] for event in said if event["op"] == "folded") == lost
    titles, line = (
        words for text in dumped("-s", "-w", recording) if (words := text.split())[-1] in ("FILE", row.path)
    )
    assert int(line[titles.index("READS")]) == row.read_count
    assert int(line[titles.index("LOST")]) == row.folded_count


def test_requests_and_faults_count_too(traced: Traced, indexed: Path, folder: Path) -> None:
    run = traced("uring", "readv", indexed, 61 * 9, 64, buffer_size=TINY)
    counts, sizes = amounts(run, indexed)
    (pid,) = {pid for pid, *_ in counts}
    assert any(event.access.via == "io_uring" for event in run.of(Folded)), "no request was lost"
    assert counts[pid, "readv", indexed.name, False] == 61 * 9
    moved = sum(step["result"] for step in run.steps if step["op"] == "readv")
    assert sizes[pid, "readv", indexed.name, False] == moved

    mapped = folder / "mapped"
    mapped.write_bytes(bytes(4096 * 1011))
    run = traced("maps", "private", mapped, 1009, buffer_size=TINY)
    faults = [e for e in run.of(Folded) if isinstance(e.access, Fault) and e.access.path == str(mapped)]
    assert faults, "no fault was lost"
    assert all(e.access.is_write for e in faults)
    assert sum(e.count for e in faults) + len(run.on(mapped, Fault)) == run.step("touch")["minflt"]


def test_sums_beyond_the_table_are_counted(folder: Path, tmp_path: Path) -> None:
    # Each open and each close of a file is a sum of its own; a busy machine may need more of them to fill the ring.
    each = "os.close(os.open(f'{sys.argv[1]}/{i}', os.O_CREAT | os.O_WRONLY))"
    program = f"import os, sys\nfor i in range(int(sys.argv[2])): {each}"
    for count in (20011, 60013, 180007):
        command = [sys.executable, "-c", program, folder, str(count)]
        run = trace_command(command, tmp_path, buffer_size=TINY, events=["open", "close"])
        lost = run.stats.lost["ring_full"]
        if lost > SUMS:
            break
    assert len(run.of(Folded)) <= SUMS
    assert run.stats.folded == sum(e.count for e in run.of(Folded))
    assert SUMS * 0.7 < run.stats.folded < lost
    assert run.stats.is_exact


def test_words(busy: Run, folder: Path) -> None:
    (event, *_) = (e for e in busy.of(Folded) if e.access.op == "pread64" and e.access.path == str(folder / "data"))
    said = as_dict(event)
    assert said["of"] == "pread64"
    assert said["path"] == str(folder / "data")
    assert said["is_write"] is False
    assert said["ino"] == (folder / "data").stat().st_ino
    assert said["first_ts_ns"] <= said["ts_ns"]
    assert said["latency_ns"] >= said["count"] * 50
    (failed, *_) = (e for e in busy.of(Folded) if e.access.path == str(folder / "none"))
    assert as_dict(failed)["has_failed"]
    assert as_dict(failed)["size_ret"] is None
