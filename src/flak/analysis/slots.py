"""Raw slots of the access ring → columns of the accesses that move data.

The only module of the analysis that knows record layouts. It keeps reads, writes and page faults and leaves the
rest, among it the second slots of two-slot records. Which op is a read is said once, in `events.CLASS_OF_OP`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flak._records import ACCESS_FIELDS
from flak.analysis.groups import Flags, Ints, group_order
from flak.events import CLASS_OF_OP, Fault, Mark, Op, Read, Write

SLOT = np.dtype(ACCESS_FIELDS)
"""One slot: ring header and flak_access. A second slot read through it is recognised by its op."""

READ, WRITE, FAULT = range(3)
"""What an access does to its file; the third number of an owner (`KINDS` of them per file)."""
_KIND_BITS = 2
KINDS = 1 << _KIND_BITS

NO_RESULT = int(Mark.UNFINISHED | Mark.RESULT_UNKNOWN | Mark.INTERRUPTED | Mark.ATTACHED)
"""Marks of accesses that did not return to their program, or are none."""
_RESTART = range(-512, -517, -1)  # ERESTARTSYS … ERESTART_RESTARTBLOCK: the kernel's own, the program never sees them


def _kinds() -> NDArray[np.int8]:
    kinds = np.full(1 << 16, -1, np.int8)
    for op, event_class in CLASS_OF_OP.items():
        for kind, wanted in ((READ, Read), (WRITE, Write), (FAULT, Fault)):
            if issubclass(event_class, wanted):
                kinds[op] = kind
    return kinds


_KIND_OF_OP = _kinds()


def kind_of(op: int) -> int | None:
    """READ, WRITE, FAULT; None for what moves no data."""
    kind = int(_KIND_OF_OP[op])
    return None if kind < 0 else kind


@dataclass(slots=True)
class Columns:
    """Accesses of one chunk, a column per field, grouped by owner and within it in the order they completed.

    Numbers are those of flak.h, −1 for "none".
    """

    owner: Ints  # file number * KINDS + kind
    kind: Ints
    ts_ns: Ints
    latency_ns: Ints
    file_offset: Ints
    size_req: Ints
    ret: Ints  # of a fault: its page count
    fd: Ints  # of a fault: how many of those pages lie before the faulting one
    task_id: Ints
    marks: Ints

    @property
    def file(self) -> Ints:
        """Number of the file."""
        return self.owner >> _KIND_BITS

    @property
    def has_result(self) -> Flags:
        """Faults, and calls that returned to the program."""
        is_untold = (self.marks & NO_RESULT) != 0
        is_restart = (self.ret <= _RESTART.start) & (self.ret > _RESTART.stop)
        returned: Flags = ~(is_untold | is_restart) | (self.kind == FAULT)
        return returned

    def where(self, wanted: Flags) -> Columns:
        """The rows wanted; itself where that is all of them."""
        if wanted.all():
            return self
        return Columns(*(getattr(self, name)[wanted] for name in self.__slots__))


def with_file(slots: NDArray[np.void]) -> NDArray[np.void]:
    """The first slots of accesses that have a file; the same array where that is all of them."""
    is_access = (slots["op"] != int(Op.OPERANDS)) & (slots["file_id"] != 0)
    return slots if is_access.all() else slots[is_access]


def columns(slots: NDArray[np.void], file: Ints) -> Columns:
    """Reads, writes and faults among these accesses, whose files `file` numbers."""
    kind = _KIND_OF_OP[slots["op"]]
    moves_data = kind >= 0
    if not moves_data.all():
        slots, file, kind = slots[moves_data], file[moves_data], kind[moves_data]
    owner = file * KINDS + kind
    grouped = group_order(owner)
    order = slice(None) if grouped is None else grouped
    fields = ("ts_ns", "latency_ns", "file_offset", "size_req", "ret", "fd", "task_id", "marks")
    return Columns(owner[order], kind[order].astype(np.int64), *(slots[f][order].astype(np.int64) for f in fields))
