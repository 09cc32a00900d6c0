"""Container ids as they stand in the names of cgroup directories.

Each runtime writes the id of a container, 64 hex digits, into the name of its cgroup in a manner of its own. What looks
alike but is no container is told apart here: the monitors beside it (conmon) and podman's pods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_ID = "[0-9a-f]{64}"
_BARE = re.compile(_ID)
_PREFIXED = re.compile(
    # "x.slice:cri-containerd:ID" is what a runtime makes of a systemd path when it does not use systemd itself.
    rf"(?:.*:)?(libpod-payload|libpod|docker|cri-containerd|crio|nerdctl)[-:]({_ID})(?:\.scope)?",
    re.DOTALL,
)
_RUNTIMES = {
    "libpod": "podman",
    "libpod-payload": "podman",  # --cgroups=split
    "docker": "docker",
    "cri-containerd": "containerd",
    "crio": "cri-o",
    "nerdctl": "containerd",
}
_UID = "(?:[0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})"
_POD = re.compile(rf"(?:.*-)?pod{_UID}(?:\.slice)?", re.DOTALL)
_HOLDERS = {"docker": "docker", "default": "containerd", "k8s.io": "containerd"}
"""Directories whose children are containers under their bare id: docker's own, and containerd's usual namespaces."""


class Mark(NamedTuple):
    """What the name of a cgroup directory says about the container it belongs to."""

    container_id: str
    runtime: str | None


def is_id(text: str) -> bool:
    """Is that a whole container id?"""
    return _BARE.fullmatch(text) is not None


def is_pod(directory: str) -> bool:
    """Is that the name of the cgroup of a Kubernetes pod: pod<uid>, kubepods-burstable-pod<uid>.slice?"""
    return _POD.fullmatch(directory) is not None


def mark_of(directory: str, parent: str, is_known: Callable[[str], bool]) -> Mark | None:
    """The container whose cgroup is the `directory` below one named `parent`; None where it is no container's.

    A bare id below any other directory (--cgroup-parent) counts where a runtime has a container of that id
    (`is_known`): podman's pods look the same.
    """
    if match := _PREFIXED.fullmatch(directory):
        return Mark(match[2], _RUNTIMES[match[1]])
    if not is_id(directory):
        return None
    if parent in _HOLDERS or is_pod(parent) or is_known(directory):
        return Mark(directory, _HOLDERS.get(parent))
    return None


def innermost(parts: Sequence[str], is_known: Callable[[str], bool]) -> Mark | None:
    """The container that a cgroup of this path, given by its components, is in; the inner one of two that nest."""
    for depth in range(len(parts) - 1, -1, -1):
        if mark := mark_of(parts[depth], parts[depth - 1] if depth else "", is_known):
            return mark
    return None
