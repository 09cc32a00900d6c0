"""Programs that nobody thought of: FLAK must record each of them as the model of Linux says (program_model.py).

A program is a script (tests/workloads/script.c) of some 200 lines: calls of several processes and threads, of which one
runs at a time. What the kernel returned to the program is compared first, so a wrong model is told from a wrong trace;
for a few programs strace is a third witness. A failure is cut down to the lines it takes.

FLAK_SOAK_S=600 goes on for ten minutes, with other programs each time.
"""

from __future__ import annotations

import errno
import itertools
import os
import platform
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from flak.events import Access, Close, CopyFrom, CopyTo, Event, Exec, Exit, Fault, Fork
from flak.text import errno_name

from . import strace_log
from .conftest import DEADLINE
from .program_model import (
    AT_EMPTY_PATH,
    AT_REMOVEDIR,
    CLOSE_RANGE_CLOEXEC,
    CLOSE_RANGE_UNSHARE,
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_UNKNOWN,
    FILES,
    HERE,
    MADV_DONTNEED,
    MADV_NORMAL,
    MADV_WILLNEED,
    MAX_FDS,
    MREMAP_MAYMOVE,
    MS_ASYNC,
    MS_SYNC,
    PAGE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RESOLVE_BENEATH,
    RWF_APPEND,
    RWF_UNKNOWN,
    Line,
    Machine,
    Record,
    Word,
)
from .running import Run, Workloads, trace_command
from .strace_log import Call

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("sees_faults")]

LENGTH = 200  # lines of a program, about
QUICK, WITNESSED, SOAK = 25, 3, 100  # programs of the usual tests; of each round of a longer one
SHRINK_S = 60  # seconds to look for a shorter program that fails

WORDS = (
    "via", "op", "fd", "file_id", "kind", "path", "file_offset", "arg_offset", "size_req", "size_ret", "errno",
    "new_fd", "role", "is_write", "open_flags", "flags", "mode", "prot", "map_flags", "addr", "new_path",
    "claimed_path", "call_id", "marks",
)  # fmt: skip
"""What is compared. Not predicted: times, CPUs, `is_major` and `page_count`."""


WITNESSED_OPS = {strace_log.BY_PATH.get(call, strace_log.BY_DESCRIPTOR.get(call, call)) for call in strace_log.CALLS}
"""What strace is asked for."""


class MismatchError(AssertionError):
    """What was seen is not what was predicted."""


# --- writing programs

PATHS = [
    '"a', '"b', '"c', '"p', '"q', '"p/a', '"p/b', '"q/a', '"q/b', '"q/p', "@a", "@c", "@p", "@p/a", '"p/../a', '"./b',
]  # fmt: skip
SIZES = [0, 1, 7, 100, 4096, 5000, 9000]
OFFSETS = [0, 0, 1, 50, 4095, 4096, 10000, 12288, -5]
HAS_OLD_CALLS = platform.machine() == "x86_64"
OLD_CALLS = {"open", "creat", "dup2", "rename", "link", "unlink", "mkdir", "rmdir"}


class Writer:
    """Writes the lines of a program, at random, most of them so that they do something."""

    def __init__(self, random: Random, machine: Machine) -> None:
        self.random = random
        self.pick = random.choice
        self.last: dict[int, int] = {}
        self.machine = machine

    def lines(self) -> list[Line]:
        """What comes next: mostly a line."""
        if self.random.random() < 0.01 and (lines := self.rename_amid_reads()):
            return lines
        return [self.line()]

    def rename_amid_reads(self) -> list[Line]:
        """The folder of a file that one actor reads is renamed by another, and back."""
        paths = [path for path in PATHS if path.count("/") == 1 and path[1:3] in ("p/", "q/")]
        paths = [path for path in paths if self.machine.kind(path) == "file"]
        if not paths:
            return []
        reader, other = (self.machine.actors[self.pick(sorted(self.machine.actors))] for _ in range(2))
        fd = next(fd for fd in itertools.count() if fd not in reader.table.entries)
        path = self.pick(paths)
        folder = f'"{path[1]}'
        read = Line(reader.number, ("read", fd, "&", 7))
        there, back = ((HERE, old, HERE, new, 0) for old, new in ((folder, '"moved'), ('"moved', folder)))
        return [
            Line(reader.number, ("openat", HERE, path, os.O_RDONLY, 0)), read,
            Line(other.number, ("renameat2", *there)), read, Line(other.number, ("renameat2", *back)), read,
        ]  # fmt: skip

    def line(self) -> Line:
        self.actor = self.machine.actors[self.pick(sorted(self.machine.actors))]
        (op,) = self.random.choices(list(OPS), list(OPS.values()))
        if len(self.actor.table.entries) < 2 and self.random.random() < 0.7:
            op = "openat"
        return Line(self.actor.number, (op, *getattr(self, op)()))

    def fd(self, reads: bool = False, writes: bool = False) -> int:
        """Mostly that of a file that can be read or written, as asked; often the one that the actor used last."""
        entries = self.actor.table.entries
        files = {fd: descriptor.file for fd, descriptor in sorted(entries.items())}
        able = [
            fd for fd, file in files.items()
            if not file.inode.is_dir and file.can_read >= reads and file.can_write >= writes
        ]  # fmt: skip
        fd = self.pick([*able * 9, *files, 0, 9] if able else [*files, 0])
        last = self.last.get(self.actor.number)
        if last in able and self.random.random() < 0.4:
            fd = last
        self.last[self.actor.number] = fd
        return fd

    def dirfd(self) -> int:
        entries = self.actor.table.entries
        folders = sorted(fd for fd, descriptor in entries.items() if descriptor.file.inode.is_dir)
        return self.pick([*[HERE] * 5, *folders * 5, self.fd()])

    def path(self, kinds: str = "file dir") -> Word:
        """Mostly one that leads to what is asked for: "file", "dir", "none"."""
        is_able = self.random.random() < 0.8
        return self.pick([path for path in PATHS if not is_able or self.machine.kind(path) in kinds] or PATHS)

    def any_path(self) -> Word:
        return self.path(self.pick(["file", "none"]))

    def memory(self) -> Word:
        mapped = [f"${slot}" for slot in sorted(self.actor.process.mappings)]
        return self.pick([*["&"] * 12, *mapped * 3, "!"])

    def vector(self) -> tuple[Word, int]:
        sizes = [self.pick(SIZES) for _ in range(self.pick([1, 2, 3]))]
        return "[" + ",".join(map(str, sizes)), len(sizes)

    def open_flags(self) -> int:
        flags = self.pick([os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY]) | self.pick([0, 0, os.O_CLOEXEC])
        if flags & os.O_ACCMODE == os.O_RDONLY and self.pick([True, False]):
            return int(flags | os.O_DIRECTORY)
        flags |= self.pick([0, 0, os.O_APPEND]) | self.pick([0, 0, 0, os.O_TRUNC])
        return int(flags | self.pick([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL]))

    def open(self) -> tuple[Word, ...]:
        flags = self.open_flags()
        return self.path_to_open(flags), flags, 0o640

    def creat(self) -> tuple[Word, ...]:
        return self.any_path(), 0o600

    def openat(self) -> tuple[Word, ...]:
        flags = self.open_flags()
        return self.dirfd(), self.path_to_open(flags), flags, 0o644

    def openat2(self) -> tuple[Word, ...]:
        flags = self.open_flags()
        mode = 0o604 if flags & os.O_CREAT else 0
        return self.dirfd(), self.path_to_open(flags), f"{{{flags},{mode},{self.pick([0, RESOLVE_BENEATH])}", 24

    def path_to_open(self, flags: int) -> Word:
        if flags & os.O_CREAT:
            return self.path("none") if flags & os.O_EXCL else self.any_path()
        return self.path("dir" if flags & os.O_DIRECTORY else "file")

    def close(self) -> tuple[Word, ...]:
        return (self.fd(),)

    def close_range(self) -> tuple[Word, ...]:
        first = self.pick([1, 2, 4, 6, 40])
        flags = [0, 0, CLOSE_RANGE_CLOEXEC, CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE, 64]
        return first, first + self.pick([0, 1, 2, -1]), self.pick(flags)

    def dup(self) -> tuple[Word, ...]:
        return (self.fd(),)

    def dup2(self) -> tuple[Word, ...]:
        return self.fd(), self.pick([0, 1, 2, 3, 4, 5, 20, MAX_FDS, self.fd()])

    def dup3(self) -> tuple[Word, ...]:
        return *self.dup2(), self.pick([0, 0, os.O_CLOEXEC, os.O_CLOEXEC, 1])

    def fcntl(self) -> tuple[Word, ...]:
        return self.fd(), self.pick([F_DUPFD, F_DUPFD_CLOEXEC]), self.pick([0, 3, 30, MAX_FDS])

    def lseek(self) -> tuple[Word, ...]:
        return self.fd(), self.pick([*OFFSETS, -100]), self.pick([0, 0, 1, 1, 2, 9])

    def read(self) -> tuple[Word, ...]:
        return self.fd(reads=True), self.memory(), self.pick(SIZES)

    def write(self) -> tuple[Word, ...]:
        return self.fd(writes=True), self.memory(), self.pick(SIZES)

    def pread64(self) -> tuple[Word, ...]:
        return *self.read(), self.pick(OFFSETS)

    def pwrite64(self) -> tuple[Word, ...]:
        return *self.write(), self.pick(OFFSETS)

    def readv(self) -> tuple[Word, ...]:
        return self.fd(reads=True), *self.vector()

    def writev(self) -> tuple[Word, ...]:
        return self.fd(writes=True), *self.vector()

    def preadv(self) -> tuple[Word, ...]:
        return *self.readv(), self.pick(OFFSETS)

    def pwritev(self) -> tuple[Word, ...]:
        return *self.writev(), self.pick(OFFSETS)

    def preadv2(self) -> tuple[Word, ...]:
        return *self.readv(), self.pick([-1, -1, *OFFSETS]), 0, self.pick([0, 0, 0, RWF_UNKNOWN])

    def pwritev2(self) -> tuple[Word, ...]:
        return *self.writev(), self.pick([-1, -1, *OFFSETS]), 0, self.pick([0, RWF_APPEND, RWF_APPEND, RWF_UNKNOWN])

    def map(self) -> tuple[Word, ...]:
        slot = self.pick(range(4))
        length = self.pick([PAGE, 2 * PAGE, 2 * PAGE, 4 * PAGE, 4 * PAGE, 5000, 0])
        prot, flags = self.pick([1, 3, 3, 3]), self.pick([1, 2, 2])
        offset = self.pick([0, 0, 0, 0, PAGE, PAGE, 2 * PAGE, 9])
        return slot, length, prot, flags, self.fd(reads=True, writes=flags == 1 and prot == 3), offset

    def munmap(self) -> tuple[Word, ...]:
        mappings = self.actor.process.mappings
        slot = self.pick(sorted(mappings) or [0])
        return f"${slot}", self.pick([mappings[slot].length] * 4 + [0]) if slot in mappings else 0

    def load(self) -> tuple[Word, ...]:
        return self.pick(sorted(self.actor.process.mappings) or [0]), self.pick([0, 0, 1, 2, 3])

    store = load

    def remap(self) -> tuple[Word, ...]:
        mappings = self.actor.process.mappings
        slot = self.pick(sorted(mappings) or [0])
        length = self.pick([0, PAGE, PAGE, 4 * PAGE, 4 * PAGE, 8 * PAGE])
        return slot, mappings[slot].length if slot in mappings else 0, length, MREMAP_MAYMOVE

    def madvise(self) -> tuple[Word, ...]:
        return *self.munmap(), self.pick([MADV_NORMAL, MADV_WILLNEED, *[MADV_DONTNEED] * 4, 77])

    def msync(self) -> tuple[Word, ...]:
        return *self.munmap(), self.pick([0, MS_ASYNC, MS_SYNC, MS_ASYNC | MS_SYNC])

    def newfstat(self) -> tuple[Word, ...]:
        return self.fd(), "&"

    def newfstatat(self) -> tuple[Word, ...]:
        if self.random.random() < 0.3:
            return self.fd(), '"', "&", AT_EMPTY_PATH
        return self.dirfd(), self.path(), "&", self.pick([0, AT_EMPTY_PATH])

    def statx(self) -> tuple[Word, ...]:
        dirfd, path, memory, flags = self.newfstatat()
        return dirfd, path, flags, 0x7FF, memory

    def fallocate(self) -> tuple[Word, ...]:
        mode = self.pick([0, 0, FALLOC_KEEP_SIZE, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, FALLOC_UNKNOWN])
        return self.fd(writes=True), mode, self.pick(OFFSETS), self.pick([*SIZES, -1])

    def fsync(self) -> tuple[Word, ...]:
        return (self.fd(),)

    fdatasync = fsync

    def truncate(self) -> tuple[Word, ...]:
        return self.path("file"), self.pick([0, 100, 5000, 12288, 20000, -1])

    def ftruncate(self) -> tuple[Word, ...]:
        return self.fd(writes=True), self.pick([0, 100, 5000, 12288, 20000, -1])

    def rename(self) -> tuple[Word, ...]:
        return self.path(self.pick(["file", "dir"])), self.any_path()

    def renameat2(self) -> tuple[Word, ...]:
        flags = self.pick([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_EXCHANGE, 3])
        new = self.path() if flags == RENAME_EXCHANGE else self.any_path()
        return self.dirfd(), self.path(self.pick(["file", "dir"])), self.dirfd(), new, flags

    def link(self) -> tuple[Word, ...]:
        return self.path("file"), self.path("none")

    def linkat(self) -> tuple[Word, ...]:
        return self.dirfd(), self.path("file"), self.dirfd(), self.path("none"), 0

    def unlink(self) -> tuple[Word, ...]:
        return (self.path("file"),)

    def rmdir(self) -> tuple[Word, ...]:
        return (self.path("dir"),)

    def unlinkat(self) -> tuple[Word, ...]:
        flags = self.pick([0, 0, AT_REMOVEDIR])
        return self.dirfd(), self.path("dir" if flags else "file"), flags

    def mkdir(self) -> tuple[Word, ...]:
        return self.path("none"), 0o755

    def mkdirat(self) -> tuple[Word, ...]:
        return self.dirfd(), self.path("none"), 0o700

    def offset(self) -> Word:
        return self.pick([0, 0, "*0", "*50", "*4096", "*10000"])

    def sendfile64(self) -> tuple[Word, ...]:
        return self.fd(writes=True), self.fd(reads=True), self.offset(), self.pick(SIZES)

    def copy_file_range(self) -> tuple[Word, ...]:
        source, target = self.fd(reads=True), self.fd(writes=True)
        return source, self.offset(), target, self.offset(), self.pick(SIZES), self.pick([0, 0, 0, 0, 1])

    def fork(self) -> tuple[Word, ...]:
        return (self.machine.made,)

    thread = fork

    def exec(self) -> tuple[Word, ...]:
        return ()

    def exit(self) -> tuple[Word, ...]:
        return (self.pick([0, 3]),)

    def exit_group(self) -> tuple[Word, ...]:
        return (self.pick([0, 5]),)


SHARES = {
    "open": 8, "openat": 10, "creat": 1, "close": 5, "close_range": 1, "dup": 3, "dup2": 4, "dup3": 3, "fcntl": 4,
    "lseek": 7, "read": 7, "write": 7, "pread64": 4, "pwrite64": 4, "readv": 3, "writev": 3, "preadv": 2, "pwritev": 2,
    "preadv2": 4, "pwritev2": 5, "map": 8, "munmap": 4, "load": 16, "store": 20, "truncate": 2, "ftruncate": 3,
    "rename": 4, "renameat2": 6, "link": 3, "linkat": 3, "unlink": 2, "unlinkat": 3, "rmdir": 2, "mkdir": 2,
    "mkdirat": 2, "openat2": 4, "remap": 3, "madvise": 3, "msync": 1, "newfstat": 2, "newfstatat": 4, "statx": 3,
    "fallocate": 4, "fsync": 1, "fdatasync": 0.5, "sendfile64": 5, "copy_file_range": 6, "fork": 1.5, "thread": 1.5,
    "exec": 1, "exit": 2, "exit_group": 0.7,
}  # fmt: skip
"""How often each word is to come, next to the others."""
OPS = {op: share for op, share in SHARES.items() if HAS_OLD_CALLS or op not in OLD_CALLS}


def program(random: Random) -> list[Line]:
    """A program, all of whose lines can be carried out."""
    machine = Machine("/")
    writer = Writer(random, machine)
    while len(machine.lines) < LENGTH:
        for line in writer.lines():
            is_last = line.words[0] == "exit_group" and len({a.process for a in machine.actors.values()}) == 1
            if not is_last:
                machine.step(line)
    machine.finish()
    return machine.lines


# --- running them and comparing


class Arena:
    """Where programs run, each in a new folder. has_strace: it watches, too."""

    def __init__(self, workloads: Workloads, folder: Path, has_strace: bool = False) -> None:
        self.has_strace = has_strace
        self.program = str(workloads("script"))
        self.folder = folder
        self._runs = itertools.count()

    def run(self, lines: Iterable[Line]) -> Traced:
        """Predicts a program and runs it under FLAK."""
        own = self.folder / str(next(self._runs))
        folder, script = own / "files", own / "script"
        folder.mkdir(parents=True)
        for word, size in FILES.items():
            path = folder / word[1:]
            path.mkdir() if size is None else path.write_bytes(bytes(size))
        machine = Machine(str(folder))
        for line in lines:
            machine.step(line)
        machine.finish()
        script.write_text("".join(f"{line}\n" for line in machine.lines))
        log = own / "strace" if self.has_strace else None
        command = [*(["strace", *strace_log.OPTIONS, "-o", log] if log else []), self.program, folder, script]
        return Traced(machine, trace_command(command, own, check=False), self.program, script, log)


class Traced:
    """A program's run beside what was predicted."""

    def __init__(self, machine: Machine, run: Run, program: str, script: Path, log: Path | None) -> None:
        self.log = log  # of strace
        self.machine = machine
        self.run = run
        self.program = program
        self.script = script
        self.file_ids: dict[int, int] = {}  # FLAK's number to the model's
        self.addresses: dict[int, int] = {}
        self.calls: dict[int, int] = {}
        self.actors: dict[int, int] = {}  # by tid
        self.exits: list[tuple[int, Exit]] = []
        self.pids: dict[int, int] = {}  # of each actor
        self.calls_of: dict[int, list[Call]] = {}  # by tid, what strace should have
        self._starting: set[int] = set()

    def check(self) -> None:
        """Raises where it differs."""
        self.check_results()
        self.check_records()
        self.check_exits()
        stats = self.run.stats
        # strace reads the memory of those it watches.
        missing = {kind for kind in stats.not_decoded if kind != "gup_fault" or not self.log}
        if not stats.is_exact or stats.lost or missing or stats.recursion_misses:
            raise MismatchError(f"FLAK counts {stats}")
        if self.log:
            self.check_log(self.log)

    def check_log(self, prefix: Path) -> None:
        """Does strace have the same calls, as far as it was asked for them?"""
        for tid, predicted in self.calls_of.items():
            seen = calls_of(prefix.with_name(f"{prefix.name}.{tid}"), self.script)
            for pair in itertools.zip_longest(predicted, seen):
                if pair[0] != pair[1]:
                    raise MismatchError(f"thread {tid}: predicted {pair[0]}, strace has {pair[1]}")

    def check_results(self) -> None:
        """Does the model know what the kernel did?"""
        if self.run.status:
            raise MismatchError(f"the program ended with status {self.run.status}")
        told = {step["line"]: step["result"] for step in self.run.steps}
        for at, predicted in enumerate(self.machine.results):
            if told.get(at) != predicted:
                raise MismatchError(
                    f"{self.place(at)}\n  the model is wrong: {named(predicted)}, the kernel: {named(told.get(at))}"
                )

    def check_records(self) -> None:
        """Each record in turn; those that are not sure may be missing."""
        predicted = iter(self.machine.records)
        for event in self.events():
            for record in predicted:
                differences = self.differences(record, event)
                if not differences:
                    break
                if record.is_sure:
                    raise MismatchError(self.describe(record, differences, event))
            else:
                raise MismatchError(f"behind the last line FLAK has more: {told(event)}")
            self.learn(record, event)
        missing = next((record for record in predicted if record.is_sure), None)
        if missing:
            raise MismatchError(f"{self.place(missing.line)}\n  FLAK has no record: {missing.words}")

    def events(self) -> Iterator[Event]:
        """What the actors did, without their preparations and ends."""
        ordered = sorted(
            (e for e in self.run.events if isinstance(e, Access | Fork | Exec | Exit)), key=lambda e: e.ts_ns
        )
        launcher = next((e.tid for e in ordered if isinstance(e, Exec) and e.path == self.program), None)
        for event in ordered:
            tid = event.tid
            if isinstance(event, Fork) and tid == launcher and not self.actors:
                self.begin(event, 0)
                self._starting.add(event.child_tid)
            elif tid not in self.actors and not (isinstance(event, Exec) and event.old_tid in self.actors):
                continue
            elif isinstance(event, Exit):
                self.exits.append((self.actors[tid], event))
            elif tid in self._starting:
                if isinstance(event, Close) and event.path == str(self.script):
                    self._starting.remove(tid)
            elif isinstance(event, Fault) and not str(event.path).startswith(self.machine.folder):
                continue
            else:
                yield event

    def begin(self, event: Fork, actor: int) -> None:
        self.actors[event.child_tid] = actor
        self.pids[actor] = event.child_pid

    def differences(self, record: Record, event: Event) -> dict[str, tuple[Any, Any]]:
        """Words that are not as predicted: (predicted, seen)."""
        words = record.words
        tid = event.old_tid if isinstance(event, Exec) else event.tid
        pairs: dict[str, tuple[Any, Any]] = {
            "actor": (record.actor, self.actors.get(tid)), "op": (words["op"], event.op),
            "pid": (self.pids.get(record.actor), event.pid), "comm": (Path(self.program).name, event.comm),
        }  # fmt: skip
        if isinstance(event, Fork):
            pairs["is_thread"] = (words.get("is_thread"), event.child_pid == event.pid)
        elif isinstance(event, Exec):
            pairs["path"] = (self.program, event.path)
            pairs["argv0"] = (self.program, event.argv0)
        elif isinstance(event, Access) and words["op"] == event.op:
            predicted = {"via": "fault" if event.op == "fault" else "syscall", "marks": ()} | words
            seen = {word: getattr(event, word) for word in WORDS}
            seen["file_id"] = self.file_ids.get(seen["file_id"], ("new", seen["file_id"]) if seen["file_id"] else None)
            if seen["file_id"] and seen["file_id"] not in self.file_ids.values():
                is_new = predicted.get("file_id") not in self.file_ids.values()
                seen["file_id"] = predicted.get("file_id") if is_new else seen["file_id"]
            if "found" in words:  # by stat: the file that was last seen there, if it was
                is_known = words["found"] in self.file_ids.values()
                predicted["file_id"] = words["found"] if is_known else seen["file_id"]
            if predicted.get("addr"):
                place, at = predicted["addr"]
                base = self.addresses.get(place)
                predicted["addr"] = seen["addr"] if base is None else f"{base + at:#x}"
            if predicted.get("call_id"):
                known = self.calls.get(predicted["call_id"])
                predicted["call_id"] = known if isinstance(event, CopyTo) else seen["call_id"]
                pairs["is_new_call"] = (isinstance(event, CopyFrom), seen["call_id"] not in self.calls.values())
            predicted["marks"] = tuple(sorted(predicted["marks"]))
            seen["marks"] = tuple(sorted(seen["marks"]))
            pairs |= {word: (predicted.get(word), seen[word]) for word in WORDS}
            pairs["has_latency"] = (True, event.latency_ns is not None)
        return {word: pair for word, pair in pairs.items() if pair[0] != pair[1]}

    def learn(self, record: Record, event: Event) -> None:
        """What a record that is right tells for those behind it."""
        if isinstance(event, Fork):
            self.begin(event, record.words["child"])
        elif isinstance(event, Exec):
            del self.actors[event.old_tid]
            self.actors[event.tid] = record.actor
            self._starting.add(event.tid)
        elif isinstance(event, Access):
            if event.file_id and "file_id" in record.words:
                self.file_ids[event.file_id] = record.words["file_id"]
            if record.words.get("addr"):
                self.addresses.setdefault(record.words["addr"][0], int(event.addr, 16))
            if event.call_id:
                self.calls[record.words["call_id"]] = event.call_id
            if (call := self.as_call(record)) and event.tid is not None:
                self.calls_of.setdefault(event.tid, []).append(call)

    def as_call(self, record: Record) -> Call | None:
        """What strace should have of a record; None where it was not asked for that."""
        words = record.words
        op, path = str(words["op"]), words.get("claimed_path") or words.get("path")
        result = self.machine.results[record.line]
        if op == "mmap" and not words["errno"]:
            result = self.addresses[words["addr"][0]]
        return Call(op, result, path) if op in WITNESSED_OPS and (path or op != "mmap") else None

    def check_exits(self) -> None:
        """Each thread ends once, each process with one that is its last."""
        seen = Counter(actor for actor, _ in self.exits)
        if seen != Counter(actor for actor, _ in self.machine.exits):
            raise MismatchError(f"ends predicted: {sorted(a for a, _ in self.machine.exits)}, seen: {sorted(seen)}")
        statuses = dict(self.machine.exits)
        for actor, event in self.exits:
            if event.exit_code not in statuses[actor]:
                raise MismatchError(f"actor {actor} ends with {event.exit_code}, predicted: {statuses[actor]}")
        ends = Counter(event.pid for _, event in self.exits if event.is_last)
        if ends != Counter({event.pid: 1 for _, event in self.exits}):
            raise MismatchError(f"ends of processes: {ends}")

    def place(self, at: int) -> str:
        return f"line {at}: {self.machine.lines[at]}"

    def describe(self, record: Record, differences: dict[str, tuple[Any, Any]], event: Event) -> str:
        lines = [self.place(record.line)]
        lines += [f"  {word}: predicted {pair[0]!r}, FLAK has {pair[1]!r}" for word, pair in differences.items()]
        return "\n".join([*lines, f"  FLAK's record: {told(event)}", f"  predicted: {record.words}"])


def calls_of(log: Path, script: Path) -> list[Call]:
    """What strace wrote of a thread, without what it did before its first line."""
    calls: list[Call] = []
    begin = 0
    for line in log.read_text().splitlines():
        if "execve" in line:
            begin = len(calls)
        call = strace_log.parse(line)
        if call == Call("close", 0, str(script)):
            del calls[begin:]
        elif call:
            # By number: 95 has two names.
            calls.append(
                call._replace(result=-getattr(errno, call.result, 0)) if isinstance(call.result, str) else call
            )
    return calls


def named(result: int | None) -> str:
    return errno_name(-result) or str(result) if result is not None and result < 0 else str(result)


def told(event: Event) -> dict[str, Any]:
    """The words of an event that are not null."""
    words = ("op", "pid", "tid", *WORDS) if isinstance(event, Access) else ("op", "pid", "tid", "child_pid", "path")
    return {word: value for word in words if (value := getattr(event, word)) is not None}


def failure_of(arena: Arena, lines: Iterable[Line]) -> str | None:
    """What is wrong about a program's trace; None: nothing."""
    signal.alarm(DEADLINE)  # for each program, not for the test
    traced = arena.run(lines)
    try:
        traced.check()
    except MismatchError as mismatch:
        return str(mismatch)
    finally:
        shutil.rmtree(traced.script.parent)
    return None


def shortened(lines: list[Line], fails: Callable[[list[Line]], bool]) -> list[Line]:
    """Fewer lines that still fail: ever smaller pieces are left out (delta debugging)."""
    until = time.monotonic() + SHRINK_S
    size = len(lines) // 2
    while size and time.monotonic() < until:
        before = len(lines)
        at = 0
        while at < len(lines) and time.monotonic() < until:
            rest = lines[:at] + lines[at + size :]
            if fails(rest):
                lines = rest
            else:
                at += size
        if len(lines) == before or size > 1:
            size //= 2
    return lines


def is_lent(line: Line) -> bool:
    """Does a transfer have a mapping as its memory?"""
    return len(line.words) > 2 and str(line.words[2])[0] == "$"


def try_programs(arena: Arena, count: int, number: int) -> None:
    """Tries so many programs, the same ones for each number."""
    failed: list[list[Line]] = []

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.randoms(use_true_random=True))
    def check(random: Random) -> None:
        lines = program(random)
        if arena.has_strace:  # it reads what calls are given, and so maps pages of it
            lines = [line for line in lines if not is_lent(line)]
        if not failed and failure_of(arena, lines):
            failed.append(lines)

    check()
    for lines in failed:
        short = shortened(lines, lambda rest: failure_of(arena, rest) is not None)
        pytest.fail("\n".join(["", *map(str, short), "", failure_of(arena, short) or "not every time"]), pytrace=False)


@pytest.fixture
def arena(workloads: Workloads, tmp_path: Path) -> Arena:
    return Arena(workloads, tmp_path)


def test_strace_agrees(workloads: Workloads, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    try_programs(Arena(workloads, tmp_path, has_strace=True), WITNESSED, -1)


def test_programs_are_recorded_as_the_model_says(arena: Arena) -> None:
    until = time.monotonic() + float(os.environ.get("FLAK_SOAK_S", 0))
    try_programs(arena, QUICK, 0)
    for number in itertools.count(time.time_ns()):
        if time.monotonic() > until:
            break
        try_programs(arena, SOAK, number)
