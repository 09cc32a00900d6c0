"""The vocabulary: what a program did to a file, as typed objects.

Everything above speaks in these classes, whether it comes from a live trace or from a recording. Nothing here
knows how an event was obtained. The names are those machines read too (docs/events.md): `WORDS` lists them in
order and `as_dict()` gives an event in them.

Units: times are nanoseconds of CLOCK_BOOTTIME, sizes and offsets are bytes. A value that does not apply is None.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Protocol

from flak._records import Mark, Op
from flak.archive import Archive
from flak.text import errno_name

__all__ = [
    "WORDS", "Access", "Advise", "Check", "Close", "CopyFrom", "CopyTo", "Counters", "Dup", "Event", "EventSource",
    "Exec", "Exit", "Fault", "File", "Folded", "Fork", "Link", "ListDir", "Lost", "Mark", "Mkdir", "Mmap", "Mremap",
    "Munmap", "Op", "Open", "Read", "Rename", "Seek", "Stat", "StatFs", "Sync", "Tables", "Task", "Truncate", "Unlink",
    "Write", "as_dict", "escape",
]  # fmt: skip

WORDS = (
    "ts_ns", "latency_ns", "via", "op", "pid", "tid", "ns_pid", "comm", "cgroup_id", "container", "fd", "file_id",
    "path_id", "path", "path_bytes", "mnt_ns", "dev", "ino", "ino_gen", "kind", "is_write", "file_offset", "arg_offset",
    "size_req", "size_ret", "page_count", "errno", "call_id", "role", "addr", "prot", "map_flags", "is_major",
    "open_flags", "flags", "mode", "new_fd", "new_path", "claimed_path", "child_pid", "argv0", "marks", "cpu", "seq",
)  # fmt: skip
"""Every field of an event, in the order of JSON lines and CSV columns."""

VIA = {0: "syscall", 1: "io_uring", 2: "aio", 3: "fault", 4: "sched"}
"""The road, by the high byte of an op."""

# Plain ints, here and below: arithmetic with enum members costs microseconds.
MARK_NAMES = {int(mark): mark.name.lower() for mark in Mark if mark < Mark.IS_WRITE and mark.name}
_IS_WRITE, _IS_MAJOR = int(Mark.IS_WRITE), int(Mark.IS_MAJOR)
_NO_RESULT = int(Mark.UNFINISHED | Mark.RESULT_UNKNOWN | Mark.INTERRUPTED | Mark.ATTACHED)
_NO_MARKS = Mark(0)
_RESTART = range(-516, -511)  # ERESTARTSYS … ERESTART_RESTARTBLOCK: the kernel's own, never an errno


def escape(name: bytes) -> str:
    """Text of a name of any bytes that is safe to print: unprintable characters, backslashes and bytes that are not
    UTF-8 become backslash escapes, so that no name can move a cursor, forge a line or hide its direction. \\xNN is a
    byte, \\uNNNN a character: no two names look the same.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(escape_character(c) for c in text)


def escape_character(c: str) -> str:
    """What stands for one character in the text of `escape`."""
    if c == "\\":
        return "\\\\"
    if c.isprintable():
        return c
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c) or (
        f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


@dataclass(slots=True, frozen=True)
class Task:
    """A thread as it was: under another comm or in another cgroup it is another Task with another task_id.

    `pid`, `tid` and `ppid` are numbers in FLAK's own pid namespace, 0 where it has none there. `mnt_ns` is the inode
    number of its mount namespace, `container` the name of its container where that is known.
    """

    task_id: int
    pid: int
    tid: int
    comm: str
    ns_pid: int | None = None
    cgroup_id: int | None = None
    start_time_ns: int = 0
    ppid: int = 0
    uid: int = 0
    mnt_ns: int = 0
    container: str | None = None
    process_tag: int = 0

    @property
    def process(self) -> tuple[int, int]:
        """Tells its process from all others of the run, which may have had the same number."""
        return self.pid, self.process_tag


@dataclass(slots=True, frozen=True)
class File:
    """A file under one of its names: identity (dev, ino, ino_gen) and the path from the kernel's dentries.

    `path` is escaped text, `raw_path` the bytes, both as the mount namespace `mnt_ns` shows it (0: none does). Where
    there is only a string that the program passed (`raw_claim`), the path is that, behind the folder it starts from;
    it is the only one that may be empty.
    """

    path_id: int
    file_id: int
    raw_path: bytes
    dev_major: int
    dev_minor: int
    ino: int
    ino_gen: int
    mode: int
    marks: Mark = _NO_MARKS
    raw_claim: bytes | None = None
    file_size: int | None = None
    mnt_ns: int = 0
    path: str = field(init=False)

    def __post_init__(self) -> None:
        text = escape(self.raw_path)
        if not text and self.raw_claim is None:
            text = f"{self.kind}:[{self.ino}]" if self.kind in ("pipe", "socket", "anon") else self.identity
        object.__setattr__(self, "path", text)

    @property
    def dev(self) -> str:
        """Device of the file's superblock, "major:minor"."""
        return f"{self.dev_major}:{self.dev_minor}"

    @property
    def identity(self) -> str:
        """`dev:inode`, the name of a file whose path is not known."""
        return f"{self.dev}:{self.ino}"

    @property
    def kind(self) -> str:
        """One of file, dir, pipe, socket, anon, memfd, char, block."""
        kind = _KINDS.get(stat.S_IFMT(self.mode), "anon")
        if kind == "file" and not self.raw_path.startswith(b"/") and self.raw_claim is None:
            return next((kind for name, kind in _MEMORY.items() if self.raw_path.startswith(name)), kind)
        return kind

    @property
    def path_bytes(self) -> str | None:
        """The path in base64 when it is not valid UTF-8, else None."""
        try:
            self.raw_path.decode()
        except UnicodeDecodeError:
            return base64.b64encode(self.raw_path).decode()
        return None


_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFLNK: "file",
}  # fmt: skip


_MEMORY = {b"memfd:": "memfd", b"SYSV": "anon", b"dev/zero": "anon", b"anon_hugepage": "anon"}
"""What the kernel calls files that are only memory, without a folder: of memfd_create, shmget, and mmap with MAP_SHARED
or MAP_HUGETLB (mm/memfd.c, ipc/shm.c, mm/shmem.c, mm/mmap.c)."""


def _pack_task(task: Task) -> list[Any]:
    return [getattr(task, field.name) for field in fields(Task)]


def _pack_file(file: File) -> list[Any]:
    claim = file.raw_claim
    return [
        file.path_id, file.file_id, file.raw_path.decode("latin-1"), file.dev_major, file.dev_minor, file.ino,
        file.ino_gen, file.mode, int(file.marks), None if claim is None else claim.decode("latin-1"), file.file_size,
        file.mnt_ns,
    ]  # fmt: skip


def _unpack_file(values: list[Any]) -> File:
    path_id, file_id, path, major, minor, ino, ino_gen, mode, marks, claim, *rest = values
    raw_claim = None if claim is None else claim.encode("latin-1")
    return File(
        path_id, file_id, path.encode("latin-1"), major, minor, ino, ino_gen, mode, _marks(marks), raw_claim, *rest
    )


_marks = cache(Mark)  # of names: few


class Tables:
    """What the small numbers of one run stand for. Filled by the decoder, read by the events.

    tasks, paths, files: mappings that keep all they ever held, what is not in use packed (`archive`): look up what you
    need, going through all of them is slow. own_mnt_ns: inode number of FLAK's mount namespace, 0 when unknown.
    """

    __slots__ = ("_container_of_mnt_ns", "files", "own_mnt_ns", "paths", "tasks")

    def __init__(self) -> None:
        self.own_mnt_ns = 0
        self._container_of_mnt_ns: dict[int, str] = {}
        self.tasks: Archive[Task] = Archive(_pack_task, lambda values: Task(*values))
        self.paths: Archive[File] = Archive(_pack_file, _unpack_file)  # path_id → file under that name
        self.files: Archive[int] = Archive(int, int)  # file_id → the first file_id of the same identity

    def name_mounts(self, task: Task) -> None:
        """Learn from a task whose the paths of its mount namespace are."""
        if task.container and task.mnt_ns not in (0, self.own_mnt_ns):
            self._container_of_mnt_ns.setdefault(task.mnt_ns, task.container)

    def shown_path(self, file: File) -> str:
        """A path for people: in a container's mount namespace behind its name, as `docker cp` has it: "web:/etc/x"."""
        container = self._container_of_mnt_ns.get(file.mnt_ns)
        return f"{container}:{file.path}" if container else file.path


@dataclass(slots=True, unsafe_hash=True)
class Operands:
    """Rarer operands of an access, as recorded; a value that was not set is None.

    Hashable because accesses share one as a default; treat it as immutable.
    """

    addr: int | None = None
    old_addr: int | None = None
    arg_offset: int | None = None
    prot: int | None = None
    map_flags: int | None = None
    flags: int | None = None
    open_flags: int | None = None
    mode: int | None = None
    new_fd: int | None = None
    claim_id: int = 0
    other_file_id: int = 0
    other_path_id: int = 0
    call_id: int | None = None


_NO_OPERANDS = Operands()


class Event:
    """Base of everything a source yields. Every word of `WORDS` is an attribute, None where it does not apply."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in _WORD_SET:
            return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


_WORD_SET = frozenset(WORDS)


@dataclass(slots=True)
class Access(Event):
    """One access, as recorded (`raw_*`, −1 for "none") and as meant (the properties).

    Unfrozen because freezing made decoding several times slower; treat it as immutable.
    """

    ts_ns: int
    raw_latency: int
    raw_offset: int
    raw_size: int
    raw_ret: int
    task_id: int
    raw_file_id: int
    path_id: int
    raw_fd: int
    seq: int | None
    raw_marks: int
    opcode: int
    cpu: int | None
    tables: Tables
    operands: Operands = _NO_OPERANDS

    @property
    def op(self) -> str:
        """The kernel's name of the call: "pread64", "openat", "fault"."""
        return OP_NAMES.get(self.opcode) or f"op_{self.opcode:#x}"

    @property
    def via(self) -> str:
        """The road: "syscall", "fault", "io_uring" or "aio"."""
        return VIA.get(self.opcode >> 8, "unknown")

    @property
    def latency_ns(self) -> int | None:
        """How long it took; for an unfinished call its age; None when unknown."""
        return None if self.raw_latency < 0 else self.raw_latency

    @property
    def task(self) -> Task | None:
        """Who did it; None only while the task's own record is missing."""
        tasks = self.tables.tasks
        return tasks.recent.get(self.task_id) or tasks.get(self.task_id)  # the first at the price of a dict

    @property
    def pid(self) -> int | None:
        """Process."""
        task = self.task
        return task.pid if task else None

    @property
    def tid(self) -> int | None:
        """Thread."""
        task = self.task
        return task.tid if task else None

    @property
    def ns_pid(self) -> int | None:
        """The process's number in its own pid namespace, where that differs."""
        task = self.task
        return task.ns_pid if task else None

    @property
    def comm(self) -> str | None:
        """Name of the thread at the time, escaped."""
        task = self.task
        return task.comm if task else None

    @property
    def cgroup_id(self) -> int | None:
        """Id of the thread's cgroup (version 2 hierarchy) at the time."""
        task = self.task
        return task.cgroup_id if task else None

    @property
    def container(self) -> str | None:
        """Name of the thread's container at the time, where known."""
        task = self.task
        return task.container if task else None

    @property
    def file(self) -> File | None:
        """The file under the name it had, None where the access has none or its name is not known."""
        paths = self.tables.paths
        return paths.recent.get(self.path_id) or paths.get(self.path_id)

    @property
    def _found(self) -> File | None:
        """The file, unless all that is known is the name of one that was looked for."""
        file = self.file
        return file if file and (file.ino or file.raw_claim is None) else None

    @property
    def file_id(self) -> int | None:
        """Number of the file's identity (dev, ino, ino_gen) within this run; hard links share it."""
        number = self.raw_file_id
        return self.tables.files.get(number, number) if number else None

    @property
    def path(self) -> str | None:
        """The file's path, escaped; where only the program's own string is known, that (mark path_claimed)."""
        file = self.file or self.claim
        return file.path or None if file else None

    @property
    def path_bytes(self) -> str | None:
        """Base64 of the path when it is not valid UTF-8."""
        file = self.file or self.claim
        return file.path_bytes if file else None

    @property
    def mnt_ns(self) -> int | None:
        """Inode number of the mount namespace that `path` is of; None where the name is in none, as a pipe's."""
        file = self.file or self.claim
        return (file.mnt_ns if file else 0) or None

    @property
    def claim(self) -> File | None:
        """What the program's path string said: of opens that failed, and of all other calls that take a path."""
        file = self.tables.paths.get(self.operands.claim_id or self.path_id)
        return file if file and file.raw_claim is not None else None

    @property
    def claimed_path(self) -> str | None:
        """The string the program passed, where it is all that is known; escaped, relative as it was."""
        claim = self.claim
        if claim is None or claim.raw_claim is None or claim.marks & Mark.PATH_FAULT:
            return None
        return escape(claim.raw_claim)

    @property
    def new_path(self) -> str | None:
        """The other name of a rename or link, as the program passed it, behind the folder it starts from; escaped."""
        other = self.tables.paths.get(self.operands.other_path_id)
        return other.path or None if other else None

    @property
    def flags(self) -> int | None:
        """Flags or advice of a call that has them, as a number."""
        return self.operands.flags

    @property
    def mode(self) -> int | None:
        """Permission bits for what is to be made, or asked about; as passed."""
        return self.operands.mode

    @property
    def dev(self) -> str | None:
        """ "major:minor" of the file's superblock."""
        return self._found.dev if self._found else None

    @property
    def ino(self) -> int | None:
        """Inode number."""
        return self._found.ino if self._found else None

    @property
    def ino_gen(self) -> int | None:
        """Inode generation: tells files apart that were given the same inode number in turn."""
        return self._found.ino_gen if self._found else None

    @property
    def kind(self) -> str | None:
        """One of file, dir, pipe, socket, anon, memfd, char, block."""
        return self._found.kind if self._found else None

    @property
    def fd(self) -> int | None:
        """The descriptor the call was given; of openat and openat2 the directory's."""
        return None if self.raw_fd < 0 else self.raw_fd

    @property
    def file_offset(self) -> int | None:
        """Where in the file it happened, in bytes."""
        return None if self.raw_offset < 0 else self.raw_offset

    @property
    def arg_offset(self) -> int | None:
        """The offset the program passed, where the kernel did not follow it."""
        return self.operands.arg_offset

    @property
    def size_req(self) -> int | None:
        """Bytes asked for."""
        return None if self.raw_size < 0 else self.raw_size

    @property
    def is_write(self) -> bool | None:
        """True, False, or None where an access is neither."""
        return None

    @property
    def has_failed(self) -> bool:
        """The call returned an errno."""
        return -4096 < self.raw_ret < 0 and self.errno is not None

    @property
    def errno(self) -> str | None:
        """ "ENOENT" and the like, None when it did not fail or has no result."""
        if not -4096 < self.raw_ret < 0 or self.raw_ret in _RESTART or self.raw_marks & _NO_RESULT:
            return None
        return errno_name(-self.raw_ret) or str(-self.raw_ret)

    @property
    def marks(self) -> tuple[str, ...]:
        """Quality marks by name, in the order of flak.h."""
        bits = self.raw_marks
        file = self.file or self.claim
        if file:
            bits |= int(file.marks)
        return tuple(name for mark, name in MARK_NAMES.items() if bits & mark) if bits else ()


class _Transfer(Access):
    """Bytes moved between a file and memory by a call."""

    __slots__ = ()

    @property
    def size_ret(self) -> int | None:
        """Bytes moved; None when the call failed or has no result."""
        return None if self.raw_ret < 0 or self.raw_marks & _NO_RESULT else self.raw_ret

    @property
    def end_offset(self) -> int | None:
        """First byte after those moved."""
        if self.file_offset is None or self.size_ret is None:
            return None
        return self.file_offset + self.size_ret


class Read(_Transfer):
    """read, readv, pread64, preadv, preadv2."""

    __slots__ = ()

    @property
    def is_write(self) -> bool:
        """False."""
        return False


class Write(_Transfer):
    """write, writev, pwrite64, pwritev, pwritev2."""

    __slots__ = ()

    @property
    def is_write(self) -> bool:
        """True."""
        return True


class _Descriptor(Access):
    """A call whose result is a descriptor."""

    __slots__ = ()

    @property
    def new_fd(self) -> int | None:
        """The descriptor made, None when the call failed."""
        return self.operands.new_fd


class CopyFrom(Read):
    """The file that a copy within the kernel read: sendfile64, splice, copy_file_range, ficlone, ficlonerange."""

    __slots__ = ()

    @property
    def call_id(self) -> int | None:
        """The same number in both records of a call."""
        return self.operands.call_id

    @property
    def role(self) -> str:
        """ "source"."""
        return "source"


class CopyTo(Write):
    """The file that such a copy wrote; `call_id` leads to the `CopyFrom`, where there is one."""

    __slots__ = ()

    @property
    def call_id(self) -> int | None:
        """The same number in both records of a call."""
        return self.operands.call_id

    @property
    def role(self) -> str:
        """ "target"."""
        return "target"


class Open(_Descriptor):
    """open, openat, openat2, creat; with the mark "attached" a descriptor that was there before tracing began."""

    __slots__ = ()

    @property
    def open_flags(self) -> int | None:
        """O_* flags, as passed."""
        return self.operands.open_flags


class Close(Access):
    """close; close_range: `fd` is the first descriptor, `size_req` how many numbers the range has."""

    __slots__ = ()


class Dup(_Descriptor):
    """dup, dup2, dup3, fcntl(F_DUPFD, F_DUPFD_CLOEXEC)."""

    __slots__ = ()


class Seek(Access):
    """lseek: `size_req` is whence, `arg_offset` the argument, `file_offset` the position it led to."""

    __slots__ = ()


class _Mapping(Access):
    __slots__ = ()

    @property
    def addr(self) -> str | None:
        """Address of the mapping after the call, hex text."""
        return None if self.operands.addr is None else f"{self.operands.addr:#x}"

    @property
    def prot(self) -> int | None:
        """PROT_* bits."""
        return self.operands.prot

    @property
    def map_flags(self) -> int | None:
        """MAP_* bits, of mremap MREMAP_*."""
        return self.operands.map_flags


class Advise(_Mapping):
    """madvise, fadvise64, readahead: what a program says about accesses to come. `flags` is the advice."""

    __slots__ = ()


class Mmap(_Mapping):
    """mmap of a file: `size_req` is the length, `file_offset` where in the file it begins."""

    __slots__ = ()


class Munmap(_Mapping):
    """munmap: `size_req` is the length, `file_offset` what lay at `addr`."""

    __slots__ = ()


class Mremap(_Mapping):
    """mremap: `size_req` is the new length, `addr` the new address."""

    __slots__ = ()


class _PathCall(Access):
    """A call that names its file by a path, which is a claim: `path_claimed`."""

    __slots__ = ()


class Stat(_PathCall):
    """newstat, newlstat, newfstat, newfstatat, statx. What a path led to is told by `dev`, `ino` and `kind`."""

    __slots__ = ()


class StatFs(_PathCall):
    """statfs, fstatfs."""

    __slots__ = ()


class Check(_PathCall):
    """access, faccessat, faccessat2; `mode` is what was asked for (R_OK, W_OK, X_OK)."""

    __slots__ = ()


class Rename(_PathCall):
    """rename, renameat, renameat2: from `path` to `new_path`."""

    __slots__ = ()


class Link(_PathCall):
    """link, linkat, symlink, symlinkat: `new_path` is made; `path` is what it leads to, of symlinks as written."""

    __slots__ = ()


class Unlink(_PathCall):
    """unlink, unlinkat, rmdir."""

    __slots__ = ()


class Mkdir(_PathCall):
    """mkdir, mkdirat."""

    __slots__ = ()


class Truncate(_PathCall):
    """truncate, ftruncate: `size_req` is the new length. fallocate: `size_req` bytes from `file_offset` on."""

    __slots__ = ()


class Sync(_Mapping):
    """fsync, fdatasync, sync_file_range, msync."""

    __slots__ = ()


class ListDir(Access):
    """getdents64; `size_ret` is bytes of directory entries."""

    __slots__ = ()

    @property
    def size_ret(self) -> int | None:
        """Bytes of entries; None when the call failed or has no result."""
        return None if self.raw_ret < 0 or self.raw_marks & _NO_RESULT else self.raw_ret


class Fault(Access):
    """One completed page fault on a file mapping, by mm_account_fault's rule: retries are not counted.

    `file_offset` is that of the page, hence page-aligned.
    """

    __slots__ = ()

    @property
    def size_req(self) -> None:
        """Faults ask for no size."""
        return None

    @property
    def addr(self) -> str:
        """Address touched, hex text."""
        return f"{self.raw_size & 0xFFFF_FFFF_FFFF_FFFF:#x}"

    @property
    def page_count(self) -> int | None:
        """Pages the kernel set out to map at once, the faulting one included; None when unknown. It may have mapped
        fewer (not all were there) or more (a large folio whole).
        """
        return self.raw_ret or None

    @property
    def pages_before(self) -> int:
        """How many of `page_count` lie before the faulting page."""
        return max(self.raw_fd, 0)

    @property
    def fd(self) -> None:
        """Faults have no descriptor."""
        return None

    @property
    def is_write(self) -> bool:
        """The fault was a store."""
        return bool(self.raw_marks & _IS_WRITE)

    @property
    def is_major(self) -> bool:
        """VM_FAULT_MAJOR, or it had to be retried: somebody waited for storage."""
        return bool(self.raw_marks & _IS_MAJOR)


@dataclass(slots=True)
class _Process(Event):
    """What befell a process; `via` is "sched"."""

    ts_ns: int
    task_id: int
    seq: int
    cpu: int
    tables: Tables

    via: ClassVar[str] = "sched"
    op: ClassVar[str] = ""
    marks: ClassVar[tuple[str, ...]] = ()

    pid = Access.pid
    tid = Access.tid
    ns_pid = Access.ns_pid
    comm = Access.comm
    cgroup_id = Access.cgroup_id
    container = Access.container

    @property
    def task(self) -> Task | None:
        """Whom it befell: of a fork the parent, of an exec the thread as it is afterwards."""
        return self.tables.tasks.get(self.task_id)


@dataclass(slots=True)
class Fork(_Process):
    """A process or thread was made. A thread has its process's `child_pid`, and `child_tid` of its own."""

    child_pid: int = 0
    child_tid: int = 0
    op: ClassVar[str] = "fork"


@dataclass(slots=True)
class Exec(_Process):
    """Another program took over. `old_tid` differs from `tid` when a thread other than the leader did it."""

    old_tid: int = 0
    raw_file_id: int = 0
    path_id: int = 0
    raw_argv0: bytes = b""
    op: ClassVar[str] = "exec"

    @property
    def file(self) -> File | None:
        """The program."""
        return self.tables.paths.get(self.path_id)

    @property
    def mnt_ns(self) -> int | None:
        """Inode number of the mount namespace that `path` is of."""
        return (self.file.mnt_ns if self.file else 0) or None

    @property
    def file_id(self) -> int | None:
        """Number of the program file's identity."""
        return self.tables.files.get(self.raw_file_id, self.raw_file_id) or None

    @property
    def path(self) -> str | None:
        """Path of the program, escaped."""
        return self.file.path if self.file else None

    @property
    def path_bytes(self) -> str | None:
        """Base64 of the program's path when it is not valid UTF-8."""
        return self.file.path_bytes if self.file else None

    @property
    def argv0(self) -> str:
        """The name it was started under, escaped."""
        return escape(self.raw_argv0)


@dataclass(slots=True)
class Exit(_Process):
    """A thread ended; with the last one (`is_last`) the process. `exit_code` is as wait(2) reports it."""

    exit_code: int = 0
    is_last: bool = False
    op: ClassVar[str] = "exit"


@dataclass(slots=True)
class Lost(Event):
    """Records that are missing from the stream at this place: `count` of them on `cpu`, from `first_seq` on."""

    ts_ns: int
    cpu: int
    first_seq: int
    count: int
    cause: str = "ring_full"
    op: ClassVar[str] = "lost"
    via: ClassVar[str] = "flak"


@dataclass(slots=True)
class Folded(Event):
    """Accesses that were lost, in sum: `count` more of one op by one process on one file, all with the same end.

    access: what they have in common, among it `op`, `path`, `is_write`, `is_major` and whether they failed; its thread
    is that of the first. result: bytes moved, of faults pages, in all. latency_ns: of those whose duration is known.
    first_ns, ts_ns: when the first of the run and the last one so far were lost.
    """

    ts_ns: int
    first_ns: int
    count: int
    result: int
    latency_ns: int
    access: Access
    op: ClassVar[str] = "folded"
    via: ClassVar[str] = "flak"

    @property
    def size_ret(self) -> int | None:
        """Bytes moved; None where the accesses failed or move none."""
        return None if self.access.size_ret is None else self.result

    @property
    def page_count(self) -> int | None:
        """Pages of faults, None when unknown."""
        return (self.result or None) if isinstance(self.access, Fault) else None


@dataclass(slots=True)
class Counters(Event):
    """What became of every access and process event, by number. The last object of a run.

    matched = submitted + Σ lost, submitted = received, received = written + Σ filtered + Σ user_* losses;
    `is_exact` says whether they hold. folded: how many of the lost are in `Folded` events.
    """

    matched: int = 0
    submitted: int = 0
    received: int = 0
    written: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    filtered: dict[str, int] = field(default_factory=dict)
    not_decoded: dict[str, int] = field(default_factory=dict)
    excluded_self: int = 0
    recursion_misses: int = 0
    is_complete: bool = True
    folded: int = 0
    ts_ns: int = 0
    op: ClassVar[str] = "counters"
    via: ClassVar[str] = "flak"

    @property
    def lost_total(self) -> int:
        """Events that are missing, whatever the cause."""
        return sum(self.lost.values())

    @property
    def is_exact(self) -> bool:
        """The equations hold."""
        in_user_space = sum(n for cause, n in self.lost.items() if cause.startswith("user_"))
        in_kernel = self.lost_total - in_user_space
        return (
            self.matched == self.submitted + in_kernel
            and self.submitted == self.received
            and self.received == self.written + sum(self.filtered.values()) + in_user_space
        )


class EventSource(Protocol):
    """A live session or an open recording: the analysis never knows which.

    Iterating yields events; `batches()` yields the same accesses in bulk for numpy; `stats` are the counters
    so far, final once the iteration has ended.
    """

    tables: Tables

    def __iter__(self) -> Iterator[Event]: ...

    def batches(self) -> Iterator[Batch]: ...

    @property
    def stats(self) -> Counters: ...


@dataclass(slots=True)
class Batch:
    """The accesses of one drain round, undecoded. `notices` are no accesses: what hangs, when that was asked for.

    `slots` is a whole number of 72-byte slots (`_records.SLOT_SIZE`): an 8-byte ring header, then a flak_access or,
    behind an access marked HAS_OPERANDS, its flak_operands. `process_events` are the round's fork, exec and exit,
    `folded` what has been added to the sums of lost accesses.
    """

    slots: bytes | memoryview
    process_events: list[Event] = field(default_factory=list)
    notices: list[Access] = field(default_factory=list)
    folded: list[Folded] = field(default_factory=list)


OP_NAMES = {op.value: op.name.lower().removeprefix("io_uring_").removeprefix("aio_").removesuffix("_to") for op in Op}
OP_NAMES[Op.NONE] = "none"

CLASS_OF_OP: dict[int, type[Access]] = {
    **dict.fromkeys((Op.READ, Op.READV, Op.PREAD64, Op.PREADV, Op.PREADV2), Read),
    **dict.fromkeys((Op.WRITE, Op.WRITEV, Op.PWRITE64, Op.PWRITEV, Op.PWRITEV2), Write),
    **dict.fromkeys((Op.OPEN, Op.OPENAT, Op.OPENAT2, Op.CREAT), Open),
    **dict.fromkeys((Op.DUP, Op.DUP2, Op.DUP3, Op.FCNTL), Dup),
    **dict.fromkeys((Op.CLOSE, Op.CLOSE_RANGE), Close),
    Op.LSEEK: Seek,
    Op.MMAP: Mmap,
    Op.MUNMAP: Munmap,
    Op.MREMAP: Mremap,
    **dict.fromkeys((Op.NEWSTAT, Op.NEWLSTAT, Op.NEWFSTAT, Op.NEWFSTATAT, Op.STATX), Stat),
    **dict.fromkeys((Op.STATFS, Op.FSTATFS), StatFs),
    **dict.fromkeys((Op.ACCESS, Op.FACCESSAT, Op.FACCESSAT2), Check),
    **dict.fromkeys((Op.RENAME, Op.RENAMEAT, Op.RENAMEAT2), Rename),
    **dict.fromkeys((Op.LINK, Op.LINKAT, Op.SYMLINK, Op.SYMLINKAT), Link),
    **dict.fromkeys((Op.UNLINK, Op.UNLINKAT, Op.RMDIR), Unlink),
    **dict.fromkeys((Op.MKDIR, Op.MKDIRAT), Mkdir),
    **dict.fromkeys((Op.TRUNCATE, Op.FTRUNCATE, Op.FALLOCATE), Truncate),
    **dict.fromkeys((Op.FSYNC, Op.FDATASYNC, Op.SYNC_FILE_RANGE, Op.MSYNC), Sync),
    **dict.fromkeys((Op.READAHEAD, Op.FADVISE64, Op.MADVISE), Advise),
    Op.GETDENTS64: ListDir,
    **dict.fromkeys((Op.SENDFILE64, Op.SPLICE, Op.COPY_FILE_RANGE, Op.FICLONE, Op.FICLONERANGE), CopyFrom),
    **dict.fromkeys((Op.SENDFILE64_TO, Op.SPLICE_TO, Op.COPY_FILE_RANGE_TO, Op.FICLONE_TO, Op.FICLONERANGE_TO), CopyTo),
    Op.FAULT: Fault,
    **dict.fromkeys((
        Op.IO_URING_READ, Op.IO_URING_READV, Op.IO_URING_READ_FIXED, Op.IO_URING_READV_FIXED,
        Op.AIO_PREAD, Op.AIO_PREADV,
    ), Read),
    **dict.fromkeys((
        Op.IO_URING_WRITE, Op.IO_URING_WRITEV, Op.IO_URING_WRITE_FIXED, Op.IO_URING_WRITEV_FIXED,
        Op.AIO_PWRITE, Op.AIO_PWRITEV,
    ), Write),
    **dict.fromkeys((Op.IO_URING_OPENAT, Op.IO_URING_OPENAT2), Open),
    Op.IO_URING_CLOSE: Close,
    Op.IO_URING_STATX: Stat,
    Op.IO_URING_RENAMEAT: Rename,
    **dict.fromkeys((Op.IO_URING_LINKAT, Op.IO_URING_SYMLINKAT), Link),
    Op.IO_URING_UNLINKAT: Unlink,
    Op.IO_URING_MKDIRAT: Mkdir,
    **dict.fromkeys((Op.IO_URING_FTRUNCATE, Op.IO_URING_FALLOCATE), Truncate),
    **dict.fromkeys((Op.IO_URING_FSYNC, Op.IO_URING_SYNC_FILE_RANGE, Op.AIO_FSYNC, Op.AIO_FDSYNC), Sync),
    **dict.fromkeys((Op.IO_URING_FADVISE, Op.IO_URING_MADVISE), Advise),
    Op.IO_URING_SPLICE: CopyFrom,
    Op.IO_URING_SPLICE_TO: CopyTo,
}  # fmt: skip
"""Which class an access of an op is; ops of a newer FLAK are plain `Access`."""


_FOLDED_WORDS = (
    "via", "pid", "ns_pid", "comm", "cgroup_id", "container", "file_id", "path_id", "path", "path_bytes", "mnt_ns",
    "dev", "ino", "ino_gen", "kind", "role", "is_write", "is_major",
)  # fmt: skip
"""Words that lost accesses have in common."""


def as_dict(event: Event) -> dict[str, Any]:
    """An event in the words machines read: every word of `WORDS`, None where it does not apply.

    `lost`, `folded` and `counters` have their own fields (docs/events.md).
    """
    if isinstance(event, Folded):
        return {
            "op": "folded", "ts_ns": event.ts_ns, "first_ts_ns": event.first_ns, "of": event.access.op,
            "count": event.count, "size_ret": event.size_ret, "page_count": event.page_count,
            "latency_ns": event.latency_ns, "has_failed": event.access.raw_ret < 0,
            **{word: getattr(event.access, word) for word in _FOLDED_WORDS}, "marks": list(event.access.marks),
        }  # fmt: skip
    if isinstance(event, Lost):
        return {
            "op": "lost", "ts_ns": event.ts_ns, "cpu": event.cpu, "first_seq": event.first_seq,
            "count": event.count, "cause": event.cause,
        }  # fmt: skip
    if isinstance(event, Counters):
        return {
            "op": "counters", "matched": event.matched, "submitted": event.submitted, "received": event.received,
            "written": event.written, "lost": event.lost, "filtered": event.filtered,
            "not_decoded": event.not_decoded, "excluded_self": event.excluded_self,
            "recursion_misses": event.recursion_misses, "is_complete": event.is_complete, "folded": event.folded,
        }  # fmt: skip
    values = {word: getattr(event, word) for word in WORDS}
    values["marks"] = list(values["marks"])
    values["path_id"] = values["path_id"] or None  # 0 is "no path" in the record
    return values
