"""Once attached, the command line gives up what it needed for that, and goes on tracing."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import flak
from flak.bpf import Btf
from flak.events import Read

from .running import Workloads

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("privileged"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up"),
]

FLAK = [sys.executable, "-m", "flak"]
HOME = "/tmp"  # where every user may go, unlike pytest's folders


@pytest.fixture(scope="module")
def kept() -> set[int]:
    """CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SYS_PTRACE; before 6.1 CAP_BPF."""
    with Btf.of_kernel() as btf:
        return {2, 5, 19} | (set() if btf.has_struct("maple_tree") else {39})


@pytest.fixture
def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


@contextmanager
def folder_of(uid: int) -> Iterator[Path]:
    """A new folder that everybody may look into."""
    with tempfile.TemporaryDirectory(dir=HOME) as name:
        Path(name).chmod(0o755)
        os.chown(name, uid, uid)
        yield Path(name)


@pytest.fixture
def theirs(nobody: pwd.struct_passwd) -> Iterator[Path]:
    """A folder of nobody's."""
    with folder_of(nobody.pw_uid) as folder:
        yield folder


def sudo(user: pwd.struct_passwd) -> dict[str, str]:
    """The environment that sudo makes."""
    return os.environ | {"SUDO_UID": str(user.pw_uid), "SUDO_GID": str(user.pw_gid), "SUDO_USER": user.pw_name}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def bits(mask: str) -> set[int]:
    return {bit for bit in range(64) if int(mask, 16) >> bit & 1}


def parent_of_command(options: list[object], environment: dict[str, str] | None = None) -> dict[str, str]:
    """/proc/PID/status of a FLAK while its command runs, as the command finds it; nothing was lost on the way."""
    look = "sleep 0.3; cat /proc/$PPID/status"
    command = [*FLAK, "trace", "--json", *options, "--", "sh", "-c", look]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: value.strip() for name, _, value in (line.partition(":") for line in done.stdout.splitlines())}


def test_root_keeps_what_only_reads_and_signals(tmp_path: Path, kept: set[int]) -> None:
    status = parent_of_command(["-o", tmp_path / "lines"])
    for which in ("CapEff", "CapPrm", "CapBnd"):
        assert bits(status[which]) <= kept
    assert bits(status["CapInh"]) == bits(status["CapAmb"]) == set()
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == ["0"] * 4
    *events, counters = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert any(event["op"] == "read" and str(event["path"]).endswith("/status") for event in events)
    assert counters["lost"] == {}
    assert counters["matched"] == counters["written"] + sum(counters["filtered"].values())


def test_sys_admin_alone_will_do_to_the_end(workloads: Workloads, indexed: Path, tmp_path: Path) -> None:
    only = ["setpriv", "--bounding-set=-all,+sys_admin", "--inh-caps=-all"]
    command = [*FLAK, "record", "-o", tmp_path / "run.flak", "--", *workloads.command("preads", indexed, 97, 1)]
    done = subprocess.run([*only, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with flak.open(tmp_path / "run.flak") as recording:
        assert sum(isinstance(e, Read) and e.path == str(indexed) for e in recording) == 97
        assert recording.stats.is_exact


def test_under_sudo_it_becomes_the_user(theirs: Path, nobody: pwd.struct_passwd, kept: set[int]) -> None:
    status = parent_of_command(["-o", theirs / "lines"], sudo(nobody))
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert status["Groups"].split() == [str(nobody.pw_gid)]
    assert bits(status["CapEff"]) <= kept


def test_a_recording_is_made_with_the_rights_of_the_user(theirs: Path, nobody: pwd.struct_passwd) -> None:
    """What root alone may write is not written, be it behind a folder that is a link."""
    record = [*FLAK, "record", "-q", "-o"]
    with folder_of(0) as roots:
        (theirs / "link").symlink_to(roots)
        for mode in (0o755, 0o700):
            roots.chmod(mode)
            line = [*record, theirs / "link/x.flak", "--", "true"]
            done = subprocess.run(line, env=sudo(nobody), capture_output=True, text=True)
            assert done.returncode == 125
            assert len(done.stderr.splitlines()) == 1
            assert "cannot write" in done.stderr
        assert list(roots.iterdir()) == []

    subprocess.run([*record, theirs / "x.flak", "--", "true"], env=sudo(nobody), check=True)
    made = (theirs / "x.flak").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (nobody.pw_uid, nobody.pw_gid, 0o600)


def test_what_never_returns_is_found_without_privileges(
    theirs: Path, nobody: pwd.struct_passwd, workloads: Workloads, privileged: dict[str, str]
) -> None:
    fifo = theirs / "fifo"
    os.mkfifo(fifo, 0o644)
    reader = subprocess.Popen(["cat", fifo], stdout=subprocess.DEVNULL)
    try:
        trace = [*FLAK, "trace", "--json", "--hung", "100ms", "-d", "1s", "-o", theirs / "lines", "-p", str(reader.pid)]
        subprocess.run(trace, env=sudo(nobody), check=True, stdout=subprocess.DEVNULL)
    finally:
        reader.kill()
        reader.wait()
    events = [json.loads(line) for line in (theirs / "lines").read_text().splitlines()]
    hanging = [event for event in events if "unfinished" in event.get("marks", ())]
    assert {event["path"] for event in hanging} == {None if "paths of blocked calls" in privileged else str(fifo)}
    assert any("hung" in event["marks"] for event in hanging)
    assert any("hung" not in event["marks"] for event in hanging)
