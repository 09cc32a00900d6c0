"""What the container runtimes keep on disk about their containers: names, pods, first processes.

No daemon is asked: only files are read. They belong to others, some to users without privileges, and are taken as
arbitrary bytes: a file that is missing, too large, damaged or not a file says nothing, and nothing is raised. A home's
files may name containers, never put them into a pod or a cgroup.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from flak.cgroups import HERE, Host
from flak.containers.ids import is_id

_LARGEST_FILE = 1 << 20
_LONGEST_NAME = 255  # Kubernetes allows 253 bytes, the others less
_MOST_ENTRIES = 20_000  # of one directory

_STORAGE = "/var/lib/containers/storage"
_STORAGE_RUN = "/run/containers/storage"
_DOCKER = ("/var/lib/docker", "/var/snap/docker/common/var-lib-docker")
_CONTAINERD = ("/run/containerd", "/run/k3s/containerd", "/var/snap/microk8s/common/run/containerd")
_OCI_RUNTIMES = ("/run/runc", "/run/crun", "/run/docker/runtime-runc/moby")
_KUBELET_LOGS = "/var/log/containers"

PAUSE = "pause"
"""The name of the container that holds a pod's namespaces and does nothing else."""


@dataclass(slots=True, frozen=True)
class Record:
    """What is known about a container; None where it is not."""

    runtime: str | None = None
    name: str | None = None
    pod: str | None = None
    namespace: str | None = None

    def filled(self, other: Record) -> Record:
        """This record or, where that tells more, the other: names are not mixed, a name goes with its pod."""
        better = max(self, other, key=lambda record: (record.pod is not None, record.name is not None))
        return replace(better, runtime=self.runtime or other.runtime)


@dataclass(slots=True, frozen=True)
class Process:
    """The first process of a container that runs, and the cgroups its runtime says it made for it."""

    pid: int
    cgroups: tuple[str, ...]
    is_rootless: bool


class State:
    """The runtimes' files of one moment: each list is read once, when it is first needed."""

    def __init__(self, host: Host = HERE) -> None:
        self.host = host

    def ids(self) -> set[str]:
        """Ids of all containers that have left a trace, whether they run or not."""
        return {*self._listed, *self._links, *self._by_docker, *self._by_containerd, *self._by_oci_runtime}

    def is_known(self, container_id: str) -> bool:
        """Has any runtime a container with this id?"""
        tables = (self._listed, self._by_docker, self._by_containerd, self._by_oci_runtime)
        return any(container_id in table for table in tables)

    def record(self, container_id: str, *, is_running: bool) -> Record:
        """What the files say about a container. The larger ones are read only for one that runs."""
        found = self._of_docker(container_id)
        if is_running:
            for other in self._of_bundles(container_id):
                found = found.filled(other)
        for table in (self._listed, self._links):
            found = found.filled(table.get(container_id, Record()))
        return found

    def process(self, container_id: str) -> Process | None:
        """The first process of a container; None when it does not run, or its runtime is none of those known."""
        for folder in self._by_oci_runtime.get(container_id, ()):
            pid, start, paths = _runc_or_crun(folder)
            if not pid or not self._is_alive(pid, start):
                continue
            if folder.parent in self._rootless_runtimes:
                return Process(pid, (), True)
            return Process(pid, (*paths, *self._planned(container_id)), False)
        return None

    # where the files are

    @cached_property
    def _graph_roots(self) -> list[Path]:
        """Storage of podman and CRI-O, as the administrator has set it up."""
        return self._configured("/etc/containers/storage.conf", "graphroot", _STORAGE)

    @cached_property
    def _bundles(self) -> list[Path]:
        """Directories of podman's and CRI-O's `<id>/userdata`."""
        runs = self._configured("/etc/containers/storage.conf", "runroot", _STORAGE_RUN)
        return [folder for root in (*runs, *self._graph_roots) for folder in matching(root, "*-containers")]

    @cached_property
    def _docker_folders(self) -> list[Path]:
        roots = [path for name in _DOCKER for path in self._configured("/etc/docker/daemon.json", "data-root", name)]
        return [root / "containers" for root in dict.fromkeys([*roots, *self._docker_homes])]

    @cached_property
    def _docker_homes(self) -> list[Path]:
        return [home / ".local/share/docker" for home in self._homes]

    @cached_property
    def _by_docker(self) -> dict[str, list[Path]]:
        return _by_id(self._docker_folders)

    @cached_property
    def _by_containerd(self) -> dict[str, list[Path]]:
        """containerd's bundles; they stand in a directory for each of its namespaces."""
        roots = [self.host.path(name) / "io.containerd.runtime.v2.task" for name in _CONTAINERD]
        return _by_id(folder for root in roots for folder in matching(root, "*"))

    @cached_property
    def _by_oci_runtime(self) -> dict[str, list[Path]]:
        """Where runc and crun keep a container's state."""
        shims = [folder for name in _CONTAINERD for folder in matching(self.host.path(name) / "runc", "*")]
        return _by_id([*(self.host.path(name) for name in _OCI_RUNTIMES), *shims, *self._rootless_runtimes])

    @cached_property
    def _rootless_runtimes(self) -> list[Path]:
        return [user / name for user in matching(self.host.path("/run/user"), "*") for name in ("runc", "crun")]

    @cached_property
    def _homes(self) -> list[Path]:
        return matching(self.host.path("/home"), "*")

    def _configured(self, config: str, key: str, usual: str) -> list[Path]:
        """Directories to look in: the one that a configuration file names, then the usual one."""
        read = _toml if config.endswith(".conf") else _json
        settings = _mapping(read(Path(os.path.realpath(self.host.path(config)))))  # often a symlink
        named = _mapping(settings.get("storage", settings)).get(key)
        names = [named, usual] if isinstance(named, str) and named.startswith("/") else [usual]
        return [self.host.path(name) for name in dict.fromkeys(names)]

    # what they say

    @cached_property
    def _listed(self) -> dict[str, Record]:
        """Containers of podman and CRI-O, which keep lists. A home's list cannot rename what the system's name."""
        found: dict[str, Record] = {}
        homes = [home / ".local/share/containers/storage" for home in self._homes]
        for root in (*self._graph_roots, *homes):
            for folder in matching(root, "*-containers"):
                # newer versions of podman keep what runs with --rm on a list of its own
                for file in ("containers.json", "volatile-containers.json"):
                    for container_id, name in _storage_names(folder / file):
                        record = _of_name("podman", name, is_trusted=root in self._graph_roots)
                        found.setdefault(container_id, record)
        return found

    @cached_property
    def _links(self) -> dict[str, Record]:
        """Containers that the kubelet keeps logs of: `<pod>_<namespace>_<container>-<id>.log`."""
        found = {}
        for file in entries(self.host.path(_KUBELET_LOGS)):
            if match := re.fullmatch(r"([^_]+)_([^_]+)_([^_]+)-([0-9a-f]{64})\.log", file):
                found[match[4]] = Record(None, _name(match[3]), _name(match[1]), _name(match[2]))
        return found

    def _of_docker(self, container_id: str) -> Record:
        for folder in self._by_docker.get(container_id, ()):
            config = _mapping(_json(folder / "config.v2.json"))
            if name := _name(config.get("Name")):
                is_trusted = folder.parent.parent not in self._docker_homes
                return _of_name("docker", name.removeprefix("/"), is_trusted=is_trusted)
        return Record()

    def _of_bundles(self, container_id: str) -> Iterator[Record]:
        """From the annotations of OCI bundles: containerd's and CRI-O's for Kubernetes, nerdctl's."""
        for folder in self._by_containerd.get(container_id, ()):
            if config := _json(folder / "config.json"):
                yield _of_annotations("docker" if folder.parent.name == "moby" else "containerd", config)
        for folder in self._bundles:
            if config := _json(folder / container_id / "userdata/config.json"):
                yield _of_annotations("podman", config)

    def _planned(self, container_id: str) -> list[str]:
        """The cgroups that podman's and CRI-O's bundles ask for."""
        configs = [_json(folder / container_id / "userdata/config.json") for folder in self._bundles]
        paths = [_mapping(_mapping(config).get("linux")).get("cgroupsPath") for config in configs]
        return [path for path in paths if isinstance(path, str) and path.startswith("/")]

    def _is_alive(self, pid: int, start: int | None) -> bool:
        """Is it still the process that the runtime started, `start` clock ticks after boot?"""
        fields = (_read(self.host.path(f"/proc/{pid}/stat")) or b"").rpartition(b")")[2].split()
        if len(fields) < 20 or fields[0] in (b"Z", b"X"):
            return False
        return start is None or fields[19] == b"%d" % start


def matching(folder: Path, pattern: str) -> list[Path]:
    """Directories and files in a folder by a pattern with one "*", sorted; none where it cannot be read."""
    head, _, tail = pattern.partition("*")
    return [folder / name for name in entries(folder) if name.startswith(head) and name.endswith(tail)]


def entries(folder: Path) -> list[str]:
    """Names in a directory, sorted; none where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in islice(found, _MOST_ENTRIES))
    except (OSError, ValueError):
        return []


def _by_id(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """What bears the name of a container in these folders."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for name in filter(is_id, entries(folder)):
            found.setdefault(name, []).append(folder / name)
    return found


def _storage_names(file: Path) -> Iterator[tuple[str, str]]:
    """(id, name) of each container on one of podman's lists."""
    listed = _json(file)
    for item in listed if isinstance(listed, list) else ():
        container_id, names = _mapping(item).get("id"), _mapping(item).get("names")
        if not isinstance(container_id, str) or not is_id(container_id):
            continue
        name = _name(names[0]) if isinstance(names, list) and names else None
        if name := name or _name(_mapping(_parsed(_mapping(item).get("metadata"))).get("name")):
            yield container_id, name


def _of_name(runtime: str, name: str, *, is_trusted: bool) -> Record:
    """A name, taken apart where it is one that Kubernetes gives to docker and CRI-O:
    k8s_<container>_<pod>_<namespace>_<uid>_<attempt>.
    """
    parts = name.split("_")
    if not is_trusted or len(parts) != 6 or parts[0] != "k8s":
        return Record(runtime, name)
    return Record(runtime, PAUSE if parts[1] == "POD" else parts[1], parts[2], parts[3])


def _of_annotations(runtime: str, config: object) -> Record:
    annotations = _mapping(_mapping(config).get("annotations"))

    def first(*keys: str) -> str | None:
        return next((name for key in keys if (name := _name(annotations.get(key)))), None)

    if annotations.get("io.container.manager") == "cri-o":
        runtime = "cri-o"
    kinds = (annotations.get("io.kubernetes.cri.container-type"), annotations.get("io.kubernetes.cri-o.ContainerType"))
    pod = first("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
    name = first("io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name")
    if pod and "sandbox" in kinds:
        name = PAUSE
    return Record(runtime, name, pod, first("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"))


def _runc_or_crun(folder: Path) -> tuple[int | None, int | None, list[str]]:
    """First process of a container, its start time and its cgroups, as runc or crun has noted them."""
    if state := _mapping(_json(folder / "state.json")):
        path = _mapping(state.get("cgroup_paths")).get("")  # the others are version 1's
        pid, start = state.get("init_process_pid"), state.get("init_process_start")
    else:
        state = _mapping(_json(folder / "status"))
        pid, start, path = state.get("pid"), state.get("process-start-time"), state.get("cgroup-path")
    return _positive(pid), _positive(start), [path] if isinstance(path, str) and path.startswith("/") else []


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 1 << 63 else None


def _name(value: object) -> str | None:
    """The value where it can be a name."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(file: Path) -> object:
    return _parsed(_read(file))


def _parsed(text: object) -> object:
    """The value that JSON text stands for; None where it is none."""
    try:
        return json.loads(text) if isinstance(text, (str, bytes)) else None
    except (ValueError, RecursionError):
        return None


def _toml(file: Path) -> object:
    try:
        return tomllib.loads((_read(file) or b"").decode())
    except (ValueError, RecursionError):
        return None


def _read(file: Path) -> bytes | None:
    """A regular file's bytes; None where it is anything else, too large, or cannot be read. Never waits, and opens no
    device that a symlink leads to: for some that alone has an effect.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = opened.read(_LARGEST_FILE + 1)
    except (OSError, ValueError):
        return None
    return content if len(content) <= _LARGEST_FILE else None
