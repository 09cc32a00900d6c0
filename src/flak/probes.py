"""Which hook serves which concern: alternatives in order, what they need of the kernel, what is lost without.

No kernel version is compared: BTF is asked, and where BTF can't tell, the load or the attach is tried and the next
alternative taken. `attach()` does so and says what came of it. Used by session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import NamedTuple

from flak._records import LAYOUTS
from flak._skeleton import Config
from flak.bpf import OLD, BpfObject, Btf, object_bytes, variants_for
from flak.errors import AttachError, LoadError, NotPermitted
from flak.wire import compare_layouts

PAGE_FAULTS_MIN, PAGE_FAULTS_MAJ = 5, 6  # enum perf_sw_ids

PROCESSES = ("flak_fork", "flak_exec", "flak_exit_task")
RENAMES = "flak_rename"
CALL_ENTER, CALL_EXIT = "flak_enter", "flak_exit"
SUBMISSIONS = ("flak_submit_req", "flak_submit_sqe")
COMPLETIONS = ("flak_complete", "flak_overflow", "flak_fail_link")
ADOPT, OPEN_FILES, MAPPINGS = "flak_adopt", "flak_fds", "flak_vmas"
PENDING, PENDING_PATHS, PENDING_REQUESTS = "flak_pending", "flak_claims", "flak_requests"
ITERATORS = (ADOPT, OPEN_FILES, MAPPINGS, PENDING, PENDING_PATHS, PENDING_REQUESTS)
NOT_OF_OLD = {PENDING_PATHS, PENDING_REQUESTS}
"""Iterators that old kernels refuse, for what they call."""


@dataclass(frozen=True)
class Alternative:
    """One way to serve a concern: programs by their hooks, and programs run by software events."""

    name: str
    is_possible: Callable[[Btf], bool]
    programs: tuple[str, ...]
    software_events: tuple[tuple[str, int], ...] = ()


_ACCOUNTED = (("flak_fault_end", PAGE_FAULTS_MAJ), ("flak_fault_end", PAGE_FAULTS_MIN))

FAULTS = (
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
    Alternative(
        "fentry and fexit on handle_mm_fault",
        # fentry needs the kernel's function tracer with direct calls
        lambda btf: btf.has_function("handle_mm_fault") and btf.has_function("register_ftrace_direct"),
        ("flak_fault_in", "flak_fault_out"),
    ),
)
"""How page faults are seen, best first. The tracepoints stand before the kprobe because they cost less. fentry is last:
its programs can be preempted, and meanwhile the kernel skips them for every other task on that CPU: a recursion miss
each time, and nobody knows how many faults that were. kprobes and perf events run with preemption off."""

FAULT_PAGES = Alternative(
    "mm_filemap_map_pages and mm_filemap_fault",
    lambda btf: btf.has_tracepoint("mm_filemap_map_pages") and btf.has_tracepoint("mm_filemap_fault"),
    ("flak_map_pages", "flak_filemap"),
)
"""How many pages a fault brings in."""

_REQUESTS = (
    "io_kiocb", "io_rw", "io_sync", "io_open", "io_close", "io_statx", "io_fadvise", "io_madvise", "io_splice",
    "io_rename", "io_link", "io_unlink", "io_mkdir", "filename",
)  # fmt: skip


def _sees_requests(btf: Btf, submit: str) -> bool:
    hooks = (submit, "io_uring_complete", "io_uring_cqe_overflow", "io_uring_fail_link")
    return all(map(btf.has_tracepoint, hooks)) and all(map(btf.has_struct, _REQUESTS))


IO_URING = (
    Alternative(
        "io_uring_submit_req and io_uring_complete",
        lambda btf: _sees_requests(btf, "io_uring_submit_req"),
        ("flak_submit_req", *COMPLETIONS),
    ),
    Alternative(
        "io_uring_submit_sqe and io_uring_complete",
        lambda btf: _sees_requests(btf, "io_uring_submit_sqe"),
        ("flak_submit_sqe", *COMPLETIONS),
    ),
)
"""How requests of io_uring are seen: the tracepoint of submission has had two names."""

LOST_WITHOUT = {
    "renames": "processes that take a chosen name without an exec",
    "page faults": "what is read and written through memory maps",
    "pages per fault": "how many pages a fault maps (page_count)",
    "io_uring": "what is done through io_uring; its calls are counted",
    "aio": "what is done through io_submit; its calls are counted",
    "paths of blocked calls": "which path a call is about that has not returned, as open and stat",
    "enter of calls": "durations, calls that never return, the files of close, munmap and mremap",
}
"""By concern, what a report cannot show when nothing serves it."""


@dataclass
class Hooks:
    """The loaded object with its hooks on. `served`: concern → hook; `missing`: concern → what is lost, and why."""

    bpf: BpfObject
    served: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def attach(
    config: Config,
    sizes: Mapping[str, int],
    *,
    tables: Mapping[str, bytes],
    wants_faults: bool,
    wants_io_uring: bool,
    wants_latency: bool,
    choose_calls: Callable[[bytes], bytes],
) -> Hooks:
    """Load the object and attach what is wanted, page faults in the first way that this kernel allows.

    config: the object's settings; what only the kernel can answer is added here. sizes: entries or bytes of maps by
    name. tables: arrays among the settings. choose_calls: the table of system calls → the same without unwanted ones.
    Raises NotSupported, NotPermitted, LoadError, AttachError and SchemaMismatch.
    """
    with Btf.of_kernel() as btf:
        fault_ways: list[Alternative | None] = [way for way in FAULTS if wants_faults and way.is_possible(btf)]
        request_ways: list[Alternative | None] = [way for way in IO_URING if wants_io_uring and way.is_possible(btf)]
        page_ways: list[Alternative | None] = [FAULT_PAGES, None] if FAULT_PAGES.is_possible(btf) else [None]
        has_renames = btf.has_tracepoint("task_rename")
        variants = variants_for(btf)
        config = replace(
            config,
            sees_enter=wants_latency,
            has_group_dead=btf.tracepoint_arguments("sched_process_exit") > 1,
            has_cqe_argument=btf.tracepoint_arguments("io_uring_complete") == 3,
        )
    calls = (CALL_ENTER, CALL_EXIT) if wants_latency else (CALL_EXIT,)
    fixed = (*PROCESSES, *((RENAMES,) if config.judges_names and has_renames else ()), *calls)
    memory_ways = [*product(fault_ways, page_ways), (None, None)]
    attempts = [
        _Attempt(variant, requests, *memory)
        for variant in variants
        for requests in ([None] if variant == OLD else [*request_ways, None])
        for memory in memory_ways
    ]
    refusals: dict[_Attempt, LoadError | AttachError | NotPermitted] = {}
    are_pages_refused = False
    for attempt in attempts:
        variant, requests, faults, pages = attempt
        if faults and not pages and len(page_ways) > 1 and not are_pages_refused:
            continue  # what was refused was something else
        ways = [way for way in (requests, faults, pages) if way]
        try:
            bpf = _attach_with(
                object_bytes(variant),
                replace(
                    config,
                    traces_faults=bool(faults),
                    has_page_hooks=bool(pages),
                    traces_io_uring=bool(requests),
                    traces_aio=config.traces_aio and variant != OLD,
                ),
                sizes,
                [*fixed, *(program for way in ways for program in way.programs)],
                [name for name in ITERATORS if variant != OLD or name not in NOT_OF_OLD],
                [event for way in ways for event in way.software_events],
                lambda bpf: {**tables, "op_of_nr": choose_calls(bpf.initial("op_of_nr"))},
            )
        except (LoadError, AttachError, NotPermitted) as error:  # some kernels refuse fentry as if for want of a right
            refusals[attempt] = error
            told = error.log if isinstance(error, LoadError) else error.message
            are_pages_refused = bool(pages) and any(program in told for program in FAULT_PAGES.programs)
            continue
        reasons = {which: error.message.splitlines()[0] for which, error in refusals.items()}
        hooks = Hooks(bpf)
        hooks.served["processes"] = "sched_process_fork, sched_process_exec, sched_process_exit"
        hooks.served["system calls"] = "sys_enter and sys_exit" if wants_latency else "sys_exit"
        if config.judges_names and not has_renames:
            hooks.missing["renames"] = f"{LOST_WITHOUT['renames']} (this kernel has no task_rename)"
        if not wants_latency:
            hooks.missing["enter of calls"] = f"{LOST_WITHOUT['enter of calls']} (left out on request)"

        # Why the best way was refused, beside what is served now.
        best = (
            [reasons.get(_Attempt(variant, requests, fault_ways[0], way)) for way in reversed(page_ways)]
            if fault_ways
            else []
        )
        without_faults = next(filter(None, best), None)
        without_pages = reasons.get(_Attempt(variant, requests, faults, page_ways[0])) if faults else without_faults
        without_requests = reasons.get(_Attempt(variant, request_ways[0], faults, pages)) if request_ways else None
        for concern, is_wanted, way, reason in (
            ("page faults", wants_faults, faults, without_faults),
            ("pages per fault", wants_faults, pages, without_pages),
            ("io_uring", wants_io_uring, requests, without_requests),
        ):
            if is_wanted and way:
                hooks.served[concern] = way.name
            elif is_wanted:
                reason = reason or ("this kernel is too old" if variant == OLD else "this kernel has none of the hooks")
                hooks.missing[concern] = f"{LOST_WITHOUT[concern]} ({reason})"
        if variant == OLD:
            for concern, is_wanted in (("aio", config.traces_aio), ("paths of blocked calls", wants_latency)):
                if is_wanted:
                    hooks.missing[concern] = f"{LOST_WITHOUT[concern]} (this kernel is too old)"
        return hooks
    raise refusals[_Attempt(variants[0], None, None, None)]


class _Attempt(NamedTuple):
    """One way to load: a variant of the object, and by what each concern is served."""

    variant: str
    requests: Alternative | None
    faults: Alternative | None
    pages: Alternative | None


def _attach_with(
    image: bytes,
    config: Config,
    sizes: Mapping[str, int],
    programs: Sequence[str],
    iterators: Sequence[str],
    software_events: Sequence[tuple[str, int]],
    tables: Callable[[BpfObject], Mapping[str, bytes]],
) -> BpfObject:
    """The object with these programs on their hooks. What failed is closed again."""
    bpf = BpfObject(image)
    try:
        compare_layouts({name: bpf.btf.layout(name) for name in LAYOUTS})
        bpf.configure(asdict(config))
        bpf.configure(tables(bpf))
        for name, size in sizes.items():
            bpf.set_size(name, size)
        bpf.select([*programs, *iterators, *(name for name, _ in software_events)])
        bpf.load()
        bpf.run_iterator(ADOPT)  # finds out who FLAK is, before a hook could take it for a target
        for name in programs:  # processes first: a child that slips between would never be traced
            bpf.attach(name)
        for name, event in software_events:
            bpf.attach_software_event(name, event)
    except BaseException:
        bpf.close()
        raise
    return bpf
