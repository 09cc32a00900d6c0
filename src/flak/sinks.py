"""Where events go when people or programs read them as they come: columns of text, or JSON lines.

A sink takes events one by one (`write`), is told when a drain round is over (`flush`), and is closed. It does not
know whether the events are live or recorded, and interprets nothing: the closing table is `report`'s. There is a line
per access, so making one may take two microseconds at most; keep `_access` that cheap.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import RawIOBase
from typing import Any, Protocol

from flak.errors import OutputError
from flak.events import (
    Access,
    Close,
    Counters,
    Dup,
    Event,
    Exec,
    Exit,
    Fault,
    Fork,
    Lost,
    Mark,
    Mmap,
    Open,
    Read,
    Seek,
    Task,
    Write,
    as_dict,
)
from flak.text import elide_path, format_latency, format_size

__all__ = ["Clock", "JsonLinesSink", "ReaderGone", "Sink", "TextSink", "write_text"]

SLOW_NS = 10_000_000
"""From here on a latency is set off in colour: no local disk should take that long."""

_LEAST_ROOM = 12  # columns of a path, even where a line then wraps
_PENDING_LINES = 512  # about 64 KiB, what one write to a pipe takes


class ReaderGone(Exception):
    """The other end of a pipe was closed: the run ends, quietly."""


def write_text(stream: RawIOBase, text: str) -> None:
    """Write all of a text. ReaderGone when nobody reads it, OutputError when it can't be kept."""
    # Names are escaped where they come from; the error handler is for what slipped through (JSON reads "\udcff").
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    try:
        while data:
            data = data[stream.write(data) or 0 :]
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        name = getattr(stream, "name", "the output")
        raise OutputError(f"cannot write {name}: {error.strerror}") from error


class Sink(Protocol):
    """What events are written to."""

    def write(self, event: Event) -> None:
        """Take one event."""

    def flush(self) -> None:
        """A round is over: show what was written so far."""

    def close(self) -> None:
        """Write what is left. The stream stays the caller's. May be called twice."""


class _LineSink:
    """Lines are collected, and written when a round is over or enough have come."""

    def __init__(self, stream: RawIOBase) -> None:
        self._stream = stream
        self._lines: list[str] = []

    def flush(self) -> None:
        """Write the lines collected so far. Raises as `write_text` does; the lines are gone then."""
        text = "".join(self._lines)
        self._lines.clear()
        write_text(self._stream, text)

    def close(self) -> None:
        """Write what is left."""
        self.flush()

    def _add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= _PENDING_LINES:
            self.flush()


class JsonLinesSink(_LineSink):
    """One JSON object a line, in the words of docs/events.md. The last event written should be the `Counters`."""

    _encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def write(self, event: Event) -> None:
        """Add the event's object."""
        self._add(self._encode(as_dict(event)) + "\n")


@dataclass(slots=True, frozen=True)
class Clock:
    """Places an event's time, CLOCK_BOOTTIME, in the run and in the world.

    `start_ns` is when tracing began; an event's time plus `wall_offset_ns` is nanoseconds since 1970.
    """

    start_ns: int
    wall_offset_ns: int

    def stamp(self, style: str) -> tuple[str, Callable[[int], str]]:
        """Title of the time column, and its text for a `ts_ns`; style is "rel", "wall", "unix" or "boot"."""
        start, offset = self.start_ns, self.wall_offset_ns
        if style == "wall":
            return "TIME           ", lambda ts_ns: _wall_text(ts_ns + offset)
        if style == "unix":
            return "          UNIX(s)", lambda ts_ns: _SECONDS_UNIX % ((ts_ns + offset) // 1000 / 1e6)
        if style == "boot":
            return "       BOOT(s)", lambda ts_ns: _SECONDS_BOOT % (ts_ns / 1e9)
        return " TIME(s)", lambda ts_ns: _SECONDS % ((ts_ns - start) / 1e9)


_SECONDS, _SECONDS_BOOT, _SECONDS_UNIX = "%8.4f", "%14.6f", "%17.6f"


def _wall_text(unix_ns: int) -> str:
    second, rest = divmod(unix_ns, 1_000_000_000)
    return f"{_clock_text(second)}.{rest // 1000:06}"


@lru_cache(maxsize=8)
def _clock_text(unix_s: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix_s))


_LINE = "%s %s %s %6s %5s %6s %s\n"
"""Time, comm and tid, op, offset, size, latency, file and notes."""

_RED, _YELLOW, _RESET = "\033[31m", "\033[33m", "\033[0m"
_OP_COLORS: dict[type[Event], str] = {Read: "\033[36m", Write: "\033[35m", Fault: "\033[32m"}

# Plain ints: one operation with an IntFlag costs as much as the rest of a line.
_ANY_MARK = sum(mark for mark in Mark if mark < Mark.IS_WRITE)
_UNFINISHED, _FAULT_BITS = int(Mark.UNFINISHED), int(Mark.IS_MAJOR | Mark.IS_WRITE)
_FAULT_NOTES = {
    0: "  minor r",
    int(Mark.IS_WRITE): "  minor w",
    int(Mark.IS_MAJOR): "  major r",
    _FAULT_BITS: "  major w",
}


class TextSink(_LineSink):
    """Columns for people: when, who, what, where in which file, how much, how long, and what was odd about it.

    `width` is that of a terminal: long paths lose their middle so that a line fits. Without it (None) nothing is
    shortened and columns are as wide as what they can hold. `counters` events are left to the closing table.
    """

    def __init__(
        self,
        stream: RawIOBase,
        clock: Clock,
        *,
        timestamp: str = "rel",
        width: int | None = None,
        color: bool = False,
        page_size: int = mmap.PAGESIZE,
    ) -> None:
        super().__init__(stream)
        self._has_color = color
        self._page_size = page_size
        self._comm_width = 15 if width is None else 12
        title, self._stamp = clock.stamp(timestamp)
        head = _LINE % (
            title,
            f"{'COMM':{self._comm_width}} {'TID':>7}",
            "OP      ",
            "OFFSET",
            "SIZE",
            "   LAT",
            "FILE",
        )
        self._room = None if width is None else max(width - head.index("FILE"), _LEAST_ROOM)
        self._lines.append(head)
        # Texts by number. A number is never given to something else within a run, so these stay right.
        self._tasks: dict[int, str] = {}
        self._ops: dict[int, str] = {}
        self._files: dict[tuple[int, str], str] = {}

    def write(self, event: Event) -> None:
        """Add the event's line."""
        if isinstance(event, Access):
            self._add(self._access(event))
        elif isinstance(event, Lost):
            self._add(self._lost(event))
        elif not isinstance(event, Counters):
            self._add(self._process(event))

    def _access(self, event: Access) -> str:
        # Hot path: of an ordinary access nearly every piece has been made before.
        kind, marks, moved, asked = type(event), event.raw_marks, event.raw_ret, event.raw_size
        if kind is Fault:
            note = _FAULT_NOTES[marks & _FAULT_BITS]
            is_usual = not marks & _ANY_MARK
            size = _size_text(moved * self._page_size) if moved else "-"
        else:
            note = ""
            is_usual = moved == asked and not marks & _ANY_MARK and (kind is Read or kind is Write)
            size = _size_text(moved) if is_usual else _odd_size(event)
        offset, latency = event.raw_offset, event.raw_latency
        return _LINE % (
            self._stamp(event.ts_ns),
            self._tasks.get(event.task_id) or self._task(event),
            self._ops.get(event.opcode) or self._op(event),
            format_size(offset) if offset >= 0 else "-",
            size,
            format_latency(latency) if 0 <= latency < SLOW_NS else self._odd_latency(event),
            (is_usual and self._files.get((event.path_id, note))) or self._file(event, note),
        )

    def _process(self, event: Event) -> str:
        path = self._shortened(event.path, "  ".join(_details(event))) if event.path else ""
        notes = "  ".join([path, *_details(event)] if path else _details(event))
        return _LINE % (self._stamp(event.ts_ns), self._task(event), f"{event.op:8}", "-", "-", "-", notes)

    def _lost(self, event: Lost) -> str:
        text = f"*** lost {event.count} events on cpu {event.cpu}: {event.cause} ***"
        return f"{self._stamp(event.ts_ns)} {self._paint(_RED, text)}\n"

    def _task(self, event: Any) -> str:
        task: Task | None = event.task
        if task is None:
            return f"{'?':{self._comm_width}} {'?':>7}"
        text = self._tasks[task.task_id] = f"{task.comm[: self._comm_width]:{self._comm_width}} {task.tid:7}"
        return text

    def _op(self, event: Access) -> str:
        text = self._ops[event.opcode] = self._paint(_OP_COLORS.get(type(event)), f"{event.op:8}")
        return text

    def _odd_latency(self, event: Access) -> str:
        """A latency that is unknown or slow, or the age (">") of a call that has not returned."""
        if event.raw_latency < 0:
            return "-"
        age = ">" if event.raw_marks & _UNFINISHED else ""
        return self._paint(_YELLOW, f"{age + format_latency(event.raw_latency):>6}")

    def _file(self, event: Access, usual: str) -> str:
        """The file, and behind it what the columns can't say; kept for the next line when that is the usual note."""
        error, details, marks = event.errno, _details(event), _marks(event)
        failure = f"  {error}" if error else ""
        while self._room is not None and details and self._room < _LEAST_ROOM + len(failure + _joined(details, marks)):
            details.pop()  # a terminal is too narrow for everything; flags of an open go first
        notes = _joined(details, marks)
        text = self._shortened(event.path or "?", failure + notes)
        if error:
            return f"{text}  {self._paint(_RED, error)}{notes}"
        if notes == usual and event.file:
            self._files[event.path_id, usual] = text + notes
        return text + notes

    def _shortened(self, path: str, notes: str) -> str:
        return path if self._room is None else elide_path(path, max(self._room - len(notes), _LEAST_ROOM))

    def _paint(self, color: str | None, text: str) -> str:
        return f"{color}{text}{_RESET}" if color and self._has_color else text


_size_text = lru_cache(maxsize=4096)(format_size)  # offsets hardly ever come twice, sizes nearly always


def _joined(details: list[str], marks: list[str]) -> str:
    return "".join(f"  {note}" for note in (*details, *marks))


def _odd_size(event: Access) -> str:
    """Bytes moved; where none were, bytes asked for; nothing where neither makes sense."""
    if isinstance(event, Seek):
        return "-"
    size = event.size_req if event.size_ret is None else event.size_ret
    return "-" if size is None else _size_text(size)


def _marks(event: Access) -> list[str]:
    """Marks that the line has no better word for: an errno says that the path is a claim."""
    return [mark for mark in event.marks if not (mark == "path_claimed" and event.errno)]


def _details(event: Event) -> list[str]:
    """What an event of its kind has to say beyond the columns."""
    match event:
        case Fault():
            return [_FAULT_NOTES[event.raw_marks & _FAULT_BITS].strip()]
        case Read() | Write():
            is_short = event.size_ret is not None and event.size_ret < event.raw_size
            return [f"of {format_size(event.raw_size)}"] if is_short else []
        case Open() | Dup() | Close():
            return _descriptor_details(event)
        case Seek():
            whence = _WHENCE.get(event.raw_size, str(event.raw_size))
            return [whence if event.arg_offset is None else f"{whence} {event.arg_offset}"]
        case Mmap():
            return [] if event.prot is None else [_protection(event.prot, event.map_flags or 0)]
        case Fork():
            is_thread = event.child_tid != event.child_pid
            return [f"thread {event.child_tid}" if is_thread else f"child {event.child_pid}"]
        case Exec():
            is_usual = event.argv0 in ("", event.path, (event.path or "").rpartition("/")[2])
            return [] if is_usual else [f"as {event.argv0}"]
        case Exit():
            return [_exit_status(event.exit_code) if event.is_last else "thread"]
    return []


def _descriptor_details(event: Access) -> list[str]:
    """Descriptors given and made, and how a file was opened."""
    words = []
    if event.fd is not None and not isinstance(event, Open):  # there it is the folder's
        words.append(f"fd {event.fd}")
    if event.new_fd is not None:
        words.append(f"fd {event.new_fd}" if isinstance(event, Open) else f"to {event.new_fd}")
    if event.open_flags is not None:
        words.append(_open_flags(event.open_flags))
    return words


_WHENCE = {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END", 3: "SEEK_DATA", 4: "SEEK_HOLE"}
_ACCESS_MODES = {os.O_RDONLY: "O_RDONLY", os.O_WRONLY: "O_WRONLY", os.O_RDWR: "O_RDWR"}

# By this machine's architecture. Flags that contain another one's bit stand before it.
_OPEN_FLAGS = {
    name: getattr(os, name)
    for name in (
        "O_TMPFILE", "O_SYNC", "O_DSYNC", "O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK",
        "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_ASYNC", "O_DIRECT", "O_NOATIME", "O_PATH",
    )
}  # fmt: skip


@lru_cache(maxsize=256)
def _open_flags(flags: int) -> str:
    """ "O_RDWR|O_CREAT": flags of an open by name, bits without one in hex."""
    words = [_ACCESS_MODES.get(flags & os.O_ACCMODE, "O_ACCMODE")]
    rest = flags & ~os.O_ACCMODE
    for name, bits in _OPEN_FLAGS.items():
        if rest & bits == bits:
            words.append(name)
            rest &= ~bits
    return "|".join([*words, hex(rest)] if rest else words)


def _protection(prot: int, flags: int) -> str:
    """ "r-xp": protection and sharing, as /proc/PID/maps shows them."""
    letters = "".join(
        letter if prot & bit else "-"
        for letter, bit in (("r", mmap.PROT_READ), ("w", mmap.PROT_WRITE), ("x", mmap.PROT_EXEC))
    )
    return letters + ("s" if flags & mmap.MAP_SHARED else "p")


def _exit_status(code: int) -> str:
    """A wait(2) status in words."""
    return f"signal {code & 0x7F}" if code & 0x7F else f"status {code >> 8}"
