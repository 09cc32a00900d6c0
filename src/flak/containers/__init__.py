"""Containers by name: which cgroups are meant by `--container`, and which container a cgroup belongs to.

Only cgroup directories (`ids`) and the runtimes' own files (`state`) are looked at; no daemon is asked and no program
is run. `find()` is for what the user wrote, `Names` for the `container` field of events. A container is selected by
its own cgroup in the version 2 hierarchy; one that has none is refused.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from flak import cgroups
from flak.cgroups import HERE, Cgroup, Host, NotThere
from flak.containers.ids import innermost, is_pod, mark_of
from flak.containers.state import Process, Record, State
from flak.errors import FlakError, NotSupported, TargetError, UsageError
from flak.events import escape

__all__ = ["Container", "Names", "NotRunning", "find", "known"]


class NotRunning(NotThere):
    """No such container or pod runs now."""


@dataclass(slots=True, frozen=True)
class Container:
    """A container that a runtime knows; names are as its files have them, arbitrary text."""

    container_id: str
    name: str | None
    runtime: str | None
    pod: str | None
    namespace: str | None
    cgroup: Path | None
    """Its cgroup in the version 2 hierarchy. None where it does not run, or runs without one of its own."""

    @property
    def label(self) -> str:
        """What it is called: namespace/pod/container, the name, or the first 12 digits of its id."""
        name = self.name or self.container_id[:12]
        return "/".join(part for part in (self.namespace, self.pod, name) if part) if self.pod else name

    @property
    def shown(self) -> str:
        """The label, safe to print."""
        return _printable(self.label)


def find(text: str, *, host: Host = HERE) -> list[Cgroup]:
    """The cgroups of the container or pod that the user means.

    `text` is a name, an id or its beginning (4 digits or more), `namespace/pod/container` as FLAK shows it,
    `pod/NAME` or `pod/NAMESPACE/NAME`. A pod is one cgroup where it has its own, so that containers it gets later are
    in it too.

    Raises `NotRunning` where nothing of that name runs yet, TargetError where several containers are meant or the one
    meant has no cgroup of its own, NotSupported without a version 2 hierarchy.
    """
    machine = _Machine(host)
    if text.startswith("pod/"):
        return machine.pod(text)
    return [machine.cgroup_of(machine.container(text))]


def known(*, host: Host = HERE) -> list[Container]:
    """Every container that has a cgroup or has left state behind, by id."""
    return _Machine(host).containers


class Names:
    """Names of containers by cgroup, for the events of a trace; each cgroup is looked up once.

    A container that is renamed meanwhile keeps the name it had. `clock` is for tests.
    """

    def __init__(self, *, host: Host = HERE, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._clock = clock
        self._names: dict[int, str | None] = {}
        self._walked: dict[int, Path] = {}
        self._next_walk = clock()
        self._waiting: set[int] = set()

    def name_of(self, cgroup_id: int, pid: int) -> str | None:
        """The label of the container that a cgroup belongs to, any text; None where it is no container's.

        `pid` is a process seen in that cgroup, which may have gone or moved since. Never raises.
        """
        try:
            return self._names[cgroup_id]
        except KeyError:
            pass
        if cgroup_id in self._waiting and self._clock() < self._next_walk:
            return None
        try:
            path = self._path_by_process(cgroup_id, pid) or self._path_by_walk(cgroup_id)
            name = self._name_at(path) if path else None
        except (FlakError, OSError, ValueError):  # a machine without version 2 cgroups, or without /proc
            name = None
        if cgroup_id not in self._waiting:
            self._names[cgroup_id] = name
        return name

    def _path_by_process(self, cgroup_id: int, pid: int) -> Path | None:
        try:
            cgroup = cgroups.named(cgroups.of_process(pid, host=self._host), host=self._host)
        except TargetError:
            return None
        return cgroup.path if cgroup and cgroup.cgroup_id == cgroup_id else None

    def _path_by_walk(self, cgroup_id: int) -> Path | None:
        """The directory among all there are; these are read once a second at most, and less often where there are
        many. A cgroup that is not among them after that has gone for good: its id is not used again.
        """
        started = self._clock()
        if cgroup_id not in self._walked and started < self._next_walk:
            self._waiting.add(cgroup_id)
        elif cgroup_id not in self._walked:
            self._walked |= {cgroup.cgroup_id: cgroup.path for cgroup in cgroups.walk(host=self._host)}
            ended = self._clock()
            self._next_walk = ended + max(1.0, 20 * (ended - started))
            self._waiting.clear()
        return self._walked.get(cgroup_id)

    def _name_at(self, path: Path) -> str | None:
        state = State(self._host)
        parts = path.relative_to(cgroups.mount(host=self._host).resolve()).parts
        mark = innermost(parts, state.is_known)
        if mark is None:
            return None
        record = state.record(mark.container_id, is_running=True)
        return _container(mark.container_id, record, mark.runtime, path).label


class _Machine:
    """The containers of one moment: those with a cgroup of their id, and those in the runtimes' files."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.state = State(host)
        self._runtimes: dict[str, str | None] = {}
        self._directories: dict[str, Cgroup] = {}
        with contextlib.suppress(NotSupported):  # containers may run all the same: they are refused by name
            self._walk()
        ids = sorted(self.state.ids() | self._directories.keys())
        self.containers = [self._described(container_id) for container_id in ids]

    def container(self, text: str) -> Container:
        """The one running container that is meant. An exact name comes before the beginning of an id."""
        if not text:
            raise UsageError("a container has a name or an id, not nothing", "list them with: podman ps, docker ps")
        matches = [c for c in self.containers if text in (c.container_id, c.name, c.shown)]
        if not matches and re.fullmatch("[0-9a-f]{4,}", text):
            matches = [c for c in self.containers if c.container_id.startswith(text)]
        running = [c for c in matches if self._is_running(c)]
        if len(running) > 1:
            choices = _some([f"{c.container_id[:12]} {c.shown}" for c in running], 5)
            raise TargetError(f"{text!r} may be any of several containers: {choices}", "choose one by its id")
        if not running:
            self._refuse(f"container {text!r}", [c.shown for c in self.containers if self._is_running(c)], matches)
        return running[0]

    def pod(self, text: str) -> list[Cgroup]:
        """The cgroups of the pod that is meant by pod/NAME or pod/NAMESPACE/NAME."""
        *namespace, name = text.split("/")[1:]
        if not name or namespace == [""] or len(namespace) > 1:
            raise UsageError(f"{text!r} names no pod", "write pod/NAME or pod/NAMESPACE/NAME")
        matches = [c for c in self.containers if c.pod == name and (not namespace or c.namespace == namespace[0])]
        running = [c for c in matches if self._is_running(c)]
        namespaces = sorted({_printable(c.namespace or "") for c in running})
        if len(namespaces) > 1:
            raise TargetError(
                f"a pod {name!r} runs in several namespaces: {_some(namespaces, 5)}", "write pod/NAMESPACE/NAME"
            )
        if not running:
            pods = [_pod_of(c.namespace, c.pod) for c in self.containers if c.pod and self._is_running(c)]
            self._refuse(f"pod {name!r}", pods, matches)
        return list(dict.fromkeys(_with_its_pod(self.cgroup_of(c)) for c in running))

    def cgroup_of(self, container: Container) -> Cgroup:
        """The cgroup that holds all of a running container and nothing else."""
        process = self.state.process(container.container_id)
        if cgroup := self._place(container.container_id, process):
            return cgroup
        if process is None:
            raise NotRunning(f"container {container.shown} has just ended")
        try:
            where = f"its processes are in 0::{_printable(cgroups.of_process(process.pid, host=self.host))}"
        except FlakError as error:
            where = error.message
        raise TargetError(
            f"container {container.shown} has no cgroup of its own in the version 2 hierarchy: {where}",
            f"choose the process instead: --pid {process.pid}",
        )

    def _walk(self) -> None:
        """Find the directories that hold an id: the outermost of each, as containers nest and make cgroups below."""
        for cgroup in cgroups.walk(host=self.host):
            mark = mark_of(cgroup.path.name, cgroup.path.parent.name, self.state.is_known)
            if mark is None:
                continue
            before = self._directories.get(mark.container_id)
            if before is None or len(cgroup.path.parts) < len(before.path.parts):
                self._directories[mark.container_id] = cgroup
                self._runtimes[mark.container_id] = mark.runtime

    def _described(self, container_id: str) -> Container:
        cgroup, process = self._directories.get(container_id), None
        if cgroup is None:
            process = self.state.process(container_id)
            cgroup = self._place(container_id, process)
        record = self.state.record(container_id, is_running=bool(cgroup or process))
        return _container(container_id, record, self._runtimes.get(container_id), cgroup.path if cgroup else None)

    def _is_running(self, container: Container) -> bool:
        return container.cgroup is not None or self.state.process(container.container_id) is not None

    def _place(self, container_id: str, process: Process | None) -> Cgroup | None:
        """Where a container is. Its process has the last word: on a hybrid host a directory may stand empty."""
        directory = self._directories.get(container_id)
        within = self._cgroup_of_process(process.pid) if process else None
        if process is None or within is None:
            return directory
        noted = [] if process.is_rootless else map(self._noted, process.cgroups)
        for cgroup in (directory, *noted):
            if cgroup and within.path.is_relative_to(cgroup.path):
                return cgroup
        return None if process.is_rootless or self._is_shared(process.pid, within) else within

    def _cgroup_of_process(self, pid: int) -> Cgroup | None:
        try:
            return cgroups.named(cgroups.of_process(pid, host=self.host), host=self.host)
        except FlakError:
            return None

    def _noted(self, text: str) -> Cgroup | None:
        """The cgroup that a runtime says it made; never the root, which everything is in."""
        try:
            cgroup = cgroups.resolve(text, host=self.host)
        except FlakError:
            return None
        return None if self._is_root(cgroup) else cgroup

    def _is_root(self, cgroup: Cgroup) -> bool:
        return cgroup.path == cgroups.mount(host=self.host).resolve()

    def _is_shared(self, pid: int, cgroup: Cgroup) -> bool:
        """Is a container's cgroup, by its process, also that of the monitor or shim that started it?"""
        try:
            status = self.host.path(f"/proc/{pid}/status").read_bytes()
            parent = int(status.partition(b"\nPPid:")[2].split(b"\n", 1)[0])
        except (OSError, ValueError):
            return True
        above = self._cgroup_of_process(parent)
        return self._is_root(cgroup) or above is None or above.path.is_relative_to(cgroup.path)

    def _refuse(self, what: str, running: Iterable[str], matches: list[Container]) -> NoReturn:
        cgroups.mount(host=self.host)  # says so where nothing can be found here at all
        names = sorted(set(running))
        hint = f"running now: {_some(names, 8)}" if names else "no container runs here that FLAK could see"
        raise NotRunning(f"{what} does not run" if matches else f"no {what}", hint)


def _container(container_id: str, record: Record, runtime: str | None, cgroup: Path | None) -> Container:
    return Container(container_id, record.name, record.runtime or runtime, record.pod, record.namespace, cgroup)


def _with_its_pod(cgroup: Cgroup) -> Cgroup:
    """The cgroup of the pod that a container's cgroup stands in; the container's where the pod has none."""
    parent = cgroup.path.parent
    if not is_pod(parent.name):
        return cgroup
    try:
        return Cgroup(parent.stat().st_ino, parent)
    except OSError:
        return cgroup


def _pod_of(namespace: str | None, pod: str) -> str:
    return "/".join(["pod", *(_printable(part) for part in (namespace, pod) if part)])


def _some(items: list[str], most: int) -> str:
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def _printable(name: str) -> str:
    # JSON may hold lone surrogates, which are no characters; file names hold them for bytes that are no text
    return escape(name.encode("utf-8", "surrogatepass"))
