"""Patterns per file, each column by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest.mock import patch

import builders
import pytest
from access_slots import PAGE, access, fault, make_tables, name, result, results

from flak.analysis import FilePatterns, FileRow, analyse
from flak.archive import Archive
from flak.events import CLASS_OF_OP, Batch, Counters, Event, Exit, Folded, Mark, Op, Tables, Task


def order(row: FileRow) -> tuple[int, int, int]:
    return row.read_sequential_count, row.read_consecutive_count, row.read_pattern_count


class TestOrder:
    """Darshan's POSIX_SEQ_READS and POSIX_CONSEC_READS, by hand."""

    def test_first_access_at_zero_is_neither(self) -> None:
        assert order(result(access(offset=0))) == (0, 0, 1)

    def test_first_access_further_on_is_sequential(self) -> None:
        assert order(result(access(offset=500))) == (1, 0, 1)

    def test_first_access_at_one_counts_as_consecutive_as_in_darshan(self) -> None:
        assert order(result(access(offset=1))) == (1, 1, 1)

    def test_reading_on_is_consecutive_and_sequential(self) -> None:
        assert order(result(*(access(offset=10 * n) for n in range(7)))) == (6, 6, 7)

    def test_strides_are_sequential_only(self) -> None:
        assert order(result(*(access(offset=100 * n) for n in range(7)))) == (6, 0, 7)

    def test_going_backwards_is_neither(self) -> None:
        assert order(result(*(access(offset=1000 - 10 * n) for n in range(7)))) == (1, 0, 7)

    def test_reading_the_same_again_is_neither(self) -> None:
        assert order(result(*(access(offset=0) for _ in range(7)))) == (0, 0, 7)

    def test_overlap_is_neither(self) -> None:
        assert order(result(access(offset=0), access(offset=9), access(offset=18))) == (0, 0, 3)

    def test_short_read_moves_the_cursor_by_what_it_got(self) -> None:
        assert order(result(access(offset=0, size=10, ret=4), access(offset=4))) == (1, 1, 2)

    def test_end_of_file_is_consecutive(self) -> None:
        assert order(result(access(offset=0, size=10, ret=4), access(offset=4, size=10, ret=0))) == (1, 1, 2)

    def test_read_and_pread_move_one_cursor(self) -> None:
        slots = [access(Op.READ, 0), access(Op.PREAD64, 10), access(Op.PREADV2, 20), access(Op.READV, 30)]
        assert order(result(*slots)) == (3, 3, 4)

    def test_failed_read_moves_nothing(self) -> None:
        assert order(result(access(offset=0), access(offset=50, ret=-5), access(offset=10))) == (1, 1, 2)

    def test_processes_have_cursors_of_their_own(self) -> None:
        slots = [access(offset=at, task=task) for at in (0, 10, 20) for task in (1, 2)]
        row = result(*slots)
        assert order(row) == (4, 4, 6)
        assert row.process_count == 2

    def test_threads_share_their_process_cursor(self) -> None:
        slots = [access(offset=at, task=task) for at in (0, 10, 20) for task in (1, 3)]
        row = result(*slots)
        assert order(row) == (2, 2, 6)
        assert row.process_count == 1

    def test_files_have_cursors_of_their_own(self) -> None:
        rows = results(*(access(offset=at, file=file) for at in (0, 10, 20) for file in (1, 2)))
        assert [order(row) for row in rows] == [(2, 2, 3)] * 2

    def test_reads_and_writes_are_apart(self) -> None:
        slots = [access(op, at) for at in (0, 10, 20) for op in (Op.PREAD64, Op.PWRITE64)]
        row = result(*slots)
        assert order(row) == (2, 2, 3)
        assert (row.write_sequential_count, row.write_consecutive_count, row.write_pattern_count) == (2, 2, 3)
        assert row.sequential_percent == pytest.approx(400 / 6)

    def test_percentages_are_unknown_without_accesses(self) -> None:
        row = result(fault(1))
        assert row.sequential_percent is None
        assert row.consecutive_percent is None
        assert row.fault_sequential_percent == 100


class TestAmounts:
    def test_reads_and_writes_are_counted_with_their_bytes(self) -> None:
        reads = [access(op, 0, 4099) for op in (Op.READ, Op.READV, Op.PREAD64, Op.PREADV, Op.PREADV2)]
        writes = [access(op, 0, 17) for op in (Op.WRITE, Op.WRITEV, Op.PWRITE64, Op.PWRITEV, Op.PWRITEV2)]
        row = result(*reads, *writes)
        assert (row.read_count, row.read_bytes, row.unique_read_bytes) == (5, 5 * 4099, 4099)
        assert (row.write_count, row.write_bytes, row.unique_write_bytes) == (5, 85, 17)
        assert row.reread_ratio == 5

    def test_unique_bytes_are_the_union(self) -> None:
        row = result(access(offset=100), access(offset=0), access(offset=5), access(offset=110), access(offset=200))
        assert row.unique_read_bytes == 15 + 20 + 10
        assert row.reread_ratio == pytest.approx(50 / 45)
        assert row.unique_granule == 1

    def test_failures_count_apart_and_move_no_bytes(self) -> None:
        row = result(access(offset=0, size=10, ret=-28, marks=0), access(Op.WRITE, 0, 10, -5), access(offset=0))
        assert (row.read_count, row.write_count, row.failed_count, row.read_bytes) == (1, 0, 2, 10)

    @pytest.mark.parametrize("marks", [Mark.INTERRUPTED, Mark.RESULT_UNKNOWN, Mark.ATTACHED])
    def test_results_that_are_none_are_not_counted_as_such(self, marks: Mark) -> None:
        row = result(access(ret=-4, marks=marks), access(ret=4, marks=marks))
        assert (row.read_count, row.failed_count, row.no_result_count) == (0, 0, 2)

    @pytest.mark.parametrize("ret", [-512, -513, -514, -516])
    def test_restarts_are_no_failures(self, ret: int) -> None:
        row = result(access(ret=ret, marks=Mark.INTERRUPTED), access(ret=ret))
        assert (row.read_count, row.failed_count, row.no_result_count) == (0, 0, 2)

    def test_calls_that_did_not_return_are_reported_with_their_age(self) -> None:
        slots = [access(latency=age, ret=0, marks=Mark.UNFINISHED) for age in (7, 35_000, 9)]
        row = result(*slots, access(latency=99_000))
        assert (row.unfinished_count, row.longest_unfinished_ns, row.no_result_count) == (3, 35_000, 0)
        assert (row.read_count, row.failed_count, row.call_p99_ns) == (1, 0, 99_000)

    def test_without_unfinished_calls_there_is_no_age(self) -> None:
        assert result(access(latency=99_000)).longest_unfinished_ns is None

    def test_file_with_nothing_but_a_hung_read_has_a_row(self) -> None:
        row = result(access(ret=0, marks=Mark.UNFINISHED))
        assert (row.read_count, row.unfinished_count, row.process_count) == (0, 1, 1)

    def test_pipes_have_bytes_but_no_pattern(self) -> None:
        row = result(access(Op.READ, None, 100), access(Op.READ, None, 100))
        assert (row.read_count, row.read_bytes, row.unique_read_bytes, row.read_pattern_count) == (2, 200, 0, 0)
        assert row.reread_ratio is None

    def test_shared_offsets_are_counted(self) -> None:
        row = result(access(), access(marks=Mark.OFFSET_SHARED), access(Op.WRITE, marks=Mark.OFFSET_SHARED))
        assert row.inexact_offsets == 2

    def test_time_span_is_that_of_all_accesses(self) -> None:
        row = result(access(ts=50), access(Op.WRITE, ts=20), fault(0, ts=70), access(ts=90, ret=-5))
        assert (row.first_ns, row.last_ns) == (20, 90)

    def test_other_calls_and_second_slots_are_left_out(self) -> None:
        operands = {"addr": 2, "arg_offset": 3, "new_fd": 2, "claim_id": 3}  # read as an access: some file's
        ops = (Op.OPENAT, Op.CLOSE, Op.MMAP, Op.LSEEK, 0x71)
        row = result(*(builders.access(op, operands=operands) for op in ops), access(file=0), access())
        assert (row.file_id, row.read_count) == (1, 1)

    def test_files_that_were_only_opened_have_no_row(self) -> None:
        assert results(access(Op.OPENAT), access(Op.CLOSE)) == []

    def test_nothing_gives_nothing(self) -> None:
        assert results() == []
        assert FilePatterns().results() == []


class TestFaults:
    def test_windows_are_counted_once_and_as_an_estimate(self) -> None:
        row = result(fault(5, 16, 5), fault(7, 16, 7), fault(20, 16, 4))
        assert (row.fault_count, row.fault_pages, row.fault_bytes) == (3, 32, 32 * PAGE)
        assert (row.pages_is_upper_bound, row.pages_is_lower_bound) == (True, True)

    def test_unknown_window_is_one_page_and_a_lower_bound(self) -> None:
        row = result(fault(5), fault(5), fault(9))
        assert (row.fault_pages, row.pages_is_upper_bound, row.pages_is_lower_bound) == (2, False, True)

    def test_single_pages_are_exact(self) -> None:
        row = result(fault(5, 1), fault(9, 1))
        assert (row.fault_pages, row.pages_is_upper_bound, row.pages_is_lower_bound) == (2, False, False)

    def test_window_before_the_file_or_inside_out_stays_in_bounds(self) -> None:
        assert result(fault(2, 16, 5)).fault_pages == 16
        assert result(fault(20, 4, 9), fault(20, 1)).fault_pages == 4  # the faulting page is in its window

    def test_pages_are_of_the_traced_host(self) -> None:
        slot = access(Op.FAULT, 1 << 16, 0, 1)
        row = result(slot, slot, page_size=1 << 16)
        assert (row.fault_pages, row.fault_bytes) == (1, 1 << 16)

    def test_majors_are_a_share_of_the_faults(self) -> None:
        row = result(fault(0, marks=Mark.IS_MAJOR | Mark.IS_WRITE), fault(1), fault(2), fault(3))
        assert (row.major_count, row.major_percent) == (1, 25)

    def test_order_is_by_page(self) -> None:
        row = result(*(fault(page, 16, page % 16) for page in (0, 16, 20, 3, 40)))
        assert (row.fault_sequential_count, row.fault_pattern_count) == (3, 5)

    def test_faults_leave_the_calls_alone(self) -> None:
        row = result(access(offset=0), fault(9, 16), access(offset=10), fault(10, 16, latency=77_000))
        assert order(row) == (1, 1, 2)
        assert (row.read_bytes, row.unique_read_bytes, row.call_p99_ns) == (20, 20, 1000)
        assert (row.fault_p50_ns, row.fault_p99_ns) == (1000, 77_000)


class TestDistributions:
    def test_typical_size_is_what_was_asked_not_what_came(self) -> None:
        assert result(*(access(size=65_536, ret=100 * n) for n in range(5)), access(size=10)).typical_size == 65_536

    def test_who_asks_for_more_than_a_call_can_move_asks_for_what_came(self) -> None:
        assert result(*(access(size=(1 << 63) - 1, ret=n) for n in (0, 1 << 20))).typical_size == 1 << 20
        assert result(access(size=0x7FFF_F000, ret=5)).typical_size == 0x7FFF_F000

    def test_odd_sizes_come_back_exactly(self) -> None:
        assert result(access(size=4099), access(size=4099), access(size=1)).typical_size == 4099

    def test_larger_of_equally_frequent_sizes(self) -> None:
        assert result(access(size=512), access(size=131_072)).typical_size == 131_072

    def test_quantiles_are_ranks(self) -> None:
        row = result(*(access(latency=1000 << (n // 50)) for n in range(100)))
        assert (row.call_p50_ns, row.call_p99_ns) == (1000, 2000)

    def test_quantiles_are_within_the_documented_error(self) -> None:
        latencies = sorted(1000 + 37 * n * n for n in range(500))
        row = result(*(access(latency=n) for n in latencies))
        assert row.call_p50_ns == pytest.approx(latencies[249], rel=1 / 32)
        assert row.call_p99_ns == pytest.approx(latencies[494], rel=1 / 32)

    def test_unknown_latencies_are_left_out(self) -> None:
        assert result(access(latency=None), access(latency=None)).call_p50_ns is None
        assert result(access(latency=None), access(latency=0)).call_p50_ns == 0


class TestIdentity:
    def test_label_is_the_path_at_first_use(self) -> None:
        tables = make_tables()
        tables.paths[11] = name(11, b"/new", 1)
        row = result(access(Op.OPENAT, None, path=1), access(path=11), tables=tables)
        assert row.path == "/f1"

    def test_names_are_not_gone_through_when_all_are_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tables = make_tables()
        monkeypatch.setattr(Archive, "__iter__", None)
        assert result(access(path=1), tables=tables).path == "/f1"

    def test_unknown_file_is_never_blank(self) -> None:
        row = result(access(file=77))
        assert (row.path, row.file_id) == ("file_id 77", 77)

    def test_name_that_comes_later_is_used(self) -> None:
        tables = make_tables()
        patterns = FilePatterns()
        patterns.add(Batch(access(file=77, path=0)), tables)
        tables.files[77], tables.paths[78] = 77, name(78, b"/late", 77)
        patterns.add(Batch(access(file=77, path=78)), tables)
        assert [row.path for row in patterns.results()] == ["/late"]

    def test_ids_of_one_identity_are_one_row(self) -> None:
        tables = make_tables()
        tables.files[50] = 2
        row = result(access(offset=0, file=2), access(offset=10, file=50), tables=tables)
        assert (row.file_id, row.path, row.read_count) == (2, "/f2", 2)
        assert order(row) == (1, 1, 2)

    def test_identity_that_comes_late_folds_what_was_counted_apart(self) -> None:
        tables = make_tables()
        patterns = FilePatterns()
        before = [access(offset=0, file=2, ts=5), access(offset=10, file=50, ts=1, task=2, latency=9000), fault(3)]
        patterns.add(Batch(b"".join([*before, fault(4, file=50), access(file=50, offset=5, task=3)])), tables)
        assert len(patterns.results()) == 3
        tables.files[50] = 2
        patterns.add(Batch(access(offset=20, file=50, task=2)), tables)
        other, row = patterns.results()
        assert (other.path, other.fault_count) == ("/f1", 1)
        assert (row.path, row.first_ns, row.read_count, row.fault_count) == ("/f2", 0, 4, 1)
        assert (row.unique_read_bytes, row.process_count, row.call_p99_ns) == (30, 2, 9000)
        assert order(row) == (3, 1, 4)  # 10 and 5 are behind 0; 20 follows process 200's 10

    def test_folded_file_keeps_the_path_it_was_first_used_under(self) -> None:
        tables = make_tables()
        patterns = FilePatterns()
        patterns.add(Batch(access(file=50, path=5)), tables)
        assert len(patterns.results()) == 1
        patterns.add(Batch(access(file=2, path=2)), tables)
        assert len(patterns.results()) == 2
        tables.files[50] = 2
        assert [(row.file_id, row.path) for row in patterns.results()] == [(2, "/f5")]

    def test_process_that_reuses_a_number_starts_anew(self) -> None:
        tables = make_tables()
        tables.tasks[4] = Task(4, 100, 100, "next", start_time_ns=9)
        ended = Exit(0, 1, 0, 0, tables, is_last=True)
        with patch("flak.analysis.files._CHUNK", 1):
            patterns = FilePatterns()
            patterns.add(Batch(access(offset=0), [ended]), tables)
            patterns.add(Batch(access(offset=10)), tables)  # drained after the process's end
            patterns.add(Batch(access(offset=20, task=2)), tables)
            for at in (20, 30, 40):
                patterns.add(Batch(access(offset=at, task=4)), tables)
        (row,) = patterns.results()
        assert order(row) == (5, 3, 6)
        assert (row.process_count, patterns.process_count) == (3, 3)

    def test_processes_of_one_number_are_told_apart_before_the_end_of_the_first_came(self) -> None:
        tables = make_tables()
        tables.tasks.update({task: Task(task, 100, 100, "next", process_tag=task) for task in (4, 5)})
        patterns = FilePatterns()
        patterns.add(Batch(b"".join(access(offset=0, task=task) for task in (1, 4, 5, 4))), tables)
        assert (patterns.results()[0].process_count, patterns.process_count) == (3, 3)

    def test_thread_that_ends_is_no_process(self) -> None:
        tables = make_tables()
        with patch("flak.analysis.files._CHUNK", 1):
            patterns = FilePatterns()
            for at in range(0, 50, 10):
                patterns.add(Batch(access(offset=at), [Exit(0, 3, 0, 0, tables, is_last=False)]), tables)
        assert order(patterns.results()[0]) == (4, 4, 5)

    def test_tasks_without_a_record_are_processes_of_their_own(self) -> None:
        row = result(access(task=90), access(task=91), access(task=90))
        assert row.process_count == 2


def test_analyse_reads_any_source_to_its_end() -> None:
    @dataclass
    class Source:
        tables: Tables = field(default_factory=make_tables)
        stats: Counters = field(default_factory=Counters)

        def __iter__(self) -> Iterator[Event]:
            return iter(())

        def batches(self) -> Iterator[Batch]:
            yield Batch(access(offset=0))
            yield Batch(b"")
            yield Batch(memoryview(access(offset=10) + access(offset=20)))

    (row,) = analyse(Source())
    assert order(row) == (2, 2, 3)


def test_rows_come_in_the_order_of_first_access() -> None:
    rows = results(*(access(file=file, ts=ts) for file, ts in ((3, 50), (1, 20), (2, 30), (3, 10))))
    assert [row.file_id for row in rows] == [3, 1, 2]


def test_results_may_be_asked_for_in_between() -> None:
    patterns, tables = FilePatterns(), make_tables()
    for at in range(5):
        patterns.add(Batch(access(offset=10 * at)), tables)
        assert order(patterns.results()[0]) == (at, at, at + 1)


def test_lost_accesses_count_and_have_no_place() -> None:
    def lost(op: int, count: int, size: int = 0, ret: int = 0, marks: int = 0, file: int = 1) -> Folded:
        common = CLASS_OF_OP[op](7, -1, -1, -1, ret, 1, file, file, -1, None, marks, op, None, tables)
        return Folded(900, 7, count, size, 0, common)

    tables = make_tables()
    patterns = FilePatterns()
    patterns.add(Batch(access(offset=100, size=10, ts=50)), tables)
    folded = [
        lost(Op.PREAD64, 5, 70), lost(Op.PREAD64, 2, ret=-1), lost(Op.WRITE, 3, 30), lost(Op.CLOSE, 9),
        lost(Op.READ, 4, marks=Mark.UNFINISHED), lost(Op.READ, 6, marks=Mark.INTERRUPTED),
        lost(Op.FAULT, 8, 11, marks=Mark.IS_MAJOR), lost(Op.READ, 1, 3, file=2), lost(Op.READ, 1, file=0),
    ]  # fmt: skip
    patterns.add(Batch(b"", folded=folded), tables)
    patterns.add(Batch(access(offset=110, size=10, ts=60)), tables)
    row, other = patterns.results()
    assert (row.read_count, row.read_bytes, row.write_count, row.write_bytes) == (7, 90, 3, 30)
    assert (row.failed_count, row.unfinished_count, row.no_result_count) == (2, 4, 6)
    assert (row.fault_count, row.major_count, row.fault_pages, row.pages_is_lower_bound) == (8, 8, 0, True)
    assert row.folded_count == 5 + 2 + 3 + 4 + 6 + 8
    assert order(row) == (2, 1, 2)
    assert (row.first_ns, row.last_ns) == (7, 900)
    assert (other.path, other.read_count, other.read_bytes, other.folded_count) == ("/f2", 1, 3, 1)
