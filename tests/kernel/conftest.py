"""Fixtures of the kernel tests.

They skip for one of two reasons, and say which: FLAK itself says that this machine or user cannot trace
(`NotSupported`, `NotPermitted`), or a tool that a test compares with is not installed. With FLAK_REQUIRE_KERNEL=1 the
first is a failure: a CI run that silently traced nothing proves nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import pytest

import flak
from flak.errors import NotPermitted, NotSupported

from .running import PATIENCE, Run, Workloads, trace_command, trace_commands

DEADLINE = 30 * PATIENCE  # seconds a test may take; the slowest takes two
INDEXED = b"".join(number.to_bytes(4, "little") for number in range(65536))
FILE = object()  # among a workload's arguments: see `together`


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Turns a trace that never ends into a failure."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took more than {DEADLINE} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(DEADLINE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def workloads(tmp_path_factory: pytest.TempPathFactory) -> Workloads:
    """The programs of tests/workloads/, by name: compiled here, or those in the folder FLAK_TEST_WORKLOADS."""
    if built := os.environ.get("FLAK_TEST_WORKLOADS"):
        return Workloads(None, Path(built))
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler (cc) to build tests/workloads/ with")
    return Workloads(compiler, tmp_path_factory.mktemp("workloads"))


@pytest.fixture(scope="session")
def privileged() -> dict[str, str]:
    """For tests that trace: is that possible here? Tried once, with a command that does nothing.

    The value is what FLAK says it cannot see on this kernel, by concern.
    """
    try:
        with flak.trace(command=["true"], duration=10) as session:
            for _ in session:
                pass
    except (NotPermitted, NotSupported) as error:
        give_up(f"FLAK cannot trace here: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    return session.missing


@pytest.fixture(scope="session")
def sees_faults(privileged: dict[str, str]) -> None:
    """For tests of page faults: does this kernel let FLAK see them?"""
    if "page faults" in privileged:
        give_up(f"FLAK cannot see page faults here: {privileged['page faults']}")


@pytest.fixture(scope="session")
def sees_io_uring(privileged: dict[str, str]) -> None:
    """For tests of requests of io_uring."""
    skip_unseen("io_uring", privileged)


@pytest.fixture(scope="session")
def sees_aio(privileged: dict[str, str]) -> None:
    """For tests of io_submit."""
    skip_unseen("aio", privileged)


def skip_unseen(concern: str, missing: dict[str, str]) -> None:
    """Skips where FLAK says that the kernel does not let it see something, as older ones do."""
    if concern in missing:
        pytest.skip(f"FLAK cannot see that here: {concern}: {missing[concern]}")


def give_up(reason: str) -> NoReturn:
    """Skips, or fails where FLAK_REQUIRE_KERNEL=1 asks for a machine that can."""
    if os.environ.get("FLAK_REQUIRE_KERNEL") == "1":
        pytest.fail(f"{reason}; FLAK_REQUIRE_KERNEL=1 asks for a machine where it can")
    pytest.skip(reason)


class Traced(Protocol):
    """`traced(workload, *args, **options)`: see the fixture."""

    def __call__(self, name: str, *args: object, **options: Any) -> Run: ...


@pytest.fixture
def traced(privileged: dict[str, str], workloads: Workloads, tmp_path: Path) -> Traced:
    """Runs a workload under FLAK; keyword arguments are those of `flak.trace`. Returns a `Run`."""

    def run(name: str, *args: object, **options: Any) -> Run:
        return trace_command(workloads.command(name, *args), tmp_path, **options)

    return run


class Together(Protocol):
    """`together(cases)`: see the fixture."""

    def __call__(self, cases: Iterable[Case], *, content: bytes = ...) -> Runs: ...


Case = tuple[object, ...]


class Runs(dict[Case, tuple[Run, Path]]):
    """By case: its run, and the file that it had. Looked up, a run must have succeeded."""

    def __getitem__(self, case: Case) -> tuple[Run, Path]:
        run, file = super().__getitem__(case)
        assert run.status == 0, run.output
        return run, file


@pytest.fixture(scope="module")
def together(privileged: dict[str, str], workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Runs a workload for each case, which is its name and its arguments, all in one trace.

    FILE among the arguments becomes a file of the case's own. content: what is in it. So does a function, which makes
    the file, or whatever is to be there: it is called with the path.
    """

    def run(cases: Iterable[Case], *, content: bytes = INDEXED) -> Runs:
        cases = list(cases)
        folder = tmp_path_factory.mktemp("together")
        files = [folder / f"file-{number}" for number in range(len(cases))]

        def given(argument: object, file: Path) -> object:
            if argument is FILE:
                file.write_bytes(content)
            elif callable(argument):
                argument(file)
            else:
                return argument
            return file

        commands = [
            workloads.command(str(name), *(given(argument, file) for argument in arguments))
            for file, (name, *arguments) in zip(files, cases, strict=True)
        ]
        return Runs(zip(cases, zip(trace_commands(commands, folder), files, strict=True), strict=True))

    return run


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A file of the 32-bit numbers 0 … 65535: what is read tells where."""
    path = tmp_path / "indexed"
    path.write_bytes(INDEXED)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    path = tmp_path / "folder"
    path.mkdir()
    return path
