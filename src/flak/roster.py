"""Who is traced, as the BPF programs are told: traits, numbers and cgroup ids in their memory.

`look_up` finds the targets before anything is loaded, `arm` or `adopt` makes them targets once the hooks are on, and
`is_exhausted` says when nobody is left. What the programs make of it stands in bpf/targets.bpf.h. Used by session.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flak import probes
from flak._records import MAX_CHOICES
from flak.bpf import BpfObject, Shared
from flak.errors import AttachError, TargetError
from flak.selection import Selection
from flak.target import Target, check_thread, describe
from flak.watch import CgroupWatch

__all__ = ["Roster"]

ADOPT_ARM, ADOPT_ALL, ADOPT_COUNT = 1, 2, 3
"""What the iterator flak_adopt does (bpf/attach.bpf.c)."""

EMPTY_COUNTS = 5
"""So many looks in a row, a second apart, must find nobody alive."""

INITIAL_PID_NS = 0xEFFF_FFFC
"""Inode number of the initial pid namespace: PROC_PID_INIT_INO (include/linux/proc_ns.h)."""


class Roster:
    """The targets of one selection."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._targets: list[Target] = []
        self._watch: CgroupWatch | None = None
        self._bpf: BpfObject | None = None
        self._shared: Shared | None = None
        self._next_count = time.monotonic()
        self._empty_counts = 0

    # --- before the programs are loaded

    def look_up(self) -> None:
        """Find the processes, threads and cgroups that are meant. TargetError where one is not there."""
        self._targets = [describe(pid) for pid in self._selection.pids.chosen]
        for pid in self._selection.pids.excluded:
            describe(pid)
        for tid in (*self._selection.tids.chosen, *self._selection.tids.excluded):
            check_thread(tid)
        self._watch = CgroupWatch(self._selection)

    def settings(self) -> dict[str, Any]:
        """Settings of the programs."""
        # By name, user or all means: of what FLAK's own pid namespace shows. A cgroup means everything in it.
        is_initial = Path("/proc/self/ns/pid").stat().st_ino == INITIAL_PID_NS
        is_confined = not self._selection.has_cgroups and not is_initial
        settings = self._selection.settings()
        settings["judges_tasks"] |= is_confined
        return {**settings, "only_visible": is_confined, "excluded_cgroup_count": len(self._cgroups.excluded)}

    def tables(self) -> dict[str, bytes]:
        """Settings that are arrays."""
        chosen, excluded = self._selection.uids.chosen, self._selection.uids.excluded
        uids = [*chosen, *[0] * (MAX_CHOICES - len(chosen)), *excluded, *[0] * (MAX_CHOICES - len(excluded))]
        names = self._selection.machine().settings() if self._selection.comms else {}
        return {**names, "uids": struct.pack(f"<{len(uids)}I", *uids)}

    # --- once they are on their hooks

    def arm(self, bpf: BpfObject, shared: Shared, pid: int) -> None:
        """Have a command traced from its exec on: what the child does until then is FLAK's own doing."""
        self._bpf, self._shared = bpf, shared
        shared.write("roots", [pid])
        shared["root_count"][0] = 1
        shared["adopt_mode"][0] = ADOPT_ARM
        bpf.run_iterator(probes.ADOPT)
        if not self.is_armed:
            raise TargetError(f"process {pid} was not found by the kernel's task iterator")
        self._tell_cgroups(shared)

    def adopt(self, bpf: BpfObject, shared: Shared) -> None:
        """Make the chosen processes and their children targets, as far as they run already. TargetError where one that
        was named has ended meanwhile, or cannot be traced.
        """
        self._bpf, self._shared = bpf, shared
        pids, tids = self._selection.pids, self._selection.tids
        shared.write("roots", pids.chosen)
        shared.write("roots", pids.excluded, MAX_CHOICES)
        shared["root_count"][0] = len(pids.chosen)
        shared["excluded_root_count"][0] = len(pids.excluded)
        shared.write("wanted_tids", tids.chosen)
        shared.write("wanted_tids", tids.excluded, MAX_CHOICES)
        self._tell_cgroups(shared)
        shared["adopt_mode"][0] = ADOPT_ALL
        before = -1
        # The fork hook is on; what forked before it is found by going on till nobody is added.
        while shared["adopted_count"][0] != before:
            before = shared["adopted_count"][0]
            bpf.run_iterator(probes.ADOPT)
        self._check_found(shared)

    def _check_found(self, shared: Shared) -> None:
        for target in self._targets:
            now = describe(target.pid)  # says which one has ended meanwhile
            if now.start_time != target.start_time:
                raise TargetError(f"process {target.pid} ended, and its number was given to another")
        for index, target in enumerate(self._targets):
            if not shared["found_roots"][0] >> index & 1:
                raise TargetError(
                    f"process {target.pid} ({target.comm}) cannot be traced: it is FLAK itself, or the kernel's task"
                    " iterator does not show it"
                )
        for tid, still_wanted in zip(self._selection.tids.chosen, shared["wanted_tids"], strict=False):
            if still_wanted:
                raise TargetError(f"thread {tid} has ended")

    def _tell_cgroups(self, shared: Shared) -> None:
        """Say which cgroups were found so far; the count last, for the programs look at any time."""
        shared.write("cgroup_ids", _ids(self._cgroups.excluded), MAX_CHOICES)
        shared.write("cgroup_ids", _ids(self._cgroups.found))
        shared["cgroup_count"][0] = len(self._cgroups.found)

    # --- while they run

    @property
    def is_armed(self) -> bool:
        """The command has not come to its exec yet."""
        return bool(self._shared and self._shared["armed_tgid"][0])

    def is_exhausted(self) -> bool:
        """Nobody is left who could be traced. Looks for cgroups that are waited for, too: ask in every round."""
        selection, shared = self._selection, self._shared
        assert shared, "asked before the programs run"
        if self._cgroups.has_news():
            self._tell_cgroups(shared)
        has_tree = bool(selection.pids.chosen or selection.command) and not self.is_armed
        has_threads = bool(selection.tids.chosen)
        if (has_tree and shared["live_processes"][0] <= 0) or (has_threads and shared["live_threads"][0] <= 0):
            return True
        return self._cgroups.is_over() or self._have_ended_unseen(has_tree, has_threads)

    def _have_ended_unseen(self, has_tree: bool, has_threads: bool) -> bool:
        """Is none of the processes, or of the chosen threads, alive that the hooks know of? Asked once a second, where
        the kernel says that it has skipped hooks (recursion misses, Linux 7.2 on): had that been an exit, it would be
        waited for without end. For a while an exec hides the thread that makes it, and one look over all tasks can miss
        one: hence several looks must find nobody.
        """
        if not (has_tree or has_threads):
            return False
        now = time.monotonic()
        if now < self._next_count:
            return False
        self._next_count = now + 1
        assert self._bpf and self._shared
        if not self._bpf.recursion_misses(probes.PROCESSES):
            return False
        processes, threads = self._shared["adopted_count"], self._shared["counted_threads"]
        self._shared["adopt_mode"][0] = ADOPT_COUNT
        processes[0] = threads[0] = 0
        try:
            self._bpf.run_iterator(probes.ADOPT)
        except AttachError:  # refused now, for want of a descriptor say; the next look may tell
            return False
        is_over = (has_tree and not processes[0]) or (has_threads and not threads[0])
        self._empty_counts = self._empty_counts + 1 if is_over else 0
        return self._empty_counts >= EMPTY_COUNTS

    # --- in words

    @property
    def description(self) -> str:
        """What is traced: "pid 4242 (python) + children"."""
        return self._selection.describe({target.pid: target.comm for target in self._targets})

    @property
    def awaits(self) -> bool:
        """A cgroup or container that was chosen is not there yet."""
        return self._cgroups.is_waiting

    @property
    def cgroups(self) -> dict[str, int]:
        """Path → id of the cgroups that are traced."""
        return {str(cgroup.path): cgroup.cgroup_id for cgroup in self._cgroups.found}

    @property
    def _cgroups(self) -> CgroupWatch:
        assert self._watch, "not looked up yet"
        return self._watch


def _ids(cgroups: Sequence[Any]) -> list[int]:
    return [cgroup.cgroup_id for cgroup in cgroups]
