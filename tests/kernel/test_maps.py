"""Memory maps: a fault for each that getrusage(2) counts, on the page that was touched; maps made, moved and undone."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from flak.events import Fault, Mmap, Mremap, Munmap

from .conftest import Runs, Together, Traced
from .running import PAGE, Run, Workloads, drop_from_cache, trace_command, write_pages

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("sees_faults")]

PAGES = 257
MREMAP_MAYMOVE_FIXED = 3


def in_cache(path: Path) -> None:
    write_pages(path, PAGES + 3)


def on_disk(path: Path) -> None:
    drop_from_cache(write_pages(path, PAGES + 3))


COLD = ("maps", "read", on_disk, PAGES)


@pytest.fixture(scope="module")
def maps(together: Together) -> Runs:
    variants = ["private", "window", "read", "shared", "write", "remap"]
    return together([*(("maps", variant, in_cache, PAGES) for variant in variants), COLD])


@pytest.fixture
def mapped(tmp_path: Path) -> Path:
    return write_pages(tmp_path / "mapped", PAGES + 3)


def pages_of(faults: list[Any]) -> list[int]:
    return [e.file_offset // PAGE for e in faults]


def is_in_order(part: list[int], whole: list[int]) -> bool:
    """Is `part` a subsequence of `whole`?"""
    rest = iter(whole)
    return all(page in rest for page in part)


@pytest.mark.parametrize("variant", ["private", "window"])
def test_each_store_to_a_private_map_faults_once_on_its_page(maps: Runs, variant: str) -> None:
    run, mapped = maps["maps", variant, in_cache, PAGES]
    touch = run.step("touch")
    faults = run.on(mapped, Fault)
    assert len(faults) == PAGES == touch["minflt"] + touch["majflt"]
    assert pages_of(faults) == touch["order"]
    assert {e.is_write for e in faults} == {True}


@pytest.mark.parametrize("variant", ["private", "window"])
def test_a_fault_carries_the_address_that_was_touched(maps: Runs, variant: str) -> None:
    run, mapped = maps["maps", variant, in_cache, PAGES]
    touch = run.step("touch")
    base, first = int(touch["addr"], 16), min(touch["order"])
    assert [int(e.addr, 16) // PAGE for e in run.on(mapped, Fault)] == [
        base // PAGE + page - first for page in touch["order"]
    ]


@pytest.mark.parametrize(("variant", "is_write"), [("read", False), ("shared", True)])
def test_a_shared_map_faults_as_often_as_the_kernel_accounts(maps: Runs, variant: str, is_write: bool) -> None:
    run, mapped = maps["maps", variant, in_cache, PAGES]
    touch = run.step("touch")
    faults = run.on(mapped, Fault)
    assert len(faults) == touch["minflt"] + touch["majflt"]
    assert sum(e.is_major for e in faults) == touch["majflt"]
    assert {e.is_write for e in faults} == {is_write}
    assert is_in_order(pages_of(faults), touch["order"])


@pytest.mark.parametrize("variant", ["read", "shared"])
def test_faults_on_large_folios_are_as_many_as_the_kernel_accounts(
    traced: Traced, tmp_path: Path, variant: str
) -> None:
    path = tmp_path / "large"
    with path.open("wb", buffering=0) as file:
        # One write makes folios as large as the filesystem can have, where it has them.
        file.write(bytes((PAGES + 3) * PAGE))
        os.fsync(file.fileno())
    run = traced("maps", variant, path, PAGES)
    touch = run.step("touch")
    assert len(run.on(path, Fault)) == touch["minflt"] + touch["majflt"]
    assert is_in_order(pages_of(run.on(path, Fault)), touch["order"])


def test_pages_that_did_not_fault_lie_in_the_window_of_one_that_did(maps: Runs) -> None:
    run, mapped = maps["maps", "read", in_cache, PAGES]
    faults = run.on(mapped, Fault)
    if any(e.page_count is None for e in faults):
        pytest.skip("this kernel does not tell how many pages a fault maps (mm_filemap_map_pages, Linux 6.12)")
    covered: set[int] = set()
    for fault in faults:
        first = fault.file_offset // PAGE - fault.pages_before
        covered.update(range(first, first + fault.page_count))
    assert covered.issuperset(run.step("touch")["order"])


def test_pages_read_from_storage_are_major_faults(maps: Runs) -> None:
    run, mapped = maps[COLD]
    touch = run.step("touch")
    faults = run.on(mapped, Fault)
    assert touch["majflt"] > 0, "the file was still in the page cache"
    assert sum(e.is_major for e in faults) == touch["majflt"]
    assert len(faults) == touch["minflt"] + touch["majflt"]


PERF_FAULT = re.compile(r"(\w+)/\d+ (min|maj)fault \[.*\] => (.*)@0x([0-9a-f]+) \(d.\)$")


@pytest.mark.parametrize("variant", ["read", "private", "shared", "window"])
def test_perf_sees_the_same_faults_in_the_same_order(workloads: Workloads, tmp_path: Path, variant: str) -> None:
    if not shutil.which("perf"):
        pytest.skip("perf is not installed (package linux-perf in Debian, linux-tools-generic in Ubuntu)")
    path, log = write_pages(tmp_path / "mapped", PAGES + 3), tmp_path / "perf.log"
    command = workloads.command("maps", variant, path, PAGES)
    run = trace_command(["perf", "trace", "-F", "all", "--no-syscalls", "-o", log, "--", *command], tmp_path)
    said = log.read_text() if log.exists() else ""
    if run.status or "LOST" in said or not (witnessed := re.findall(PERF_FAULT.pattern, said, re.MULTILINE)):
        pytest.skip(f"perf trace did not tell all faults here (status {run.status})")
    expected = [(kind == "maj", int(at, 16) // PAGE) for _, kind, name, at in witnessed if name == str(path)]
    assert [(e.is_major, e.file_offset // PAGE) for e in run.on(path, Fault)] == expected
    assert len(expected) == sum(run.step("touch")[kind] for kind in ("minflt", "majflt"))


MINCORE = """
import ctypes, os, random, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PROT_READ, MAP_SHARED, MADV_RANDOM, PAGE = 1, 1, 1, os.sysconf("SC_PAGESIZE")
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
start = libc.mmap(None, size, PROT_READ, MAP_SHARED, fd, 0)
assert not libc.madvise(start, size, MADV_RANDOM)
order = list(range(size // PAGE))
random.Random(7).shuffle(order)
resident = ctypes.create_string_buffer(1)
for page in order:
    assert not libc.mincore(start + page * PAGE, PAGE, resident)
    if not resident.raw[0] & 1:
        print(page)
    ctypes.c_char.from_address(start + page * PAGE).value
"""


def test_major_faults_are_on_the_pages_that_mincore_called_absent(tmp_path: Path) -> None:
    path = tmp_path / "cold"
    with path.open("wb", buffering=0) as file:
        for _ in range(601):
            file.write(bytes(PAGE))
        os.fsync(file.fileno())
    run = trace_command([sys.executable, "-c", MINCORE, path], tmp_path)
    absent = [int(line) for line in run.output.split()]
    if not absent:
        pytest.skip("this file system keeps its files in memory")
    assert pages_of([e for e in run.on(path, Fault) if e.is_major]) == absent
    assert run.stats.is_exact


def test_faults_have_latency_and_no_sizes(maps: Runs) -> None:
    run, mapped = maps["maps", "private", in_cache, PAGES]
    faults = run.on(mapped, Fault)
    assert {(e.size_req, e.size_ret, e.fd, e.via) for e in faults} == {(None, None, None, "fault")}
    assert all(e.latency_ns > 0 for e in faults)


def test_writing_from_a_map_faults_in_the_kernel(maps: Runs) -> None:
    run, mapped = maps["maps", "write", in_cache, PAGES]
    touch = run.step("touch")
    faults = run.on(mapped, Fault)
    assert len(faults) == touch["minflt"] + touch["majflt"] > 0
    assert all("kernel_fault" in e.marks for e in faults)
    assert pages_of(faults) == sorted(pages_of(faults))


def test_pages_touched_by_the_program_itself_are_not_kernel_faults(maps: Runs) -> None:
    run, mapped = maps["maps", "private", in_cache, PAGES]
    assert {e.marks for e in run.on(mapped, Fault)} == {()}


def test_populated_pages_do_not_fault_and_are_counted_as_not_decoded(traced: Traced, mapped: Path) -> None:
    run = traced("maps", "populate", mapped, PAGES)
    assert run.on(mapped, Fault) == []
    assert sum(run.stats.not_decoded.values()) > 0


def test_an_mmap_carries_where_what_and_how(maps: Runs) -> None:
    run, mapped = maps["maps", "window", in_cache, PAGES]
    (made,) = run.on(mapped, Mmap)
    assert (made.file_offset, made.size_req, made.errno) == (2 * PAGE, PAGES * PAGE, None)
    assert made.addr == run.step("touch")["addr"]
    assert made.prot == mmap.PROT_READ | mmap.PROT_WRITE
    assert made.map_flags == mmap.MAP_PRIVATE


def remapped(run: Run) -> tuple[int, int]:
    step = run.step("remap")
    return int(step["old_addr"], 16), int(step["addr"], 16)


def test_faults_before_and_after_a_move_name_the_same_file(maps: Runs) -> None:
    run, mapped = maps["maps", "remap", in_cache, PAGES]
    faults = run.on(mapped, Fault)
    assert pages_of(faults) == [5, 0, 3, 12, 7, 9, 8, 11]


def test_a_moved_map_is_seen_with_both_addresses(maps: Runs) -> None:
    run, mapped = maps["maps", "remap", in_cache, PAGES]
    old, new = remapped(run)
    (moved,) = run.on(mapped, Mremap)
    assert (int(moved.addr, 16), moved.operands.old_addr) == (new, old)
    assert (moved.size_req, moved.file_offset, moved.map_flags) == (13 * PAGE, 0, MREMAP_MAYMOVE_FIXED)


def test_parts_of_a_map_are_unmapped_with_their_place_in_the_file(maps: Runs) -> None:
    run, mapped = maps["maps", "remap", in_cache, PAGES]
    _, base = remapped(run)
    assert [(int(e.addr, 16) - base, e.file_offset, e.size_req) for e in run.on(mapped, Munmap)] == [
        (6 * PAGE, 6 * PAGE, PAGE),
        (0, 0, 6 * PAGE),
        (7 * PAGE, 7 * PAGE, 6 * PAGE),
    ]
