"""Patterns of paths, and what is taken out of a round."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flak import filters
from flak._records import CLAIM_BIT, MAX_VERDICTS, VERDICT_WORDS
from flak.errors import UsageError
from flak.events import Access, Batch
from flak.filters import Filters, PathPatterns, PathSieve
from flak.wire import Decoder, count_accesses, size_of_accesses


@pytest.mark.parametrize(
    ("patterns", "wanted", "unwanted"),
    [
        (["/data"], ["/data", "/data/a", "/data/a/b"], ["/data2", "/dat", "/x/data"]),
        (["/data/"], ["/data", "/data/a"], ["/data2"]),
        (["/"], ["/", "/a"], []),
        (["/data/*.db"], ["/data/a.db", "/data/x/y.db"], ["/data/a.dbx", "/a.db"]),
        (["*.db"], ["/a.db", "/x/y/a.db", "a.db"], ["/a.db/x"]),
        (["passwd"], ["/etc/passwd", "passwd"], ["/etc/passwd-", "/passwd/x"]),
        (["*/cache/*"], ["/home/u/cache/f"], ["/cache"]),
        (["/d/[ab]?"], ["/d/a1"], ["/d/c1", "/d/a"]),
        (["/a", "/b"], ["/a/x", "/b"], ["/c"]),
        (["!/proc"], ["/etc/x"], ["/proc/1/maps", "/proc"]),
        (["/a", "!*.tmp"], ["/a/x"], ["/a/x.tmp", "/b"]),
        (["/a\nb"], ["/a\nb/c"], ["/a"]),
        (["memfd:*"], ["memfd:x"], ["/x"]),
    ],
)
def test_patterns_are_those_of_find(patterns: list[str], wanted: list[str], unwanted: list[str]) -> None:
    match = PathPatterns(patterns).match
    assert [path for path in wanted + unwanted if match(path.encode())] == wanted


def test_a_relative_pattern_with_a_slash_starts_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    patterns = PathPatterns(["sub/x", "./y"])
    assert patterns.match(bytes(tmp_path / "sub/x")) and patterns.match(bytes(tmp_path / "y"))
    assert not patterns.match(b"/sub/x")


def test_a_relative_pattern_with_a_wildcard_starts_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "[old] *"
    here.mkdir()
    monkeypatch.chdir(here)
    patterns = PathPatterns(["sub/*.db", "../next/*", "./plain"])
    assert all(patterns.match(bytes(path)) for path in (here / "sub/a.db", tmp_path / "next/x", here / "plain"))
    assert not patterns.match(bytes(tmp_path / "o/sub/a.db"))


@pytest.mark.parametrize("given", [{"min_size": 1 << 63}, {"min_latency_ns": 1 << 70}, {"min_size": -1}])
def test_a_limit_that_the_programs_cannot_hold_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        Filters(**given)


def test_names_that_are_not_text_match_bytes() -> None:
    assert PathPatterns(["/d/\udcff*"]).match(b"/d/\xff1")


@pytest.mark.parametrize("pattern", ["", "!"])
def test_an_empty_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="--path"):
        PathPatterns([pattern])


# the sieve

NAMES = (
    builders.name("/wanted/a", 1) + builders.name("/other/b", 2) + builders.name("/wanted", 3)
    + builders.claim("missing", 4, base_path_id=3) + builders.claim("/other/missing", 5)
)  # fmt: skip


class Sieve:
    """A sieve for /wanted over the names above, and the programs' memory."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.decoder.learn(builders.task() + NAMES)
        self.verdicts = memoryview(bytearray(8 * 2 * VERDICT_WORDS)).cast("Q")
        self.sieve = PathSieve(PathPatterns(["/wanted"]), self.decoder.tables.paths, self.verdicts)

    def events(self, *records: bytes) -> tuple[list[Any], int]:
        slots, put_aside = self.sieve.sift(memoryview(b"".join(records)))
        assert count_accesses(slots) == count_accesses(b"".join(records)) - put_aside
        return self.decoder.decode(Batch(slots)), put_aside


def read(seq: int, path_id: int) -> bytes:
    return builders.read(seq=seq, path_id=path_id, file_id=path_id)


def test_unwanted_accesses_are_taken_out_and_leave_no_gap() -> None:
    sieve = Sieve()
    events, put_aside = sieve.events(*(read(seq, 1 + seq % 2) for seq in range(40)), read(40, 1))
    assert put_aside == 20
    assert [event.seq for event in events] == list(range(0, 41, 2))
    assert all(isinstance(event, Access) for event in events), "a number that was put aside is not lost"
    assert sieve.decoder.tail({0: (41, 0)}) == []


def test_the_programs_learn_what_is_unwanted() -> None:
    sieve = Sieve()
    sieve.events(read(0, 1), read(1, 2))
    assert sieve.verdicts[0] == 1 << 2 and not any(sieve.verdicts[1:])


def test_verdicts_are_kept_in_bounds_and_are_the_same_when_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_MOST_VERDICTS", 50)
    sieve = Sieve()
    sieve.decoder.learn(b"".join(builders.name("/other/x", path_id) for path_id in range(100, 400)))
    for round_ in range(30):
        numbers = range(12 * round_, 12 * round_ + 12)
        events, put_aside = sieve.events(
            *(read(seq, 100 + 10 * round_ + seq % 12) for seq in numbers[:10]), *(read(seq, 1) for seq in numbers[10:])
        )
        assert (len(events), put_aside) == (2, 10)
        assert len(sieve.sieve._is_wanted) <= 50 + 12


def test_a_round_without_unwanted_accesses_is_not_copied() -> None:
    slots = memoryview(read(0, 1))
    assert Sieve().sieve.sift(slots)[0] is slots


def test_accesses_of_two_slots_go_as_a_whole() -> None:
    events, put_aside = Sieve().events(
        builders.open_(3, seq=0, path_id=2, file_id=2), builders.open_(4, seq=1, path_id=1, file_id=1), read(2, 1)
    )
    assert put_aside == 1
    assert [(event.seq, event.new_fd) for event in events] == [(1, 4), (2, None)]


def test_a_failed_call_counts_by_the_path_it_claimed() -> None:
    events, put_aside = Sieve().events(
        builders.failed_open(errno.ENOENT, 4, seq=0, path_id=0, file_id=0),
        builders.failed_open(errno.ENOENT, 5, seq=1, path_id=0, file_id=0),
        builders.access(builders.Op.CLOSE, seq=2, path_id=0, file_id=0, ret=-errno.EBADF),
    )
    assert put_aside == 2
    assert [event.path for event in events] == ["/wanted/missing"]


def test_claims_have_verdicts_of_their_own() -> None:
    sieve, claim = Sieve(), CLAIM_BIT | 3
    sieve.decoder.learn(builders.claim("/other/made-up", claim) + builders.claim("/wanted/made-up", claim + 1))
    look = [builders.access(builders.Op.STATX, seq=n, path_id=claim + n, file_id=0, operands={}) for n in range(2)]
    events, put_aside = sieve.events(*look)
    assert put_aside == 1 and [event.path for event in events] == ["/wanted/made-up"]
    assert sieve.verdicts[VERDICT_WORDS] == 1 << 3 and sieve.verdicts[0] == 0
    assert sieve.events(builders.access(builders.Op.STATX, seq=2, path_id=claim, file_id=0))[1] == 1


def test_a_wanted_file_may_be_renamed_to_an_unwanted_name_that_was_seen_before() -> None:
    sieve, unwanted, wanted = Sieve(), CLAIM_BIT | 3, CLAIM_BIT | 4
    sieve.decoder.learn(builders.claim("/other/new", unwanted) + builders.claim("/wanted/old", wanted))
    assert sieve.events(builders.access(builders.Op.STATX, seq=0, path_id=unwanted, file_id=0))[1] == 1
    moved = builders.access(builders.Op.RENAME, seq=1, path_id=wanted, file_id=0, operands={"other_path_id": unwanted})
    events, put_aside = sieve.events(moved)
    assert put_aside == 0 and [(event.path, event.new_path) for event in events] == [("/wanted/old", "/other/new")]


def test_verdicts_end_somewhere_and_accesses_are_put_aside_all_the_same() -> None:
    sieve = Sieve()
    for path_id in (MAX_VERDICTS + 1, CLAIM_BIT | MAX_VERDICTS + 1):
        sieve.decoder.learn(builders.name("/other/late", path_id))
        assert sieve.events(read(path_id & 0xFF, path_id))[1] == 1
    assert not any(sieve.verdicts)


def test_an_access_whose_name_is_still_to_come_passes() -> None:
    sieve = Sieve()
    assert sieve.events(read(0, 9))[1] == 0
    sieve.decoder.learn(builders.name("/other/late", 9))
    assert sieve.events(read(1, 9))[1] == 1


@given(st.lists(st.sampled_from([0, 1, 2, 3, 7]), max_size=30), st.integers(0, 30))
def test_so_many_accesses_are_those_not_put_aside(path_ids: list[int], count: int) -> None:
    slots, _ = Sieve().sieve.sift(memoryview(b"".join(read(seq, path_id) for seq, path_id in enumerate(path_ids))))
    kept = count_accesses(slots)
    assert count_accesses(slots[: size_of_accesses(slots, count)]) == min(count, kept)


def test_nothing_asked_is_nothing_filtered() -> None:
    assert not Filters().is_any and not any(Filters().settings().values())
    assert Filters(min_size=1).settings() == {"filters": True, "only_failed": False, "min_latency_ns": 0, "min_size": 1}
