"""Recordings: `.flak` files, written while tracing and read as a source of events.

`Writer` takes a session's rounds as they lie in the rings; `Recording` gives them back through the decoder that live
sessions use. However the writing ended, what is there can be read; docs/format.md says what is in it byte by byte.
Reading trusts nothing: every length is bounded, and nothing but TraceFileError is raised.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self

from flak._records import FORMAT_VERSION, LAYOUTS, SLOT_SIZE, Mark, Op
from flak.errors import OutputError, TraceFileError
from flak.events import Batch, Counters, Event, Lost, Tables, as_dict
from flak.text import counted
from flak.wire import Buffer, Decoder, count_accesses, count_process_events, is_operands

__all__ = ["Chunk", "Recording", "Writer", "open_recording"]

MAGIC = b"FLAK\0"
MAX_JSON = 16 << 20
MAX_CHUNK = 256 << 20

# Header and chunks are frames: 12 bytes of head, the CRC-32 of head and payload, the payload, zeros up to a multiple of
# 8. The alignment is for readers that look at slots in place.
_PREAMBLE = struct.Struct("<5sxHI")  # magic, format version, bytes of JSON
_HEAD = struct.Struct("<III")  # type, 0, bytes of payload
_CRC = struct.Struct("<I")
_LENGTH_AND_CRC = struct.Struct("<II")
_FRAME_SIZE = _HEAD.size + _CRC.size
_END_AT = struct.Struct("<Q")

_IOV_MAX = 1024  # buffers that the kernel takes in one call (UIO_MAXIOV)


class Chunk(IntEnum):
    """What a chunk holds. Numbers are never reused; readers skip those they don't know."""

    SLOTS = 1
    META = 2
    COUNTERS = 3
    END = 4
    END_AT = 5


_READ_CHUNKS = (Chunk.SLOTS, Chunk.META, Chunk.COUNTERS, Chunk.END)


class Writer:
    """A recording in the making: one `round` after another, `counters` now and then, `close` with the final ones.

    path: a file to be made, mode 0600. One that exists is refused, or with `force` replaced as soon as the new one has
        its header; a symbolic link is replaced, not followed.
    header: what the run says about itself, as JSON; the entries that describe the format are added.
    max_size: bytes at which rounds are refused; the footer of a few KiB comes on top.

    `size` is bytes written, `is_full` says that `max_size` refused a round, `unwritten` counts the accesses and process
    events of rounds that were refused or could not be written.

    Raises OutputError when the file cannot be made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        force: bool = False,
        max_size: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.size = 0
        self.is_full = False
        self.unwritten = 0
        self._max_size = max_size
        self._has_failed = False
        described = _json_of({**header, **_format_entries()})
        preamble = _frame(_PREAMBLE.pack(MAGIC, FORMAT_VERSION, len(described)), described)
        try:
            self._fd = _create(self.path, preamble, force=force)
        except FileExistsError:
            raise OutputError(f"{self.path} exists already", "--force replaces it") from None
        except OSError as error:
            raise OutputError(f"cannot create {self.path}: {error.strerror}") from None
        self.size = _length(preamble)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def round(self, meta: Sequence[Buffer], spans: Sequence[Buffer]) -> None:
        """Write what one drain brought: payloads of the meta ring and spans of the access ring, each of whole accesses.

        Spans are written from where they lie. Raises OutputError when that fails: the round is taken out again, and
        later ones are only counted.
        """
        chunks = _chunk(Chunk.META, b"".join(meta)) if meta else []
        for span in spans or [b""]:  # a round ends with slots, be it none
            for piece in _pieces(span):
                chunks += _chunk(Chunk.SLOTS, piece)
        if not self._has_room_for(chunks):
            self._count_unwritten(meta, spans)
            return
        try:
            self._append(chunks)
        except OutputError:
            self._count_unwritten(meta, spans)
            raise

    def counters(
        self,
        counters: Counters,
        sequences: Mapping[int, tuple[int, int]],
        *,
        anchor: Mapping[str, int] | None = None,
    ) -> None:
        """Write the counters so far: what is known of a recording that is never closed.

        sequences: CPU → how many accesses and how many process events were numbered there. anchor: `boot_ns` and
        `realtime_ns` of one moment, by default now. Raises OutputError as `round` does.
        """
        chunk = _chunk(Chunk.COUNTERS, _counters_json(counters, sequences, anchor))
        if self._has_room_for(chunk):
            self._append(chunk)

    def close(
        self,
        counters: Counters | None = None,
        sequences: Mapping[int, tuple[int, int]] | None = None,
        *,
        ended: str = "",
        anchor: Mapping[str, int] | None = None,
    ) -> None:
        """End the recording: footer, if there are counters, and fsync. May be called twice.

        `ended` says in words how the run ended; the rest is as in `counters`. Raises OutputError, unless a write has
        failed before: then the footer is written if room can be had.
        """
        if self._fd < 0:
            return
        had_failed = self._has_failed
        try:
            if counters is not None:
                footer = _chunk(Chunk.END, _counters_json(counters, sequences or {}, anchor, ended=ended))
                self._append(footer + _chunk(Chunk.END_AT, _END_AT.pack(self.size)))
            os.ftruncate(self._fd, self.size)  # a signal's exception may have cut a round short
            os.fsync(self._fd)
        except OutputError:
            if not had_failed:
                raise
        except OSError as error:
            if not had_failed:
                raise self._error(error) from None
        finally:
            with suppress(OSError):  # fsync has said it
                os.close(self._fd)
            self._fd = -1

    def _has_room_for(self, chunks: Sequence[Buffer]) -> bool:
        if self._max_size is not None and self.size + _length(chunks) > self._max_size:
            self.is_full = True
        return not (self.is_full or self._has_failed)

    def _append(self, chunks: Sequence[Buffer]) -> None:
        try:
            _write_all(self._fd, chunks, self.size)
        except OSError as error:
            self._has_failed = True
            with suppress(OSError):  # a chunk cut short is useless, and the footer may need its room
                os.ftruncate(self._fd, self.size)
            raise self._error(error) from None
        self.size += _length(chunks)

    def _error(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.path}: {error.strerror}; it holds what came before",
            "make room there, or bound the recording with --max-size",
        )

    def _count_unwritten(self, meta: Sequence[Buffer], spans: Sequence[Buffer]) -> None:
        self.unwritten += sum(map(count_accesses, spans)) + count_process_events(meta)


def _create(path: Path, preamble: Sequence[Buffer], *, force: bool) -> int:
    """A new file with its header; its descriptor. Raises OSError, and OutputError for what must not be replaced."""
    if force:
        if not _is_replaceable(path):
            raise OutputError(f"{path} is not a file, so --force does not replace it")
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=".flak-")
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd, name = os.open(path, flags, 0o600), os.fspath(path)
    try:
        _write_all(fd, preamble, 0)
        if force:
            Path(name).rename(path)
    except BaseException:
        os.close(fd)
        Path(name).unlink()
        raise
    return fd


def _is_replaceable(path: Path) -> bool:
    """A file or symbolic link, or nothing yet: root's --force must not replace /dev/null."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _write_all(fd: int, buffers: Sequence[Buffer], at: int) -> None:
    """Write everything from byte `at` on, however many calls it takes. Keeps no view of the buffers."""
    pending = [memoryview(buffer) for buffer in buffers]
    try:
        while pending:
            written = os.pwritev(fd, pending[:_IOV_MAX], at)
            at += written
            while pending and written >= len(pending[0]):
                written -= len(pending[0])
                pending.pop(0).release()
            if written:
                pending[0] = pending[0][written:]
    finally:
        for view in pending:  # an exception's traceback would keep them, and with them the ring's mapping
            view.release()


def _pieces(span: Buffer) -> Iterator[Buffer]:
    """A span in pieces that fit a chunk, each of whole accesses."""
    while len(span) > MAX_CHUNK:
        cut = MAX_CHUNK - MAX_CHUNK % SLOT_SIZE
        if is_operands(span[cut : cut + SLOT_SIZE]):
            cut -= SLOT_SIZE
        yield span[:cut]
        span = span[cut:]
    yield span


def _chunk(kind: Chunk, payload: Buffer) -> list[Buffer]:
    return _frame(_HEAD.pack(kind, 0, len(payload)), payload)


def _frame(head: bytes, payload: Buffer) -> list[Buffer]:
    return [head + _CRC.pack(_crc(head, payload)), payload, bytes(_padding(len(payload)))]


def _crc(head: bytes, payload: Buffer) -> int:
    return zlib.crc32(payload, zlib.crc32(head))


def _padding(length: int) -> int:
    return -length % 8


def _length(buffers: Sequence[Buffer]) -> int:
    return sum(map(len, buffers))


def _json_of(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _format_entries() -> dict[str, Any]:
    """What the header says for readers that have no flak.h."""
    return {
        "format": FORMAT_VERSION,
        "slot_size": SLOT_SIZE,
        "layouts": LAYOUTS,
        "ops": {op.name.lower(): int(op) for op in Op},
        "marks": {str(mark.name).lower(): int(mark) for mark in Mark},
    }


def _counters_json(
    counters: Counters,
    sequences: Mapping[int, tuple[int, int]],
    anchor: Mapping[str, int] | None,
    **more: str,
) -> bytes:
    now = {"boot_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "realtime_ns": time.time_ns()}
    return _json_of({"counters": as_dict(counters), "sequences": sequences, "clock": anchor or now, **more})


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """The recording at `path`. Raises TraceFileError when that is none, or one that cannot be read."""
    return Recording(path)


class _Damage(TraceFileError):
    """A frame that is cut short or does not fit its checksum."""


class _Frame(NamedTuple):
    """A frame as read: its head, where its payload lies in the file, the payload."""

    head: bytes
    at: int
    payload: bytes

    @property
    def kind(self) -> int:
        """A `Chunk`, or a number this version does not know."""
        return int(_HEAD.unpack(self.head)[0])

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.at + len(self.payload) + _padding(len(self.payload))


class _Known(NamedTuple):
    """What a COUNTERS or END chunk says."""

    entries: dict[str, Any]
    counters: Counters
    sequences: dict[int, tuple[int, int]]


class Recording:
    """A recording as a source of events: a context manager to be iterated, as often as one likes.

    header: what the run said about itself (docs/format.md).
    tables: what the ids stand for, as far as it has been read.
    decoder: that of the present reading.
    warnings: what the last reading found wrong, in words.

    Raises TraceFileError, here and while it is read. What is damaged after the header only ends the reading.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.tables = Tables()
        self.decoder = Decoder(self.tables)
        self.warnings: list[str] = []
        self._file = _open(self.path)
        try:
            self.header, self._start = self._read_header()
            mnt_ns = self.header.get("mnt_ns")
            self.tables.own_mnt_ns = mnt_ns if isinstance(mnt_ns, int) else 0
            self._footer = self._find_footer()
        except BaseException:
            self.close()
            raise
        self._is_complete = self._footer is not None
        self._stats = self._footer.counters if self._footer else Counters(is_complete=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()

    @property
    def is_complete(self) -> bool:
        """It was closed, and has been whole as far as it was read."""
        return self._is_complete

    @property
    def stats(self) -> Counters:
        """The run's counters; of an incomplete recording the last it holds, with what has been read of it."""
        return self._stats

    @property
    def footer(self) -> dict[str, Any]:
        """What the run said when it ended (docs/format.md); empty when it has not."""
        return self._footer.entries if self._footer else {}

    @property
    def anchor(self) -> tuple[int, int]:
        """One moment as (CLOCK_BOOTTIME, CLOCK_REALTIME), in ns. Raises TraceFileError when the header has none."""
        try:
            first = self.header["clock_anchors"][0]
            return _count_of(first["boot_ns"]), _count_of(first["realtime_ns"])
        except (LookupError, TypeError, ValueError):
            raise TraceFileError(f"the header of {self.path} has no clock anchor") from None

    def __iter__(self) -> Iterator[Event]:
        """Every event, round by round, losses where they happened, the counters last."""
        for batch in self.batches():
            yield from self.decoder.decode(batch)
            yield from batch.folded
        yield from self.tail()
        yield self.stats

    def tail(self) -> list[Lost]:
        """Once all batches are decoded: losses not told yet. Those after the last record only a footer knows."""
        return self.decoder.tail(self._footer.sequences if self._footer and self._is_complete else {})

    def batches(self) -> Iterator[Batch]:
        """Every round, undecoded. `tables` and `decoder` learn as it goes; each call begins anew."""
        self.decoder = decoder = Decoder(self.tables)
        self.warnings = []
        process_events: list[Event] = []
        received = 0
        last: _Known | None = None
        has_ended = False
        for frame in self._chunks():
            if frame.kind == Chunk.META:
                process_events += self._learn(decoder, frame)
            elif frame.kind == Chunk.SLOTS:
                received += self._count(frame) + len(process_events)
                yield Batch(frame.payload, process_events, folded=decoder.take_folded())
                process_events = []
            else:
                last = self._known(frame)
                has_ended = frame.kind == Chunk.END
        folded = decoder.take_folded()
        if process_events or folded:  # cut short within a round
            received += len(process_events)
            yield Batch(b"", process_events, folded=folded)
        if decoder.unknown_records:
            self.warnings.append(f"skipped, of unknown kind: {counted(decoder.unknown_records, 'record')}")
        self._conclude(last, received, has_ended)

    def _learn(self, decoder: Decoder, frame: _Frame) -> list[Event]:
        try:
            return decoder.learn(frame.payload, frame.at)
        except TraceFileError as error:
            raise TraceFileError(f"{self.path} is {error.message}") from None

    def _count(self, frame: _Frame) -> int:
        if len(frame.payload) % SLOT_SIZE:
            raise TraceFileError(f"{self.path} is damaged at byte {frame.at}: slots are not whole")
        return count_accesses(frame.payload)

    def _conclude(self, last: _Known | None, received: int, has_ended: bool) -> None:
        """Take in how the reading went."""
        self._is_complete = has_ended
        if has_ended and last:
            self._footer = last
            self._stats = last.counters
            if received != last.counters.written:
                self.warnings.append(
                    f"the footer counts {counted(last.counters.written, 'event')}, the file holds {received}"
                )
            return
        known = self._footer or last
        self._stats = _estimate(known.counters if known else Counters(), received)

    def _chunks(self) -> Iterator[_Frame]:
        """Chunks of known types up to END, or up to where the file is cut short or damaged, which becomes a warning."""
        at, size, unknown = self._start, self._size(), 0
        kind = 0
        try:
            while kind != Chunk.END:
                frame = self._frame_at(at, size, MAX_CHUNK)
                at, kind = frame.end, frame.kind
                if kind in _READ_CHUNKS:
                    yield frame
                else:
                    unknown += 1
        except _Damage as damage:
            self.warnings.append(damage.message)
        if unknown:
            self.warnings.append(f"skipped, of unknown type: {counted(unknown, 'chunk')}")

    def _read_header(self) -> tuple[dict[str, Any], int]:
        """The header, and where the chunks begin."""
        start = self._read(_PREAMBLE.size, 0)
        if len(start) < _PREAMBLE.size or not start.startswith(MAGIC):
            raise TraceFileError(f"{self.path} is not a recording", "flak record makes them")
        version = _PREAMBLE.unpack(start)[1]
        if version != FORMAT_VERSION:
            raise TraceFileError(
                f"{self.path} is of format {version}, this flak reads format {FORMAT_VERSION}",
                f"use {'a newer' if version > FORMAT_VERSION else 'an older'} flak",
            )
        frame = self._frame_at(0, self._size(), MAX_JSON)
        return self._json(frame), frame.end

    def _find_footer(self) -> _Known | None:
        """The footer, by the last chunk of a closed file; None when there is none."""
        size = self._size()
        with suppress(_Damage):
            pointer = self._frame_at(size - _FRAME_SIZE - _END_AT.size, size, _END_AT.size)
            if pointer.kind == Chunk.END_AT and len(pointer.payload) == _END_AT.size:
                footer = self._frame_at(_END_AT.unpack(pointer.payload)[0], size, MAX_CHUNK)
                if footer.kind == Chunk.END:
                    return self._known(footer)
        return None

    def _known(self, frame: _Frame) -> _Known:
        entries = self._json(frame)
        try:
            return _Known(entries, _counters_from(entries["counters"]), _sequences_from(entries["sequences"]))
        except (LookupError, TypeError, ValueError, AttributeError):
            raise TraceFileError(f"{self.path} is damaged at byte {frame.at}: these are no counters") from None

    def _json(self, frame: _Frame) -> dict[str, Any]:
        try:
            value = json.loads(frame.payload) if len(frame.payload) <= MAX_JSON else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise TraceFileError(f"{self.path} is damaged at byte {frame.at}: not a JSON object")
        return value

    def _frame_at(self, at: int, size: int, limit: int) -> _Frame:
        """The frame at byte `at` of a file of `size` bytes, its payload at most `limit`. Raises _Damage."""
        head = self._read(_FRAME_SIZE, at) if 0 <= at < size else b""
        if not head:
            raise _Damage(f"{self.path} was never closed: it ends without a footer")
        if len(head) < _FRAME_SIZE:
            raise _Damage(f"{self.path} is cut short at byte {size}")
        length, crc = _LENGTH_AND_CRC.unpack_from(head, _HEAD.size - 4)
        start, at = at, at + _FRAME_SIZE
        if length > limit:
            raise _Damage(f"{self.path} is damaged at byte {start}: no chunk has {length} bytes")
        if at + length > size:
            raise _Damage(f"{self.path} is cut short at byte {size}: the chunk there began at byte {start}")
        frame = _Frame(head[: _HEAD.size], at, self._read(length, at))
        if _crc(frame.head, frame.payload) != crc:
            raise _Damage(f"{self.path} is damaged at byte {start}: the chunk there does not fit its checksum")
        return frame

    def _read(self, length: int, at: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), length, at)
        except (OSError, ValueError) as error:
            raise TraceFileError(f"cannot read {self.path}: {error}") from None

    def _size(self) -> int:
        try:
            return os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise TraceFileError(f"cannot read {self.path}: {error}") from None


def _open(path: Path) -> FileIO:
    try:
        file = FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # a FIFO would wait
    except OSError as error:
        raise TraceFileError(f"cannot open {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise TraceFileError(f"{path} is not a file")
    return file


def _counters_from(entries: Mapping[str, Any]) -> Counters:
    """Raises LookupError, TypeError, ValueError or AttributeError when they are none."""

    def by_name(word: str) -> dict[str, int]:
        counts = {name: _count_of(n) for name, n in entries[word].items()}
        if not all(name.isidentifier() and name.isascii() for name in counts):
            raise ValueError("no name of a counter")
        return counts

    return Counters(
        matched=_count_of(entries["matched"]),
        submitted=_count_of(entries["submitted"]),
        received=_count_of(entries["received"]),
        written=_count_of(entries["written"]),
        lost=by_name("lost"),
        filtered=by_name("filtered"),
        not_decoded=by_name("not_decoded"),
        excluded_self=_count_of(entries["excluded_self"]),
        recursion_misses=_count_of(entries["recursion_misses"]),
        folded=_count_of(entries["folded"]),
    )


def _sequences_from(entries: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """Raises as `_counters_from` does."""
    return {int(cpu): (_count_of(accesses), _count_of(events)) for cpu, (accesses, events) in entries.items()}


def _count_of(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:  # true is no count
        raise ValueError(f"not a count: {value!r}")
    return value


def _estimate(known: Counters, received: int) -> Counters:
    """Counters of a recording that lacks its end: the last it had, made to fit what it holds."""
    in_kernel = sum(n for cause, n in known.lost.items() if not cause.startswith("user_"))
    submitted = max(known.submitted, received)
    return replace(
        known,
        matched=max(known.matched, submitted + in_kernel),
        submitted=submitted,
        received=received,
        written=received,
        is_complete=False,
    )
