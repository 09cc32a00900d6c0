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

from typing import TYPE_CHECKING

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
    from collections.abc import Collection, Sequence

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


def trace(
    *,
    pid: int | Sequence[int] = (),
    command: Sequence[str] | None = None,
    follow: bool = True,
    all_files: bool = False,
    events: Collection[str] | None = None,
    latency: bool = True,
    buffer_size: int = 16 << 20,
    duration: float | None = None,
    max_events: int | None = None,
    user: str | None = None,
    stdout: int | None = None,
) -> Session:
    """A live trace of processes (`pid`) or of a `command`, to be used in a `with` and iterated over.

    follow: their children too. all_files: pipes, sockets and devices too. events: only these groups, by the names of
    the option --events. latency: False saves the hook at enter. buffer_size: bytes. duration: seconds. max_events:
    accesses. user: who the command runs as. stdout: a descriptor for its standard output.

    Raises UsageError at once; TargetError, NotPermitted, NotSupported, LoadError and AttachError on entering.
    """
    from flak.session import Session

    return Session(
        pid=pid,
        command=command,
        follow=follow,
        all_files=all_files,
        events=events,
        latency=latency,
        buffer_size=buffer_size,
        duration=duration,
        max_events=max_events,
        user=user,
        stdout=stdout,
    )


def open(path: str | os.PathLike[str]) -> Recording:
    """A recording made by `flak record`, to be used in a `with` and iterated over like a live trace.

    Raises TraceFileError when the file is no recording, of another format, or damaged before its first record.
    """
    from flak.tracefile import open_recording

    return open_recording(path)
