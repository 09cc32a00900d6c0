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
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from flak import __version__, preflight, probes
from flak._records import FOLDED, FORMAT_VERSION, FoldedRecord, Nr, Op
from flak._skeleton import Config
from flak.bpf import BpfObject, Shared
from flak.containers import Names
from flak.drain import Drain, Round
from flak.errors import AttachError, OutputError, UsageError
from flak.events import (
    CLASS_OF_OP,
    VIA,
    Access,
    Batch,
    Check,
    CopyFrom,
    CopyTo,
    Counters,
    Event,
    Link,
    ListDir,
    Mkdir,
    Rename,
    Stat,
    StatFs,
    Tables,
    Truncate,
    Unlink,
)
from flak.filters import Filters, PathPatterns, PathSieve
from flak.folded import FoldedSums
from flak.pending import Pending
from flak.redaction import Redaction, Redactor
from flak.roster import Roster
from flak.selection import Selection
from flak.tally import Tally
from flak.target import Command
from flak.wire import (
    Buffer,
    Decoder,
    cgroups_of,
    container_record,
    count_accesses,
    count_process_events,
    size_of_accesses,
)

POLL_S = 0.005  # idle poll of the rings: 0.9 % of a CPU
META_RING_SIZE = 16 << 20  # a name for every other slot of the access ring
DEFAULT_BUFFER_SIZE = 16 << 20
MAX_BUFFER_SIZE = 1 << 31  # a map's size is a u32, a ring's a power of two


def _ops_of(*classes: type[Event]) -> frozenset[Op]:
    return frozenset(Op(op) for op, cls in CLASS_OF_OP.items() if cls in classes)


EVENT_GROUPS: dict[str, frozenset[Op]] = {
    "read": frozenset({Op.READ, Op.READV, Op.PREAD64, Op.PREADV, Op.PREADV2}),
    "write": frozenset({Op.WRITE, Op.WRITEV, Op.PWRITE64, Op.PWRITEV, Op.PWRITEV2}),
    "open": frozenset({Op.OPEN, Op.OPENAT, Op.OPENAT2, Op.CREAT, Op.DUP, Op.DUP2, Op.DUP3, Op.FCNTL}),
    "close": frozenset({Op.CLOSE, Op.CLOSE_RANGE}),
    "stat": _ops_of(Stat, StatFs, Check),
    "meta": frozenset({Op.LSEEK})
    | _ops_of(Rename, Link, Unlink, Mkdir, Truncate, ListDir)
    | {Op.FSYNC, Op.FDATASYNC, Op.SYNC_FILE_RANGE, Op.READAHEAD, Op.FADVISE64},
    "mmap": frozenset({Op.MMAP, Op.MUNMAP, Op.MREMAP, Op.MADVISE, Op.MSYNC}),
    "fault": frozenset({Op.FAULT}),
    "copy": _ops_of(CopyFrom, CopyTo),
    "io_uring": frozenset(op for op in Op if VIA.get(op >> 8) == "io_uring"),
    "aio": frozenset(op for op in Op if VIA.get(op >> 8) == "aio"),
    "process": frozenset({Op.FORK, Op.EXEC, Op.EXIT}),
}
"""What `events` selects, by the names of the option --events."""


class Taken(NamedTuple):
    """A round as it goes on from here: what is left of its slots, and what was learnt from its meta records."""

    meta: list[Buffer]
    slots: memoryview
    process_events: list[Event]
    notices: list[Access]


class RawWriter(Protocol):
    """What `Session.record` writes to (tracefile.Writer)."""

    is_full: bool
    unwritten: int

    def round(self, meta: Sequence[Buffer], spans: Sequence[Buffer]) -> None: ...

    def counters(self, counters: Counters, sequences: Mapping[int, tuple[int, int]]) -> None: ...


class Session:
    """A trace of those who are selected.

    selection: who is traced, or what is started. filters: which of their accesses are wanted.
    all_files: pipes, sockets and devices too, not only regular files and directories.
    events: names of EVENT_GROUPS to record; None for all, without those of processes where filters leave accesses out.
    latency: False saves the hook at enter. hung: seconds; only what takes so long is wanted, of all files, and what is
    still under way is told by notices (`Batch.notices`).
    buffer_size: bytes of the access ring, rounded up to a power of two.
    redact: "hash", "basename" or "prefix:N": names are replaced before anybody sees them (`redaction.Redactor`).
    duration: stop after so many seconds. max_events: stop after so many accesses.
    user: who a command runs as. stdout: a descriptor for its standard output.

    Raises UsageError at once; TargetError, NotPermitted, NotSupported, LoadError, AttachError when entered.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        filters: Filters | None = None,
        all_files: bool = False,
        events: Collection[str] | None = None,
        latency: bool = True,
        hung: float | None = None,
        redact: str | None = None,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        duration: float | None = None,
        max_events: int | None = None,
        user: str | None = None,
        stdout: int | None = None,
    ) -> None:
        unknown = set(events or ()) - EVENT_GROUPS.keys()
        if unknown:
            raise UsageError(f"no events called {', '.join(sorted(unknown))}", f"there are {', '.join(EVENT_GROUPS)}")
        if buffer_size > MAX_BUFFER_SIZE:
            raise UsageError(f"a buffer of {buffer_size} bytes is too large", f"at most {MAX_BUFFER_SIZE} bytes (2G)")
        self._selection = selection
        self._filters = filters or Filters()
        if hung is not None:  # only what takes so long, and before it returns a notice
            self._filters = replace(self._filters, min_latency_ns=max(self._filters.min_latency_ns, round(hung * 1e9)))
        self._hung = hung
        self._patterns = PathPatterns(self._filters.paths) if self._filters.paths else None
        if self._filters.min_latency_ns and not latency:
            raise UsageError("without durations nothing can be chosen by them", "leave out one of the two")
        self._all_files = all_files or hung is not None  # what a program waits for often is a pipe
        usual = EVENT_GROUPS.keys() - ({"process"} if self._filters.is_any else set())
        self._events = frozenset(usual if events is None else events)
        self._has_latency = latency
        self._redactor = Redactor(Redaction.parse(redact)) if redact is not None else None
        self._buffer_size = 1 << max(buffer_size - 1, mmap.PAGESIZE - 1).bit_length()
        self._duration = duration
        self._max_events = max_events
        self._user = user
        self._stdout = stdout

        self.served: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.decoder = Decoder()
        self.decoder.tables.own_mnt_ns = _inode("/proc/self/ns/mnt")
        # What patterns of paths are matched with: where names are redacted, another decoder has the true ones.
        self._true_names = Decoder() if self._redactor and self._patterns else None
        self._stack = contextlib.ExitStack()
        self._command: Command | None = None
        self._roster = Roster(selection)
        self._containers = Names()
        self._known_cgroups: set[int] = set()
        self._sieve: PathSieve | None = None
        self._tally: Tally | None = None  # from here to _drain: there while the object is loaded
        self._bpf: BpfObject
        self._shared: Shared
        self._drain: Drain
        self._pending: Pending
        self._sums: FoldedSums
        self._is_stopping = False
        self._is_over = False
        self._started = 0.0
        self._ended = 0.0
        self._anchor = (0, 0)
        self._taken = 0  # accesses handed on, while max_events limits them
        self._is_full = False  # and others were left out
        self._misses = 0
        self._refusal: AttachError | None = None  # of the last look at what is under way
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
        self._roster.look_up()
        if self.command:
            # Before the object is loaded: a fork would copy its mappings, and the child must hold none of them.
            self._command = self._stack.enter_context(Command(self.command, user=self._user, stdout=self._stdout))
        hooks = probes.attach(
            Config(
                **self._roster.settings(),
                **self._filters.settings(),
                claim_seed=int.from_bytes(os.urandom(8), "little"),
                page_shift=mmap.PAGESIZE.bit_length() - 1,
                all_files=self._all_files,
                traces_aio="aio" in self._events,
                traces_mappings="mmap" in self._events,
                hung_ns=self._filters.min_latency_ns if self._hung is not None else 0,
            ),
            {"accesses": self._buffer_size, "meta": META_RING_SIZE},
            tables=self._roster.tables(),
            wants_faults="fault" in self._events and not self._filters.failed,
            wants_io_uring="io_uring" in self._events,
            wants_latency=self._has_latency,
            choose_calls=self._wanted_calls,
        )
        self._bpf, self.served, self.missing = hooks.bpf, hooks.served, hooks.missing
        self._stack.callback(self._bpf.close)
        rings = [self._bpf.ring(name) for name in ("accesses", "meta")]
        for ring in rings:
            self._stack.callback(ring.close)
        self._drain = Drain(*rings)
        self._shared = self._stack.enter_context(Shared(self._bpf))
        self._tally = Tally(self._shared["counters"], self._shared["undecoded_opcodes"])
        if self._patterns:
            names = (self._true_names or self.decoder).tables.paths
            self._sieve = PathSieve(self._patterns, names, self._shared["unwanted_paths"])
        self._sums = FoldedSums(self._shared["folded"], self._shared["folded_owners"], self._books.is_losing)
        self._pending = Pending(self._bpf, self._shared, self.decoder, self._hung)
        self._started = time.monotonic()
        self._anchor = (time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())
        self._shared["attached_ns"][0] = self._anchor[0]
        if self._command:
            self._roster.arm(self._bpf, self._shared, self._command.pid)
            self._command.release()
        else:
            self._roster.adopt(self._bpf, self._shared)
            self._list_open()

    def _list_open(self) -> None:
        """Records of what the targets have open and mapped already, unless the whole machine is traced."""
        if not self._selection.is_narrow:
            return
        if "open" in self._events:
            self._bpf.run_iterator(probes.OPEN_FILES)
        if "mmap" in self._events:
            self._bpf.run_iterator(probes.MAPPINGS)

    def _wanted_calls(self, op_of_nr: bytes) -> bytes:
        """The table of calls without those nobody asked for. Entries that are no operation (renames) stay."""
        unwanted: dict[int, int] = {
            op: 0 for name, ops in EVENT_GROUPS.items() if name not in self._events for op in ops
        }
        # Who renames what makes names stale, asked for or not.
        renames = {op: Nr.RENAMES for op in unwanted if CLASS_OF_OP.get(op) is Rename}
        return bytes({**unwanted, **renames}.get(op, op) for op in op_of_nr)

    # --- what is traced

    @property
    def description(self) -> str:
        """What is traced, in words: "pid 4242 (python) + children"."""
        return self._roster.description

    @property
    def awaits(self) -> bool:
        """A cgroup or container that was chosen is not there yet."""
        return self._roster.awaits

    @property
    def command(self) -> tuple[str, ...]:
        """The command that is traced; empty where there is none."""
        return self._selection.command

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
        entries = {
            "flak": __version__,
            "format": FORMAT_VERSION,
            "host": socket.gethostname(),
            "boot_id": _read("/proc/sys/kernel/random/boot_id"),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "page_size": mmap.PAGESIZE,
            "command_line": sys.argv,
            "mnt_ns": self.tables.own_mnt_ns,
            "selectors": self._selection.as_dict(),
            "cgroups": self._roster.cgroups,
            "filters": self._filters.as_dict(),
            "events": sorted(self._events),
            "has_latency": self._has_latency,
            "all_files": self._all_files,
            "description": self.description,
            "hooks": self.served,
            "missing": self.missing,
            "findings": preflight.summary(),
            "clock_anchors": [{"boot_ns": self._anchor[0], "realtime_ns": self._anchor[1]}],
            "ring_size": self._buffer_size,
            "redact": self._redactor and self._redactor.redaction.text,
        }
        return self._redactor.header(entries, self._selection) if self._redactor else entries

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
        for taken in self._raw_rounds("process" in self._events):
            yield Batch(bytes(taken.slots), taken.process_events, taken.notices, self.decoder.take_folded())

    def decode(self, batch: Batch) -> list[Event]:
        """The events of a round, without those of processes when nobody asked for them; behind them what hangs."""
        events = [*self.decoder.decode(batch), *batch.notices, *batch.folded]
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
        rounds = self._raw_rounds(True, learns=self._sieve is not None)
        for taken in rounds:
            refused = writer.unwritten
            try:
                writer.round(taken.meta, [taken.slots])
                if time.monotonic() >= next_counters:
                    next_counters = time.monotonic() + 1.0
                    writer.counters(self.stats, self.sequences())
            except OutputError:
                self._books.take_back(writer.unwritten - refused, self._books.lost, "user_write_failed")
                rounds.close()  # gives the round back, or it would be counted again
                with contextlib.suppress(AttachError):
                    self._finish()
                raise
            if writer.is_full:
                self._books.take_back(writer.unwritten - refused, self._books.filtered, "max_size")
                self._books.is_cut = True
                self.stop()

    def _raw_rounds(self, takes_process_events: bool, *, learns: bool = True) -> Generator[Taken]:
        """Drain until the trace is over. learns: names and process events are wanted, not only the bytes."""
        deadline = self._started + self._duration if self._duration is not None else None
        is_last = False
        while not is_last:
            is_last = self._should_end(deadline)
            if is_last:
                self._stop_tracing()
            hung = b"" if is_last else self._pending.look()
            sums = self._sums.news(is_last=is_last)  # before the round, which brings the names that these refer to
            found = self._drain.take()
            # What was left is taken at once, what comes is waited for: rounds of few events would cost the traced
            # program and us the more the faster we take them.
            has_all = not (found and self._drain.has_more)
            while found:
                taken = self._enter_books(found, takes_process_events, learns)
                try:
                    yield taken
                finally:  # also when whoever iterates has seen enough
                    taken.slots.release()
                    self._drain.give_back(found)
                found = self._drain.take() if is_last else None  # at the end: till nothing is left
            if lost := self._records_of(sums):
                if learns:
                    self.decoder.learn(b"".join(lost))
                yield Taken([*lost], memoryview(b""), [], [])
            notices = self._pending.notices(hung) if hung else []
            if wanted := [n for n in notices if not self._sieve or self._sieve.wants(n.path_id)]:
                yield Taken([], memoryview(b""), [], wanted)
            if has_all and not is_last:
                time.sleep(POLL_S)
        self._finish()

    def _enter_books(self, found: Round, takes_process_events: bool, learns: bool) -> Taken:
        """Count a round as received and written, but for what is filtered here; returns what is left of it."""
        books, slots = self._books, found.slots
        accesses, events = count_accesses(slots), count_process_events(found.meta)
        books.received += accesses + events
        meta: list[Buffer] = list(self._name_containers(found.meta))
        meta += found.meta
        if self._redactor:
            if self._true_names:
                self._true_names.learn(b"".join(meta))
            meta = self._redactor.records(meta)
        process_events = self.decoder.learn(b"".join(meta)) if learns else []
        if not takes_process_events:
            books.filtered["events"] += events
            events = 0
        if self._sieve:
            slots, put_aside = self._sieve.sift(slots)
            books.filtered["path"] += put_aside
            accesses -= put_aside
        if self._max_events is not None:
            accesses, slots = self._within_limit(accesses, slots, self._max_events)
        books.written += accesses + events
        return Taken(meta, slots, process_events, [])

    def _records_of(self, sums: Sequence[FoldedRecord]) -> list[bytes]:
        """What has been added to the sums of lost accesses, but for paths that nobody asked for."""
        return [FOLDED.pack(*record) for record in sums if not self._sieve or self._sieve.wants(record.path_id)]

    def _within_limit(self, accesses: int, slots: memoryview, limit: int) -> tuple[int, memoryview]:
        """What of a round may still be handed on, and how many accesses that are."""
        room = 0 if self._is_full else limit - self._taken
        if accesses > room or self._is_full:
            self._books.filtered["max_events"] += accesses - room
            # Once something was left out nothing may follow, be it empty slots: it would stand behind a gap.
            slots = slots[: 0 if self._is_full else size_of_accesses(slots, room)]
            self._is_full = self._books.is_cut = True
            accesses = room
        self._taken += accesses
        return accesses, slots

    def _name_containers(self, meta: Sequence[Buffer]) -> list[bytes]:
        """Records of the containers that come up for the first time, by their cgroups."""
        found = []
        for cgroup_id, pid in cgroups_of(meta):
            # One without a name is asked for again: it may not have been looked for yet, lest that be done too often.
            if cgroup_id not in self._known_cgroups and (name := self._containers.name_of(cgroup_id, pid)):
                self._known_cgroups.add(cgroup_id)
                found.append(container_record(cgroup_id, name))
        return found

    def _should_end(self, deadline: float | None) -> bool:
        if self._is_stopping or (deadline is not None and time.monotonic() >= deadline):
            return True
        if self._max_events is not None and self._taken >= self._max_events:
            return True
        if self._command and self._command.poll() is not None and self._roster.is_armed:
            return True  # it never got as far as its exec
        return self._roster.is_exhausted()

    def _stop_tracing(self) -> None:
        """Hooks off; calls that have not returned become records."""
        if self._is_over:
            return
        programs = self._bpf.attached
        self._shared["is_stopping"][0] = 1
        # First what sees beginnings. What began is recorded once: where it ends, or by iterators of what is under way.
        for name in (probes.CALL_ENTER, *probes.SUBMISSIONS):
            self._bpf.detach(name)
        try:
            self._pending.finish()
        except AttachError as error:
            self._refusal = error  # first what the rings hold is drained
        for name in programs:
            self._bpf.detach(name)
        self._misses = self._bpf.recursion_misses(programs)
        self._ended = time.monotonic()
        self._is_over = True

    def _finish(self) -> None:
        """The run's counters, once and for all. Records that nobody took are drained and counted as lost.

        Raises AttachError, at its end, where the kernel did not let FLAK look at what is under way.
        """
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
        if self._refusal:
            raise self._refusal

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


def _inode(path: str) -> int:
    return Path(path).stat().st_ino


def _read(path: str) -> str:
    return Path(path).read_text().strip()
