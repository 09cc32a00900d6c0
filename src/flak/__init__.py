"""FLAK shows which file a program reads and writes, at which offset, how much, how long, and by which road.

    with flak.trace(pid=1234) as session:      # or flak.open("run.flak")
        for event in session:
            match event:
                case flak.Read(file_offset=at, size_ret=n): ...
                case flak.Fault(file_offset=at, is_write=w): ...
    print(session.stats)

Everything public is in `__all__`; the names of an event's fields are explained in docs/events.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from flak.errors import (
    AttachError,
    FlakError,
    LoadError,
    NotPermitted,
    NotSupported,
    OutputError,
    SchemaMismatch,
    TargetError,
    TraceFileError,
    UsageError,
)
from flak.events import (
    Access,
    Close,
    Counters,
    Dup,
    Event,
    EventSource,
    Exec,
    Exit,
    Fault,
    File,
    Fork,
    Lost,
    Mmap,
    Mremap,
    Munmap,
    Open,
    Read,
    Seek,
    Task,
    Write,
    as_dict,
)

if TYPE_CHECKING:
    import os

    from flak.session import Session
    from flak.tracefile import Recording

__all__ = [
    "Access",
    "AttachError",
    "Close",
    "Counters",
    "Dup",
    "Event",
    "EventSource",
    "Exec",
    "Exit",
    "Fault",
    "File",
    "FlakError",
    "Fork",
    "LoadError",
    "Lost",
    "Mmap",
    "Mremap",
    "Munmap",
    "NotPermitted",
    "NotSupported",
    "Open",
    "OutputError",
    "Read",
    "SchemaMismatch",
    "Seek",
    "TargetError",
    "Task",
    "TraceFileError",
    "UsageError",
    "Write",
    "__version__",
    "as_dict",
    "open",
    "trace",
]


def trace(**options: Any) -> Session:
    """A live trace, to be used in a `with` and iterated over.

    Options are those of `flak.session.Session`: `pid` (a number or several) or `command` (program and arguments),
    `follow`, `all_files`, `events`, `latency`, `buffer_size` (bytes), `duration` (seconds), `max_events`, `user`,
    `stdout`. Raises UsageError at once; TargetError, NotPermitted, NotSupported, LoadError and AttachError on entering.
    """
    from flak.session import Session

    return Session(**options)


def open(path: str | os.PathLike[str]) -> Recording:
    """A recording made by `flak record`, to be used in a `with` and iterated over like a live trace.

    Raises TraceFileError when the file is no recording, of another format, or damaged before its first record.
    """
    from flak.tracefile import open_recording

    return open_recording(path)
