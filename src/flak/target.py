"""What is traced: a process that runs already, or a command that FLAK starts.

`describe()` says which process a number stands for. `Command` starts a program and holds it before its exec until
tracing is attached, so that its very first open is seen. Who the program runs as is settled here too (`run_as`,
`invoking_owner`). Nothing here knows about BPF; `session` is the user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import signal
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from flak.errors import TargetError
from flak.events import escape

__all__ = ["Command", "Target", "User", "check_thread", "describe", "invoking_owner", "run_as", "user_of"]

NOT_EXECUTABLE = 126
NOT_FOUND = 127
FAILED_BEFORE_EXEC = 125


@dataclass(slots=True, frozen=True)
class Target:
    """A running process. `start_time` is in clock ticks since boot; with `pid` it stands for one process only."""

    pid: int
    comm: str
    start_time: int
    cmdline: tuple[str, ...]


def describe(pid: int) -> Target:
    """The process that `pid` stands for now; TargetError where there is none, it has ended, or it is a thread."""
    status = _read_proc(pid, "status")
    leader = int(_field(status, b"Tgid"))
    if leader != pid:
        raise TargetError(f"{pid} is a thread of process {leader}", f"trace the process: --pid {leader}")
    # comm may hold blanks and parentheses: fields are counted from its last ")".
    head, _, tail = _read_proc(pid, "stat").rpartition(b")")
    fields = tail.split()
    # A first thread that has ended is a zombie until its last sibling ends too; field 20 counts those that are left.
    if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:
        raise TargetError(f"process {pid} has ended and waits for its parent to notice")
    cmdline = _read_proc(pid, "cmdline").rstrip(b"\0")
    return Target(
        pid=pid,
        comm=escape(head.partition(b"(")[2]),
        start_time=int(fields[19]),
        cmdline=tuple(escape(word) for word in cmdline.split(b"\0")) if cmdline else (),
    )


def check_thread(tid: int) -> None:
    """TargetError where no thread has that number."""
    if not Path(f"/proc/{tid}").exists():  # threads can be looked at there, although they are not listed
        raise TargetError(f"no thread {tid}", "list threads with: ps -eL")


def _read_proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"no process {pid}", "list processes with: ps -e") from None
    except PermissionError:
        raise TargetError(f"not permitted to look at process {pid}", "run flak as root") from None


def _field(status: bytes, name: bytes) -> bytes:
    _, _, rest = status.partition(b"\n" + name + b":")
    return rest.split(b"\n", 1)[0].strip()


@dataclass(slots=True, frozen=True)
class User:
    """Who a command runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str | None

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with HOME, USER and LOGNAME of this user; everything else, sudo's variables too, stays."""
        own = {"USER": self.name, "LOGNAME": self.name}
        if self.home:
            own["HOME"] = self.home
        return {**base, **own}


def invoking_owner() -> tuple[int, int] | None:
    """(uid, gid) of the user who ran FLAK through sudo, to whom its outputs belong; None without sudo."""
    if os.geteuid() != 0:
        return None
    uid, gid = (os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    if not (uid.isdecimal() and gid.isdecimal()) or int(uid) == 0:
        return None
    return int(uid), int(gid)


def run_as(name: str | None = None) -> User | None:
    """The user a command runs as when that is not FLAK's own: the one named, else under sudo the invoking one."""
    if name is not None:
        return _user_named(name)
    owner = invoking_owner()
    if owner is None:
        return None
    return user_of(owner)


def user_of(owner: tuple[int, int]) -> User:
    """The user of an `invoking_owner`."""
    uid, gid = owner
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # a user known to sudo but not here, as in some containers
        return User(os.environ.get("SUDO_USER", str(uid)), uid, gid, (gid,), None)
    return User(entry.pw_name, uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)), entry.pw_dir)


def _user_named(name: str) -> User | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise TargetError(f"no user named {name!r}", exit_status=FAILED_BEFORE_EXEC) from None
    if entry.pw_uid == os.getuid() == os.geteuid():
        return None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return User(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


class Command:
    """A program that was forked and waits before its exec.

    Its number is `pid`. `release()` lets it exec, `poll()` and `wait()` give its exit status as `subprocess` does
    (negative: killed by that signal). Closed without a release, it ends without having run anything.

        with Command(["dd", "if=/dev/zero", "of=out"]) as command:
            attach(command.pid)
            command.release()
            status = command.wait()

    While the program lives, the terminal's ^C and ^\\ are left to it, and SIGTERM and SIGHUP are passed on to it.
    `stdout` is a descriptor for the program's standard output.
    """

    def __init__(self, argv: Sequence[str], *, user: str | None = None, stdout: int | None = None) -> None:
        self.argv = tuple(argv)
        self.returncode: int | None = None
        self.user = run_as(user)
        self._replaced_handlers: dict[int, Any] = {}
        child = _Child.prepare(self.argv, self.user, stdout)
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as of_child:
            try:
                gate_read, self._gate = os.pipe()
                undo.callback(os.close, self._gate)
                of_child.callback(os.close, gate_read)
                self._errors, errors_write = os.pipe()
                undo.callback(os.close, self._errors)
                of_child.callback(os.close, errors_write)
                self.pid = child.fork(gate_read, self._gate, errors_write)
            except OSError as error:
                message = f"cannot start {argv[0]!r}: {error.strerror}"
                raise TargetError(message, _ROOM.get(error.errno or 0), FAILED_BEFORE_EXEC) from error
            undo.pop_all()

    def release(self) -> None:
        """Let the command exec. TargetError (exit_status 126 or 127) when that fails; it has been reaped then."""
        self._take_signals()
        with contextlib.suppress(BrokenPipeError):  # it failed before the gate and has said why
            os.write(self._gate, b"\n")
        os.close(self._gate)
        self._gate = -1
        failure = b"".join(iter(lambda: os.read(self._errors, 64), b""))
        if failure:
            self.wait()
            raise _start_error(self.argv[0], self.user, failure)

    def poll(self) -> int | None:
        """The exit status, None while the command lives."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended(status)
        return self.returncode

    def wait(self) -> int:
        """Wait for the command to end; its exit status."""
        if self.returncode is None:
            self._ended(os.waitpid(self.pid, 0)[1])
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send the command a signal; nothing happens when it has ended."""
        if self.returncode is None:  # not reaped, hence the number is still this process's
            os.kill(self.pid, number)

    def close(self) -> None:
        """Wait for the command, or end it where it was never released. May be called twice."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1
        self.wait()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ended(self, status: int) -> None:
        self.returncode = os.waitstatus_to_exitcode(status)
        for number, handler in self._replaced_handlers.items():
            signal.signal(number, handler)
        self._replaced_handlers.clear()

    def _take_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may; elsewhere signals are the caller's affair
        wanted: dict[int, Any] = {
            signal.SIGINT: signal.SIG_IGN,
            signal.SIGQUIT: signal.SIG_IGN,
            signal.SIGTERM: self._forward,
            signal.SIGHUP: self._forward,
            signal.SIGCHLD: signal.SIG_DFL,  # inherited as ignored, it would throw exit statuses away
        }
        for number, handler in wanted.items():
            current = signal.getsignal(number)
            if current is None or (callable(handler) and current is signal.SIG_IGN):
                continue  # somebody's in C; or nohup's: what was ignored stays ignored
            self._replaced_handlers[number] = current
            signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.send_signal(number)


_ROOM = {
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "the whole machine has no room for open files: sysctl fs.file-max",
    errno.EAGAIN: "raise the limit of processes: ulimit -u, or pids.max of the cgroup",
    errno.ENOMEM: "free memory, or raise memory.max of the cgroup",
}
"""What to do where there is no room for another process."""


def _start_error(program: str, user: User | None, failure: bytes) -> TargetError:
    """The error for what a child reported: "STAGE ERRNO"."""
    stage, _, code = failure.decode().partition(" ")
    reason = os.strerror(int(code))
    if stage == "user":
        name = user.name if user else "another user"
        return TargetError(f"cannot run a command as {name}: {reason}", "run flak as root", FAILED_BEFORE_EXEC)
    if int(code) not in (errno.ENOENT, errno.ENOTDIR):
        return TargetError(f"cannot run {program!r}: {reason}", exit_status=NOT_EXECUTABLE)
    if "/" in program and Path(program).exists():
        return TargetError(f"cannot run {program!r}: the interpreter it names is missing", exit_status=NOT_FOUND)
    return TargetError(f"cannot run {program!r}: command not found", exit_status=NOT_FOUND)


@dataclass(slots=True, frozen=True)
class _Child:
    """Everything the child needs, made ready before the fork.

    Between fork and exec only plain system calls are made: another thread of FLAK may have held any lock when the
    fork happened, and every file the child touched after its release would show up in the trace.
    """

    programs: tuple[bytes, ...]
    argv: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    user: User | None
    stdout: int | None
    handled: tuple[int, ...]

    @classmethod
    def prepare(cls, argv: tuple[str, ...], user: User | None, stdout: int | None) -> Self:
        environment = user.environment(os.environ) if user else dict(os.environ)
        program = os.fsencode(argv[0])
        folders = [os.fsencode(folder or ".") for folder in os.get_exec_path(environment)]
        # Python ignores SIGPIPE and SIGXFSZ for itself. Other signals that were ignored stay so, as exec has it.
        handled = {number for number in signal.valid_signals() if callable(signal.getsignal(number))}
        return cls(
            programs=(program,) if b"/" in program else tuple(folder + b"/" + program for folder in folders),
            argv=tuple(os.fsencode(word) for word in argv),
            environment={os.fsencode(name): os.fsencode(value) for name, value in environment.items()},
            user=user,
            stdout=stdout,
            handled=tuple(handled | {signal.SIGPIPE, signal.SIGXFSZ}),
        )

    def fork(self, gate: int, gate_write: int, errors: int) -> int:
        """Fork; the parent gets the child's number, the child never comes back."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # "fork() in a multi-threaded process": see above
                pid = os.fork()
            if pid == 0:
                self._run(gate, gate_write, errors, mask)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _run(self, gate: int, gate_write: int, errors: int, mask: set[int]) -> NoReturn:
        stage = b"user"
        try:
            os.close(gate_write)  # held here too, the gate would never report that FLAK is gone
            for number in self.handled:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if self.stdout is not None:
                os.dup2(self.stdout, 1)
            if self.user:
                os.setgroups(self.user.groups)
                os.setresgid(self.user.gid, self.user.gid, self.user.gid)
                os.setresuid(self.user.uid, self.user.uid, self.user.uid)
            stage = b"exec"
            if os.read(gate, 1):
                self._exec()
        except OSError as error:
            os.write(errors, b"%b %d" % (stage, error.errno or 0))
        finally:
            os._exit(FAILED_BEFORE_EXEC)

    def _exec(self) -> None:
        """Try each place of PATH as a shell does; the OSError that tells most when none worked."""
        failure: OSError | None = None
        for program in self.programs:
            try:
                os.execve(program, self.argv, self.environment)
            except OSError as error:
                if failure is None or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    failure = error
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    break
        raise failure or FileNotFoundError(errno.ENOENT, "empty PATH")
