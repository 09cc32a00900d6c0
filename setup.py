"""Compiles the BPF objects before anything that packs or installs them; all the rest is in pyproject.toml. A wheel has
them packed by xz, which takes a third less room than zip's own way: flak.bpf unpacks the one it loads.

Where $FLAK_BUNDLE_LIBBPF names a library made by tools/build_libbpf.py, the wheel carries it and is for its machine;
otherwise the wheel is for any machine and FLAK uses the system's libbpf.
"""

import lzma
import os
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

sys.path.insert(0, str(Path(__file__).resolve().parent))  # isolated builds leave it out

import build_bpf

XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 20}]
"""A dictionary as large as an object: who unpacks it needs the memory of the whole of it."""
MACHINES = {62: "x86_64", 183: "aarch64"}  # by e_machine of an ELF file
BUNDLE = Path(os.environ["FLAK_BUNDLE_LIBBPF"]) if os.environ.get("FLAK_BUNDLE_LIBBPF") else None


def build_objects() -> None:
    """Compile where that is needed; say why it cannot be done in one message instead of a traceback."""
    try:
        build_bpf.build()
    except build_bpf.BuildError as error:
        raise SystemExit(f"error: {error}") from None


class BuildPy(build_py):
    """For wheels and for editable installs; these use the system's libbpf."""

    def run(self) -> None:
        build_objects()
        super().run()
        if self.editable_mode:
            return
        for image in sorted(Path(self.build_lib, "flak/_bpf").glob("*.bpf.o")):
            packed = image.with_name(f"{image.name}.xz")
            packed.write_bytes(lzma.compress(image.read_bytes(), filters=XZ))
            packed.chmod(0o644)  # whatever new files get here: wheels keep it
            image.unlink()
        if BUNDLE:
            target = Path(self.build_lib, "flak/_lib")
            target.mkdir(exist_ok=True)
            shutil.copyfile(BUNDLE, target / BUNDLE.name)


class Sdist(sdist):
    """An sdist carries the objects, so that it installs where there is no clang."""

    def run(self) -> None:
        build_objects()
        super().run()


class BundlingWheel(bdist_wheel):
    """A wheel for every Python 3 of one machine: the library is loaded by ctypes and knows nothing of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        machine = int.from_bytes(BUNDLE.read_bytes()[18:20], "little")
        return "py3", "none", f"manylinux2014_{MACHINES[machine]}"


class BundlingDistribution(Distribution):
    """Belongs into platlib: what has a shared library in purelib is refused by auditwheel."""

    def has_ext_modules(self) -> bool:
        return True


arguments = {
    # Not in pyproject.toml: older setuptools know no SPDX expression there, newer ones want nothing else.
    "license": "BSD-2-Clause AND (BSD-2-Clause OR GPL-2.0-only)",  # the second half is bpf/
    "license_files": ["LICENSE", "LICENSES/*.txt"],
    "cmdclass": {"build_py": BuildPy, "sdist": Sdist},
}
if BUNDLE:
    arguments["license"] += " AND (LGPL-3.0-or-later OR GPL-2.0-or-later) AND Zlib"  # libelf, zlib; libbpf is BSD
    arguments["license_files"].append("LICENSES/bundled/*.txt")
    arguments["cmdclass"]["bdist_wheel"] = BundlingWheel
    arguments["distclass"] = BundlingDistribution
setup(**arguments)
