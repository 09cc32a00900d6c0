"""Rounds: what is taken out of the two rings at once, so that names come before the accesses that refer to them.

Views of the rings, no copies; what they mean is wire's business. Used by session.
"""

from __future__ import annotations

from typing import NamedTuple

from flak._records import SLOT_SIZE
from flak.bpf import Ring
from flak.wire import is_operands

MOST_SLOTS = 3640
"""Of one round: 256 KiB. Events made of larger ones fall out of the CPU's caches before they are used."""

__all__ = ["Drain", "Round"]


class Round(NamedTuple):
    """Payloads of the meta ring, and slots of the access ring as they lie there; valid until given back."""

    meta: list[memoryview]
    slots: memoryview


class Drain:
    """Takes rounds from both rings. One round is out at a time: take, use, give back."""

    def __init__(self, accesses: Ring, meta: Ring) -> None:
        self._accesses = accesses
        self._meta = meta
        self._meta_end = meta.position
        self._accesses_end = accesses.position
        self.has_more = False  # the last round left accesses in the ring

    def take(self) -> Round | None:
        """What the rings hold now, None when that is nothing."""
        # A name is committed before the first access that refers to it, so once the meta ring is consumed up to where
        # it stood *after* the accesses were looked at, all their names are known. A record that is still being written
        # holds the accesses back for a round.
        until = self._accesses.produced
        meta_until = self._meta.produced
        meta, self._meta_end = self._meta.records(meta_until)
        slots = self._accesses.slots(until if self._meta_end >= meta_until else self._accesses.position, SLOT_SIZE)
        share = _whole(slots)
        self.has_more = share < len(slots)
        slots = slots[:share]
        self._accesses_end = self._accesses.position + len(slots)
        return Round(meta, slots) if meta or slots else None

    def give_back(self, found: Round) -> None:
        """Let the kernel have the room of the round again."""
        for view in found.meta:
            view.release()
        found.slots.release()
        self._meta.release(self._meta_end)
        self._accesses.release(self._accesses_end)


def _whole(slots: memoryview) -> int:
    """Bytes of a round's share of the slots, which does not end between the two of one access."""
    size = MOST_SLOTS * SLOT_SIZE
    if size < len(slots) and is_operands(slots[size : size + SLOT_SIZE]):
        size += SLOT_SIZE
    return size
