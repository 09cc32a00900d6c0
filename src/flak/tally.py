"""The book-keeping of a run: what the kernel matched, sent and lost, what user space received, wrote and left out.

The kernel's rows are memory shared with the programs (struct flak_counters in bpf/flak.h), one for each CPU; the
equations they must satisfy together with ours stand in docs/architecture.md. Used by session.
"""

from __future__ import annotations

from collections import Counter

from flak._records import COUNTERS, MAX_CPUS, CountersRecord
from flak.bpf import possible_cpus
from flak.events import Counters

__all__ = ["Tally"]


class Tally:
    """Counts of one run. rows: the kernel's counters; opcodes: its count of undecoded requests, by opcode.

    received, written: events taken out of the rings, events handed on. filtered, lost: events left out on purpose and
    by failure, by cause; causes of loss begin with "user_". is_cut: part of the run was left out, so that numbers that
    are missing are no loss.
    """

    def __init__(self, rows: memoryview, opcodes: memoryview) -> None:
        self._rows = rows
        self._opcodes = opcodes
        self.received = 0
        self.written = 0
        self.filtered: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.is_cut = False

    def take_back(self, count: int, cause: Counter[str], name: str) -> None:
        """Events that were counted as written have become `name` in `filtered` or `lost` instead."""
        self.written -= count
        cause[name] += count

    def counters(self, *, recursion_misses: int, is_complete: bool) -> Counters:
        """All of it as the counters object."""
        rows = self._rows_by_cpu().values()
        if not rows:
            return Counters(recursion_misses=recursion_misses, is_complete=is_complete)
        total = CountersRecord(*(sum(column) for column in zip(*rows, strict=True)))
        lost = {
            "ring_full": total.lost_ring_full,
            "meta_full": total.lost_meta_full,
            "state_full": total.lost_state_full,
            **self.lost,
        }
        not_decoded = {
            "compat32": total.not_decoded_compat32,
            "gup_fault": total.not_decoded_gup_fault,
            "io_uring": total.not_decoded_io_uring,
            "aio": total.not_decoded_aio,
            "fault_without_mapping": total.vma_misses,
            "name": total.names_failed,
            **self._undecoded_opcodes(),
        }
        cut = Counter(
            path=total.filtered_path,
            failed=total.filtered_failed,
            min_latency=total.filtered_min_latency,
            min_size=total.filtered_min_size,
        )
        # What the programs put aside was looked at and left out, as what is put aside here; so it counts as received.
        in_kernel = sum(cut.values())
        return Counters(
            matched=total.matched + total.meta_matched + total.lost_state_full + in_kernel,
            submitted=total.submitted + total.meta_submitted + in_kernel,
            received=self.received + in_kernel,
            written=self.written,
            lost={cause: n for cause, n in lost.items() if n},
            filtered={what: n for what, n in (self.filtered + cut).items() if n},
            not_decoded={what: n for what, n in not_decoded.items() if n},
            excluded_self=total.excluded_self,
            recursion_misses=recursion_misses,
            is_complete=is_complete,
            folded=total.folded,
        )

    def _undecoded_opcodes(self) -> dict[str, int]:
        """Requests of io_uring that are not decoded, by the number of their opcode."""
        return {f"io_uring_{opcode}": n for opcode, n in enumerate(self._opcodes)}

    def is_losing(self) -> bool:
        """There are sums of lost accesses."""
        return any(row.folded for row in self._rows_by_cpu().values())

    def sequences(self) -> dict[int, tuple[int, int]]:
        """Per CPU, how many numbers were given out so far: to accesses, to process events. Empty when it is cut."""
        if self.is_cut:
            return {}
        return {cpu: (row.matched, row.meta_matched) for cpu, row in self._rows_by_cpu().items()}

    def _rows_by_cpu(self) -> dict[int, CountersRecord]:
        found = {}
        for cpu in sorted({cpu % MAX_CPUS for cpu in possible_cpus()}):  # as the programs share rows
            row = CountersRecord(*COUNTERS.unpack_from(self._rows, cpu * COUNTERS.size))
            if any(row):
                found[cpu] = row
        return found
