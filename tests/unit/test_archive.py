"""Archive: nothing that was put in is ever missing or different, however much came after it; and what that takes."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from dataclasses import fields
from types import BuiltinFunctionType, FunctionType, ModuleType

import builders as b
import pytest
from builders import Stream
from hypothesis import given, settings
from hypothesis import strategies as st

from flak import archive, jsontext, lines
from flak._records import CLAIM_BIT, Mark, NameFlag, Op
from flak.archive import MOST_RECENT, Archive
from flak.events import Access, Batch, Event, File, Tables, Task
from flak.jsontext import JsonText
from flak.lines import Clock, Lines
from flak.wire import Decoder

NUMBERS = st.integers(0, 400) | st.integers(CLAIM_BIT, CLAIM_BIT + 400)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["set", "get"]), NUMBERS, st.integers(0, 3)), max_size=800))
def test_it_is_a_dict(steps: list[tuple[str, int, int]]) -> None:
    kept: Archive[int] = Archive(int, int, most_recent=8)
    plain: dict[int, int] = {}
    for what, number, value in steps:
        if what == "set":
            kept[number] = plain[number] = value
        assert kept.get(number) == plain.get(number)
        assert kept.get(number, -1) == plain.get(number, -1)
        assert (number in kept) == (number in plain)
    assert kept == plain
    assert len(kept) == len(plain)
    assert sorted(kept) == sorted(plain)


def test_what_is_packed_comes_back_equal() -> None:
    tables = Tables()
    tables.paths[7] = File(
        7, 8, b"/a/\xff\n", 259, 1, 1 << 63, 0xFFFF_FFFF, 0o100644, Mark.PATH_CLAIMED | Mark.PATH_TRUNCATED,
        b"\xff\n", 1 << 60, 4026531841,
    )  # fmt: skip
    tables.tasks[7] = Task(7, 1, 2, "half \udcff", 9, 1 << 62, 1 << 61, 3, 4, 5, "ns/pod/ctr", 0xFFFF_FFFF)
    file, task = tables.paths[7], tables.tasks[7]
    assert all(getattr(task, field.name) != field.default for field in fields(Task)), "a field that is not tried"
    for n in range(100, 4 * MOST_RECENT):
        tables.paths[n] = file
        tables.tasks[n] = task
    for shown, kept in ((tables.paths[7], file), (tables.tasks[7], task)):
        assert shown is not kept
        assert shown == kept
    assert isinstance(tables.paths[7].marks, Mark)


def test_what_is_in_use_is_not_packed() -> None:
    kept: Archive[int] = Archive(int, int, most_recent=100)
    kept[0] = 0
    for n in range(1, 1000):
        kept[n] = n
        assert kept.get(0) == 0
    assert not kept._is_packed(0)
    assert kept._is_packed(1)


def test_numbers_that_no_record_has_are_missing_as_others_are() -> None:
    kept: Archive[int] = Archive(int, int, most_recent=1)
    kept.update({1: 1, 2: 2, 3: 3})
    assert kept.get(-1) is None
    assert kept.get(1 << 32) is None
    with pytest.raises(KeyError):
        kept[1 << 32]
    assert "1" not in kept


class Storm:
    """Processes that look for a file, find it by stat, make it, read it; each has another file."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.json = JsonText()
        self.lines = Lines(Clock(0, 0), page_size=4096)
        self.kept: list[Event] = []
        self.count = 0
        self._stream = Stream()

    def go_on(self, until: int) -> None:
        """Until there were so many processes, in rounds of a hundred. Of each round one event is kept."""
        while self.count < until:
            for _ in range(100):
                self.count += 1
                self._process(self.count)
            meta, slots = self._stream.round()
            events = self.decoder.decode(Batch(slots, self.decoder.learn(b"".join(meta))))
            for event in events:
                self.json(event)
                if isinstance(event, Access):
                    self.lines.access(event)
            self.kept.append(events[-1])

    def _process(self, n: int) -> None:
        looked_for, found = CLAIM_BIT | 2 * n, CLAIM_BIT | 2 * n + 1
        path = f"/srv/build/objects/{n % 97}/file-{n:08}.o"
        self._stream.know(
            b.task(n, f"job-{n}", pid=n, tid=n),
            b.claim(path, looked_for),
            b.name(path, found, file_id=2 * n, ino=n, flags=NameFlag.CLAIMED | NameFlag.FROM_STAT),
            b.name(path, n, file_id=2 * n + 1, ino=n, ino_gen=n * 7919),
        )
        self._stream.add(b.failed_open, 2, looked_for, task_id=n)
        self._stream.add(b.access, Op.STATX, path_id=found, file_id=2 * n, task_id=n)
        self._stream.add(b.read, 0, 7, path_id=n, file_id=2 * n + 1, task_id=n)


NAMES_AND_TASKS = 4  # of one process


def objects() -> Counter[str]:
    """How many there are of what a name, a task or an event is."""
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, File | Task | Event))


def size_of(thing: object, seen: set[int]) -> int:
    """Bytes that an object takes with all that it leads to, but for what is in `seen` already."""
    if id(thing) in seen or isinstance(thing, type | FunctionType | BuiltinFunctionType | ModuleType):
        return 0
    seen.add(id(thing))
    leads_to: list[object] = []
    if isinstance(thing, dict):
        leads_to += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        leads_to += thing
    leads_to.append(getattr(thing, "__dict__", None))
    for kind in type(thing).__mro__:
        leads_to += [getattr(thing, name, None) for name in getattr(kind, "__slots__", ())]
    return sys.getsizeof(thing) + sum(size_of(other, seen) for other in leads_to)


def test_a_storm_of_names_and_processes_leaves_memory_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    most, n = 256, 1500
    monkeypatch.setattr(archive, "MOST_RECENT", most)
    monkeypatch.setattr(jsontext, "_MOST_KNOWN", most)
    monkeypatch.setattr(lines, "_MOST_TEXTS", most)
    storm, before = Storm(), objects()
    sizes = []
    for count in (n, 4 * n):
        storm.go_on(count)
        kept, storm.kept = storm.kept, []
        held = objects() - before
        assert held["File"] <= 2 * most, "those in use, whatever was met"
        assert held["Task"] <= 2 * most
        assert len(storm.decoder.tables.tasks) == count
        assert max(map(len, storm.json._known.values())) <= most
        sizes.append(size_of(storm, set()))
        storm.kept = kept
    assert (sizes[1] - sizes[0]) / (3 * n) < 100 * NAMES_AND_TASKS, "bytes for each name and task"

    # And whoever holds an event from long ago is told what it was.
    last = range(100, 4 * n + 1, 100)
    assert [event.path for event in storm.kept] == [f"/srv/build/objects/{i % 97}/file-{i:08}.o" for i in last]
    assert [event.comm for event in storm.kept] == [f"job-{i}" for i in last]
    assert [event.file_id for event in storm.kept] == [2 * i for i in last], "the first of the file"
