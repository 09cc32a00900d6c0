"""An event as a line of text for people: when, who, what, where in which file, how much, how long, what was odd.

Makes lines, writes none: `sinks` does. What follows the file is worded by `notes`; other columns than the usual ones
are `columns`'s. There is a line per access, so making one may take two microseconds at most: keep `access` that cheap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flak.events import Access, Event, Fault, File, Lost, Mark, Read, Seek, Task, Write
from flak.notes import FAULT_BITS, FAULT_NOTES, details_of, joined, marks_of
from flak.text import counted, elide_path, format_latency, format_size

__all__ = ["LEAST_ROOM", "NOTHING", "Clock", "Lines", "paint_hidden"]

SLOW_NS = 10_000_000
"""From here on a latency is set off in colour: no local disk should take that long."""

LEAST_ROOM = 12
"""Columns of a path, even where a line then wraps."""

NOTHING = "-"
"""What a column says that does not apply."""


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
_MOST_TEXTS = 8192  # of tasks, of files; then they are made anew, for a run meets ever more of them

_OP_COLORS: dict[type[Event], str] = {Read: "\033[36m", Write: "\033[35m", Fault: "\033[32m"}

# Plain ints: one operation with an IntFlag costs as much as the rest of a line.
_ANY_MARK = sum(mark for mark in Mark if mark < Mark.IS_WRITE)
_UNFINISHED = int(Mark.UNFINISHED)


def paint_hidden(text: str, *, color: bool) -> str:
    """A line about lines that are not there."""
    return f"{_YELLOW}{text}{_RESET}" if color else text


class Lines:
    """Makes lines of the usual columns. Call `fit` before the first.

    is_fitted: long paths lose their middle so that a line fits a terminal. Else nothing is shortened, and columns are
    as wide as what they can hold.
    """

    def __init__(
        self, clock: Clock, *, timestamp: str = "rel", is_fitted: bool = False, color: bool = False, page_size: int
    ) -> None:
        self.time_title, self.stamp = clock.stamp(timestamp)
        self.comm_width = 12 if is_fitted else 15
        self._has_color = color
        self._page_size = page_size
        self._room: int | None = None
        # Texts by number. A number is never given to something else within a run, so these stay right.
        self._tasks: dict[int, str] = {}
        self._ops: dict[int, str] = {}
        self._files: dict[tuple[int, str], str] = {}

    @property
    def head(self) -> str:
        """The titles."""
        who = f"{'COMM':{self.comm_width}} {'TID':>7}"
        return _LINE % (self.time_title, who, "OP      ", "OFFSET", "SIZE", "   LAT", "FILE")

    def fit(self, width: int | None) -> None:
        """From the next line on a terminal has this many columns; None: there is no terminal."""
        self.leave_room(None if width is None else max(width - self.head.index("FILE"), LEAST_ROOM))

    def leave_room(self, room: int | None) -> None:
        """From the next line on a file and its notes have this many columns; None: as many as they need."""
        if room != self._room:
            self._room = room
            self._files.clear()

    def access(self, event: Access) -> str:
        """The line of an access."""
        # Hot path: of an ordinary access nearly every piece has been made before.
        kind, marks, moved, asked = type(event), event.raw_marks, event.raw_ret, event.raw_size
        if kind is Fault:
            note = FAULT_NOTES[marks & FAULT_BITS]
            is_usual = not marks & _ANY_MARK
            size = _size_text(moved * self._page_size) if moved else "-"
        else:
            note = ""
            is_usual = 0 <= moved == asked and not marks & _ANY_MARK and (kind is Read or kind is Write)
            size = _size_text(moved) if is_usual else _odd_size(event)
        offset, latency = event.raw_offset, event.raw_latency
        return _LINE % (
            self.stamp(event.ts_ns),
            self._tasks.get(event.task_id) or self._task(event),
            self._ops.get(event.opcode) or self._op(event),
            format_size(offset) if offset >= 0 else "-",
            size,
            format_latency(latency) if 0 <= latency < SLOW_NS else self._odd_latency(event),
            (is_usual and self._files.get((event.path_id, note))) or self._file(event, note),
        )

    def process(self, event: Event) -> str:
        """The line of a fork, exec or exit."""
        return _LINE % (
            self.stamp(event.ts_ns), self._task(event), f"{event.op:8}", NOTHING, NOTHING, NOTHING, self.file(event)
        )  # fmt: skip

    def lost(self, event: Lost) -> str:
        """The line of a loss: no columns."""
        text = f"*** lost {counted(event.count, 'event')} on cpu {event.cpu}: {event.cause} ***"
        return f"{self.stamp(event.ts_ns)} {self._paint(_RED, text)}\n"

    # Single columns, for lines that have others. Not the hot path.

    def op(self, event: Event) -> str:
        """What was done."""
        return self._paint(_OP_COLORS.get(type(event)), event.op)

    def offset(self, event: Event) -> str:
        """Where in the file."""
        return NOTHING if event.file_offset is None else format_size(event.file_offset)

    def size(self, event: Event) -> str:
        """How much: bytes moved, else bytes asked for; of a fault its pages."""
        if isinstance(event, Fault):
            return format_size(event.page_count * self._page_size) if event.page_count else NOTHING
        return _odd_size(event) if isinstance(event, Access) else NOTHING

    def latency(self, event: Event) -> str:
        """How long it took."""
        if not isinstance(event, Access):
            return NOTHING
        is_usual = 0 <= event.raw_latency < SLOW_NS
        return format_latency(event.raw_latency) if is_usual else self._odd_latency(event)

    def file(self, event: Event) -> str:
        """The file and its notes."""
        if isinstance(event, Access):
            return self._file(event, None)
        path, details = _path_of(event), details_of(event)
        return "  ".join([self._shortened(path, "  ".join(details)), *details] if path else details)

    # Pieces.

    def _task(self, event: Any) -> str:
        task: Task | None = event.task
        if task is None:
            return f"{'?':{self.comm_width}} {'?':>7}"
        if len(self._tasks) >= _MOST_TEXTS:
            self._tasks.clear()
        text = self._tasks[task.task_id] = f"{task.comm[: self.comm_width]:{self.comm_width}} {task.tid:7}"
        return text

    def _op(self, event: Access) -> str:
        text = self._ops[event.opcode] = self._paint(_OP_COLORS.get(type(event)), f"{event.op:8}")
        return text

    def _odd_latency(self, event: Access) -> str:
        """A latency that is unknown or slow, or the age (">") of a call that has not returned."""
        if event.raw_latency < 0:
            return NOTHING
        age = ">" if event.raw_marks & _UNFINISHED else ""
        return self._paint(_YELLOW, f"{age + format_latency(event.raw_latency):>6}")

    def _file(self, event: Access, usual: str | None) -> str:
        """The file, and behind it what the columns can't say; kept for the next line when that is the usual note."""
        error, details, marks = event.errno, details_of(event), marks_of(event)
        failure = f"  {error}" if error else ""
        while self._room is not None and details and self._room < LEAST_ROOM + len(failure + joined(details + marks)):
            details.pop()  # a terminal is too narrow for everything; flags of an open go first
        notes = joined(details + marks)
        text = self._shortened(_path_of(event) or "?", failure + notes)
        if error:
            return f"{text}  {self._paint(_RED, error)}{notes}"
        if notes == usual and event.file:
            if len(self._files) >= _MOST_TEXTS:
                self._files.clear()
            self._files[event.path_id, notes] = text + notes
        return text + notes

    def _shortened(self, path: str, notes: str) -> str:
        return path if self._room is None else elide_path(path, max(self._room - len(notes), LEAST_ROOM))

    def _paint(self, color: str | None, text: str) -> str:
        return f"{color}{text}{_RESET}" if color and self._has_color else text


def _path_of(event: Any) -> str | None:
    """The path for people, which says whose mount namespace it is of."""
    file: File | None = getattr(event, "file", None) or getattr(event, "claim", None)
    path: str | None = event.tables.shown_path(file) if file else event.path
    return path


_size_text = lru_cache(maxsize=4096)(format_size)  # offsets hardly ever come twice, sizes nearly always


def _odd_size(event: Access) -> str:
    """Bytes moved; where none were, bytes asked for; nothing where neither makes sense."""
    if isinstance(event, Seek):
        return NOTHING
    size = event.size_req if event.size_ret is None else event.size_ret
    return NOTHING if size is None else _size_text(size)
