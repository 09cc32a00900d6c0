"""A terminal as an outlet that never makes anybody wait: what a slow one can't take is dropped, and said to be.

A terminal is slow over ssh, and takes nothing between ^S and ^Q. Waiting for it would stop the drain, and events would
be lost that the closing table should count. So lines wait here instead, a megabyte of them at most. Used for live
lines only: a recording can wait.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Sequence
from io import RawIOBase
from pathlib import Path

from flak.errors import OutputError
from flak.outlets import Deferred, Direct, Outlet, ReaderGone, encoded, name_of

__all__ = ["Terminal", "terminal_outlet"]

MOST_WAITING = 1 << 20
"""Bytes that wait for a terminal; about ten thousand lines. A burst is shown whole, and a reader can catch up."""

_POLL_MS = 50  # how soon a thread that waits for the terminal sees that it is to end
_PAUSE_S = 0.01  # a terminal may be ready for a byte, and a line break needs room for two


def terminal_outlet(stream: RawIOBase, notice: Callable[[int], str]) -> Outlet:
    """The outlet for a stream that is a terminal; one that waits where the terminal can't be opened anew.

    notice: the line that stands for so many lines that were dropped.
    """
    descriptor = _reopened(stream.fileno())
    return Direct(stream) if descriptor is None else Terminal(descriptor, notice, name=name_of(stream))


def _reopened(descriptor: int) -> int | None:
    """The terminal as an open file description of our own. The one we were given is shared with the shell and with
    the traced command, which don't expect it to be non-blocking.
    """
    try:
        name = Path(os.ttyname(descriptor))
        if name.name == "ptmx":  # opening it makes another terminal
            return None
        ours = os.open(name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # a terminal of another container, or of another user
        return None
    if os.path.samestat(os.fstat(ours), os.fstat(descriptor)):
        return ours
    os.close(ours)
    return None


class Terminal(Deferred):
    """Lines wait in a queue while the terminal does not take them; while the queue is full, new ones are dropped.

    Once the queue is empty again, a notice says how many. `descriptor` is non-blocking and becomes the outlet's own.
    Only whole lines are dropped, so colours don't leak and lines don't run into each other.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], str], *, name: str = "the terminal") -> None:
        super().__init__()
        self._descriptor = descriptor
        self._notice = notice
        self._name = name
        self._queue = bytearray()
        self._untold = 0  # lines dropped since the last notice
        self._is_stuck = False  # it said that it could be written to, and took nothing

    def close(self) -> None:
        """Wait until the terminal has taken what is left, and let go of it."""
        try:
            super().close()
        finally:
            is_in_use = self._thread and self._thread.is_alive()  # only when somebody would not wait for its end
            if self._descriptor >= 0 and not is_in_use:
                os.close(self._descriptor)
                self._descriptor = -1

    def _take(self, lines: Sequence[str]) -> None:
        self._write_rest()
        data = encoded("".join(lines))
        # The first drop goes on until all has been taken: else notices and lines would take turns.
        if self._untold or (self._queue and len(self._queue) + len(data) > MOST_WAITING):
            self._untold += len(lines)
            self.hidden_count += len(lines)
            return
        self._queue += data
        self._write_rest()

    def _has_rest(self) -> bool:
        return bool(self._queue)

    def _await_turn(self) -> None:
        self._changed.release()
        try:
            self._wait()
        finally:
            self._changed.acquire()

    def _finish(self) -> None:
        self._write_rest()
        while self._queue:
            self._wait()
            self._write_rest()

    def _wait(self) -> None:
        """Wait until the terminal takes something, but not long."""
        poll = select.poll()  # one for each: the thread may be waiting as well
        poll.register(self._descriptor, select.POLLOUT)
        if poll.poll(_POLL_MS) and self._is_stuck:
            time.sleep(_PAUSE_S)

    def _write_rest(self) -> None:
        """Write until the terminal takes no more. The notice follows the last line that waited."""
        self._is_stuck = True
        try:
            while self._queue:
                del self._queue[: os.write(self._descriptor, self._queue)]
                self._is_stuck = False
                if self._untold and not self._queue:
                    self._queue += encoded(self._notice(self._untold))
                    self._untold = 0
        except BlockingIOError:
            return
        except OSError as error:
            self._queue.clear()
            self._untold = 0
            if error.errno in (errno.EIO, errno.EPIPE):  # its window was closed
                raise ReaderGone from None
            raise OutputError(f"cannot write {self._name}: {error.strerror}") from error
