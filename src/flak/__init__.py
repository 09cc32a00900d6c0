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

from flak import _safe_path as _safe_path  # first: it decides where the others come from
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
    Advise,
    Check,
    Close,
    CopyFrom,
    CopyTo,
    Counters,
    Dup,
    Event,
    EventSource,
    Exec,
    Exit,
    Fault,
    File,
    Folded,
    Fork,
    Link,
    ListDir,
    Lost,
    Mkdir,
    Mmap,
    Mremap,
    Munmap,
    Open,
    Read,
    Rename,
    Seek,
    Stat,
    StatFs,
    Sync,
    Task,
    Truncate,
    Unlink,
    Write,
    as_dict,
)
from flak.preflight import Finding

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Sequence

    from flak.session import Session
    from flak.tracefile import Recording

__all__ = [
    "Access",
    "CopyTo",
    "CopyFrom",
    "Unlink",
    "Truncate",
    "Sync",
    "StatFs",
    "Stat",
    "Rename",
    "Mkdir",
    "ListDir",
    "Link",
    "Check",
    "Advise",
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
    "Finding",
    "FlakError",
    "Folded",
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
    "doctor",
    "open",
    "trace",
]


def trace(
    *,
    pid: int | str | Sequence[int | str] = (),
    tid: int | str | Sequence[int | str] = (),
    comm: str | Sequence[str] = (),
    cgroup: int | str | os.PathLike[str] | Sequence[int | str | os.PathLike[str]] = (),
    container: str | Sequence[str] = (),
    uid: int | str | Sequence[int | str] = (),
    all_processes: bool = False,
    command: Sequence[str] | None = None,
    follow: bool = True,
    wait: bool = False,
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    failed: bool = False,
    min_latency_ns: int = 0,
    min_size: int = 0,
    all_files: bool = False,
    events: Collection[str] | None = None,
    latency: bool = True,
    hung: float | None = None,
    redact: str | None = None,
    buffer_size: int = 16 << 20,
    duration: float | None = None,
    max_events: int | None = None,
    user: str | None = None,
    stdout: int | None = None,
) -> Session:
    """A live trace, to be used in a `with` and iterated over. As on the command line, which explains each of them:

    Who: processes (`pid`), threads (`tid`), names of processes (`comm`), cgroups by id or path, containers by name or
    id, users (`uid`), `all_processes`, or a `command` to start. One or several; alternatives within a kind, kinds
    together; "!" in front of a word excludes. follow: what a process chosen by number or name forks, too. wait: for a
    cgroup or container that is not there yet.

    What: `path` patterns, only `failed` calls, `min_latency_ns`, `min_size` in bytes. all_files: pipes, sockets and
    devices too. events: only these groups, by the names of the option --events. latency: False saves the hook at enter.
    hung: seconds; only what takes so long, and while it is under way notices of it, marked "hung".

    redact: "hash", "basename" or "prefix:N" takes names out of paths before anybody sees them.

    buffer_size: bytes. duration: seconds. max_events: accesses. user: who the command runs as. stdout: a descriptor for
    its standard output.

    Raises UsageError at once; TargetError, NotPermitted, NotSupported, LoadError and AttachError on entering.
    """
    from flak.filters import Filters
    from flak.selection import Selection
    from flak.session import Session

    selection = Selection.of(
        pid=pid,
        tid=tid,
        comm=comm,
        cgroup=cgroup,
        container=container,
        uid=uid,
        all_processes=all_processes,
        command=command,
        follow=follow,
        wait=wait,
    )
    paths = [path] if isinstance(path, str) or hasattr(path, "__fspath__") else path
    filters = Filters(paths=tuple(map(str, paths)), failed=failed, min_latency_ns=min_latency_ns, min_size=min_size)
    return Session(
        selection,
        filters=filters,
        all_files=all_files,
        events=events,
        latency=latency,
        hung=hung,
        redact=redact,
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


def doctor() -> list[Finding]:
    """Can this host be traced, and what would be missing? Everything is tried for real; takes about a second.

        can_trace = all(finding.status != "fail" for finding in flak.doctor())

    docs/doctor.md explains the findings.
    """
    from flak import trial

    return trial.doctor()
