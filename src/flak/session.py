"""A live trace: the only place where capture is put together.

`Session` is a context manager and a source of events. Entering checks, loads, attaches and releases the command;
leaving undoes it in reverse. It drains in rounds (docs/architecture.md): access position, names, accesses. What the
events mean is left to others; `cli` and the public `flak.trace` are the users.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import socket
import sys
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from flak import __version__, probes
from flak._records import FORMAT_VERSION, Op
from flak._skeleton import VARIABLES, Config
from flak.bpf import BpfObject
from flak.drain import Drain, Round
from flak.errors import OutputError, TargetError, UsageError
from flak.events import Batch, Counters, Event, Tables
from flak.tally import Tally
from flak.target import Command, Target, describe
from flak.wire import Decoder, count_accesses, count_process_events, size_of_accesses

POLL_S = 0.005  # idle poll of the rings: 0.9 % of a CPU
META_RING_SIZE = 16 << 20  # a name for every other slot of the access ring
DEFAULT_BUFFER_SIZE = 16 << 20
MAX_BUFFER_SIZE = 1 << 31  # a map's size is a u32, a ring's a power of two
MAX_ROOTS = VARIABLES["roots"].length

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


class RawWriter(Protocol):
    """What `Session.record` writes to (tracefile.Writer)."""

    is_full: bool
    unwritten: int

    def round(self, meta: Sequence[memoryview], spans: Sequence[memoryview]) -> None: ...

    def counters(self, counters: Counters, sequences: Mapping[int, tuple[int, int]]) -> None: ...


class Session:
    """A trace of running processes or of a command.

    pid: processes by number, in the caller's pid namespace; their children too unless `follow` is false.
    command: program and arguments to start; stdout: a descriptor for its standard output; user: who it runs as.
    all_files: pipes, sockets and devices too, not only regular files and directories.
    events: names of EVENT_GROUPS to record, None for all. latency: False saves the hook at enter.
    buffer_size: bytes of the access ring, rounded up to a power of two. duration: stop after so many seconds.
    max_events: stop after so many accesses.

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
        if buffer_size > MAX_BUFFER_SIZE:
            raise UsageError(f"a buffer of {buffer_size} bytes is too large", f"at most {MAX_BUFFER_SIZE} bytes (2G)")
        self._pids = pids
        self._argv = list(command) if command else None
        self._follow = follow
        self._all_files = all_files
        self._events = frozenset(EVENT_GROUPS if events is None else events)
        self._has_latency = latency
        self._buffer_size = 1 << max(buffer_size - 1, mmap.PAGESIZE - 1).bit_length()
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
        self._tally: Tally | None = None  # from here to _drain: there while the object is loaded
        self._bpf: BpfObject
        self._drain: Drain
        self._is_stopping = False
        self._is_over = False
        self._started = 0.0
        self._ended = 0.0
        self._anchor = (0, 0)
        self._taken = 0  # accesses handed on, while max_events limits them
        self._misses = 0
        self._final: Counters | None = None
        self._final_sequences: dict[int, tuple[int, int]] = {}

    # --- entering and leaving

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._tally = None
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish()
        finally:
            self._tally = None
            self._stack.close()

    def close(self) -> None:
        """Leave the session outside a `with`; may be called twice."""
        self.__exit__(None, None, None)

    def _start(self) -> None:
        self._targets = [describe(pid) for pid in self._pids]
        if self._argv:
            # Before the object is loaded: a fork would copy its mappings, and the child must hold none of them.
            self._command = self._stack.enter_context(Command(self._argv, user=self._user, stdout=self._stdout))
        hooks = probes.attach(
            Config(
                page_shift=mmap.PAGESIZE.bit_length() - 1,
                self_pid_ns=Path("/proc/self/ns/pid").stat().st_ino,
                self_tgid=os.getpid(),
                follow_children=self._follow,
                all_files=self._all_files,
            ),
            {"accesses": self._buffer_size, "meta": META_RING_SIZE},
            wants_faults="fault" in self._events,
            wants_latency=self._has_latency,
            choose_calls=self._wanted_calls,
        )
        self._bpf, self.served, self.missing = hooks.bpf, hooks.served, hooks.missing
        self._stack.callback(self._bpf.close)
        rings = [self._bpf.ring(name) for name in ("accesses", "meta")]
        for ring in rings:
            self._stack.callback(ring.close)
        self._drain = Drain(*rings)
        self._tally = Tally(self._shared("counters"))
        self._live = self._shared("live_processes")
        self._armed = self._shared("armed_tgid")
        self._started = time.monotonic()
        self._anchor = (time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())
        if self._command:
            self._arm(self._command)
            self._command.release()
        else:
            self._adopt()

    def _wanted_calls(self, op_of_nr: bytes) -> bytes:
        """The table of calls without those nobody asked for. Entries that are no operation (renames) stay."""
        unwanted = {op for name, ops in EVENT_GROUPS.items() if name not in self._events for op in ops}
        return bytes(0 if op in unwanted else op for op in op_of_nr)

    def _shared(self, name: str) -> memoryview[int]:
        """A variable of the programs, as the integers it is made of, until the session is left."""
        memory = self._bpf.variable(name)
        if VARIABLES[name].kind == "I":
            memory = memory.cast("I")
        elif VARIABLES[name].kind == "i":
            memory = memory.cast("i")
        self._stack.callback(memory.release)
        return memory

    def _choose(self, pids: Sequence[int], *, arm_only: bool) -> None:
        """Tell the iterator which processes, by their numbers in our pid namespace, are the roots of the trace."""
        self._shared("roots")[: len(pids)] = memoryview(b"".join(n.to_bytes(4, "little") for n in pids)).cast("I")
        self._shared("root_count")[0] = len(pids)
        self._shared("arm_only")[0] = arm_only

    def _arm(self, command: Command) -> None:
        """Have the command traced from its exec on: what the child does until then is FLAK's own doing."""
        self._choose([command.pid], arm_only=True)
        self._bpf.run_iterator(probes.ADOPT)
        if not self._armed[0]:
            raise TargetError(f"process {command.pid} was not found by the kernel's task iterator")

    def _adopt(self) -> None:
        """Make the chosen processes and their children targets, and say what they have open and mapped."""
        self._choose(self._pids, arm_only=False)
        added = self._shared("adopted_count")
        before = -1
        # The fork hook is on; what forked before it is found by going on till nobody is added.
        while added[0] != before:
            before = added[0]
            self._bpf.run_iterator(probes.ADOPT)
        for target in self._targets:
            now = describe(target.pid)  # says which one has ended meanwhile
            if now.start_time != target.start_time:
                raise TargetError(f"process {target.pid} ended, and its number was given to another")
        if self._shared("found_roots")[0] < len(self._pids):
            raise TargetError("not all of these processes can be traced: FLAK itself and kernel-private ones cannot")
        if "open" in self._events:
            self._bpf.run_iterator(probes.OPEN_FILES)
        if "mmap" in self._events:
            self._bpf.run_iterator(probes.MAPPINGS)

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
            "page_size": mmap.PAGESIZE,
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
        """Events in rounds, by time within a round, until the targets have ended or the session is stopped. The last is
        the counters.
        """
        for batch in self.rounds():
            yield from self.decode(batch)
        yield from self.tail()
        yield self.stats

    def batches(self) -> Iterator[Batch]:
        """The same rounds undecoded, for analysis."""
        return self.rounds()

    def rounds(self) -> Iterator[Batch]:
        """Each round that brought something. Names and tasks are learnt as it goes; `decode` makes events of it."""
        for found, size in self._raw_rounds("process" in self._events):
            process_events = self.decoder.learn(b"".join(found.meta))
            yield Batch(bytes(found.slots[:size]), process_events)

    def decode(self, batch: Batch) -> list[Event]:
        """The events of a round, without those of processes when nobody asked for them."""
        events = self.decoder.decode(batch)
        if "process" in self._events:
            return events
        return [event for event in events if event.via != "sched"]

    def tail(self) -> list[Event]:
        """What was lost behind the last record of each CPU; known when the trace is over."""
        return list(self.decoder.tail(self.sequences()))

    def record(self, writer: RawWriter) -> None:
        """Write every round to a recording, without looking inside, until the trace ends.

        Process events are in it whether or not they were asked for: without them their numbers would count as lost.

        What could not be written is counted as `user_write_failed`; then the trace is over and the OutputError raised.
        A writer that is full ends the trace; what it refused is counted as filtered by `max_size`.
        """
        next_counters = 0.0
        rounds = self._raw_rounds(True)
        for found, size in rounds:
            refused = writer.unwritten
            try:
                writer.round(found.meta, [found.slots[:size]])
                if time.monotonic() >= next_counters:
                    next_counters = time.monotonic() + 1.0
                    writer.counters(self.stats, self.sequences())
            except OutputError:
                self._books.take_back(writer.unwritten - refused, self._books.lost, "user_write_failed")
                rounds.close()  # gives the round back, or it would be counted again
                self._finish()
                raise
            if writer.is_full:
                self._books.take_back(writer.unwritten - refused, self._books.filtered, "max_size")
                self._books.is_cut = True
                self.stop()

    def _raw_rounds(self, takes_process_events: bool) -> Generator[tuple[Round, int]]:
        """Drain until the trace is over: rounds, and how many bytes of their slots to take (see max_events)."""
        deadline = self._started + self._duration if self._duration is not None else None
        is_last = False
        while not is_last:
            is_last = self._should_end(deadline)
            if is_last:
                self._stop_tracing()
            found = self._drain.take()
            # What was left is taken at once, what comes is waited for: rounds of few events would cost the traced
            # program and us the more the faster we take them.
            has_all = not (found and self._drain.has_more)
            while found:
                try:
                    yield found, self._enter_books(found, takes_process_events)
                finally:  # also when whoever iterates has seen enough
                    self._drain.give_back(found)
                found = self._drain.take() if is_last else None  # at the end: till nothing is left
            if has_all and not is_last:
                time.sleep(POLL_S)
        self._finish()

    def _enter_books(self, found: Round, takes_process_events: bool) -> int:
        """Count a round as received and written, but for accesses beyond max_events; returns the bytes to take."""
        books, size = self._books, len(found.slots)
        accesses, events = count_accesses(found.slots), count_process_events(found.meta)
        books.received += accesses + events
        if not takes_process_events:
            books.filtered["events"] += events
            events = 0
        if self._max_events is not None:
            room = max(self._max_events - self._taken, 0)
            if accesses > room:
                books.is_cut = True
                books.filtered["max_events"] += accesses - room
                accesses, size = room, size_of_accesses(found.slots, room)
            self._taken += accesses
        books.written += accesses + events
        return size

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
        if self._is_over:
            return
        programs = self._bpf.attached
        self._shared("is_stopping")[0] = 1
        # Calls first, enter before exit: what began is seen to end, and what has not ended is asked for at once.
        for name in (probes.CALL_ENTER, probes.CALL_EXIT):
            self._bpf.detach(name)
        self._bpf.run_iterator(probes.PENDING)
        for name in programs:
            self._bpf.detach(name)
        self._misses = self._bpf.recursion_misses(programs)
        self._ended = time.monotonic()
        self._is_over = True

    def _finish(self) -> None:
        """The run's counters, once and for all. Records that nobody took are drained and counted as lost."""
        if self._final or not self._tally:
            return
        self._stop_tracing()
        while found := self._drain.take():
            abandoned = count_accesses(found.slots) + count_process_events(found.meta)
            self._books.received += abandoned
            self._books.lost["user_abandoned"] += abandoned
            self._books.is_cut = True
            self._drain.give_back(found)
        self._final_sequences = self._books.sequences()
        self._final = self._books.counters(recursion_misses=self._misses, is_complete=True)

    # --- counting

    @property
    def _books(self) -> Tally:
        assert self._tally, "not entered"
        return self._tally

    @property
    def stats(self) -> Counters:
        """The counters so far; after the trace, final."""
        if self._final or not self._tally:
            return self._final or Counters(is_complete=False)
        misses = self._misses if self._is_over else self._bpf.recursion_misses(self._bpf.attached)
        return self._tally.counters(recursion_misses=misses, is_complete=False)

    def sequences(self) -> dict[int, tuple[int, int]]:
        """Per CPU, how many numbers were given out so far: to accesses, to process events.

        Empty when part of the run was left out on purpose: numbers that are missing are then no loss.
        """
        return self._final_sequences if self._final else self._books.sequences()


def _read(path: str) -> str:
    return Path(path).read_text().strip()
