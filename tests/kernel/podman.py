"""Real containers, by podman, without an image: a folder with busybox in it is the root file system.

`container()` runs one and removes it in the end, whatever happens. Used by tests of containers; where podman cannot
run one here, they skip and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flak import cgroups
from flak.cgroups import Cgroup

from .conftest import give_up

BUSYBOX = Path("/usr/bin/busybox")
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  # podman's own may exceed what is allowed
TIMEOUT_S = 20


@dataclass(frozen=True)
class RunningContainer:
    """A container that runs: `pid` is its first process as this machine numbers it."""

    name: str
    container_id: str
    pid: int

    @property
    def cgroup(self) -> Cgroup:
        """The version 2 cgroup of its first process, as the kernel has it."""
        found = cgroups.named(cgroups.of_process(self.pid))
        assert found, "the cgroup of a process that runs is there"
        return found

    def exec(self, *command: str) -> str:
        """Runs a program in the container; what it wrote to its standard output."""
        return _podman("exec", self.container_id, *command)

    def remove(self) -> None:
        """Ends it and waits until it is gone. May be called twice."""
        _podman("rm", "--force", "--ignore", "--time", "0", self.container_id)


def make_rootfs(folder: Path, files: Mapping[str, bytes | Path] | None = None) -> Path:
    """A root file system below `folder`: /bin/busybox, /bin/sh and these files, given as bytes or by a file to copy.

    A file that is copied keeps its mode, so programs can be put there; they have to be linked statically.
    """
    rootfs = folder / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(_busybox(), rootfs / "bin/busybox")
    (rootfs / "bin/sh").symlink_to("busybox")
    for name, content in (files or {}).items():
        path = rootfs / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copy(content, path)
    return rootfs


@contextmanager
def container(name: str, command: Sequence[str], rootfs: Path, *options: str) -> Iterator[RunningContainer]:
    """Runs a command in a container until the block ends; `options` are those of `podman run`.

    Skips where podman is missing or says that it cannot. The name should be of this test run only.
    """
    arguments = ("run", "--detach", "--rm", "--network=none", *LIMITS, "--name", name, *options)
    try:
        try:
            container_id = _podman(*arguments, "--rootfs", str(rootfs), *command).strip()
        except subprocess.CalledProcessError as error:
            give_up(f"podman cannot run a container here: {(error.stderr.strip() or 'no reason').splitlines()[-1]}")
        pid = int(_podman("inspect", "--format", "{{.State.Pid}}", container_id))
        yield RunningContainer(name, container_id, pid)
    finally:
        subprocess.run([*_command(), "rm", "--force", "--ignore", "--time", "0", name], capture_output=True)


def unique(name: str) -> str:
    """A name for a container that no other run of the tests has."""
    return f"flak-test-{name}-{os.getpid()}"


def _podman(*arguments: str) -> str:
    done = subprocess.run(
        [*_command(), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


def _command() -> list[str]:
    podman = shutil.which("podman")
    if podman is None:
        pytest.skip("podman is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can run a container that needs no image")
    # runc makes a version 2 cgroup on hybrid hosts too; cgroupfs needs no systemd
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    return [podman, *runtime, "--cgroup-manager=cgroupfs"]


def _busybox() -> Path:
    if not BUSYBOX.exists():
        pytest.skip(f"no {BUSYBOX} to put into a container (package busybox-static)")
    # The dynamic loader is named in a program that needs it, and would be missing in the container.
    if b"/ld-linux" in BUSYBOX.read_bytes() or b"/ld-musl" in BUSYBOX.read_bytes():
        pytest.skip(f"{BUSYBOX} is not linked statically (package busybox-static)")
    return BUSYBOX
