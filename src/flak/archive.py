"""Objects by number, of which a run meets more and more: those in use as they are, all others packed.

The kernel's side gives a new number to each name and each task, and nobody can tell which of them come again: a call
may hang for hours, a process sleep, and who holds an event may ask for its path whenever he likes. So nothing is ever
forgotten. What was not asked for in a while is packed, some tens of bytes each, and unpacked when it is. Used by
`events.Tables`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar, overload

from flak.packed import PackedMap

__all__ = ["MOST_RECENT", "Archive"]

MOST_RECENT = 8192
"""Objects met or asked for until those before them, as many, are looked through for what can be packed."""

_TOGETHER = 64  # objects to a block: reading one takes some 50 µs
_MOST_OPEN = 16  # blocks; neighbours are often asked for together
_NUMBERS = range(1 << 32)

_encode = json.JSONEncoder(separators=(",", ":")).encode

T = TypeVar("T")
D = TypeVar("D")


class Archive(Mapping[int, T]):
    """A mapping that never gets smaller. What it gives out is equal to what was put in, but not always the same object.

    pack: an object → what JSON has: whole numbers, text, None, lists. unpack: the way back.
    recent: those at hand, for a reader in a hurry; what is not among them may be there all the same (`get`).
    """

    __slots__ = ("_block_of", "_blocks", "_count", "_most", "_older", "_open", "_pack", "_unpack", "recent")

    def __init__(self, pack: Callable[[T], Any], unpack: Callable[[Any], T], *, most_recent: int | None = None) -> None:
        self._pack = pack
        self._unpack = unpack
        self._most = most_recent or MOST_RECENT
        self.recent: dict[int, T] = {}
        self._older: dict[int, T] = {}  # were recent before these
        self._blocks: list[bytes] = []
        self._block_of = PackedMap(4, 4)  # number → place in _blocks, of all that are packed
        self._open: dict[int, dict[int, Any]] = {}
        self._count = 0

    def __setitem__(self, number: int, value: T) -> None:
        if number in self:
            # Told again: by a second reading of a recording, say. Only what is news has to be packed again.
            if self._is_packed(number) and self._packed(number) != self._pack(value):
                self._block_of.pop(_key(number))
        else:
            self._count += 1
        self._keep(number, value)

    def update(self, values: Mapping[int, T]) -> None:
        """Put in all of these."""
        for number, value in values.items():
            self[number] = value

    def __getitem__(self, number: int) -> T:
        found = self.get(number)
        if found is None:
            raise KeyError(number)
        return found

    @overload
    def get(self, key: int, /) -> T | None: ...
    @overload
    def get(self, key: int, /, default: T | D) -> T | D: ...
    def get(self, key: int, /, default: T | D | None = None) -> T | D | None:
        """The object of a number."""
        found = self.recent.get(key)
        if found is None:
            found = self._older.get(key)
            if found is None:
                if not self._is_packed(key):
                    return default
                found = self._unpack(self._packed(key))
            self._keep(key, found)
        return found

    def __contains__(self, number: object) -> bool:
        return number in self.recent or number in self._older or self._is_packed(number)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """All numbers, roughly in the order in which they came. What is put in meanwhile may be missing."""
        at_hand = [number for number in {**self._older, **self.recent} if not self._is_packed(number)]
        for place in range(len(self._blocks)):
            for number in self._opened(place):
                if self._block_of.get(_key(number)) == place:
                    yield number
        yield from at_hand

    def _keep(self, number: int, value: T) -> None:
        if len(self.recent) >= self._most:
            self._turn()
        self.recent[number] = value

    def _turn(self) -> None:
        """Pack what was not asked for since the last turn."""
        idle = {n: self._pack(o) for n, o in self._older.items() if n not in self.recent and not self._is_packed(n)}
        for block in _shares(idle.items(), _TOGETHER):
            for number, _ in block:
                self._block_of.put(_key(number), len(self._blocks))
            self._blocks.append(zlib.compress(_encode(block).encode(), 1))
        self._older, self.recent = self.recent, {}

    def _is_packed(self, number: object) -> bool:
        if not self._blocks or not isinstance(number, int) or number not in _NUMBERS:
            return False
        return self._block_of.get(_key(number)) is not None

    def _packed(self, number: int) -> Any:
        """What `pack` made of one that is packed."""
        place = self._block_of.get(_key(number))
        assert place is not None
        return self._opened(place)[number]

    def _opened(self, place: int) -> dict[int, Any]:
        block = self._open.get(place)
        if block is None:
            if len(self._open) >= _MOST_OPEN:
                del self._open[next(iter(self._open))]
            block = self._open[place] = dict(json.loads(zlib.decompress(self._blocks[place])))
        return block


def _key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _shares(items: Iterable[tuple[int, Any]], size: int) -> Iterator[list[tuple[int, Any]]]:
    rest = iter(items)
    while share := list(islice(rest, size)):
        yield share
