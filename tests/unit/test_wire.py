"""Bytes → events: every record both ways, names of any bytes, numbers that are missing, bytes that make no sense."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flak import _records as r
from flak import events as ev
from flak._records import Mark, NameFlag, Op
from flak.errors import SchemaMismatch, TraceFileError
from flak.events import Access, Batch, Event, Lost
from flak.wire import Decoder, Layouts, compare_layouts, count_accesses, count_process_events, is_operands

u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
s32 = st.integers(-(2**31), 2**31 - 1)
op_of_access = u16.filter(lambda op: op >> 8 != 0xFF)


def decoded(*slots: bytes, decoder: Decoder | None = None, happened: Sequence[Event] = ()) -> list[Event]:
    """Events of one batch."""
    return (decoder or Decoder()).decode(Batch(b"".join(slots), list(happened)))


def only(*slots: bytes) -> Access:
    (event,) = decoded(*slots)
    assert isinstance(event, Access)
    return event


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


# --- one record each


@given(ts_ns=u64, latency_ns=u64, file_offset=u64, size_req=u64, ret=s32, task_id=u32, file_id=u32, path_id=u32, fd=s32,
       seq=st.just(0), marks=u32.map(lambda m: m & ~Mark.HAS_OPERANDS), op=op_of_access, cpu=u16)  # fmt: skip
def test_every_field_of_an_access_arrives(**fields: Any) -> None:
    event = only(builders.access(**fields))
    assert event.ts_ns == fields["ts_ns"]
    assert event.raw_latency == signed(fields["latency_ns"])
    assert event.raw_offset == signed(fields["file_offset"])
    assert event.raw_size == signed(fields["size_req"])
    assert (event.raw_ret, event.raw_fd) == (fields["ret"], fields["fd"])
    assert (event.task_id, event.raw_file_id, event.path_id) == (
        fields["task_id"], fields["file_id"], fields["path_id"],
    )  # fmt: skip
    assert (event.seq, event.raw_marks, event.opcode, event.cpu) == (0, fields["marks"], fields["op"], fields["cpu"])
    assert type(event) is ev.CLASS_OF_OP.get(fields["op"], Access)
    assert event.operands == ev.Operands()


@given(st.fixed_dictionaries({}, optional={
    "addr": u64, "prot": u32, "map_flags": u32, "open_flags": u32, "mode": u32, "arg_offset": u64.map(signed),
    "new_fd": st.integers(0, 2**31 - 1), "old_addr": st.integers(1, 2**64 - 1), "call_id": st.integers(1, 2**32 - 1),
}))  # fmt: skip
def test_operands_that_were_set_arrive_and_others_are_none(fields: dict[str, int]) -> None:
    assert only(builders.access(Op.MMAP, operands=fields)).operands == ev.Operands(**fields)


@given(claim_id=u32, other_file_id=u32, other_path_id=u32)
def test_ids_among_the_operands_arrive(**fields: Any) -> None:
    assert only(builders.access(Op.OPENAT, operands=fields)).operands == ev.Operands(**fields)


def test_one_and_two_slot_accesses_may_be_mixed() -> None:
    slots = [builders.read(seq=0), builders.open_(7, seq=1), builders.mmap(seq=2), builders.write(seq=3)]
    events = decoded(*slots)
    assert [type(e) for e in events] == [ev.Read, ev.Open, ev.Mmap, ev.Write]
    assert [e.new_fd for e in events] == [None, 7, None, None]
    assert [e.addr for e in events] == [None, None, "0x7f0000000000", None]
    assert count_accesses(b"".join(slots)) == 4


def test_a_negative_argument_of_lseek_is_kept() -> None:
    assert only(builders.seek(900, -100, 2)).arg_offset == -100


@given(pid=u32, tid=u32, ns_pid=u32, ppid=u32, uid=u32, start_time_ns=u64, cgroup_id=u64, process_tag=u32)
def test_every_field_of_a_task_arrives(**fields: Any) -> None:
    decoder = Decoder()
    assert decoder.learn(builders.task(9, "comm", **fields)) == []
    ns_pid = fields.pop("ns_pid")
    fields |= {"ns_pid": None if ns_pid == fields["pid"] else ns_pid, "cgroup_id": fields["cgroup_id"] or None}
    assert decoder.tables.tasks[9] == ev.Task(task_id=9, comm="comm", **fields)


def test_comm_ends_at_nul_and_is_escaped() -> None:
    decoder = Decoder()
    decoder.learn(builders.task(1, b"a\x1b[31m\0rubbish"))
    assert decoder.tables.tasks[1].comm == "a\\x1b[31m"


@given(ts_ns=u64, task_id=u32, seq=u32, cpu=u16, child_pid=u32, child_tid=u32)
def test_every_field_of_a_fork_arrives(**fields: Any) -> None:
    (event,) = Decoder().learn(builders.fork(**fields))
    assert isinstance(event, ev.Fork)
    assert {name: getattr(event, name) for name in fields} == fields


@given(ts_ns=u64, task_id=u32, seq=u32, cpu=u16, child_pid=u32, file_id=u32, path_id=u32, argv0=st.binary(max_size=300))
def test_every_field_of_an_exec_arrives(argv0: bytes, **fields: Any) -> None:
    (event,) = Decoder().learn(builders.exec_(argv0, **fields))
    assert isinstance(event, ev.Exec)
    assert (event.ts_ns, event.task_id, event.seq, event.cpu) == tuple(list(fields.values())[:4])
    assert (event.old_tid, event.raw_file_id, event.path_id) == tuple(list(fields.values())[4:])
    assert event.raw_argv0 == argv0.partition(b"\0")[0]


@given(ts_ns=u64, task_id=u32, seq=u32, cpu=u16, exit_code=s32, is_last=st.booleans())
def test_every_field_of_an_exit_arrives(**fields: Any) -> None:
    (event,) = Decoder().learn(builders.exit_(**fields))
    assert isinstance(event, ev.Exit)
    assert {name: getattr(event, name) for name in fields} == fields


# --- names

component = st.binary(min_size=1, max_size=255).map(lambda b: bytes(c for c in b if c not in b"\0/")).filter(bool)


@given(st.lists(component, max_size=20), st.integers(0, 4095), st.integers(0, 2**20 - 1), u64, u32, u16)
def test_a_path_is_built_from_its_names(
    names: list[bytes], major: int, minor: int, ino: int, ino_gen: int, mode: int
) -> None:
    decoder = Decoder()
    path = b"/" + b"/".join(names)
    decoder.learn(builders.name(path, 5, dev=major << 20 | minor, ino=ino, ino_gen=ino_gen, mode=mode))
    file = decoder.tables.paths[5]
    assert file.raw_path == path
    assert (file.dev, file.ino, file.ino_gen, file.mode) == (f"{major}:{minor}", ino, ino_gen, mode)
    assert file.path.isprintable()


@pytest.mark.parametrize(
    ("payload", "path", "marks"),
    [
        (builders.name("/", 1, mode=builders.DIRECTORY), "/", ""),
        (builders.name("/a/b", 1), "/a/b", ""),
        (builders.name("memfd:x", 1, flags=NameFlag.DETACHED), "memfd:x", ""),
        (builders.name("[eventfd]", 1, flags=NameFlag.DETACHED, mode=0o600), "[eventfd]", ""),
        (builders.name("", 1, flags=NameFlag.DETACHED, mode=builders.FIFO, ino=77), "pipe:[77]", ""),
        (builders.name("b/c", 1, flags=NameFlag.TRUNCATED), "…/b/c", "path_truncated"),
        (builders.name("/gone", 1, flags=NameFlag.DELETED), "/gone", ""),
        (builders.claim("../x//y", 1), "../x//y", "path_claimed"),
        (builders.claim("/long", 1, NameFlag.TRUNCATED), "/long", "path_claimed path_truncated"),
        (builders.claim("", 1, NameFlag.FAULT), "", "path_claimed path_fault"),
    ],
)
def test_each_kind_of_name(payload: bytes, path: str, marks: str) -> None:
    decoder = Decoder()
    decoder.learn(payload)
    file = decoder.tables.paths[1]
    assert file.path == path
    assert (file.raw_claim is not None) == ("path_claimed" in marks)
    (event,) = decoded(builders.read(path_id=1), decoder=decoder)
    assert " ".join(event.marks) == marks


def test_a_failed_open_shows_the_claimed_path() -> None:
    decoder = Decoder()
    decoder.learn(builders.claim(b"no\x1bsuch", 8))
    (event,) = decoded(builders.failed_open(2, 8), decoder=decoder)
    assert (event.path, event.claimed_path, event.errno) == ("no\\x1bsuch", "no\\x1bsuch", "ENOENT")
    assert event.marks == ("path_claimed",)
    assert event.file is None


def test_a_claimed_path_stands_behind_the_folder_it_starts_from() -> None:
    decoder = Decoder()
    decoder.learn(builders.name("/home/u", 3, mnt_ns=5) + builders.name("/", 4))
    decoder.learn(builders.claim("../x", 8, base_path_id=3) + builders.claim("y", 9, base_path_id=4))
    decoder.learn(builders.claim("/z", 10, base_path_id=3) + builders.claim("lost", 11, base_path_id=77))
    events = decoded(
        *(builders.failed_open(2, claim, seq=i) for i, claim in enumerate((8, 9, 10, 11))), decoder=decoder
    )
    assert [event.path for event in events] == ["/home/u/../x", "/y", "/z", "lost"]
    assert [event.claimed_path for event in events] == ["../x", "y", "/z", "lost"]
    assert [event.mnt_ns for event in events] == [5, None, 5, None]


def test_a_container_names_the_tasks_of_its_cgroup_and_the_paths_of_its_mounts() -> None:
    decoder = Decoder()
    decoder.tables.own_mnt_ns = 1
    decoder.learn(builders.container(77, "web") + builders.task(1, cgroup_id=77, mnt_ns=5))
    decoder.learn(builders.task(2, cgroup_id=78, mnt_ns=6) + builders.task(3, cgroup_id=77, mnt_ns=1))
    decoder.learn(builders.name("/etc/x", 1, mnt_ns=5) + builders.name("/etc/x", 2, mnt_ns=1))
    events = decoded(*(builders.read(seq=i, task_id=i + 1) for i in range(3)), decoder=decoder)
    assert [event.container for event in events] == ["web", None, "web"]
    shown = [decoder.tables.shown_path(decoder.tables.paths[path_id]) for path_id in (1, 2)]
    assert shown == ["web:/etc/x", "/etc/x"], "what FLAK's own mount namespace shows needs no name in front"
    assert [event.mnt_ns for event in events] == [5, 5, 5]


def test_a_container_may_be_called_anything() -> None:
    decoder = Decoder()
    decoder.learn(builders.container(77, "a\x1b[2J\ud800") + builders.task(cgroup_id=77))
    assert decoder.tables.tasks[1].container == "a\\x1b[2J\\xed\\xa0\\x80"


def test_an_exec_of_a_program_without_a_name_has_all_words() -> None:
    (event,) = Decoder().learn(builders.exec_(path_id=99, file_id=99))
    assert ev.as_dict(event)["path"] is None and ev.as_dict(event)["mnt_ns"] is None


def test_what_was_put_aside_is_neither_an_event_nor_a_loss() -> None:
    decoder = Decoder()
    aside = builders.access(Op.PUT_ASIDE, seq=1, operands={"new_fd": 3})
    events = decoded(builders.read(seq=0), aside, builders.read(seq=2), decoder=decoder)
    assert [event.seq for event in events] == [0, 2]
    assert decoder.tail({0: (3, 0)}) == []
    assert count_accesses(builders.read() + aside) == 1


def test_a_claim_that_could_not_be_read_is_none_not_blank() -> None:
    decoder = Decoder()
    decoder.learn(builders.claim("", 8, NameFlag.FAULT))
    (event,) = decoded(builders.failed_open(14, 8), decoder=decoder)
    assert (event.path, event.claimed_path, event.errno) == (None, None, "EFAULT")


def test_file_ids_of_one_identity_fold_into_the_first() -> None:
    decoder = Decoder()
    decoder.learn(
        builders.name("/a", 1, file_id=10, ino=5)
        + builders.name("/hard-link", 2, file_id=11, ino=5)
        + builders.name("/reused", 3, file_id=12, ino=5, ino_gen=1)
        + builders.name("/other-device", 4, file_id=13, ino=5, dev=1)
    )
    assert decoder.tables.files == {10: 10, 11: 10, 12: 12, 13: 13}
    (event,) = decoded(builders.read(path_id=2, file_id=11), decoder=decoder)
    assert (event.file_id, event.path) == (10, "/hard-link")


def test_where_inode_numbers_tell_nothing_files_are_not_folded() -> None:
    decoder = Decoder()
    weak = {"flags": NameFlag.WEAK, "ino": 5}
    decoder.learn(
        builders.name("/a", 1, file_id=10, **weak)
        + builders.name("/b", 2, file_id=11, **weak)
        + builders.name("/a", 3, file_id=12, **weak)
    )
    assert decoder.tables.files == {10: 10, 11: 11, 12: 12}


def test_a_name_that_comes_later_resolves_then() -> None:
    decoder = Decoder()
    (event,) = decoded(builders.read(path_id=1), decoder=decoder)
    assert event.path is None
    decoder.learn(builders.name("/late", 1))
    assert event.path == "/late"


# --- spans of the meta ring


def test_process_events_come_out_in_order() -> None:
    meta = builders.fork() + builders.task(1) + builders.exec_(b"x") + builders.name() + builders.exit_()
    assert [e.op for e in Decoder().learn(memoryview(meta))] == ["fork", "exec", "exit"]
    assert count_process_events([meta, builders.fork()]) == 4


def test_unknown_kinds_are_skipped_and_counted() -> None:
    decoder = Decoder()
    unknown = b"\x63\x00\x09\x00hello"
    events = decoder.learn(unknown + builders.fork() + builders.process(0x4FF) + builders.fork())
    assert [e.op for e in events] == ["fork", "fork"]
    assert decoder.unknown_records == 2


@pytest.mark.parametrize(
    ("meta", "at"),
    [
        (b"\x63\x00\x00\x00", 0),
        (b"\x63\x00\x03\x00", 0),
        (b"\x01", 0),
        (b"\x01\x00\x08\x00abcd", 0),
        (builders.task() + b"\x63\x00\xff\x00", 72),
        (builders.name()[:-1], 0),
    ],
)
def test_a_size_that_cannot_be_is_damage(meta: bytes, at: int) -> None:
    with pytest.raises(TraceFileError, match=f"damaged at byte {1000 + at}:"):
        Decoder().learn(meta, at=1000)


@given(st.binary(max_size=300))
def test_any_meta_bytes_are_learnt_or_refused(junk: bytes) -> None:
    decoder = Decoder()
    with contextlib.suppress(TraceFileError):
        decoder.learn(builders.name() + junk)
    assert decoder.tables.paths[1].path == "/data/a"


@given(st.binary(max_size=72 * 8), st.integers(0, 8), st.integers(0, 8))
def test_any_slots_are_decoded(junk: bytes, before: int, after: int) -> None:
    decoder = Decoder()
    junk = junk[: len(junk) // 72 * 72]
    slots = builders.open_() * before + junk + builders.read() * after
    for event in decoder.decode(Batch(slots)):
        ev.as_dict(event)
    decoder.decode(Batch(b""))
    assert decoder.received == count_accesses(slots)


@pytest.mark.parametrize("length", [1, 71, 73])
def test_slots_that_are_not_whole_are_refused(length: int) -> None:
    with pytest.raises(TraceFileError, match="whole number of slots"):
        Decoder().decode(Batch(bytes(length)))


def test_a_second_slot_without_its_first_is_counted_not_shown() -> None:
    long = builders.open_()
    decoder = Decoder()
    events = decoded(long[72:], long, long[72:], builders.read(seq=1), long[72:], decoder=decoder)
    assert [e.op for e in events] == ["openat", "pread64"]
    assert decoder.unknown_records == 3


def test_a_first_slot_without_its_second_has_no_operands() -> None:
    events = decoded(builders.open_(4)[:72], builders.open_(5, seq=1))
    assert [e.new_fd for e in events] == [None, 5]


# --- order and numbers


def test_events_are_in_order_of_time_whatever_their_ring() -> None:
    decoder = Decoder()
    happened = decoder.learn(builders.fork(ts_ns=25))
    slots = [builders.read(ts_ns=t, seq=n) for n, t in enumerate((30, 10, 20))]
    assert [e.ts_ns for e in decoded(*slots, decoder=decoder, happened=happened)] == [10, 20, 25, 30]
    assert decoder.received == 4


def test_equal_times_keep_the_order_of_the_ring() -> None:
    assert [e.seq for e in decoded(*(builders.read(ts_ns=7, seq=n) for n in range(9)))] == list(range(9))


def test_a_long_gap_is_lost_where_it_happened() -> None:
    stream = builders.Stream()
    stream.add(builders.read, 0)
    stream.lose(accesses=100)
    stream.add(builders.read, 1)
    before, lost, after = decoded(stream.round()[1])
    assert lost == Lost(after.ts_ns, 0, 1, 100, "ring_full")
    assert (before.seq, after.seq) == (0, 101)


def test_a_short_gap_is_lost_one_batch_later() -> None:
    decoder = Decoder()
    first, second = decoded(builders.read(seq=0), builders.read(seq=2, ts_ns=999), decoder=decoder)
    assert not isinstance(first, Lost) and not isinstance(second, Lost)
    assert decoded(decoder=decoder) == [Lost(999, 0, 1, 1, "ring_full")]
    assert decoded(decoder=decoder) == []


def test_a_loss_before_the_first_record_counts() -> None:
    lost, _ = decoded(builders.read(seq=50, cpu=3))
    assert (lost.cpu, lost.first_seq, lost.count) == (3, 0, 50)


def test_a_number_that_is_late_is_not_lost() -> None:
    decoder = Decoder()
    decoded(*(builders.read(seq=n) for n in (1, 2, 0)), decoder=decoder)
    decoded(*(builders.read(seq=n) for n in (5, 4)), decoder=decoder)
    events = decoded(builders.read(seq=3), decoder=decoder)
    assert [e.op for e in events] == ["pread64"]
    assert decoder.tail({0: (6, 0)}) == []
    assert decoder.late == 0


def test_a_number_that_is_later_still_is_counted_as_late() -> None:
    decoder = Decoder()
    decoded(builders.read(seq=1), decoder=decoder)
    assert [e.op for e in decoded(builders.read(seq=2), decoder=decoder)] == ["lost", "pread64"]
    decoded(builders.read(seq=0), decoder=decoder)
    assert decoder.late == 1


def test_cpus_and_rings_are_numbered_apart() -> None:
    decoder = Decoder()
    happened = decoder.learn(builders.fork(seq=20, cpu=1) + builders.fork(seq=0, cpu=0))
    events = decoded(builders.read(seq=0, cpu=0), builders.read(seq=30, cpu=1), decoder=decoder, happened=happened)
    lost = [e for e in events if isinstance(e, Lost)]
    assert {(e.cpu, e.first_seq, e.count, e.cause) for e in lost} == {
        (1, 0, 30, "ring_full"),
        (1, 0, 20, "meta_full"),
    }


def test_numbers_wrap_around() -> None:
    decoder = Decoder()
    half, almost = 2**31, 2**32 - 3
    lost = [e.count for n in (half, almost) for e in decoded(builders.read(seq=n), decoder=decoder) if e.op == "lost"]
    assert lost == [half, almost - half - 1]
    decoded(*(builders.read(seq=n) for n in (2**32 - 1, 0, 2**32 - 2, 1)), decoder=decoder)
    assert [e.op for e in decoded(builders.read(seq=102), decoder=decoder)] == ["lost", "pread64"]
    assert decoder.tail({0: (2**32 + 110, 0)}) == [Lost(builders.START_NS, 0, 103, 7, "ring_full")]


def test_the_tail_is_what_was_numbered_after_the_last_record() -> None:
    decoder = Decoder()
    decoded(builders.read(seq=0, ts_ns=44), decoder=decoder)
    assert decoder.tail({0: (3, 2), 5: (1, 0)}) == [
        Lost(44, 0, 1, 2, "ring_full"),
        Lost(44, 5, 0, 1, "ring_full"),
        Lost(44, 0, 0, 2, "meta_full"),
    ]
    assert decoder.tail({0: (3, 2), 5: (1, 0)}) == []


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[list[tuple[int, int]]], dict[int, int], int]:
    """Batches of (cpu, number), how many each CPU gave out, and the first number. Some are lost, some change places
    with the next one, across CPUs and batches.
    """
    first = draw(st.sampled_from((0, 2**32 - 20)))
    arrived: list[tuple[int, int]] = []
    given_out = {}
    for cpu in range(draw(st.integers(1, 3))):
        fates = draw(st.lists(st.sampled_from((True, True, True, False)), max_size=60))
        given_out[cpu] = len(fates)
        arrived += [(cpu, n) for n, is_kept in enumerate(fates) if is_kept]
    arrived.sort(key=lambda record: (record[1], record[0]))
    for i in draw(st.lists(st.integers(0, max(len(arrived) - 1, 0)), max_size=10)):
        j = min(i + 1, len(arrived) - 1)
        if arrived:
            arrived[i], arrived[j] = arrived[j], arrived[i]
    size = draw(st.integers(8, 40))
    return [arrived[i : i + size] for i in range(0, len(arrived), size)], given_out, first


@given(runs())
def test_losses_and_records_add_up_exactly(run: tuple[list[list[tuple[int, int]]], dict[int, int], int]) -> None:
    batches, given_out, first = run
    decoder = Decoder()
    for cpu in given_out if first else ():
        decoder._accesses._next[cpu] = first
    events: list[Event] = []
    for batch in batches:
        events += decoded(*(builders.read(cpu=c, seq=first + n & 0xFFFF_FFFF) for c, n in batch), decoder=decoder)
    events += decoder.tail({cpu: (first + n, 0) for cpu, n in given_out.items()})
    twice = 0
    for cpu, numbered in given_out.items():
        told = [e.seq for e in events if e.cpu == cpu and not isinstance(e, Lost)]
        for lost in events:
            if isinstance(lost, Lost) and lost.cpu == cpu:
                told += [lost.first_seq + i & 0xFFFF_FFFF for i in range(lost.count)]
        assert set(told) == {first + n & 0xFFFF_FFFF for n in range(numbered)}
        twice += len(told) - numbered
    assert twice == decoder.late


# --- the schema


def test_layouts_that_agree_pass() -> None:
    compare_layouts(r.LAYOUTS)
    compare_layouts(r.LAYOUTS | {"flak_future": (8, [("x", 0, 8)])})


def changed(struct: str, size: int, fields: Sequence[tuple[str, int, int]]) -> Layouts:
    return r.LAYOUTS | {struct: (size, fields)}


def test_a_field_that_moved_is_named() -> None:
    size, fields = r.LAYOUTS["flak_access"]
    moved = [(name, 56 if name == "seq" else at, width) for name, at, width in fields]
    with pytest.raises(SchemaMismatch, match=r"flak_access\.seq: .* 4 bytes at 52, .* 4 bytes at 56"):
        compare_layouts(changed("flak_access", size, moved))


def test_a_field_that_is_missing_or_new_is_named() -> None:
    size, fields = r.LAYOUTS["flak_task"]
    with pytest.raises(SchemaMismatch, match=r"flak_task\.process_tag: .* no such field"):
        compare_layouts(changed("flak_task", size, fields[:-1]))
    with pytest.raises(SchemaMismatch, match=r"flak_task\.extra: .* no such field, .* 8 bytes at 72"):
        compare_layouts(changed("flak_task", size, [*fields, ("extra", 72, 8)]))


def test_a_struct_that_is_missing_or_longer_is_named() -> None:
    with pytest.raises(SchemaMismatch, match=r"flak_name: .* nothing of that name"):
        compare_layouts({name: layout for name, layout in r.LAYOUTS.items() if name != "flak_name"})
    with pytest.raises(SchemaMismatch, match=r"flak_name: .* 56 bytes, .* 64 bytes"):
        compare_layouts(changed("flak_name", 64, r.LAYOUTS["flak_name"][1]))


def test_second_slots_are_told_apart() -> None:
    slots = builders.open_()
    assert not is_operands(slots[:72])
    assert is_operands(memoryview(slots)[72:])


def test_decoding_needs_neither_numpy_nor_typer() -> None:
    code = "import sys, flak.wire, flak.tracefile; sys.exit(bool({'numpy', 'typer', 'rich'} & sys.modules.keys()))"
    source = Path(r.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})


def test_sums_of_lost_accesses_name_what_they_are_of() -> None:
    decoder = Decoder()
    decoder.learn(builders.task() + builders.name("/data/a", 1, file_id=1))
    failed = builders.folded(accesses=3, has_failed=1, op=Op.OPENAT, path_id=0, file_id=0)
    assert decoder.learn(builders.folded(accesses=5, result=77, latency_ns=9, first_ns=1, last_ns=2) + failed) == []
    reads, opens = decoder.take_folded()
    assert decoder.take_folded() == []
    assert (reads.ts_ns, reads.first_ns, reads.count, reads.size_ret, reads.latency_ns) == (2, 1, 5, 77, 9)
    assert (reads.access.op, reads.access.path, reads.access.pid, reads.access.is_write) == (
        "pread64", "/data/a", 4242, False,
    )  # fmt: skip
    assert (opens.count, opens.access.op, opens.access.path, opens.size_ret) == (3, "openat", None, None)


def test_sums_that_no_run_amounts_to_are_left_out() -> None:
    decoder = Decoder()
    for field in ("accesses", "result", "latency_ns", "first_ns", "last_ns"):
        decoder.learn(builders.folded(**{field: 2**64 - 1}))
    assert decoder.take_folded() == []
    assert decoder.unknown_records == 5


def stat_claim(path: str, path_id: int, ino: int) -> bytes:
    return builders.name(path, path_id, flags=NameFlag.CLAIMED | NameFlag.FROM_STAT, ino=ino, file_id=path_id)


def test_a_file_that_stat_told_of_is_the_one_seen_next_under_its_number_and_path() -> None:
    decoder = Decoder()
    decoder.learn(stat_claim("/d//a/", 1, 77) + builders.name("/d/a", 2, file_id=2, ino=77))
    assert decoder.tables.files == {1: 1, 2: 1}


def test_a_number_that_comes_again_does_not_make_one_file_of_two() -> None:
    decoder = Decoder()
    decoder.learn(stat_claim("/loads/51", 1, 77) + builders.name("/loads/78/3", 2, file_id=2, ino=77))
    assert decoder.tables.files == {1: 1, 2: 2}
    decoder.learn(stat_claim("/loads/78/3", 3, 77))
    assert decoder.tables.files[3] == 2, "the file that has the number now"
