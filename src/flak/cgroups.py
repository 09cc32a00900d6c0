"""Which cgroup is meant: an id, a directory or a path becomes a directory of the version 2 hierarchy.

FLAK selects by cgroup id: the inode number of the cgroup's directory in the version 2 hierarchy, which the kernel
compares at each event. Version 1 hierarchies have ids of their own and are refused by name. Nothing here knows about
BPF or containers; `containers` and the command line are the users. Everything is looked up below a `Host`'s root, so
that tests can bring their own.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from flak.errors import NotSupported, TargetError, UsageError

__all__ = [
    "HERE", "Cgroup", "Host", "NotThere", "is_gone", "mount", "named", "of_process", "path_of_id", "resolve", "walk",
]  # fmt: skip


class NotThere(TargetError):
    """What was named does not exist now. It may later: the one failure that waiting can mend."""


@dataclass(slots=True, frozen=True)
class Host:
    """The machine whose files are read: `root` is where its "/" is seen."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """Where a file of this host, named by its absolute path there, is seen from here."""
        return self.root / name.lstrip("/")


HERE = Host()


@dataclass(slots=True, frozen=True)
class Cgroup:
    """A cgroup of the version 2 hierarchy; `path` is its directory as this process sees it.

    An id is never used again while the machine runs; a path is.
    """

    cgroup_id: int
    path: Path


@dataclass(slots=True, frozen=True)
class _Mount:
    version: int
    root: str
    """The cgroup that stands at the mount point, as /proc/PID/cgroup would write it."""
    point: str
    controllers: str


_FLAGS = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "none", "all"}
"""Mount options of a version 1 hierarchy that are no controllers."""


def mount(*, host: Host = HERE) -> Path:
    """The directory where the version 2 hierarchy is mounted; NotSupported where it is not."""
    return host.path(_version_2(host).point)


def resolve(text: str, *, host: Host = HERE) -> Cgroup:
    """The cgroup that an id, a directory below the mount, or a path from the hierarchy's root stands for.

    `resolve("4711")`, `resolve("/sys/fs/cgroup/system.slice")` and `resolve("system.slice")` may mean the same one.
    """
    if not text or "\0" in text:
        raise UsageError("a cgroup is an id or a path, not nothing", _how_to_list(host))
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return _of_id(text, host)
    within = _below(text, _version_2(host).point)
    top = mount(host=host)
    # A path that begins as the mount point does is a directory; all others are first tried from the hierarchy's root.
    if found := _directory(top / (text if within is None else within).lstrip("/"), top):
        return found
    # A symlink into the mount is as good as the mount; one out of it is judged by what it leads to.
    elsewhere = host.path(text)
    if text.startswith("/") and (found := _directory(elsewhere, top)):
        return found
    _refuse(text, elsewhere if text.startswith("/") else None, host)


def of_process(pid: int, *, host: Host = HERE) -> str:
    """The version 2 cgroup that a process is in, from the hierarchy's root: "/system.slice/cron.service".

    "/" on a machine that keeps its processes in version 1 hierarchies.
    """
    try:
        lines = host.path(f"/proc/{pid}/cgroup").read_bytes().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"no process {pid}", "list processes with: ps -e") from None
    except OSError as error:
        raise TargetError(f"cannot read the cgroup of process {pid}: {error.strerror}", "run flak as root") from None
    for line in lines:
        if line.startswith(b"0::"):
            return os.fsdecode(line[3:].removesuffix(b" (deleted)"))
    raise NotSupported(f"process {pid} is in no version 2 cgroup", _UNIFY)


def named(path: str, *, host: Host = HERE) -> Cgroup | None:
    """The cgroup of a path from the hierarchy's root, as `of_process` gives it; None where it is not there or not
    visible.
    """
    mounted = _version_2(host)
    within = _below(path, mounted.root)
    if within is None or ".." in within.split("/"):
        return None  # outside the part that is mounted, or of the cgroup namespace
    top = host.path(mounted.point)
    return _directory(top / within.lstrip("/"), top)


def path_of_id(cgroup_id: int, *, host: Host = HERE) -> Path | None:
    """The directory of the cgroup with this id; None when there is none. Looks at every cgroup until it is found."""
    return next((cgroup.path for cgroup in walk(host=host) if cgroup.cgroup_id == cgroup_id), None)


def walk(*, host: Host = HERE) -> Iterator[Cgroup]:
    """Every cgroup of the version 2 hierarchy, parents before their children. Those that vanish meanwhile are left
    out.
    """
    top = mount(host=host)
    found = _directory(top, top)
    waiting = [found] if found else []
    while waiting:
        cgroup = waiting.pop()
        yield cgroup
        try:
            with os.scandir(cgroup.path) as entries:
                waiting += [
                    # scandir's own inode number is another at a mount point
                    Cgroup(entry.stat(follow_symlinks=False).st_ino, Path(entry.path))
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            continue


def is_gone(cgroup: Cgroup) -> bool:
    """Has the cgroup been removed? Also true when another has taken its path."""
    try:
        return cgroup.path.stat().st_ino != cgroup.cgroup_id
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # not known to be gone


def _of_id(text: str, host: Host) -> Cgroup:
    cgroup_id = int(text) if len(text) <= 20 else 0  # 2**64 has 20 digits
    if not 0 < cgroup_id < 1 << 64:
        raise UsageError(f"{text[:24]} is no cgroup id", "ids are positive; a cgroup of that name is written /" + text)
    path = path_of_id(cgroup_id, host=host)
    if path is None:
        raise TargetError(f"no cgroup with id {cgroup_id}", "ids are inode numbers: ls -di " + str(mount(host=host)))
    return Cgroup(cgroup_id, path)


def _directory(path: Path, top: Path) -> Cgroup | None:
    """The cgroup with this directory, if it is one at or below `top`."""
    try:
        real = path.resolve(strict=True)
        seen = real.stat()
    except (OSError, ValueError, RuntimeError):  # not there; not a name; a loop of symlinks
        return None
    if not stat.S_ISDIR(seen.st_mode) or not real.is_relative_to(top.resolve()):
        return None
    return Cgroup(seen.st_ino, real)


def _refuse(text: str, directory: Path | None, host: Host) -> NoReturn:
    """Say why a path is no cgroup of version 2."""
    controllers = []
    for mounted in (m for m in _mounts(host) if m.version == 1):
        top = host.path(mounted.point)
        if _directory(top / text.lstrip("/"), top) or (directory and _directory(directory, top)):
            controllers.append(mounted.controllers)
    if controllers:
        raise TargetError(
            f"{text!r} is in a version 1 hierarchy ({', '.join(controllers)}); FLAK judges by version 2",
            f"{_how_to_list(host)}; or choose the processes with --pid",
        )
    if directory and _is_something_else(directory, mount(host=host)):
        raise TargetError(f"{text!r} is not the directory of a cgroup", _how_to_list(host))
    raise NotThere(f"no cgroup {text!r}", _how_to_list(host))


def _is_something_else(path: Path, top: Path) -> bool:
    """What stands there is no cgroup. A directory of the hierarchy is one, made just after it was looked for."""
    try:
        real = path.resolve()
        return os.path.lexists(path) and (real.is_file() or not real.is_relative_to(top.resolve()))
    except (OSError, ValueError, RuntimeError):
        return True


def _how_to_list(host: Host) -> str:
    return f"list cgroups with: find {mount(host=host)} -type d"


def _below(path: str, top: str) -> str | None:
    """What remains of `path` under `top`; None when it is not under it."""
    if top == "/":
        return path
    return path[len(top) :] if path == top or path.startswith(top + "/") else None


_UNIFY = "boot with systemd.unified_cgroup_hierarchy=1, or choose the processes with --pid"


def _version_2(host: Host) -> _Mount:
    mounts = _mounts(host)
    # One that shows all of the hierarchy is better than one that shows a part.
    for mounted in sorted(mounts, key=lambda m: m.root != "/"):
        if mounted.version == 2:
            return mounted
    if mounts:
        names = ", ".join(m.controllers for m in mounts)
        raise NotSupported(f"this machine has only version 1 cgroup hierarchies ({names})", _UNIFY)
    raise NotSupported(
        "no cgroup hierarchy is mounted here",
        "in a container, start it with -v /sys/fs/cgroup:/sys/fs/cgroup:ro; else: mount -t cgroup2 none /sys/fs/cgroup",
    )


def _mounts(host: Host) -> list[_Mount]:
    """The cgroup mounts of this process, from lines such as
    `41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw`.
    """
    try:
        lines = os.fsdecode(host.path("/proc/self/mountinfo").read_bytes()).split("\n")
    except OSError as error:
        raise NotSupported(f"cannot read /proc/self/mountinfo: {error.strerror}", "mount /proc") from None
    found = []
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if right.startswith(("cgroup ", "cgroup2 ")) and len(fields) > 5:
            kind, *_, options = right.split(" ")
            root, point = map(_unescape, fields[3:5])
            controllers = [o for o in options.split(",") if o not in _FLAGS and not o.startswith("release_agent=")]
            found.append(_Mount(2 if kind == "cgroup2" else 1, root, point, ",".join(controllers)))
    return found


def _unescape(field: str) -> str:
    r"""A field of mountinfo without its escapes: \040 is a blank."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
