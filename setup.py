"""Compiles the BPF objects before anything that packs or installs them; all the rest is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

sys.path.insert(0, str(Path(__file__).resolve().parent))  # isolated builds leave it out

import build_bpf


def build_objects() -> None:
    """Compile where that is needed; say why it cannot be done in one message instead of a traceback."""
    try:
        build_bpf.build()
    except build_bpf.BuildError as error:
        raise SystemExit(f"error: {error}") from None


class BuildPy(build_py):
    """For wheels and for editable installs."""

    def run(self) -> None:
        build_objects()
        super().run()


class Sdist(sdist):
    """An sdist carries the objects, so that it installs where there is no clang."""

    def run(self) -> None:
        build_objects()
        super().run()


setup(
    # Not in pyproject.toml: older setuptools know no SPDX expression there, newer ones want nothing else.
    license="BSD-2-Clause AND (BSD-2-Clause OR GPL-2.0-only)",  # the second half is bpf/
    license_files=["LICENSE", "LICENSES/*.txt"],
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
)
