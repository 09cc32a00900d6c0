"""fio says what it will do (--write_iolog): the accesses that FLAK sees must be those, in that order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from flak.events import Fault, Read, Write

from .running import PAGE, trace_command, write_pages
from .test_io_uring import skip_without_direct, through

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

PAGES = 1024
OPS = {
    "psync": ("pread64", "pwrite64"),
    "vsync": ("readv", "writev"),
    "pvsync": ("preadv", "pwritev"),
    "pvsync2": ("preadv2", "pwritev2"),
}


class Operation(NamedTuple):
    """One line of an iolog: "read" or "write", offset and length in bytes."""

    action: str
    offset: int
    length: int


def read_iolog(path: Path) -> list[Operation]:
    """The reads and writes of an iolog, version 2 or 3 (which has a time before each line)."""
    head, *lines = path.read_text().splitlines()
    skipped = 1 if "version 3" in head else 0
    operations = []
    for line in lines:
        _name, action, *numbers = line.split()[skipped:]
        if action in ("read", "write"):
            operations.append(Operation(action, int(numbers[0]), int(numbers[1])))
    return operations


@pytest.fixture
def data(tmp_path: Path) -> Path:
    # Written beforehand, so that fio has no reason to lay it out.
    return write_pages(tmp_path / "data", PAGES)


def fio_command(data: Path, iolog: Path, engine: str, seed: int, *options: str) -> list[str]:
    fio = shutil.which("fio")
    if fio is None:
        pytest.skip("fio is not installed")
    return [
        fio, "--name=job", f"--filename={data}", f"--ioengine={engine}", f"--randseed={seed}", "--invalidate=0",
        f"--size={PAGES * PAGE}", f"--write_iolog={iolog}", *options,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [23, 4099])
@pytest.mark.parametrize("engine", OPS)
def test_accesses_are_those_of_the_log_in_order(data: Path, tmp_path: Path, engine: str, seed: int) -> None:
    iolog = tmp_path / "iolog"
    command = fio_command(data, iolog, engine, seed, "--rw=randrw", "--bsrange=512-16k")
    run = trace_command(command, tmp_path)
    operations = read_iolog(iolog)
    seen = [Operation("write" if e.is_write else "read", e.file_offset, e.size_ret) for e in run.on(data, Read, Write)]
    assert len(operations) > 200
    assert seen == operations
    assert {e.op for e in run.on(data, Read, Write)} <= set(OPS[engine])


REQUESTS = {
    "io_uring": {"read", "write"},
    "io_uring --nonvectored=0": {"readv", "writev"},
    "io_uring --fixedbufs=1": {"read_fixed", "write_fixed"},
    "io_uring --registerfiles=1": {"read", "write"},
    "io_uring --registerfiles=1 --fixedbufs=1": {"read_fixed", "write_fixed"},
    "io_uring --sqthread_poll=1": {"read", "write"},
    "io_uring --sqthread_poll=1 --registerfiles=1 --nonvectored=0": {"readv", "writev"},
    "io_uring --force_async=1": {"read", "write"},
    "io_uring --direct=1": {"read", "write"},
    "libaio": {"pread", "pwrite"},
    "libaio --direct=1": {"pread", "pwrite"},
}
"""Engines with their options, and what each asks for."""


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("engine", REQUESTS)
def test_requests_are_those_of_the_log_in_order(data: Path, tmp_path: Path, engine: str, depth: int) -> None:
    name, *options = engine.split()
    if "--direct=1" in options:
        skip_without_direct(tmp_path)
    iolog = tmp_path / "iolog"
    sizes = "--bsrange=4k-16k" if "--direct=1" in options else "--bsrange=512-16k"
    command = fio_command(data, iolog, name, 23, "--rw=randrw", sizes, f"--iodepth={depth}", *options)
    run = trace_command(command, tmp_path)
    operations = read_iolog(iolog)
    road = "io_uring" if name == "io_uring" else "aio"
    requests = [e for e in through(run, Read, Write, via=road) if e.path == str(data)]
    seen = [Operation("write" if e.is_write else "read", e.file_offset, e.size_ret) for e in requests]
    assert len(operations) > 200
    if name == "libaio" and depth > 1:
        # What one io_submit hands over begins at one time.
        seen.sort()
        operations.sort()
    assert seen == operations
    assert {e.op for e in requests} == REQUESTS[engine]
    # With a polling thread fio registers its files in any case.
    assert {e.fd is None for e in requests} == {not {"--registerfiles=1", "--sqthread_poll=1"}.isdisjoint(options)}
    assert {e.marks for e in requests} == {()}
    assert {e.via for e in run.on(data, Read, Write)} == {road}
    assert run.stats.is_exact


def pages_of(operation: Operation) -> range:
    return range(operation.offset // PAGE, (operation.offset + operation.length - 1) // PAGE + 1)


@pytest.mark.usefixtures("sees_faults")
@pytest.mark.parametrize("seed", [23, 4099])
@pytest.mark.parametrize("pattern", ["randread", "randrw"])
def test_faults_of_the_mmap_engine_are_on_pages_of_the_log(data: Path, tmp_path: Path, pattern: str, seed: int) -> None:
    iolog = tmp_path / "iolog"
    command = fio_command(data, iolog, "mmap", seed, f"--rw={pattern}", "--bs=4k", "--io_size=1m")
    run = trace_command(command, tmp_path)
    touched = {page for operation in read_iolog(iolog) for page in pages_of(operation)}
    faults = run.on(data, Fault)
    assert len(touched) > 200
    assert faults
    assert {e.file_offset // PAGE for e in faults} <= touched
    if any(e.page_count is None for e in faults):
        return  # what else was mapped is not known on this kernel
    windows = {
        page
        for e in faults
        for page in range(e.file_offset // PAGE - e.pages_before, e.file_offset // PAGE - e.pages_before + e.page_count)
    }
    assert touched <= windows
