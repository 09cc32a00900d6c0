"""Recordings: what is written is read back, however the writing ended and whatever happened to the bytes."""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import builders
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flak import _records as r
from flak import tracefile
from flak.errors import OutputError, TraceFileError
from flak.events import Counters, Event, Folded, Lost, as_dict
from flak.tracefile import Chunk, Recording, Writer, open_recording

GOLDEN = Path(__file__).parents[1] / "data" / "golden.flak"
ANCHOR = {"boot_ns": 1, "realtime_ns": 2}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a recording may be made."""
    return tmp_path / "run.flak"


@pytest.fixture
def recording(path: Path) -> Path:
    """A closed recording with something of everything."""
    builders.golden(path)
    return path


def reads(count: int, *, seq: int = 0) -> bytes:
    """A span of one-slot accesses."""
    return b"".join(builders.read(n * 4096, seq=n, ts_ns=builders.START_NS + n) for n in range(seq, seq + count))


def counted(n: int, **more: Any) -> Counters:
    """Counters of a run of which nothing was lost."""
    return Counters(matched=n, submitted=n, received=n, written=n, **more)


def chunk(kind: int, payload: bytes) -> bytes:
    """A chunk, made without tracefile's help."""
    head = struct.pack("<III", kind, 0, len(payload))
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload + bytes(-len(payload) % 8)


def chunks_of(data: bytes) -> list[tuple[int, int, int]]:
    """(type, first byte, first byte after it) of each chunk of a sound recording, the header as type 0."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<I4xI", data, at)
        end = at + 16 + length + -length % 8
        found.append((kind if at else 0, at, end))
        at = end
    return found


def everything(path: Path) -> tuple[list[Event], Recording]:
    """All events and the closed recording."""
    with open_recording(path) as recording:
        return list(recording), recording


# --- there and back


def test_a_run_comes_back(path: Path) -> None:
    stream = builders.Stream()
    stream.know(builders.task(), builders.name())
    stream.happen(builders.exec_)
    for n in range(3):
        stream.add(builders.read, n * 4096)
    stream.add(builders.open_, cpu=1)
    with Writer(path, builders.HEADER) as writer:
        meta, slots = stream.round()
        writer.round(meta, [memoryview(slots)])
        stream.happen(builders.exit_)
        writer.round(stream.round()[0], [])
        stream.add(builders.write)
        writer.round([], [stream.round()[1]])
        writer.close(counted(7), stream.sequences, ended="as it should")
    assert writer.size == path.stat().st_size

    with flak_open(path) as recording:
        assert recording.is_complete
        assert recording.stats == counted(7)
        assert recording.footer["ended"] == "as it should"
        events = list(recording)
        assert [e.op for e in events] == [
            "exec", "pread64", "pread64", "pread64", "openat", "exit", "pwrite64", "counters",
        ]  # fmt: skip
        assert events[-1] == recording.stats
        assert {e.path for e in events[:5]} == {"/data/a"}
        assert events[0].comm == "worker"
        assert recording.warnings == []
        assert [as_dict(e) for e in recording] == [as_dict(e) for e in events], "reading again gives the same"


def flak_open(path: Path) -> Recording:
    """As users do it."""
    import flak

    return flak.open(path)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=6))
def test_rounds_come_back_as_they_were(tmp_path: Path, rounds: list[tuple[int, int]]) -> None:
    path = tmp_path / "run.flak"
    stream = builders.Stream()
    written = []
    with Writer(path, {}, force=True) as writer:
        for accesses, forks in rounds:
            for _ in range(forks):
                stream.happen(builders.fork)
            for n in range(accesses):
                stream.add(builders.open_ if n % 3 else builders.read)
            meta, slots = stream.round()
            writer.round(meta, [slots])
            written.append((slots, forks))
        writer.close(counted(sum(map(sum, rounds))), stream.sequences)
    with Recording(path) as recording:
        assert [(b.slots, len(b.process_events)) for b in recording.batches()] == written
        assert recording.warnings == []


def test_batches_feed_tables_and_decoder(recording: Path) -> None:
    with Recording(recording) as source:
        events = [e for batch in source.batches() for e in [*source.decoder.decode(batch), *batch.folded]]
        events += source.tail()
        assert [*events, source.stats] == list(source)
        assert source.tables.paths[1].path == "/data/a"


def test_the_header_describes_run_and_format(recording: Path) -> None:
    with Recording(recording) as source:
        header = source.header
    assert builders.HEADER.items() <= header.items()
    assert header["format"] == r.FORMAT_VERSION
    assert header["slot_size"] == 72
    assert header["ops"]["pread64"] == r.Op.PREAD64
    assert header["marks"]["offset_shared"] == r.Mark.OFFSET_SHARED
    assert header["layouts"]["flak_access"][1][9] == ["seq", 52, 4]
    assert source.anchor == (builders.START_NS, 1_750_000_000_000_000_000)


def test_a_header_without_clock_says_so(path: Path) -> None:
    Writer(path, {"clock_anchors": [{"boot_ns": "soon"}]}).close()
    with Recording(path) as source, pytest.raises(TraceFileError, match="no clock anchor"):
        _ = source.anchor


def test_names_of_any_bytes_in_the_header_come_back(path: Path) -> None:
    argv = ["cat", os.fsdecode(b"\xff\n\x1b")]
    Writer(path, {"command_line": argv}).close()
    with Recording(path) as source:
        assert source.header["command_line"] == argv


def test_a_loss_at_the_end_is_known_from_the_footer(path: Path) -> None:
    with Writer(path, {}) as writer:
        writer.round([], [reads(2)])
        writer.close(Counters(matched=9, submitted=2, received=2, written=2, lost={"ring_full": 7}), {0: (9, 0)})
    events, _ = everything(path)
    assert events[2:-1] == [Lost(builders.START_NS + 1, 0, 2, 7, "ring_full")]
    assert events[-1].is_exact


def test_spans_are_written_from_a_ring_and_not_kept(path: Path) -> None:
    ring = mmap.mmap(-1, 1 << 16)
    ring[: 72 * 5] = reads(5)
    with Writer(path, {}) as writer:
        span = memoryview(ring)[: 72 * 5]
        writer.round([], [span])
        span.release()
        ring.close()  # BufferError if a view were left
        writer.close(counted(5))
    assert len(everything(path)[0]) == 6


def test_a_span_longer_than_a_chunk_is_cut_between_accesses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracefile, "MAX_CHUNK", 72 * 4 + 5)
    span = reads(3) + b"".join(builders.open_(seq=n) for n in range(3, 9)) + reads(2, seq=9)
    with Writer(path, {}) as writer:
        writer.round([builders.fork()], [span])
        writer.close(counted(12))
    with Recording(path) as source:
        batches = list(source.batches())
        assert b"".join(b.slots for b in batches) == span
        assert max(len(b.slots) for b in batches) <= 72 * 4
        assert [len(b.process_events) for b in batches][:2] == [1, 0]
        assert [e.new_fd for e in source if e.op == "openat"] == [3] * 6


def test_many_buffers_fit(path: Path) -> None:
    with Writer(path, {}) as writer:
        writer.round([builders.fork(seq=n) for n in range(3000)], [reads(1, seq=n) for n in range(2000)])
        writer.close(counted(5000))
    assert len(everything(path)[0]) == 5001


def test_a_recording_is_readable_while_it_is_made(path: Path) -> None:
    with Writer(path, {}) as writer:
        for n in range(3):
            writer.round([], [reads(10, seq=10 * n)])
            assert len(everything(path)[0]) == 10 * (n + 1) + 1


def test_closing_twice_is_harmless(path: Path) -> None:
    writer = Writer(path, {})
    writer.close(counted(0))
    size = path.stat().st_size
    writer.close(counted(0))
    writer.__exit__()
    assert path.stat().st_size == size


def test_a_reader_closed_twice_and_read_after_says_so(recording: Path) -> None:
    source = Recording(recording)
    source.close()
    source.close()
    with pytest.raises(TraceFileError, match="cannot read"):
        list(source)


# --- the golden recording


def test_the_golden_recording_is_still_read() -> None:
    events, source = everything(GOLDEN)
    assert source.is_complete and source.warnings == [] and source.stats.is_exact
    assert [e.op for e in events] == [
        "exec", "openat", *["pread64"] * 6, "pwrite64", "pwrite64", "openat", "lseek", "dup",
        "mmap", "fault", "fault", "lost", "pread64", "read", "op_0x37f", "fork", "exit", "folded", "lost", "lost",
        "counters",
    ]  # fmt: skip
    assert [e.path for e in events[8:11]] == ["/data/link-to-a", "/data/a", "/data/a/../missing"]
    assert events[10].claimed_path == "../missing"
    assert [e.file_id for e in events[8:11]] == [1, 1, None]
    assert events[8].marks == ("offset_shared",)
    assert (events[9].file_offset, events[9].arg_offset) == (4196, 0)
    assert events[11].arg_offset == 0
    assert events[13].path == "/data/new\\nline\\xff"
    assert events[15].is_write and events[15].is_major and events[15].page_count is None
    assert events[17].comm == "evil\\x1b[2J\\xff" and events[17].ns_pid == 2 and events[17].container == "web"
    shown = [source.tables.shown_path(source.tables.paths[path_id]) for path_id in (1, 6)]
    assert shown == ["/data/a", "web:/data/new\\nline\\xff"]
    assert events[18].marks == ("unfinished",) and events[18].path == "pipe:[1004]"
    assert {(e.cpu, e.count, e.cause) for e in events if isinstance(e, Lost)} == {
        (1, 11, "ring_full"), (0, 3, "ring_full"), (0, 1, "meta_full"),
    }  # fmt: skip


def test_the_golden_recording_is_what_is_still_written(recording: Path) -> None:
    golden, written = GOLDEN.read_bytes(), recording.read_bytes()
    body, new_body = (data[chunks_of(data)[1][1] :] for data in (golden, written))
    pointer = 16 + 8 + 0  # END_AT holds a place in the file, which a header that has grown moves
    assert body[:-pointer] == new_body[:-pointer], "python tests/unit/builders.py tests/data/golden.flak, if meant"
    with Recording(GOLDEN) as old, Recording(recording) as new:
        for entry, value in old.header.items():
            if entry in ("ops", "marks", "layouts"):  # appended to, never renumbered
                assert value.items() <= new.header[entry].items()
            else:
                assert new.header[entry] == value


def test_it_is_read_in_twenty_lines() -> None:
    """The program in docs/format.md."""
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    assert len(program.strip().splitlines()) <= 20
    result = subprocess.run([sys.executable, "-c", program, GOLDEN], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert lines[:2] == ["1000002000 openat -1 3", "1000003000 pread64 0 4096"]
    assert len(lines) == 18


# --- making the file


def test_a_new_file_is_private(path: Path) -> None:
    old = os.umask(0)
    try:
        Writer(path, {}).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_existing_file_is_refused(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists already") as caught:
        Writer(path, {})
    assert "--force" in str(caught.value.hint)
    assert path.read_text() == "precious"


def test_force_replaces_a_file(path: Path) -> None:
    path.write_text("old")
    with Writer(path, {}, force=True) as writer:
        writer.round([], [reads(1)])
        assert len(everything(path)[0]) == 2, "the name is the new one's at once"
    assert [p.name for p in path.parent.iterdir()] == ["run.flak"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("force", [False, True])
def test_a_symbolic_link_is_never_followed(path: Path, force: bool) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.symlink_to(victim)
    if force:
        Writer(path, {}, force=True).close()
        assert not path.is_symlink()
    else:
        with pytest.raises(OutputError):
            Writer(path, {})
    assert victim.read_text() == "precious"


def test_force_does_not_replace_what_is_no_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for what in (fifo, tmp_path):
        with pytest.raises(OutputError, match="is not a file"):
            Writer(what, {}, force=True)
    assert fifo.is_fifo()


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_missing_is_said(tmp_path: Path, force: bool) -> None:
    with pytest.raises(OutputError, match=r"cannot create .*No such file"):
        Writer(tmp_path / "none" / "run.flak", {}, force=force)


# --- no room


def test_max_size_stops_rounds_and_leaves_a_closed_file(path: Path) -> None:
    with Writer(path, {}, max_size=20_000) as writer:
        for n in range(100):
            writer.round([builders.fork(seq=n)], [reads(20, seq=20 * n)])
        full_at = writer.size
        assert writer.is_full and full_at <= 20_000
        writer.counters(counted(0), {})
        assert writer.size == full_at
        held = 100 * 21 - writer.unwritten
        writer.close(counted(held, filtered={"max_size": writer.unwritten}), ended="max-size")
    events, source = everything(path)
    assert source.is_complete and source.warnings == []
    assert len(events) == held + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_once_and_leaves_a_valid_prefix(small_disk: Path) -> None:
    path = small_disk / "run.flak"
    written = 0
    with Writer(path, {}) as writer:
        with pytest.raises(OutputError, match="No space left") as caught:
            while True:
                writer.round([], [reads(1000, seq=written)])
                written += 1000
        assert caught.value.hint
        assert writer.unwritten == 1000
        writer.round([builders.fork()], [reads(10), builders.open_()])
        writer.counters(counted(0), {})
        assert writer.unwritten == 1012
        counters = Counters(
            matched=written + 1012, submitted=written + 1012, received=written + 1012, written=written,
            lost={"user_write_failed": 1012},
        )  # fmt: skip
        writer.close(counters, {0: (written + 1012, 0)}, ended="no room")
    events, source = everything(path)
    assert source.is_complete, "what the failed round had taken is room for the footer"
    assert source.stats.is_exact
    assert sum(e.op == "pread64" for e in events) == written


def test_a_limit_on_file_size_is_no_different(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = Writer(path, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.size + 20_000, hard))
    try:
        writer.round([], [reads(200)])
        with pytest.raises(OutputError, match="too large"):
            writer.round([], [reads(200, seq=200)])
        writer.close(counted(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(everything(path)[0]) == 201


def test_close_never_raises_after_a_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with Writer(path, {}) as writer:
        writer.round([], [reads(3)])
        monkeypatch.setattr(os, "pwritev", no_space)
        monkeypatch.setattr(os, "fsync", no_space)
        with pytest.raises(OutputError):
            writer.round([], [reads(3, seq=3)])
        writer.close(counted(3))
    monkeypatch.undo()
    events, source = everything(path)
    assert len(events) == 4 and not source.is_complete


def test_close_says_when_it_is_the_first_to_fail(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    writer = Writer(path, {})
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        writer.close(counted(0))
    writer.close()


def test_a_write_that_stops_halfway_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwritev

    def a_little(fd: int, buffers: list[memoryview], at: int) -> int:
        return whole(fd, [next(b for b in buffers if len(b))[:7]], at) if any(map(len, buffers)) else 0

    monkeypatch.setattr(os, "pwritev", a_little)
    builders.golden(path)
    monkeypatch.undo()
    other = path.with_name("other")
    builders.golden(other)
    assert path.read_bytes() == other.read_bytes()


def test_a_round_that_an_interrupt_cut_short_leaves_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwritev

    def interrupted(fd: int, buffers: list[memoryview], at: int) -> int:
        whole(fd, buffers, at)
        raise KeyboardInterrupt

    with Writer(path, {}) as writer:
        writer.round([], [reads(3)])
        monkeypatch.setattr(os, "pwritev", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.round([], [reads(500, seq=3)])
        monkeypatch.undo()
        writer.close(counted(3))
    assert writer.size == path.stat().st_size
    events, source = everything(path)
    assert len(events) == 4 and source.is_complete


# --- cut short, damaged, forged


def test_a_recording_that_was_never_closed_says_so(path: Path) -> None:
    with Writer(path, {}) as writer:
        writer.round([], [reads(5)])
        known = Counters(
            matched=12, submitted=9, received=9, written=9, lost={"ring_full": 3}, not_decoded={"aio": 2},
            recursion_misses=1,
        )  # fmt: skip
        writer.counters(known, {0: (12, 0)}, anchor=ANCHOR)
        writer.round([], [reads(8, seq=5)])
    with Recording(path) as source:
        assert not source.is_complete
        assert not source.stats.is_complete
        events = list(source)
        assert len(events) == 14
        stats = source.stats
        assert not source.is_complete and not stats.is_complete and source.footer == {}
        assert (stats.received, stats.written, stats.submitted, stats.matched) == (13, 13, 13, 16)
        assert (stats.lost, stats.not_decoded, stats.recursion_misses) == ({"ring_full": 3}, {"aio": 2}, 1)
        assert source.warnings == [f"{path} was never closed: it ends without a footer"]


def test_every_prefix_is_read_as_far_as_it_goes(recording: Path, tmp_path: Path) -> None:
    data = recording.read_bytes()
    chunks = chunks_of(data)
    start = chunks[0][2]
    end_at = next(at for kind, at, _ in chunks if kind == Chunk.END)
    closed = end_at + 16 + struct.unpack_from("<I", data, end_at + 8)[0]
    prefix = tmp_path / "prefix.flak"
    before = 0
    near_ends = {end + near for _, _, end in chunks for near in (-1, 0, 1)}
    for length in sorted({*range(start, len(data), 17), *near_ends} & {*range(start, len(data))}):
        prefix.write_bytes(data[:length])
        events, source = everything(prefix)
        assert source.is_complete == (length >= closed)
        accesses = sum(not isinstance(e, Lost | Folded | Counters) for e in events)
        assert accesses >= before
        before = accesses
        if not source.is_complete:
            assert len(source.warnings) == 1 and events[-1].received == accesses
    for length in range(0, start - 8, 7):  # up to 7 bytes before the first chunk are padding
        prefix.write_bytes(data[:length])
        with pytest.raises(TraceFileError):
            Recording(prefix)


def test_damage_ends_the_reading_where_it_is(recording: Path) -> None:
    data = bytearray(recording.read_bytes())
    kind, at, _ = chunks_of(bytes(data))[4]
    assert kind == Chunk.META
    data[at + 30] ^= 1
    recording.write_bytes(data)
    with Recording(recording) as source:
        assert source.is_complete, "the footer is sound, and more has not been looked at"
        events = list(source)
        assert sum(not isinstance(e, Lost | Folded | Counters) for e in events) == 13
        assert not source.is_complete and not source.stats.is_complete
        assert source.stats.received == 13 and source.stats.matched == 37
        assert source.warnings == [f"{recording} is damaged at byte {at}: the chunk there does not fit its checksum"]


def test_chunks_and_records_of_a_later_version_are_skipped(recording: Path) -> None:
    data = recording.read_bytes()
    start = chunks_of(data)[0][2]
    record = b"\x63\x00\x09\x00hello"
    extra = chunk(77, b"from the future") + chunk(Chunk.META, record + builders.name("/x", 99))
    recording.write_bytes(data[:start] + extra + data[start:])
    events, source = everything(recording)
    assert len(events) == 26
    assert source.tables.paths[99].path == "/x"
    assert source.warnings == ["skipped, of unknown type: 1 chunk", "skipped, of unknown kind: 1 record"]


def test_a_footer_that_counts_otherwise_is_told(path: Path) -> None:
    with Writer(path, {}) as writer:
        writer.round([], [reads(2)])
        writer.close(counted(3))
    assert everything(path)[1].warnings == ["the footer counts 3 events, the file holds 2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "is not a recording"),
        (lambda data: b"FLAK", "is not a recording"),
        (lambda data: b"PAR1" + data[4:], "is not a recording"),
        (lambda data: data[:6] + b"\x02\x00" + data[8:], "is of format 2, this flak reads format 1"),
        (lambda data: data[:8] + b"\xff\xff\xff\xff" + data[12:], "no chunk has 4294967295 bytes"),
        (lambda data: data[:8] + b"\xff\xff\xff\x00" + data[12:], "is cut short"),
        (lambda data: data[:20] + b"?" + data[21:], "does not fit its checksum"),
    ],
)
def test_a_header_that_is_wrong_is_refused(recording: Path, change: Callable[[bytes], bytes], message: str) -> None:
    recording.write_bytes(change(recording.read_bytes()))
    with pytest.raises(TraceFileError, match=message):
        Recording(recording)


@pytest.mark.parametrize("payload", [b"[]", b"{", b"\xff", b"1" * 5000, b"[" * 100_000, b'{"a":' * 100_000])
def test_a_header_that_is_no_object_is_refused(path: Path, payload: bytes) -> None:
    head = struct.pack("<5sxHI", b"FLAK\0", r.FORMAT_VERSION, len(payload))
    path.write_bytes(head + struct.pack("<I", zlib.crc32(head + payload)) + payload + bytes(-len(payload) % 8))
    with pytest.raises(TraceFileError, match="not a JSON object"):
        Recording(path)


@pytest.mark.parametrize(
    "forged",
    [
        chunk(Chunk.SLOTS, bytes(71)),
        chunk(Chunk.META, b"\x01\x00\x02\x00"),
        chunk(Chunk.META, b"\x01\x00\x10\x00" + bytes(12)),
        chunk(Chunk.COUNTERS, b"null"),
        chunk(Chunk.COUNTERS, b"{}"),
        chunk(Chunk.END, json.dumps({"counters": as_dict(Counters()), "sequences": []}).encode()),
        chunk(Chunk.END, json.dumps({"counters": as_dict(Counters()), "sequences": {"x": [1, 2]}}).encode()),
        chunk(Chunk.END, json.dumps({"counters": as_dict(Counters()), "sequences": {"0": [1]}}).encode()),
        chunk(Chunk.END, json.dumps({"counters": as_dict(Counters(matched=-1)), "sequences": {}}).encode()),
        chunk(Chunk.END, json.dumps({"counters": as_dict(Counters()) | {"lost": 3}, "sequences": {}}).encode()),
        chunk(Chunk.END, b'{"counters":' * 50_000),
    ],
)
def test_forged_chunks_with_right_checksums_are_refused(path: Path, forged: bytes) -> None:
    Writer(path, {}).close()
    with path.open("ab") as file:
        file.write(forged)
    with Recording(path) as source, pytest.raises(TraceFileError, match="is damaged at byte"):
        list(source)


@pytest.mark.parametrize("target", [0, 8, 2**40, 2**64 - 1])
def test_a_forged_pointer_to_the_footer_finds_none(path: Path, target: int) -> None:
    Writer(path, {}).close()
    with path.open("ab") as file:
        file.write(chunk(Chunk.END_AT, struct.pack("<Q", target)))
    with Recording(path) as source:
        assert not source.is_complete


def test_a_length_is_believed_only_if_the_file_is_as_long(path: Path) -> None:
    Writer(path, {}).close()
    with path.open("ab") as file:
        file.write(struct.pack("<IIII", Chunk.SLOTS, 0, 200 << 20, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, source = everything(path)
    assert source.warnings[0].startswith(f"{path} is cut short")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for what, message in ((fifo, "is not a file"), (tmp_path / "none", "No such file")):
        with pytest.raises(TraceFileError, match=message):
            open_recording(what)
    with pytest.raises(TraceFileError):
        open_recording(tmp_path)


def read_as_users_do(path: Path) -> None:
    """Read everything there is; only TraceFileError may come out."""
    try:
        with Recording(path) as source:
            for event in source:
                as_dict(event)
            _ = source.stats, source.footer, source.is_complete, source.warnings
    except TraceFileError as error:
        assert str(error)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(junk=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.flak"
    path.write_bytes(junk)
    read_as_users_do(path)
    path.write_bytes(b"FLAK\0\0\1\0" + junk)
    read_as_users_do(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_mutation_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "mutated.flak"
    sound = GOLDEN.read_bytes()
    mutated = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path.write_bytes(mutated)
    read_as_users_do(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_mutation_with_mended_checksums_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "forged.flak"
    sound = GOLDEN.read_bytes()
    forged = sound[: chunks_of(sound)[0][2]]
    for kind, at, end in chunks_of(sound)[1:]:
        payload = bytearray(sound[at + 16 : end])
        for _ in range(data.draw(st.integers(0, 3))):
            where = data.draw(st.integers(0, max(len(payload) - 1, 0)))
            payload[where : where + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        forged += chunk(kind, bytes(payload))
    path.write_bytes(forged)
    read_as_users_do(path)


# --- killed

WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
import builders
from flak.events import Counters
from flak.tracefile import Writer
span = b"".join(builders.read(seq=n) for n in range(5000))
with Writer(sys.argv[1], builders.HEADER) as writer:
    writer.round([builders.task(), builders.name()], [])
    print("ready", flush=True)
    n = 0
    while True:
        writer.round([builders.fork(seq=n)], [span])
        n += 1
        writer.counters(Counters(matched=5001 * n, submitted=5001 * n), {0: (5000 * n, n)})
"""


@pytest.mark.parametrize("delay_ms", [0, 1, 3, 7, 13, 23])
def test_a_writer_killed_at_any_moment_leaves_a_valid_prefix(path: Path, delay_ms: int) -> None:
    source = Path(r.__file__).parents[1]
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, path, Path(__file__).parent],
        stdout=subprocess.PIPE, env={"PYTHONPATH": str(source)},
    )  # fmt: skip
    assert child.stdout
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
    time.sleep(delay_ms / 1000)  # any moment will do
    child.send_signal(signal.SIGKILL)
    child.wait()
    with Recording(path) as recording:
        counts = [(len(b.slots), len(b.process_events)) for b in recording.batches()]
        assert not recording.is_complete and len(recording.warnings) == 1
        assert counts[0] == (0, 0)
        assert set(counts[1:-1]) <= {(72 * 5000, 1)}
        assert counts[-1] in {(72 * 5000, 1), (0, 1), (0, 0)}
        assert recording.stats.received == sum(slots // 72 + events for slots, events in counts)
        assert recording.tables.paths[1].path == "/data/a"


# --- memory


def test_memory_does_not_grow_with_the_recording(path: Path) -> None:
    span = reads(2000)
    with Writer(path, builders.HEADER) as writer:
        for _ in range(400):
            writer.round([], [span])
        writer.close(counted(800_000))
    code = (
        "import sys, flak\n"
        "with flak.open(sys.argv[1]) as recording:\n"
        "    seen = sum(len(b.slots) // 72 for b in recording.batches())\n"
        "    assert seen == sum(e.op == 'pread64' for e in recording)\n"
        "status = open('/proc/self/status').read()\n"
        "print(seen, status.split('VmHWM:')[1].split()[0])\n"
    )
    source = Path(r.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    seen, peak_kib = map(int, result.stdout.split())
    assert seen == 800_000
    assert peak_kib < 40_000, "the file has 58 MB"
