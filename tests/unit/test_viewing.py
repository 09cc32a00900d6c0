"""Lines on their way from a run to a pipe, a file or a terminal: the command line over a made-up session."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_cli
from test_cli import PATH, FakeSession

from flak.cli.app import run
from flak.errors import OutputError

session = test_cli.session
Captured = pytest.CaptureFixture[str]


@contextlib.contextmanager
def stdout_is(descriptor: int) -> Iterator[None]:
    """Standard output is something else."""
    saved = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


class Terminal:
    """A terminal of so many columns, and what it shows."""

    def __init__(self, columns: int) -> None:
        self.controller, self.descriptor = pty.openpty()
        tty.setraw(self.descriptor)
        self.resize(columns)
        self.data = b""

    def resize(self, columns: int) -> None:
        termios.tcsetwinsize(self.descriptor, (24, columns))

    def read(self) -> list[str]:
        """The lines so far."""
        while select.select([self.controller], [], [], 0.02)[0]:
            self.data += os.read(self.controller, 1 << 16)
        return self.data.decode(errors="ignore").splitlines()

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self.controller)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(100)
    yield made
    made.close()


def all_rounds_are_over(session: type[FakeSession]) -> bool:
    return bool(session.made) and session.made[0].read_count == sum(session.rounds_of_reads)


@contextlib.contextmanager
def read_once(terminal: Terminal, is_so: Callable[[], bool], *, until: str) -> Iterator[None]:
    """Meanwhile the terminal takes nothing until something is so; then everything up to a line with these words."""
    deadline = time.monotonic() + 20

    def read() -> None:
        while not is_so() and time.monotonic() < deadline:
            time.sleep(0.005)
        while not any(until in line for line in terminal.read()[-5:]) and time.monotonic() < deadline:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    yield
    reader.join()


# what is shown: -s, -q, --no-summary


def test_quiet_leaves_lines_and_table_on_stdout_and_nothing_on_stderr(
    session: type[FakeSession], capfd: Captured
) -> None:
    run(["trace", "-p", "4242"])
    usual = capfd.readouterr().out
    assert run(["trace", "-q", "-p", "4242"]) == 0
    out, err = capfd.readouterr()
    assert out == usual
    assert err == ""


def test_quiet_summary_is_the_table_alone(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-s", "-q", "-p", "4242"])
    out, err = capfd.readouterr()
    assert out.startswith("3 events")
    assert "TIME(s)" not in out
    assert err == ""


def test_quiet_without_a_table_tells_losses_and_nothing_else(session: type[FakeSession], capfd: Captured) -> None:
    for arguments in (["--no-summary", "-q"], ["--json", "-q"]):
        session.lost = 0
        run(["trace", *arguments, "-p", "4242"])
        assert capfd.readouterr().err == ""
        session.lost = 5
        run(["trace", *arguments, "-p", "4242"])
        assert capfd.readouterr().err == "flak: 3 events, 2.5s, 5 lost (ring_full 5)\n"


def test_one_event_is_one(session: type[FakeSession], capfd: Captured) -> None:
    session.rounds_of_reads = (1,)
    run(["trace", "--no-summary", "-p", "4242"])
    assert "flak: 1 event, 2.5s, 0 lost" in capfd.readouterr().err
    run(["trace", "-s", "-p", "4242"])
    assert capfd.readouterr().out.startswith("1 event, 2.5 s, 1 process, 1 file, 0 lost")


def test_quiet_tells_errors(session: type[FakeSession], capfd: Captured) -> None:
    session.refuses = OutputError("no room", "make some")
    assert run(["trace", "-q", "-p", "4242"]) == 1
    assert capfd.readouterr().err == "flak: no room\nflak: hint: make some\n"


# --fields


def test_fields_choose_and_order_columns(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-p", "4242", "--no-summary", "--fields", "op,size_ret", "--fields", "path, size"])
    header, *texts = capfd.readouterr().out.splitlines()
    assert header.split() == ["OP", "SIZE_RET", "PATH", "SIZE"]
    assert [text.split() for text in texts] == [["read", "4096", PATH, "4.0K"]] * 3


def test_fields_of_json_are_keys_in_order_and_the_accounting_stays_whole(
    session: type[FakeSession], capfd: Captured, tmp_path: Path
) -> None:
    session.lost = 5
    run(["trace", "-p", "4242", "--json", "--fields", "op,offset,addr,pid"])
    *events, lost, counters = map(json.loads, capfd.readouterr().out.splitlines())
    assert [list(event.items()) for event in events] == [
        [("op", "read"), ("file_offset", 4096 * n), ("addr", None), ("pid", 4242)] for n in range(3)
    ]
    assert lost.keys() == {"op", "ts_ns", "cpu", "first_seq", "count", "cause"}
    assert counters["lost"] == {"ring_full": 5}


def test_dump_has_fields_too(session: type[FakeSession], capfd: Captured, tmp_path: Path) -> None:
    path = str(tmp_path / "x.flak")
    run(["record", "-o", path, "-p", "4242"])
    capfd.readouterr()
    run(["dump", path, "--fields", "pid,latency_ns", "--no-summary"])
    assert [text.split() for text in capfd.readouterr().out.splitlines()] == [
        ["PID", "LATENCY_NS"],
        *[["4242", "91000"]] * 3,
    ]
    run(["dump", path, "-j", "--fields", "pid"])
    assert capfd.readouterr().out.splitlines()[:3] == ['{"pid":4242}'] * 3


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--fields", "op,ofset"], "--fields 'ofset' is not known, did you mean offset?", "choose from: time, "),
        (["--fields", "op", "-s"], "--summary has no lines", "leave out"),
        (["--fields", "op", "-o", "x.flak"], "--fields and -o x.flak exclude each other", "flak dump --fields"),
    ],
)
def test_fields_that_cannot_be_are_refused_in_one_line(
    arguments: list[str], message: str, hint: str, session: type[FakeSession], capfd: Captured
) -> None:
    assert run(["trace", "-p", "4242", *arguments]) == 2
    first, second = capfd.readouterr().err.splitlines()
    assert message in first
    assert hint in second


# terminals


def test_lines_come_at_once_and_fit_a_terminal_that_is_resized(
    session: type[FakeSession], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    seen = []

    def between(_: FakeSession) -> None:
        seen.append(len(terminal.read()))
        terminal.resize(72)

    session.rounds_of_reads = (2, 2)
    session.between_rounds = between
    with stdout_is(terminal.descriptor):
        assert run(["trace", "-p", "4242", "--color", "never"]) == 0
    lines = terminal.read()
    assert seen == [3, 5], "each round is there before the next"
    assert "…" not in lines[1] + lines[2]
    assert all("…" in line and len(line) <= 72 for line in lines[3:5])
    assert lines[5].startswith("4 events")


def test_columns_of_the_environment_win_over_the_terminal(
    session: type[FakeSession], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    with stdout_is(terminal.descriptor):
        run(["trace", "-p", "4242", "--color", "never"])
    assert all(len(line) <= 72 for line in terminal.read()[:4])


def test_a_terminal_that_takes_nothing_changes_no_count(
    session: type[FakeSession], terminal: Terminal, capfd: Captured
) -> None:
    session.rounds_of_reads = (101,) * 200
    with stdout_is(terminal.descriptor), read_once(terminal, lambda: all_rounds_are_over(session), until="0 lost"):
        assert run(["trace", "-p", "4242", "--color", "never"]) == 0
    lines = terminal.read()
    (notice,) = (line for line in lines if "not shown" in line)
    number = notice.removeprefix("... ").partition(" line")[0]
    assert sum(" read " in line for line in lines) + int(number.replace(" ", "")) == 101 * 200
    assert any(line.startswith("20 200 events") and line.endswith("0 lost") for line in lines)
    assert f"flak: {number} lines not shown: the terminal was too slow; -o FILE" in capfd.readouterr().err


def test_a_dump_waits_for_a_slow_terminal(session: type[FakeSession], terminal: Terminal, tmp_path: Path) -> None:
    session.rounds_of_reads = (101,) * 200
    path = str(tmp_path / "x.flak")
    run(["record", "-q", "-o", path, "-p", "4242"])
    begin = time.monotonic()
    with (
        stdout_is(terminal.descriptor),
        read_once(terminal, lambda: time.monotonic() > begin + 0.3, until="0 lost"),
    ):
        run(["dump", path, "--color", "never"])
    lines = terminal.read()
    assert sum(" read " in line for line in lines) == 101 * 200
    assert not any("not shown" in line for line in lines)


def test_json_on_a_terminal_tells_what_it_leaves_out_as_json_and_never_leaves_out_the_counters(
    session: type[FakeSession], terminal: Terminal
) -> None:
    session.rounds_of_reads = (101,) * 100
    session.lost = 5
    with stdout_is(terminal.descriptor), read_once(terminal, lambda: all_rounds_are_over(session), until="counters"):
        run(["trace", "--json", "-p", "4242"])
    *events, lost, counters = map(json.loads, terminal.read())
    hidden = sum(event["count"] for event in events if event["op"] == "not_shown")
    assert hidden > 0
    assert sum(event["op"] == "read" for event in events) + hidden == 101 * 100
    assert lost["count"] == 5
    assert counters["written"] == 101 * 100


# errors


def test_a_full_disk_is_told_by_the_name_of_the_stream(session: type[FakeSession], capfd: Captured) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with stdout_is(descriptor):
        assert run(["trace", "-p", "4242"]) == 1
    assert "flak: cannot write stdout: No space left on device" in capfd.readouterr().err
    os.close(descriptor)
    assert run(["trace", "-p", "4242", "-o", "/dev/full"]) == 1
    assert "flak: cannot write /dev/full: No space left on device" in capfd.readouterr().err


def test_lines_before_a_failure_are_written(session: type[FakeSession], capfd: Captured) -> None:
    def fails(made: FakeSession) -> None:
        if made.read_count == 3:
            raise OutputError("something failed")

    session.between_rounds = fails
    assert run(["trace", "-p", "4242"]) == 1
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 4
    assert "flak: something failed" in err
    assert threading.active_count() == 1
