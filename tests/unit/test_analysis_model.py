"""The analysis against a model that a reader can check in a minute, on streams nobody thought of."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from unittest.mock import patch

from access_slots import PAGE, access, fault, make_tables, results
from hypothesis import given, settings
from hypothesis import strategies as st

from flak.analysis import FilePatterns, FileRow
from flak.events import Batch, Op

_KIND = {Op.READ: "read", Op.PREAD64: "read", Op.WRITE: "write", Op.FAULT: "fault"}

accesses = st.tuples(
    st.sampled_from([Op.READ, Op.PREAD64, Op.WRITE, Op.FAULT, Op.CLOSE]),
    st.one_of(st.none(), st.integers(0, 40)),  # offset, of a fault in pages
    st.integers(0, 12),  # size asked
    st.sampled_from([0, 0, 0, 1, 3, -5]),  # how much less came, or an error
    st.integers(1, 3),  # file
    st.integers(1, 3),  # task
    st.sampled_from([0, 1000, 4000, 16000, None]),  # latency
)
Access = tuple[int, int | None, int, int, int, int, int | None]


def to_slot(number: int, a: Access) -> bytes:
    op, offset, size, missing, file, task, latency = a
    if op == Op.FAULT:
        return fault(offset or 0, size, size // 3, file=file, task=task, latency=latency, ts=number)
    ret = missing if missing < 0 else max(size - missing, 0)
    return access(op, offset, size, ret, file=file, task=task, latency=latency, ts=number)


def model(stream: list[Access]) -> dict[int, dict[str, object]]:
    """The figures of each file, from sets of bytes and pages."""
    last_byte: dict[tuple[int, int, str], int] = defaultdict(int)
    figures: dict[int, Counter[str]] = defaultdict(Counter)
    touched: dict[tuple[int, str], set[int]] = defaultdict(set)
    values: dict[tuple[int, str], list[int]] = defaultdict(list)
    for op, offset, size, missing, file, task, latency in stream:
        kind = _KIND.get(op)
        if kind is None:
            continue
        of = figures[file]
        if kind == "fault":
            offset, moved, window = (offset or 0) * PAGE, 1, max(size, 1)
            first = max((offset // PAGE) - size // 3, 0)
            places = range(first, first + window)
        elif missing < 0:
            of["failed"] += 1
            continue
        else:
            moved = max(size - missing, 0)
            of[f"{kind}_bytes"] += moved
            values[file, "size"].append(size)
            places = range(0 if offset is None else offset, 0 if offset is None else offset + moved)
        of[f"{kind}_count"] += 1
        if latency is not None:
            values[file, "fault" if kind == "fault" else "call"].append(latency)
        if offset is None:
            continue
        cursor = (file, 200 if task == 2 else 100, kind)
        of[f"{kind}_sequential"] += offset > last_byte[cursor]
        of[f"{kind}_consecutive"] += offset == last_byte[cursor] + 1
        last_byte[cursor] = offset + moved - 1
        touched[file, kind] |= set(places)
    return {
        file: {
            **of,
            **{f"{kind}_unique": len(touched[file, kind]) for kind in ("read", "write", "fault")},
            **{f"{what}_values": sorted(values[file, what]) for what in ("size", "call", "fault")},
        }
        for file, of in figures.items()
    }


def assert_is(row: FileRow, expected: dict[str, object]) -> None:
    for kind in ("read", "write"):
        assert getattr(row, f"{kind}_count") == expected.get(f"{kind}_count", 0)
        assert getattr(row, f"{kind}_bytes") == expected.get(f"{kind}_bytes", 0)
        assert getattr(row, f"unique_{kind}_bytes") == expected[f"{kind}_unique"]
        assert getattr(row, f"{kind}_sequential_count") == expected.get(f"{kind}_sequential", 0)
        assert getattr(row, f"{kind}_consecutive_count") == expected.get(f"{kind}_consecutive", 0)
    assert row.fault_count == expected.get("fault_count", 0)
    assert row.fault_pages == expected["fault_unique"]
    assert row.fault_sequential_count == expected.get("fault_sequential", 0)
    assert row.failed_count == expected.get("failed", 0)
    for what, p50_ns, p99_ns in (
        ("call", row.call_p50_ns, row.call_p99_ns),
        ("fault", row.fault_p50_ns, row.fault_p99_ns),
    ):
        latencies = expected[f"{what}_values"]
        assert isinstance(latencies, list)
        assert p50_ns == (latencies[(len(latencies) + 1) // 2 - 1] if latencies else None)
        assert p99_ns == (latencies[-(-len(latencies) * 99 // 100) - 1] if latencies else None)
    sizes = Counter(expected["size_values"])  # type: ignore[call-overload]
    assert row.typical_size == (max(sizes, key=lambda size: (sizes[size], size)) if sizes else None)


@settings(deadline=None)
@given(st.lists(accesses, max_size=60), st.integers(1, 20), st.sampled_from([1 << 16, 5]))
def test_model_agrees(stream: list[Access], chunk: int, patience: int) -> None:
    slots = b"".join(to_slot(number, a) for number, a in enumerate(stream))
    with (
        patch("flak.analysis.files._CHUNK", chunk),
        patch("flak.analysis.intervals._PATIENCE", patience),
        patch("flak.analysis.histogram._PATIENCE", patience),
        patch("flak.analysis.histogram._MANY", 4),
    ):
        rows = results(slots)
    expected = model(stream)
    assert {row.file_id for row in rows} == set(expected)
    for row in rows:
        assert_is(row, expected[row.file_id])


@settings(deadline=None)
@given(st.lists(accesses, max_size=60), st.lists(st.integers(0, 60), max_size=8), st.integers(1, 20))
def test_any_split_into_batches_gives_the_same(stream: list[Access], cuts: list[int], chunk: int) -> None:
    slots = [to_slot(number, a) for number, a in enumerate(stream)]
    with patch("flak.analysis.files._CHUNK", chunk), patch("flak.analysis.intervals.MAX_RANGES", 3):
        whole, split = FilePatterns(), FilePatterns()
        whole.add(Batch(b"".join(slots)), make_tables())
        tables = make_tables()
        for begin, end in pairwise([0, *sorted(cuts), len(slots)]):
            split.add(Batch(b"".join(slots[begin:end])), tables)
        assert split.results() == whole.results()
