"""The closing table, word by word."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from access_slots import PAGE, access, fault, make_tables, name, result, results

from flak.analysis import FileRow
from flak.events import Counters, Mark, Op
from flak.report import _COLUMNS, render_summary
from flak.text import cell_width

BLANK = result(access(Op.READ, None, 1))


def row(path: str = "/f", **figures: Any) -> FileRow:
    """A row of a file that was not touched, but for the figures given."""
    nothing = dict.fromkeys(
        (field.name for field in dataclasses.fields(FileRow) if isinstance(getattr(BLANK, field.name), int)), 0
    )
    return dataclasses.replace(BLANK, **{**nothing, "unique_granule": 1, "typical_size": None, "call_p50_ns": None,
        "call_p99_ns": None, "reread_ratio": None, "path": path} | figures)  # fmt: skip


def counters(written: int = 0, **rest: Any) -> Counters:
    lost = rest.get("lost", {})
    in_user_space = sum(n for cause, n in lost.items() if cause.startswith("user_"))
    received = written + in_user_space
    matched = received + sum(lost.values()) - in_user_space
    return Counters(matched=matched, submitted=received, received=received, written=written, **rest)


def render(rows: list[FileRow] | None = None, stats: Counters | None = None, **options: Any) -> str:
    return render_summary([] if rows is None else rows, stats or counters(), **{"duration_s": 2.0, **options})


def sample() -> list[FileRow]:
    """A shard read twice, a model touched at random through a mapping, a checkpoint that found the disk full."""
    tables = make_tables()
    tables.paths.update(
        {
            1: name(1, b"/data/train/imagenet/2024/shards/shard-00042.tar"),
            2: name(2, b"/models/llama-70b/weights/model-00001-of-00030.safetensors"),
            3: name(3, b"/ckpt/step1.pt"),
        }
    )
    slots = [access(Op.READ, 131072 * n, 131072, latency=91_000, file=1) for n in range(100)] * 2
    slots += [access(Op.READ, 131072 * 100, 131072, 0, latency=4_200_000, file=1)]
    pages = [(7919 * n) % 10_000 for n in range(500)]
    slots += [fault(page, 16, page % 16, file=2, latency=88_000, marks=Mark.IS_MAJOR * (page % 2)) for page in pages]
    slots += [access(offset=PAGE * n, size=PAGE, file=2, latency=1200) for n in range(3)]
    slots += [access(Op.WRITE, 4096 * n, 4096, file=3, latency=9_000) for n in range(23)]
    slots += [access(Op.WRITE, 4096 * 23, 4096, -28, file=3)]
    return results(*slots, tables=tables)


GOLDEN_80 = """\
1 204 113 events, 120.4 s, 3 processes, 3 files, 0 lost
READS R-BYTES UNIQUE F-BYTES F-SEQ% W-BYTES SEQ%   p99  FILE
    3   12.0K  12.0K  ~27.3M    20%       -    - 1.2us  model-00001….safetensors
  201   25.0M  12.5M       -      -       -  99%  91us  /data/…/shard-00042.tar
    -       -      -       -      -   92.0K  95% 9.0us  /ckpt/step1.pt
-w shows more columns: RE-READ FAULTS MAJ% F-p50 F-p99 WRITES FAILED CONSEC% SIZE p50
"""

GOLDEN_120 = """\
1 204 113 events, 120.4 s, 3 processes, 3 files, 0 lost
READS R-BYTES RE-READ UNIQUE F-BYTES FAULTS MAJ% F-SEQ% WRITES W-BYTES FAILED SEQ% SIZE   p99  FILE
    3   12.0K    1.0x  12.0K  ~27.3M    500  50%    20%      -       -      -    - 4.0K 1.2us  model-00001-….safetensors
  201   25.0M    2.0x  12.5M       -      -    -      -      -       -      -  99% 128K  91us  /data/…/shard-00042.tar
    -       -       -      -       -      -    -      -     23   92.0K      1  95% 4.0K 9.0us  /ckpt/step1.pt
-w shows more columns: F-p50 F-p99 CONSEC% p50
"""


def test_golden_80() -> None:
    text = render(sample(), counters(1_204_113), duration_s=120.4, processes=3)
    assert text == GOLDEN_80
    assert max(map(cell_width, text.splitlines()[:-1])) <= 80


def test_golden_120() -> None:
    assert render(sample(), counters(1_204_113), duration_s=120.4, processes=3, width=120) == GOLDEN_120


def test_wide_shows_every_column_and_whole_paths() -> None:
    head, *lines = render(sample(), width=None).splitlines()[1:]
    titles = "READS R-BYTES RE-READ UNIQUE F-BYTES FAULTS MAJ% F-SEQ% F-p50 F-p99 WRITES W-BYTES FAILED CONSEC% SEQ%"
    assert head == f"{titles} SIZE   p50   p99  FILE"
    assert [line.split()[-1] for line in lines] == [
        "/models/llama-70b/weights/model-00001-of-00030.safetensors",
        "/data/train/imagenet/2024/shards/shard-00042.tar",
        "/ckpt/step1.pt",
    ]


def test_lost_accesses_are_in_the_counts_and_said_to_be() -> None:
    text = render([row("/a", read_count=9, folded_count=7), row("/b", read_count=1)])
    titles, of_a, of_b = (line.split() for line in text.splitlines() if "/" in line or "FILE" in line)
    assert of_a[titles.index("LOST")] == "7"
    assert of_b[titles.index("LOST")] == "-"
    assert "counts and bytes include 7 accesses that were lost (LOST)" in text


def test_columns_that_say_nothing_are_left_out() -> None:
    head = render([row(write_count=9, write_bytes=100, write_pattern_count=9)]).splitlines()[1]
    assert head.split() == ["WRITES", "W-BYTES", "CONSEC%", "SEQ%", "FILE"]


def test_read_and_faulted_bytes_stand_side_by_side_in_one_unit() -> None:
    mixed = result(*(access(offset=PAGE * n, size=PAGE) for n in range(64)), *(fault(page, 1) for page in range(64)))
    head, line = render([mixed], width=None).splitlines()[1:3]
    at = head.split().index("UNIQUE")
    assert head.split()[at : at + 2] == ["UNIQUE", "F-BYTES"]
    assert line.split()[at : at + 2] == ["256K", "256K"]


@pytest.mark.parametrize(
    ("upper", "lower", "text"),
    [(False, False, "4.0K"), (True, False, "≤4.0K"), (False, True, "≥4.0K"), (True, True, "~4.0K")],
)
def test_bounds_are_marked(upper: bool, lower: bool, text: str) -> None:
    figures = {"fault_count": 1, "fault_bytes": 4096, "pages_is_upper_bound": upper, "pages_is_lower_bound": lower}
    assert render([row(**figures)]).splitlines()[2].split() == [text, "1", "/f"]


def test_unique_bytes_by_the_page_are_marked() -> None:
    text = render([row(read_count=1, unique_read_bytes=8192, unique_granule=4096)])
    assert text.splitlines()[2].split() == ["1", "≤8.0K", "/f"]


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(4, 4, "-"), (0, 5, "0%"), (5, 5, "100%"), (4, 5, "80%"), (1, 1000, "<1%"), (999, 1000, "99%")],
)
def test_shares_are_not_rounded_to_certainty(part: int, whole: int, text: str) -> None:
    line = render([row(read_count=whole, read_pattern_count=whole, read_sequential_count=part)], width=None)
    cells = dict(zip(*(line.split() for line in line.splitlines()[1:3]), strict=True))
    assert cells.get("SEQ%", "-") == text


def test_files_with_most_bytes_come_first_and_the_rest_is_counted() -> None:
    rows = [row(f"/f{n}", read_bytes=n, read_count=1) for n in range(1, 24)]
    rows += [row("/w", write_bytes=100, write_count=1), row("/m", fault_bytes=99, fault_count=1)]
    lines = render(rows).splitlines()
    assert [line.split()[-1] for line in lines[2:22]] == ["/w", "/m", *(f"/f{n}" for n in range(23, 5, -1))]
    assert lines[22:] == ["… 5 more files"]
    assert render(rows, limit=24).splitlines()[-1] == "… 1 more file"


def test_narrow_terminal_gives_up_columns_but_no_file() -> None:
    text = render(sample(), width=30)
    assert [line.split()[-1] for line in text.splitlines()[2:5]][2] == "/ckpt/step1.pt"
    assert "-w shows more columns" in text


class TestHeadline:
    def test_nothing_happened(self) -> None:
        assert render() == "0 events, 2.0 s, 0 files, 0 lost\n"

    def test_singular_and_short_runs(self) -> None:
        line = render([row()], counters(1), duration_s=0.0431, processes=1).splitlines()[0]
        assert line == "1 event, 43 ms, 1 process, 1 file, 0 lost"

    def test_losses_are_red_and_come_with_help(self) -> None:
        stats = counters(10, lost={"ring_full": 1200, "meta_full": 0, "user_display": 3})
        line = "10 events, 2.0 s, 0 files, {}, try a larger --buffer-size\n"
        loss = "1 203 lost (ring_full 1 200, user_display 3)"
        assert render(stats=stats) == line.format(loss)
        assert render(stats=stats, color=True) == line.format(f"\x1b[31m{loss}\x1b[0m")

    @pytest.mark.parametrize("lost", [{}, {"ring_full": 0}])
    def test_recursion_misses_forbid_zero_lost(self, lost: dict[str, int]) -> None:
        text = render(stats=counters(recursion_misses=2, lost=lost))
        assert text == "0 events, 2.0 s, 0 files, unknown lost: 2 recursion misses\n"
        assert "\x1b[31munknown lost" in render(stats=counters(recursion_misses=1), color=True)

    def test_losses_in_user_space_are_no_matter_of_the_buffer(self) -> None:
        assert render(stats=counters(lost={"user_disk": 3})) == "0 events, 2.0 s, 0 files, 3 lost (user_disk 3)\n"

    def test_losses_for_want_of_memory_are_no_matter_of_the_buffer_either(self) -> None:
        assert render(stats=counters(lost={"state_full": 3})) == "0 events, 2.0 s, 0 files, 3 lost (state_full 3)\n"

    def test_recursion_misses_beside_losses(self) -> None:
        text = render(stats=counters(recursion_misses=1, lost={"ring_full": 5}))
        assert "5 lost (ring_full 5; and unknown: 1 recursion miss), try" in text

    def test_what_was_left_out_is_said(self) -> None:
        stats = counters(not_decoded={"io_uring": 1000, "aio": 0, "copy": 3}, excluded_self=1)
        assert render(stats=stats).splitlines()[1:] == [
            "not decoded, so missing below: 1 000 io_uring, 3 copy",
            "left out: 1 access by FLAK itself",
        ]

    def test_nothing_left_out_is_not_said(self) -> None:
        assert render(stats=counters(not_decoded={"io_uring": 0})).count("\n") == 1

    def test_killed_recording_says_incomplete(self) -> None:
        assert "incomplete" in render(stats=Counters(matched=9, written=5, is_complete=False))

    def test_counters_that_disagree_are_shown(self) -> None:
        text = render(stats=Counters(matched=1009, submitted=5, received=5, written=5))
        assert "disagree" in text
        assert "matched 1 009, submitted 5, received 5, written 5" in text


class TestFootnotes:
    def test_hung_calls_are_named(self) -> None:
        hung = [access(latency=age, ret=0, marks=Mark.UNFINISHED) for age in (10**9, 35 * 10**9)]
        text = render(results(*hung, access(file=2)))
        assert text.splitlines()[-1] == "2 calls had not returned, the oldest after 35s: /f1"

    def test_inexact_offsets_are_counted(self) -> None:
        text = render([result(access(marks=Mark.OFFSET_SHARED))])
        assert text.splitlines()[-1].startswith("1 offset inexact (shared file position)")


def test_hostile_names_neither_break_lines_nor_columns() -> None:
    names = [b"/a\nb", b"/\x1b[31mred", b"/\xff\xfe", "/\u202egpj.exe".encode(), "/日本語/文書.txt".encode()]
    names.append(b"/" + b"x" * 5000)
    tables = make_tables()
    tables.paths = {n: name(n, raw) for n, raw in enumerate(names, 1)}
    rows = results(*(access(file=n, size=7 - n) for n in range(1, 7)), tables=tables)
    lines = render(rows, width=60).splitlines()
    assert len(lines) == 9
    assert all(line.isprintable() and cell_width(line) <= 60 for line in lines)
    at = lines[1].index("FILE")
    assert [line[at:] for line in lines[2:7]] == [
        "/a\\nb", "/\\x1b[31mred", "/\\xff\\xfe", "/\\u202egpj.exe", "/日本語/文書.txt",
    ]  # fmt: skip


def test_without_numpy_the_counters_are_worded() -> None:
    text = render_summary(None, counters(5), duration_s=2.0, width=80, color=False)
    assert text == "5 events, 2.0 s, 0 lost\nthe table of files needs numpy: pip install numpy\n"


def test_report_imports_neither_numpy_nor_rich() -> None:
    code = "import sys, flak.report; print({'numpy', 'rich', 'flak.analysis'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, capture_output=True, text=True)
    assert run.stdout == "set()\n", run.stderr


def test_every_column_and_field_is_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "patterns.md").read_text()
    assert [column.title for column in _COLUMNS if f"`{column.title}`" not in text] == []
    fields = {field.name for field in dataclasses.fields(FileRow)} - {"file_id", "path"}
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []
