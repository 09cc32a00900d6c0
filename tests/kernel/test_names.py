"""Names: the kernel's, whatever string was passed; one identity behind two names, two behind one."""

from __future__ import annotations

import base64
import errno
import os
from pathlib import Path

import pytest

from flak.events import Open, Read, Write

from .conftest import Runs, Together
from .running import Run

pytestmark = pytest.mark.kernel

VARIANTS = ["open", "rename", "rename-parent", "unlink", "link", "reuse", "fail"]
HOSTILE = ("hostile", Path.mkdir)


@pytest.fixture(scope="module")
def runs(together: Together) -> Runs:
    """Every program in a folder of its own."""
    return together([*(("names", variant, Path.mkdir) for variant in VARIANTS), HOSTILE])


def test_eleven_ways_to_open_a_file_give_one_name(runs: Runs) -> None:
    run, folder = runs["names", "open", Path.mkdir]
    file = folder / "sub" / "f"
    steps = [s for s in run.steps if "path" in s]
    _making_it, *opened = run.on(file, Open)
    assert [(e.op, e.new_fd, e.errno) for e in opened] == [(s["op"], s["result"], None) for s in steps]
    assert len(opened) == 11
    assert len({(e.file_id, e.path_id) for e in opened}) == 1


def test_a_relative_open_carries_the_descriptor_it_starts_from(runs: Runs) -> None:
    run, folder = runs["names", "open", Path.mkdir]
    _making_it, *opened = run.on(folder / "sub" / "f", Open)
    assert [e.fd for e in opened] == [s["fd"] for s in run.steps if "path" in s]


def test_accesses_after_each_open_carry_that_name(runs: Runs) -> None:
    run, folder = runs["names", "open", Path.mkdir]
    seen = run.on(folder / "sub" / "f", Read)
    # The last descriptor is creat's, which is write-only.
    assert [e.errno or e.size_ret for e in seen] == [*10 * [1], "EBADF"]


def test_a_rename_changes_the_name_from_then_on(runs: Runs) -> None:
    run, folder = runs["names", "rename", Path.mkdir]
    before, after = run.on(folder / "old", Read), run.on(folder / "new", Read)
    assert (len(before), len(after)) == (3, 5)
    assert max(e.ts_ns for e in before) < min(e.ts_ns for e in after)
    assert len({e.file_id for e in before + after}) == 1
    assert len({e.path_id for e in before + after}) == 2


def test_renaming_a_parent_folder_changes_the_name_from_then_on(runs: Runs) -> None:
    run, folder = runs["names", "rename-parent", Path.mkdir]
    before, after = run.on(folder / "d" / "f", Read), run.on(folder / "e" / "f", Read)
    assert (len(before), len(after)) == (3, 5)
    assert len({e.file_id for e in before + after}) == 1


def test_an_unlinked_file_keeps_the_name_it_had(runs: Runs) -> None:
    run, folder = runs["names", "unlink", Path.mkdir]
    seen = run.on(folder / "f", Read)
    assert [e.file_offset for e in seen] == [0, 1, 2, 0, 1, 2, 3, 4]
    assert len({e.file_id for e in seen}) == 1


def test_hard_links_are_one_file_with_two_names(runs: Runs) -> None:
    run, folder = runs["names", "link", Path.mkdir]
    a, b = run.on(folder / "a", Read), run.on(folder / "b", Read)
    assert (len(a), len(b)) == (3, 5)
    assert len({e.file_id for e in a + b}) == 1
    assert {e.path_id for e in a}.isdisjoint({e.path_id for e in b})


def test_a_reused_inode_number_is_another_file(runs: Runs) -> None:
    run, folder = runs["names", "reuse", Path.mkdir]
    steps = [s for s in run.steps if s["op"] == "pwrite64"]
    seen = run.on(folder / "again", Write)
    assert len(seen) == len(steps) == 13
    assert [e.ino for e in seen] == [s["offset"] for s in steps]
    if any(s["size"] for s in steps):
        # The filesystem has generations, and tells us.
        assert [e.ino_gen for e in seen] == [s["size"] for s in steps]
    assert len({e.file_id for e in seen}) == 13


def test_failed_opens_carry_errno_and_the_string_that_was_passed(runs: Runs) -> None:
    run, _ = runs["names", "fail", Path.mkdir]
    known = {s["path"] for s in run.steps}
    seen = [e for e in run.of(Open) if e.errno and e.claimed_path in known]
    assert [(e.op, e.claimed_path, e.errno, e.new_fd) for e in seen] == [
        (s["op"], s["path"], errno.errorcode[-s["result"]], None) for s in run.steps
    ]
    assert len(seen) == 11
    assert all("path_claimed" in e.marks for e in seen)


def names_below(run: Run, folder: Path) -> list[bytes]:
    """The workload's names, as the bytes of whole paths."""
    return [os.fsencode(folder) + b"/" + bytes.fromhex(s["name"]) for s in run.steps]


def test_hostile_names_arrive_byte_by_byte(runs: Runs) -> None:
    run, folder = runs[HOSTILE]
    names = names_below(run, folder)[:6]
    seen = [e for e in run.of(Write, Read) if e.file and e.file.raw_path in names]
    assert [(e.file.raw_path, e.op, e.size_ret) for e in seen] == [
        (name, op, 3) for name in names for op in ("pwrite64", "pread64")
    ]
    assert len(seen) == 12


def test_paths_as_text_can_be_printed(runs: Runs) -> None:
    run, folder = runs[HOSTILE]
    paths = {e.path for e in run.of(Write, Read, Open) if e.path.startswith(str(folder))}
    assert len(paths) >= 6
    assert all(path.isprintable() for path in paths)


def test_a_name_that_is_not_utf8_is_also_given_as_bytes(runs: Runs) -> None:
    run, folder = runs[HOSTILE]
    seen = [e for e in run.of(Write) if e.path_bytes]
    assert [base64.b64decode(e.path_bytes) for e in seen] == [os.fsencode(folder) + b"/latin\xff"]
    assert seen[0].path == str(folder) + "/latin\\xff"


def test_a_path_too_long_to_keep_is_cut_at_its_beginning_and_marked(runs: Runs) -> None:
    run, folder = runs[HOSTILE]
    whole = names_below(run, folder)[6]
    assert len(whole) > 4096
    seen = [e for e in run.of(Write, Read) if e.file and e.file.raw_path.endswith(b"l/leaf")]
    assert [(e.op, e.size_ret) for e in seen] == [("pwrite64", 3), ("pread64", 3)]
    for access in seen:
        assert "path_truncated" in access.marks
        kept = access.file.raw_path.split(b"/", 1)[1]
        assert len(kept) > 2048
        assert whole.endswith(b"/" + kept)
