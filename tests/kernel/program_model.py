"""Linux in small: what system calls on files do, and what records a trace of them should have.

`Machine` carries out the lines of a script (tests/workloads/script.c) on descriptors, open files, names, sizes and
mappings that are Python objects. For each line it gives what the program should be told and what FLAK should record:
every word, null ones included. It is written from the manual and the kernel's source, not from FLAK's.

Left out: what depends on the file system (positions in folders, holes), and which pages fault-around maps, so a load is
predicted only where nothing of its file was mapped before, or where the page is the process's own copy.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from flak.text import errno_name

PAGE = 4096
HERE = -100  # AT_FDCWD
MAX_FDS = 256  # of script.c
RESERVED = range(98, 132)
MOST_ACTORS = 12
PROT_WRITE, MAP_SHARED = 2, 1
RWF_APPEND, RWF_UNKNOWN = 0x10, 0x1000
F_DUPFD, F_DUPFD_CLOEXEC = 0, 1030
CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_REMOVEDIR, AT_EMPTY_PATH = 0x200, 0x1000
RESOLVE_BENEATH = 8
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_UNKNOWN = 1, 2, 0x400
MREMAP_MAYMOVE = 1
MADV_NORMAL, MADV_WILLNEED, MADV_DONTNEED = 0, 3, 4
MS_ASYNC, MS_SYNC = 1, 4

Word = int | str


class RefusedError(Exception):
    """A call fails with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(errno_name(code))
        self.code = code


@dataclass(frozen=True)
class Line:
    """One line of a script: who, and the words."""

    actor: int
    words: tuple[Word, ...]

    def __str__(self) -> str:
        return " ".join(map(str, (self.actor, *self.words)))


@dataclass(eq=False)
class Inode:
    """A file or folder."""

    number: int
    is_dir: bool = False
    size: int = 0
    links: int = 1
    entries: dict[str, Name] = field(default_factory=dict)


@dataclass(eq=False)
class Name:
    """A place in the tree (the kernel's dentry). What opened a file by it follows it through renames."""

    text: str
    parent: Name | None
    inode: Inode

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.text}" if self.parent else self.text

    def ancestors(self) -> Iterator[Name]:
        """Itself, its folder, and so on."""
        name: Name | None = self
        while name:
            yield name
            name = name.parent


@dataclass(eq=False)
class OpenFile:
    """An open file description: what dup and fork share."""

    name: Name
    flags: int
    position: int = 0

    @property
    def inode(self) -> Inode:
        return self.name.inode

    @property
    def can_read(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def can_write(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


@dataclass
class Descriptor:
    """An entry of a table of descriptors."""

    file: OpenFile
    is_cloexec: bool


@dataclass(eq=False)
class Table:
    """A table of descriptors: each process's own, shared by its threads."""

    entries: dict[int, Descriptor] = field(default_factory=dict)

    def copy(self) -> Table:
        return Table({fd: Descriptor(d.file, d.is_cloexec) for fd, d in self.entries.items()})

    def add(self, file: OpenFile, is_cloexec: bool, least: int = 0) -> int:
        fd = next(fd for fd in range(least, MAX_FDS) if fd not in self.entries and fd not in RESERVED)
        self.entries[fd] = Descriptor(file, is_cloexec)
        return fd


@dataclass(eq=False)
class Mapping:
    """A mapped part of a file in one process. `place` stands for its address, which a forked child has, too."""

    place: int
    name: Name
    offset: int
    length: int
    is_shared: bool
    is_writable: bool
    is_seen: bool = False  # some page of the file itself may be mapped
    own: set[int] = field(default_factory=set)  # pages of a private mapping that are the process's copies
    ready: set[int] = field(default_factory=set)  # those of them that can be stored to without a fault

    def forked(self) -> Mapping:
        return replace(self, own=set(self.own), ready=set())


@dataclass(eq=False)
class Process:
    """Memory, and threads."""

    mappings: dict[int, Mapping] = field(default_factory=dict)
    threads: list[Actor] = field(default_factory=list)
    ended: list[set[int]] = field(default_factory=list)  # with which status threads may have ended


@dataclass(eq=False)
class Actor:
    """A thread."""

    number: int
    process: Process
    table: Table


@dataclass
class Record:
    """A record to be: of which line, by whom, with which words; the others are null.

    `is_sure`: otherwise the record may be missing.
    """

    line: int
    actor: int
    words: dict[str, Any]
    is_sure: bool = True


class Machine:
    """Carries out lines; see the module. `folder` is where scripts start, with what `prepare` makes there."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._inodes = 0
        self.root = Name(folder, None, Inode(self._number(), is_dir=True))
        first = Process()
        self.actors = {0: Actor(0, first, Table())}
        first.threads.append(self.actors[0])
        self.made = 1
        self._places = 0
        self._copies = 0
        self.lines: list[Line] = []
        self.results: list[int] = []
        self.records: list[Record] = []
        self.exits: list[tuple[int, set[int]]] = []  # actor, status as wait(2) has it
        for text, size in FILES.items():
            parent, last = self._parent(HERE, text)
            parent.inode.entries[last] = Name(last, parent, Inode(self._number(), size is None, size or 0))

    def step(self, line: Line) -> bool:
        """Carries out a line; False, and nothing happens, where it cannot be said what would."""
        actor = self.actors.get(line.actor)
        if not actor:
            return False
        self.actor = actor
        op, *words = line.words
        try:
            result = getattr(self, f"_{op}")(*words)
        except SkippedError:
            return False
        self.lines.append(line)
        self.results.append(result)
        return True

    def finish(self) -> None:
        """Ends all processes."""
        while self.actors:
            self.step(Line(min(self.actors), ("exit_group", 0)))

    def kind(self, path: Word) -> str:
        """What the path leads to: "file", "dir", "none"."""
        try:
            return "dir" if self._find(HERE, path).inode.is_dir else "file"
        except RefusedError:
            return "none"

    # --- records

    def _number(self) -> int:
        self._inodes += 1
        return self._inodes

    def _record(self, op: Word, result: int | None = None, **words: Any) -> dict[str, Any]:
        words = {"op": op, "errno": errno_name(-result) if result is not None and result < 0 else None} | words
        self.records.append(Record(len(self.lines), self.actor.number, words))
        return words

    def _about(self, name: Name | None) -> dict[str, Any]:
        """The words that tell the file."""
        if name is None:
            return {}
        return {
            "file_id": name.inode.number, "kind": "dir" if name.inode.is_dir else "file", "path": name.path,
            "marks": () if name.inode.links else ("deleted",),
        }  # fmt: skip

    def _call(self, body: Any, *arguments: Any) -> int:
        """What a call returns: the body's result, or -errno."""
        try:
            return int(body(*arguments))
        except RefusedError as refused:
            return -refused.code

    # --- descriptors

    def _file(self, fd: Word) -> OpenFile | None:
        descriptor = self.actor.table.entries.get(int(fd))
        return descriptor.file if descriptor else None

    def _name(self, fd: Word) -> Name | None:
        file = self._file(fd)
        return file.name if file else None

    def _need(self, fd: Word) -> OpenFile:
        file = self._file(fd)
        if not file:
            raise RefusedError(errno.EBADF)
        return file

    def _close(self, fd: Word) -> int:
        about = self._about(self._name(fd))
        result = 0 if self.actor.table.entries.pop(int(fd), None) else -errno.EBADF
        self._record("close", result, fd=fd, **about)
        return result

    def _close_range(self, first: int, last: int, flags: int) -> int:
        def close() -> int:
            if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
                raise RefusedError(errno.EINVAL)
            if flags & CLOSE_RANGE_UNSHARE:
                self.actor.table = self.actor.table.copy()
            entries = self.actor.table.entries
            for fd in [fd for fd in entries if first <= fd <= last]:
                if flags & CLOSE_RANGE_CLOEXEC:
                    entries[fd].is_cloexec = True
                else:
                    del entries[fd]
            return 0

        result = self._call(close)
        size = last - first + 1
        self._record("close_range", result, fd=first, size_req=size if size >= 0 else None, flags=flags)
        return result

    def _duplicate(self, op: str, fd: int, body: Any) -> int:
        about = self._about(self._name(fd))
        result = self._call(body)
        self._record(op, result, fd=fd, new_fd=result if result >= 0 else None, **about)
        return result

    def _dup(self, fd: int) -> int:
        return self._duplicate("dup", fd, lambda: self.actor.table.add(self._need(fd), False))

    def _fcntl(self, fd: int, command: int, least: int) -> int:
        def duplicate() -> int:
            file = self._need(fd)
            if least >= MAX_FDS:
                raise RefusedError(errno.EINVAL)
            return self.actor.table.add(file, command == F_DUPFD_CLOEXEC, least)

        return self._duplicate("fcntl", fd, duplicate)

    def _replace(self, fd: int, new_fd: int, is_cloexec: bool) -> int:
        if new_fd >= MAX_FDS:
            raise RefusedError(errno.EBADF)
        self.actor.table.entries[new_fd] = Descriptor(self._need(fd), is_cloexec)
        return new_fd

    def _dup2(self, fd: int, new_fd: int) -> int:
        def duplicate() -> int:
            if fd != new_fd:
                return self._replace(fd, new_fd, False)
            self._need(fd)
            return fd

        return self._duplicate("dup2", fd, duplicate)

    def _dup3(self, fd: int, new_fd: int, flags: int) -> int:
        def duplicate() -> int:
            if flags & ~os.O_CLOEXEC or fd == new_fd:
                raise RefusedError(errno.EINVAL)
            return self._replace(fd, new_fd, bool(flags))

        return self._duplicate("dup3", fd, duplicate)

    def _lseek(self, fd: int, offset: int, whence: int) -> int:
        def seek() -> int:
            file = self._need(fd)
            if whence > os.SEEK_END:
                raise RefusedError(errno.EINVAL)
            if file.inode.is_dir:
                raise SkippedError
            position = offset + (0, file.position, file.inode.size)[whence]
            if position < 0:
                raise RefusedError(errno.EINVAL)
            file.position = position
            return position

        result = self._call(seek)
        position = result if result >= 0 else None
        about = self._about(self._name(fd))
        self._record("lseek", result, fd=fd, size_req=whence, arg_offset=offset, file_offset=position, **about)
        return result

    # --- transfers

    def _read(self, fd: int, memory: str, size: int) -> int:
        return self._transfer("read", fd, size, memory=memory)

    def _write(self, fd: int, memory: str, size: int) -> int:
        return self._transfer("write", fd, size, memory=memory)

    def _pread64(self, fd: int, memory: str, size: int, offset: int) -> int:
        return self._transfer("pread64", fd, size, offset, memory=memory)

    def _pwrite64(self, fd: int, memory: str, size: int, offset: int) -> int:
        return self._transfer("pwrite64", fd, size, offset, memory=memory)

    def _readv(self, fd: int, vector: str, count: int) -> int:
        return self._transfer("readv", fd, total(vector))

    def _writev(self, fd: int, vector: str, count: int) -> int:
        return self._transfer("writev", fd, total(vector))

    def _preadv(self, fd: int, vector: str, count: int, offset: int) -> int:
        return self._transfer("preadv", fd, total(vector), offset)

    def _pwritev(self, fd: int, vector: str, count: int, offset: int) -> int:
        return self._transfer("pwritev", fd, total(vector), offset)

    def _preadv2(self, fd: int, vector: str, count: int, offset: int, high: int, flags: int) -> int:
        return self._transfer("preadv2", fd, total(vector), None if offset == -1 else offset, flags)

    def _pwritev2(self, fd: int, vector: str, count: int, offset: int, high: int, flags: int) -> int:
        return self._transfer("pwritev2", fd, total(vector), None if offset == -1 else offset, flags)

    def _transfer(
        self, op: str, fd: int, size: int, offset: int | None = None, flags: int = 0, memory: str = "&"
    ) -> int:
        is_write = "write" in op
        file = self._file(fd)
        at = file.position if file and offset is None else offset
        is_append = bool(file and is_write and (file.flags & os.O_APPEND or flags & RWF_APPEND))
        if is_append and offset is not None and offset < 0:
            raise SkippedError
        if file and is_append:
            at = file.inode.size
        mapping = self._lent(memory, size, is_write)
        result = self._call(self._move, op, file, at, offset, size, flags, memory != "!")
        if file and result > 0 and offset is None:
            assert at is not None
            file.position = at + result
        about = self._about(file.name if file else None)
        words: dict[str, Any] = {"fd": fd, "is_write": is_write, "size_req": size, "size_ret": result}
        if result < 0:
            words["size_ret"] = None
        if file and not file.inode.is_dir:
            words["file_offset"] = at if at is not None and at >= 0 else None
            if is_append:
                about["marks"] = (*about["marks"], "offset_from_size")
                words["arg_offset"] = offset
                if result <= 0:
                    words["file_offset"] = None
        elif not file and offset is not None and offset >= 0:
            words["file_offset"] = None
        self._record(op, result, **words, **about)
        if mapping and result > 0:
            self._touch_for_call(mapping, -(-result // PAGE), is_write)
        return result

    def _lent(self, memory: str, size: int, is_write: bool) -> Mapping | None:
        """The mapping that a transfer has as its memory."""
        if memory[0] != "$":
            return None
        mapping = self._page(int(memory[1:]), max(size - 1, 0) // PAGE)
        if not is_write and not mapping.is_writable:
            raise SkippedError
        return mapping

    def _touch_for_call(self, mapping: Mapping, pages: int, is_write: bool) -> None:
        """Faults that the kernel takes when it reads what a program writes, and writes what it reads."""
        first = len(self.records)
        for page in range(pages):
            if is_write:
                self._touch(mapping, page)
            else:
                self._change(mapping, page)
        for record in self.records[first:]:
            record.words["marks"] = (*record.words["marks"], "kernel_fault")

    def _move(
        self, op: str, file: OpenFile | None, at: int, offset: int | None, size: int, flags: int, has_memory: bool
    ) -> int:
        is_write = "write" in op
        if offset is not None and offset < 0:
            raise RefusedError(errno.EINVAL)
        if not file or not (file.can_write if is_write else file.can_read):
            raise RefusedError(errno.EBADF)
        if not size and (not file.inode.is_dir or "v" in op):
            return 0
        if flags & RWF_UNKNOWN:
            raise RefusedError(errno.EOPNOTSUPP)
        if file.inode.is_dir:
            raise RefusedError(errno.EISDIR)
        if is_write and has_memory:
            file.inode.size = max(file.inode.size, at + size)
            return size
        if not is_write and at >= file.inode.size:
            return 0
        if not has_memory and is_write and at > file.inode.size:
            raise SkippedError  # ext4 leaves the file longer than it was
        if not has_memory:
            raise RefusedError(errno.EFAULT)
        return min(size, file.inode.size - at)

    # --- copies

    def _sendfile64(self, target: int, source: int, offset: Word, size: int) -> int:
        at = int(str(offset)[1:]) if offset else None

        def send() -> int:
            if not (read := self._need(source)).can_read or not (written := self._need(target)).can_write:
                raise RefusedError(errno.EBADF)
            if read.inode.is_dir or read.inode is written.inode:
                raise SkippedError
            if written.flags & os.O_APPEND:
                raise RefusedError(errno.EINVAL)
            begin = read.position if at is None else at
            return self._copy(begin, read, written.position, written, size)

        return self._copied("sendfile64", send, (source, at), (target, None), size)

    def _copy_file_range(
        self, source: int, source_offset: Word, target: int, target_offset: Word, size: int, flags: int
    ) -> int:
        from_at = int(str(source_offset)[1:]) if source_offset else None
        to_at = int(str(target_offset)[1:]) if target_offset else None

        def copy() -> int:
            read, written = self._need(source), self._need(target)
            if flags:
                raise RefusedError(errno.EINVAL)
            if read.inode.is_dir or written.inode.is_dir:
                raise RefusedError(errno.EISDIR)
            if not read.can_read or not written.can_write or written.flags & os.O_APPEND:
                raise RefusedError(errno.EBADF)
            begin = read.position if from_at is None else from_at
            end = written.position if to_at is None else to_at
            count = min(size, max(read.inode.size - begin, 0))
            if read.inode is written.inode and end + count > begin and end < begin + count:
                raise RefusedError(errno.EINVAL)
            return self._copy(begin, read, end, written, count)

        return self._copied("copy_file_range", copy, (source, from_at), (target, to_at), size)

    def _copy(self, begin: int, read: OpenFile, end: int, written: OpenFile, size: int) -> int:
        count = min(size, max(read.inode.size - begin, 0))
        if count:
            written.inode.size = max(written.inode.size, end + count)
        return count

    def _copied(
        self, op: str, body: Any, source: tuple[int, int | None], target: tuple[int, int | None], size: int
    ) -> int:
        places = []
        for fd, at in (source, target):
            file = self._file(fd)
            has_place = file and not file.inode.is_dir
            places.append((file.position if at is None else at) if file and has_place else None)
        result = self._call(body)
        self._copies += 1
        for role, (fd, at), place in zip(("source", "target"), (source, target), places, strict=True):
            file = self._file(fd)
            if file and at is None and result > 0:
                file.position += result
            self._record(
                op, result, fd=fd, role=role, is_write=role == "target", size_req=size, file_offset=place,
                size_ret=result if result >= 0 else None, call_id=self._copies, **self._about(self._name(fd)),
            )  # fmt: skip
        return result

    # --- names

    def _text(self, path: Word) -> str:
        """What the program passes."""
        return f"{self.folder}/{str(path)[1:]}" if str(path)[0] == "@" else str(path)[1:]

    def _claimed(self, dirfd: int, path: Word) -> str:
        """The path behind the folder that it starts from."""
        text = self._text(path)
        if text[0] == "/":
            return text
        base = self.root if dirfd == HERE else self._name(dirfd)
        return f"{base.path}/{text}" if base else text

    def _claim(self, dirfd: int, path: Word) -> dict[str, Any]:
        """The words that tell a path that the program passed."""
        return {
            "fd": None if dirfd == HERE else dirfd, "path": self._claimed(dirfd, path),
            "claimed_path": self._text(path), "marks": ("path_claimed",),
        }  # fmt: skip

    def _parent(self, dirfd: int, path: Word) -> tuple[Name, str]:
        """The folder that a path leads to, and its last word."""
        is_absolute = str(path)[0] == "@"
        at = self.root if is_absolute or dirfd == HERE else self._need(dirfd).name
        *folders, last = str(path).lstrip('@"').split("/")
        for text in (*folders, "."):
            if not at.inode.is_dir:
                raise RefusedError(errno.ENOTDIR)
            if text == "..":
                assert at.parent
                at = at.parent
            elif text != ".":
                found = at.inode.entries.get(text)
                if not found:
                    raise RefusedError(errno.ENOENT)
                at = found
        return at, last

    def _find(self, dirfd: int, path: Word) -> Name:
        parent, last = self._parent(dirfd, path)
        found = parent.inode.entries.get(last)
        if not found:
            raise RefusedError(errno.ENOENT)
        return found

    def _make(self, parent: Name, text: str, inode: Inode) -> Name:
        if not parent.inode.links:
            raise RefusedError(errno.ENOENT)
        name = parent.inode.entries[text] = Name(text, parent, inode)
        return name

    def _open(self, path: Word, flags: int, mode: int) -> int:
        return self._open_at("open", HERE, path, flags, mode)

    def _creat(self, path: Word, mode: int) -> int:
        return self._open_at("creat", HERE, path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)

    def _openat(self, dirfd: int, path: Word, flags: int, mode: int) -> int:
        return self._open_at("openat", dirfd, path, flags, mode)

    def _openat2(self, dirfd: int, path: Word, how: str, size: int) -> int:
        flags, mode, resolve = map(int, how[1:].split(","))
        return self._open_at("openat2", dirfd, path, flags, mode, resolve)

    def _open_at(self, op: str, dirfd: int, path: Word, flags: int, mode: int, resolve: int = 0) -> int:
        claim = self._claim(dirfd, path)
        result = self._call(self._opened, dirfd, path, flags, resolve)
        if result >= 0:
            claim = {"fd": claim["fd"], **self._about(self._name(result))}
        mode_word = mode if flags & os.O_CREAT else None
        new_fd = result if result >= 0 else None
        self._record(op, result, open_flags=flags, mode=mode_word, new_fd=new_fd, **claim)
        return result

    def _opened(self, dirfd: int, path: Word, flags: int, resolve: int) -> int:
        if resolve & RESOLVE_BENEATH and str(path)[0] == "@":
            raise RefusedError(errno.EXDEV)
        parent, last = self._parent(dirfd, path)
        name = parent.inode.entries.get(last)
        if name:
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise RefusedError(errno.EEXIST)
            if name.inode.is_dir and (flags & (os.O_CREAT | os.O_TRUNC) or flags & os.O_ACCMODE):
                raise RefusedError(errno.EISDIR)
            if flags & os.O_DIRECTORY and not name.inode.is_dir:
                raise RefusedError(errno.ENOTDIR)
            if flags & os.O_TRUNC:
                self._cut(name.inode, 0)
        elif flags & os.O_CREAT:
            name = self._make(parent, last, Inode(self._number()))
        else:
            raise RefusedError(errno.ENOENT)
        return self.actor.table.add(OpenFile(name, flags), bool(flags & os.O_CLOEXEC))

    def _rename(self, old: Word, new: Word) -> int:
        return self._renamed("rename", HERE, old, HERE, new, None)

    def _renameat2(self, old_dirfd: int, old: Word, new_dirfd: int, new: Word, flags: int) -> int:
        return self._renamed("renameat2", old_dirfd, old, new_dirfd, new, flags)

    def _renamed(self, op: str, old_dirfd: int, old: Word, new_dirfd: int, new: Word, flags: int | None) -> int:
        claim = self._claim(old_dirfd, old) | {"new_path": self._claimed(new_dirfd, new)}
        result = self._call(self._move_name, old_dirfd, old, new_dirfd, new, flags or 0)
        self._record(op, result, flags=flags, **claim)
        return result

    def _move_name(self, old_dirfd: int, old: Word, new_dirfd: int, new: Word, flags: int) -> int:
        if flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise RefusedError(errno.EINVAL)
        old_parent, old_last = self._parent(old_dirfd, old)
        new_parent, new_last = self._parent(new_dirfd, new)
        name, other = old_parent.inode.entries.get(old_last), new_parent.inode.entries.get(new_last)
        if not name or (not other and flags & RENAME_EXCHANGE):
            raise RefusedError(errno.ENOENT)
        if other and flags & RENAME_NOREPLACE:
            raise RefusedError(errno.EEXIST)
        if name in new_parent.ancestors():
            raise RefusedError(errno.EINVAL)
        if other and other in old_parent.ancestors():
            raise RefusedError(errno.EINVAL if flags & RENAME_EXCHANGE else errno.ENOTEMPTY)
        if other and other.inode is name.inode:
            return 0
        if flags & RENAME_EXCHANGE:
            assert other
            old_parent.inode.entries[old_last], new_parent.inode.entries[new_last] = other, name
            other.text, other.parent = old_last, old_parent
        else:
            if other:
                self._check_removal(other, name.inode.is_dir)
            elif not new_parent.inode.links:
                raise RefusedError(errno.ENOENT)
            del old_parent.inode.entries[old_last]
            if other:
                self._drop(other)
            new_parent.inode.entries[new_last] = name
        name.text, name.parent = new_last, new_parent
        return 0

    def _check_removal(self, name: Name, is_dir: bool) -> None:
        if name.inode.is_dir and not is_dir:
            raise RefusedError(errno.EISDIR)
        if is_dir and not name.inode.is_dir:
            raise RefusedError(errno.ENOTDIR)
        if name.inode.entries:
            raise RefusedError(errno.ENOTEMPTY)

    def _drop(self, name: Name) -> None:
        assert name.parent
        del name.parent.inode.entries[name.text]
        name.inode.links -= 1

    def _link(self, old: Word, new: Word) -> int:
        return self._linked("link", HERE, old, HERE, new, None)

    def _linkat(self, old_dirfd: int, old: Word, new_dirfd: int, new: Word, flags: int) -> int:
        return self._linked("linkat", old_dirfd, old, new_dirfd, new, flags)

    def _linked(self, op: str, old_dirfd: int, old: Word, new_dirfd: int, new: Word, flags: int | None) -> int:
        def make() -> int:
            inode = self._find(old_dirfd, old).inode
            parent, last = self._parent(new_dirfd, new)
            if last in parent.inode.entries:
                raise RefusedError(errno.EEXIST)
            if not parent.inode.links:
                raise RefusedError(errno.ENOENT)
            if inode.is_dir:
                raise RefusedError(errno.EPERM)
            self._make(parent, last, inode)
            inode.links += 1
            return 0

        claim = self._claim(old_dirfd, old) | {"new_path": self._claimed(new_dirfd, new)}
        result = self._call(make)
        self._record(op, result, flags=flags, **claim)
        return result

    def _unlink(self, path: Word) -> int:
        return self._removed("unlink", HERE, path, False, None)

    def _rmdir(self, path: Word) -> int:
        return self._removed("rmdir", HERE, path, True, None)

    def _unlinkat(self, dirfd: int, path: Word, flags: int) -> int:
        return self._removed("unlinkat", dirfd, path, bool(flags & AT_REMOVEDIR), flags)

    def _removed(self, op: str, dirfd: int, path: Word, is_dir: bool, flags: int | None) -> int:
        def remove() -> int:
            name = self._find(dirfd, path)
            self._check_removal(name, is_dir)
            self._drop(name)
            return 0

        claim = self._claim(dirfd, path)
        result = self._call(remove)
        self._record(op, result, flags=flags, **claim)
        return result

    def _mkdir(self, path: Word, mode: int) -> int:
        return self._make_dir("mkdir", HERE, path, mode)

    def _mkdirat(self, dirfd: int, path: Word, mode: int) -> int:
        return self._make_dir("mkdirat", dirfd, path, mode)

    def _make_dir(self, op: str, dirfd: int, path: Word, mode: int) -> int:
        def make() -> int:
            parent, last = self._parent(dirfd, path)
            if last in parent.inode.entries:
                raise RefusedError(errno.EEXIST)
            self._make(parent, last, Inode(self._number(), is_dir=True))
            return 0

        claim = self._claim(dirfd, path)
        result = self._call(make)
        self._record(op, result, mode=mode, **claim)
        return result

    def _truncate(self, path: Word, size: int) -> int:
        def cut() -> int:
            if size < 0:
                raise RefusedError(errno.EINVAL)
            inode = self._find(HERE, path).inode
            if inode.is_dir:
                raise RefusedError(errno.EISDIR)
            self._cut(inode, size)
            return 0

        result = self._call(cut)
        self._record("truncate", result, size_req=size if size >= 0 else None, **self._claim(HERE, path))
        return result

    def _ftruncate(self, fd: int, size: int) -> int:
        def cut() -> int:
            if size < 0:
                raise RefusedError(errno.EINVAL)
            file = self._need(fd)
            if file.inode.is_dir or not file.can_write:
                raise RefusedError(errno.EINVAL)
            self._cut(file.inode, size)
            return 0

        result = self._call(cut)
        size_req = size if size >= 0 else None
        self._record("ftruncate", result, fd=fd, size_req=size_req, **self._about(self._name(fd)))
        return result

    def _cut(self, inode: Inode, size: int) -> None:
        """Gives a file a size: mapped pages behind its end are gone."""
        inode.size = size
        kept = -(-size // PAGE)
        for mapping in self._mappings():
            if mapping.name.inode is inode:
                gone = {page for page in mapping.own if mapping.offset // PAGE + page >= kept}
                mapping.own -= gone
                mapping.ready -= gone

    # --- looking at files

    def _newfstat(self, fd: int, memory: str) -> int:
        return self._of_descriptor("newfstat", fd)

    def _fsync(self, fd: int) -> int:
        return self._of_descriptor("fsync", fd)

    def _fdatasync(self, fd: int) -> int:
        return self._of_descriptor("fdatasync", fd)

    def _of_descriptor(self, op: str, fd: int, **words: Any) -> int:
        result = 0 if self._file(fd) else -errno.EBADF
        self._record(op, result, fd=fd, **words, **self._about(self._name(fd)))
        return result

    def _newfstatat(self, dirfd: int, path: Word, memory: str, flags: int) -> int:
        return self._look("newfstatat", dirfd, path, flags)

    def _statx(self, dirfd: int, path: Word, flags: int, mask: int, memory: str) -> int:
        return self._look("statx", dirfd, path, flags)

    def _look(self, op: str, dirfd: int, path: Word, flags: int) -> int:
        if flags & AT_EMPTY_PATH and path == '"':
            if self._file(dirfd):
                return self._of_descriptor(op, dirfd, flags=flags)
            self._record(op, -errno.EBADF, fd=dirfd, flags=flags, claimed_path="", marks=("path_claimed",))
            return -errno.EBADF
        claim = self._claim(dirfd, path)
        try:
            inode = self._find(dirfd, path).inode
        except RefusedError as refused:
            self._record(op, -refused.code, flags=flags, **claim)
            return -refused.code
        self._record(op, 0, flags=flags, found=inode.number, kind="dir" if inode.is_dir else "file", **claim)
        return 0

    def _fallocate(self, fd: int, mode: int, offset: int, size: int) -> int:
        def allocate() -> int:
            file = self._need(fd)
            if offset < 0 or size <= 0:
                raise RefusedError(errno.EINVAL)
            if mode == FALLOC_UNKNOWN:
                raise RefusedError(errno.EOPNOTSUPP)
            if not file.can_write:
                raise RefusedError(errno.EBADF)
            if not mode:
                file.inode.size = max(file.inode.size, offset + size)
            return 0

        result = self._call(allocate)
        place, length = (offset if offset >= 0 else None), (size if size >= 0 else None)
        self._record(
            "fallocate", result, fd=fd, flags=mode, file_offset=place, size_req=length, **self._about(self._name(fd))
        )
        return result

    # --- mappings

    def _mappings(self) -> Iterator[Mapping]:
        for process in {actor.process for actor in self.actors.values()}:
            yield from process.mappings.values()

    def _mapping(self, slot: int) -> Mapping:
        mapping = self.actor.process.mappings.get(slot)
        if not mapping:
            raise SkippedError
        return mapping

    def _map(self, slot: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
        if slot in self.actor.process.mappings:
            raise SkippedError

        def make() -> int:
            if offset % PAGE:
                raise RefusedError(errno.EINVAL)
            file = self._need(fd)
            if not length:
                raise RefusedError(errno.EINVAL)
            is_written = flags == MAP_SHARED and prot & PROT_WRITE
            if not file.can_read or (is_written and not file.can_write):
                raise RefusedError(errno.EACCES)
            if file.inode.is_dir:
                raise RefusedError(errno.ENODEV)
            self._places += 1
            self.actor.process.mappings[slot] = Mapping(
                self._places, file.name, offset, length, flags == MAP_SHARED, bool(prot & PROT_WRITE)
            )
            return 0

        result = self._call(make)
        about = self._about(self._name(fd))
        addr = (self._places, 0) if not result else None
        self._record(
            "mmap", result, fd=fd, size_req=length, file_offset=offset, prot=prot, map_flags=flags, addr=addr, **about
        )
        return result

    def _munmap(self, place: str, length: int) -> int:
        slot = int(place[1:])
        mapping = self._mapping(slot)
        if length not in (0, mapping.length):
            raise SkippedError
        if length:
            del self.actor.process.mappings[slot]
        result = 0 if length else -errno.EINVAL
        addr, about = (mapping.place, 0), self._about(mapping.name)
        self._record("munmap", result, size_req=length, file_offset=mapping.offset, addr=addr, **about)
        return result

    def _remap(self, slot: int, old_length: int, length: int, flags: int) -> int:
        mapping = self._mapping(slot)
        if old_length != mapping.length or length % PAGE or flags != MREMAP_MAYMOVE:
            raise SkippedError
        result = 0 if length else -errno.EINVAL
        words = {"size_req": length, "map_flags": flags, "file_offset": mapping.offset, **self._about(mapping.name)}
        if length:
            self._places += 1
            mapping.place, mapping.length = self._places, length
            kept = {page for page in mapping.own if page * PAGE < length}
            mapping.own &= kept
            mapping.ready &= kept
        self._record("mremap", result, addr=(mapping.place, 0) if length else None, **words)
        return result

    def _madvise(self, place: str, length: int, advice: int) -> int:
        def advise() -> int:
            if advice not in (MADV_NORMAL, MADV_WILLNEED, MADV_DONTNEED):
                raise RefusedError(errno.EINVAL)
            if advice == MADV_DONTNEED and length:
                mapping.own.clear()
                mapping.ready.clear()
            return 0

        mapping = self._mapping(int(place[1:]))
        if length not in (0, mapping.length):
            raise SkippedError
        return self._of_mapping("madvise", mapping, self._call(advise), length, advice)

    def _msync(self, place: str, length: int, flags: int) -> int:
        mapping = self._mapping(int(place[1:]))
        if length not in (0, mapping.length):
            raise SkippedError
        result = 0 if flags in (0, MS_ASYNC, MS_SYNC) else -errno.EINVAL
        return self._of_mapping("msync", mapping, result, length, flags)

    def _of_mapping(self, op: str, mapping: Mapping, result: int, length: int, flags: int) -> int:
        addr, about = (mapping.place, 0), self._about(mapping.name)
        self._record(op, result, size_req=length, file_offset=mapping.offset, addr=addr, flags=flags, **about)
        return result

    def _page(self, slot: int, page: int) -> Mapping:
        """The mapping, if the page can be touched without a signal."""
        mapping = self._mapping(slot)
        if page * PAGE >= mapping.length or mapping.offset + page * PAGE >= mapping.name.inode.size:
            raise SkippedError
        return mapping

    def _fault(self, mapping: Mapping, page: int, is_write: bool, is_sure: bool) -> None:
        at = page * PAGE
        self._record(
            "fault", addr=(mapping.place, at), file_offset=mapping.offset + at, is_write=is_write,
            **self._about(mapping.name),
        )  # fmt: skip
        self.records[-1].is_sure = is_sure

    def _load(self, slot: int, page: int) -> int:
        self._touch(self._page(slot, page), page)
        return 0

    def _store(self, slot: int, page: int) -> int:
        mapping = self._page(slot, page)
        if not mapping.is_writable:
            raise SkippedError
        self._change(mapping, page)
        return 0

    def _touch(self, mapping: Mapping, page: int) -> None:
        if page not in mapping.own:
            self._see(mapping, page, is_write=False)

    def _change(self, mapping: Mapping, page: int) -> None:
        if mapping.is_shared:
            self._see(mapping, page, is_write=True)
        elif page not in mapping.ready:
            self._fault(mapping, page, is_write=True, is_sure=True)
            mapping.ready.add(page)
            mapping.own.add(page)

    def _see(self, mapping: Mapping, page: int, is_write: bool) -> None:
        """A fault that maps pages of the file's own, perhaps more than this one: a window, or a large folio.

        They may lie in a mapping of the same file beside this one, with which the kernel has joined it.
        """
        self._fault(mapping, page, is_write, is_sure=not mapping.is_seen)
        for other in self.actor.process.mappings.values():
            other.is_seen = other.is_seen or other.name.inode is mapping.name.inode

    # --- processes

    def _new_actor(self, number: int, process: Process, table: Table) -> None:
        if number in self.actors or number < self.made or number >= MOST_ACTORS:
            raise SkippedError
        self.made = number + 1
        actor = self.actors[number] = Actor(number, process, table)
        process.threads.append(actor)

    def _fork(self, number: int) -> int:
        parent = self.actor.process
        child = Process({slot: mapping.forked() for slot, mapping in parent.mappings.items()})
        self._new_actor(number, child, self.actor.table.copy())
        for mapping in parent.mappings.values():
            mapping.ready.clear()
        self._record("fork", child=number, is_thread=False)
        return 0

    def _thread(self, number: int) -> int:
        self._new_actor(number, self.actor.process, self.actor.table)
        self._record("fork", child=number, is_thread=True)
        return 0

    def _exec(self) -> int:
        process = self.actor.process
        self._end([thread for thread in process.threads if thread is not self.actor], 0)
        process.threads = [self.actor]
        process.mappings.clear()
        table = self.actor.table = self.actor.table.copy()
        table.entries = {fd: d for fd, d in table.entries.items() if not d.is_cloexec}
        self._record("exec")
        return 0

    def _exit(self, status: int) -> int:
        process = self.actor.process
        if len(process.threads) == 1:
            raise SkippedError
        process.threads.remove(self.actor)
        del self.actors[self.actor.number]
        process.ended.append({status << 8})
        self.exits.append((self.actor.number, process.ended[-1]))
        return 0

    def _exit_group(self, status: int) -> int:
        self._end(self.actor.process.threads, status)
        return 0

    def _end(self, threads: list[Actor], status: int) -> None:
        """Threads are killed; one that was about to end by itself may be, too."""
        for thread in threads:
            del self.actors[thread.number]
            self.exits.append((thread.number, {status << 8}))
        for statuses in self.actor.process.ended:
            statuses.add(status << 8)


class SkippedError(Exception):
    """A line that is not to be carried out: its actor is gone, or what would happen cannot be predicted."""


def total(vector: str) -> int:
    """Bytes of a vector, as scripts write it: "[7,0,9"."""
    return sum(map(int, vector[1:].split(",")))


FILES: dict[str, int | None] = {'"a': 10000, '"b': 100, '"p': None, '"p/a': 3 * PAGE, '"q': None, '"q/b': 5000}
"""What is there at the beginning, sizes of files, folders None. As words of scripts."""
