"""`flak trace` writing to what does not keep up: a terminal never holds it up, a pipe gets every line.

The ring is small and the program steady: were the lines waited for, the ring would overflow long before the end.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .running import flak_environment

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

READS = 20_011
BLINK_S = 1.0  # how long nothing is taken
STOP, GO = b"\x13", b"\x11"  # ^S and ^Q

# 10,000 reads a second, so that a 256 KiB ring is full after a third of a second.
STEADY = f"""
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
for number in range({READS}):
    os.pread(fd, 1, number % 4096)
    if number % 50 == 49:
        time.sleep(0.005)
"""

# The same in a tenth of a second, and in a ring that holds it all.
BURST = f"""
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for number in range({READS}):
    os.pread(fd, 1, number % 4096)
"""

# Reads, waits for a line on its stdin, reads again.
IN_TWO_PARTS = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for part in range(2):
    for number in range(101):
        os.pread(fd, 1, number)
    os.read(0, 1)
"""


class Window:
    """A terminal (`descriptor`) of so many columns, and what arrived at its other side."""

    def __init__(self, columns: int) -> None:
        self.controller, self.descriptor = pty.openpty()
        self.resize(columns)
        self.data = b""

    def resize(self, columns: int) -> None:
        termios.tcsetwinsize(self.controller, (24, columns))

    def type(self, keys: bytes) -> None:
        os.write(self.controller, keys)

    def wait(self) -> None:
        """Waits until there is something, and leaves it there."""
        assert select.select([self.controller], [], [], 10)[0], "nothing was shown"

    def read(self, seconds: float) -> None:
        """Takes what comes within that time, or until the program has ended."""
        deadline = time.monotonic() + seconds
        while select.select([self.controller], [], [], max(deadline - time.monotonic(), 0))[0]:
            try:
                self.data += os.read(self.controller, 1 << 16)
            except OSError:  # nobody has the terminal open any more
                return

    @property
    def lines(self) -> list[str]:
        return self.data.decode(errors="replace").splitlines()

    def close_descriptor(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close(self) -> None:
        self.close_descriptor()
        os.close(self.controller)


@pytest.fixture
def window() -> Iterator[Window]:
    made = Window(100)
    yield made
    made.close()


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A file whose path has 250 characters, so that lines are long."""
    folder = tmp_path
    while len(str(folder)) < 190:
        folder /= "a-folder-of-a-data-set"
    folder.mkdir(parents=True)
    path = folder / "shard-".ljust(249 - len(str(folder)), "0")
    path.write_bytes(bytes(4096))
    return path


def trace(stdout: int, command: Sequence[str], *options: str) -> subprocess.Popen[bytes]:
    """Starts `flak trace` with its lines and table on stdout."""
    environment = flak_environment(TERM="xterm")
    environment.pop("COLUMNS", None)
    flak_trace = [sys.executable, "-m", "flak", "trace", "-e", "read", "-o", "-", *options, "--", *command]
    pipe = subprocess.PIPE
    return subprocess.Popen(flak_trace, stdin=pipe, stdout=stdout, stderr=pipe, env=environment)


def number_in(pattern: str, text: str) -> int:
    """The number of a line, whose digits are in groups of three."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match, text[-2000:]
    return int(match[1].replace(" ", ""))


@pytest.mark.parametrize("is_stopped", [False, True], ids=["asleep", "stopped by a key"])
def test_a_terminal_that_takes_nothing_for_a_second_costs_lines_and_no_event(
    window: Window, deep: Path, is_stopped: bool
) -> None:
    command = [sys.executable, "-c", STEADY, str(deep)]
    with trace(window.descriptor, command, "--buffer-size", "256K", "-w", "--color", "never") as process:
        window.close_descriptor()
        window.wait()
        if is_stopped:
            window.type(STOP)
            window.read(BLINK_S)
            window.type(GO)
        else:
            time.sleep(BLINK_S)
        window.read(20)
        _, talk = process.communicate(timeout=10)
    assert process.returncode == 0
    text = "\n".join(window.lines)
    head, *body = window.lines[: next(at for at, line in enumerate(window.lines) if " events, " in line)]
    assert head.split()[0] == "TIME(s)"
    shown = [line for line in body if re.match(r" +\d+\.\d{4} ", line)]
    notices = [line for line in body if re.fullmatch(r"\.\.\. [\d ]+ lines? not shown: .*", line)]
    assert len(shown) + len(notices) == len(body), "all lines are whole"
    assert sum(line.endswith(f" {deep}") for line in shown) > 1000
    hidden = sum(number_in(r"^\.\.\. ([\d ]+) line", notice) for notice in notices)
    assert hidden > 0
    assert f"{hidden:,} lines not shown".replace(",", " ").encode() in talk
    headline = number_in(r"^([\d ]+) events, .* 0 lost$", text)
    assert len(shown) + hidden == headline
    assert re.search(rf"^ *{READS} .* {re.escape(str(deep))}$", text, re.MULTILINE), "the table counts every read"
    first = [line.split()[4] for line in shown if line.endswith(f" {deep}")][:101]
    assert first == [f"{n}B" for n in range(101)], "what waited is in order"


def test_lines_fit_a_terminal_that_is_resized_amid_the_run(window: Window, deep: Path) -> None:
    with trace(window.descriptor, [sys.executable, "-c", IN_TWO_PARTS, str(deep)], "--color", "never") as process:
        deadline = time.monotonic() + 10
        while sum("shard-0" in line for line in window.lines) < 101:
            assert time.monotonic() < deadline
            window.read(0.05)
        before = len(window.lines)
        window.resize(190)
        assert process.stdin
        process.stdin.write(b"xx")
        process.stdin.close()
        process.stdin = None
        window.close_descriptor()
        window.read(10)
        process.communicate(timeout=10)
    narrow = [line for line in window.lines[:before] if "shard-0" in line and "pread64" in line]
    wide = [line for line in window.lines[before:] if "shard-0" in line and "pread64" in line]
    assert len(narrow) == len(wide) == 101
    assert all("…" in line for line in narrow + wide)
    assert 90 <= max(map(len, narrow)) <= 100
    assert 180 <= max(map(len, wide)) <= 190
    assert process.returncode == 0


def test_a_pipe_with_a_slow_reader_gets_every_line(indexed: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with trace(writing, [sys.executable, "-c", BURST, str(indexed)], "--no-summary") as process:
        os.close(writing)
        data = b""
        while more := os.read(reading, 4096):
            data += more
            time.sleep(0.0005)
        os.close(reading)
        _, talk = process.communicate(timeout=10)
    assert process.returncode == 0
    lines = [line for line in data.decode().splitlines() if line.endswith(f" {indexed}")]
    assert len(lines) == READS
    assert [line.split()[4] for line in lines[:1009]] == [f"{n}B" for n in range(1009)]
    assert b" 0 lost" in talk
