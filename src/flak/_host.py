"""/proc and /sys as they are found below a root: text, links, capabilities, mounts. What cannot be read is None.

Says what stands there and judges nothing. Used by preflight; tests give it a root of their own.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Host", "Mount"]

CAPABILITIES = {"SYS_PTRACE": 19, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}
INITIAL_USER, INITIAL_PID = "user:[4026531837]", "pid:[4026531836]"  # PROC_USER_INIT_INO, PROC_PID_INIT_INO
_CHUNK = 1 << 16  # files of /proc/sys refuse reads of megabytes
_MOST_READ = 1 << 22


@dataclass(slots=True, frozen=True)
class Mount:
    """A line of mountinfo."""

    point: str
    kind: str
    options: str


class Host:
    """Files below `folder`."""

    def __init__(self, folder: Path = Path("/")) -> None:
        self.folder = folder
        self.status = dict(_pairs(self.text("proc/self/status") or ""))
        self.mounts = list(_mounts(self.text("proc/self/mountinfo") or ""))

    def text(self, path: str) -> str | None:
        """What a file says, without the blanks around it."""
        found = b""
        try:
            with (self.folder / path).open("rb", buffering=0) as file:
                while len(found) < _MOST_READ and (chunk := file.read(_CHUNK)):
                    found += chunk
        except OSError:
            return None
        return found.decode(errors="replace").strip("\0\n\t ")

    def number(self, path: str) -> int | None:
        """What a file says, where that is a number."""
        text = self.text(path) or ""
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None

    def link(self, path: str) -> str | None:
        """Where a symbolic link leads."""
        try:
            return str((self.folder / path).readlink())
        except OSError:
            return None

    def writer(self, path: str) -> str:
        """Who but root may write to a file, or put others into a folder; "" for nobody, and where there is nothing.

        Rights that an access control list gives show in those of the group.
        """
        try:
            found = (self.folder / path).stat()
        except OSError:
            return ""
        if found.st_uid:
            return f"user {_name(pwd.getpwuid, found.st_uid)}"
        if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
            return ""  # others may not touch what is root's there, as in /tmp
        if found.st_mode & stat.S_IWOTH:
            return "everybody"
        if found.st_mode & stat.S_IWGRP and found.st_gid:
            return f"group {_name(grp.getgrgid, found.st_gid)}"
        return ""

    def has(self, path: str) -> bool:
        """There is something of that name."""
        return os.path.lexists(self.folder / path)

    @property
    def uid(self) -> str:
        """Effective user number, "?" where /proc does not tell."""
        return [*self.status.get("Uid", "").split(), "?", "?"][1]

    def capabilities(self, which: str = "CapEff") -> set[str]:
        """Those held, of CAPABILITIES. SYS_ADMIN includes BPF and PERFMON."""
        bits = int(self.status.get(which, "0"), 16)
        found = {name for name, number in CAPABILITIES.items() if bits >> number & 1}
        return found | {"BPF", "PERFMON"} if "SYS_ADMIN" in found else found

    def container(self) -> str:
        """Who runs the container that this is: "kubernetes", "podman", "docker"; "" for none that shows."""
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            return "kubernetes"
        # A machine made from a container's image has the file, too.
        has_own_root = any(mount.point == "/" and "overlay" in mount.kind for mount in self.mounts)
        if has_own_root or self.link("proc/self/ns/pid") not in (None, INITIAL_PID):
            for sign, name in (("run/.containerenv", "podman"), (".dockerenv", "docker")):
                if self.has(sign):
                    return name
        return ""


def _name(look_up: Callable[[int], Any], number: int) -> str:
    """The name of a user or group, else its number."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Lines "NAME: VALUE"."""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name, value.strip()


def _mounts(text: str) -> Iterator[Mount]:
    """Lines of mountinfo, those that are whole."""
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if len(fields) > 5 and len(rest) > 2:
            yield Mount(_unescaped(fields[4]), rest[0], f"{fields[5]},{rest[2]}")


def _unescaped(path: str) -> str:
    """Blanks, tabs, newlines and backslashes stand as octal numbers there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
