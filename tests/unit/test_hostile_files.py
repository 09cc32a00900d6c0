"""Recordings made to do harm: whatever is in a file, reading and printing it is safe, small, quick and quietly refused.

The damage here gets past the checksums: frames are changed, cut, doubled, reordered, taken from other recordings, and
summed anew; or they are made from the start with numbers at the ends of their range, names of any bytes and ids that
lead nowhere. Two properties hold of each file. Python gets nothing but TraceFileError. `flak dump` succeeds, or ends
with status 1 and one line; what it prints is whole lines without anything a terminal would obey, and strict JSON.
"""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import builders
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flak
from flak import _records as r
from flak._records import NameFlag
from flak.analysis import analyse
from flak.cli import closing
from flak.cli.app import run as run_flak
from flak.events import WORDS, Counters, as_dict, escape
from flak.report import render_summary
from flak.tracefile import Chunk, Recording, TraceFileError
from flak.wire import Decoder

GOLDEN = Path(__file__).parents[1] / "data" / "golden.flak"
MIB = 1 << 20
U64 = (1 << 64) - 1

quick = settings(
    max_examples=80, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


# --- files, made without tracefile's help


class Frame(NamedTuple):
    """A chunk, without what can be computed."""

    kind: int
    payload: bytes


def summed(head: bytes, payload: bytes) -> bytes:
    """A frame with its checksum and its padding."""
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload + bytes(-len(payload) % 8)


def chunk(kind: int, payload: bytes) -> bytes:
    return summed(struct.pack("<III", kind, 0, len(payload)), payload)


def header(entries: Any = None) -> bytes:
    """The first frame; `entries` may be text as well."""
    payload = entries if isinstance(entries, bytes) else json.dumps(builders.HEADER | (entries or {})).encode()
    return summed(struct.pack("<5sxHI", b"FLAK\0", r.FORMAT_VERSION, len(payload)), payload)


def footer(entries: Any = None, sequences: Any = None, **more: Any) -> Frame:
    values = {"counters": as_dict(Counters()) | (entries or {}), "sequences": sequences or {}, **more}
    return Frame(Chunk.END, json.dumps(values).encode())


def joined(frames: Iterable[Frame], first: bytes | None = None) -> bytes:
    """A file. Behind an END the pointer to it, as in a closed recording."""
    data = header() if first is None else first
    for frame in frames:
        at = len(data)
        data += chunk(*frame)
        if frame.kind == Chunk.END:
            data += chunk(Chunk.END_AT, struct.pack("<Q", at))
    return data


def frames_of(data: bytes) -> list[Frame]:
    """The chunks of a sound recording, without END_AT."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<I4xI", data, at)
        if at and kind != Chunk.END_AT:
            found.append(Frame(kind, data[at + 16 : at + 16 + length]))
        at += 16 + length + -length % 8
    return found


GOLDEN_FRAMES = frames_of(GOLDEN.read_bytes())
KNOWN = Frame(Chunk.META, builders.task() + builders.name())


def slots(*accesses: bytes) -> Frame:
    return Frame(Chunk.SLOTS, b"".join(accesses))


def meta(*records: bytes) -> Frame:
    return Frame(Chunk.META, b"".join(records))


# --- what must hold


MISLEADING = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def is_printable(text: str) -> bool:
    """No control characters, no escapes, nothing that turns the direction of writing or takes no room."""
    return text.isprintable() and not MISLEADING.search(text)


def strict(line: str) -> dict[str, Any]:
    """An object as a strict reader takes it: each name once, no NaN, no lone surrogates, integers of 64 bits."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), f"a name comes twice: {line}"
        return dict(pairs)

    def integer(digits: str) -> int:
        assert -(1 << 63) <= int(digits) <= U64, line
        return int(digits)

    def no_number(text: str) -> None:
        raise AssertionError(f"{text} is no number of JSON")

    assert is_printable(line), ascii(line)
    value = json.loads(line, object_pairs_hook=members, parse_constant=no_number, parse_int=integer)
    assert isinstance(value, dict)
    return value


def assert_is_event(value: dict[str, Any], words: Sequence[str] = WORDS) -> None:
    if value["op"] in ("lost", "folded", "counters"):
        return
    assert tuple(value) == tuple(words)
    for word in ("path", "claimed_path", "new_path", "argv0", "comm", "container"):
        text = value.get(word)
        assert text is None or is_printable(text), ascii(text)
    if value.get("path_bytes"):
        assert escape(base64.b64decode(value["path_bytes"], validate=True)) == value["path"]


class Dump(NamedTuple):
    """What a `flak dump` came to."""

    status: int
    out: str
    err: str


@pytest.fixture
def dump(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Writes a file and runs `flak dump` on it; what holds of each run is asserted."""
    path = tmp_path / "run.flak"

    def dumped(data: bytes, *options: str) -> Dump:
        path.write_bytes(data)
        status = run_flak(["dump", str(path), *options])
        out, err = capfd.readouterr()
        talk = err.splitlines()
        assert status in (0, 1) and "Traceback" not in err, err
        assert all(line.startswith("flak: ") and is_printable(line) for line in talk), err
        if status:
            assert len([line for line in talk if not line.startswith("flak: hint: ")]) == 1, err
        assert "\ufffd" not in out
        assert not out or out.endswith("\n")
        for line in out.split("\n"):
            assert is_printable(line), ascii(line)
        return Dump(status, out, err)

    yield dumped


def assert_dumps(dump: Any, data: bytes) -> None:
    """All that a person can have of a recording, and a program."""
    as_json = dump(data, "--json")
    values = [strict(line) for line in as_json.out.splitlines()]
    for value in values:
        assert_is_event(value)
    as_text = dump(data, "--no-summary", "-T", ("rel", "wall", "unix", "boot")[len(data) % 4])
    assert as_text.status == as_json.status
    if not as_json.status:
        assert values[-1]["op"] == "counters" and [v["op"] for v in values].count("counters") == 1
        shown = [value for value in values if value["op"] not in ("counters", "folded")]
        assert len(as_text.out.splitlines()) == 1 + len(shown), "a line for each, and the titles"
    assert dump(data, "-s").status == as_json.status
    columns = dump(data, "--no-summary", "--fields", ",".join(("time", "op", "size", "lat", "file", *WORDS)))
    assert len(columns.out.splitlines()) == len(as_text.out.splitlines())


def read_through(path: Path) -> None:
    """All that Python can have of a recording; only TraceFileError may come out."""
    try:
        with Recording(path) as source:
            _ = source.is_complete, source.stats, source.footer
            for event in source:
                strict(json.dumps(as_dict(event), ensure_ascii=False))
            _ = source.anchor
            rows = analyse(source)
            for row in rows:
                figures = {word: n for word, n in asdict(row).items() if word not in ("path", "first_ns", "last_ns")}
                assert all(figure is None or figure >= 0 for figure in figures.values()), figures
            render_summary(rows, source.stats, duration_s=1, width=80)
    except TraceFileError as error:
        assert error.message


# --- recordings that were changed


def mended(frames: Sequence[Frame], data: st.DataObject) -> list[Frame]:
    """The frames after something was done to them that a checksum would not tell."""
    frames = list(frames)
    at = data.draw(st.integers(0, max(len(frames) - 1, 0)), label="frame")
    what = data.draw(
        st.sampled_from(["flip", "number", "cut", "insert", "double", "swap", "drop", "splice", "rename"]), label="what"
    )
    if not frames:
        return frames
    kind, payload = frames[at]
    where = data.draw(st.integers(0, max(len(payload) - 1, 0)), label="where")
    match what:
        case "flip" if payload:
            bit = 1 << data.draw(st.integers(0, 7), label="bit")
            payload = payload[:where] + bytes([payload[where] ^ bit]) + payload[where + 1 :]
        case "number":
            width = data.draw(st.sampled_from([1, 2, 4, 8]), label="width")
            number = data.draw(numbers(8 * width), label="number")
            where -= where % width
            payload = payload[:where] + number.to_bytes(width, "little") + payload[where + width :]
        case "cut":
            payload = payload[: where - where % data.draw(st.sampled_from([1, 8, 72]), label="unit")]
        case "insert":
            payload = payload[:where] + data.draw(st.binary(max_size=80), label="bytes") + payload[where:]
        case "double":
            frames.insert(at, frames[at])
        case "swap":
            other = data.draw(st.integers(0, len(frames) - 1), label="other")
            frames[at], frames[other] = frames[other], frames[at]
            return frames
        case "drop":
            del frames[at]
            return frames
        case "splice":
            other = data.draw(st.integers(0, len(frames) - 1), label="other")
            payload = payload[:where] + frames[other].payload[where:]
        case "rename":
            kind = data.draw(st.integers(0, 6), label="kind")
    frames[at] = Frame(kind, payload)
    return frames


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Numbers of so many bits, mostly such as break things."""
    most = (1 << bits) - 1
    edges = {0, 1, 2, most, most - 1, most >> 1, (most >> 1) + 1, most & 0x7FFF_FFFF, most & 0xFFFF_FFFF, most & 4096}
    return st.sampled_from(sorted(edges)) | st.integers(0, most)


@quick
@given(data=st.data())
def test_a_changed_recording_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    frames: list[Frame] = GOLDEN_FRAMES
    for _ in range(data.draw(st.integers(1, 6), label="changes")):
        frames = mended(frames, data)
    path = tmp_path / "run.flak"
    path.write_bytes(joined(frames))
    read_through(path)


@settings(quick, max_examples=40)
@given(data=st.data())
def test_a_changed_recording_is_printed_safely(dump: Any, data: st.DataObject) -> None:
    frames: list[Frame] = GOLDEN_FRAMES
    for _ in range(data.draw(st.integers(1, 4), label="changes")):
        frames = mended(frames, data)
    assert_dumps(dump, joined(frames))


@settings(quick, max_examples=120)
@given(data=st.data())
def test_a_changed_span_of_records_is_decoded_or_refused(data: st.DataObject) -> None:
    decoder = Decoder()
    for _ in range(2):
        for frame in mended(mended(GOLDEN_FRAMES, data), data):
            try:
                if frame.kind == Chunk.META:
                    decoder.learn(frame.payload)
                elif frame.kind == Chunk.SLOTS:
                    for event in decoder.decode(flak.events.Batch(frame.payload)):
                        strict(json.dumps(as_dict(event), ensure_ascii=False))
            except TraceFileError as error:
                assert error.message
    decoder.tail({0: (U64, U64)})


@quick
@given(at=st.integers(0, 3000), length=st.integers(0, 1 << 32) | numbers(32), kind=st.integers(0, 6))
def test_a_wrong_length_is_never_believed(tmp_path: Path, at: int, length: int, kind: int) -> None:
    path = tmp_path / "run.flak"
    frames = joined(GOLDEN_FRAMES)
    starts = [m.start() for m in re.finditer(re.escape(struct.pack("<II", kind, 0)), frames)]
    place = starts[at % len(starts)] if starts else at
    forged = bytearray(frames)
    struct.pack_into("<I", forged, place + 8, length & 0xFFFF_FFFF)
    payload = forged[place + 16 : place + 16 + min(length, len(forged))]
    struct.pack_into("<I", forged, place + 12, zlib.crc32(forged[place : place + 12] + payload))
    path.write_bytes(forged)
    read_through(path)


# --- recordings that nobody ever made


IDS = st.integers(0, 4) | st.sampled_from([r.CLAIM_BIT, r.CLAIM_BIT | 1, 0xFFFF_FFFF])
BITS = {"ts_ns": 64, "latency_ns": 64, "file_offset": 64, "size_req": 64, "seq": 32, "marks": 20, "cpu": 16}
OPS = st.sampled_from([int(op) for op in r.Op if op != r.Op.OPERANDS]) | st.sampled_from([0x37F, 0xFD00, 0x4FF, 0x1FE])
SIGNED = st.sampled_from([-(1 << 31), (1 << 31) - 1, -4095, -4096, -512, -516, -2, -1, 0, 1, 4096])

PIECES = [
    b"\0", b"\n", b"\r", b"\t", b"\x1b[2J", b"\x1b]0;title\x07", b"\x7f", b"\xc2\x9b31m", b"\xff", b"\xed\xb3\xbf",
    "\u202e\u2066\u200f\u2028\u2029\ufeff".encode(), "\U000e0041".encode(), b"\xf4\x90\x80\x80", b"\\n", b"\\", b'"',
    b"'", b",", b"{}", b"%s", b"/", b"..", b"=cmd()", "é".encode(), "漢".encode(), "e\u0301".encode(), b"name", b" ",
]  # fmt: skip
NAMES = st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join) | st.binary(max_size=40)


@st.composite
def accesses(draw: st.DrawFn) -> bytes:
    fields = {name: draw(numbers(bits)) for name, bits in BITS.items()}
    fields |= {name: draw(IDS) for name in ("task_id", "file_id", "path_id")}
    fields |= {name: draw(SIGNED) for name in ("ret", "fd")}
    operands = None
    if draw(st.booleans()):
        operands = {name: draw(numbers(32)) for name in ("prot", "map_flags", "open_flags", "mode", "call_id")}
        operands |= {name: draw(IDS) for name in ("claim_id", "other_file_id", "other_path_id")}
        operands |= {name: draw(numbers(64)) for name in ("addr", "old_addr", "arg_offset")}
        operands |= {"new_fd": draw(SIGNED), "has": draw(numbers(16))}
    slot = builders.access(draw(OPS), operands=operands, **fields)
    return slot[72:] if draw(st.integers(0, 9)) == 0 else slot  # without its first slot; nothing where that was all


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A record of the meta ring."""
    ids = {name: draw(IDS) for name in ("file_id", "base_path_id")}
    wide = {name: draw(numbers(32)) for name in ("dev", "ino_gen", "mnt_ns")}
    wide |= {"ino": draw(numbers(64)), "mode": draw(numbers(16)), "file_size": draw(numbers(64))}
    match draw(st.integers(0, 5)):
        case 0:
            flags = draw(st.integers(0, 255))
            return builders.name(draw(NAMES), draw(IDS), flags=flags, **ids, **wide)
        case 1:
            return builders.claim(draw(NAMES), draw(IDS), base_path_id=draw(IDS))
        case 2:
            numbered = {name: draw(numbers(32)) for name in ("pid", "tid", "ns_pid", "ppid", "uid", "mnt_ns")}
            return builders.task(draw(IDS), draw(NAMES)[:16], cgroup_id=draw(IDS), **numbered)
        case 3:
            numbered = {name: draw(numbers(32)) for name in ("seq", "child_pid", "child_tid", "is_last")}
            numbered |= {name: draw(IDS) for name in ("task_id", "file_id", "path_id")}
            op = draw(st.sampled_from([r.Op.FORK, r.Op.EXEC, r.Op.EXIT, 0, 0xFFFF]))
            more = {"ts_ns": draw(numbers(64)), "exit_code": draw(SIGNED), "cpu": draw(numbers(16))}
            return builders.process(op, draw(NAMES), **numbered, **more)
        case 4:
            return builders.container(draw(IDS), os.fsdecode(draw(NAMES)))
    return struct.pack("<HH", draw(st.integers(5, 99)), 64) + draw(st.binary(min_size=60, max_size=60))


COUNT = numbers(64) | st.sampled_from([-1, 1 << 64, 10**40, True, None, "7", 1.5, [], float("nan"), float("inf")])
WORD = st.sampled_from(["ring_full", "user_x", "io_uring", "a b", "\x1b[2J", "\u202e", "", "é", "__class__", "x" * 999])
COUNTS = st.dictionaries(WORD, COUNT, max_size=2) | st.sampled_from([None, [], 5, "ab"])


@st.composite
def endings(draw: st.DrawFn) -> Frame:
    """A footer, or counters on the way."""
    names = ("matched", "submitted", "received", "written", "excluded_self", "recursion_misses")
    entries: dict[str, Any] = {name: draw(numbers(64)) for name in names}
    entries |= {name: draw(st.just({"ring_full": 3}) | COUNTS) for name in ("lost", "filtered", "not_decoded")}
    if draw(st.integers(0, 3)) == 0:
        entries[draw(st.sampled_from(names))] = draw(COUNT)
    clock = draw(st.sampled_from([{}, [], 5, None]) | st.builds(dict, boot_ns=COUNT, realtime_ns=COUNT))
    cpus = st.sampled_from(["0", "1", "-1", "65536", "x", "1_0", "９", "9" * 99])
    sequences = draw(st.dictionaries(cpus, st.tuples(numbers(64), numbers(64)), max_size=3) | st.just(5))
    frame = footer(entries, sequences, clock=clock, ended=draw(st.sampled_from(["", "\x1b[2J\n", 5, None])))
    return frame._replace(kind=draw(st.sampled_from([Chunk.END, Chunk.COUNTERS])))


VALUES = st.recursive(
    st.none() | st.booleans() | numbers(64) | st.sampled_from([-1, 10**40, -(10**300), 1e308, 0.5, "process", "5", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["boot_ns", "x"]), inner, max_size=2),
    max_leaves=4,
)
ANCHORS = st.builds(dict, boot_ns=COUNT, realtime_ns=COUNT).map(lambda anchor: [anchor])
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("events", "page_size", "mnt_ns", "flak", "format", "missing", "ops"), VALUES),
        "clock_anchors": ANCHORS | VALUES,
    },
)


@settings(quick, max_examples=50)
@given(st.lists(records(), max_size=12), st.lists(accesses(), max_size=8), st.lists(endings(), max_size=2), ENTRIES)
def test_an_invented_recording_is_printed_safely(
    dump: Any, known: list[bytes], seen: list[bytes], ends: list[Frame], entries: dict[str, Any]
) -> None:
    frames = [KNOWN, meta(*known[:6]), slots(*seen[:4]), meta(*known[6:]), slots(*seen[4:]), *ends]
    assert_dumps(dump, joined(frames, header(entries)))


@settings(quick, max_examples=50)
@given(st.lists(records(), max_size=12), st.lists(accesses(), max_size=12), st.lists(endings(), max_size=2))
def test_an_invented_recording_is_read_or_refused(
    tmp_path: Path, known: list[bytes], seen: list[bytes], ends: list[Frame]
) -> None:
    path = tmp_path / "run.flak"
    path.write_bytes(joined([KNOWN, meta(*known), slots(*seen), *ends]))
    read_through(path)


@settings(quick, max_examples=30)
@given(NAMES, NAMES, NAMES)
def test_a_name_of_any_bytes_is_told_whole(dump: Any, name: bytes, argv0: bytes, comm: bytes) -> None:
    known = meta(
        builders.container(77, os.fsdecode(name)),
        builders.task(1, comm[:15]),
        builders.name(b"/d/" + name.replace(b"\0", b"").replace(b"/", b""), 2),
        builders.claim(name, 3, base_path_id=2),
        builders.exec_(argv0, path_id=2),
    )
    seen = slots(builders.read(path_id=2), builders.failed_open(2, 3, seq=1))
    done = dump(joined([known, seen]), "--json")
    events = {value["op"]: value for value in map(strict, done.out.splitlines())}
    whole = b"/d/" + name.replace(b"\0", b"").replace(b"/", b"")
    path = whole.rstrip(b"/")
    assert events["pread64"]["path"] == escape(path)
    is_text = path == path.decode(errors="ignore").encode()
    assert events["pread64"]["path_bytes"] == (None if is_text else base64.b64encode(path).decode())
    claim = name.partition(b"\0")[0]
    assert events["openat"]["claimed_path"] == escape(claim)
    behind = path.rstrip(b"/") + b"/" + claim
    assert events["openat"]["path"] == (escape(claim if claim.startswith(b"/") or not claim else behind) or None)
    assert [events["exec"][word] for word in ("path", "path_bytes")] == [
        events["pread64"][word] for word in ("path", "path_bytes")
    ]
    assert events["exec"]["argv0"] == escape(argv0.partition(b"\0")[0])
    assert events["exec"]["container"] == escape(os.fsdecode(name).encode(errors="surrogatepass"))
    assert events["exec"]["comm"] == escape(comm[:15].partition(b"\0")[0])
    assert_dumps(dump, joined([known, seen]))


# --- single attacks


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b'{"events":5}',
        b'{"events":5,"clock_anchors":[{"boot_ns":1,"realtime_ns":2}]}',
        b'{"events":null,"clock_anchors":[{"boot_ns":1,"realtime_ns":2}]}',
        b'{"clock_anchors":[{"boot_ns":1%s,"realtime_ns":2}]}' % (b"0" * 400),
        b'{"clock_anchors":[{"boot_ns":1,"realtime_ns":1%s}]}' % (b"0" * 40),
        b'{"clock_anchors":[{"boot_ns":1,"realtime_ns":-1%s}]}' % (b"0" * 300),
        b'{"clock_anchors":[{"boot_ns":1,"realtime_ns":1%s}]}' % (b"0" * 5000),
        b'{"clock_anchors":[{"boot_ns":1e999,"realtime_ns":NaN}]}',
        b'{"clock_anchors":[{"boot_ns":1,"boot_ns":"\\ud800","realtime_ns":2}]}',
        b'{"clock_anchors":{"0":1}}',
        b'{"page_size":[1],"clock_anchors":[{"boot_ns":1,"realtime_ns":2}]}',
        b'{"page_size":1e5,"mnt_ns":true,"clock_anchors":[{"boot_ns":1,"realtime_ns":2}]}',
        b'{"clock_anchors":[{"boot_ns":0,"realtime_ns":0}]}',
        b'{"clock_anchors":[{"boot_ns":18446744073709551615,"realtime_ns":0}]}',
        b'{"clock_anchors":[{"boot_ns":0,"realtime_ns":18446744073709551615}]}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'\xff\xfe{\0"\0\xff\xdf"\0:\x001\0}\0',
        '{"flak":"\u202e"}'.encode("utf-16"),
        b'{"command_line":["\x1b[2J"]}',
        b"[]",
        b'"events"',
        b"5",
    ],
    ids=range(23),
)
def test_a_header_of_the_wrong_types(dump: Any, payload: bytes) -> None:
    times = [builders.read(ts_ns=ts_ns) for ts_ns in (0, 1, (1 << 63) - 1, 1 << 63, U64)]
    assert_dumps(dump, joined([KNOWN, slots(*times), footer(clock={"boot_ns": 5})], header(payload)))


@pytest.mark.parametrize("boot_ns", [10**400, 10**308, 1e308, -1, 1 << 64, "5", None, True, [1], U64], ids=range(10))
def test_a_footer_from_another_age(dump: Any, boot_ns: Any) -> None:
    data = joined([KNOWN, slots(builders.read()), footer(clock={"boot_ns": boot_ns})])
    assert_dumps(dump, data)
    assert len(dump(data, "-s").out.splitlines()[0]) < 80


def test_numbers_at_the_end_of_their_range(dump: Any, tmp_path: Path) -> None:
    ends = [0, 1, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, U64 - 1, U64]
    seen = [
        builders.access(op, **{field: value, "ret": ret}, seq=value & 0xFFFF_FFFF)
        for op in (r.Op.READ, r.Op.PWRITE64, r.Op.FAULT, r.Op.LSEEK, r.Op.MMAP, r.Op.CLOSE_RANGE)
        for field in ("ts_ns", "latency_ns", "file_offset", "size_req")
        for value in ends
        for ret in (0, 5, (1 << 31) - 1, -(1 << 31))
    ]
    most = dict.fromkeys(("matched", "submitted", "received", "written", "excluded_self", "recursion_misses"), U64)
    totals = {"lost": {"ring_full": U64, "user_x": U64}, "not_decoded": {"aio": U64}, "filtered": {"path": U64}}
    data = joined([KNOWN, slots(*seen), footer(most | totals, {"0": [U64, U64]})])
    assert_dumps(dump, data)
    (tmp_path / "run.flak").write_bytes(data)
    read_through(tmp_path / "run.flak")


def test_a_read_of_all_there_could_be_has_the_size_of_what_came(dump: Any) -> None:
    seen = slots(*(builders.read(0, (1 << 63) - 1, ret=5, seq=n) for n in range(3)))
    (line,) = (line for line in dump(joined([KNOWN, seen]), "-s").out.splitlines() if line.endswith(" /data/a"))
    assert line.split()[4] == "5B"


def test_an_error_is_no_size(dump: Any) -> None:
    seen = slots(builders.read(0, 5, size_req=U64 - 13, ret=-14), builders.read(0, 5, ret=-14, seq=1))
    *_, odd, usual = dump(joined([KNOWN, seen]), "--no-summary").out.splitlines()
    assert odd.endswith("EFAULT") and usual.endswith("EFAULT") and "-14" not in odd


@pytest.mark.parametrize("payload", [b"[]", b"5", b'"counters"', b"[[1]]", b'{"counters":[]}', b"{}", b"\xff", b"nan"])
def test_a_footer_that_is_none(dump: Any, payload: bytes) -> None:
    for kind in (Chunk.END, Chunk.COUNTERS):
        assert dump(joined([KNOWN, Frame(kind, payload), slots(builders.read())])).status == 1


def test_second_slots_that_belong_to_nobody(dump: Any) -> None:
    second, read = builders.open_(77)[72:], builders.read()
    for spans in ([second], [second] * 3, [second, read], [second, second, read], [read, second, second]):
        done = dump(joined([KNOWN, slots(*spans)]), "--json")
        events = [value for value in map(strict, done.out.splitlines()) if value["op"] != "counters"]
        assert [value["op"] for value in events] == ["pread64"] * (read in spans)
        assert not any(value["new_fd"] for value in events)
        assert f"skipped, of unknown kind: {spans.count(second)} record" in done.err


@pytest.mark.parametrize("name", ["\x1b[2J", "a b", "a\nflak: 0 lost", "\u202e", "é", "", "\ud800", "5"])
def test_a_counter_with_a_name_that_is_none(dump: Any, name: str) -> None:
    for word in ("lost", "filtered", "not_decoded"):
        assert dump(joined([footer({word: {name: 1}})])).status == 1
        assert dump(joined([footer({word: {"ring_full": 1}})])).status == 0


def test_true_is_no_count(dump: Any) -> None:
    assert dump(joined([footer({"matched": True})])).status == 1
    assert dump(joined([footer({"lost": {"ring_full": True}})])).status == 1


@pytest.mark.parametrize("base", [1, 2, 3, 4, 0xFFFF_FFFF])
def test_claims_that_begin_at_themselves_do_not_grow(tmp_path: Path, base: int) -> None:
    path = tmp_path / "run.flak"
    known = [builders.name("/d", 1), *(builders.claim(b"x", 2 + n % 2, base_path_id=base) for n in range(100))]
    path.write_bytes(joined([meta(*known), slots()]))
    with Recording(path) as source:
        list(source)
        paths = {file.path for file in source.tables.paths.values()}
    assert paths == ({"/d", "/d/x"} if base == 1 else {"/d", "x"}), "only the kernel's own names have something below"


@pytest.mark.parametrize("make", [builders.name, builders.claim])
def test_a_name_longer_than_any_is_damage(dump: Any, make: Any) -> None:
    flags = int(NameFlag.CLAIMED) if make is builders.claim else 0
    whole = b"x" * (4096 if flags else 4095)
    assert dump(joined([meta(make(whole, 1)), slots(builders.read())])).status == 0
    done = dump(joined([meta(make(whole + b"x", 1)), slots(builders.read())]))
    assert done.status == 1 and "a meta record cannot be of" in done.err


@pytest.mark.parametrize("name", ["a\nflak: 0 lost", "a\n  b", "\u202eklaf", "\x1b[2J", "a\udcff"])
def test_the_name_of_a_file_does_not_break_the_line_that_refuses_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    for data in (None, b"", header(), joined(GOLDEN_FRAMES)[:-300], header() + chunk(Chunk.SLOTS, b"x")):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        run_flak(["dump", str(path), "-q"])
        err = capfd.readouterr().err
        assert err.endswith("\n") and len(re.findall(r"^(?!flak: hint: )", err[:-1], re.MULTILINE)) == 1, err
        assert err.isascii() and is_printable(err.replace("\n", ""))


# --- small files that ask for much

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # so that a failure does not take the machine with it
from flak.cli import main
status = main(["dump", *sys.argv[1:]])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1], file=sys.stderr)
sys.exit(status)
"""


def many_cpus() -> list[Frame]:
    return [slots(*(builders.read(cpu=cpu, seq=50) for cpu in range(20_000)))]


def chained_claims() -> list[Frame]:
    return [meta(*(builders.claim(b"a" * 8, n, base_path_id=n - 1) for n in range(1, 10_000))), slots()]


def claims_that_double() -> list[Frame]:
    return [meta(*(builders.claim(b"a" * 4000, 1, base_path_id=1) for n in range(250))), slots(builders.read())]


def long_names() -> list[Frame]:
    name = builders.name(b"\xff" * 4000)
    return [meta(name), slots(*(builders.read(seq=n) for n in range(2000)))]


def no_accesses() -> list[Frame]:
    return [slots()] * 30_000


def process_events() -> list[Frame]:
    return [meta(*(builders.exit_(seq=n) for n in range(20_000))), slots()] * 2


def wide_json() -> list[Frame]:
    return [Frame(Chunk.COUNTERS, b'{"x":[' + b"{}," * 300_000 + b"{}]}")]


def many_footers() -> list[Frame]:
    return [footer({"lost": {f"a{n}": 1 for n in range(1000)}})._replace(kind=Chunk.COUNTERS)] * 50


def many_sequences() -> list[Frame]:
    return [footer(sequences={str(n): (U64, U64) for n in range(20_000)})]


def windows_everywhere() -> list[Frame]:
    """Faults that set out to map 8 TiB each, apart from one another, so that pages are told apart by bits."""
    seen = [builders.fault(n << 48, seq=n, page_count=(1 << 31) - 1, fd=1 << 30) for n in range(9000)]
    seen += [builders.read((1 << 62) + (n << 40), (1 << 31) - 1, seq=9000 + n) for n in range(9000)]
    return [KNOWN, slots(*seen)]


def files_and_processes() -> list[Frame]:
    seen = [builders.read(file_id=1 + n, path_id=n, task_id=n, seq=n) for n in range(15_000)]
    late = [builders.name(b"a", 1 + n, ino=5) for n in range(15_000)]
    return [slots(*seen), meta(*late), slots(*(builders.read(seq=15_000 + n) for n in range(20_000)))]


BOMBS = [
    many_cpus, chained_claims, claims_that_double, long_names, no_accesses, process_events, wide_json, many_footers,
    many_sequences, windows_everywhere, files_and_processes,
]  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_small_file_takes_little_memory_and_time(tmp_path: Path, bomb: Any) -> None:
    path = tmp_path / "run.flak"
    path.write_bytes(joined(bomb()))
    size = path.stat().st_size
    assert size < 6 * MIB
    environment = os.environ | {"PYTHONPATH": str(Path(flak.__file__).parents[1])}
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), "-q", "-o", "/dev/null", "--force"],
        capture_output=True, text=True, env=environment, timeout=20,
    )  # fmt: skip
    took = time.monotonic() - begin
    *talk, peak = done.stderr.splitlines()
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    assert all(line.startswith("flak: ") for line in talk)
    assert int(peak) << 10 < 60 * MIB + 30 * size, f"{int(peak) >> 10} MiB for a file of {size} bytes"
    assert took < 8


def test_process_events_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that forks much and reads nothing: its rounds are taken in as others are."""
    monkeypatch.setattr(closing, "_MOST_WAITING", 100_000)
    decoder, table = Decoder(), closing.ClosingTable(page_size=4096)
    for n in range(300):
        table.add(flak.events.Batch(b"", decoder.learn(builders.fork(seq=n) * 5)), decoder.tables)
        assert sum(len(batch.process_events) for batch, _ in table._waiting) < 1000
