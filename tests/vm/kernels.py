"""The kernels of the matrix: found among Debian's "cloud" packages, whose names change with each update; unpacked."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.debian import Unavailable

from .debian import Archive

NEWEST = "newest"

WANTED = {
    "amd64": ("5.10", "6.1", "6.12", "6.18", NEWEST),
    "arm64": ("6.1", "6.12", NEWEST),
}
"""Series by Debian's name of the architecture. Where one cannot be had the nearest that can takes its place."""

MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "crc32c_cryptoapi", "overlay", "fuse")
"""What a guest needs to find its disks, and file systems that tests mount; some kernels have them built in."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted. modules: files in the order in which they are to be loaded."""

    wanted: str
    release: str
    image: Path
    modules: tuple[Path, ...]

    @property
    def series(self) -> str:
        """What it is called in the table: 6.12."""
        return ".".join(self.release.split(".")[:2])


def find(archive: Archive) -> list[Kernel | Unavailable]:
    """The kernels of the matrix for an archive's architecture, in order; for each that there is none of, the reason."""
    names = [
        line.split()[0] for line in archive.names(r"^linux-(image|binary)-[0-9].*-cloud-" + archive.architecture + "$")
    ]
    found: list[Kernel | Unavailable] = []
    taken: set[str] = set()
    for wanted in WANTED[archive.architecture]:
        candidates = [name for name in _candidates(names, wanted) if name not in taken]
        reason = Unavailable(f"linux {wanted} ({archive.architecture}): the mirror has no such kernel")
        for name in candidates[:3]:
            try:
                kernel = _unpack(archive, wanted, name)
            except Unavailable as error:
                reason = error
                continue
            taken.add(name)
            found.append(kernel)
            break
        else:
            found.append(reason)
    return found


def _version(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name.split("-cloud-")[0])))


def _candidates(names: Iterable[str], wanted: str) -> Sequence[str]:
    """Packages to try: the newest of the series first, then those of the nearest series."""
    if wanted == NEWEST:
        return sorted(names, key=_version, reverse=True)
    series = tuple(map(int, wanted.split(".")))

    def distance(name: str) -> tuple[int, tuple[int, ...]]:
        major, minor, *rest = _version(name)
        away = abs((major - series[0]) * 20 + minor - series[1])
        return away, tuple(-number for number in rest)

    return sorted(names, key=distance)


def _unpack(archive: Archive, wanted: str, name: str) -> Kernel:
    release = re.sub(r"^linux-(image|binary)-", "", name)
    folders = [archive.unpack(name)]
    if name.startswith("linux-binary-"):  # from 6.19 on the modules are a package of their own
        folders.append(archive.unpack(f"linux-modules-{release}"))
    images = [path for folder in folders for path in folder.rglob("vmlinuz*") if path.is_file()]
    if not images:
        raise Unavailable(f"{name}: no vmlinuz in it")
    files = {_module_name(path): path for folder in folders for path in folder.rglob("*.ko*")}
    return Kernel(wanted, release, images[0], tuple(_in_order(files, MODULES)))


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _in_order(files: dict[str, Path], names: Iterable[str]) -> list[Path]:
    """Files of modules, each behind those that it needs; what is no module is built in."""
    order: list[Path] = []
    for name in names:
        path = files.get(name)
        if path is None or path in order:
            continue
        needed = re.search(rb"\0depends=([^\0]*)\0", b"\0" + module_bytes(path))
        needs = needed[1].decode().replace("-", "_").split(",") if needed else []
        order += [other for other in _in_order(files, filter(None, needs)) if other not in order]
        order.append(path)
    return order


def module_bytes(path: Path) -> bytes:
    """A module as insmod wants it."""
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
