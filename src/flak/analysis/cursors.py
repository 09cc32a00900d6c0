"""Where each process left off in each file, and whether its next access went on from there.

The definitions are Darshan's (darshan-runtime/lib/darshan-posix.c, POSIX_RECORD_READ and POSIX_RECORD_WRITE, 3.5.0):
per process and file, reads and writes apart, `last_byte` starting at 0,

    sequential   this_offset >  last_byte
    consecutive  this_offset == last_byte + 1
    afterwards   last_byte = this_offset + moved - 1

so the very first access counts as neither when it is at offset 0. Page faults are followed the same way by the offset
of the page touched. Unlike Darshan, open and close do not set `last_byte` back (docs/patterns.md says why).
"""

from __future__ import annotations

import numpy as np

from flak.analysis.groups import Flags, Ints, group_order, grown, starts
from flak.analysis.ids import IdMap
from flak.analysis.slots import KINDS

_PROCESS_BITS = 32


class Cursors:
    """One `last_byte` per process, file and kind of access. Grows with (process, file) pairs; see `forget`."""

    def __init__(self) -> None:
        self._pairs = IdMap()  # file << 32 | process → pair
        self._pair_count = 0
        self._last_byte = np.zeros(0, np.int64)  # by pair * KINDS + kind
        self._processes = np.zeros(0, np.int64)  # by file: how many processes were met

    def pairs(self, file: Ints, process: Ints) -> Ints:
        """Number of each (file, process) pair; a new one counts as a process of its file."""
        return self._pairs.lookup(file << _PROCESS_BITS | process, self._new_pairs)

    def advance(self, pair: Ints, kind: Ints, file_offset: Ints, moved: Ints) -> tuple[Flags, Flags]:
        """Take accesses in the order they completed; which are sequential and which consecutive.

        Offsets and `moved` in bytes; for a fault `moved` is 1, so that its page itself is where it left off.
        """
        cursor = pair * KINDS + kind
        order = group_order(cursor)
        last = file_offset + moved - 1
        if order is not None:
            cursor, file_offset, last = cursor[order], file_offset[order], last[order]
        before = np.empty_like(last)
        before[1:] = last[:-1]
        first = starts(cursor)
        before[first] = self._last_byte[cursor[first]]
        ends = np.append(first[1:], cursor.size) - 1
        self._last_byte[cursor[ends]] = last[ends]
        is_sequential, is_consecutive = file_offset > before, file_offset == before + 1
        if order is None:
            return is_sequential, is_consecutive
        return _scattered(is_sequential, order), _scattered(is_consecutive, order)

    def process_counts(self, file_count: int) -> Ints:
        """For files 0 … file_count - 1: how many processes used them."""
        self._processes = grown(self._processes, file_count)
        return self._processes[:file_count]

    def rename(self, file: int, new_file: int) -> None:
        """Two files turned out to be one. Where a process used both, it goes on from where it was in the second."""
        keys, values = self._pairs.items()
        is_old = keys >> _PROCESS_BITS == file
        moved = keys[is_old] + ((new_file - file) << _PROCESS_BITS)
        is_free = ~np.isin(moved, keys)
        self._processes = grown(self._processes, max(file, new_file) + 1)
        self._processes[new_file] += self._processes[file] - np.count_nonzero(~is_free)
        self._processes[file] = 0
        keys = np.append(keys[~is_old], moved[is_free])
        values = np.append(values[~is_old], values[is_old][is_free])
        order = np.argsort(keys)
        self._pairs.replace(keys[order], values[order])

    def forget(self, processes: Ints) -> None:
        """Drop what is kept for these processes: they have ended."""
        keys, values = self._pairs.items()
        stays = ~np.isin(keys & ((1 << _PROCESS_BITS) - 1), processes)
        kept = values[stays]
        self._last_byte = self._last_byte.reshape(-1, KINDS)[kept].reshape(-1)
        self._pair_count = kept.size
        self._pairs.replace(keys[stays], np.arange(kept.size))

    def _new_pairs(self, keys: Ints, _first: Ints) -> Ints:
        file = keys >> _PROCESS_BITS
        self._processes = grown(self._processes, int(file.max()) + 1)
        np.add.at(self._processes, file, 1)
        pairs = np.arange(self._pair_count, self._pair_count + keys.size)
        self._pair_count += keys.size
        self._last_byte = grown(self._last_byte, self._pair_count * KINDS)
        return pairs


def _scattered(flags: Flags, order: Ints) -> Flags:
    """The flags back in the places that `order` took them from."""
    back = np.empty_like(flags)
    back[order] = flags
    return back
