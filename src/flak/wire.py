"""Bytes of the two rings → events.

What the kernel wrote (bpf/flak.h, `_records`) becomes the vocabulary of `events`: records of the meta ring fill the
tables of a run, slots of the access ring become accesses, numbers that are missing become `Lost`. One code for live
sessions and recordings. It knows nothing of rings, files and processes, and writes no bytes; its users are `session`
and `tracefile`.
"""

from __future__ import annotations

import gc
import struct
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from itertools import compress, pairwise
from operator import attrgetter
from os.path import normpath
from typing import NamedTuple

from flak._records import (
    ACCESS_SIZE,
    ACCESS_SLOT,
    CONTAINER,
    FOLDED,
    LAYOUTS,
    NAME,
    OPERANDS_SLOT,
    PATH_MAX,
    PROCESS,
    SLOT_SIZE,
    TASK,
    ContainerRecord,
    FoldedRecord,
    Has,
    Mark,
    Meta,
    NameFlag,
    NameRecord,
    Op,
    OperandsRecord,
    ProcessRecord,
    TaskRecord,
)
from flak.errors import SchemaMismatch, TraceFileError
from flak.events import (
    CLASS_OF_OP,
    Access,
    Batch,
    Event,
    Exec,
    Exit,
    File,
    Folded,
    Fork,
    Lost,
    Operands,
    Tables,
    Task,
    escape,
)
from flak.packed import PackedMap

__all__ = [
    "Buffer", "Decoder", "Layouts", "cgroups_of", "compare_layouts", "container_record", "count_accesses",
    "count_process_events", "first_slots", "is_operands", "records_of", "size_of_accesses",
]  # fmt: skip

Buffer = bytes | memoryview

Layouts = Mapping[str, tuple[int, Sequence[tuple[str, int, int]]]]
"""Struct name → its size and its fields as (name, offset, size); all in bytes."""


# Plain ints: arithmetic with enum members costs microseconds.
_HAS_OPERANDS = int(Mark.HAS_OPERANDS)
_HAS_ADDR, _HAS_PROT, _HAS_MAP_FLAGS = int(Has.ADDR), int(Has.PROT), int(Has.MAP_FLAGS)
_HAS_FLAGS = int(Has.FLAGS)
_HAS_OPEN_FLAGS, _HAS_MODE, _HAS_ARG_OFFSET = int(Has.OPEN_FLAGS), int(Has.MODE), int(Has.ARG_OFFSET)

_CLAIMED, _TRUNCATED, _FAULT = int(NameFlag.CLAIMED), int(NameFlag.TRUNCATED), int(NameFlag.FAULT)
_DETACHED, _WEAK, _FROM_STAT = int(NameFlag.DETACHED), int(NameFlag.WEAK), int(NameFlag.FROM_STAT)
_META_NAME, _META_TASK, _META_PROCESS = int(Meta.NAME), int(Meta.TASK), int(Meta.PROCESS)
_META_CONTAINER, _META_FOLDED = int(Meta.CONTAINER), int(Meta.FOLDED)

_META_HEAD = struct.Struct("<HH")
_INODE = struct.Struct("<IQ")  # dev, ino
_IDENTITY = struct.Struct("<IQII")  # and generation, and the kernel's file_id where these do not do
_SMALLEST = {
    _META_NAME: NAME.size,
    _META_TASK: TASK.size,
    _META_PROCESS: PROCESS.size,
    _META_CONTAINER: CONTAINER.size,
    _META_FOLDED: FOLDED.size,
}

_LARGEST = {kind: size + PATH_MAX for kind, size in _SMALLEST.items()}  # longer names only a forger has

# A slot ends with u16 op, u16 cpu. The high byte of op tells second slots from first, and accesses that user space put
# aside: no access has 0xff or 0xfe there.
_OP_HIGH = SLOT_SIZE - 3
_OPERANDS, _PUT_ASIDE = Op.OPERANDS >> 8, Op.PUT_ASIDE >> 8
_IS_FIRST = bytes(high != _OPERANDS for high in range(256))

# Places of u16 cpu and u32 seq in a slot, counted in their own size. Columns are read in native order: every machine
# FLAK runs on is little endian.
_CPU = (SLOT_SIZE - 2) // 2
_SEQ = (SLOT_SIZE - 12) // 4

_SEQ_MASK = 0xFFFF_FFFF
_MOST = (1 << 62) - 1  # of a sum
_LATE_WINDOW = 1 << 20  # how far behind a number is late; further it has wrapped around
_LATE_AT_ONCE = 8  # programs on one CPU that are preempted right behind one another between number and room


class Decoder:
    """Turns the bytes of one run into events. Give it every round, in order: `learn` its meta, `decode` its batch.

    tables: what the ids stand for, filled by `learn`.
    received: accesses and process events decoded so far.
    unknown_records: records skipped because this version does not know their kind.
    """

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = Tables() if tables is None else tables
        self.received = 0
        self.unknown_records = 0
        self._containers: dict[int, str] = {}
        # One entry for each file of the run: hence packed.
        self._file_ids = PackedMap(_IDENTITY.size, 4)  # → the first file_id
        self._latest = PackedMap(_INODE.size, 4)  # → file_id last seen there
        self._looked_at = PackedMap(4, 8)  # file_ids that stat(2) alone has told of → the path it was asked about
        self._classes: dict[int, type[Access]] = defaultdict(lambda: Access)
        self._classes.update({int(op): cls for op, cls in CLASS_OF_OP.items()})
        self._accesses = _Numbers("ring_full")
        self._process_events = _Numbers("meta_full")
        self._newest_ns = 0
        self._folded: list[Folded] = []

    @property
    def late(self) -> int:
        """Accesses and process events that came after they had been reported as lost; normally none."""
        return self._accesses.late + self._process_events.late

    def learn(self, meta: Buffer, at: int = 0) -> list[Event]:
        """Takes a span of the meta ring's payloads; returns its Fork, Exec and Exit, in order.

        Raises TraceFileError where a record's size cannot be; `at` is the span's place in its file, for the message.
        """
        happened: list[Event] = []
        for kind, record in records_of(meta, at):
            if kind == _META_NAME:
                self._learn_name(record)
            elif kind == _META_TASK:
                self._learn_task(record)
            elif kind == _META_CONTAINER:
                self._learn_container(record)
            elif kind == _META_FOLDED:
                self._learn_folded(record)
            elif kind == _META_PROCESS and (event := self._process_event(record)):
                happened.append(event)
            else:
                self.unknown_records += 1
        return happened

    def _learn_name(self, record: bytes) -> None:
        name = NameRecord(*NAME.unpack_from(record))
        is_claimed = bool(name.flags & _CLAIMED)
        base = self.tables.paths.get(name.base_path_id)
        raw_path = _path_of(record[NAME.size :], name.flags)
        path = _resolved(raw_path, base) if is_claimed else raw_path
        if name.file_id:
            self.tables.files[name.file_id] = self._identified(name, path)
        if name.path_id:
            self.tables.paths[name.path_id] = File(
                path_id=name.path_id,
                file_id=self.tables.files.get(name.file_id, 0),
                raw_path=path,
                raw_claim=raw_path if is_claimed else None,
                mnt_ns=base.mnt_ns if is_claimed and base else name.mnt_ns,
                dev_major=name.dev >> 20,
                dev_minor=name.dev & 0xF_FFFF,
                ino=name.ino,
                ino_gen=name.ino_gen,
                mode=name.mode,
                marks=_marks_of(name.flags),
                file_size=None if is_claimed else name.file_size,
            )

    def _identified(self, name: NameRecord, path: bytes) -> int:
        """The first file_id of the same file."""
        inode = _INODE.pack(name.dev, name.ino)
        latest = self._latest.get(inode)
        # Without a generation: the file last seen under that number, or the one seen there next under the same path:
        # numbers come again, and a file's own row may be empty, but never another's.
        if name.flags & _FROM_STAT:
            if latest is None:
                latest = name.file_id
                self._latest.put(inode, latest)
                self._looked_at.put(_number(latest), _digest(path))
            return latest
        # Where dev, ino and generation do not tell files apart, only the kernel's own number does.
        identity = _IDENTITY.pack(name.dev, name.ino, name.ino_gen, name.file_id if name.flags & _WEAK else 0)
        known = self._file_ids.get(identity)
        if known is None:
            known = name.file_id
            if latest is not None and self._looked_at.pop(_number(latest)) == _digest(path):
                known = latest
            self._file_ids.put(identity, known)
        if known != latest:
            self._latest.put(inode, known)
        return known

    def _learn_task(self, record: bytes) -> None:
        task = TaskRecord(*TASK.unpack_from(record))
        self.tables.tasks[task.task_id] = Task(
            task_id=task.task_id,
            pid=task.pid,
            tid=task.tid,
            comm=escape(task.comm.partition(b"\0")[0]),
            ns_pid=None if task.ns_pid == task.pid else task.ns_pid,
            cgroup_id=task.cgroup_id or None,
            start_time_ns=task.start_time_ns,
            ppid=task.ppid,
            uid=task.uid,
            mnt_ns=task.mnt_ns,
            container=self._containers.get(task.cgroup_id),
            process_tag=task.process_tag,
        )
        self.tables.name_mounts(self.tables.tasks[task.task_id])

    def _learn_container(self, record: bytes) -> None:
        container = ContainerRecord(*CONTAINER.unpack_from(record))
        self._containers[container.cgroup_id] = escape(record[CONTAINER.size :])

    def _learn_folded(self, record: bytes) -> None:
        sums = FoldedRecord(*FOLDED.unpack_from(record))
        if max(sums.accesses, sums.result, sums.latency_ns, sums.first_ns, sums.last_ns) > _MOST:
            self.unknown_records += 1  # no run amounts to that
            return
        ret = -1 if sums.has_failed else 0
        access = self._classes[sums.op](
            sums.first_ns, -1, -1, -1, ret, sums.task_id, sums.file_id, sums.path_id, -1, None, sums.marks, sums.op,
            None, self.tables,
        )  # fmt: skip
        self._folded.append(Folded(sums.last_ns, sums.first_ns, sums.accesses, sums.result, sums.latency_ns, access))

    def take_folded(self) -> list[Folded]:
        """What has been learnt of lost accesses since the last call."""
        folded, self._folded = self._folded, []
        return folded

    def _process_event(self, record: bytes) -> Event | None:
        p = ProcessRecord(*PROCESS.unpack_from(record))
        if p.op == Op.FORK:
            return Fork(p.ts_ns, p.task_id, p.seq, p.cpu, self.tables, p.child_pid, p.child_tid)
        if p.op == Op.EXEC:
            argv0 = record[PROCESS.size :].partition(b"\0")[0]
            return Exec(p.ts_ns, p.task_id, p.seq, p.cpu, self.tables, p.child_pid, p.file_id, p.path_id, argv0)
        if p.op == Op.EXIT:
            return Exit(p.ts_ns, p.task_id, p.seq, p.cpu, self.tables, p.exit_code, bool(p.is_last))
        return None

    def decode(self, batch: Batch) -> list[Event]:
        """The round's events ordered by `ts_ns`, each `Lost` before the event that it was missed at.

        When only a few numbers are missing, that is reported a batch later: until then they can still arrive.
        Raises TraceFileError when `batch.slots` is not a whole number of slots.
        """
        collects = gc.isenabled()
        gc.disable()  # it would walk the new events again and again, at twice the cost of making them
        try:
            accesses, cpus, numbers = self._decode_slots(memoryview(batch.slots))
            happened: list[Event] = [
                *self._accesses.check(cpus, numbers, accesses),
                *self._process_events.check(*_numbers_of(batch.process_events), batch.process_events),
                *batch.process_events,
                *accesses,
            ]
            if _PUT_ASIDE in memoryview(batch.slots)[_OP_HIGH::SLOT_SIZE].tobytes():
                happened = [e for e in happened if not (isinstance(e, Access) and e.opcode == Op.PUT_ASIDE)]
            happened.sort(key=attrgetter("ts_ns"))
        finally:
            if collects:
                gc.enable()
        self.received += len(accesses) + len(batch.process_events)
        if happened:
            self._newest_ns = max(self._newest_ns, happened[-1].ts_ns)
        return happened

    def notices(self, records: bytes) -> list[Access]:
        """Accesses that no ring carried: flak_access records without headers. They have no number."""
        header = bytes(SLOT_SIZE - ACCESS_SIZE)
        slots = b"".join(header + records[i : i + ACCESS_SIZE] for i in range(0, len(records), ACCESS_SIZE))
        accesses, _, _ = self._decode_slots(memoryview(slots))
        for access in accesses:
            access.seq = access.cpu = None
        return accesses

    def _decode_slots(self, slots: memoryview) -> tuple[list[Access], list[int], list[int]]:
        """Accesses, and of each its CPU and number: as columns they cost a fifth of asking each event."""
        # Hot path: no attribute chains, one call per record.
        if len(slots) % SLOT_SIZE:
            raise TraceFileError(f"{len(slots)} bytes are not a whole number of slots")
        if not slots:
            return [], [], []
        classes, tables = self._classes, self.tables
        high = slots[_OP_HIGH::SLOT_SIZE].tobytes()
        rows: Iterable[tuple[int, ...]] = ACCESS_SLOT.iter_unpack(slots)
        cpus = slots.cast("H")[_CPU :: SLOT_SIZE // 2].tolist()
        numbers = slots.cast("I")[_SEQ :: SLOT_SIZE // 4].tolist()
        has_second_slots = _OPERANDS in high
        if has_second_slots:
            is_access = high.translate(_IS_FIRST)
            rows = compress(rows, is_access)
            cpus, numbers = list(compress(cpus, is_access)), list(compress(numbers, is_access))
        accesses = [
            classes[op](ts, latency, offset, size, ret, task, file, path, fd, seq, marks, op, cpu, tables)
            for ts, latency, offset, size, ret, task, file, path, fd, seq, marks, op, cpu in rows
        ]
        if has_second_slots:
            self._attach_operands(slots, high, accesses)
        return accesses, cpus, numbers

    def _attach_operands(self, slots: memoryview, high: bytes, accesses: list[Access]) -> None:
        second_slots = [i for i, byte in enumerate(high) if byte == _OPERANDS]
        for already, i in enumerate(second_slots):
            owner = accesses[i - 1 - already] if i and high[i - 1] != _OPERANDS else None
            if owner and owner.raw_marks & _HAS_OPERANDS:
                owner.operands = _operands_at(slots, i * SLOT_SIZE)
            else:
                self.unknown_records += 1

    def tail(self, final: Mapping[int, tuple[int, int]]) -> list[Lost]:
        """What is missing after the last batch. `final`: CPU → how many accesses and how many process events were
        numbered there; empty when nobody knows, then only what `decode` has yet to report.
        """
        accesses = self._accesses.tail({cpu: numbered for cpu, (numbered, _) in final.items()}, self._newest_ns)
        events = self._process_events.tail({cpu: numbered for cpu, (_, numbered) in final.items()}, self._newest_ns)
        return accesses + events


class _Gap(NamedTuple):
    """Numbers that are missing: `first` up to, not including, `end`; `ts_ns` is of the record after them."""

    first: int
    end: int
    ts_ns: int

    @property
    def length(self) -> int:
        """How many are missing."""
        return self.end - self.first


class _Numbers:
    """What is missing from the numbers that the records of one ring carry.

    Each CPU counts from 0; a record has the low 32 bits. A number is taken before room is reserved, so a program that
    is preempted or interrupted in between delivers its number after higher ones, perhaps in the next batch. Hence a
    gap of few numbers is held for a batch, and what arrives meanwhile is taken out of it. A longer one is a loss.
    """

    def __init__(self, cause: str) -> None:
        self.late = 0
        self._cause = cause
        self._next: dict[int, int] = defaultdict(int)  # CPU → number expected, unwrapped
        self._held: dict[int, list[_Gap]] = {}

    def check(self, cpus: list[int], numbers: list[int], records: Sequence[Event]) -> list[Lost]:
        """Takes a batch's records, in any order, with the CPU and the number of each; returns what is lost: its long
        gaps, and the short ones of the batch before that it did not fill.
        """
        gaps, self._held = self._held, {}
        stamps: dict[tuple[int, int], int] = {}
        for cpu, of_cpu in _by_cpu(cpus, numbers).items():
            expected = self._next[cpu]
            ordered = sorted(of_cpu)
            if ordered[0] == expected & _SEQ_MASK and ordered[-1] - ordered[0] + 1 == len(ordered):
                self._next[cpu] += len(ordered)  # nothing is missing: the usual case
                continue
            arrived = _unwrapped(of_cpu, expected)
            news = bisect_left(arrived, expected)
            gaps[cpu] = self._fill(gaps.get(cpu, []), arrived[:news])
            self._next[cpu] = max(expected, arrived[-1] + 1)
            holes = _holes(expected, arrived[news:], self._next[cpu])
            if holes:
                stamps = stamps or {(e.cpu, e.seq): e.ts_ns for e in records}
                new = [_Gap(first, end, stamps[cpu, end & _SEQ_MASK]) for first, end in holes]
                gaps[cpu] += [gap for gap in new if gap.length > _LATE_AT_ONCE]
                self._held[cpu] = [gap for gap in new if gap.length <= _LATE_AT_ONCE]
        return self._all_lost(gaps)

    def _fill(self, gaps: list[_Gap], arrived: list[int]) -> list[_Gap]:
        """What of the gaps is still missing; `arrived` ascends."""
        left = []
        self.late += len(arrived)
        for first, end, ts_ns in gaps:
            inside = arrived[bisect_left(arrived, first) : bisect_left(arrived, end)]
            self.late -= len(inside)
            left += [_Gap(*hole, ts_ns) for hole in _holes(first, inside, end)]
        return left

    def tail(self, final: Mapping[int, int], ts_ns: int) -> list[Lost]:
        """Gaps still held, and what each CPU numbered (`final`) after the last record that came."""
        for cpu, numbered in final.items():
            if numbered > self._next[cpu]:
                self._held.setdefault(cpu, []).append(_Gap(self._next[cpu], numbered, ts_ns))
                self._next[cpu] = numbered
        held, self._held = self._held, {}
        return self._all_lost(held)

    def _all_lost(self, gaps_of: Mapping[int, Sequence[_Gap]]) -> list[Lost]:
        return [
            Lost(gap.ts_ns, cpu, gap.first & _SEQ_MASK, gap.length, self._cause)
            for cpu, gaps in gaps_of.items()
            for gap in gaps
        ]


def _numbers_of(records: Sequence[Event]) -> tuple[list[int], list[int]]:
    return [record.cpu for record in records], [record.seq for record in records]


def _by_cpu(cpus: list[int], numbers: list[int]) -> dict[int, list[int]]:
    if not cpus:
        return {}
    if cpus.count(cpus[0]) == len(cpus):
        return {cpus[0]: numbers}
    groups: dict[int, list[int]] = defaultdict(list)
    for cpu, number in zip(cpus, numbers, strict=True):
        groups[cpu].append(number)
    return groups


def _unwrapped(numbers: list[int], expected: int) -> list[int]:
    """Full numbers, ascending, of low halves: up to 2^20 behind the one expected (late), otherwise ahead of it."""
    lowest = expected - _LATE_WINDOW
    return sorted({lowest + ((number - lowest) & _SEQ_MASK) for number in numbers})


def _holes(first: int, arrived: list[int], end: int) -> list[tuple[int, int]]:
    """(first, end) of each run of numbers in `first` … `end` that is not in `arrived`, which ascends."""
    return [(a + 1, b) for a, b in pairwise([first - 1, *arrived, end]) if b > a + 1]


def _operands_at(slots: memoryview, at: int) -> Operands:
    o = OperandsRecord(*OPERANDS_SLOT.unpack_from(slots, at))
    return Operands(
        addr=o.addr if o.has & _HAS_ADDR else None,
        old_addr=o.old_addr or None,
        arg_offset=o.arg_offset if o.has & _HAS_ARG_OFFSET else None,
        prot=o.prot if o.has & _HAS_PROT else None,
        flags=o.map_flags if o.has & _HAS_FLAGS else None,
        map_flags=o.map_flags if o.has & _HAS_MAP_FLAGS else None,
        open_flags=o.open_flags if o.has & _HAS_OPEN_FLAGS else None,
        mode=o.mode if o.has & _HAS_MODE else None,
        new_fd=None if o.new_fd < 0 else o.new_fd,
        claim_id=o.claim_id,
        other_file_id=o.other_file_id,
        other_path_id=o.other_path_id,
        call_id=o.call_id or None,
    )


def records_of(meta: Buffer, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Each record of a span of meta payloads with its kind. Raises TraceFileError where a size cannot be."""
    position = 0
    while position < len(meta):
        head = bytes(meta[position : position + _META_HEAD.size])
        kind, size = _META_HEAD.unpack(head) if len(head) == _META_HEAD.size else (0, 0)
        record = bytes(meta[position : position + size])
        if not _SMALLEST.get(kind, _META_HEAD.size) <= size <= _LARGEST.get(kind, size) or len(record) < size:
            raise TraceFileError(f"damaged at byte {at + position}: a meta record cannot be of {size} bytes")
        yield kind, record
        position += size


def _path_of(names: bytes, flags: int) -> bytes:
    """A path from names leaf first, each ended by NUL; a claimed string stays as it is."""
    if flags & _CLAIMED:
        return names.partition(b"\0")[0]
    path = b"/".join(reversed([name for name in names.split(b"\0") if name]))
    if flags & _TRUNCATED:
        return "…/".encode() + path
    return path if flags & _DETACHED else b"/" + path


def _resolved(claim: bytes, base: File | None) -> bytes:
    """A string that a program passed, behind the path of the folder that it starts from, where that is known."""
    # A folder's path is the kernel's. Claims behind claims would grow with each, to gigabytes from a small file.
    if base is None or base.raw_claim is not None or not claim or claim.startswith(b"/"):
        return claim
    return base.raw_path.rstrip(b"/") + b"/" + claim


def _number(file_id: int) -> bytes:
    return file_id.to_bytes(4, "little")


def _digest(path: bytes) -> int:
    """What tells a path from one other."""
    return int.from_bytes(blake2b(normpath(path), digest_size=8).digest(), "little")


@cache
def _marks_of(flags: int) -> Mark:
    """Marks that hold for every access under the name. Deletion is not one: it has a time, so accesses carry it."""
    marks = Mark(0)
    if flags & _CLAIMED:
        marks |= Mark.PATH_CLAIMED
    if flags & _TRUNCATED:
        marks |= Mark.PATH_TRUNCATED
    if flags & _FAULT:
        marks |= Mark.PATH_FAULT
    return marks


def first_slots(slots: Buffer) -> bytes:
    """For each slot a byte: 1 where an access begins, 0 where it is the second one of an access."""
    return memoryview(slots)[_OP_HIGH::SLOT_SIZE].tobytes().translate(_IS_FIRST)


def is_operands(slot: Buffer) -> bool:
    """The slot is the second one of an access."""
    return slot[_OP_HIGH] == _OPERANDS


def count_accesses(slots: Buffer) -> int:
    """How many accesses a whole number of slots holds, without those put aside."""
    high = memoryview(slots)[_OP_HIGH::SLOT_SIZE].tobytes()
    return len(high) - high.count(_OPERANDS) - high.count(_PUT_ASIDE)


def size_of_accesses(slots: Buffer, count: int) -> int:
    """Bytes that the first `count` accesses take, their second slots and what was put aside between them included."""
    high = memoryview(slots)[_OP_HIGH::SLOT_SIZE].tobytes()
    seen = 0
    for i, byte in enumerate(high):
        seen += byte not in (_OPERANDS, _PUT_ASIDE)
        if seen > count:
            return i * SLOT_SIZE
    return len(high) * SLOT_SIZE


def count_process_events(payloads: Iterable[Buffer]) -> int:
    """How many fork, exec and exit records meta payloads hold, one or several in each buffer. Raises TraceFileError
    as `learn` does.
    """
    return sum(kind == _META_PROCESS for payload in payloads for kind, _ in records_of(payload))


def cgroups_of(payloads: Iterable[Buffer]) -> list[tuple[int, int]]:
    """(cgroup id, process number) of each task record among meta payloads, one record in each buffer."""
    found = []
    for payload in payloads:
        if payload[0] == _META_TASK and len(payload) >= TASK.size:
            task = TaskRecord(*TASK.unpack_from(payload))
            found.append((task.cgroup_id, task.pid))
    return found


def container_record(cgroup_id: int, name: str) -> bytes:
    """A meta record that says which container a cgroup is; `name` is cut off at 4096 bytes."""
    text = name.encode("utf-8", "surrogatepass")[:4096]  # JSON may hold lone surrogates, which are no characters
    return CONTAINER.pack(_META_CONTAINER, CONTAINER.size + len(text), 0, cgroup_id) + text


def compare_layouts(btf_layouts: Layouts) -> None:
    """Raises SchemaMismatch unless the object's BTF has every struct of flak.h as this package knows it."""
    for struct_name, (size, fields) in LAYOUTS.items():
        if struct_name not in btf_layouts:
            raise _mismatch(struct_name, "a struct", "nothing of that name")
        actual_size, actual_fields = btf_layouts[struct_name]
        actual = {name: (offset, size) for name, offset, size in actual_fields}
        expected = {name: (offset, size) for name, offset, size in fields}
        for name in [*expected, *actual]:
            if expected.get(name) != actual.get(name):
                raise _mismatch(f"{struct_name}.{name}", _place(expected.get(name)), _place(actual.get(name)))
        if size != actual_size:
            raise _mismatch(struct_name, f"{size} bytes", f"{actual_size} bytes")


def _place(field: tuple[int, int] | None) -> str:
    return f"{field[1]} bytes at {field[0]}" if field else "no such field"


def _mismatch(what: str, expected: str, actual: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"{what}: this package expects {expected}, the BPF object has {actual}",
        "rebuild the object: python build_bpf.py; installed by pip: pip install --force-reinstall flak-tracer",
    )
