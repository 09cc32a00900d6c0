"""FileRow: what one file's accesses add up to. docs/patterns.md defines every figure."""

from __future__ import annotations

from dataclasses import dataclass


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


@dataclass(slots=True)
class FileRow:
    """One file. Sizes are bytes, times nanoseconds; a value that does not apply or is not known is None.

    Counts and bytes are those of accesses that succeeded. `*_pattern_count` is how many accesses the sequential and
    consecutive counts beside it rest on: those whose file offset is known.
    """

    file_id: int
    path: str

    read_count: int
    read_bytes: int
    unique_read_bytes: int
    read_pattern_count: int
    read_sequential_count: int
    read_consecutive_count: int
    reread_ratio: float | None  # bytes read / unique bytes, of reads whose offset is known

    write_count: int
    write_bytes: int
    unique_write_bytes: int
    write_pattern_count: int
    write_sequential_count: int
    write_consecutive_count: int

    fault_count: int
    major_count: int
    fault_pages: int
    fault_bytes: int  # fault_pages * the page size
    fault_pattern_count: int
    fault_sequential_count: int
    pages_is_upper_bound: bool  # windows the kernel set out to map are counted whole
    pages_is_lower_bound: bool  # the kernel may have mapped more than the window, or did not tell it

    unique_granule: int  # 1: the unique bytes are exact; else they are counted in units of so many bytes
    typical_size: int | None  # the size asked for most often, reads and writes
    call_p50_ns: int | None
    call_p99_ns: int | None
    fault_p50_ns: int | None
    fault_p99_ns: int | None

    failed_count: int  # reads and writes that returned an error
    unfinished_count: int  # … that had not returned when tracing stopped
    longest_unfinished_ns: int | None  # the age of the oldest of these
    no_result_count: int  # … that were interrupted, or whose result was not seen
    folded_count: int  # reads, writes and faults that were lost: in the counts and bytes, and in no other figure
    inexact_offsets: int  # accesses whose shared file position somebody else moved meanwhile
    process_count: int
    first_ns: int  # start of the first access, CLOCK_BOOTTIME
    last_ns: int  # start of the last access

    @property
    def touched_bytes(self) -> int:
        """Read, written and faulted in: what the table is sorted by."""
        return self.read_bytes + self.write_bytes + self.fault_bytes

    @property
    def pattern_count(self) -> int:
        """Reads and writes that `sequential_percent` and `consecutive_percent` rest on."""
        return self.read_pattern_count + self.write_pattern_count

    @property
    def sequential_percent(self) -> float | None:
        """Share of reads and writes that began behind the end of the one before."""
        return _percent(self.read_sequential_count + self.write_sequential_count, self.pattern_count)

    @property
    def consecutive_percent(self) -> float | None:
        """Share of reads and writes that began exactly where the one before ended."""
        return _percent(self.read_consecutive_count + self.write_consecutive_count, self.pattern_count)

    @property
    def fault_sequential_percent(self) -> float | None:
        """Share of faults on a page behind the one that faulted before."""
        return _percent(self.fault_sequential_count, self.fault_pattern_count)

    @property
    def major_percent(self) -> float | None:
        """Share of faults that waited for storage."""
        return _percent(self.major_count, self.fault_count)
