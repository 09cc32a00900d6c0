"""`--redact`: a program uses a name in every way there is, and no output of FLAK has it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import Access, Exec, Open, Read, Rename, Write

from .running import flak_environment, trace_command

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

NAME = "quuxsecret"
WORKLOAD = f"""
import mmap, os, sys
name = "{NAME}"
os.chdir(sys.argv[1])
os.mkdir(name + "-dir")
for path in (name + "-dir/one", name + "-dir/two"):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"abc" * 100, 0)
    for i in range(7):
        os.pread(fd, 9, i)
    mmap.mmap(fd, 0)[3]
    os.close(fd)
folder = os.open(name + "-dir", os.O_RDONLY)
os.close(os.open("one", os.O_RDONLY, dir_fd=folder))
for missing in (name + "-missing", "/" + name + "/none", "../" + name):
    try:
        os.open(missing, os.O_RDONLY)
    except OSError:
        pass
os.rename(name + "-dir/one", name + "-dir/three")
os.link(name + "-dir/three", name + "-dir/four")
os.symlink(name + "-target", name + "-link")
os.stat(name + "-dir/four")
os.access(name + "-dir/four", os.R_OK)
os.listdir(folder)
os.unlink(name + "-dir/four")
memory = os.memfd_create(name)
os.write(memory, b"abc")
os.read(0, 1)
if not os.fork():
    os.execv("/bin/true", [name + "-argv0"])
os.wait()
"""
READS = 7


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    folder = tmp_path / f"{NAME}-top"
    folder.mkdir()
    return [sys.executable, "-I", "-S", "-c", WORKLOAD, str(folder)]


def run(*words: str) -> str:
    """Runs FLAK; its stdout."""
    environment = flak_environment()
    done = subprocess.run(
        [sys.executable, "-m", "flak", *words], capture_output=True, env=environment, input=b"x", timeout=20
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def names_of(tmp_path: Path) -> list[str]:
    """What must not be found: the name, and the folders above that are this test's own."""
    return [NAME, tmp_path.name, tmp_path.parent.name, "site-packages"]


def header_of(recording: Path) -> dict[str, Any]:
    with flak.open(recording) as source:
        return dict(source.header)


@pytest.mark.parametrize("filtered", [False, True])
def test_a_recording_never_holds_the_names(command: list[str], tmp_path: Path, filtered: bool) -> None:
    path = tmp_path / "run.flak"
    options = ["-P", str(tmp_path), "-P", f"*{NAME}*"] if filtered else ["--all-files"]
    run("record", "--redact", "hash", "-o", str(path), *options, "--", *command)
    content = path.read_bytes()
    for name in names_of(tmp_path):
        assert name.encode() not in content
    header = header_of(path)
    assert header["redact"] == "hash" and header["command_line"] is None
    events = [json.loads(line) for line in run("dump", "--json", str(path)).splitlines()]
    assert Counter(event["op"] for event in events)["pread64"] >= 2 * READS
    for event in events[:-1]:
        for word in ("path", "claimed_path", "new_path"):
            assert_is_redacted(event.get(word))
    for text in (run("dump", "-w", str(path)), run("dump", "-s", "-w", str(path)), json.dumps(events)):
        assert not any(name in text for name in names_of(tmp_path))


def assert_is_redacted(path: str | None) -> None:
    own = re.compile(r"[0-9a-f]{10}|\.\.?||memfd:[0-9a-f]{10}|(pipe|socket|anon):\[\d+\]|\[[a-z_]+\]|\d+:\d+:\d+")
    assert path is None or all(own.fullmatch(part) for part in path.split("/")), path


@pytest.mark.parametrize("output", ["lines.txt", "lines.jsonl", "run.flak"])
def test_live_outputs_never_hold_the_names(command: list[str], tmp_path: Path, output: str) -> None:
    path = tmp_path / output
    run("trace", "-q", "-w", "--redact", "hash", "--all-files", "-o", str(path), "--", *command)
    content = path.read_bytes()
    assert len(content) > 10_000
    assert not any(name.encode() in content for name in names_of(tmp_path))


def test_patterns_are_matched_with_the_true_names(command: list[str], tmp_path: Path) -> None:
    wanted = tmp_path / f"{NAME}-top" / f"{NAME}-dir" / "two"
    run_ = trace_command(command, tmp_path, redact="hash", path=[wanted], events=["read", "write", "open", "close"])
    reads = [read for read in run_.of(Read) if read.via == "syscall"]
    assert len(reads) == READS and len(run_.of(Write)) == 1
    (path,) = {access.path for access in run_.of(Access)}
    assert path and len(path.split("/")) == len(wanted.parts)
    assert run_.stats.filtered["path"] > 0 and run_.stats.is_exact


def test_equal_names_are_equal_wherever_they_come_up(command: list[str], tmp_path: Path) -> None:
    run_ = trace_command(command, tmp_path, redact="hash")
    (rename,) = run_.of(Rename)
    dirs = {access.path.rpartition("/")[0] for access in run_.of(Write) if access.path}
    assert rename.path.rpartition("/")[0] in dirs and rename.new_path.rpartition("/")[0] in dirs
    assert rename.claimed_path and rename.path.endswith("/" + rename.claimed_path)
    assert {e.argv0 for e in run_.of(Exec)} and all(re.fullmatch("[0-9a-f]{10}", e.argv0) for e in run_.of(Exec))
    failed = [e for e in run_.of(Open) if e.errno == "ENOENT"]
    relative = [e for e in failed if e.claimed_path and "/" not in e.claimed_path]
    assert relative and all(e.path.endswith("/" + e.claimed_path) for e in relative)


def test_what_is_to_stay_stays(command: list[str], tmp_path: Path) -> None:
    names = {e.path.rpartition("/")[2] for e in trace_command(command, tmp_path, redact="basename").of(Write)}
    assert {"one", "two"} <= names
    (tmp_path / "again").mkdir()
    again = [*command[:-1], str(tmp_path / "again")]
    first = tmp_path.parts[1]
    paths = {e.path for e in trace_command(again, tmp_path, redact="prefix:1").of(Write) if e.kind == "file"}
    assert all(path.startswith(f"/{first}/") and NAME not in path for path in paths - {None})
