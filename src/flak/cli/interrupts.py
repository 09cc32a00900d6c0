"""Signals that end a run: the first one stops it in order, the second one abandons it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["Abandoned", "die_by", "stopping"]


class Abandoned(BaseException):
    """A second signal came while the run was being ended. `number` is that signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """While inside, ^C, SIGTERM and SIGHUP call `stop`; another one raises Abandoned.

    What was ignored when FLAK was started (nohup, a shell's background job) stays ignored.
    """
    is_stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        if is_stopping:
            raise Abandoned(number)
        is_stopping = True
        if number == signal.SIGINT and os.isatty(2):
            os.write(2, b"\n")  # ends the line in which the terminal shows ^C
        stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, handle)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def die_by(number: int) -> NoReturn:
    """End FLAK by a signal, as the command or the user ended it; without a second core dump."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with contextlib.suppress(OSError):  # SIGKILL has no handler to take away
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # a signal that can't be sent to oneself, as in PID 1 of a container
