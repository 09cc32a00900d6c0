"""Real processes and real children: who a number stands for, the gate before the exec, exit statuses, signals."""

from __future__ import annotations

import errno
import itertools
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flak
from flak.errors import TargetError
from flak.target import Command, describe, invoking_owner, run_as

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="only root can become another user")


def wait_until(condition: Callable[[], bool], deadline_s: float = 10) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "condition did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.fixture
def under_sudo(monkeypatch: pytest.MonkeyPatch) -> pwd.struct_passwd:
    """The environment that `sudo` gives to a command of user nobody."""
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setenv("SUDO_UID", str(nobody.pw_uid))
    monkeypatch.setenv("SUDO_GID", str(nobody.pw_gid))
    monkeypatch.setenv("SUDO_USER", "nobody")
    return nobody


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that imports the flak under test."""
    environment = {**os.environ, "PYTHONPATH": str(Path(flak.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)


def output_of(argv: list[str], tmp_path: Path, user: str | None = None) -> str:
    """What a command writes to a standard output that was given to it."""
    with (tmp_path / "stdout").open("w+b") as file:
        with Command(argv, user=user, stdout=file.fileno()) as command:
            command.release()
            assert command.wait() == 0
        file.seek(0)
        return file.read().decode()


# describe


def test_describe_says_who_a_process_is(sleeper: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: describe(sleeper.pid).cmdline == ("sleep", "1000"))
    target = describe(sleeper.pid)
    assert (target.pid, target.comm) == (sleeper.pid, "sleep")
    assert target.start_time > describe(1).start_time
    assert target == describe(sleeper.pid)


def test_describe_is_not_misled_by_a_comm_with_parentheses(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 (\x1b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as process:
        wait_until(lambda: "R" in describe(process.pid).comm)
        assert describe(process.pid).comm == ") R 1 (\\x1b"
        assert describe(process.pid).start_time > describe(1).start_time
        process.kill()


def test_describe_refuses_a_number_without_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(TargetError, match=f"no process {sleeper.pid}"):
        describe(sleeper.pid)


def test_describe_refuses_a_zombie(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(TargetError, match="has ended"):
        describe(sleeper.pid)


def test_describe_refuses_a_thread_and_names_its_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(TargetError, match=f"thread of process {os.getpid()}") as error:
            describe(thread.native_id)
        assert error.value.hint == f"trace the process: --pid {os.getpid()}"
    finally:
        done.set()
        thread.join()


# the gate


def test_nothing_runs_before_the_release(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with Command(["touch", str(witness)]) as command:
        assert command.poll() is None
        assert describe(command.pid).cmdline == describe(os.getpid()).cmdline, "it has not called exec yet"
        assert not witness.exists()
        command.release()
        assert command.wait() == 0
    assert witness.exists()


def test_a_command_that_is_never_released_runs_nothing_and_is_reaped(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with Command(["touch", str(witness)]) as command:
        pid = command.pid
    assert not witness.exists()
    with pytest.raises(TargetError):
        describe(pid)


def test_a_command_does_not_outlive_a_tracer_that_is_killed_at_the_gate(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    program = f"""
import os, signal
from flak.target import Command
print(Command(["touch", {str(witness)!r}]).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    held = int(python(program).stdout)
    wait_until(lambda: not Path(f"/proc/{held}").exists())
    assert not witness.exists()


def test_close_may_be_called_twice() -> None:
    command = Command(["true"])
    command.close()
    command.close()


# statuses


@pytest.mark.parametrize(
    ("script", "returncode"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -9), ("kill -TERM $$", -15)]
)
def test_status_is_that_of_the_command(script: str, returncode: int) -> None:
    with Command(["sh", "-c", script]) as command:
        command.release()
        assert command.wait() == returncode
        assert command.poll() == returncode


def test_poll_sees_the_end() -> None:
    with Command(["sh", "-c", "exit 3"]) as command:
        command.release()
        wait_until(lambda: command.poll() is not None)
        assert command.poll() == 3


@pytest.mark.parametrize("program", ["no-such-command-anywhere", "/no/such/file"])
def test_a_command_that_is_not_found_is_127(program: str) -> None:
    with Command([program]) as command, pytest.raises(TargetError, match="command not found") as error:
        command.release()
    assert error.value.exit_status == 127


def test_a_missing_interpreter_is_127_and_named_as_such(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with Command([str(script)]) as command, pytest.raises(TargetError, match="interpreter") as error:
        command.release()
    assert error.value.exit_status == 127


def test_a_file_that_is_not_executable_is_126(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("hello\n")
    with Command([str(plain)]) as command, pytest.raises(TargetError, match="Permission denied") as error:
        command.release()
    assert error.value.exit_status == 126


@pytest.mark.parametrize(
    ("call", "number", "hint"),
    [
        ("pipe", errno.EMFILE, "ulimit -n"), ("pipe", errno.ENFILE, "fs.file-max"), ("fork", errno.EAGAIN, "ulimit -u"),
        ("fork", errno.ENOMEM, "memory"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fails_at", [1, 2])
def test_without_room_for_a_command_one_line_says_what_is_short(
    call: str, number: int, hint: str, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = {"pipe": os.pipe, "fork": os.fork}[call]
    calls = itertools.count(1 if call == "pipe" else fails_at)

    def fails() -> object:
        if next(calls) == fails_at:
            raise OSError(number, os.strerror(number))
        return really()

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(TargetError) as refusal:
        Command(["true"])
    assert (refusal.value.message, refusal.value.exit_status) == (f"cannot start 'true': {os.strerror(number)}", 125)
    assert hint in (refusal.value.hint or "")
    assert len(list(Path("/proc/self/fd").iterdir())) == before, "nothing stays open"


def test_a_forbidden_match_in_path_does_not_hide_a_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "true").write_text("not a program\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Command(["true"]) as command:
        command.release()
        assert command.wait() == 0


# what the command gets


def test_arguments_arrive_byte_by_byte(tmp_path: Path) -> None:
    odd = ["", "--", "-p", "a b", os.fsdecode(b"\xff\n\x1b[0m")]
    shown = output_of([sys.executable, "-c", "import sys; print(sys.argv[1:])", *odd], tmp_path)
    assert shown == f"{odd}\n"


def test_it_gets_no_descriptors_of_flak(tmp_path: Path) -> None:
    list_them = ["sh", "-c", "cd /proc/$$/fd && echo *"]
    with (tmp_path / "mine").open("wb"):
        inherited = subprocess.run(list_them, close_fds=False, stdout=subprocess.PIPE, text=True, check=True).stdout
        assert output_of(list_them, tmp_path) == inherited


def test_signals_are_as_a_shell_would_leave_them(tmp_path: Path) -> None:
    with signal_handler(signal.SIGUSR1, lambda *_: None), signal_handler(signal.SIGUSR2, signal.SIG_IGN):
        lines = output_of(["cat", "/proc/self/status"], tmp_path).splitlines()
    masks = {
        name: int(bits, 16)
        for name, bits in (line.split(":") for line in lines if line.startswith("Sig") and "/" not in line)
    }
    ignored = {number for number in range(1, 65) if masks["SigIgn"] >> (number - 1) & 1}
    assert masks["SigBlk"] == 0
    assert masks["SigCgt"] == 0
    assert signal.SIGUSR2 in ignored, "what was ignored stays ignored across an exec"
    assert not ignored & {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGUSR1}


class signal_handler:
    """Another handler within a block."""

    def __init__(self, number: int, handler: object) -> None:
        self.number, self.handler = number, handler

    def __enter__(self) -> None:
        self.before = signal.signal(self.number, self.handler)  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        signal.signal(self.number, self.before)


# signals while it lives


def test_interrupts_are_left_to_the_command_while_it_lives() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Command(["sleep", "1000"]) as command:
        assert signal.getsignal(signal.SIGINT) is before
        command.release()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGINT)
        command.send_signal(signal.SIGKILL)
        assert command.wait() == -9
        assert signal.getsignal(signal.SIGINT) is before


def test_termination_is_passed_on() -> None:
    with Command(["sleep", "1000"]) as command:
        command.release()
        os.kill(os.getpid(), signal.SIGTERM)
        assert command.wait() == -signal.SIGTERM


def test_an_ignored_hangup_stays_ignored() -> None:
    with signal_handler(signal.SIGHUP, signal.SIG_IGN), Command(["sleep", "1000"]) as command:
        command.release()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        command.send_signal(signal.SIGKILL)


def test_handlers_are_restored_when_the_command_cannot_start() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Command(["no-such-command-anywhere"]) as command, pytest.raises(TargetError):
        command.release()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_can_be_run_from_another_thread() -> None:
    statuses = []

    def run() -> None:
        with Command(["sh", "-c", "exit 5"]) as command:
            command.release()
            statuses.append(command.wait())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert statuses == [5]


# users


def test_without_sudo_a_command_runs_as_flak_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert invoking_owner() is None
    assert run_as() is None


@pytest.mark.parametrize(("uid", "gid"), [("0", "0"), ("", ""), ("x", "1"), ("-5", "1")])
@needs_root
def test_sudo_variables_that_name_no_other_user_are_ignored(
    uid: str, gid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", uid)
    monkeypatch.setenv("SUDO_GID", gid)
    assert invoking_owner() is None


@needs_root
def test_under_sudo_the_command_runs_as_the_invoking_user(tmp_path: Path, under_sudo: pwd.struct_passwd) -> None:
    script = "id -u; id -ru; id -g; echo $HOME $USER $LOGNAME $SUDO_UID; grep CapEff /proc/self/status"
    uid, real, gid, names, capabilities = output_of(["sh", "-c", script], tmp_path).splitlines()
    assert uid == real == str(under_sudo.pw_uid)
    assert gid == str(under_sudo.pw_gid)
    assert names == f"{under_sudo.pw_dir} nobody nobody {under_sudo.pw_uid}"
    assert int(capabilities.split()[1], 16) == 0
    assert invoking_owner() == (under_sudo.pw_uid, under_sudo.pw_gid)


@needs_root
def test_user_root_opts_out_of_the_drop(tmp_path: Path, under_sudo: pwd.struct_passwd) -> None:
    assert output_of(["id", "-u"], tmp_path, user="root") == "0\n"


@needs_root
def test_a_named_user_is_taken(tmp_path: Path) -> None:
    assert output_of(["id", "-un"], tmp_path, user="nobody") == "nobody\n"


@needs_root
def test_a_sudo_user_unknown_here_still_gets_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "54321")
    monkeypatch.setenv("SUDO_GID", "54322")
    assert output_of(["sh", "-c", "id -u; id -G"], tmp_path) == "54321\n54322\n"


def test_an_unknown_user_is_refused_before_anything_starts() -> None:
    with pytest.raises(TargetError, match="no user named 'no-such-user'") as error:
        Command(["true"], user="no-such-user")
    assert error.value.exit_status == 125


@pytest.mark.skipif(not is_root, reason="drops root first")
def test_becoming_another_user_without_the_right_is_125() -> None:
    program = """
import os
from flak.errors import TargetError
from flak.target import Command
os.setresuid(65534, 65534, 65534)
with Command(["true"], user="daemon") as command:
    try:
        command.release()
    except TargetError as error:
        print(error.exit_status, error)
"""
    assert python(program).stdout == "125 cannot run a command as daemon: Operation not permitted\n"
