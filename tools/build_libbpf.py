"""Makes the libbpf that wheels carry: one file with libelf and zlib inside, for glibc 2.17 and newer.

    sources (Debian's, by digest) ─zig cc─► CACHE/libbpf-VERSION-KEY/{x86_64,aarch64}/libflak-bpf.so.1

The compiler is `ziglang` from PyPI, which brings the headers and stubs of every glibc, so that one machine builds for
both architectures. The sources come through apt, from the Debian archive this machine already uses; apt checks its
signatures and we check the digests below. On a machine without such an archive, put the files that the message names
into CACHE/sources. CACHE is $XDG_CACHE_HOME/flak or ~/.cache/flak; nothing is written into the checkout.

The library has a soname of its own, so that a program which also loads the system's libbpf gets both. It exports what
FLAK calls and nothing else: the linker leaves out the rest, a third of it. The same inputs give the same bytes.

Run as `python -m tools.build_libbpf`; tools/dist.py and tests/packaging/ call `build()` and `tool_python()`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools.debian import Mirror, Unavailable

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flak"
ARCHITECTURES = ("x86_64", "aarch64")
SONAME = "libflak-bpf.so.1"
GLIBC = "2.17"

TOOLS = (
    "ziglang==0.17.1",
    "build==1.6.1",
    "setuptools==84.2.1",
    "wheel==0.48.0",
    "pycparser==3.12",
    "auditwheel==6.8.2",
)
"""What builds the library and the wheels, in a virtual environment of its own."""


class Source(NamedTuple):
    """A tarball of a Debian source package: `suite` is where apt finds this `version`, `folder` what it unpacks to."""

    package: str
    version: str
    suite: str
    file: str
    sha256: str
    folder: str


LIBBPF = "1.5.0"
"""The version that wheels carry, Debian 13's. Others are for the tests."""

LIBBPFS = {
    "1.5.0": Source(
        *("libbpf", "1.5.0-3", "trixie", "libbpf_1.5.0.orig.tar.gz"),
        *("53492aff6dd47e4da04ef5e672d753b9743848bdb38e9d90eafbe190b7983c44", "libbpf-1.5.0"),
    ),
    "1.7.0": Source(
        *("libbpf", "1.7.0-1", "sid", "libbpf_1.7.0.orig.tar.gz"),
        *("7ab5feffbf78557f626f2e3e3204788528394494715a30fc2070fcddc2051b7b", "libbpf-1.7.0"),
    ),
}
ELFUTILS = Source(
    *("elfutils", "0.192-4", "trixie", "elfutils_0.192.orig.tar.bz2"),
    *("616099beae24aba11f9b63d86ca6cc8d566d968b802391334c91df54eab416b4", "elfutils-0.192"),
)
ZLIB = Source(
    *("zlib", "1:1.3.dfsg+really1.3.1-1", "trixie", "zlib_1.3.dfsg+really1.3.1.orig.tar.gz"),
    *("60dd315c07f616887caa029408308a018ace66e3d142726a97db164b3b8f69fb", "zlib-1.3.1"),
)

LICENCES = {
    "libbpf-BSD-2-Clause.txt": (LIBBPFS[LIBBPF], "LICENSE.BSD-2-Clause"),
    "elfutils-LGPL-3.0.txt": (ELFUTILS, "COPYING-LGPLV3"),
    "elfutils-GPL-3.0.txt": (ELFUTILS, "COPYING"),
    "zlib.txt": (ZLIB, "LICENSE"),
}
"""Texts in LICENSES/bundled/, and where in the sources they are from."""

CFLAGS = (
    *("-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections"),
    *("-fno-sanitize=all", "-w", "-D_FILE_OFFSET_BITS=64", "-D_LARGEFILE64_SOURCE", "-DHAVE_UNISTD_H"),
)
LDFLAGS = ("-shared", "-s", f"-Wl,-soname,{SONAME}", "-Wl,--gc-sections", "-Wl,-z,relro,-z,now,-z,defs")

ELFUTILS_CONFIG = """\
#define _GNU_SOURCE 1
#define PACKAGE_NAME "elfutils"
#define HAVE_DECL_MEMRCHR 1
#define HAVE_DECL_RAWMEMCHR 1
#define HAVE_DECL_POWEROF2 1
#define HAVE_DECL_MEMPCPY 1
#define HAVE_DECL_REALLOCARRAY 0
#define HAVE_ERROR_H 1
#define HAVE_ERR_H 1
#define HAVE_MREMAP 1
#define HAVE_VISIBILITY 1
#define USE_LOCKS 1
#include <eu-config.h>
"""
"""What elfutils' configure finds on glibc 2.17, for the part of it that libelf reads; zstd is left out."""


class LibraryError(Exception):
    """What cannot be had or built on this machine, as one message with what to do."""


def build(architecture: str, version: str = LIBBPF) -> Path:
    """The library for one architecture, made unless the cache has it; raises LibraryError."""
    sources = (LIBBPFS[version], ELFUTILS, ZLIB)
    exports = exported_functions()
    recipe = "\n".join([Path(__file__).read_text(), *exports])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    library = CACHE / f"libbpf-{version}-{key}" / architecture / SONAME
    if not library.exists():
        fetch(sources)
        with tempfile.TemporaryDirectory() as scratch:
            for source in sources:
                _unpack(CACHE / "sources" / source.file, Path(scratch))
            if version == LIBBPF:
                _check_licences(Path(scratch))
            made = _compile(Path(scratch), architecture, LIBBPFS[version].folder, exports)
            library.parent.mkdir(parents=True, exist_ok=True)
            # Under its name only when it is whole: whoever is killed half-way leaves nothing that looks like one.
            shutil.copyfile(made, library.with_suffix(".part"))
            library.with_suffix(".part").rename(library)
    return library


def exported_functions() -> list[str]:
    """The functions of libbpf that FLAK calls, by name."""
    sys.path.insert(0, str(ROOT / "src"))
    from flak import _libbpf

    versions = ["libbpf_major_version", "libbpf_minor_version", "libbpf_version_string"]
    return sorted({*_libbpf._PROTOTYPES, *versions})


# --- tools and sources ------------------------------------------------------------------------------------------


def tool_python() -> Path:
    """The interpreter of the virtual environment that has TOOLS, made unless the cache has it."""
    key = hashlib.sha256("\n".join([sys.version, *TOOLS]).encode()).hexdigest()[:16]
    folder = CACHE / f"tools-{key}"
    python, stamp = folder / "bin/python", folder / "complete"
    if not stamp.exists():
        venv.create(folder, clear=True, with_pip=True)
        _run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *TOOLS])
        stamp.touch()
    return python


def fetch(sources: Iterable[Source]) -> None:
    """Bring tarballs into CACHE/sources, each with its digest checked; nothing is done where they are there."""
    folder = CACHE / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [source for source in sources if not (folder / source.file).exists()]
    if missing:
        _download(missing, folder)
    for source in sources:
        found = hashlib.sha256((folder / source.file).read_bytes()).hexdigest()
        if found != source.sha256:
            raise LibraryError(f"{folder / source.file} has the digest {found}, not {source.sha256}: remove it")


def _download(sources: Sequence[Source], folder: Path) -> None:
    """Have apt fetch tarballs, with lists and settings of its own: those of the machine stay as they are."""
    by_hand = f"put {', '.join(source.file for source in sources)} into {folder} by hand"
    try:
        mirror = Mirror.of_host()
    except Unavailable as error:
        raise LibraryError(f"{error} (`apt-get update` may help); else {by_hand}") from None
    with tempfile.TemporaryDirectory() as scratch:
        suites = sorted({source.suite for source in sources})
        lines = [mirror.source(suite, "deb-src") + "\n" for suite in suites]
        Path(scratch, "sources.list").write_text("".join(lines))
        for name in ("lists/partial", "cache/archives/partial"):
            Path(scratch, name).mkdir(parents=True)
        settings = {
            "Dir::Etc::SourceList": f"{scratch}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": f"{scratch}/lists",
            "Dir::State::Status": "/dev/null",
            "Dir::Cache": f"{scratch}/cache",
            "APT::Sandbox::User": "",  # _apt may not look into our folder
        }
        apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
        packages = [f"{source.package}={source.version}" for source in sources]
        try:
            _run([*apt, "update"])
            _run([*apt, "source", "--download-only", "--tar-only", *packages], folder)
        except LibraryError as error:
            raise LibraryError(f"apt cannot fetch {', '.join(packages)}; {by_hand}\n{error}") from None


def _unpack(tarball: Path, folder: Path) -> None:
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")


def _check_licences(folder: Path) -> None:
    """The texts we ship are those of the sources."""
    for name, (source, path) in LICENCES.items():
        if (ROOT / "LICENSES/bundled" / name).read_bytes() != (folder / source.folder / path).read_bytes():
            raise LibraryError(f"LICENSES/bundled/{name} is not {path} of {source.file}")


# --- the library ------------------------------------------------------------------------------------------------


def _compile(work: Path, architecture: str, libbpf: str, exports: Sequence[str]) -> Path:
    """Compile what lies unpacked in `work`; all paths are relative to it, so that none gets into the library."""
    elfutils, zlib = ELFUTILS.folder, ZLIB.folder
    (work / "config.h").write_text(ELFUTILS_CONFIG)
    (work / "exports.map").write_text("{ global: " + "".join(f"{name}; " for name in exports) + "local: *; };\n")
    makefile = (work / elfutils / "libelf/Makefile.am").read_text()
    listed = re.search(r"^libelf_a_SOURCES = (.*?[^\\])$", makefile, flags=re.MULTILINE | re.DOTALL)
    if not listed:
        raise LibraryError(f"{elfutils}/libelf/Makefile.am does not list libelf_a_SOURCES")
    libelf = [f"{elfutils}/libelf/{name}" for name in re.findall(r"\w+\.c", listed[1])]
    parts = (
        (_sources(work, zlib), [zlib]),
        (_sources(work, f"{libbpf}/src"), [f"{libbpf}/src", f"{libbpf}/include", f"{libbpf}/include/uapi"]),
        ([*libelf, *(f"{elfutils}/lib/{name}.c" for name in ("next_prime", "eu-search"))], [".", f"{elfutils}/lib"]),
    )
    compiler = [str(tool_python()), "-m", "ziglang", "cc", "-target", f"{architecture}-linux-gnu.{GLIBC}"]
    commands, objects = [], []
    for sources, folders in parts:
        includes = [f"-I{folder}" for folder in (*folders, f"{elfutils}/libelf", zlib)]
        if "." in folders:
            includes.append("-DHAVE_CONFIG_H")
        for source in sources:
            objects.append(source.replace("/", "-") + ".o")
            commands.append([*compiler, *CFLAGS, *includes, "-c", source, "-o", objects[-1]])
    _run(commands[0], work)  # alone, for it builds the parts of glibc that the others share
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda command: _run(command, work), commands[1:]))
    _run([*compiler, *LDFLAGS, "-Wl,--version-script=exports.map", *objects, "-o", SONAME], work)
    return work / SONAME


def _sources(work: Path, folder: str) -> list[str]:
    return sorted(str(path.relative_to(work)) for path in (work / folder).glob("*.c"))


def _run(command: Sequence[str | Path], folder: Path = ROOT) -> str:
    """What a tool prints; raises LibraryError with its last lines."""
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(CACHE / "zig"), "ZIG_LOCAL_CACHE_DIR": str(CACHE / "zig")}
    try:
        done = subprocess.run(command, cwd=folder, env=os.environ | caches, capture_output=True, text=True)
    except FileNotFoundError:
        raise LibraryError(f"{command[0]} is not installed") from None
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-10:])
        raise LibraryError(f"{' '.join(map(str, command[:6]))} …: failed\n{last}")
    return done.stdout


def main() -> int:
    """The command line; prints where the libraries are, or one message and status 1."""
    parser = argparse.ArgumentParser(description="Build the libbpf that FLAK's wheels carry.")
    parser.add_argument("--arch", choices=ARCHITECTURES, action="append", help="an architecture (default: both)")
    parser.add_argument("--libbpf", choices=LIBBPFS, default=LIBBPF, help="its version (%(default)s)")
    options = parser.parse_args()
    try:
        for architecture in options.arch or ARCHITECTURES:
            print(build(architecture, options.libbpf))
    except LibraryError as error:
        print(f"build_libbpf.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
