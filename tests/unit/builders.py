"""Bytes as the kernel writes them, for tests: slots of the access ring, payloads of the meta ring, whole recordings.

Every builder has sane defaults and takes the fields of flak.h by name. `Stream` numbers records and moves the clock.
Run as a program it writes the golden recording: `python tests/unit/builders.py tests/data/golden.flak`.
"""

from __future__ import annotations

import os
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from flak import _records as r
from flak._records import Has, Mark, Meta, NameFlag, Op
from flak.events import Counters
from flak.tracefile import Writer
from flak.wire import container_record

START_NS = 1_000_000_000
REGULAR, DIRECTORY, FIFO = 0o100644, 0o040755, 0o010600
DEV = 8 << 20 | 1

_RING_HEADER = struct.Struct("<II")
_HAS = {
    "addr": Has.ADDR, "prot": Has.PROT, "map_flags": Has.MAP_FLAGS, "open_flags": Has.OPEN_FLAGS, "mode": Has.MODE,
    "arg_offset": Has.ARG_OFFSET,
}  # fmt: skip


# --- the access ring


def access(op: int = Op.READ, *, operands: dict[str, int] | None = None, **fields: Any) -> bytes:
    """The slots of an access: one, or two when it has `operands` (a field that is given sets its `has` bit).

    Fields: ts_ns latency_ns file_offset size_req ret task_id file_id path_id fd seq marks cpu.
    """
    values = {
        "ts_ns": START_NS, "latency_ns": 500, "file_offset": r.NONE, "size_req": r.NONE, "ret": 0, "task_id": 1,
        "file_id": 1, "path_id": 1, "fd": 3, "seq": 0, "marks": 0, "op": int(op), "cpu": 0,
    }  # fmt: skip
    assert fields.keys() <= values.keys(), f"no such fields: {fields.keys() - values.keys()}"
    values |= fields
    if operands is None:
        return _RING_HEADER.pack(r.ACCESS_SIZE, 0) + r.ACCESS.pack(*values.values())
    values["marks"] |= Mark.HAS_OPERANDS
    return (
        _RING_HEADER.pack(r.ACCESS_LONG.size, 0)
        + r.ACCESS.pack(*values.values())
        + _RING_HEADER.pack(r.ACCESS_SIZE, 0)
        + _operands(operands)
    )


def _operands(fields: dict[str, int]) -> bytes:
    values: dict[str, int] = dict.fromkeys(r.OperandsRecord._fields, 0) | {"new_fd": -1, "op": int(Op.OPERANDS)}
    assert fields.keys() <= values.keys(), f"no such operands: {fields.keys() - values.keys()}"
    values["has"] = sum(_HAS.get(name, 0) for name in fields)
    values |= fields
    values["arg_offset"] &= r.NONE  # signed for those who read it
    return r.OPERANDS.pack(*values.values())


def read(file_offset: int = 0, size: int = 4096, **fields: Any) -> bytes:
    """A pread64 of `size` bytes that got them all."""
    return access(Op.PREAD64, **{"file_offset": file_offset, "size_req": size, "ret": size} | fields)


def write(file_offset: int = 0, size: int = 4096, **fields: Any) -> bytes:
    """A pwrite64 of `size` bytes that wrote them all."""
    return access(Op.PWRITE64, **{"file_offset": file_offset, "size_req": size, "ret": size} | fields)


def append(file_offset: int, size: int, arg_offset: int, **fields: Any) -> bytes:
    """A pwrite64 to a file opened with O_APPEND: the kernel chose `file_offset`, not `arg_offset`."""
    fields = {"marks": int(Mark.OFFSET_FROM_SIZE), "file_offset": file_offset, "size_req": size, "ret": size} | fields
    return access(Op.PWRITE64, operands={"arg_offset": arg_offset}, **fields)


def open_(new_fd: int = 3, open_flags: int = os.O_RDONLY, *, mode: int = 0, **fields: Any) -> bytes:
    """An openat that succeeded."""
    operands = {"open_flags": open_flags, "mode": mode, "new_fd": new_fd}
    return access(Op.OPENAT, operands=operands, **{"ret": new_fd, "fd": -100} | fields)


def failed_open(errno: int, claim_id: int, **fields: Any) -> bytes:
    """An openat that failed; `claim_id` is the path id of the string it was given."""
    fields = {"ret": -errno, "fd": -100, "file_id": 0, "path_id": 0} | fields
    return access(Op.OPENAT, operands={"open_flags": os.O_RDONLY, "claim_id": claim_id}, **fields)


def close(fd: int = 3, **fields: Any) -> bytes:
    """A close."""
    return access(Op.CLOSE, fd=fd, **fields)


def dup(fd: int = 3, new_fd: int = 4, **fields: Any) -> bytes:
    """A dup."""
    return access(Op.DUP, operands={"new_fd": new_fd}, fd=fd, **{"ret": new_fd} | fields)


def seek(file_offset: int, arg_offset: int, whence: int = os.SEEK_SET, **fields: Any) -> bytes:
    """An lseek that led to `file_offset`."""
    fields = {"file_offset": file_offset, "size_req": whence} | fields
    return access(Op.LSEEK, operands={"arg_offset": arg_offset}, **fields)


def mmap(addr: int = 0x7F00_0000_0000, length: int = 1 << 20, file_offset: int = 0, **fields: Any) -> bytes:
    """An mmap of a file, read only and shared."""
    operands = {"addr": addr, "prot": 1, "map_flags": 1}
    return access(Op.MMAP, operands=operands, **{"size_req": length, "file_offset": file_offset} | fields)


def fault(file_offset: int = 0, addr: int = 0x7F00_0000_0000, *, page_count: int = 16, **fields: Any) -> bytes:
    """A read fault in user mode that set out to map `page_count` pages, the faulting one first."""
    fields = {"ret": page_count, "file_offset": file_offset, "size_req": addr, "fd": 0} | fields
    return access(Op.FAULT, **fields)


# --- the meta ring


def name(path: str | bytes = "/data/a", path_id: int = 1, *, flags: int = 0, **fields: Any) -> bytes:
    """What a path id and a file id stand for. A claimed path is kept as it is, others go leaf first.

    Fields: file_id dev ino ino_gen base_path_id mnt_id mnt_ns fs_magic mode file_size.
    """
    raw = os.fsencode(path)
    if not flags & NameFlag.CLAIMED:
        raw = b"".join(part + b"\0" for part in reversed(raw.split(b"/")) if part)
    values = {
        "type": int(Meta.NAME), "size": r.NAME.size + len(raw), "path_id": path_id, "file_id": path_id, "dev": DEV,
        "ino": 1000 + path_id, "ino_gen": 0, "base_path_id": 0, "mnt_id": 1, "mnt_ns": 0, "fs_magic": 0xEF53,
        "mode": REGULAR, "flags": int(flags), "file_size": 1 << 20,
    }  # fmt: skip
    assert fields.keys() <= values.keys(), f"no such fields: {fields.keys() - values.keys()}"
    return r.NAME.pack(*(values | fields).values()) + raw


def claim(path: str | bytes, path_id: int, flags: int = 0, base_path_id: int = 0) -> bytes:
    """The string a program passed as a path."""
    nothing = dict.fromkeys(("file_id", "dev", "ino", "mnt_id", "fs_magic", "mode", "file_size"), 0)
    return name(path, path_id, flags=flags | NameFlag.CLAIMED, base_path_id=base_path_id, **nothing)


def task(task_id: int = 1, comm: str | bytes = "worker", **fields: Any) -> bytes:
    """What a task id stands for.

    Fields: start_time_ns cgroup_id pid tid ns_pid ns_tid ppid uid mnt_ns.
    """
    values: dict[str, Any] = {
        "type": int(Meta.TASK), "size": r.TASK.size, "task_id": task_id, "start_time_ns": 500_000_000, "cgroup_id": 77,
        "pid": 4242, "tid": 4242, "ns_pid": 4242, "ns_tid": 4242, "ppid": 1, "uid": 1000, "comm": os.fsencode(comm),
        "mnt_ns": 0, "process_tag": 0,
    }  # fmt: skip
    assert fields.keys() <= values.keys(), f"no such fields: {fields.keys() - values.keys()}"
    return r.TASK.pack(*(values | fields).values())


def container(cgroup_id: int = 77, container_name: str = "web") -> bytes:
    """Which container a cgroup is."""
    return container_record(cgroup_id, container_name)


def folded(**fields: Any) -> bytes:
    """Sums of lost accesses.

    Fields: task_id file_id path_id marks op has_failed accesses result latency_ns first_ns last_ns.
    """
    values = dict.fromkeys(r.FoldedRecord._fields, 0)
    values |= {
        "type": Meta.FOLDED, "size": r.FOLDED.size, "task_id": 1, "file_id": 1, "path_id": 1, "op": Op.PREAD64,
        "first_ns": START_NS, "last_ns": START_NS,
    }  # fmt: skip
    assert fields.keys() <= values.keys(), f"no such fields: {fields.keys() - values.keys()}"
    return r.FOLDED.pack(*(values | fields).values())


def process(op: int, argv0: bytes = b"", **fields: Any) -> bytes:
    """A fork, exec or exit.

    Fields: cpu ts_ns task_id seq child_pid child_tid exit_code is_last file_id path_id.
    """
    values = dict.fromkeys(r.ProcessRecord._fields, 0)
    values |= {"type": Meta.PROCESS, "size": r.PROCESS.size + len(argv0), "op": op, "ts_ns": START_NS, "task_id": 1}
    assert fields.keys() <= values.keys(), f"no such fields: {fields.keys() - values.keys()}"
    return r.PROCESS.pack(*(values | fields).values()) + argv0


def fork(child_pid: int = 4243, child_tid: int = 4243, **fields: Any) -> bytes:
    """A new process or thread."""
    return process(Op.FORK, child_pid=child_pid, child_tid=child_tid, **fields)


def exec_(argv0: bytes = b"./worker", **fields: Any) -> bytes:
    """Another program in the same process."""
    return process(Op.EXEC, argv0, **{"child_pid": 4242, "file_id": 1, "path_id": 1} | fields)


def exit_(exit_code: int = 0, *, is_last: bool = True, **fields: Any) -> bytes:
    """A thread's end."""
    return process(Op.EXIT, exit_code=exit_code, is_last=int(is_last), **fields)


# --- runs


class Stream:
    """A run in the making: numbers records per CPU as the kernel does, a microsecond apart, and loses some if told to.

    Builders are passed with their arguments: `stream.add(read, 4096, cpu=1)`.
    """

    def __init__(self) -> None:
        self.now_ns = START_NS
        self._numbers: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self._slots: list[bytes] = []
        self._meta: list[bytes] = []

    @property
    def sequences(self) -> dict[int, tuple[int, int]]:
        """CPU → how many accesses and process events have been numbered."""
        return {cpu: (accesses, events) for cpu, (accesses, events) in self._numbers.items()}

    def add(self, build: Any, *arguments: Any, cpu: int = 0, **fields: Any) -> None:
        """An access."""
        self._slots.append(build(*arguments, cpu=cpu, **self._stamp(cpu, 0), **fields))

    def happen(self, build: Any, *arguments: Any, cpu: int = 0, **fields: Any) -> None:
        """A process event."""
        self._meta.append(build(*arguments, cpu=cpu, **self._stamp(cpu, 1), **fields))

    def know(self, *payloads: bytes) -> None:
        """Names and tasks."""
        self._meta += payloads

    def lose(self, accesses: int = 0, events: int = 0, cpu: int = 0) -> None:
        """Numbers that are given to records which find their ring full."""
        self._numbers[cpu][0] += accesses
        self._numbers[cpu][1] += events

    def round(self) -> tuple[list[bytes], bytes]:
        """Meta payloads and slots since the last round."""
        taken = self._meta, b"".join(self._slots)
        self._meta, self._slots = [], []
        return taken

    def _stamp(self, cpu: int, ring: int) -> dict[str, int]:
        self.now_ns += 1000
        self._numbers[cpu][ring] += 1
        return {"ts_ns": self.now_ns, "seq": self._numbers[cpu][ring] - 1 & 0xFFFF_FFFF}


HEADER = {
    "flak": "0.1.0",
    "host": "golden",
    "boot_id": "00000000-0000-0000-0000-000000000000",
    "kernel": "6.12.0",
    "machine": "x86_64",
    "mnt_ns": 4026531841,
    "command_line": ["flak", "record", "-o", "golden.flak", "--", "./worker"],
    "selectors": {
        "pid": [],
        "tid": [],
        "comm": [],
        "cgroup": [],
        "container": [],
        "uid": [],
        "all": False,
        "command": ["./worker"],
        "follow": True,
    },
    "cgroups": {},
    "filters": {"path": [], "failed": False, "min_latency_ns": 0, "min_size": 0},
    "hooks": {"system calls": "sys_enter and sys_exit", "page faults": "fentry/fexit handle_mm_fault"},
    "missing": {"pages per fault": "page_count"},
    "clock_anchors": [{"boot_ns": START_NS, "realtime_ns": 1_750_000_000_000_000_000}],
    "ring_size": 16 << 20,
}


def golden(path: str | os.PathLike[str]) -> None:
    """The golden recording: something of everything, two CPUs, a loss, a closed file. The same bytes each time."""
    stream = Stream()
    stream.know(
        task(1, "worker"),
        container(78, "web"),
        task(2, b"evil\x1b[2J\xff", pid=4243, tid=4244, ns_pid=2, ns_tid=3, cgroup_id=78, mnt_ns=4026532777),
        name("/data/a", 1, file_id=1, mnt_ns=4026531841),
        name("/data/link-to-a", 2, file_id=2, ino=1001),
        name("memfd:scratch", 3, flags=NameFlag.DETACHED, fs_magic=0x1021994),
        name("", 4, flags=NameFlag.DETACHED, mode=FIFO, dev=14),
        name("deep/er/than/walked", 5, flags=NameFlag.TRUNCATED),
        name(b"/data/new\nline\xff", 6, mnt_ns=4026532777),
        claim("../missing", 7, base_path_id=1),
    )
    stream.happen(exec_)
    stream.add(open_, 3, os.O_RDWR)
    for page in range(5):
        stream.add(read, page * 4096)
    stream.add(read, 5 * 4096, ret=0)
    stream.add(write, 0, 100, cpu=1, path_id=2, file_id=2, marks=int(Mark.OFFSET_SHARED))
    stream.add(append, 4196, 100, 0, cpu=1)
    stream.add(failed_open, 2, 7)
    stream.add(seek, 8192, 0, os.SEEK_END)
    stream.add(dup, 3, 4)
    with Writer(path, HEADER) as writer:
        anchor = {"boot_ns": stream.now_ns, "realtime_ns": 1_750_000_000_000_100_000}
        meta, slots = stream.round()
        writer.round(meta, [slots])
        first = Counters(matched=13, submitted=13, received=13, written=13)
        writer.counters(first, stream.sequences, anchor=anchor)

        stream.lose(accesses=11, cpu=1)
        stream.add(mmap, path_id=6, file_id=6)
        stream.add(fault, 0, path_id=6, file_id=6)
        stream.add(fault, 1 << 16, page_count=0, path_id=6, file_id=6, marks=int(Mark.IS_WRITE | Mark.IS_MAJOR))
        stream.add(read, 0, 8, cpu=1, path_id=3, file_id=3, task_id=2)
        stream.add(access, Op.READ, path_id=4, file_id=4, size_req=1, marks=int(Mark.UNFINISHED), latency_ns=10**10)
        stream.add(access, 0x37F, cpu=1)  # an operation of a later version
        stream.add(access, Op.PUT_ASIDE, path_id=0, file_id=0)
        stream.know(folded(accesses=11, result=45056, latency_ns=11000, last_ns=stream.now_ns))
        stream.happen(fork)
        stream.happen(exit_, 0x0100, cpu=1)
        stream.lose(accesses=3, events=1)
        meta, slots = stream.round()
        writer.round(meta, [slots])
        last = Counters(
            matched=37, submitted=22, received=22, written=21, lost={"ring_full": 14, "meta_full": 1},
            filtered={"path": 1}, not_decoded={"io_uring": 2}, excluded_self=5, folded=11,
        )  # fmt: skip
        writer.close(last, stream.sequences, ended="the target has ended", anchor=anchor)


if __name__ == "__main__":
    Path(sys.argv[1]).unlink(missing_ok=True)
    golden(sys.argv[1])
