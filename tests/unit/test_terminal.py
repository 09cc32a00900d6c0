"""Terminals that take nothing for a while: nobody waits for them, and what they miss is said. With real terminals."""

from __future__ import annotations

import os
import pty
import re
import select
import termios
import threading
import time
import tty
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest

from flak.cli.outputs import standard
from flak.outlets import Direct, Outlet, ReaderGone
from flak.sinks import hidden_as_text
from flak.terminal import MOST_WAITING, Terminal, terminal_outlet

ROUND = 97  # lines


class Window:
    """A terminal (`descriptor`) and what sits in front of it: a reader that may sleep."""

    def __init__(self) -> None:
        self.controller, self.descriptor = pty.openpty()
        tty.setraw(self.descriptor)  # line breaks stay one character
        self.text = ""
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def outlet(self) -> Terminal:
        made = terminal_outlet(standard(self.descriptor), hidden_as_text)
        assert isinstance(made, Terminal)
        return made

    def read(self, wait_s: float = 0.0) -> str:
        """What is there within that time."""
        while select.select([self.controller], [], [], wait_s)[0]:
            self.text += os.read(self.controller, 1 << 16).decode()
        return self.text

    def start_reading(self) -> None:
        """Read from now on, in the background."""

        def run() -> None:
            while not self._is_over.is_set():
                self.read(0.01)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def finish(self) -> str:
        """Everything, once the writer has closed."""
        if self._thread:
            self._is_over.set()
            self._thread.join()
        return self.read(0.05)

    def close(self) -> None:
        for descriptor in (self.controller, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def window() -> Iterator[Window]:
    made = Window()
    yield made
    made.close()


def numbered(begin: int, count: int, extra: str = "") -> list[str]:
    return [f"line {number:07} {extra}{'.' * 60}\n" for number in range(begin, begin + count)]


def flood(outlet: Outlet, rounds: int) -> int:
    """Puts that many rounds; returns how many lines those were."""
    for at in range(rounds):
        outlet.put(numbered(at * ROUND, ROUND))
    return rounds * ROUND


def shown_and_hidden(text: str) -> tuple[list[int], int]:
    """Numbers of the lines that were shown, and how many the notices say were not; nothing else may be there."""
    shown, hidden = [], 0
    for line in text.splitlines():
        if match := re.fullmatch(r"line (\d{7}) \.{60}", line):
            shown.append(int(match[1]))
        else:
            match = re.fullmatch(r"\.\.\. ([\d ]+) lines? not shown: the terminal was too slow", line)
            assert match, line
            hidden += int(match[1].replace(" ", ""))
    return shown, hidden


def test_what_a_terminal_takes_it_gets_at_once(window: Window) -> None:
    outlet = window.outlet()
    outlet.put(["1\n"])
    assert window.read() == "1\n"
    outlet.put(["2\n", "3\n"])
    assert window.read() == "1\n2\n3\n"
    outlet.close()
    outlet.close()
    assert outlet.hidden_count == 0


def test_a_burst_is_shown_whole(window: Window) -> None:
    outlet = window.outlet()
    count = MOST_WAITING // 2 // 75
    outlet.put(numbered(0, count))
    window.start_reading()
    outlet.close()
    assert shown_and_hidden(window.finish()) == (list(range(count)), 0)


def test_nobody_waits_for_a_terminal_that_takes_nothing(window: Window) -> None:
    outlet = window.outlet()
    begin = time.monotonic()
    count = flood(outlet, 1009)
    assert time.monotonic() - begin < 2
    assert outlet.hidden_count > 0
    window.start_reading()
    outlet.close()
    shown, hidden = shown_and_hidden(window.finish())
    assert hidden == outlet.hidden_count
    assert len(shown) + hidden == count
    assert shown == list(range(len(shown))), "the oldest were waiting; those after them were dropped"


def test_memory_for_a_terminal_that_takes_nothing_is_bounded(window: Window) -> None:
    outlet = window.outlet()
    flood(outlet, 1009)
    assert len(outlet._queue) <= MOST_WAITING + 1000
    window.start_reading()
    outlet.close()
    window.finish()


def test_the_notice_comes_as_soon_as_the_terminal_reads_again_though_nothing_happens(window: Window) -> None:
    outlet = window.outlet()
    count = flood(outlet, 401)
    deadline = time.monotonic() + 10
    while "not shown" not in window.read(0.01):
        assert time.monotonic() < deadline
    shown, hidden = shown_and_hidden(window.text)
    assert len(shown) + hidden == count
    outlet.put(numbered(count, 1))
    assert window.read(0.05).endswith(numbered(count, 1)[0]), "and lines go on"
    outlet.close()


def test_a_terminal_that_is_slow_again_and_again_gets_every_count(window: Window) -> None:
    outlet = window.outlet()
    total = 0
    for _ in range(3):
        for at in range(401):
            outlet.put(numbered(total + at * ROUND, ROUND))
        total += 401 * ROUND
        deadline = time.monotonic() + 10
        while outlet._queue:
            window.read(0.01)
            assert time.monotonic() < deadline
    outlet.close()
    shown, hidden = shown_and_hidden(window.finish())
    assert window.text.count("not shown") == 3
    assert len(shown) + hidden == total
    assert shown == sorted(shown)


def test_output_that_was_stopped_by_a_key_is_no_different(window: Window) -> None:
    outlet = window.outlet()
    termios.tcflow(window.descriptor, termios.TCOOFF)  # what ^S does
    window.start_reading()
    count = flood(outlet, 401)
    time.sleep(0.05)
    assert window.text == ""
    termios.tcflow(window.descriptor, termios.TCOON)
    outlet.close()
    shown, hidden = shown_and_hidden(window.finish())
    assert hidden > 0
    assert len(shown) + hidden == count


def test_colours_are_never_left_open(window: Window) -> None:
    outlet = window.outlet()
    for at in range(1009):
        outlet.put([f"\033[36mline\033[0m {at:07} {'.' * 3000}\n" for _ in range(3)])
    assert outlet.hidden_count
    window.start_reading()
    outlet.close()
    for line in window.finish().splitlines():
        assert line.count("\033[36m") == line.count("\033[0m")
        assert re.fullmatch(r"\033\[36mline\033\[0m \d{7} \.{3000}|\.\.\. .* not shown: .*", line), line[:50]


def test_the_terminal_that_was_given_stays_blocking(window: Window) -> None:
    outlet = window.outlet()
    flood(outlet, 401)
    assert os.get_blocking(window.descriptor)
    window.start_reading()
    outlet.close()
    window.finish()


def test_a_window_that_was_closed_is_a_reader_that_has_gone(window: Window) -> None:
    outlet = window.outlet()
    outlet.put(["1\n"])
    os.close(window.controller)
    window.controller = -1
    with pytest.raises(ReaderGone):
        outlet.put(["2\n"])
    outlet.close()


def test_a_window_that_is_closed_while_lines_wait_is_noticed(window: Window) -> None:
    outlet = window.outlet()
    flood(outlet, 401)
    os.close(window.controller)
    window.controller = -1
    deadline = time.monotonic() + 5
    with pytest.raises(ReaderGone):
        while time.monotonic() < deadline:
            outlet.put(["more\n"])
            time.sleep(0.01)
    outlet.close()


def test_nothing_is_left_open(window: Window) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = threading.active_count()
    outlet = window.outlet()
    flood(outlet, 401)
    window.start_reading()
    outlet.close()
    window.finish()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert threading.active_count() == threads


def test_a_terminal_that_cannot_be_opened_anew_is_waited_for(monkeypatch: pytest.MonkeyPatch, window: Window) -> None:
    def fails(descriptor: int) -> str:
        raise OSError

    monkeypatch.setattr(os, "ttyname", fails)
    assert isinstance(terminal_outlet(standard(window.descriptor), hidden_as_text), Direct)


def test_another_terminal_under_the_same_name_is_not_taken(monkeypatch: pytest.MonkeyPatch, window: Window) -> None:
    other = Window()
    try:
        name = os.ttyname(other.descriptor)
        monkeypatch.setattr(os, "ttyname", lambda descriptor: name)
        assert isinstance(terminal_outlet(standard(window.descriptor), hidden_as_text), Direct)
    finally:
        other.close()


def test_the_other_side_of_a_terminal_is_not_taken_for_one(window: Window) -> None:
    assert isinstance(terminal_outlet(standard(window.controller), hidden_as_text), Direct)


def test_a_pipe_is_no_terminal() -> None:
    reading, writing = os.pipe()
    with FileIO(writing, "wb") as stream:
        assert isinstance(terminal_outlet(stream, hidden_as_text), Direct)
    os.close(reading)
