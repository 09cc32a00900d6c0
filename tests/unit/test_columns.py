"""Columns that were asked for: which there are, in what order, how wide, and what they say."""

from __future__ import annotations

import json
import re

import pytest
from test_sinks import START, TABLES, Stream, a_fault, a_read, access, lines

from flak.columns import ALIASES, chosen
from flak.errors import UsageError
from flak.events import WORDS, Event, Exec, Fork, Lost, Mark, Op, Open, Operands
from flak.outlets import Direct
from flak.sinks import JsonLinesSink

USUAL = ("time", "comm", "tid", "op", "offset", "size", "lat", "file")


CODE = "\033\\[[0-9]*m"


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(CODE, "", text)


def line(event: Event, *fields: str, width: int | None = None, color: bool = False) -> str:
    return lines(event, fields=fields, width=width, color=color)[1]


# names


def test_words_of_json_and_the_titles_of_the_usual_columns_are_known() -> None:
    assert chosen([*WORDS, *USUAL], is_json=False) == (*WORDS, *USUAL)
    assert set(USUAL) == {*ALIASES, "comm", "tid", "op"}
    assert set(ALIASES.values()) <= set(WORDS)


def test_json_has_the_words_for_usual_columns_once() -> None:
    assert chosen(["time", "op", "file", "path", "size"], is_json=True) == ("ts_ns", "op", "path", "size_ret")


@pytest.mark.parametrize(
    ("name", "near"), [("ofset", "offset"), ("latency", "latency_ns"), ("Path", "path"), ("zzz", None)]
)
@pytest.mark.parametrize("is_json", [False, True])
def test_an_unknown_name_is_refused_with_the_known_ones_and_the_nearest(
    name: str, near: str | None, is_json: bool
) -> None:
    with pytest.raises(UsageError, match=f"--fields '{name}' is not known") as error:
        chosen(["op", name], is_json=is_json)
    assert near is None or error.value.message.endswith(f"did you mean {near}?")
    assert (near is None) == ("did you mean" not in error.value.message)
    assert error.value.hint is not None
    assert re.findall(r"\w+", error.value.hint.partition(":")[2]) == [*ALIASES, *WORDS]


# text


@pytest.mark.parametrize("width", [None, 80, 120])
@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize(
    "event",
    [
        a_read(), a_fault(), a_fault(raw_ret=0), a_read(raw_latency=10_000_000), a_read(raw_ret=-5), a_read(path_id=99),
        access(Open, Op.OPENAT, raw_ret=5, operands=Operands(open_flags=0, new_fd=5)),
        a_read(raw_ret=0, raw_latency=9, raw_marks=int(Mark.UNFINISHED)),
        Fork(START, 1, 0, 0, TABLES, child_pid=7, child_tid=7),
        Exec(START, 1, 0, 0, TABLES, path_id=1, raw_argv0=b"x"),
    ],
)  # fmt: skip
def test_the_usual_columns_can_be_asked_for(event: Event, width: int | None, color: bool) -> None:
    asked, usual = (lines(event, fields=fields, width=width, color=color) for fields in (USUAL, ()))
    assert [plain(text) for text in asked] == [plain(text) for text in usual]
    assert [re.findall(CODE, text) for text in asked] == [re.findall(CODE, text) for text in usual]


def test_columns_stand_in_the_order_asked_for() -> None:
    header, text = lines(a_read(), fields=("op", "size_ret", "pid", "file_offset", "path"))
    assert header == "OP          SIZE_RET     PID   FILE_OFFSET PATH"
    assert text == "pread64       131072    4242        131072 /data/train/shard-00042.tar"


@pytest.mark.parametrize("word", WORDS)
def test_every_word_can_be_a_column(word: str) -> None:
    header, text = lines(a_read(), fields=("op", word, "pid"))
    assert header.split() == ["OP", word.upper(), "PID"]
    assert len(header) == len(text)


def test_a_column_says_what_json_says_without_quotes() -> None:
    stream = Stream()
    sink = JsonLinesSink(Direct(stream))
    event = a_fault(raw_marks=int(Mark.IS_MAJOR | Mark.KERNEL_FAULT | Mark.OFFSET_SHARED))
    sink.write([event])
    sink.close()
    values = json.loads(stream.data)
    for word, value in values.items():
        text = line(event, word).strip()
        if value is None or value == []:
            assert text == "-", word
        elif isinstance(value, bool):
            assert text == str(value).lower()
        else:
            assert text == (",".join(value) if isinstance(value, list) else str(value))


def test_numbers_stand_on_the_right_and_texts_on_the_left() -> None:
    for text in lines(a_read(), a_read(raw_offset=7), fields=("file_offset", "op", "cpu"))[1:]:
        assert re.fullmatch(r" +\d+ pread64    +0", text)


def test_behind_the_last_column_there_are_no_blanks() -> None:
    for fields in (("pid", "op"), ("op", "path"), ("size", "comm"), ("path", "errno"), ("time", "kind")):
        for text in lines(a_read(), a_fault(), fields=fields):
            assert text == text.rstrip()


def test_a_path_that_is_not_last_is_padded_and_in_a_pipe_never_shortened() -> None:
    header, text = lines(a_read(), fields=("path", "op"))
    assert header.index("OP") == text.index("pread64") == 41
    TABLES.paths[40] = type(TABLES.paths[1])(40, 40, b"/" + b"long/" * 20 + b"x", 8, 1, 9, 0, 0o100644)
    assert line(a_read(path_id=40), "path", "op") == f"/{'long/' * 20}x pread64"


@pytest.mark.parametrize("fields", [("op", "path"), ("path", "op"), ("file", "op", "path", "pid"), ("path", "lat")])
def test_on_a_terminal_paths_share_what_the_others_leave(fields: tuple[str, ...]) -> None:
    TABLES.paths[40] = type(TABLES.paths[1])(40, 40, b"/" + b"long/" * 20 + b"x", 8, 1, 9, 0, 0o100644)
    for color in (False, True):
        texts = lines(a_read(path_id=40), a_fault(), fields=fields, width=80, color=color)
        bare = [plain(text) for text in texts]
        assert all(len(text) <= 80 for text in bare), bare
        assert "…" in bare[1]
        starts = {text.index("pread64" if "pread64" in text else "fault") for text in bare[1:] if "op" in fields}
        assert len(starts) <= 1, "colours take no room"


def test_losses_have_their_line_whatever_the_columns() -> None:
    assert lines(Lost(START, 3, 17, 511), fields=("pid",))[1] == "  0.0000 *** lost 511 events on cpu 3: ring_full ***"


def test_process_events_have_lines_of_the_same_columns() -> None:
    fork = Fork(START, 1, 0, 0, TABLES, child_pid=4300, child_tid=4300)
    assert line(fork, "op", "child_pid", "path") == "fork          4300 -"
