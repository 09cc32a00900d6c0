"""`flak doctor` on this kernel: as root and as others, in namespaces, with things taken away. Each has its own words.

Nothing is taken from the machine itself: mounts are changed in a mount namespace that ends with the test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import flak
from flak import trial
from flak.preflight import Finding

from .running import flak_environment

pytestmark = pytest.mark.kernel

FLAK = [sys.executable, "-m", "flak"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
TWO_CAPABILITIES = [*NOBODY, "--inh-caps=+bpf,+perfmon", "--ambient-caps=+bpf,+perfmon"]

REFUSES_BPF = """
import ctypes, os, platform, struct, sys
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
# load the number of the call; if it is bpf: EPERM, else allow
program = struct.pack("<" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, number, 6, 0, 0, 0x50001, 6, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
filter = Filter(4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter)) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def only_where_tracing_works(privileged: dict[str, str]) -> None:
    """What is taken away must be the only thing that lacks."""


def launch(*words: str, through: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run flak through another program; skips where that is not there or not allowed."""
    if through and not shutil.which(through[0]):
        pytest.skip(f"{through[0]} is not installed")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = flak_environment(COLUMNS="80")
        return subprocess.run([*through, *command], capture_output=True, text=True, env=environment)

    done = run(*FLAK, *words)
    if done.returncode and (can := run(sys.executable, "-c", "import flak")).returncode:
        pytest.skip(f"{through[0]} cannot run this Python here: {can.stderr.strip()[-200:]}")
    return done


def examined(through: Sequence[str] = ()) -> tuple[int, dict[str, Finding]]:
    """Exit status and findings of `flak doctor --json`, run through another program."""
    done = launch("doctor", "--json", through=through)
    assert done.stderr == ""
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["can_trace"] is (done.returncode == 0)
    return done.returncode, {finding["concern"]: Finding(**finding) for finding in told["findings"]}


def in_mount_namespace(*commands: str) -> list[str]:
    """Run a program after these commands, in a mount namespace of its own."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    script = " && ".join([*commands, 'exec "$@"'])
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def failures(findings: dict[str, Finding]) -> set[str]:
    return {concern for concern, finding in findings.items() if finding.status == "fail"}


def test_where_tracing_works_everything_was_seen_and_counted(privileged: dict[str, str]) -> None:
    status, findings = examined()
    assert status == 0
    for concern in ("BPF", "system calls", "processes", "paths", "cgroup ids", "ring", "running process"):
        assert findings[concern].status == "ok", findings[concern]
    assert "1 fork, 2 execs, 2 exits" in findings["processes"].text
    assert "0 lost" in findings["ring"].text
    for concern in ("page faults", "pages per fault"):
        assert findings[concern].status == ("warn" if concern in privileged else "ok")


def test_the_function_says_the_same_and_leaves_nothing_behind() -> None:
    flak.doctor()  # opens libbpf
    before = open_descriptors()
    findings = flak.doctor()
    assert all(finding.status != "fail" for finding in findings)
    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_program_that_hangs_is_ended_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_SET_ALARM", trial._SET_ALARM.replace(str(trial._LIMIT_S), "1"))
    monkeypatch.setattr(trial, "_DOES_IT_ALL", "import time; time.sleep(60)")
    monkeypatch.setattr(trial, "_HOLDS_A_FILE", "import time; time.sleep(60)")
    findings = {finding.concern: finding for finding in flak.doctor()}
    assert "failed (status -14)" in findings["system calls"].text
    assert findings["running process"].status == "warn"


def test_text_fits_80_columns_on_a_terminal() -> None:
    main, side = os.openpty()
    with subprocess.Popen([*FLAK, "doctor"], stdout=side, env=flak_environment(COLUMNS="80")) as process:
        os.close(side)
        text = b""
        try:
            while chunk := os.read(main, 65536):
                text += chunk
        except OSError:  # EIO: the other side is closed
            pass
    os.close(main)
    assert process.returncode == 0
    assert b"this host can be traced" in text
    plain = text.decode().replace("\x1b[32m", "").replace("\x1b[33m", "").replace("\x1b[0m", "")
    for line in plain.splitlines():
        assert len(line) <= 80 or line.startswith("      fix    "), line


def test_an_ordinary_user_is_told_which_capabilities_lack() -> None:
    status, findings = examined(NOBODY)
    assert status == 1
    assert findings["capabilities"].text == "BPF and PERFMON are missing (uid 65534)"
    assert findings["capabilities"].fix
    assert findings["trial"].text.endswith("see capabilities")


def test_their_trace_says_so_instead_of_a_bare_errno() -> None:
    done = launch("trace", "--", "true", through=NOBODY)
    assert done.returncode == 125
    assert "flak: capabilities: BPF and PERFMON are missing (uid 65534)" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_capabilities_suffice(privileged: dict[str, str]) -> None:
    status, findings = examined(TWO_CAPABILITIES)
    assert status == 0
    assert findings["capabilities"].text == "BPF and PERFMON"
    assert findings["system calls"].status == "ok"
    assert findings["running process"].status == "ok"
    if findings["perf events"].status == "ok" and "page faults" not in privileged:
        assert findings["page faults"].status == "ok"


def test_root_of_a_user_namespace_has_capabilities_that_do_not_count() -> None:
    status, findings = examined(["unshare", "-Ur"])
    assert status == 1
    assert failures(findings) == {"user namespace", "trial"}
    assert "do not count" in findings["user namespace"].text
    assert findings["trial"].text.endswith("see user namespace")


def test_tracefs_is_not_needed() -> None:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "tracefs"]
    away = in_mount_namespace(*(f"umount -l {point}" for point in points))
    status, findings = examined(away)
    assert status == 0
    assert findings["tracefs"].text.startswith("not mounted")
    assert findings["tracefs"].status == "ok"


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("mount -t tmpfs none /sys/kernel/btf", "/sys/kernel/btf"),
        ("mount --bind /dev/null /sys/kernel/btf/vmlinux", "/sys/kernel/btf/vmlinux"),
    ],
)
def test_hidden_btf_is_told_from_a_kernel_without(command: str, place: str) -> None:
    hiding = in_mount_namespace(command)
    status, findings = examined(hiding)
    assert status == 1
    assert findings["kernel BTF"].text == f"hidden: something is mounted over {place}"
    assert findings["kernel BTF"].fix == f"umount -l {place}"
    assert findings["trial"].text.endswith("see kernel BTF")
    done = launch("trace", "--", "true", through=hiding)
    assert done.returncode == 125
    assert f"flak: kernel BTF: hidden: something is mounted over {place}" in done.stderr


def test_another_pid_namespace_is_a_warning() -> None:
    status, findings = examined(["unshare", "-p", "-f", "--mount-proc"])
    assert status == 0
    assert findings["pid namespace"].text.startswith("not the initial one")
    assert findings["running process"].status == "ok"


def test_a_proc_of_another_pid_namespace_is_seen() -> None:
    _, findings = examined(["unshare", "-p", "-f"])
    assert findings["pid namespace"].text.startswith("/proc is that of another pid namespace")


def test_a_missing_proc_is_named() -> None:
    status, findings = examined(in_mount_namespace("umount -l /proc"))
    assert status == 1
    assert findings["pid namespace"].text == "/proc is not mounted"


def test_a_seccomp_filter_that_refuses_bpf_is_found_out() -> None:
    status, findings = examined([sys.executable, "-c", REFUSES_BPF])
    assert status == 1
    assert failures(findings) == {"seccomp", "trial"}
    assert findings["trial"].text.endswith("see seccomp")


def test_lockdown_is_read_where_securityfs_is_mounted() -> None:
    status, findings = examined(in_mount_namespace("mount -t securityfs none /sys/kernel/security"))
    assert status == 0, "or nothing could be traced in the first place"
    assert findings["lockdown"].status == "ok"
    assert findings["lockdown"].text.split(":")[0] in ("none", "integrity", "not visible")
