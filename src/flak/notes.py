"""What stands behind the file in a line of text: whatever an event has to say that the columns don't.

Descriptors, flags by name, a protection as /proc shows it, an exit status, marks. Words only: no colours and no
widths. `lines` is the user.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from functools import lru_cache

from flak.events import (
    Access,
    Advise,
    Check,
    Close,
    CopyFrom,
    CopyTo,
    Dup,
    Event,
    Exec,
    Exit,
    Fault,
    Fork,
    Link,
    Mark,
    Mkdir,
    Mmap,
    Open,
    Read,
    Rename,
    Seek,
    Stat,
    Unlink,
    Write,
)
from flak.text import format_size

__all__ = ["FAULT_BITS", "FAULT_NOTES", "details_of", "joined", "marks_of"]

FAULT_BITS = int(Mark.IS_MAJOR | Mark.IS_WRITE)
"""Of a fault's marks those that `FAULT_NOTES` words. Plain ints: an operation with an IntFlag takes a microsecond."""

FAULT_NOTES = {
    0: "  minor r",
    int(Mark.IS_WRITE): "  minor w",
    int(Mark.IS_MAJOR): "  major r",
    FAULT_BITS: "  major w",
}


def joined(notes: Iterable[str]) -> str:
    """Notes as they follow the file."""
    return "".join(f"  {note}" for note in notes)


def marks_of(event: Access) -> list[str]:
    """Marks that the line has no better word for: an open's errno, and the names of other calls, say that the path is a
    claim.
    """
    return [
        mark for mark in event.marks if not (mark == "path_claimed" and (event.errno or not isinstance(event, Open)))
    ]


def details_of(event: Event) -> list[str]:
    """What an event of its kind has to say beyond the columns."""
    match event:
        case Fault():
            return [FAULT_NOTES[event.raw_marks & FAULT_BITS].strip()]
        case CopyFrom() | CopyTo():
            return [f"{event.role} {event.call_id}"]
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
        case Rename() | Link():
            return [f"to {event.new_path}"] if event.new_path else []
        case Mkdir():
            return [] if event.mode is None else [f"mode {event.mode:04o}"]
        case Check():
            return [] if event.mode is None else [_asked_for(event.mode)]
        case Advise():
            return [] if event.flags is None else [_advice(event.op, event.flags)]
        case Stat():
            return []
        case Unlink() if event.flags == _AT_REMOVEDIR:
            return ["AT_REMOVEDIR"]
        case Access() if event.flags:
            return [f"flags {event.flags:#x}"]
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


def _asked_for(mode: int) -> str:
    """ "R_OK|X_OK": what access(2) was asked."""
    names = [name for name in ("R_OK", "W_OK", "X_OK") if mode & getattr(os, name)]
    return "|".join(names) or "F_OK"


@lru_cache(maxsize=64)
def _advice(op: str, number: int) -> str:
    """ "MADV_RANDOM", "POSIX_FADV_DONTNEED": advice by name, where this machine has one."""
    prefix, module = ("MADV_", mmap) if op == "madvise" else ("POSIX_FADV_", os)
    names = (name for name in dir(module) if name.startswith(prefix))
    return next((name for name in names if getattr(module, name) == number), f"advice {number}")


_AT_REMOVEDIR = 0x200  # <linux/fcntl.h>, alike on all architectures; the only flag of unlinkat
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
