"""The workloads do what they say: strace, which knows nothing of them, counts the same calls. FLAK takes no part."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from . import strace_log
from .running import Workloads, write_pages
from .strace_log import OPENS, TRANSFERS, Log

pytestmark = pytest.mark.kernel


def watch(command: Sequence[str], folder: Path) -> tuple[Log, Counter[str]]:
    """Runs a workload under strace: what strace saw, and how many steps of each op the workload printed."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    prefix = folder / "strace"
    run = ["strace", *strace_log.OPTIONS, "-o", str(prefix), *command]
    output = subprocess.run(run, stdout=subprocess.PIPE, check=True).stdout.decode()
    return Log(prefix), Counter(json.loads(line)["op"] for line in output.splitlines() if line.startswith("{"))


def calls_on(path: Path, command: Sequence[str], folder: Path) -> Counter[str]:
    """How often each call was made on a path, or below it. Transfers must be as many as the workload says."""
    log, said = watch(command, folder)
    counted = Counter(
        call.op
        for calls in log.threads.values()
        for call in calls
        if call.path is not None and Path(call.path).is_relative_to(path)
    )
    assert {op: counted[op] for op in said if op in TRANSFERS} == {op: said[op] for op in said if op in TRANSFERS}
    return counted


@pytest.mark.parametrize(
    ("variant", "op"),
    [
        ("read", "read"), ("readv", "readv"), ("pread64", "pread64"), ("preadv", "preadv"), ("preadv2", "preadv2"),
        ("preadv2-here", "preadv2"), ("write", "write"), ("writev", "writev"), ("pwrite64", "pwrite64"),
        ("pwritev", "pwritev"), ("pwritev2", "pwritev2"), ("pwritev2-here", "pwritev2"),
    ],
)  # fmt: skip
def test_rw_makes_23_calls(workloads: Workloads, tmp_path: Path, variant: str, op: str) -> None:
    data = tmp_path / "data"
    data.write_bytes(bytes(23 * 4099))
    assert calls_on(data, workloads.command("rw", variant, data), tmp_path)[op] == 23


@pytest.mark.parametrize(("variant", "calls"), [("write", 19), ("pwrite64", 19), ("pwritev2", 19), ("race", 2 * 1009)])
def test_append_makes_19_calls_or_twice_1009(workloads: Workloads, tmp_path: Path, variant: str, calls: int) -> None:
    log = tmp_path / "log"
    log.write_bytes(bytes(37))
    counted = calls_on(log, workloads.command("append", variant, log), tmp_path)
    assert sum(counted[op] for op in TRANSFERS) == calls
    assert log.stat().st_size == 37 + 101 * calls


@pytest.mark.parametrize(("variant", "reads"), [("all", 17), ("replace", 12), ("fork", 10), ("exec", 7)])
def test_dups_reads_through_each_copy(workloads: Workloads, folder: Path, variant: str, reads: int) -> None:
    for name in ("file", "other"):
        (folder / name).write_bytes(bytes(200))
    command = workloads.command("dups", variant, folder / "file", folder / "other")
    assert calls_on(folder, command, folder)["read"] == reads


@pytest.mark.parametrize(("variant", "reads"), [("shared", 485), ("own", 485), ("leader-first", 485), ("exec", 194)])
def test_threads_make_97_reads_each(
    workloads: Workloads, indexed: Path, tmp_path: Path, variant: str, reads: int
) -> None:
    assert calls_on(indexed, workloads.command("threads", variant, indexed, 5, 97), tmp_path)["read"] == reads


@pytest.mark.parametrize(("variant", "preads"), [("fork", 36), ("vfork", 36), ("posix_spawn", 36), ("tree", 129)])
def test_spawn_makes_36_or_129_preads(
    workloads: Workloads, indexed: Path, tmp_path: Path, variant: str, preads: int
) -> None:
    assert calls_on(indexed, workloads.command("spawn", variant, indexed), tmp_path)["pread64"] == preads


@pytest.mark.parametrize(
    ("variant", "opens", "preads"),
    [("open", 12, 11), ("rename", 2, 8), ("rename-parent", 2, 8), ("link", 3, 8)],
)
def test_names_makes_one_pread_an_open_or_eight(
    workloads: Workloads, folder: Path, tmp_path: Path, variant: str, opens: int, preads: int
) -> None:
    counted = calls_on(folder, workloads.command("names", variant, folder), tmp_path)
    files = sum(counted[op] for op in OPENS) - (2 if variant == "open" else 0)  # two folders are opened too
    assert (files, counted["pread64"]) == (opens, preads)


def test_lseek_makes_7_seeks_and_5_reads(workloads: Workloads, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    counted = calls_on(sparse, workloads.command("lseek", sparse), tmp_path)
    assert (counted["lseek"], counted["read"]) == (7, 5)


def test_preads_makes_as_many_in_each_thread_as_it_is_told(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    log, _ = watch(workloads.command("preads", indexed, 211, 3), tmp_path)
    made = [sum(call.op == "pread64" and call.path == str(indexed) for call in calls) for calls in log.threads.values()]
    assert sorted(made) == [0, 211, 211, 211]


@pytest.mark.parametrize("variant", ["private", "window"])
def test_maps_stores_fault_once_a_page(workloads: Workloads, tmp_path: Path, variant: str) -> None:
    mapped = write_pages(tmp_path / "mapped", 260)
    output = subprocess.run(workloads.command("maps", variant, mapped, 257), stdout=subprocess.PIPE, check=True).stdout
    touch = json.loads(output)
    first = min(touch["order"])
    assert sorted(touch["order"]) == list(range(first, first + 257))
    assert touch["minflt"] + touch["majflt"] == 257
