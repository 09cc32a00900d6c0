"""Makes FLAK one file that hosts without a package manager can run: `python tools/build_pyz.py OUT [LIBBPF ...]`.

In it are FLAK, its BPF objects and typer; numpy, which only the table needs, cannot be loaded from an archive and is
the host's if it has one. Each LIBBPF is a shared library, for its own architecture; without any the host's is used.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("flak: needs Python 3.11 or newer; this is " + sys.version.split()[0])
from flak.cli import main

sys.exit(main())
"""
LEFT_OUT = ("numpy",)
UNUSED = ("rich", "pygments", "markdown_it", "mdurl", "bin")
"""What typer brings along for decorations that FLAK turns off, ten times as much as all the rest."""
MACHINES = {62: "x86_64", 183: "aarch64"}
"""e_machine → platform.machine()."""


def machine_of(library: Path) -> str:
    """The architecture of a shared library. ValueError when it is none, or not one of FLAK's."""
    head = library.read_bytes()[:20]
    if head[:6] != b"\x7fELF\x02\x01" or (number := struct.unpack_from("<H", head, 18)[0]) not in MACHINES:
        raise ValueError(f"{library} is no library for {' or '.join(MACHINES.values())}")
    return MACHINES[number]


def fill(stage: Path, source: Path, libraries: list[Path]) -> None:
    """Put into an empty folder all that the archive will have; `source` is a wheel or a source tree."""
    _install(stage, "--no-deps", str(source))
    (flak,) = metadata.distributions(name="flak-tracer", path=[str(stage)])
    _install(stage, *(need for need in flak.requires or () if not need.startswith(LEFT_OUT)))
    for path in [found for name in UNUSED for found in stage.glob(f"{name}*")]:
        shutil.rmtree(path)  # the *.dist-info of what stays has its licence
    for note in [*stage.glob("*.dist-info/direct_url.json"), *stage.glob("*.dist-info/RECORD")]:
        note.unlink()  # where it was made, and of what
    own = stage / "flak/_lib/libflak-bpf.so.1"  # in wheels
    for library in [*libraries, *([own] if own.exists() else [])]:
        place = own.with_name(f"libflak-bpf.{machine_of(library)}.so.1")
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(library, place)
    own.unlink(missing_ok=True)
    compiled = [*stage.rglob("*.so")]
    if compiled:
        raise ValueError(f"cannot be loaded from an archive: {', '.join(map(str, compiled))}")
    (stage / "__main__.py").write_text(MAIN)
    for path in stage.rglob("*"):
        os.utime(path, (_moment(), _moment()))  # the archive made twice is the same


def pack(stage: Path, out: Path) -> None:
    """What `zipapp` does, but the same files are the same bytes: their order, which it has from the file system before
    Python 3.12, does not matter, nor do the time zone and the permissions that new files have here.
    """
    with out.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in stage.rglob("*") if path.is_file()):
                moment = time.gmtime(path.stat().st_mtime)[:6]
                member = zipfile.ZipInfo(path.relative_to(stage).as_posix(), moment)
                member.external_attr = 0o100644 << 16
                archive.writestr(member, path.read_bytes(), zipfile.ZIP_DEFLATED)


def _install(stage: Path, *what: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, "--upgrade", "--target", str(stage), *what], check=True)


def _moment() -> int:
    return int(os.environ.get("SOURCE_DATE_EPOCH") or 315619200)  # the first that a zip can say, whatever the zone


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make flak.pyz, FLAK in one file.")
    parser.add_argument("--source", type=Path, default=ROOT, help="wheel or source tree of FLAK (this one)")
    parser.add_argument("out", type=Path)
    parser.add_argument("libbpf", type=Path, nargs="*", help="libbpf.so.1, one for each architecture")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for library in given.libbpf:
                machine_of(library)  # before pip takes its time
            fill(Path(folder), given.source, given.libbpf)
        except ValueError as error:
            sys.exit(f"build_pyz.py: {error}")
        given.out.parent.mkdir(parents=True, exist_ok=True)
        pack(Path(folder), given.out)
        given.out.chmod(0o755)


if __name__ == "__main__":
    main()
