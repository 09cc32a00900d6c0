"""Where finished lines go: a pipe or a file, which get every one of them, written seldom; or any stream, at once.

An outlet takes whole lines (`put`) and may write them later, on a thread of its own, because nobody calls it while
nothing happens. It knows nothing of events. For terminals that are slow there is `terminal`; sinks are the users.
"""

from __future__ import annotations

import select
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from io import RawIOBase
from typing import Protocol

from flak.errors import FlakError, OutputError

__all__ = ["Collected", "Deferred", "Direct", "Outlet", "ReaderGone", "encoded", "name_of", "write_text"]

COLLECTED_BYTES = 64 << 10
"""What one write to a pipe takes."""

COLLECTED_S = 0.1
"""How long lines are collected after some were written. What comes after a silence is written at once."""


class ReaderGone(Exception):
    """The other end of a pipe was closed: the run ends, quietly."""


class Outlet(Protocol):
    """What takes finished lines. All of it raises as `write_text` does."""

    hidden_count: int
    """Lines that were dropped because they would have been waited for."""

    def put(self, lines: Sequence[str]) -> None:
        """Take whole lines."""

    def drain(self) -> None:
        """Write what is left, however long it takes: what comes next is too important to be dropped."""

    def close(self) -> None:
        """Write what is left and let go. The stream stays the caller's. May be called twice."""


def encoded(text: str) -> bytes:
    """The bytes of a text."""
    # Names are escaped where they come from; the error handler is for what slipped through (JSON reads "\udcff").
    return text.encode("utf-8", "backslashreplace")


def name_of(stream: RawIOBase) -> str:
    """What people call a stream: its file, or "stdout"."""
    name = getattr(stream, "name", "the output")
    if isinstance(name, int):
        return {1: "stdout", 2: "stderr"}.get(name, f"descriptor {name}")
    return str(name)


def write_text(stream: RawIOBase, text: str) -> None:
    """Write all of a text. ReaderGone when nobody reads it, OutputError when it can't be kept."""
    _write(stream, encoded(text))


def _write(stream: RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            taken = stream.write(rest)
            if taken is None:  # somebody made it non-blocking
                select.select([], [stream], [])
            rest = rest[taken or 0 :]
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise OutputError(f"cannot write {name_of(stream)}: {error.strerror}") from error


class Direct:
    """Writes at once and waits for it."""

    hidden_count = 0

    def __init__(self, stream: RawIOBase) -> None:
        self._stream = stream

    def put(self, lines: Sequence[str]) -> None:
        """Write the lines."""
        write_text(self._stream, "".join(lines))

    def drain(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing is left."""


class Deferred(ABC):
    """Base of outlets that write some lines later. Says how a thread does that; what and when, subclasses say.

    Their methods run with the lock held. An error that the thread meets is raised by the next call.
    """

    hidden_count = 0

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_idle = False  # the thread has nothing to write
        self._is_closed = False
        self._error: FlakError | ReaderGone | None = None

    def put(self, lines: Sequence[str]) -> None:
        """Take whole lines; write what has to be written now."""
        with self._changed:
            self._raise_error()
            self._take(lines)
            if self._has_rest():
                self._wake()

    def drain(self) -> None:
        """Write what is left, and wait for it."""
        with self._changed:
            self._raise_error()
            self._finish()

    def close(self) -> None:
        """Write what is left, and end the thread."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._changed.notify()
        if self._thread:
            self._thread.join()
        self._raise_error()
        self._finish()

    @abstractmethod
    def _take(self, lines: Sequence[str]) -> None:
        """Keep lines for later, or write them."""

    @abstractmethod
    def _has_rest(self) -> bool:
        """Something waits to be written later."""

    @abstractmethod
    def _await_turn(self) -> None:
        """Wait until `_write_rest` has something to do, or a little less. Only called when there is a rest."""

    @abstractmethod
    def _write_rest(self) -> None:
        """Write what is due."""

    @abstractmethod
    def _finish(self) -> None:
        """Write the rest, however long it takes. The thread waits, or has ended."""

    def _raise_error(self) -> None:
        if self._error:
            error, self._error = self._error, None
            raise error

    def _wake(self) -> None:
        if self._thread is None:
            # A daemon, so that a run which was abandoned does not wait for its reader.
            self._thread = threading.Thread(target=self._run, name="flak-output", daemon=True)
            self._thread.start()
        elif self._is_idle:
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                self._is_idle = not self._has_rest()
                if self._is_idle:
                    self._changed.wait()
                    continue
                self._await_turn()
                try:
                    self._write_rest()
                except (FlakError, ReaderGone) as error:
                    self._error = error


class Collected(Deferred):
    """For pipes and files: lines are written when there are 64 KiB of them, or nothing was written for 100 ms.

    A pipe that is full is waited for. Nothing is dropped.
    """

    def __init__(self, stream: RawIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: list[bytes] = []
        self._size = 0
        self._due = 0.0

    def _take(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        data = encoded("".join(lines))
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= COLLECTED_BYTES:
            self._finish()
        else:
            self._write_rest()

    def _has_rest(self) -> bool:
        return bool(self._waiting)

    def _await_turn(self) -> None:
        self._changed.wait(max(self._due - time.monotonic(), 0))

    def _write_rest(self) -> None:
        if self._waiting and time.monotonic() >= self._due:
            self._finish()

    def _finish(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()  # first: what can't be written is not tried again
        self._size = 0
        _write(self._stream, data)
        self._due = time.monotonic() + COLLECTED_S
