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
    "flak_claims": "iter.s/task",
    "flak_complete": "tp_btf/io_uring_complete",
    "flak_enter": "tp_btf/sys_enter",
    "flak_exec": "tp_btf/sched_process_exec",
    "flak_exit": "tp_btf/sys_exit",
    "flak_exit_task": "tp_btf/sched_process_exit",
    "flak_fail_link": "tp_btf/io_uring_fail_link",
    "flak_fault_end": "perf_event",
    "flak_fault_in": "fentry/handle_mm_fault",
    "flak_fault_out": "fexit/handle_mm_fault",
    "flak_fds": "iter/task_file",
    "flak_filemap": "tp_btf/mm_filemap_fault",
    "flak_fork": "tp_btf/sched_process_fork",
    "flak_kfault_in": "kprobe/handle_mm_fault",
    "flak_map_pages": "tp_btf/mm_filemap_map_pages",
    "flak_overflow": "tp_btf/io_uring_cqe_overflow",
    "flak_pending": "iter/task",
    "flak_pf_kernel": "tp_btf/page_fault_kernel",
    "flak_pf_user": "tp_btf/page_fault_user",
    "flak_rename": "tp_btf/task_rename",
    "flak_requests": "iter/bpf_map_elem",
    "flak_submit_req": "tp_btf/io_uring_submit_req",
    "flak_submit_sqe": "tp_btf/io_uring_submit_sqe",
    "flak_vmas": "iter/task_vma",
}
"""Section of each program; it names the hook."""

MAPS: tuple[str, ...] = (
    "accesses",
    "claim_text",
    "claims",
    "identities",
    "meta",
    "names",
    "other_requests",
    "requests",
    "scratch",
    "scratch_uses",
    "tasks",
)

VARIABLES: dict[str, Variable] = {
    "adopt_mode": Variable(".bss", "I", 4, 1),
    "adopted_count": Variable(".bss", "I", 4, 1),
    "all_files": Variable(".rodata", "?", 1, 1),
    "armed_tgid": Variable(".bss", "I", 4, 1),
    "attached_ns": Variable(".bss", "Q", 8, 1),
    "cgroup_count": Variable(".bss", "I", 4, 1),
    "cgroup_depths": Variable(".bss", "I", 4, 128),
    "cgroup_ids": Variable(".bss", "Q", 8, 128),
    "claim_seed": Variable(".rodata", "Q", 8, 1),
    "counted_threads": Variable(".bss", "I", 4, 1),
    "counters": Variable(".bss", "struct flak_counters", 192, 1024),
    "excluded_cgroup_count": Variable(".rodata", "I", 4, 1),
    "excluded_root_count": Variable(".bss", "I", 4, 1),
    "excluded_tid_count": Variable(".rodata", "I", 4, 1),
    "excluded_uid_count": Variable(".rodata", "I", 4, 1),
    "filters": Variable(".rodata", "?", 1, 1),
    "folded": Variable(".bss", "struct flak_folded", 64, 16384),
    "folded_owners": Variable(".bss", "struct folded_owner", 16, 16384),
    "follow_children": Variable(".rodata", "?", 1, 1),
    "found_roots": Variable(".bss", "Q", 8, 1),
    "has_cqe_argument": Variable(".rodata", "?", 1, 1),
    "has_exclusions": Variable(".rodata", "?", 1, 1),
    "has_group_dead": Variable(".rodata", "?", 1, 1),
    "has_page_hooks": Variable(".rodata", "?", 1, 1),
    "hung_ns": Variable(".rodata", "Q", 8, 1),
    "is_stopping": Variable(".bss", "I", 4, 1),
    "judges_names": Variable(".rodata", "?", 1, 1),
    "judges_tasks": Variable(".rodata", "?", 1, 1),
    "kind_of_opcode": Variable(".rodata", "B", 1, 128),
    "live_processes": Variable(".bss", "i", 4, 1),
    "live_threads": Variable(".bss", "i", 4, 1),
    "min_latency_ns": Variable(".rodata", "Q", 8, 1),
    "min_size": Variable(".rodata", "Q", 8, 1),
    "name_accepts": Variable(".rodata", "Q", 8, 1024),
    "name_chosen": Variable(".rodata", "Q", 8, 4),
    "name_excluded": Variable(".rodata", "Q", 8, 4),
    "name_starts": Variable(".rodata", "Q", 8, 4),
    "name_stays": Variable(".rodata", "Q", 8, 4),
    "next_call_id": Variable(".bss", "I", 4, 1),
    "next_claim_id": Variable(".bss", "I", 4, 1),
    "next_file_id": Variable(".bss", "I", 4, 1),
    "next_path_id": Variable(".bss", "I", 4, 1),
    "next_task_id": Variable(".bss", "I", 4, 1),
    "only_failed": Variable(".rodata", "?", 1, 1),
    "only_visible": Variable(".rodata", "?", 1, 1),
    "op_of_nr": Variable(".rodata", "B", 1, 512),
    "overflowed_ns": Variable(".bss", "Q", 8, 64),
    "own_level": Variable(".bss", "I", 4, 1),
    "own_pid_ns": Variable(".bss", "Q", 8, 1),
    "own_tgid": Variable(".bss", "I", 4, 1),
    "page_shift": Variable(".rodata", "I", 4, 1),
    "rename_gen": Variable(".bss", "I", 4, 1),
    "request_reach": Variable(".bss", "I", 4, 16384),
    "root_count": Variable(".bss", "I", 4, 1),
    "roots": Variable(".bss", "I", 4, 128),
    "sees_enter": Variable(".rodata", "?", 1, 1),
    "selects_cgroups": Variable(".rodata", "?", 1, 1),
    "selects_names": Variable(".rodata", "?", 1, 1),
    "selects_numbers": Variable(".rodata", "?", 1, 1),
    "selects_threads": Variable(".rodata", "?", 1, 1),
    "tells_hung": Variable(".bss", "I", 4, 1),
    "tid_count": Variable(".rodata", "I", 4, 1),
    "tids": Variable(".bss", "I", 4, 128),
    "traces_aio": Variable(".rodata", "?", 1, 1),
    "traces_faults": Variable(".rodata", "?", 1, 1),
    "traces_io_uring": Variable(".rodata", "?", 1, 1),
    "traces_mappings": Variable(".rodata", "?", 1, 1),
    "traits": Variable(".bss", "I", 4, 1048576),
    "uid_count": Variable(".rodata", "I", 4, 1),
    "uids": Variable(".rodata", "I", 4, 128),
    "undecoded_opcodes": Variable(".bss", "Q", 8, 128),
    "unknown_zero": Variable(".bss", "I", 4, 1),
    "unwanted_paths": Variable(".bss", "Q", 8, 32768),
    "wanted_tids": Variable(".bss", "I", 4, 128),
}
"""Everything in .rodata, .data and .bss, settings included."""


@dataclass(slots=True, kw_only=True)
class Config:
    """The settings: constants of the object that are chosen before it is loaded."""

    all_files: bool = False
    claim_seed: int = 0
    excluded_cgroup_count: int = 0
    excluded_tid_count: int = 0
    excluded_uid_count: int = 0
    filters: bool = False
    follow_children: bool = True
    has_cqe_argument: bool = False
    has_exclusions: bool = False
    has_group_dead: bool = False
    has_page_hooks: bool = False
    hung_ns: int = 0
    judges_names: bool = False
    judges_tasks: bool = False
    min_latency_ns: int = 0
    min_size: int = 0
    only_failed: bool = False
    only_visible: bool = False
    page_shift: int = 12
    sees_enter: bool = False
    selects_cgroups: bool = False
    selects_names: bool = False
    selects_numbers: bool = False
    selects_threads: bool = False
    tid_count: int = 0
    traces_aio: bool = False
    traces_faults: bool = False
    traces_io_uring: bool = False
    traces_mappings: bool = False
    uid_count: int = 0
