"""Fuzzes the reader of recordings, the JSON made of them, and the closing table, with atheris (libFuzzer).

    python tests/fuzz/fuzz_tracefile.py -max_total_time=60

Every input is a whole file. It begins with the golden recording; the mutator here works on its frames (one is changed,
cut, doubled, moved or taken away) and sums each anew, so that the damage gets past the checksums, and now and then
leaves it to libFuzzer to change the bytes as they are. What must hold is in `one_input`: nothing comes out but
TraceFileError, lines are printable and parse, the table can be made. An input that breaks this is written to the
current folder as crash-…; given as an argument it is run again.

Inputs that are worth keeping go to a folder given as an argument; options are libFuzzer's (-help=1). `fuzz_wire.py`
does the same one level below. Needs `pip install atheris`, which is why it is not among the tests.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "unit")]

try:
    import atheris
except ImportError:
    sys.exit("this needs atheris: pip install atheris")

with atheris.instrument_imports(include=["flak"]):
    from flak.analysis import analyse
    from flak.cli.console import Console
    from flak.cli.replay import view
    from flak.cli.request import Display
    from flak.errors import TraceFileError
    from flak.events import as_dict
    from flak.outlets import encoded
    from flak.report import render_summary
    from flak.tracefile import Chunk, Recording

GOLDEN = ROOT / "tests" / "data" / "golden.flak"
LONGEST = 1 << 14
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, (1 << 63) - 1, 1 << 63)

READ = (
    "clock_anchors", "events", "page_size", "mnt_ns", "counters", "sequences", "clock", "boot_ns", "realtime_ns",
    "lost", "filtered", "matched", "written",
)  # fmt: skip
"""Entries that the reader looks at."""
VALUES = (None, True, 0, 1, -1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**400, 1e308, "", "\u202e\n", "5", [], {}, [[1, 2]])

Frame = tuple[bytes, bytes]
"""The first 8 bytes, the payload."""


def frames_of(data: bytes) -> list[Frame]:
    """The frames of a file, as far as it has any; checksums are not looked at."""
    found, at = [], 0
    while len(data) - at >= 16:
        (length,) = struct.unpack_from("<I", data, at + 8)
        found.append((data[at : at + 8], data[at + 16 : at + 16 + length]))
        at += 16 + length + -length % 8
    return found


def joined(frames: list[Frame]) -> bytes:
    """A file of these frames, lengths, checksums and the pointer to the footer mended."""
    data, end_at = b"", 0
    for head, payload in frames:
        kind = int.from_bytes(head[:4], "little")
        if kind == Chunk.END_AT:
            payload = struct.pack("<Q", end_at)
        elif kind == Chunk.END:
            end_at = len(data)
        head += struct.pack("<I", len(payload))
        data += head + struct.pack("<I", zlib.crc32(head + payload)) + payload + bytes(-len(payload) % 8)
    return data


def changed(payload: bytes, dice: random.Random, size: int) -> bytes:
    """A payload with a value, some bytes or some of its end another."""
    if payload.startswith(b"{") and dice.randrange(4):
        with contextlib.suppress(ValueError, RecursionError):
            return json.dumps(another_value(json.loads(payload), dice)).encode()
    where = dice.randrange(len(payload) + 1)
    match dice.randrange(8):
        case 0:
            return payload[: where - where % dice.choice((1, 8, 72))]
        case 1:
            return payload[:where] + payload[dice.randrange(len(payload) + 1) :]
        case 2:
            return bytes(atheris.Mutate(payload, max(size, 1))) if payload else b""
    width = dice.choice((1, 2, 4, 4, 8, 8))
    where -= where % width
    number = (dice.choice(EDGES) if dice.random() < 0.7 else dice.getrandbits(64)) & (1 << 8 * width) - 1
    return payload[:where] + number.to_bytes(width, "little") + payload[where + width :]


def another_value(value: object, dice: random.Random) -> object:
    """JSON with one value in it, however deep, replaced."""
    if isinstance(value, dict) and value and dice.randrange(8):
        name = dice.choice(READ if dice.randrange(4) else tuple(value))
        return value | {name: another_value(value.get(name), dice)}
    if isinstance(value, list) and value and dice.randrange(4):
        at = dice.randrange(len(value))
        return [*value[:at], another_value(value[at], dice), *value[at + 1 :]]
    return dice.choice(VALUES)


def mutated(data: bytes, size: int, seed: int) -> bytes:
    """Another file: frames changed and summed anew, or (one in eight) bytes changed as libFuzzer likes."""
    dice = random.Random(seed)
    frames = frames_of(data)
    if len(frames) < 2 or not dice.randrange(8):
        return bytes(atheris.Mutate(data, size))
    for _ in range(1 + dice.randrange(3)):
        at = dice.randrange(len(frames))
        head, payload = frames[at]
        match dice.randrange(8):
            case 0:
                frames.insert(dice.randrange(1, len(frames) + 1), frames[at])
            case 1 if len(frames) > 2:
                del frames[at]
            case 2:
                other = dice.randrange(len(frames))
                frames[at], frames[other] = frames[other], frames[at]
            case 3:
                frames[at] = (struct.pack("<II", dice.randrange(7), 0), payload)
            case _:
                frames[at] = (head, changed(payload, dice, LONGEST // 2))
    result = joined(frames)
    return result if len(result) <= size else data[:size]


def crossed(one: bytes, other: bytes, size: int, seed: int) -> bytes:
    """The beginning of one file and the end of another, cut between frames."""
    dice = random.Random(seed)
    a, b = frames_of(one), frames_of(other)
    result = joined(a[: dice.randrange(len(a) + 1)] + b[dice.randrange(len(b) + 1) :])
    return result if len(result) <= size else one[:size]


class Kept(io.RawIOBase):
    """A stream that keeps what is written."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def write(self, data: object) -> int:
        self.parts.append(bytes(data))  # type: ignore[call-overload]
        return len(self.parts[-1])

    @property
    def text(self) -> str:
        return b"".join(self.parts).decode()


DISPLAYS = [
    Display.parse(
        output="", json=is_json, wide=is_wide, timestamp=time, fields=[], color="never", force=False, summary=False,
        no_summary=False,
    )
    for is_json, is_wide, time in ((True, False, ""), (False, True, "wall"), (False, False, "unix"))
]  # fmt: skip
QUIET = Console(is_quiet=True)


def one_input(data: bytes) -> None:
    """Read a file in all ways there are."""
    path.write_bytes(data)
    try:
        with Recording(path) as source, contextlib.redirect_stderr(io.StringIO()):
            for event in source:
                encoded(json.dumps(as_dict(event), ensure_ascii=False, allow_nan=False)).decode()
            rows = analyse(source)
            render_summary(rows, source.stats, duration_s=1.0, width=80)
            for display in DISPLAYS:
                out = Kept()
                view(source, display, QUIET, lines=out, closing=out)
                lines = out.text.split("\n")
                assert not lines.pop()
                for line in lines:
                    assert line.isprintable(), ascii(line)
                    if display.form == "json":
                        json.loads(line)
    except TraceFileError as error:
        assert error.message


def main() -> None:
    """Fuzz until told to stop."""
    warnings.simplefilter("error")
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-seeds-"))
    (corpus / "golden").write_bytes(GOLDEN.read_bytes())
    options = [*sys.argv, *([] if any(a.startswith("-max_len") for a in sys.argv) else [f"-max_len={LONGEST}"])]
    if not any(not a.startswith("-") and Path(a).is_file() for a in sys.argv[1:]):
        options.append(str(corpus))
    atheris.Setup(options, one_input, custom_mutator=mutated, custom_crossover=crossed)
    atheris.Fuzz()


path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "input.flak"

if __name__ == "__main__":
    main()
