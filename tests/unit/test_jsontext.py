"""Objects made from templates are those that json.dumps makes, byte for byte."""

from __future__ import annotations

import dataclasses
import errno
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flak.events import (
    CLASS_OF_OP,
    WORDS,
    Access,
    Counters,
    Event,
    Exec,
    Exit,
    File,
    Fork,
    Lost,
    Mark,
    Op,
    Operands,
    Tables,
    Task,
    as_dict,
)
from flak.jsontext import JsonText

KNOWN = range(1, 5)
NAMES = [b"/data/shard-00042.tar", b"", b'/odd\x1b[2J\xff "name"', "/日本/%s".encode()]


def make_tables() -> Tables:
    tables = Tables()
    for number, path in zip(KNOWN, NAMES, strict=True):
        tables.paths[number] = File(number, number, path, 8, 1, 70 + number, 0, 0o100644, marks=Mark.PATH_TRUNCATED)
        tables.tasks[number] = Task(
            number, 4242, 4242 + number, 'half \udcff"', ns_pid=number % 2 or None, cgroup_id=5, mnt_ns=9
        )
    tables.files.update({1: 1, 2: 1, 3: 3})  # the fourth is not known yet
    return tables


NUMBER = st.integers(-1, 1 << 62)
ID = st.integers(0, 6)  # some of them known
MARKS = st.sampled_from([0, *map(int, Mark)]) | st.integers(0, (1 << 20) - 1)
OPERANDS = st.builds(
    Operands,
    **{
        field.name: ID if field.name.endswith("_id") else st.none() | st.integers(0, 1 << 40)
        for field in dataclasses.fields(Operands)
    },
)
ACCESSES = st.builds(
    lambda op, **fields: CLASS_OF_OP.get(op, Access)(opcode=op, tables=TABLES, **fields),
    op=st.sampled_from([*map(int, CLASS_OF_OP), int(Op.NONE), 0x7777]),
    ts_ns=st.integers(0, 1 << 62),
    raw_latency=NUMBER,
    raw_offset=NUMBER,
    raw_size=NUMBER,
    raw_ret=st.sampled_from([-errno.ENOENT, -errno.EIO, -512, -4097, -1, 0]) | st.integers(0, 1 << 30),
    task_id=ID,
    raw_file_id=ID,
    path_id=ID,
    raw_fd=st.integers(-1, 9),
    seq=st.integers(0, 1 << 32),
    raw_marks=MARKS,
    cpu=st.integers(0, 255),
    operands=OPERANDS | st.just(Operands()),
)
TABLES = make_tables()
WHO: dict[str, Any] = {"ts_ns": NUMBER, "task_id": ID, "seq": ID, "cpu": ID, "tables": st.just(TABLES)}
EVENTS = st.one_of(
    ACCESSES,
    st.builds(Fork, **WHO, child_pid=ID, child_tid=ID),
    st.builds(Exec, **WHO, old_tid=ID, raw_file_id=ID, path_id=ID, raw_argv0=st.binary(max_size=9)),
    st.builds(Exit, **WHO, exit_code=ID, is_last=st.booleans()),
    st.builds(Lost, ID, ID, ID, ID),
    st.builds(Counters, matched=ID, lost=st.dictionaries(st.text(), ID)),
)


def dumped(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


@given(st.lists(EVENTS, max_size=20))
def test_an_object_is_what_json_dumps_makes_of_the_event(events: list[Event]) -> None:
    text = JsonText()
    for event in [*events, *events]:  # what is remembered is what was made
        assert text(event) == dumped(as_dict(event))


@given(st.lists(EVENTS, max_size=20), st.lists(st.sampled_from(WORDS), min_size=1, unique=True))
def test_fields_are_those_chosen_in_that_order(events: list[Event], fields: list[str]) -> None:
    text = JsonText(fields)
    for event in [*events, *events]:
        values = as_dict(event)
        is_whole = isinstance(event, Lost | Counters)
        assert text(event) == dumped(values if is_whole else {word: values[word] for word in fields})


def test_what_is_learnt_late_is_told_from_then_on() -> None:
    tables = Tables()
    event = CLASS_OF_OP[Op.READ](1, 2, 3, 4, 4, 1, 1, 1, 7, 0, 0, int(Op.READ), 0, tables)
    text = JsonText()
    assert json.loads(text(event))["path"] is None
    tables.paths[1], tables.tasks[1] = TABLES.paths[1], TABLES.tasks[1]
    assert text(event) == dumped(as_dict(event))
    tables.files[1] = 77
    assert json.loads(text(event))["file_id"] == 77
    tables.tasks[1] = dataclasses.replace(tables.tasks[1], container="web")
    tables.paths[1] = dataclasses.replace(tables.paths[1], ino=78)
    assert text(event) == dumped(as_dict(event)), "a number was told again"


@pytest.mark.parametrize("word", WORDS)
def test_every_word_can_stand_alone(word: str) -> None:
    event = CLASS_OF_OP[Op.READ](1, 2, 3, 4, 4, 1, 1, 1, 7, 0, 0, int(Op.READ), 0, TABLES)
    assert JsonText([word])(event) == dumped({word: as_dict(event)[word]})
