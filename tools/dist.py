"""Makes what is published, in dist/: an sdist, from it a wheel for each architecture, and one file for both.

    checkout ─► flak_tracer-V.tar.gz ─┬─► flak_tracer-V-py3-none-manylinux2014_x86_64.whl ──┬─► flak.pyz
    build_libbpf.py ─► libflak-bpf ───┴─► flak_tracer-V-py3-none-manylinux2014_aarch64.whl ─┘

`make dist` runs it. A wheel that breaks a promise of docs/packaging.md is named and the status is 1; what each promise
is stands in `check_wheel()`. The tools are those that build_libbpf.py pins, and readelf.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from build_bpf import VARIANTS
from tools import build_libbpf
from tools.build_libbpf import ARCHITECTURES, GLIBC, ROOT, SONAME, LibraryError

LARGEST = 1_000_000
"""Bytes that a wheel may have."""

NEEDED = {"libc.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
"""What every glibc brings, and nothing else may be asked for."""

OWN_PATH = re.compile(rb"(?<![\w.-])/(?:home|root|tmp|work|build)/[\w./-]+")
"""A path of the machine that something was made on."""

LICENCES = {"LICENSE", "LICENSES/BSD-2-Clause.txt", "LICENSES/GPL-2.0-only.txt"}
LICENCES |= {f"LICENSES/bundled/{name}" for name in build_libbpf.LICENCES}


def make_sdist(output: Path, root: Path = ROOT) -> Path:
    """An sdist of the tree under `root`, in `output`."""
    sdist = _build(root, output, ["--sdist"], {})
    _forget_maker(sdist)
    return sdist


def _forget_maker(sdist: Path) -> None:
    """Take out of an sdist who packed it, when, and in which order: two of the same files are the same bytes."""
    with tarfile.open(sdist) as archive:
        files = [(member, archive.extractfile(member)) for member in archive if member.isfile()]
        contents = {member.name: (member.mode, file.read()) for member, file in files if file}
    moment = int(os.environ.get("SOURCE_DATE_EPOCH") or _epoch())
    with (
        sdist.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=moment) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, (mode, content) in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), moment, 0o755 if mode & 0o100 else 0o644
            archive.addfile(member, io.BytesIO(content))


def make_wheel(tree: Path, output: Path, library: Path | None) -> Path:
    """A wheel of an unpacked sdist or a checkout, in `output`; without a library it is for any machine."""
    return _build(tree, output, ["--wheel"], {"FLAK_BUNDLE_LIBBPF": str(library or "")})


def _build(tree: Path, output: Path, what: Sequence[str], environment: Mapping[str, str]) -> Path:
    """Run `python -m build`; the one file that it adds to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    command = [str(build_libbpf.tool_python()), "-m", "build", "--no-isolation", *what, str(tree), "-o"]
    environment = {"SOURCE_DATE_EPOCH": _epoch(), **os.environ, **environment}
    with tempfile.TemporaryDirectory(dir=output) as made:
        done = subprocess.run([*command, made], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise LibraryError("\n".join((done.stdout + done.stderr).splitlines()[-15:]))
        (file,) = Path(made).iterdir()
        return file.rename(output / file.name)


def _epoch() -> str:
    """The time that files in a wheel bear: that of the last commit, so that two builds give the same bytes."""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "315532800"  # 1980: zip files know nothing older


def unpack(sdist: Path, folder: Path) -> Path:
    """The tree that an sdist holds, below `folder`."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


# --- checks -----------------------------------------------------------------------------------------------------


def check_wheel(wheel: Path, architecture: str) -> Iterator[str]:
    """What is wrong with a wheel, in words; nothing where all is well."""
    if not wheel.name.endswith(f"-py3-none-manylinux2014_{architecture}.whl"):
        yield "it is not tagged for every Python 3 of its machine"
    if wheel.stat().st_size > LARGEST:
        yield f"{wheel.stat().st_size:,} bytes are more than {LARGEST:,}"
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = set(archive.namelist())
        objects = {f"flak/_bpf/flak.{arch}{kind}.bpf.o.xz" for arch, kind in product(ARCHITECTURES, VARIANTS)}
        yield from (f"{name} is missing" for name in sorted({*objects, f"flak/_lib/{SONAME}"} - names))
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        licences = {f"{info}/licenses/{name}" for name in LICENCES}
        yield from (f"{name} is missing" for name in sorted(licences - names))
        for name in sorted(name for name in names if name.endswith((".o.xz", ".so.1"))):
            binary = archive.read(name)
            for path in sorted(set(OWN_PATH.findall(lzma.decompress(binary) if name.endswith(".xz") else binary))):
                yield f"{name} has a path of the machine it was made on: {path.decode()}"
        if f"flak/_lib/{SONAME}" in names:
            yield from check_library(Path(archive.extract(f"flak/_lib/{SONAME}", folder)), architecture)
    audit = _output([build_libbpf.tool_python(), "-m", "auditwheel", "show", wheel])
    if f'"manylinux_2_17_{architecture}"' not in " ".join(audit.split()):
        yield f"auditwheel does not find it fit for glibc {GLIBC}:\n{audit}"


def check_library(library: Path, architecture: str) -> Iterator[str]:
    """What is wrong with a bundled library, in words."""
    header, dynamic = _output(["readelf", "-hW", library]), _output(["readelf", "-dW", library])
    machine = {"x86_64": "X86-64", "aarch64": "AArch64"}[architecture]
    if not re.search(rf"Machine:.*{machine}", header):
        yield f"it is not for {architecture}"
    sonames, needed = re.findall(r"soname: \[(.*)\]", dynamic), set(re.findall(r"library: \[(.*)\]", dynamic))
    if sonames != [SONAME]:
        yield f"its soname is {', '.join(sonames) or 'not set'}, not {SONAME}"
    if needed - NEEDED:
        yield f"it needs {', '.join(sorted(needed - NEEDED))}"
    if "RPATH" in dynamic or "RUNPATH" in dynamic:
        yield "it says where to look for libraries"
    newest = newest_glibc(library)
    if newest > _numbers(GLIBC):
        yield f"it needs glibc {'.'.join(map(str, newest))}, newer than {GLIBC}"


def newest_glibc(library: Path) -> tuple[int, ...]:
    """The highest version of glibc's symbols that a library asks for."""
    return max(map(_numbers, re.findall(r"GLIBC_([\d.]+)", _output(["readelf", "-VW", library]))))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _output(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    return done.stdout + done.stderr


def make_dist(output: Path) -> Iterator[str]:
    """Fill a folder and print what is in it; yields what is wrong. Whatever was in the folder is removed."""
    libraries = {architecture: build_libbpf.build(architecture) for architecture in ARCHITECTURES}
    shutil.rmtree(output, ignore_errors=True)
    sdist = make_sdist(output)
    print(f"{sdist.stat().st_size:9,}  {sdist.name}")
    wheels = {}
    for architecture, library in libraries.items():
        with tempfile.TemporaryDirectory() as scratch:
            wheel = wheels[architecture] = make_wheel(unpack(sdist, Path(scratch)), output, library)
        glibc = ".".join(map(str, newest_glibc(library)))
        size = f"{library.stat().st_size:,}"
        print(f"{wheel.stat().st_size:9,}  {wheel.name}  (libbpf {size} bytes, glibc >= {glibc})")
        yield from (f"{wheel.name}: {problem}" for problem in check_wheel(wheel, architecture))
    pyz = make_pyz(wheels, libraries, output)
    print(f"{pyz.stat().st_size:9,}  {pyz.name}")


def make_pyz(wheels: Mapping[str, Path], libraries: Mapping[str, Path], output: Path) -> Path:
    """flak.pyz in `output`, with the library of every architecture."""
    here = platform.machine()  # pip installs no wheel of another machine
    others = [library for architecture, library in libraries.items() if architecture != here]
    pyz = output / "flak.pyz"
    tool = [
        sys.executable,
        str(ROOT / "tools/build_pyz.py"),
        "--source",
        str(wheels[here]),
        str(pyz),
        *map(str, others),
    ]
    done = subprocess.run(tool, env={"SOURCE_DATE_EPOCH": _epoch(), **os.environ}, capture_output=True, text=True)
    if done.returncode:
        raise LibraryError("\n".join((done.stdout + done.stderr).splitlines()[-5:]))
    return pyz


def main() -> int:
    """The command line."""
    try:
        problems = list(make_dist(ROOT / "dist"))
    except LibraryError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"dist.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
