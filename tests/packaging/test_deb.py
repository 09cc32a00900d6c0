"""The Debian package: built in a system of its own, installed by apt in another, where it then traces.

Minutes and gigabytes, so only `make test-deb` asks for it. Debian's mirror is the one that this machine's apt uses,
Ubuntu's the one that FLAK_UBUNTU_MIRROR names.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flak.cli.reference import commands

from . import roots
from .roots import Root

SOURCE = Path(__file__).parents[2]
RELEASES = ("trixie", "noble")
"""Debian 13 and Ubuntu 24.04."""
LEFT_OUT = {".git", ".venv", "build", "dist", "_bpf", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache"}
QUIETLY = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"


def why_not() -> str:
    """Why this machine cannot do it, "" when it can."""
    if not os.environ.get("FLAK_TEST_DEB"):
        return "builds systems to try the package in, which takes minutes: make test-deb"
    return roots.why_not()


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module", params=RELEASES)
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A new system with nothing but apt."""
    if reason := roots.why_not(request.param):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp(request.param)
    yield Root.make(folder / "fresh", request.param)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def package(fresh: Root) -> str:
    """`make deb`, where the package's build dependencies are and nothing else; its name in the fresh system's /root."""
    builder = Root(fresh.path.with_name("builder"))
    subprocess.run(["cp", "-a", str(fresh.path), str(builder.path)], check=True)
    shutil.copytree(SOURCE, builder.path / "src", ignore=lambda folder, names: LEFT_OUT & set(names))
    builder.run(f"apt-get update -qq && {QUIETLY} make && cd /src && apt-get build-dep -y -qq ./ && make deb")
    (built,) = (builder.path / "src/dist").glob("*.deb")
    return shutil.copy(built, fresh.path / "root").rpartition("/")[2]


@pytest.fixture(scope="module")
def installed(fresh: Root, package: str) -> Root:
    """The fresh system with the package, installed by apt with what it depends on."""
    fresh.run(f"apt-get update -qq && {QUIETLY} man-db bash-completion /root/{package}")
    return fresh


def test_it_depends_on_the_systems_libbpf(installed: Root) -> None:
    depends = installed.run("dpkg-query -W -f '${Depends}' flak")
    assert "libbpf1 (>= 1:1.0)" in depends
    assert "python3-typer" in depends and "python3-numpy" in depends
    assert not installed.run("find /usr/lib/python3/dist-packages/flak -name '*.so*'")


def test_it_traces_a_command(installed: Root) -> None:
    installed.run("flak record --force -o /root/run.flak -- cat /etc/debian_version")
    events = [json.loads(line) for line in installed.run("flak dump --json /root/run.flak").splitlines()]
    reads = [event for event in events if event["op"] == "read" and event["path"].endswith("/etc/debian_version")]
    assert sum(event["size_ret"] for event in reads) == (installed.path / "etc/debian_version").stat().st_size
    assert events[-1]["op"] == "counters" and not events[-1]["lost"]


def test_it_shows_the_closing_table(installed: Root) -> None:
    assert "etc/debian_version" in installed.run("flak trace -s -o - -- cat /etc/debian_version")


def test_it_finds_the_systems_library_and_can_trace(installed: Root) -> None:
    report = json.loads(installed.run("flak doctor --json"))
    (libbpf,) = (finding["text"] for finding in report["findings"] if finding["concern"] == "libbpf")
    assert report["can_trace"]
    assert "/usr/lib/" in libbpf and "/libbpf.so.1." in libbpf


def test_its_man_pages_and_completion_are_found(installed: Root) -> None:
    for verb in commands():
        assert "SYNOPSIS" in installed.run(f"man {f'flak-{verb}'.rstrip('-')}")
    assert "COUNTERS" in installed.run("man 5 flak-format")
    load = ". /usr/share/bash-completion/bash_completion; _comp_load flak || __load_completion flak; complete -p flak"
    assert "_flak" in installed.run(f"bash -c {shlex.quote(load)}")


def test_it_can_be_removed(installed: Root) -> None:
    installed.run("apt-get purge -y -qq flak && ! command -v flak && ! test -e /usr/lib/python3/dist-packages/flak")


def test_lintian_has_no_complaint(fresh: Root, package: str) -> None:
    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed: apt install lintian")
    check = ["lintian", "--allow-root", "--fail-on", "error,warning", str(fresh.path / "root" / package)]
    done = subprocess.run(check, capture_output=True, text=True)
    if "malformed-deb-archive second (official) member control.tar.zst" in done.stdout:
        pytest.skip("this lintian is Debian's, which does not take packages that are compressed like Ubuntu's (zstd)")
    assert not done.returncode, done.stdout
