"""What is published: made twice the same, and working where there is no network, no compiler and no libbpf.

Minutes, a gigabyte and a package index, so only `make test-dist` asks for it.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import build_libbpf, dist

from . import roots
from .roots import Root

SOURCE = Path(__file__).parents[2]
HERE = os.uname().machine
RELEASES = ("bookworm", "trixie", "sid")
"""Debian's, for the versions of Python that they bring: 3.11, 3.13 and the newest."""

CORE = ("test_reads.py", "test_maps.py", "test_attach.py", "test_processes.py", "test_accounting.py")
"""Kernel tests that load, attach, set variables, iterate and drain: all that libbpf is used for."""

CHOOSE_AS_ROOT = "import sys, pytest; from flak import _libbpf; _libbpf._may_choose = lambda: True; "

pytestmark = pytest.mark.skipif(
    not os.environ.get("FLAK_TEST_DIST"), reason="builds wheels and Debian systems, which takes minutes: make test-dist"
)
needs_roots = pytest.mark.skipif(bool(roots.why_not()), reason=roots.why_not())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make dist` fills it."""
    output = tmp_path_factory.mktemp("dist") / "dist"
    assert list(dist.make_dist(output)) == []
    return output


def wheel_of(published: Path, machine: str) -> Path:
    (wheel,) = published.glob(f"*_{machine}.whl")
    return wheel


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_made_again_elsewhere_everything_is_the_same(published: Path, tmp_path: Path) -> None:
    (sdist,) = published.glob("*.tar.gz")
    for machine in build_libbpf.ARCHITECTURES:
        tree = dist.unpack(sdist, tmp_path / machine)
        for made in tree.glob("src/flak/_bpf/*.o"):
            made.unlink()  # so that they are compiled here
        dist.make_wheel(tree, tmp_path / "again", build_libbpf.build(machine))
        assert (tree / "src/flak/_bpf/manifest.json").read_bytes() == (
            SOURCE / "src/flak/_bpf/manifest.json"
        ).read_bytes()
    again = digests(tmp_path / "again")
    assert len(again) == 2
    assert again == {name: digest for name, digest in digests(published).items() if name.endswith(".whl")}


def test_the_sdist_and_the_one_file_made_again_elsewhere_are_the_same(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = shutil.ignore_patterns(".*_cache", ".git", ".venv", ".hypothesis", "__pycache__", "build", "dist")
    tree = shutil.copytree(SOURCE, tmp_path / "tree", ignore=left_out, copy_function=shutil.copy)  # of now
    again = dist.make_sdist(tmp_path / "again", tree)
    assert digests(tmp_path / "again")[again.name] == digests(published)[again.name]
    with tarfile.open(again) as archive:
        assert {(member.uname, member.uid) for member in archive} == {("", 0)}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    libraries = {machine: build_libbpf.build(machine) for machine in build_libbpf.ARCHITECTURES}
    wheels = {machine: wheel_of(published, machine) for machine in libraries}
    assert dist.make_pyz(wheels, libraries, tmp_path).read_bytes() == (published / "flak.pyz").read_bytes()


def test_a_broken_wheel_is_named(published: Path, tmp_path: Path) -> None:
    broken = tmp_path / wheel_of(published, "x86_64").name
    with zipfile.ZipFile(wheel_of(published, "x86_64")) as whole, zipfile.ZipFile(broken, "w") as rest:
        for name in whole.namelist():
            if not name.endswith(("elfutils-LGPL-3.0.txt", "aarch64.bpf.o.xz")):
                content = whole.read(name)
                if name.endswith(".o.xz"):
                    content = lzma.compress(lzma.decompress(content) + b"/home/someone/flak.c", preset=0)
                rest.writestr(name, content)
    problems = "\n".join(dist.check_wheel(broken, "x86_64"))
    for complaint in (
        "elfutils-LGPL-3.0.txt is missing",
        "flak.aarch64.bpf.o.xz is missing",
        "/home/someone",
        "more than",
    ):
        assert complaint in problems
    assert list(dist.check_wheel(wheel_of(published, "aarch64"), "x86_64"))


def test_the_sdist_is_installed_without_clang(published: Path, tmp_path: Path) -> None:
    (sdist,) = published.glob("*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "--wheel-dir", str(tmp_path)]
    command = [str(build_libbpf.tool_python()), "-m", "pip", "wheel", *options, str(sdist)]
    done = subprocess.run(command, env={"PATH": "/nonexistent", "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    (wheel,) = tmp_path.glob("*-none-any.whl")
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(wheel_of(published, HERE)) as theirs:
        objects = [name for name in ours.namelist() if name.endswith(".o.xz")]
        assert len(objects) == 6
        assert all(ours.read(name) == theirs.read(name) for name in objects)


@pytest.mark.kernel
@pytest.mark.parametrize("version", ["system", *build_libbpf.LIBBPFS])
def test_every_libbpf_passes_the_kernel_tests(version: str) -> None:
    """The versions that systems have, and the one that wheels carry (build_libbpf.LIBBPF)."""
    library = "libbpf.so.1" if version == "system" else str(build_libbpf.build(HERE, version))
    tests = [f"tests/kernel/{name}" for name in CORE]
    program = CHOOSE_AS_ROOT + f"print(_libbpf.load()); sys.exit(pytest.main(['-q', *{tests!r}]))"
    environment = {**os.environ, "FLAK_LIBBPF": library, "PYTHONPATH": f"{SOURCE}/src:{SOURCE}"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=SOURCE, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and library in done.stdout


# --- systems without network, compiler, headers and libbpf ------------------------------------------------------


@pytest.fixture(scope="module", params=RELEASES)
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, published: Path) -> Iterator[Root]:
    """A system with a Python, and in /wheelhouse FLAK's wheel and what it depends on."""
    folder = tmp_path_factory.mktemp(request.param)
    root = Root.make(folder / "root", request.param, ["python3", "python3-venv"])
    version = root.run("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").strip()
    house = root.path / "wheelhouse"
    platforms = [f"--platform=manylinux{tag}_{HERE}" for tag in ("2014", "_2_17", "_2_27", "_2_28")]
    download = ["download", "-q", "-d", str(house), "--only-binary=:all:", f"--python-version={version}", *platforms]
    subprocess.run([sys.executable, "-m", "pip", *download, str(wheel_of(published, HERE))], check=True)
    shutil.copy(published / "flak.pyz", house)
    yield root
    shutil.rmtree(folder)


@needs_roots
@pytest.mark.kernel
def test_it_installs_and_traces_offline(bare: Root) -> None:
    assert not bare.run("for tool in clang gcc cc ld bpftool; do command -v $tool; done; true")
    assert not bare.run("ls -d /usr/include/linux /lib/modules /usr/src/linux-headers* 2>/dev/null; true")
    assert not bare.run("find / -xdev -name 'libbpf*' -o -xdev -name 'libelf*' | grep -v wheelhouse || true")
    interfaces = bare.run("cat /proc/net/dev", offline=True).splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    install = "/flak/bin/pip install -q --no-index --find-links /wheelhouse flak-tracer"
    bare.run(f"python3 -m venv /flak && {install}", offline=True)
    report = json.loads(bare.run("/flak/bin/flak doctor --json", offline=True))
    (libbpf,) = (finding["text"] for finding in report["findings"] if finding["concern"] == "libbpf")
    assert report["can_trace"] and libbpf.endswith("/flak/_lib/libflak-bpf.so.1")
    assert libbpf.startswith(f"{build_libbpf.LIBBPF.rpartition('.')[0]}, ")
    bare.run("/flak/bin/flak record --force -o /run.flak -- cat /etc/debian_version", offline=True)
    check_recording(bare, bare.run("/flak/bin/flak dump --json /run.flak", offline=True))
    assert "debian_version" in bare.run("/flak/bin/flak trace -s -o - -- cat /etc/debian_version", offline=True)


@needs_roots
@pytest.mark.kernel
def test_the_one_file_traces_offline_with_nothing_installed(bare: Root) -> None:
    flak = "python3 -I -S /wheelhouse/flak.pyz"
    bare.run(f"{flak} record --force -o /pyz.flak -- cat /etc/debian_version", offline=True)
    check_recording(bare, bare.run(f"{flak} dump --json /pyz.flak", offline=True))
    assert "memfd:libflak-bpf.so.1" in bare.run(f"{flak} doctor --json", offline=True)


def check_recording(root: Root, lines: str) -> None:
    """It is that of `cat /etc/debian_version`: every byte of it, and nothing lost."""
    events = [json.loads(line) for line in lines.splitlines()]
    reads = [event for event in events if event["op"] == "read" and event["path"].endswith("/etc/debian_version")]
    assert sum(event["size_ret"] for event in reads) == (root.path / "etc/debian_version").stat().st_size
    assert events[-1]["op"] == "counters" and not events[-1]["lost"]
