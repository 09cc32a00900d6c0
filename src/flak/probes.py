"""Which hook serves which concern: alternatives in order, what they need of the kernel, what is lost without.

No kernel version is compared: BTF is asked, and where BTF can't tell, the load or the attach is tried and the next
alternative taken. Used by session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flak.bpf import Btf

PAGE_FAULTS_MIN, PAGE_FAULTS_MAJ = 5, 6  # enum perf_sw_ids

PROCESSES = ("flak_fork", "flak_exec", "flak_exit_task")
CALL_ENTER, CALL_EXIT = "flak_enter", "flak_exit"
ADOPT, OPEN_FILES, MAPPINGS, PENDING = "flak_adopt", "flak_fds", "flak_vmas", "flak_pending"
ITERATORS = (ADOPT, OPEN_FILES, MAPPINGS, PENDING)


@dataclass(frozen=True)
class Alternative:
    """One way to serve a concern: programs by their hooks, and programs run by software events."""

    name: str
    is_possible: Callable[[Btf], bool]
    programs: tuple[str, ...]
    software_events: tuple[tuple[str, int], ...] = ()

    @property
    def all_programs(self) -> tuple[str, ...]:
        """Everything that must be loaded."""
        return self.programs + tuple(program for program, _ in self.software_events)


_ACCOUNTED = (("flak_fault_maj", PAGE_FAULTS_MAJ), ("flak_fault_min", PAGE_FAULTS_MIN))

FAULTS = (
    Alternative(
        "fentry and fexit on handle_mm_fault",
        # fentry needs the kernel's function tracer with direct calls
        lambda btf: btf.has_function("handle_mm_fault") and btf.has_function("register_ftrace_direct"),
        ("flak_fault_in", "flak_fault_out"),
    ),
    Alternative(
        "page_fault_user/kernel and PAGE_FAULTS_MAJ/MIN",
        lambda btf: btf.has_tracepoint("page_fault_user"),
        ("flak_pf_user", "flak_pf_kernel"),
        _ACCOUNTED,
    ),
    Alternative(
        "kprobe on handle_mm_fault and PAGE_FAULTS_MAJ/MIN",
        lambda btf: btf.has_function("handle_mm_fault") and btf.has_function("register_kprobe"),
        ("flak_kfault_in",),
        _ACCOUNTED,
    ),
)
"""How page faults are seen, best first. The tracepoints stand before the kprobe because they cost less."""

FAULT_PAGES = Alternative(
    "mm_filemap_map_pages and mm_filemap_fault",
    lambda btf: btf.has_tracepoint("mm_filemap_map_pages") and btf.has_tracepoint("mm_filemap_fault"),
    ("flak_map_pages", "flak_filemap"),
)
"""How many pages a fault brings in."""

LOST_WITHOUT = {
    "page faults": "what is read and written through memory maps",
    "pages per fault": "how many pages a fault maps (page_count)",
}
"""By concern, what a report cannot show when nothing serves it."""
