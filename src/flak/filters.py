"""Which accesses of a traced task are wanted: by path, failure, duration, size.

`Filters` is what was asked for. The programs cut by it (bpf/filters.bpf.h); only of a path can they know nothing before
its patterns were matched here. `PathSieve` does that once per path, tells the programs what is unwanted, and takes out
of each round what came through before they knew. Used by session.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flak._records import CLAIM_BIT, MAX_VERDICTS, SLOT_SIZE, Op
from flak.errors import UsageError
from flak.events import File
from flak.wire import first_slots

__all__ = ["Filters", "PathPatterns", "PathSieve"]

_WILD = re.compile(r"[*?[]")


class PathPatterns:
    """Patterns of paths, as find(1) has them: a star also stands for slashes.

    A pattern without wildcards means that file, or that folder and all below it. A pattern without a slash is compared
    with the last component. `!` in front excludes.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._chosen = _joined(pattern for pattern in patterns if not pattern.startswith("!"))
        self._excluded = _joined(pattern[1:] for pattern in patterns if pattern.startswith("!"))

    def match(self, path: bytes) -> bool:
        """Whether a path is wanted."""
        text = os.fsdecode(path)
        if self._excluded and self._excluded.match(text):
            return False
        return self._chosen is None or bool(self._chosen.match(text))


def _joined(patterns: Iterable[str]) -> re.Pattern[str] | None:
    expressions = [_expression(pattern) for pattern in patterns]
    return re.compile("|".join(expressions)) if expressions else None


def _expression(pattern: str) -> str:
    if not pattern.strip("/") and pattern != "/":
        raise UsageError(f"--path: {pattern!r} is no pattern", "write it like --path /data or --path '*.db'")
    if "/" not in pattern:
        return f"(?:.*/)?{fnmatch.translate(pattern)}"
    has_wildcard = bool(_WILD.search(pattern))  # of its own: brackets in the current folder's name are none
    if not pattern.startswith(("/", "*")):
        here = str(Path.cwd())
        pattern = os.path.normpath(f"{glob.escape(here) if has_wildcard else here}/{pattern}")
    if has_wildcard:
        return fnmatch.translate(pattern)
    folder = re.escape(os.path.normpath(pattern).rstrip("/"))
    return rf"(?s:{folder}(?:/.*)?)\Z"


@dataclass(slots=True, frozen=True, kw_only=True)
class Filters:
    """What an access must be like to be wanted; all of it must hold.

    paths: patterns of which one must match (`PathPatterns`). failed: only calls that failed. min_latency_ns: only what
    took so long; an access whose duration is not known passes. min_size: only what moved so many bytes, or failed to;
    of a fault the memory that was mapped, of a mapping its length.
    """

    paths: tuple[str, ...] = ()
    failed: bool = False
    min_latency_ns: int = 0
    min_size: int = 0

    def __post_init__(self) -> None:
        for option, least in (("--min-latency", self.min_latency_ns), ("--min-size", self.min_size)):
            if not 0 <= least < 1 << 63:
                raise UsageError(f"{option}: {least} is out of range", "write a number from 0 to 2^63 - 1")

    @property
    def is_any(self) -> bool:
        """Whether anything is left out at all."""
        return bool(self.paths or self.failed or self.min_latency_ns or self.min_size)

    def settings(self) -> dict[str, Any]:
        """Settings of the BPF object."""
        return {
            "filters": self.is_any,
            "only_failed": self.failed,
            "min_latency_ns": self.min_latency_ns,
            "min_size": self.min_size,
        }

    def as_dict(self) -> dict[str, Any]:
        """For the header of a recording."""
        return {
            "path": list(self.paths),
            "failed": self.failed,
            "min_latency_ns": self.min_latency_ns,
            "min_size": self.min_size,
        }


# Places in a slot, in words of four bytes: path_id of a first slot, which is claim_id of a second.
_PATH_ID = (8 + 44) // 4
_SLOT_WORDS = SLOT_SIZE // 4
_MOST_VERDICTS = 1 << 16  # kept here; the programs have a bit for each name
# And in bytes: file_id with path_id behind it, op.
_IDS, _OP = 8 + 40, 8 + 60
_NO_IDS, _PUT_ASIDE = bytes(8), int(Op.PUT_ASIDE).to_bytes(2, "little")


class PathSieve:
    """Takes accesses to unwanted paths out of rounds, and tells the programs which paths those are.

    paths: path_id → file, as the decoder fills it. verdicts: the programs' bits, by path_id, 64 to a word.
    """

    def __init__(self, patterns: PathPatterns, paths: Mapping[int, File], verdicts: memoryview[int]) -> None:
        self._patterns = patterns
        self._paths = paths
        self._verdicts = verdicts
        self._is_wanted: dict[int, bool] = {0: False}  # what has no path has none that matches

    def sift(self, slots: memoryview) -> tuple[memoryview, int]:
        """A round's slots without what is unwanted, and how many accesses that were. Names must be learnt already.

        An access that is put aside stays as an empty slot with its number, so that it is not taken for a loss.
        """
        path_ids = slots.cast("I")[_PATH_ID::_SLOT_WORDS].tolist()
        if len(self._is_wanted) >= _MOST_VERDICTS:
            self._is_wanted = {0: False}  # what comes again is judged again, alike
        for path_id in set(path_ids):
            if path_id not in self._is_wanted:
                self._judge(path_id)
        wanted, begins = self._is_wanted, first_slots(slots)
        unwanted = [
            place
            for place, path_id in enumerate(path_ids)
            if begins[place]
            and not wanted.get(path_id, True)
            and (path_id or not self._claims(place, path_ids, begins))
        ]
        return (_without(slots, unwanted) if unwanted else slots), len(unwanted)

    def wants(self, path_id: int) -> bool:
        """Whether accesses under this name are wanted; also where that is not known."""
        if path_id not in self._is_wanted:
            self._judge(path_id)
        return self._is_wanted.get(path_id, True)

    def _judge(self, path_id: int) -> None:
        file = self._paths.get(path_id)
        if file is None:
            return  # its name is still to come, or was lost: such an access passes
        self._is_wanted[path_id] = is_wanted = self._patterns.match(file.raw_path)
        if is_wanted:
            return
        number = path_id & ~CLAIM_BIT
        if number < MAX_VERDICTS:
            at = MAX_VERDICTS + number if path_id & CLAIM_BIT else number
            self._verdicts[at >> 6] |= 1 << (at & 63)

    def _claims(self, place: int, path_ids: Sequence[int], begins: bytes) -> bool:
        """Whether the access at a place, which has no path, was to be of a wanted one: its second slot says so."""
        behind = place + 1
        return behind < len(begins) and not begins[behind] and self._is_wanted.get(path_ids[behind], True)


def _without(slots: memoryview, places: Iterable[int]) -> memoryview:
    """A copy of the slots in which the accesses at these places are empty."""
    kept = bytearray(slots)
    for at in map(SLOT_SIZE.__mul__, places):
        kept[at + _IDS : at + _IDS + 8] = _NO_IDS
        kept[at + _OP : at + _OP + 2] = _PUT_ASIDE
    return memoryview(kept)
