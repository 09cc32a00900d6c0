"""A live trace: the only place where capture is put together.

`Session` is a context manager and a source of events. Entering checks, loads, attaches and releases the command;
leaving undoes it in reverse. It drains in rounds (docs/architecture.md): access position, names, accesses. What the
events mean is left to others; `cli` and the public `flak.trace` are the users.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from flak import __version__, probes
from flak._records import COUNTERS, FORMAT_VERSION, LAYOUTS, MAX_CPUS, SLOT_SIZE, CountersRecord, Op
from flak.bpf import BpfObject, Btf, Ring, object_bytes, possible_cpus
from flak.errors import AttachError, LoadError, NotPermitted, OutputError, TargetError, UsageError
from flak.events import Batch, Counters, Event, Tables
from flak.target import Command, Target, describe
from flak.wire import Decoder, compare_layouts, count_accesses, count_process_events, size_of_accesses

POLL_S = 0.005  # idle poll of the rings: 0.9 % of a CPU
META_RING_SIZE = 4 << 20
DEFAULT_BUFFER_SIZE = 16 << 20
MAX_ROOTS = 64

EVENT_GROUPS: dict[str, frozenset[Op]] = {
    "read": frozenset({Op.READ, Op.READV, Op.PREAD64, Op.PREADV, Op.PREADV2}),
    "write": frozenset({Op.WRITE, Op.WRITEV, Op.PWRITE64, Op.PWRITEV, Op.PWRITEV2}),
    "open": frozenset({Op.OPEN, Op.OPENAT, Op.OPENAT2, Op.CREAT, Op.DUP, Op.DUP2, Op.DUP3, Op.FCNTL}),
    "close": frozenset({Op.CLOSE}),
    "meta": frozenset({Op.LSEEK}),
    "mmap": frozenset({Op.MMAP, Op.MUNMAP, Op.MREMAP}),
    "fault": frozenset({Op.FAULT}),
    "process": frozenset({Op.FORK, Op.EXEC, Op.EXIT}),
}
"""What `events` selects, by the names of the option --events."""


Round = tuple[list[memoryview], memoryview]
"""What one drain found: payloads of the meta ring, and slots of the access ring, where they lie."""


class RawWriter(Protocol):
    """What `Session.record` writes to (tracefile.Writer)."""

    def round(self, meta: Sequence[memoryview], spans: Sequence[memoryview]) -> None: ...

    def counters(self, counters: Counters, sequences: Mapping[int, tuple[int, int]]) -> None: ...


class Session:
    """A trace of running processes or of a command.

    pid: processes by number, in the caller's pid namespace; their children too unless `follow` is false.
    command: program and arguments to start; stdout: a descriptor for its standard output; user: who it runs as.
    all_files: pipes, sockets and devices too, not only regular files and directories.
    events: names of EVENT_GROUPS to record, None for all. latency: False saves the hook at enter.
    buffer_size: bytes of the access ring, rounded up to a power of two. duration: seconds. max_events: stop after.

    Raises UsageError at once; TargetError, NotPermitted, NotSupported, LoadError, AttachError when entered.
    """

    def __init__(
        self,
        *,
        pid: int | Sequence[int] = (),
        command: Sequence[str] | None = None,
        follow: bool = True,
        all_files: bool = False,
        events: Collection[str] | None = None,
        latency: bool = True,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        duration: float | None = None,
        max_events: int | None = None,
        user: str | None = None,
        stdout: int | None = None,
    ) -> None:
        pids = (pid,) if isinstance(pid, int) else tuple(dict.fromkeys(pid))
        if not pids and not command:
            raise UsageError("nothing to trace", "name a running process (pid) or a command")
        if pids and command:
            raise UsageError("a pid and a command cannot be traced together")
        if len(pids) > MAX_ROOTS:
            raise UsageError(f"{len(pids)} pids, at most {MAX_ROOTS} can be named")
        unknown = set(events or ()) - EVENT_GROUPS.keys()
        if unknown:
            raise UsageError(f"no events called {', '.join(sorted(unknown))}", f"there are {', '.join(EVENT_GROUPS)}")
        self._pids = pids
        self._argv = list(command) if command else None
        self._follow = follow
        self._all_files = all_files
        self._events = frozenset(EVENT_GROUPS if events is None else events)
        self._has_latency = latency
        self._buffer_size = 1 << max(buffer_size - 1, 4095).bit_length()
        self._duration = duration
        self._max_events = max_events
        self._user = user
        self._stdout = stdout

        self.served: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.decoder = Decoder()
        self._stack = contextlib.ExitStack()
        self._command: Command | None = None
        self._targets: list[Target] = []
        self._bpf: BpfObject | None = None
        self._is_stopping = False
        self._is_over = False
        self._started = 0.0
        self._ended = 0.0
        self._anchor = (0, 0)
        self._received = 0
        self._written = 0
        self._taken = 0  # accesses handed on, while max_events limits them
        self._is_cut = False
        self._meta_end = 0
        self._filtered: Counter[str] = Counter()
        self._user_lost: Counter[str] = Counter()
        self._misses = 0
        self._final: Counters | None = None

    # --- entering and leaving

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_counters()
        self._bpf = None
        self._stack.close()

    def close(self) -> None:
        """Leave the session outside a `with`; may be called twice."""
        self.__exit__(None, None, None)

    def _start(self) -> None:
        self._targets = [describe(pid) for pid in self._pids]
        if self._argv:
            # Before the object is loaded: a fork would copy its mappings, and the child must hold none of them.
            self._command = self._stack.enter_context(Command(self._argv, user=self._user, stdout=self._stdout))
        self._bpf = self._load()
        self._accesses = self._ring("accesses")
        self._meta = self._ring("meta")
        self._rows = self._bpf.variable("counters")
        self._stack.callback(self._rows.release)
        self._live = self._bpf.variable("live_processes").cast("i")
        self._armed = self._bpf.variable("armed_tgid").cast("I")
        self._stack.callback(self._live.release)
        self._stack.callback(self._armed.release)
        self._started = time.monotonic()
        self._anchor = (time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())
        self._choose_targets()
        if self._command:
            self._command.release()

    def _load(self) -> BpfObject:
        """The object, loaded and attached, with the first way to see page faults that this kernel lets us have."""
        image = object_bytes()
        with Btf.of_kernel() as btf:
            ways: list[probes.Alternative | None] = [w for w in probes.FAULTS if w.is_possible(btf)]
            has_pages = probes.FAULT_PAGES.is_possible(btf)
            settings = {
                "has_rdonly_cast": btf.has_function("bpf_rdonly_cast"),
                "has_group_dead": btf.tracepoint_arguments("sched_process_exit") > 1,
                "self_pid_ns": Path("/proc/self/ns/pid").stat().st_ino,
                "self_tgid": os.getpid(),
                "follow_children": self._follow,
                "all_files": self._all_files,
            }
        ways = [*ways, None] if "fault" in self._events else [None]
        for way in ways:
            try:
                return self._load_with(image, settings, way, has_pages)
            except (LoadError, AttachError, NotPermitted):  # some kernels refuse fentry as if for want of a capability
                if way is None:
                    raise
        raise AssertionError("the last way, None, either returns or raises")

    def _load_with(
        self, image: bytes, settings: Mapping[str, int], way: probes.Alternative | None, has_pages: bool
    ) -> BpfObject:
        calls = (probes.CALL_ENTER, probes.CALL_EXIT) if self._has_latency else (probes.CALL_EXIT,)
        hooks = [*probes.PROCESSES, *calls]
        if way:
            hooks += way.programs
            if has_pages:
                hooks += probes.FAULT_PAGES.programs
        bpf = BpfObject(image)
        try:
            compare_layouts({name: bpf.btf.layout(name) for name in LAYOUTS})
            bpf.configure({**settings, "op_of_nr": self._wanted_calls(bpf.initial("op_of_nr"))})
            bpf.set_size("accesses", self._buffer_size)
            bpf.set_size("meta", META_RING_SIZE)
            bpf.select([*hooks, *probes.ITERATORS, *(way.all_programs if way else ())])
            bpf.load()
            for name in hooks:  # processes first: a child that slips between would never be traced
                bpf.attach(name)
            for name, config in way.software_events if way else ():
                bpf.attach_software_event(name, config)
        except BaseException:
            bpf.close()
            raise
        self._stack.callback(bpf.close)
        self.served = {
            "processes": "sched_process_fork, sched_process_exec, sched_process_exit",
            "system calls": "sys_enter and sys_exit" if self._has_latency else "sys_exit",
        }
        if "fault" in self._events:
            self._note("page faults", way)
            self._note("pages per fault", probes.FAULT_PAGES if way and has_pages else None)
        return bpf

    def _note(self, concern: str, way: probes.Alternative | None) -> None:
        if way:
            self.served[concern] = way.name
        else:
            self.missing[concern] = probes.LOST_WITHOUT[concern]

    def _wanted_calls(self, op_of_nr: bytes) -> bytes:
        """The table of calls without those nobody asked for. Entries that are no operation (renames) stay."""
        unwanted = {op for name, ops in EVENT_GROUPS.items() if name not in self._events for op in ops}
        return bytes(0 if op in unwanted else op for op in op_of_nr)

    def _ring(self, name: str) -> Ring:
        assert self._bpf
        ring = self._bpf.ring(name)
        self._stack.callback(ring.close)
        return ring

    def _choose_targets(self) -> None:
        """Make the chosen processes targets, their children too, and say what they have open and mapped."""
        assert self._bpf
        numbers = [self._command.pid] if self._command else list(self._pids)
        self._poke("roots", b"".join(n.to_bytes(4, "little") for n in numbers))
        self._poke("root_count", len(numbers).to_bytes(4, "little"))
        self._poke("arm_only", int(self._command is not None).to_bytes(4, "little"))
        if self._command:
            self._bpf.run_iterator(probes.ADOPT)
            if not self._armed[0]:
                raise TargetError(f"process {self._command.pid} was not found by the kernel's task iterator")
            return
        # The fork hook is on. What forked before it is found by iterating until nobody is added any more.
        before = -1
        while (added := self._peek("adopted_count")) != before:
            before = added
            self._bpf.run_iterator(probes.ADOPT)
        if self._peek("found_roots") < len(numbers):
            for target in self._targets:
                describe(target.pid)  # says which one has ended
            raise TargetError("FLAK does not trace itself")
        for target in self._targets:
            if describe(target.pid).start_time != target.start_time:
                raise TargetError(f"process {target.pid} ended, and its number was given to another")
        self._bpf.run_iterator(probes.OPEN_FILES)
        self._bpf.run_iterator(probes.MAPPINGS)

    def _poke(self, name: str, data: bytes) -> None:
        assert self._bpf
        with self._bpf.variable(name) as memory:
            memory[: len(data)] = data

    def _peek(self, name: str) -> int:
        assert self._bpf
        with self._bpf.variable(name) as memory:
            return int.from_bytes(memory, "little")

    # --- what is traced

    @property
    def description(self) -> str:
        """What is traced, in words: "pid 4242 (python) + children"."""
        children = " + children" if self._follow else ""
        if self._argv:
            return f"{Path(self._argv[0]).name}{children}"
        named = [f"pid {target.pid} ({target.comm})" for target in self._targets]
        return ", ".join(named) + children

    @property
    def command_status(self) -> int | None:
        """Exit status of the command as subprocess gives it (−N: killed by signal N); None while it runs."""
        return self._command.poll() if self._command else None

    @property
    def elapsed_s(self) -> float:
        """Seconds from attaching to stopping, or till now."""
        return (self._ended or time.monotonic()) - self._started

    @property
    def anchor(self) -> tuple[int, int]:
        """The same moment as (CLOCK_BOOTTIME, CLOCK_REALTIME), in ns."""
        return self._anchor

    @property
    def tables(self) -> Tables:
        """What the ids of this session's events stand for."""
        return self.decoder.tables

    def header(self) -> dict[str, Any]:
        """What a recording says about itself before the first record (docs/format.md)."""
        return {
            "flak": __version__,
            "format": FORMAT_VERSION,
            "host": socket.gethostname(),
            "boot_id": _read("/proc/sys/kernel/random/boot_id"),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "command_line": sys.argv,
            "selectors": {"pid": list(self._pids), "command": self._argv, "follow": self._follow},
            "events": sorted(self._events),
            "has_latency": self._has_latency,
            "all_files": self._all_files,
            "description": self.description,
            "hooks": self.served,
            "missing": self.missing,
            "clock_anchors": [{"boot_ns": self._anchor[0], "realtime_ns": self._anchor[1]}],
            "ring_size": self._buffer_size,
        }

    # --- draining

    def stop(self) -> None:
        """End the trace at the next round. Safe in a signal handler and from another thread."""
        self._is_stopping = True

    def __iter__(self) -> Iterator[Event]:
        """Events in rounds, by time within a round; ends when the targets have ended or the session is stopped."""
        for batch in self.rounds():
            yield from self.decode(batch)
        yield from self.tail()

    def batches(self) -> Iterator[Batch]:
        """The same rounds undecoded, for analysis."""
        return self.rounds()

    def rounds(self) -> Iterator[Batch]:
        """Each round that brought something. Names and tasks are learnt as it goes; `decode` makes events of it."""
        for meta, slots in self._raw_rounds():
            process_events = self.decoder.learn(b"".join(meta))
            self._written += count_accesses(slots) + len(process_events)
            yield Batch(bytes(slots), process_events)

    def decode(self, batch: Batch) -> list[Event]:
        """The events of a round, without those of processes when nobody asked for them."""
        events = self.decoder.decode(batch)
        if "process" in self._events or not batch.process_events:
            return events
        unwanted = len(batch.process_events)
        self._written -= unwanted
        self._filtered["events"] += unwanted
        return [event for event in events if event.via != "sched"]

    def tail(self) -> list[Event]:
        """What was lost behind the last record of each CPU; known when the trace is over."""
        return list(self.decoder.tail(self.sequences()))

    def record(self, writer: RawWriter) -> None:
        """Write every round to a recording, without looking inside, until the trace ends.

        What could not be written is counted as `user_write_failed`; then the OutputError is raised.
        """
        next_counters = 0.0
        for meta, slots in self._raw_rounds():
            received = count_accesses(slots) + count_process_events(meta)
            try:
                writer.round(meta, [slots])
            except OutputError:
                self._user_lost["user_write_failed"] += received
                self.stop()
                raise
            self._written += received
            if time.monotonic() >= next_counters:
                next_counters = time.monotonic() + 1.0
                writer.counters(self.stats, self.sequences())

    def _raw_rounds(self) -> Iterator[Round]:
        """Drain until the trace is over. The views are valid until the next round is asked for."""
        deadline = self._started + self._duration if self._duration is not None else None
        is_last = False
        while not is_last:
            is_last = self._should_end(deadline)
            if is_last:
                self._stop_tracing()
            found = self._take_round()
            if not found and not is_last:
                time.sleep(POLL_S)
            while found:
                try:
                    yield from self._within_limit(found)
                finally:  # also when whoever iterates has seen enough
                    self._give_back(found)
                found = self._take_round() if is_last else None  # at the end: till nothing is left
        self._finish_counters()

    def _take_round(self) -> Round | None:
        """What the rings hold now: payloads of the meta ring, and slots as they lie in the access ring."""
        # A name is committed before the first access that refers to it, so once the meta ring is consumed up to where
        # it stood *after* the accesses were looked at, all their names are known. A record that is still being written
        # holds the accesses back for a round.
        until = self._accesses.produced
        meta_until = self._meta.produced
        meta, self._meta_end = self._meta.records(meta_until)
        slots = self._accesses.slots(until if self._meta_end >= meta_until else self._accesses.position, SLOT_SIZE)
        if not meta and not slots:
            return None
        self._received += count_accesses(slots) + count_process_events(meta)
        return meta, slots

    def _give_back(self, found: Round) -> None:
        """Let the kernel have the room of a round again."""
        meta, slots = found
        accesses_end = self._accesses.position + len(slots)
        for view in meta:
            view.release()
        slots.release()
        self._meta.release(self._meta_end)
        self._accesses.release(accesses_end)

    def _within_limit(self, found: Round) -> Iterator[Round]:
        """The round, without what lies beyond `max_events`."""
        meta, slots = found
        if self._max_events is None:
            yield found
            return
        n = count_accesses(slots)
        room = max(self._max_events - self._taken, 0)
        self._taken += min(n, room)
        if n > room:
            self._is_cut = True
            self._filtered["max_events"] += n - room
            slots = slots[: size_of_accesses(slots, room)]
        yield meta, slots

    def _should_end(self, deadline: float | None) -> bool:
        if self._is_stopping or (deadline is not None and time.monotonic() >= deadline):
            return True
        if self._max_events is not None and self._taken >= self._max_events:
            return True
        if self._command and self._command.poll() is not None and self._armed[0]:
            return True  # it never got as far as its exec
        return self._live[0] <= 0 and not self._armed[0]

    def _stop_tracing(self) -> None:
        """Hooks off; calls that have not returned become records."""
        assert self._bpf
        if self._is_over:
            return
        self._misses = self._bpf.recursion_misses()
        for name in self._bpf.attached:
            self._bpf.detach(name)
        self._ended = time.monotonic()
        self._bpf.run_iterator(probes.PENDING)
        self._is_over = True

    def _finish_counters(self) -> None:
        """The run's counters, once and for all. Records that nobody took are drained and counted as lost."""
        if self._final or not self._bpf:
            return
        self._stop_tracing()
        before = self._received
        while found := self._take_round():
            self._give_back(found)
        if abandoned := self._received - before:
            self._is_cut = True
            self._user_lost["user_abandoned"] += abandoned
        self._final = self._count()

    # --- counting

    @property
    def stats(self) -> Counters:
        """The counters so far; after the trace, final."""
        return self._final or self._count()

    def _count(self) -> Counters:
        rows = self._counter_rows().values()
        total = CountersRecord(*(sum(column) for column in zip(*rows, strict=True))) if rows else None
        if not self._bpf or not total:
            return Counters(is_complete=self._is_over)
        lost = {
            "ring_full": total.lost_ring_full,
            "meta_full": total.lost_meta_full,
            "state_full": total.lost_state_full,
            **self._user_lost,
        }
        not_decoded = {
            "compat32": total.not_decoded_compat32,
            "gup_fault": total.not_decoded_gup_fault,
            "io_uring": total.not_decoded_io_uring,
            "aio": total.not_decoded_aio,
            "copy": total.not_decoded_copy,
            "fault_without_mapping": total.vma_misses,
        }
        return Counters(
            matched=total.matched + total.meta_matched,
            submitted=total.submitted + total.meta_submitted,
            received=self._received,
            written=self._written,
            lost={cause: n for cause, n in lost.items() if n},
            filtered={what: n for what, n in self._filtered.items() if n},
            not_decoded={what: n for what, n in not_decoded.items() if n},
            excluded_self=total.excluded_self,
            recursion_misses=self._misses if self._is_over else self._bpf.recursion_misses(),
            is_complete=self._is_over,
        )

    def _counter_rows(self) -> dict[int, CountersRecord]:
        """Counters of each CPU that has any, as they stand in shared memory."""
        found = {}
        for cpu in possible_cpus() if self._bpf else ():
            row = CountersRecord(*COUNTERS.unpack_from(self._rows, cpu % MAX_CPUS * COUNTERS.size))
            if any(row):
                found[cpu] = row
        return found

    def sequences(self) -> dict[int, tuple[int, int]]:
        """Per CPU, how many numbers were given out so far: to accesses, to process events.

        Empty when part of the run was left out on purpose: numbers that are missing are then no loss.
        """
        if self._is_cut:
            return {}
        return {cpu: (row.matched, row.meta_matched) for cpu, row in self._counter_rows().items()}


def _read(path: str) -> str:
    return Path(path).read_text().strip()
