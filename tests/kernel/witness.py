"""What strace saw of a run, call by call and in FLAK's words: which file, how much, where in it, under which names.

strace tells neither at which offset a read began nor what lay at an address that was unmapped. Both follow from the
calls before, so they are made again here: descriptors with their positions, current folders and mappings.

Made for `strace -f -y -X raw -s 0` with structures in full: one file, in the order in which the calls ended.
"""

from __future__ import annotations

import ast
import errno
import mmap
import os
import re
import signal
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flak.events import escape

SHAPES = {
    "read": "file _ size_req", "write": "file _ size_req", "readv": "file vector", "writev": "file vector",
    "pread64": "file _ size_req file_offset", "pwrite64": "file _ size_req file_offset",
    "preadv": "file vector _ file_offset", "pwritev": "file vector _ file_offset",
    "preadv2": "file vector _ file_offset", "pwritev2": "file vector _ file_offset",
    "sendfile": "target source source_offset size_req",
    "splice": "source source_offset target target_offset size_req",
    "copy_file_range": "source source_offset target target_offset size_req",
    "ioctl": "target command source",
    "open": "path open_flags mode", "openat": "folder path open_flags mode", "openat2": "folder path how",
    "creat": "path mode",
    "close": "file", "close_range": "fd last flags", "dup": "file", "dup2": "file", "dup3": "file",
    "fcntl": "file command", "lseek": "file arg_offset size_req",
    "mmap": "_ size_req prot map_flags file file_offset", "munmap": "addr size_req", "msync": "addr size_req flags",
    "mremap": "addr old_size size_req map_flags", "madvise": "addr size_req flags",
    "fadvise64": "file file_offset size_req flags", "readahead": "file file_offset size_req",
    "stat": "path found", "lstat": "path found", "fstat": "file found", "newfstatat": "folder path found flags",
    "statx": "folder path flags _ found", "statfs": "path", "fstatfs": "file",
    "access": "path mode", "faccessat": "folder path mode", "faccessat2": "folder path mode flags",
    "rename": "path new_path", "renameat": "folder path new_folder new_path",
    "renameat2": "folder path new_folder new_path flags", "link": "path new_path",
    "linkat": "folder path new_folder new_path flags", "symlink": "path new_path",
    "symlinkat": "path new_folder new_path", "unlink": "path", "unlinkat": "folder path flags", "rmdir": "path",
    "mkdir": "path mode", "mkdirat": "folder path mode", "truncate": "path size_req",
    "ftruncate": "file size_req", "fallocate": "file flags file_offset size_req", "fsync": "file",
    "fdatasync": "file", "sync_file_range": "file file_offset size_req flags", "getdents64": "file _ size_req",
    "chdir": "path", "fchdir": "file", "clone": "", "clone3": "", "fork": "", "vfork": "", "execve": "",
    "io_uring_enter": "", "io_submit": "",
}  # fmt: skip
"""The calls that are looked at, and what each of their arguments is, as far as it is of use."""
OPS = {"stat": "newstat", "lstat": "newlstat", "fstat": "newfstat", "sendfile": "sendfile64", "ioctl": "ficlone"}
"""What the kernel calls otherwise."""
NUMBERS = {
    "addr", "arg_offset", "command", "fd", "file_offset", "flags", "last", "map_flags", "mode", "old_size",
    "open_flags", "prot", "size_req",
}  # fmt: skip
OF_THE_WITNESS_ONLY = {"command", "last", "old_size"}
MAKERS = ("clone", "clone3", "fork", "vfork")
MAPPINGS = ("munmap", "mremap", "madvise", "msync")
READS = ("read", "readv", "pread64", "preadv", "preadv2")
WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
OPENS = ("open", "openat", "openat2", "creat")
DUPS = ("dup", "dup2", "dup3", "fcntl")
KINDS = {stat.S_IFREG: "file", stat.S_IFLNK: "file", stat.S_IFDIR: "dir"}
F_DUPFD = (0, 1030)  # F_DUPFD, F_DUPFD_CLOEXEC
FICLONE = 0x40049409
CLONE_VM, CLONE_FS, CLONE_FILES = 0x100, 0x200, 0x400

# Calls that another architecture does not have are asked for with "?".
OPTIONS = [
    "-f", "-y", "-X", "raw", "-s", "0", "-e", "abbrev=getdents64,execve",
    "-e", "trace=" + ",".join(f"?{call}" for call in SHAPES),
]  # fmt: skip

Words = dict[str, Any]


@dataclass
class Access:
    """What FLAK is to have recorded of a call: its op and those words that strace tells."""

    op: str
    words: Words
    line: str


class Call(NamedTuple):
    """A line of the log. result: None when the call has not returned a number; made: the name of a new descriptor."""

    tid: int
    name: str
    arguments: list[str]
    result: int | None
    errno: str | None
    made: str | None
    line: str

    @property
    def is_done(self) -> bool:
        return self.result is not None and self.errno is None

    def children(self) -> Iterator[tuple[int, int]]:
        """The thread that it made, with the CLONE_* bits that say what both share."""
        if self.name in MAKERS and self.is_done:
            flags = re.search(r"flags=([\w|]+)", self.line)
            yield self.result or 0, number(flags[1]) if flags else 0


@dataclass
class Description:
    """An open file, which duplicated and inherited descriptors share. position: None where it is not known."""

    path: str | None
    position: int | None
    appends: bool = False

    def advance(self, moved: int) -> Words:
        """Where a transfer began, as a word; none where that is not known."""
        if self.position is None or self.appends:
            return {}
        before = self.position
        self.position += moved
        return {"file_offset": before}


class Mapping(NamedTuple):
    begin: int
    end: int
    path: str | None
    file_offset: int


class Memory:
    """The mappings of files in an address space."""

    def __init__(self, mappings: list[Mapping] | None = None) -> None:
        self.mappings = list(mappings or [])

    def find(self, addr: int) -> Mapping | None:
        return next((m for m in self.mappings if m.begin <= addr < m.end), None)

    def unmap(self, addr: int, size: int) -> None:
        end = addr + -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        left = []
        for m in self.mappings:
            if m.begin < min(addr, m.end):
                left.append(m._replace(end=min(addr, m.end)))
            if max(end, m.begin) < m.end:
                begin = max(end, m.begin)
                left.append(m._replace(begin=begin, file_offset=m.file_offset + begin - m.begin))
        self.mappings = left

    def map(self, addr: int, size: int, path: str | None, file_offset: int) -> None:
        """A mapping takes the place of what was there; without a path it is none of a file."""
        self.unmap(addr, size)
        if path:
            end = addr + -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            self.mappings.append(Mapping(addr, end, path, file_offset))


class Folder:
    """A current folder, which threads share."""

    def __init__(self, path: str) -> None:
        self.path = path


@dataclass
class Process:
    """What the numbers and names that a thread passes mean."""

    files: dict[int, Description]
    folder: Folder
    memory: Memory

    def child(self, flags: int) -> Process:
        return Process(
            self.files if flags & CLONE_FILES else dict(self.files),
            self.folder if flags & CLONE_FS else Folder(self.folder.path),
            self.memory if flags & CLONE_VM else Memory(self.memory.mappings),
        )


_CALL = re.compile(
    r"(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>\?|0x[0-9a-f]+|-?\d+)"
    r"(?:<(?P<made>.*?)>)?(?: (?P<errno>E[A-Z0-9]+))?"
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|<(?:[^<>\\]|\\.)*>|[][(){},]')
_DESCRIPTOR = re.compile(r"(?P<fd>-?\d+)(?:<(?P<path>.*)>(?:\(deleted\))?)?$")
_UNFINISHED = " <unfinished ...>"


def split(arguments: str) -> list[str]:
    """The arguments of a call, apart; commas within brackets, strings and names of descriptors part nothing."""
    parts, depth, begin = [], 0, 0
    for match in _TOKEN.finditer(arguments):
        if match[0] in "([{":
            depth += 1
        elif match[0] in ")]}":
            depth -= 1
        elif match[0] == "," and not depth:
            parts.append(arguments[begin : match.start()].strip())
            begin = match.end()
    return [*parts, arguments[begin:].strip()]


def number(text: str) -> int:
    """A number as strace has it: decimal, 0x, octal after a 0, in brackets, several joined by |."""
    total = 0
    for part in text.strip("[]").split("|"):
        if part and part != "NULL":
            total |= int(part, 8) if re.fullmatch("0[0-7]+", part) else int(part, 0)
    return total


def unquoted(text: str) -> str:
    """A name that strace has put in quotes or behind a descriptor, as Python has names: any bytes."""
    return os.fsdecode(ast.literal_eval(f"b{text}" if text.startswith('"') else f'b"{text}"'))


def descriptor(text: str) -> tuple[int, str | None]:
    """A descriptor and the name that strace has of it."""
    match = _DESCRIPTOR.match(text)
    assert match, text
    return int(match["fd"]), unquoted(match["path"]) if match["path"] else None


def found_by_stat(text: str) -> Words:
    """dev, ino and kind of struct stat or struct statx; nothing when the call has failed."""
    fields = {name: number(value) for name, value in re.findall(r"\bstx?_(\w+)=(\w+)", text)}
    if not fields:
        return {}
    dev = fields["dev"] if "dev" in fields else os.makedev(fields["dev_major"], fields["dev_minor"])
    kind = KINDS.get(stat.S_IFMT(fields["mode"]))
    return {"dev": f"{os.major(dev)}:{os.minor(dev)}", "ino": fields["ino"], "kind": kind}


def is_file(path: str | None) -> bool:
    """A regular file or a folder: of others, FLAK records nothing by default. What has gone meanwhile was one.

    A symbolic link that was opened itself (O_PATH) counts among the others.
    """
    if path is None or not path.startswith("/"):
        return False
    try:
        return stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR)
    except OSError:
        return True


class Witness:
    """strace's log of a run.

    first: the thread that strace started.
    threads: what FLAK is to have recorded of each thread, in order.
    forks, execs, exits: whom each thread made; how often it took up another program; how it ended, as wait(2) has it.
    totals: by the name a file had when it was first read or written, as in `FileRow`.
    not_decoded: calls that FLAK only counts.
    """

    def __init__(self, log: Path, links: Iterable[set[str]] = ()) -> None:
        """links: sets of paths that led to the same file beforehand."""
        self._links = {path: names for names in links for path in names}
        self.threads: dict[int, list[Access]] = defaultdict(list)
        self.forks: dict[int, list[int]] = defaultdict(list)
        self.execs: Counter[int] = Counter()
        self.exits: dict[int, int] = {}
        self.totals: dict[str, Counter[str]] = defaultdict(Counter)
        self.not_decoded: Counter[str] = Counter()
        self._labels: dict[str, str] = {}  # present path → the name that its file is counted under
        calls = list(self._calls(log.read_text().splitlines()))
        makers = {child: (call.tid, flags) for call in calls for child, flags in call.children()}
        self.first = calls[0].tid
        self._processes = {self.first: Process({}, Folder(str(Path.cwd())), Memory())}
        for call in calls:
            if call.tid not in self._processes:  # whoever made it has not returned yet
                self._start(call.tid, *makers[call.tid])
            for op, words in self._accesses(call):
                self._count(op, words)
                self.threads[call.tid].append(Access(op, _escaped(words), call.line))
            for child, flags in call.children():
                self.forks[call.tid].append(child)
                if child not in self._processes:
                    self._start(child, call.tid, flags)

    def _calls(self, lines: list[str]) -> Iterator[Call]:
        """The calls in the order in which they ended, whole where strace told of others in between."""
        begun: dict[str, str] = {}
        for numbered in lines:
            tid, line = numbered.split(maxsplit=1)
            if match := re.match(r"\+\+\+ exited with (\d+)", line):
                self.exits[int(tid)] = int(match[1]) << 8
            elif match := re.match(r"\+\+\+ killed by (SIG\w+)", line):
                self.exits[int(tid)] = int(signal.Signals[match[1]])
            elif line.endswith(_UNFINISHED):
                begun[tid] = line.removesuffix(_UNFINISHED)
                continue
            elif match := re.match(r"<\.\.\. \w+ resumed>", line):
                line = begun.pop(tid) + line[match.end() :]
            if match := _CALL.match(line):
                result = None if match["result"] == "?" else int(match["result"], 0)
                error = None if result is None else match["errno"]  # ERESTARTSYS never reaches a program
                made = unquoted(match["made"]) if match["made"] else None
                yield Call(int(tid), match["name"], split(match["arguments"]), result, error, made, line)

    def _start(self, child: int, maker: int, flags: int) -> None:
        self._processes[child] = self._processes[maker].child(flags)

    def _accesses(self, call: Call) -> Iterator[tuple[str, Words]]:
        """What FLAK is to have recorded of a call. What it means for later calls is noted."""
        process = self._processes[call.tid]
        parts = dict(zip(SHAPES[call.name].split(), call.arguments, strict=False))
        numbers = {word: number(text) for word, text in parts.items() if word in NUMBERS}
        words = {"errno": call.errno} | {word: n for word, n in numbers.items() if word not in OF_THE_WITNESS_ONLY}
        op = OPS.get(call.name, call.name)
        if call.name in ("io_uring_enter", "io_submit"):
            self.not_decoded[call.name] += 1
        elif call.name == "execve":
            if call.is_done:
                self.execs[call.tid] += 1
                process.memory = Memory()
        elif call.name in ("chdir", "fchdir"):
            if call.is_done:
                path = descriptor(parts["file"])[1] if "file" in parts else unquoted(parts["path"])
                process.folder.path = os.path.realpath(Path(process.folder.path, path or ""))
        elif call.name in MAPPINGS:
            yield from self._of_mapping(process.memory, call, op, words, numbers)
        elif call.name == "close_range":
            for fd in set(process.files) & set(range(numbers["fd"], min(numbers["last"], max(process.files)) + 1)):
                del process.files[fd]
            yield op, words | {"path": None}
        elif "source" in parts:
            if numbers.get("command", FICLONE) == FICLONE:
                yield from self._of_copy(process, call, op, words, parts)
        elif "path" in parts:
            yield from self._by_path(process, call, op, words, parts)
        elif "file" in parts and (call.name != "fcntl" or numbers["command"] in F_DUPFD):
            yield from self._by_descriptor(process, call, op, words, parts)

    def _by_descriptor(
        self, process: Process, call: Call, op: str, words: Words, parts: dict[str, str]
    ) -> Iterator[tuple[str, Words]]:
        fd, path = descriptor(parts["file"])
        description = process.files.get(fd)
        words |= {"fd": fd if fd >= 0 else None, "path": path}
        if op in (*READS, *WRITES, "getdents64"):
            words["size_ret"] = call.result if call.is_done else None
        if "vector" in parts:
            words["size_req"] = sum(int(length) for length in re.findall(r"iov_len=(\d+)", parts["vector"]))
        if words.get("file_offset") == -1:  # preadv2(2): the file's own position
            del words["file_offset"]
        if op in (*READS, *WRITES) and "file_offset" not in words and description and call.errno != "EISDIR":
            words |= description.advance(call.result or 0 if call.is_done else 0)
        if "found" in parts:
            words |= found_by_stat(parts["found"])
        if op == "lseek" and call.is_done:
            words["file_offset"] = call.result
            if description:
                description.position = call.result
        if op == "close":
            process.files.pop(fd, None)
        if op in DUPS:
            words["new_fd"] = call.result if call.is_done else None
            if call.is_done and call.result is not None:
                process.files[call.result] = process.files.setdefault(fd, Description(path, None))
        if op == "mmap":
            words["addr"] = hex(call.result or 0) if call.is_done else None
            if call.is_done and call.result:
                process.memory.map(
                    call.result, words["size_req"], path if is_file(path) else None, words["file_offset"]
                )
            if words["map_flags"] & mmap.MAP_ANONYMOUS:
                return
        if is_file(path) or (path is None and not call.is_done):
            yield op, words

    def _by_path(
        self, process: Process, call: Call, op: str, words: Words, parts: dict[str, str]
    ) -> Iterator[tuple[str, Words]]:
        fd, folder = descriptor(parts["folder"]) if "folder" in parts else (-1, process.folder.path)
        words["fd"] = fd if fd >= 0 else None
        claimed = unquoted(parts["path"])
        found = found_by_stat(parts.get("found", ""))
        if op in OPENS:
            if "how" in parts:
                how = dict(re.findall(r"(\w+)=(\w+)", parts["how"]))
                words |= {"open_flags": number(how["flags"]), "mode": number(how.get("mode", "0"))}
            words.setdefault("open_flags", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)  # what creat(2) means
            words["new_fd"] = call.result if call.is_done else None
            if not words["open_flags"] & os.O_CREAT:
                words["mode"] = None
            if call.is_done and call.result is not None:
                process.files[call.result] = Description(call.made, 0, bool(words["open_flags"] & os.O_APPEND))
                if is_file(call.made):
                    yield op, words | {"path": call.made}
                return
        if not claimed and found:  # AT_EMPTY_PATH: the descriptor is meant
            if is_file(folder):
                yield op, words | {"path": folder} | found
            return
        if found and not found["kind"]:
            return
        words |= {"claimed_path": claimed, "path": _behind(folder, claimed)} | found
        if call.name.startswith("symlink"):
            words["path"] = claimed
        if "new_path" in parts:
            new_folder = descriptor(parts["new_folder"])[1] if "new_folder" in parts else process.folder.path
            words["new_path"] = _behind(new_folder, unquoted(parts["new_path"]))
        yield op, words

    def _of_copy(
        self, process: Process, call: Call, op: str, words: Words, parts: dict[str, str]
    ) -> Iterator[tuple[str, Words]]:
        for role in ("source", "target"):
            fd, path = descriptor(parts[role])
            offset = parts.get(f"{role}_offset", "NULL")
            description = process.files.get(fd)
            if path is None and description:  # the source of a clone: strace does not know that it is a descriptor
                path = description.path
            side = words | {"role": role, "fd": fd, "path": path, "size_ret": call.result if call.is_done else None}
            if op == "ficlone":
                side["file_offset"] = 0
            elif offset != "NULL":
                side["file_offset"] = number(offset.partition(" ")[0])
            elif description:
                side |= description.advance(call.result or 0 if call.is_done else 0)
            if is_file(path):
                yield op, side

    def _of_mapping(
        self, memory: Memory, call: Call, op: str, words: Words, numbers: Words
    ) -> Iterator[tuple[str, Words]]:
        addr = numbers["addr"]
        mapping = memory.find(addr)
        if op == "munmap":
            memory.unmap(addr, words["size_req"])
        words["addr"] = hex(addr)
        if op == "mremap":
            words["addr"] = hex(call.result or 0) if call.is_done else None
            if call.is_done and call.result:
                memory.unmap(addr, numbers["old_size"])
                path, offset = (mapping.path, mapping.file_offset + addr - mapping.begin) if mapping else (None, 0)
                memory.map(call.result, words["size_req"], path, offset)
        if mapping:
            yield op, words | {"path": mapping.path, "file_offset": mapping.file_offset + addr - mapping.begin}

    def _count(self, op: str, words: Words) -> None:
        """Adds to the totals, and follows files through their names."""
        path = os.path.normpath(words.get("path") or "")
        role = words.get("role")
        if op in READS or op in WRITES or role:
            verb = "write" if op in WRITES or role == "target" else "read"
            for name in self._links.get(path, {path}):
                self._labels.setdefault(name, path)
            total = self.totals[escape(os.fsencode(self._labels[path]))]
            if words["size_ret"] is None:
                total["failed_count"] += 1
            else:
                total[f"{verb}_count"] += 1
                total[f"{verb}_bytes"] += words["size_ret"]
        if words["errno"]:
            return
        if op.startswith("rename"):
            new_path = os.path.normpath(words["new_path"])
            for name in [name for name in self._labels if Path(name).is_relative_to(path)]:
                self._labels[new_path + name.removeprefix(path)] = self._labels.pop(name)
        if op.startswith("link") and path in self._labels:
            self._labels[os.path.normpath(words["new_path"])] = self._labels[path]
        if op.startswith("unlink"):
            self._labels.pop(path, None)


def _escaped(words: Words) -> Words:
    """Names as FLAK prints them; errnos by number, for some have two names."""
    names = {word: escape(os.fsencode(words[word])) for word in ("path", "new_path", "claimed_path") if words.get(word)}
    return words | names | {"errno": words["errno"] and getattr(errno, words["errno"])}


def _behind(folder: str | None, claimed: str) -> str:
    """A path as FLAK has it: what was passed, behind the folder that it starts from."""
    return claimed if claimed.startswith("/") else f"{(folder or '').rstrip('/')}/{claimed}"
