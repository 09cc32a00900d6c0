"""Signals that end a run: the first one stops it in order, the second one abandons it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

__all__ = ["Abandoned", "abandoning", "die_by", "stopping"]


AT_ONCE_S = 0.3
"""Signals this close together are one."""


class Abandoned(BaseException):
    """FLAK is to end at once, by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def abandoning() -> Iterator[None]:
    """While inside, ^C raises Abandoned: unlike KeyboardInterrupt it means nothing to typer."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Abandoned(number)

    with _handled((signal.SIGINT,), handle):
        yield


@contextlib.contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """While inside, ^C, SIGTERM and SIGHUP call `stop`; another one raises Abandoned, unless it follows at once:
    timeout(1) and service managers send a signal to the process and to its group.
    """
    stopped_at: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_at
        now = time.monotonic()
        if stopped_at is not None:
            if now - stopped_at > AT_ONCE_S:
                raise Abandoned(number)
            return
        stopped_at = now
        if number == signal.SIGINT and os.isatty(2):
            os.write(2, b"\n")  # ends the line in which the terminal shows ^C
        stop()

    with _handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), handle):
        yield


@contextlib.contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """With this handler for those of the signals that are not ignored: nohup and a shell's & are to be respected."""
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, handler)
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
