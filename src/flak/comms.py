"""Patterns of process names → the machine that the kernel matches them with (bpf/targets.bpf.c).

All patterns together make one machine whose states are bits: "so many pieces of that pattern are matched". A piece is
a literal byte, `?` or a class `[a-z]`; a star lets the state before it stay as it is. So a name of fifteen bytes costs
fifteen steps, whatever the patterns are. Used by selection; `Machine.matches` does in Python what the programs do.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flak._records import COMM_LEN, NAME_WORDS
from flak.errors import UsageError

__all__ = ["Machine", "check"]

LONGEST = COMM_LEN - 1
"""Bytes of a name that the kernel keeps (TASK_COMM_LEN less its NUL)."""

STATES = 64 * NAME_WORDS

_PIECE = re.compile(rb"\*+|\?|\[!?\]?[^]]*\]|.", re.DOTALL)
_EVERY_BYTE = frozenset(range(1, 256))


class _Piece(NamedTuple):
    """What one byte of a name may be, and whether any number of others may stand before it."""

    bytes: frozenset[int]
    has_star: bool


@dataclass(slots=True)
class _Pattern:
    pieces: list[_Piece]
    ends_in_star: bool


def check(option: str, pattern: str) -> None:
    """UsageError for a pattern that no name can match: empty, or longer than the kernel keeps."""
    if not pattern:
        raise UsageError(f"{option}: an empty name", f"write it like {option} postgres or {option} 'python*'")
    pieces = _parse(pattern).pieces
    if not all(piece.bytes for piece in pieces):
        raise UsageError(f"{option} {pattern!r}: its brackets hold no character", "write them like [a-z] or [!0-9]")
    length = len(pieces)
    if length > LONGEST:
        kept = os.fsdecode(os.fsencode(pattern)[:LONGEST])
        raise UsageError(
            f"{option} {pattern!r} is {length} bytes long and matches nothing: the kernel keeps {LONGEST} of a name",
            f"cut it off: {option} {kept!r}",
        )


def _parse(pattern: str) -> _Pattern:
    pieces, has_star = [], False
    for word in _PIECE.findall(os.fsencode(pattern)):
        if word.startswith(b"*"):
            has_star = True
            continue
        pieces.append(_Piece(_bytes_of(word), has_star))
        has_star = False
    return _Pattern(pieces, has_star)


def _bytes_of(word: bytes) -> frozenset[int]:
    """The bytes that a piece stands for, as glob(7) has it; a bracket that is never closed stands for itself."""
    if word == b"?":
        return _EVERY_BYTE
    if len(word) == 1:
        return frozenset(word)
    body, is_inverse = (word[2:-1], True) if word[1:2] == b"!" else (word[1:-1], False)
    found: set[int] = set()
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == b"-" and at + 2 < len(body):
            found.update(range(body[at], body[at + 2] + 1))
            at += 3
        else:
            found.add(body[at])
            at += 1
    return _EVERY_BYTE - found if is_inverse else frozenset(found)


@dataclass(slots=True)
class Machine:
    """The tables of targets.bpf.c. State s is bit s % 64 of word s // 64, and no pattern lies across two words."""

    accepts: list[list[int]] = field(default_factory=lambda: [[0] * NAME_WORDS for _ in range(256)])
    starts: list[int] = field(default_factory=lambda: [0] * NAME_WORDS)
    stays: list[int] = field(default_factory=lambda: [0] * NAME_WORDS)
    chosen: list[int] = field(default_factory=lambda: [0] * NAME_WORDS)
    excluded: list[int] = field(default_factory=lambda: [0] * NAME_WORDS)
    _used: list[int] = field(default_factory=lambda: [0] * NAME_WORDS)

    @classmethod
    def of(cls, chosen: Iterable[str], excluded: Iterable[str] = ()) -> Machine:
        """The machine for patterns that choose and patterns that exclude. UsageError when they are too many."""
        machine = cls()
        for patterns, finals in ((chosen, machine.chosen), (excluded, machine.excluded)):
            for pattern in patterns:
                machine._add(_parse(pattern), finals)
        return machine

    def _add(self, pattern: _Pattern, finals: list[int]) -> None:
        length = len(pattern.pieces) + 1
        word = next((w for w in range(NAME_WORDS) if self._used[w] + length <= 64), None)
        if word is None:
            raise UsageError(
                f"too many names: together they may have about {STATES} characters",
                "put several into one pattern: 'python*' instead of python3.11,python3.12",
            )
        state = self._used[word]
        self._used[word] += length
        self.starts[word] |= 1 << state
        for piece in pattern.pieces:
            if piece.has_star:
                self.stays[word] |= 1 << state
            for byte in piece.bytes:
                self.accepts[byte][word] |= 1 << state
            state += 1
        if pattern.ends_in_star:
            self.stays[word] |= 1 << state
        finals[word] |= 1 << state

    def matches(self, name: bytes) -> tuple[bool, bool]:
        """Whether a name is chosen, and whether it is excluded."""
        is_chosen = is_excluded = False
        for word in range(NAME_WORDS):
            states = self.starts[word]
            for byte in name[:LONGEST]:
                states = (states & self.accepts[byte][word]) << 1 | states & self.stays[word]
            is_chosen |= bool(states & self.chosen[word])
            is_excluded |= bool(states & self.excluded[word])
        return is_chosen, is_excluded

    def settings(self) -> dict[str, bytes]:
        """The variables of the BPF object, by name."""
        return {
            "name_accepts": _packed([states for row in self.accepts for states in row]),
            "name_starts": _packed(self.starts),
            "name_stays": _packed(self.stays),
            "name_chosen": _packed(self.chosen),
            "name_excluded": _packed(self.excluded),
        }


def _packed(words: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(words)}Q", *words)
