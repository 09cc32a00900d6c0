"""Fuzzes the decoder of the two rings, and the figures made of what it decodes, with atheris (libFuzzer).

    python tests/fuzz/fuzz_wire.py -max_total_time=60

An input is a run: a letter (m: a span of the meta ring, s: one of the access ring), a length of 4 bytes, the span, and
so on. It begins with the spans of the golden recording; the mutator here works on single records and slots, and mends
the sizes in them, so that most of what it makes gets past the decoder's checks. What must hold is in `one_input`:
nothing comes out but TraceFileError, and every event can be said as JSON and as a line. `fuzz_tracefile.py` has the
rest: options, where inputs go that break this, and the rest of a recording. Needs `pip install atheris`.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "unit")]

try:
    import atheris
except ImportError:
    sys.exit("this needs atheris: pip install atheris")

with atheris.instrument_imports(include=["flak"]):
    from flak._records import SLOT_SIZE, Op
    from flak.analysis import FilePatterns
    from flak.errors import TraceFileError
    from flak.events import WORDS, Access, Batch, Lost, as_dict
    from flak.jsontext import JsonText
    from flak.lines import Clock, Lines
    from flak.wire import Decoder, count_accesses, count_process_events

GOLDEN = ROOT / "tests" / "data" / "golden.flak"
LONGEST = 1 << 13
EDGES = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

Span = tuple[bytes, bytes]
"""b"m" or b"s", and the bytes."""


def spans_of(data: bytes) -> list[Span]:
    """The spans of an input; bytes that are too few for one are left out."""
    found, at = [], 0
    while len(data) - at >= 5:
        (length,) = struct.unpack_from("<I", data, at + 1)
        found.append((data[at : at + 1], data[at + 5 : at + 5 + length]))
        at += 5 + length
    return found


def joined(spans: list[Span]) -> bytes:
    """An input of these spans."""
    return b"".join(letter + struct.pack("<I", len(span)) + span for letter, span in spans)


def golden() -> bytes:
    """The golden recording's spans."""
    data, spans, at = GOLDEN.read_bytes(), [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<I4xI", data, at)
        if at and kind in (1, 2):
            spans.append((b"xsm"[kind : kind + 1], data[at + 16 : at + 16 + length]))
        at += 16 + length + -length % 8
    return joined(spans)


def pieces_of(letter: bytes, span: bytes) -> list[bytes]:
    """The slots or records of a span."""
    found, at = [], 0
    while at < len(span):
        size = SLOT_SIZE if letter == b"s" else max(int.from_bytes(span[at + 2 : at + 4], "little"), 4)
        found.append(span[at : at + size])
        at += size
    return found


def changed(piece: bytes, dice: random.Random) -> bytes:
    """A slot or record with a number or some of its bytes another."""
    where = dice.randrange(len(piece))
    if dice.randrange(3):
        width = dice.choice((1, 2, 4, 4, 8, 8))
        where -= where % width
        number = dice.choice(EDGES) if dice.random() < 0.7 else dice.getrandbits(64)
        return piece[:where] + (number & (1 << 8 * width) - 1).to_bytes(width, "little") + piece[where + width :]
    return bytes(atheris.Mutate(piece, len(piece) + 64))


def mutated(data: bytes, size: int, seed: int) -> bytes:
    """Another run: records changed, doubled, moved or taken away; now and then bytes as libFuzzer likes."""
    dice = random.Random(seed)
    spans = spans_of(data)
    if not spans or not dice.randrange(8):
        return bytes(atheris.Mutate(data, size))
    for _ in range(1 + dice.randrange(4)):
        at = dice.randrange(len(spans))
        letter, span = spans[at]
        pieces = pieces_of(letter, span)
        if not pieces or not dice.randrange(12):
            spans.insert(dice.randrange(len(spans) + 1), spans[dice.randrange(len(spans))])
            continue
        which = dice.randrange(len(pieces))
        match dice.randrange(6):
            case 0:
                pieces.insert(dice.randrange(len(pieces) + 1), pieces[which])
            case 1:
                del pieces[which]
            case 2:
                other = dice.randrange(len(pieces))
                pieces[which], pieces[other] = pieces[other], pieces[which]
            case _:
                pieces[which] = changed(pieces[which], dice)
                if letter == b"m" and len(pieces[which]) >= 4 and dice.randrange(8):
                    pieces[which] = pieces[which][:2] + struct.pack("<H", len(pieces[which])) + pieces[which][4:]
        spans[at] = (letter, b"".join(pieces))
    result = joined(spans)
    return result if len(result) <= size else data[:size]


def one_input(data: bytes) -> None:
    """Decode a run as live sessions and recordings do, and look at all that comes of it."""
    decoder = Decoder()
    tables = decoder.tables
    patterns = FilePatterns()
    text = JsonText()
    lines = Lines(Clock(0, 0), timestamp="wall", page_size=4096)
    lines.fit(80)
    happened = []
    for letter, span in spans_of(data):
        try:
            if letter == b"m":
                happened += decoder.learn(span)
                count_process_events([span])
                continue
            batch = Batch(span, happened)
            happened = []
            events = decoder.decode(batch)
        except TraceFileError as error:
            assert error.message
            continue
        patterns.add(batch, tables)
        put_aside = sum(high == Op.PUT_ASIDE >> 8 for high in span[SLOT_SIZE - 3 :: SLOT_SIZE])
        assert sum(isinstance(event, Access) for event in events) <= count_accesses(span) + put_aside
        for event in events:
            value = as_dict(event)
            said = text(event)
            assert json.loads(said) == json.loads(json.dumps(value)), said
            assert said.isprintable(), ascii(said)
            line = lines.access(event) if isinstance(event, Access) else ""
            line = line or (lines.lost(event) if isinstance(event, Lost) else lines.process(event))
            assert line.endswith("\n") and line[:-1].isprintable(), ascii(line)
            if not isinstance(event, Lost):
                assert tuple(value) == WORDS
    for lost in decoder.tail({0: ((1 << 64) - 1, 5)}):
        assert lost.count > 0
    for row in patterns.results():
        assert row.path.isprintable()
        assert min(row.read_count, row.write_count, row.fault_count, row.failed_count, row.unique_read_bytes) >= 0
        assert row.typical_size is None or row.typical_size >= 0


def main() -> None:
    """Fuzz until told to stop."""
    warnings.simplefilter("error")
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-seeds-"))
    (corpus / "golden").write_bytes(golden())
    options = [*sys.argv, *([] if any(a.startswith("-max_len") for a in sys.argv) else [f"-max_len={LONGEST}"])]
    if not any(not a.startswith("-") and Path(a).is_file() for a in sys.argv[1:]):
        options.append(str(corpus))
    atheris.Setup(options, one_input, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
