"""Lines for people and for programs: every column, every note, and what happens when nobody reads."""

from __future__ import annotations

import errno
import io
import json
import os
import time
from collections.abc import Callable, Sequence

import pytest

from flak.errors import OutputError
from flak.events import (
    WORDS,
    Access,
    Close,
    Counters,
    Dup,
    Event,
    Exec,
    Exit,
    Fault,
    File,
    Fork,
    Lost,
    Mark,
    Mmap,
    Munmap,
    Op,
    Open,
    Operands,
    Read,
    Seek,
    Tables,
    Task,
    Unlink,
    Write,
)
from flak.lines import Clock
from flak.outlets import Collected, Direct, Outlet, ReaderGone
from flak.sinks import JsonLinesSink, Sink, TextSink, hidden_as_json, hidden_as_text

START = 5_000_000_000
WALL = 1_700_000_000_000_000_000  # what the wall clock shows at START
CLOCK = Clock(start_ns=START, wall_offset_ns=WALL - START)


def tables() -> Tables:
    found = Tables()
    found.tasks[1] = Task(task_id=1, pid=4242, tid=4243, comm="a-long-comm-15c")
    for number, path in enumerate((b"/data/train/shard-00042.tar", b"rel/missing", b"", b"/odd\x1b[2J\xff name"), 1):
        found.paths[number] = File(number, number, path, 8, 1, 70 + number, 0, 0o100644)
    found.paths[2] = File(2, 0, b"rel/missing", 0, 0, 0, 0, 0, raw_claim=b"rel/missing")
    found.paths[5] = File(5, 5, b"/gone", 8, 1, 75, 0, 0o100644, marks=Mark.DELETED)
    return found


TABLES = tables()


def access(kind: type[Access], op: Op, **fields: object) -> Access:
    """An access of task 1 on path 1, a millisecond and a half after the start; the call took 91 us."""
    usual: dict[str, object] = {
        "ts_ns": START + 1_500_000,
        "raw_latency": 91_000,
        "raw_offset": -1,
        "raw_size": -1,
        "raw_ret": 0,
        "task_id": 1,
        "raw_file_id": 1,
        "path_id": 1,
        "raw_fd": 7,
        "seq": 0,
        "raw_marks": 0,
        "opcode": int(op),
        "cpu": 0,
        "tables": TABLES,
    }
    return kind(**{**usual, **fields})  # type: ignore[arg-type]


def a_read(**fields: object) -> Access:
    return access(Read, Op.PREAD64, **{"raw_offset": 131072, "raw_size": 131072, "raw_ret": 131072, **fields})


class Stream(io.RawIOBase):
    """Keeps what was written, a few bytes at a time as a slow pipe takes them."""

    def __init__(self, at_most: int = 1 << 20) -> None:
        self.data = b""
        self.writes = 0
        self.at_most = at_most

    def write(self, data: bytes) -> int:  # type: ignore[override]
        taken = bytes(data[: self.at_most])
        self.data += taken
        self.writes += 1
        return len(taken)


class Broken(io.RawIOBase):
    """Fails with an errno."""

    name = "/full/disk"

    def __init__(self, number: int) -> None:
        self.number = number

    def write(self, data: bytes) -> int:  # type: ignore[override]
        raise OSError(self.number, os.strerror(self.number))


def lines(
    *events: Event, width: int | None = None, color: bool = False, timestamp: str = "rel", fields: Sequence[str] = ()
) -> list[str]:
    """What a text sink makes of events, header first."""
    stream = Stream()
    sink = TextSink(
        Direct(stream),
        CLOCK,
        width=lambda: width,
        color=color,
        timestamp=timestamp,
        page_size=4096,
        fields=fields,
    )
    sink.write(events)
    sink.close()
    return stream.data.decode().splitlines()


def line(event: Event, **more: object) -> str:
    return lines(event, **more)[1]  # type: ignore[arg-type]


# columns


def test_a_transfer_fills_every_column() -> None:
    header, text = lines(a_read())
    assert header == " TIME(s) COMM                TID OP       OFFSET  SIZE    LAT FILE"
    assert text == "  0.0015 a-long-comm-15c    4243 pread64    128K  128K   91us /data/train/shard-00042.tar"


def test_columns_of_equal_lines_are_equal() -> None:
    first, second = lines(a_read(), a_read())[1:]
    assert first == second, "pieces that are remembered are the pieces that were made"


def test_a_whole_line_fits_eighty_columns() -> None:
    for text in lines(a_read(), a_fault(), width=80):
        assert len(text) <= 80


def a_fault(**fields: object) -> Access:
    return access(
        Fault, Op.FAULT, **{"raw_offset": 1342177280, "raw_size": 0x7F00, "raw_ret": 16, "raw_fd": 3, **fields}
    )


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (a_fault(), "fault      1.2G 64.0K   91us /data/train/shard-00042.tar  minor r"),
        (a_fault(raw_marks=int(Mark.IS_MAJOR | Mark.IS_WRITE)), "91us /data/train/shard-00042.tar  major w"),
        (a_fault(raw_marks=int(Mark.KERNEL_FAULT)), "/data/train/shard-00042.tar  minor r  kernel_fault"),
        (a_fault(raw_ret=0), "fault      1.2G     -   91us"),
        (a_read(raw_ret=0), "pread64    128K    0B   91us /data/train/shard-00042.tar  of 128K"),
        (a_read(raw_ret=-errno.EIO), "pread64    128K  128K   91us /data/train/shard-00042.tar  EIO"),
        (a_read(raw_ret=-512, raw_marks=int(Mark.INTERRUPTED)), "128K   91us /data/train/shard-00042.tar  interrupted"),
        (access(Write, Op.WRITE, raw_offset=0, raw_size=9, raw_ret=9), "write        0B    9B   91us /data"),
        (a_read(raw_latency=-1), "pread64    128K  128K      - /data"),
        (
            a_read(raw_ret=0, raw_latency=12_300_000_000, raw_marks=int(Mark.UNFINISHED)),
            "pread64    128K  128K   >12s /data/train/shard-00042.tar  unfinished",
        ),
        (a_read(path_id=5), "/gone  deleted"),
        (a_read(raw_marks=int(Mark.OFFSET_SHARED)), "/data/train/shard-00042.tar  offset_shared"),
        (access(Close, Op.CLOSE), "close         -     -   91us /data/train/shard-00042.tar  fd 7"),
        (access(Dup, Op.DUP2, operands=Operands(new_fd=9)), "/data/train/shard-00042.tar  fd 7  to 9"),
        (
            access(Seek, Op.LSEEK, raw_offset=4096, raw_size=1, operands=Operands(arg_offset=4096)),
            "lseek      4.0K     -   91us /data/train/shard-00042.tar  SEEK_CUR 4096",
        ),
        (
            access(Mmap, Op.MMAP, raw_offset=0, raw_size=8192, operands=Operands(addr=1, prot=5, map_flags=2)),
            "mmap         0B  8.0K   91us /data/train/shard-00042.tar  r-xp",
        ),
        (
            access(Mmap, Op.MMAP, raw_offset=0, raw_size=8192, operands=Operands(addr=1, prot=3, map_flags=1)),
            "  rw-s",
        ),
        (access(Munmap, Op.MUNMAP, raw_offset=0, raw_size=8192), "munmap       0B  8.0K   91us /data"),
        (access(Unlink, Op.UNLINKAT, operands=Operands(flags=0x200)), "  AT_REMOVEDIR"),
        (access(Unlink, Op.UNLINKAT, operands=Operands(flags=0x202)), "  flags 0x202"),
    ],
)  # fmt: skip
def test_what_a_line_says(event: Access, expected: str) -> None:
    assert expected in line(event)


def test_open_shows_the_new_descriptor_and_flags_by_name() -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | 1 << 30
    event = access(Open, Op.OPENAT, raw_ret=5, operands=Operands(open_flags=flags, new_fd=5))
    assert line(event).endswith("/data/train/shard-00042.tar  fd 5  O_RDWR|O_CREAT|O_CLOEXEC|0x40000000")


def test_flags_that_contain_others_are_named_once() -> None:
    event = access(Open, Op.OPENAT, raw_ret=5, operands=Operands(open_flags=os.O_WRONLY | os.O_SYNC, new_fd=5))
    assert line(event).endswith("O_WRONLY|O_SYNC")


def test_a_failed_open_shows_the_path_that_was_claimed() -> None:
    event = access(
        Open,
        Op.OPENAT,
        raw_ret=-errno.ENOENT,
        path_id=0,
        raw_file_id=0,
        raw_marks=int(Mark.PATH_CLAIMED),
        operands=Operands(open_flags=0, claim_id=2),
    )
    assert line(event).endswith("openat        -     -   91us rel/missing  ENOENT  O_RDONLY")


def test_a_file_is_never_blank() -> None:
    assert line(a_read(path_id=3)).endswith(" 8:1:73"), "device and inode where there is no path"
    assert line(a_read(path_id=99)).endswith(" ?"), "a question mark where nothing is known"
    assert line(a_read(task_id=99)).split()[1:3] == ["?", "?"]


def test_a_path_of_a_container_stands_behind_its_name() -> None:
    own = tables()
    own.tasks[2] = Task(task_id=2, pid=7, tid=7, comm="sh", mnt_ns=40, container="web")
    own.name_mounts(own.tasks[2])
    own.paths[6] = File(6, 6, b"/etc/passwd", 8, 1, 76, 0, 0o100644, mnt_ns=40)
    assert line(a_read(tables=own, task_id=2, path_id=6)).endswith("  91us web:/etc/passwd")
    program = Exec(START, 2, 0, 0, own, path_id=6, raw_argv0=b"-x")
    assert line(program).endswith(" web:/etc/passwd  as -x")


def test_what_is_learnt_late_is_shown_from_then_on() -> None:
    stream = Stream()
    sink = TextSink(Direct(stream), CLOCK)
    own = Tables()
    event = a_read(tables=own)
    sink.write([event])
    own.tasks[1], own.paths[1] = TABLES.tasks[1], TABLES.paths[1]
    sink.write([event])
    sink.close()
    _, before, after = stream.data.decode().splitlines()
    assert "?" in before
    assert after == line(a_read())


def test_no_name_can_move_the_cursor_or_forge_a_line() -> None:
    text = line(a_read(path_id=4))
    assert text.endswith("/odd\\x1b[2J\\xff name")
    assert text.isprintable()


# processes, losses, counters


def test_process_events_have_lines() -> None:
    who = (START, 1, 0, 0, TABLES)
    fork, thread, program, renamed, end, last = lines(
        Fork(*who, child_pid=4300, child_tid=4300),
        Fork(*who, child_pid=4242, child_tid=4301),
        Exec(*who, path_id=1, raw_argv0=b"shard-00042.tar"),
        Exec(*who, path_id=1, raw_argv0=b"-login"),
        Exit(*who, exit_code=7 << 8),
        Exit(*who, exit_code=9, is_last=True),
    )[1:]
    assert fork == "  0.0000 a-long-comm-15c    4243 fork          -     -      - child 4300"
    assert thread.endswith("thread 4301")
    assert program.endswith("exec          -     -      - /data/train/shard-00042.tar")
    assert renamed.endswith("/data/train/shard-00042.tar  as -login")
    assert end.endswith("exit          -     -      - thread")
    assert last.endswith("signal 9")


def test_a_loss_stands_out_where_it_happened() -> None:
    texts = lines(a_read(), Lost(START + 2_000_000_000, 3, 17, 511), a_read())
    assert texts[2] == "  2.0000 *** lost 511 events on cpu 3: ring_full ***"


def test_one_lost_event_is_one() -> None:
    assert lines(Lost(START, 3, 17, 1))[1].endswith("*** lost 1 event on cpu 3: ring_full ***")
    assert lines(Lost(START, 3, 17, 1511))[1].endswith("*** lost 1 511 events on cpu 3: ring_full ***")


def test_counters_are_left_to_the_closing_table() -> None:
    assert len(lines(a_read(), Counters())) == 2


# time stamps


@pytest.mark.parametrize(
    ("style", "title", "expected"),
    [
        ("rel", "TIME(s)", "0.0015"),
        ("boot", "BOOT(s)", "5.001500"),
        ("unix", "UNIX(s)", "1700000000.001500"),
        ("wall", "TIME", time.strftime("%H:%M:%S", time.localtime(1_700_000_000)) + ".001500"),
    ],
)
def test_time_stamps(style: str, title: str, expected: str) -> None:
    header, text = lines(a_read(), timestamp=style)
    assert header.split()[0] == title
    assert text.split()[0] == expected
    assert header.index("COMM") == text.index("a-long"), "the title is as wide as the column"


# terminals


def test_on_a_terminal_long_paths_lose_their_middle_and_keep_their_name() -> None:
    text = line(a_read(), width=80)
    assert "…" in text
    assert text.endswith("shard-00042.tar")
    assert len(text) <= 80


def test_notes_make_the_path_shorter_not_the_line_longer() -> None:
    text = line(a_fault(), width=90)
    assert len(text) <= 90
    assert text.endswith("minor r")


def test_a_narrow_terminal_leaves_out_flags_before_descriptors_and_never_errors_or_marks() -> None:
    flags = os.O_RDONLY | os.O_CLOEXEC
    event = access(Open, Op.OPENAT, raw_ret=5, operands=Operands(open_flags=flags, new_fd=5))
    assert line(event, width=120).endswith("  fd 5  O_RDONLY|O_CLOEXEC")
    assert line(event, width=80).endswith("  fd 5")
    failed = access(Open, Op.OPENAT, raw_ret=-errno.ENOENT, path_id=0, operands=Operands(open_flags=flags, claim_id=2))
    assert line(failed, width=80).endswith("rel/missing  ENOENT")
    marked = a_read(raw_ret=100, raw_marks=int(Mark.OFFSET_SHARED))
    assert line(marked, width=80).endswith("  offset_shared")


def test_comm_is_cut_on_a_terminal_only() -> None:
    assert " a-long-comm-    4243 " in line(a_read(), width=80)
    assert " a-long-comm-15c    4243 " in line(a_read())


def test_colour_is_for_the_op_errors_and_what_is_slow() -> None:
    assert "\033" not in line(a_read())
    plain = line(a_read(), color=True)
    assert plain.count("\033[0m") == 1
    assert "\033[36mpread64 \033[0m" in plain
    assert "\033[31mEIO\033[0m" in line(a_read(raw_ret=-errno.EIO), color=True)
    assert "\033[33m  10ms\033[0m" in line(a_read(raw_latency=10_000_000), color=True)
    uncoloured = line(a_read(raw_latency=10_000_000), color=True)
    for code in ("\033[36m", "\033[33m", "\033[0m"):
        uncoloured = uncoloured.replace(code, "")
    assert uncoloured == line(a_read(raw_latency=10_000_000))


def test_lines_fit_the_width_that_the_terminal_has_now() -> None:
    stream = Stream()
    widths = [120]
    sink = TextSink(Direct(stream), CLOCK, width=lambda: widths[-1])
    for width in (120, 80, 200, 80):
        widths.append(width)
        sink.write([a_read(), a_read()])
    sink.close()
    _, wide, *between, narrow = stream.data.decode().splitlines()
    assert wide.endswith("/data/train/shard-00042.tar")
    assert narrow.endswith(" /…/shard-00042.tar")
    assert between == [wide, narrow, narrow, wide, wide, narrow], "nothing is remembered from another width"


def test_the_width_is_asked_once_a_round() -> None:
    asked = []
    sink = TextSink(Direct(Stream()), CLOCK, width=lambda: asked.append(80) or 80)
    sink.write([a_read()])
    asked.clear()
    sink.write([a_read()] * 1009)
    assert len(asked) == 1


# JSON lines


def json_lines(*events: Event) -> list[str]:
    stream = Stream()
    sink = JsonLinesSink(Direct(stream))
    sink.write(events)
    sink.close()
    return stream.data.decode("utf-8").splitlines()


def test_json_has_every_word_in_order_in_one_line() -> None:
    (text,) = json_lines(a_read())
    found = json.loads(text)
    assert tuple(found) == WORDS
    assert found["file_offset"] == 131072
    assert found["path"] == "/data/train/shard-00042.tar"
    assert found["errno"] is None


def test_json_is_valid_utf8_whatever_the_name() -> None:
    (text,) = json_lines(a_read(path_id=4))
    found = json.loads(text)
    assert found["path"] == "/odd\\x1b[2J\\xff name"
    assert found["path_bytes"] == "L29kZBtbMkr/IG5hbWU="
    task = Tables()
    task.tasks[1] = Task(task_id=1, pid=1, tid=1, comm="half \udcff")
    assert json.loads(json_lines(a_read(tables=task))[0])["comm"] == "half \udcff"


def test_json_lines_of_losses_and_counters() -> None:
    lost, counters = map(json.loads, json_lines(Lost(1, 3, 17, 511), Counters(matched=512, lost={"ring_full": 511})))
    assert lost == {"op": "lost", "ts_ns": 1, "cpu": 3, "first_seq": 17, "count": 511, "cause": "ring_full"}
    assert counters["op"] == "counters"
    assert counters["lost"] == {"ring_full": 511}


# writing


def test_a_round_is_handed_on_at_once() -> None:
    stream = Stream()
    sink = TextSink(Direct(stream), CLOCK)
    assert stream.writes == 0, "the titles come with the first round"
    sink.write([a_read()] * 101)
    assert stream.writes == 1
    sink.write([])
    sink.close()
    assert stream.writes == 1
    assert len(stream.data.splitlines()) == 102


@pytest.mark.parametrize("make", [lambda outlet: TextSink(outlet, CLOCK), JsonLinesSink])
def test_a_long_round_is_written_in_pieces(make: Callable[[Outlet], Sink]) -> None:
    stream = Stream()
    sink = make(Direct(stream))
    sink.write(iter([a_read()] * 1009))
    sink.close()
    assert stream.writes == 2
    assert len(stream.data.splitlines()) in (1009, 1010)


def test_without_events_there_are_titles() -> None:
    stream = Stream()
    sink = TextSink(Direct(stream), CLOCK)
    sink.close()
    sink.close()
    assert len(stream.data.splitlines()) == 1


def test_a_pipe_that_takes_little_at_a_time_gets_everything() -> None:
    stream = Stream(at_most=7)
    sink = JsonLinesSink(Direct(stream))
    sink.write([a_read()])
    sink.close()
    assert json.loads(stream.data)["op"] == "pread64"


def test_a_reader_that_has_gone_is_no_error() -> None:
    sink = TextSink(Collected(Broken(errno.EPIPE)), CLOCK)
    with pytest.raises(ReaderGone):
        sink.write([a_read()])
    sink.close()


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    sink = JsonLinesSink(Collected(Broken(errno.ENOSPC)))
    with pytest.raises(OutputError, match="cannot write /full/disk: No space left on device"):
        sink.write([a_read()])


def test_what_is_not_shown_is_told_in_the_form_of_the_stream() -> None:
    assert hidden_as_text(1) == "... 1 line not shown: the terminal was too slow\n"
    coloured = hidden_as_text(1234, color=True)
    assert "1 234 lines" in coloured
    assert coloured.endswith("\033[0m\n")
    assert json.loads(hidden_as_json(1234)) == {"op": "not_shown", "count": 1234}
