"""What the BPF objects offer, by name: programs, maps, variables, settings.

Written by build_bpf.py from the objects' BTF; do not edit.

Where a variable lies may differ between architectures: look its offset up in the BTF of the object that is loaded.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Variable(NamedTuple):
    """A global variable: `length` elements (1 if no array) of `size` bytes, each a `struct` code or "struct NAME"."""

    section: str
    kind: str
    size: int
    length: int


PROGRAMS: dict[str, str] = {
    "flak_adopt": "iter/task",
    "flak_enter": "tp_btf/sys_enter",
    "flak_exec": "tp_btf/sched_process_exec",
    "flak_exit": "tp_btf/sys_exit",
    "flak_exit_task": "tp_btf/sched_process_exit",
    "flak_fault_end": "perf_event",
    "flak_fault_in": "fentry/handle_mm_fault",
    "flak_fault_out": "fexit/handle_mm_fault",
    "flak_fds": "iter/task_file",
    "flak_filemap": "tp_btf/mm_filemap_fault",
    "flak_fork": "tp_btf/sched_process_fork",
    "flak_kfault_in": "kprobe/handle_mm_fault",
    "flak_map_pages": "tp_btf/mm_filemap_map_pages",
    "flak_pending": "iter/task",
    "flak_pf_kernel": "tp_btf/page_fault_kernel",
    "flak_pf_user": "tp_btf/page_fault_user",
    "flak_vmas": "iter/task_vma",
}
"""Section of each program; it names the hook."""

MAPS: tuple[str, ...] = (
    "accesses",
    "identities",
    "meta",
    "names",
    "scratch",
    "scratch_uses",
    "tasks",
)

VARIABLES: dict[str, Variable] = {
    "adopted_count": Variable(".bss", "I", 4, 1),
    "alive": Variable(".bss", "Q", 8, 65536),
    "all_files": Variable(".rodata", "?", 1, 1),
    "arm_only": Variable(".bss", "I", 4, 1),
    "armed_tgid": Variable(".bss", "I", 4, 1),
    "counters": Variable(".bss", "struct flak_counters", 128, 1024),
    "excluded_tgid": Variable(".bss", "I", 4, 1),
    "follow_children": Variable(".rodata", "?", 1, 1),
    "found_roots": Variable(".bss", "I", 4, 1),
    "has_group_dead": Variable(".rodata", "?", 1, 1),
    "has_page_hooks": Variable(".rodata", "?", 1, 1),
    "has_rdonly_cast": Variable(".rodata", "?", 1, 1),
    "is_stopping": Variable(".bss", "I", 4, 1),
    "live_processes": Variable(".bss", "i", 4, 1),
    "next_file_id": Variable(".bss", "I", 4, 1),
    "next_path_id": Variable(".bss", "I", 4, 1),
    "next_task_id": Variable(".bss", "I", 4, 1),
    "op_of_nr": Variable(".rodata", "B", 1, 512),
    "page_shift": Variable(".rodata", "I", 4, 1),
    "rename_gen": Variable(".bss", "I", 4, 1),
    "root_count": Variable(".bss", "I", 4, 1),
    "roots": Variable(".bss", "I", 4, 64),
    "self_pid_ns": Variable(".rodata", "I", 4, 1),
    "self_tgid": Variable(".rodata", "I", 4, 1),
    "targets": Variable(".bss", "Q", 8, 65536),
    "traces_faults": Variable(".rodata", "?", 1, 1),
    "unknown_zero": Variable(".bss", "I", 4, 1),
}
"""Everything in .rodata, .data and .bss, settings included."""


@dataclass(slots=True, kw_only=True)
class Config:
    """The settings: constants of the object that are chosen before it is loaded."""

    all_files: bool = False
    follow_children: bool = True
    has_group_dead: bool = False
    has_page_hooks: bool = False
    has_rdonly_cast: bool = False
    page_shift: int = 12
    self_pid_ns: int = 0
    self_tgid: int = 0
    traces_faults: bool = False
