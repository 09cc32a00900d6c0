"""Patterns of process names, against fnmatch and against what a person would expect."""

from __future__ import annotations

import fnmatch
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flak._records import NAME_WORDS
from flak.comms import STATES, Machine, check
from flak.errors import UsageError

names = st.text(alphabet="ab-", max_size=15)
patterns = st.lists(st.sampled_from(["a", "b", "-", "*", "?", "[ab]", "[!a]", "[a-b]"]), min_size=1, max_size=8).map(
    "".join
)


@given(st.lists(patterns, min_size=1, max_size=4), names)
def test_a_name_is_chosen_when_one_of_the_patterns_matches(some: list[str], name: str) -> None:
    expected = any(fnmatch.fnmatchcase(name, pattern) for pattern in some)
    assert Machine.of(some).matches(name.encode()) == (expected, False)


@given(patterns, patterns, names)
def test_choosing_and_excluding_patterns_do_not_disturb_each_other(one: str, other: str, name: str) -> None:
    expected = fnmatch.fnmatchcase(name, one), fnmatch.fnmatchcase(name, other)
    assert Machine.of([one], [other]).matches(name.encode()) == expected


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("postgres", b"postgres", True),
        ("postgres", b"postgres: writ", False),
        ("postgres*", b"postgres: writ", True),
        ("[", b"[", True),  # a bracket that is never closed stands for itself
        ("[]-]x", b"]x", True),
        ("[a-]", b"-", True),
        ("*\udcff", b"name\xff", True),
        ("na?e", b"na\xffe", True),
        ("fifteen-bytes-a", b"fifteen-bytes-a", True),
    ],
)
def test_names_of_any_bytes(pattern: str, name: bytes, is_match: bool) -> None:
    check("--comm", pattern)
    assert Machine.of([pattern]).matches(name)[0] is is_match


@pytest.mark.parametrize("pattern", ["sixteen-bytes-ab", "?" * 16, "*" + "[a-z]" * 16, "naïve-naïve-na"])
def test_what_no_name_can_match_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="16 bytes long and matches nothing: the kernel keeps 15") as error:
        check("--comm", pattern)
    assert error.value.hint and "--comm" in error.value.hint


def test_many_names_fit_and_too_many_are_refused() -> None:
    per_word = 64 // 16
    many = [f"fifteen-bytes{n:02}" for n in range(per_word * NAME_WORDS)]
    assert all(Machine.of(many).matches(name.encode())[0] for name in many)
    with pytest.raises(UsageError, match=f"about {STATES} characters"):
        Machine.of([*many, "fifteen-bytes99"])


def test_the_tables_are_laid_out_by_byte_and_word() -> None:
    machine = Machine.of(["a*"], ["b"])
    settings = machine.settings()
    accepts = struct.unpack(f"<{256 * NAME_WORDS}Q", settings["name_accepts"])
    assert [place for place, states in enumerate(accepts) if states] == [ord("a") * NAME_WORDS, ord("b") * NAME_WORDS]
    assert (accepts[ord("a") * NAME_WORDS], accepts[ord("b") * NAME_WORDS]) == (0b1, 0b100)
    first = {name: struct.unpack("<Q", table[:8])[0] for name, table in settings.items() if name != "name_accepts"}
    assert first == {"name_starts": 0b101, "name_stays": 0b10, "name_chosen": 0b10, "name_excluded": 0b1000}
