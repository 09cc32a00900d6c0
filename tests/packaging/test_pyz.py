"""flak.pyz: one file that traces from anywhere, by nothing but a Python and the library it carries."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest

from tools import build_pyz

SOURCE = Path(__file__).parents[2]
LIBBPF = next((path for path in map(Path, Path("/usr/lib").glob("*-linux-gnu/libbpf.so.1")) if path.exists()), None)
BARE = [sys.executable, "-I", "-S"]
"""A Python without anything installed."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="tracing, and mounting a noexec folder, take root")


def build(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/build_pyz.py", str(out), *arguments], capture_output=True, text=True, cwd=SOURCE
    )


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if LIBBPF is None:
        pytest.skip(f"libbpf1 is not installed where Debian has it ({find_library('bpf')})")
    out = tmp_path_factory.mktemp("pyz") / "flak.pyz"
    done = build(out, str(LIBBPF))
    if "No matching distribution found for" in done.stderr:
        pytest.skip("pip cannot fetch typer: no package index is reached from here")
    assert not done.returncode, done.stderr
    return out


def run(pyz: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BARE, str(pyz), *arguments], capture_output=True, text=True, cwd="/")


def run_noexec(pyz: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it from a folder in which nothing can be executed or mapped to be; the folder vanishes with the command."""
    folder = pyz.with_name("noexec")
    folder.mkdir(exist_ok=True)
    command = shlex.join([*BARE, str(folder / pyz.name), *arguments])
    script = f"mount -t tmpfs -o noexec tmpfs {folder} && cp {pyz} {folder} && cd / && {command}"
    return subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)


def test_it_holds_objects_and_a_library_but_no_compiled_python_and_no_decoration(pyz: Path) -> None:
    names = zipfile.ZipFile(pyz).namelist()
    for machine in ("x86_64", "aarch64"):
        assert f"flak/_bpf/flak.{machine}.bpf.o.xz" in names
    assert f"flak/_lib/libflak-bpf.{os.uname().machine}.so.1" in names
    assert not [name for name in names if name.endswith((".pyc", ".so")) or name.startswith(("rich", "numpy"))]
    assert [name for name in names if name.startswith("typer-") and "licenses/" in name], (
        "what is passed on has its licence"
    )
    assert pyz.stat().st_size < 3 << 20


def test_it_answers_without_anything_installed(pyz: Path) -> None:
    assert run(pyz, "--version").stdout.startswith("flak ")
    assert "--buffer-size" in run(pyz, "trace", "--help").stdout
    done = run(pyz, "trace", "--nonsense")
    assert done.returncode == 2 and "--nonsense" in done.stderr


def test_a_recording_is_printed_without_numpy_and_the_table_says_what_it_lacks(pyz: Path) -> None:
    done = run(pyz, "dump", str(SOURCE / "tests/data/golden.flak"))
    assert not done.returncode
    assert "the table of files needs numpy" in done.stdout
    assert all(
        json.loads(line)
        for line in run(pyz, "dump", "--json", str(SOURCE / "tests/data/golden.flak")).stdout.splitlines()
    )


@needs_root
@pytest.mark.kernel
@pytest.mark.usefixtures("privileged")
def test_it_traces_from_a_folder_without_exec(pyz: Path) -> None:
    done = run_noexec(pyz, "trace", "--json", "-o", "-", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"exec", "openat", "fault", "exit"} <= {event["op"] for event in events}


@needs_root
@pytest.mark.kernel
@pytest.mark.usefixtures("privileged")
def test_it_uses_the_library_it_carries(pyz: Path) -> None:
    report = json.loads(run_noexec(pyz, "doctor", "--json").stdout)
    findings = {finding["concern"]: finding for finding in report["findings"]}
    assert report["can_trace"]
    assert "/memfd:libflak-bpf.so.1" in findings["libbpf"]["text"]
    assert findings["numpy"]["status"] == "warn"
    assert findings["BPF"]["status"] == "ok"


@needs_root
@pytest.mark.kernel
@pytest.mark.usefixtures("privileged")
def test_without_a_library_of_its_own_it_uses_the_hosts(pyz: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.pyz"
    with zipfile.ZipFile(pyz) as full, zipfile.ZipFile(bare, "w") as copy:
        for name in full.namelist():
            if "/_lib/" not in name:
                copy.writestr(name, full.read(name))
    report = json.loads(run(bare, "doctor", "--json").stdout)
    assert next(f for f in report["findings"] if f["concern"] == "libbpf")["text"].endswith(LIBBPF.resolve().name)


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libbpf.so.1").write_bytes(b"\x7fELF\x01")
    done = build(tmp_path / "flak.pyz", str(tmp_path / "libbpf.so.1"))
    assert done.returncode == 1
    assert "is no library for x86_64 or aarch64" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "flak.pyz").exists()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes this another place: its time zone, and the permissions that new files get."""
    before = os.umask(0o022)

    def move() -> None:
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        os.umask(0o077)

    yield move
    os.umask(before)
    monkeypatch.undo()
    time.tzset()


def test_the_one_file_does_not_depend_on_where_it_is_made_nor_on_the_order_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Callable[[], None]
) -> None:
    for name in ("b.py", "a/c.py", "a.py"):
        (tmp_path / "stage" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stage" / name).write_text("x")
    build_pyz.pack(tmp_path / "stage", tmp_path / "one")
    elsewhere()
    for path in (path for path in (tmp_path / "stage").rglob("*") if path.is_file()):
        seconds, text = path.stat().st_mtime, path.read_text()
        path.unlink()
        path.write_text(text)
        os.utime(path, (seconds, seconds))
    found = list(Path.rglob(tmp_path / "stage", "*"))
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: iter(found[::-1]))
    build_pyz.pack(tmp_path / "stage", tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
