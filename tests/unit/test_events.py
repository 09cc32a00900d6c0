"""The vocabulary: what raw values mean, which words every event has, and text that is safe to print."""

from __future__ import annotations

import base64
import errno
import json
import re
import unicodedata

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flak
from flak import events as ev
from flak._records import Mark, NameFlag, Op
from flak.events import WORDS, Batch, Counters, Event, Lost, as_dict, escape
from flak.wire import Decoder


def decoded(*slots: bytes, meta: bytes = b"") -> list[Event]:
    """Events of a run of one round."""
    decoder = Decoder()
    happened = decoder.learn(builders.task() + builders.name() + meta)
    return [e for e in decoder.decode(Batch(b"".join(slots), happened)) if not isinstance(e, Lost)]


def only(*slots: bytes, meta: bytes = b"") -> Event:
    (event,) = decoded(*slots, meta=meta)
    return event


# --- escape

HOSTILE = [
    (b"/a b/\xc3\xa4\xe6\x97\xa5", "/a b/ä日"),
    (b"", ""),
    (b"\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
    (b"a\nforged line", "a\\nforged line"),
    (b"tab\tcr\r", "tab\\tcr\\r"),
    (b"back\\slash", "back\\\\slash"),
    (b"\\x1b", "\\\\x1b"),
    (b"\xff\xfe", "\\xff\\xfe"),
    (b"\xc3", "\\xc3"),
    ("right\u202eto left".encode(), "right\\u202eto left"),
    ("zero\u200bwidth\ufeff".encode(), "zero\\u200bwidth\\ufeff"),
    ("line\u2028sep\x85".encode(), "line\\u2028sep\\u0085"),
    ("no-break\xa0space".encode(), "no-break\\u00a0space"),
    ("tag\U000e0001".encode(), "tag\\U000e0001"),
    (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),  # a surrogate in UTF-8, which is none
]


@pytest.mark.parametrize(("name", "text"), HOSTILE)
def test_a_hostile_name_is_escaped(name: bytes, text: str) -> None:
    assert escape(name) == text


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_escaped_text_is_printable_and_tells_names_apart(name: bytes) -> None:
    text = escape(name)
    assert text.isprintable()
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)
    text.encode("utf-8", "strict")
    assert unescape(text) == name


def unescape(text: str) -> bytes:
    """What a name was before `escape`: that it can be told proves that no two names look the same."""
    characters = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}

    def meaning(escaped: re.Match[bytes]) -> bytes:
        letter, digits = escaped[1][:1].decode(), escaped[1][1:]
        if letter == "x":
            return bytes([int(digits, 16)])
        return (chr(int(digits, 16)) if letter in "uU" else characters[letter]).encode()

    return re.sub(rb"\\(x..|u....|U.{8}|.)", meaning, text.encode())


# --- accesses


def test_none_is_none_not_minus_one() -> None:
    event = only(builders.access(Op.CLOSE, latency_ns=2**64 - 1, fd=-1, file_id=0, path_id=0))
    assert (event.latency_ns, event.file_offset, event.size_req, event.fd) == (None,) * 4
    assert (event.file_id, event.file, event.path, event.dev, event.ino, event.kind) == (None,) * 6


def test_a_read_says_what_it_moved() -> None:
    event = only(builders.read(8192, 4096, ret=100))
    assert (event.op, event.via, event.is_write) == ("pread64", "syscall", False)
    assert (event.file_offset, event.size_req, event.size_ret, event.end_offset) == (8192, 4096, 100, 8292)
    assert event.errno is None and not event.has_failed


def test_a_failed_read_moved_nothing() -> None:
    event = only(builders.read(0, 4096, ret=-errno.EIO))
    assert (event.errno, event.size_ret, event.end_offset, event.has_failed) == ("EIO", None, None, True)


@pytest.mark.parametrize("ret", [-512, -513, -514, -516])
def test_a_restarted_call_has_no_errno(ret: int) -> None:
    event = only(builders.read(ret=ret, marks=int(Mark.INTERRUPTED)))
    assert (event.errno, event.size_ret, event.has_failed, event.marks) == (None, None, False, ("interrupted",))


def test_an_errno_without_a_name_is_its_number() -> None:
    assert only(builders.read(ret=-3333)).errno == "3333"


@pytest.mark.parametrize("mark", [Mark.UNFINISHED, Mark.RESULT_UNKNOWN, Mark.INTERRUPTED, Mark.ATTACHED])
def test_what_has_no_result_shows_none(mark: Mark) -> None:
    event = only(builders.read(ret=0, marks=int(mark)))
    assert (event.size_ret, event.errno, event.end_offset) == (None, None, None)


def test_a_fault_has_pages_and_no_sizes() -> None:
    marks = int(Mark.IS_WRITE | Mark.IS_MAJOR | Mark.KERNEL_FAULT)
    event = only(builders.fault(1 << 20, 0xFFFF_8000_0000_1234, page_count=16, fd=5, marks=marks))
    assert (event.op, event.via) == ("fault", "fault")
    assert (event.page_count, event.pages_before, event.fd, event.size_req, event.size_ret) == (16, 5, None, None, None)
    assert event.addr == "0xffff800000001234"
    assert event.is_write is True and event.is_major is True
    assert event.marks == ("kernel_fault",)
    assert only(builders.fault(page_count=0)).page_count is None


def test_marks_of_access_and_name_are_joined_in_order() -> None:
    name = builders.name("x", 9, flags=NameFlag.TRUNCATED)
    event = only(builders.read(path_id=9, marks=int(Mark.DELETED | Mark.OFFSET_SHARED)), meta=name)
    assert event.marks == ("path_truncated", "deleted", "offset_shared")


def test_operations_of_a_later_version_are_shown_by_number() -> None:
    event = only(builders.access(0x1FF))
    assert (event.op, event.via, type(event)) == ("op_0x1ff", "io_uring", ev.Access)
    assert only(builders.access(0x7001)).via == "unknown"


def test_the_file_of_an_access() -> None:
    event = only(builders.read())
    assert (event.path, event.path_bytes, event.dev, event.ino, event.kind) == ("/data/a", None, "8:1", 1001, "file")
    name = builders.name(b"/x\xff", 9)
    event = only(builders.read(path_id=9, file_id=9), meta=name)
    assert (event.path, event.path_bytes) == ("/x\\xff", base64.b64encode(b"/x\xff").decode())


@pytest.mark.parametrize(
    ("mode", "path", "kind"),
    [
        (0o100644, "/f", "file"), (0o120777, "/l", "file"), (0o040755, "/d", "dir"), (0o010600, "", "pipe"),
        (0o140777, "", "socket"), (0o020666, "/dev/tty", "char"), (0o060660, "/dev/sda", "block"),
        (0o100777, "memfd:x", "memfd"), (0o100777, "SYSV0000002a", "anon"), (0o100777, "/SYSV0000002a", "file"),
        (0o600, "[eventfd]", "anon"),
    ],
)  # fmt: skip
def test_kinds(mode: int, path: str, kind: str) -> None:
    flags = 0 if path.startswith("/") else NameFlag.DETACHED
    event = only(builders.read(path_id=9), meta=builders.name(path, 9, mode=mode, flags=flags))
    assert event.kind == kind
    assert event.path == (path or f"{kind}:[1009]")


def test_a_file_without_a_name_is_shown_by_its_identity() -> None:
    event = only(builders.read(path_id=9), meta=builders.name("", 9, flags=NameFlag.DETACHED))
    assert event.path == "8:1:1009"


def test_patterns_match_on_words() -> None:
    match only(builders.read(512, 100)):
        case flak.Read(file_offset=512, size_ret=n, path="/data/a"):
            assert n == 100
        case other:
            pytest.fail(f"{other} did not match")


# --- words


def one_of_each() -> list[Event]:
    """Every class of event that has the words."""
    slots = [
        builders.read(), builders.write(), builders.open_(), builders.close(), builders.dup(), builders.seek(0, 0),
        builders.mmap(), builders.access(Op.MUNMAP), builders.access(Op.MREMAP), builders.fault(),
        builders.access(0x1FF),
    ]  # fmt: skip
    return decoded(*slots, meta=builders.fork() + builders.exec_(b"a\n") + builders.exit_(256))


def test_every_event_has_every_word() -> None:
    for event in one_of_each():
        values = as_dict(event)
        assert tuple(values) == WORDS
        assert json.loads(json.dumps(values)) == values
        assert values["op"] and values["via"] and isinstance(values["marks"], list)


def test_a_word_that_is_none_is_no_attribute_error_but_others_are() -> None:
    event = only(builders.close())
    assert event.argv0 is None and event.page_count is None
    with pytest.raises(AttributeError, match="'Close' object has no attribute 'size'"):
        _ = event.size


def test_process_events_say_who_and_what() -> None:
    fork, exec_, exit_ = decoded(meta=builders.fork(7, 8) + builders.exec_(b"a\n") + builders.exit_(256))
    assert (fork.op, fork.via, fork.child_pid, fork.child_tid, fork.comm, fork.pid) == (
        "fork", "sched", 7, 8, "worker", 4242,
    )  # fmt: skip
    assert (exec_.argv0, exec_.path, exec_.file_id, exec_.old_tid) == ("a\\n", "/data/a", 1, 4242)
    assert (exit_.exit_code, exit_.is_last, exit_.path) == (256, True, None)


def test_lost_and_counters_have_words_of_their_own() -> None:
    assert as_dict(Lost(5, 1, 2, 3)) == {
        "op": "lost", "ts_ns": 5, "cpu": 1, "first_seq": 2, "count": 3, "cause": "ring_full",
    }  # fmt: skip
    assert list(as_dict(Counters())) == [
        "op", "matched", "submitted", "received", "written", "lost", "filtered", "not_decoded", "excluded_self",
        "recursion_misses", "is_complete", "folded",
    ]  # fmt: skip


def test_accesses_without_operands_share_one() -> None:
    first, second = decoded(builders.read(), builders.read(seq=1))
    assert first.operands is second.operands


# --- counters


@pytest.mark.parametrize(
    ("counters", "is_exact"),
    [
        (Counters(), True),
        (Counters(matched=10, submitted=7, received=7, written=4, lost={"ring_full": 3, "user_write_failed": 2},
                  filtered={"path": 1}), True),
        (Counters(matched=10, submitted=9, received=9, written=9), False),
        (Counters(matched=9, submitted=9, received=8, written=8), False),
        (Counters(matched=9, submitted=9, received=9, written=8), False),
    ],
)  # fmt: skip
def test_counters_know_whether_they_add_up(counters: Counters, is_exact: bool) -> None:
    assert counters.is_exact is is_exact


def test_the_total_of_losses_is_over_all_causes() -> None:
    assert Counters(lost={"ring_full": 3, "user_write_failed": 2}).lost_total == 5
