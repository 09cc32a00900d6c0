"""Reading what strace wrote, as the other witness: the calls of each thread in FLAK's words.

Made for `strace -ff -y -X raw -s 0`: one file a thread, paths beside descriptors, numbers instead of flags.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TRANSFERS = (
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
)  # fmt: skip
OPENS = ("open", "openat", "openat2", "creat")
DUPS = ("dup", "dup2", "dup3")
BY_PATH = {
    "stat": "newstat", "lstat": "newlstat", "newfstatat": "newfstatat", "statx": "statx", "statfs": "statfs",
    "access": "access", "faccessat": "faccessat", "faccessat2": "faccessat2", "rename": "rename",
    "renameat": "renameat", "renameat2": "renameat2", "link": "link", "linkat": "linkat", "symlink": "symlink",
    "symlinkat": "symlinkat",
    "unlink": "unlink", "unlinkat": "unlinkat", "mkdir": "mkdir", "mkdirat": "mkdirat", "rmdir": "rmdir",
    "truncate": "truncate",
}  # fmt: skip
"""What strace calls a call that takes a path, and what the kernel does."""
BY_DESCRIPTOR = {
    "fstat": "newfstat", "fstatfs": "fstatfs", "ftruncate": "ftruncate", "fallocate": "fallocate", "fsync": "fsync",
    "fdatasync": "fdatasync", "sync_file_range": "sync_file_range", "readahead": "readahead", "fadvise64": "fadvise64",
    "getdents64": "getdents64",
}  # fmt: skip
CALLS = (*TRANSFERS, *OPENS, *DUPS, *BY_PATH, *BY_DESCRIPTOR, "fcntl", "close", "lseek", "mmap", "execve")
F_DUPFD = (0, 1030)  # F_DUPFD, F_DUPFD_CLOEXEC

# Calls that another architecture does not have are asked for with "?".
OPTIONS = ["-f", "-ff", "-y", "-X", "raw", "-s", "0", "-e", "trace=" + ",".join(f"?{call}" for call in CALLS)]


class Call(NamedTuple):
    """One call: its name, what it returned (a number, an errno's name, "interrupted"), the file it was about."""

    op: str
    result: int | str
    path: str | None


_LINE = re.compile(
    r"(?P<op>\w+)\((?P<arguments>.*)\)\s+= (?P<result>\?|0x[0-9a-f]+|-?\d+)(?:<(?P<made>.*?)>)?(?: (?P<errno>E[A-Z]+))?"
)
_DESCRIPTOR = re.compile(r"-?\d+(?:<(?P<path>.*?)>(?P<deleted>\(deleted\))?)?(?:$|, )")
_STRING = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')


def parse(line: str) -> Call | None:
    """The call of one line; None for a call that FLAK does not record by default and for what is no call."""
    match = _LINE.match(line)
    if not match or match["op"] == "execve":
        return None
    op, arguments = match["op"], match["arguments"]
    result = _result(match)
    if op in BY_PATH:
        return _by_path(op, arguments, result)
    if op in OPENS:
        path = match["made"] if match["made"] else _STRING.search(arguments)["text"]  # type: ignore[index]
    elif op == "mmap":
        path = _path(arguments.split(", ", 4)[4])
    else:
        path = _path(arguments)
    if op == "fcntl" and int(arguments.split(", ")[1], 0) not in F_DUPFD:
        return None
    return Call(BY_DESCRIPTOR.get(op, op), result, path) if _is_recorded(op, result, path) else None


def _by_path(op: str, arguments: str, result: int | str) -> Call | None:
    """A call that takes a path: the string as it was passed; where that is empty, the descriptor is meant."""
    string = _STRING.search(arguments)
    text = string["text"] if string else ""
    path = text or _path(arguments)
    if not text and not _is_recorded(op, result, path):
        return None  # a pipe's descriptor
    if op in ("stat", "lstat", "newfstatat", "statx") and result == 0 and text.startswith("/dev/"):
        return None  # FLAK leaves out what turned out to be a device
    return Call(BY_PATH[op], result, path)


def _result(match: re.Match[str]) -> int | str:
    if match["result"] == "?":
        return "interrupted"
    return match["errno"] or int(match["result"], 0)


def _path(arguments: str) -> str | None:
    match = _DESCRIPTOR.match(arguments)
    return match["path"] if match else None


def _is_recorded(op: str, result: int | str, path: str | None) -> bool:
    """Regular files and folders, and calls that failed before it was known what they were about."""
    if isinstance(result, str) and (op in OPENS or (path is None and op != "mmap")):
        return True
    return path is not None and path.startswith("/") and not path.startswith("/dev/")


class Log:
    """The files that `strace -ff -o PREFIX` wrote."""

    def __init__(self, prefix: Path) -> None:
        self.threads: dict[int, list[Call]] = {}
        self.first: int | None = None  # the thread that strace started: its log begins with an execve
        for file in sorted(prefix.parent.glob(f"{prefix.name}.*")):
            tid = int(file.suffix[1:])
            lines = file.read_text().splitlines()
            if lines and lines[0].startswith("execve("):
                self.first = tid
            self.threads[tid] = [call for line in lines if (call := parse(line))]
