"""A machine of files in a temporary folder: mounts, cgroups, processes and what runtimes keep, for tests without
privileges.
"""

from __future__ import annotations

import json
from pathlib import Path

from flak.cgroups import Host

V2 = "41 31 0:38 {root} {point} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 / {point} rw,relatime - cgroup cgroup rw,{controllers}\n"


class FakeHost:
    """Its `host` is what `cgroups` and `containers` take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = Host(folder)
        self.top = Path()
        self.mountinfo = "22 1 8:1 / / rw - ext4 /dev/root rw\n31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        self.write("/proc/self/mountinfo", self.mountinfo)

    def mount(self, point: str = "/sys/fs/cgroup", root: str = "/") -> None:
        """Mount the version 2 hierarchy, or the part of it below `root`."""
        self._mount(V2.format(root=root.replace(" ", r"\040"), point=point.replace(" ", r"\040")), point)
        self.top = self.path(point)

    def mount_v1(self, point: str, controllers: str) -> None:
        self._mount(V1.format(point=point, controllers=controllers), point)

    def _mount(self, line: str, point: str) -> None:
        self.path(point).mkdir(parents=True, exist_ok=True)
        self.mountinfo += line
        self.write("/proc/self/mountinfo", self.mountinfo)

    def path(self, name: str) -> Path:
        return self.folder / name.lstrip("/")

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def json(self, name: str, value: object) -> Path:
        return self.write(name, json.dumps(value))

    def cgroup(self, path: str) -> int:
        """Make a cgroup of the version 2 hierarchy; its id."""
        directory = self.top / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        return directory.stat().st_ino

    def process(self, pid: int, cgroup: str | None, *, parent: int = 1, start: int = 4711) -> None:
        """A process in that version 2 cgroup; None where the machine has none."""
        memory = "4:memory:/elsewhere\n"
        self.write(f"/proc/{pid}/cgroup", memory if cgroup is None else f"{memory}0::{cgroup}\n")
        self.write(f"/proc/{pid}/status", f"Name:\tx\nPid:\t{pid}\nPPid:\t{parent}\n")
        fields = ["S", str(parent), *["0"] * 17, str(start), "0", "0"]
        self.write(f"/proc/{pid}/stat", f"{pid} (a) b) {' '.join(fields)}\n")
