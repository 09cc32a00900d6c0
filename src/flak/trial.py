"""Can this host be traced? Everything is tried for real, and what was seen is counted.

`doctor()` is what reading tells (`preflight`) and then a trial: the smallest programs, a trace of a command that does
known things, a trace of a process that runs already. The trial decides: a right that seems to lack and is not needed
is no failure. Nothing is left behind. `flak.doctor` and `flak doctor` are the users.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from flak import cgroups, preflight
from flak.bpf import BpfObject, Btf, object_bytes, variants_for
from flak.errors import FlakError, NotPermitted
from flak.events import Event, Exec, Exit, Fault, Fork, Mmap, Open, Read, escape
from flak.preflight import Finding
from flak.probes import ADOPT, LOST_WITHOUT
from flak.selection import Selection
from flak.session import Session
from flak.target import invoking_owner
from flak.text import format_count, format_size

__all__ = ["doctor"]

_LIMIT_S = 30  # it takes a tenth of a second, in an emulator some seconds
_READS = 13
_REPORT = "report it, with what flak doctor --json prints"

# The file that is read is this module's own: it is there, and nothing has to be written. A run that hangs ends itself.
_SET_ALARM = f"import _signal; _signal.signal(_signal.SIGALRM, _signal.SIG_DFL); _signal.alarm({_LIMIT_S})\n"
_DOES_IT_ALL = f"""\
import mmap, os, sys
program, path = sys.argv[1:]
fd = os.open(path, os.O_RDONLY)
for number in range({_READS}):
    os.pread(fd, 16, 16 * number)
with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as pages:
    sum(pages[::4096])
child = os.fork()
if not child:
    _signal.alarm({_LIMIT_S})
    os.execv(program, [program, "-I", "-S", "-c", "pass"])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
_HOLDS_A_FILE = f"""\
import mmap, os, sys
fd = os.open(sys.argv[2], os.O_RDONLY)
pages = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
print("ready", flush=True)
sys.stdin.read()
for number in range({_READS}):
    os.pread(fd, 16, 16 * number)
"""


def doctor(*, tell: Callable[[str], None] = lambda text: None) -> list[Finding]:
    """What this host offers to a trace, found out by trying: a list of findings, "ok", "warn" or "fail" each.

        can_trace = all(finding.status != "fail" for finding in flak.doctor())

    Takes about a second. tell: is called with lines for people who want every detail. Raises nothing of FLAK's own.
    """
    host = preflight.host()
    try:
        _load_smallest()
        command = _Watched.command()
    except (FlakError, OSError) as error:
        tell(getattr(error, "log", ""))
        host = _blamed(host, error)
        return [*host, _refused(host, error)]
    for concern, hook in command.session.served.items():
        tell(f"{concern}: {hook}")
    trial = [*_programs(), *command.findings(), *_running(), _not_decoded()]
    return [*_settled(host, command.session), *trial]


# --- what a refusal and a success say about the host


def _refused(host: Sequence[Finding], error: FlakError | OSError) -> Finding:
    """The refusal itself. Where the host's findings explain it, the fix is theirs."""
    text = str(error).splitlines()[0]
    reason = next((finding.concern for finding in host if finding.status == "fail"), None)
    if reason:
        return Finding("trial", "fail", f"{text}: see {reason}")
    usual = "flak doctor -v shows the log" if getattr(error, "log", "") else "look for the reason in dmesg"
    return Finding("trial", "fail", text, fix=getattr(error, "hint", None) or usual)


def _blamed(host: Sequence[Finding], error: FlakError | OSError) -> list[Finding]:
    """The host's findings once something was refused: what only might have refused it did, if nothing else can have."""
    if "unknown func bpf_probe_read" in getattr(error, "log", ""):  # the helpers that lockdown takes away
        return [preflight.LOCKED_DOWN if finding.concern == "lockdown" else finding for finding in host]
    suspects = preflight.causes(host)
    if not isinstance(error, NotPermitted) or any(finding.status == "fail" for finding in suspects):
        return list(host)
    if not suspects:
        return [*host, *_memory_lock()]
    return [replace(finding, status="fail") if finding is suspects[0] else finding for finding in host]


def _memory_lock() -> Iterator[Finding]:
    """Kernels before 5.11 charge a ring to RLIMIT_MEMLOCK, and say EPERM when it is used up."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and soft < 64 << 20:
        text = f"only {format_size(soft)} of memory may be locked; old kernels count rings as such"
        yield Finding("memory lock", "fail", text, fix="ulimit -l unlimited, as root")


def _settled(host: Sequence[Finding], session: Session) -> list[Finding]:
    """The host's findings once a trace has worked: what was feared has not happened."""
    feared = preflight.causes(host)
    if "page faults" in session.served:
        feared += [finding for finding in host if finding.concern == "perf events" and finding.status == "warn"]
    return [
        Finding(finding.concern, "ok", f"{finding.text}; yet tracing works") if finding in feared else finding
        for finding in host
    ]


# --- the trial


def _load_smallest() -> None:
    """Make the rings, then load one small program: what neither allows, a session will not get either."""
    with Btf.of_kernel() as btf:
        image = object_bytes(variants_for(btf)[0])
    for programs in ((), (ADOPT,)):
        with BpfObject(image) as bpf:
            for ring in ("accesses", "meta"):
                bpf.set_size(ring, 1 << 16)
            bpf.select(programs)
            bpf.load()


def _programs() -> Iterator[Finding]:
    yield Finding("BPF", "ok", "rings made, programs loaded and attached")


class _Watched:
    """A trace that is over: its session and its events."""

    def __init__(self, session: Session, release: Callable[[], object] = lambda: None) -> None:
        self.session = session
        with session:
            release()
            *self.events, _ = session

    @classmethod
    def command(cls) -> Self:
        """A trace of a program that does a known number of everything."""
        python = _python()
        argv = [python, "-I", "-S", "-c", _SET_ALARM + _DOES_IT_ALL, python, _FILE]
        # under sudo a command runs as the invoking user, who need not be allowed to run this Python
        user = "root" if invoking_owner() else None
        return cls(Session(Selection.of(command=argv), user=user, duration=_LIMIT_S))

    def findings(self) -> Iterator[Finding]:
        """What was seen, by concern, and what was not."""
        yield self._calls()
        counts = {"page faults": self._faults, "pages per fault": self._pages, "processes": self._processes}
        for concern, hook in self.session.served.items():
            if concern != "system calls":
                yield counts[concern](hook) if concern in counts else Finding(concern, "ok", hook)
        for concern, text in self.session.missing.items():
            yield _lacking(concern, text)
        yield from (self._paths(), self._cgroup(), self._ring())

    def seen(self, *kinds: type[Event]) -> list[Any]:
        """Events of these kinds that concern the file."""
        return [event for event in self.events if isinstance(event, kinds) and _is_ours(event)]

    def count(self, kind: type[Event]) -> int:
        """How many events of a kind there are."""
        return sum(isinstance(event, kind) for event in self.events)

    def _calls(self) -> Finding:
        hook, status = self.session.served["system calls"], self.session.command_status
        count = sum(event.via == "syscall" for event in self.events)
        reads = self.seen(Read)
        if [event.file_offset for event in reads] != [16 * number for number in range(_READS)]:
            text = f"{hook}: {format_count(count)} seen, but of {_READS} reads of a file {len(reads)}"
            if status:
                text = f"{hook}: {format_count(count)} seen; the trial's own program failed (status {status})"
            return Finding("system calls", "warn" if count else "fail", text, "part of what programs do", _REPORT)
        timed = "durations measured" if all(event.latency_ns for event in reads) else "no durations"
        return Finding("system calls", "ok", f"{hook}: {format_count(count)} seen, {timed}")

    def _faults(self, hook: str) -> Finding:
        if not self.seen(Fault):
            return Finding("page faults", "warn", f"{hook}: none was seen", LOST_WITHOUT["page faults"], _REPORT)
        return Finding("page faults", "ok", f"{hook}: {self.count(Fault)} seen")

    def _pages(self, hook: str) -> Finding:
        counts = [event.page_count for event in self.events if isinstance(event, Fault) and event.page_count]
        if not counts:
            return Finding("pages per fault", "warn", f"{hook}: none told", LOST_WITHOUT["pages per fault"], _REPORT)
        return Finding("pages per fault", "ok", f"{hook}: up to {max(counts)}")

    def _processes(self, hook: str) -> Finding:
        counts = [self.count(kind) for kind in (Fork, Exec, Exit)]
        text = "{}: {} fork, {} execs, {} exits seen".format(hook, *counts)
        if counts == [1, 2, 2]:
            return Finding("processes", "ok", text)
        return Finding("processes", "warn", text, "which processes there are", _REPORT)

    def _paths(self) -> Finding:
        path = next((event.path for event in self.seen(Read)), None)
        if path == escape(os.fsencode(_FILE)):
            return Finding("paths", "ok", "the kernel's path of a file is the one it has here")
        hides = "where a file is, as this process sees it"
        return Finding("paths", "warn", f"{_FILE} is {path} to the kernel", hides, "run flak outside of chroots")

    def _cgroup(self) -> Finding:
        seen = ", ".join({str(event.cgroup_id) for event in self.seen(Read)}) or "none"
        folder, shown = _own_cgroup()
        if not folder:
            return Finding("cgroup ids", "ok", f"{seen}; where that group is mounted is not to be seen from here")
        if seen == str(shown):
            return Finding("cgroup ids", "ok", f"{seen} is the inode of {folder}")
        hides = "which cgroup an access comes from"
        return Finding("cgroup ids", "warn", f"{seen} is not {shown}, the inode of {folder}", hides, _REPORT)

    def _ring(self) -> Finding:
        stats, size = self.session.stats, format_size(self.session.header()["ring_size"])
        text = f"{size}: {format_count(stats.matched)} events, {format_count(stats.lost_total)} lost"
        if stats.lost_total or not stats.is_exact:
            return Finding("ring", "warn", text, "the events that were lost", "--buffer-size 64M")
        if stats.recursion_misses:
            text += f", programs skipped {format_count(stats.recursion_misses)} times"
            return Finding("ring", "warn", text, "what happened then", _REPORT)
        return Finding("ring", "ok", text)


def _running() -> Iterator[Finding]:
    """Attach to a process that has a file open and mapped."""
    hides = "files that were open or mapped before, to --pid"
    argv = [_python(), "-I", "-S", "-c", _SET_ALARM + _HOLDS_A_FILE, "-", _FILE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        try:
            child.stdout.readline()
            watched = _Watched(Session(Selection.of(pid=child.pid), duration=_LIMIT_S), child.stdin.close)
        except FlakError as error:
            yield Finding("running process", "warn", error.message.splitlines()[0], hides, error.hint or _REPORT)
            return
        finally:
            child.kill()
    attached = [event for event in watched.seen(Open, Mmap) if "attached" in event.marks]
    files, maps = (sum(isinstance(event, kind) for event in attached) for kind in (Open, Mmap))
    if files and maps and len(watched.seen(Read)) == _READS:
        yield Finding("running process", "ok", f"attached to one: {files} open files and {maps} mapping known")
    else:
        text = f"attached to one: {files} open files, {maps} mappings known, {len(watched.seen(Read))} reads seen"
        yield Finding("running process", "warn", text, hides, _REPORT)


# --- what is missing


_FIXES = {
    "page faults": "use a kernel with perf events, and kprobes or the function tracer",
    "pages per fault": "use Linux 6.12 or newer",
}


def _lacking(concern: str, text: str) -> Finding:
    """A concern that no hook serves. Its text is what is lost, and in parentheses why."""
    lost = LOST_WITHOUT.get(concern, "")
    if text.startswith(lost) and lost:
        reason = text[len(lost) :].strip().removeprefix("(").removesuffix(")")
        return Finding(concern, "warn", reason or "not seen", lost, _FIXES.get(concern, "use a newer kernel"))
    return Finding(concern, "warn", "not seen", text, _FIXES.get(concern, "use a newer kernel"))


_ROADS = ("calls of 32-bit programs", "faults by MAP_POPULATE and get_user_pages", "rare requests of io_uring")


def _not_decoded() -> Finding:
    """The roads that this version of FLAK only counts, on every host."""
    return Finding("other roads", "ok", f"counted only: {', '.join(_ROADS)}", "which files and offsets they touch")


# --- parts

_FILE = next(str(path) for path in (Path(__file__).resolve(), *Path(__file__).resolve().parents) if path.is_file())
"""One that is certainly there: this one, or the archive that FLAK runs from."""


def _is_ours(event: Event) -> bool:
    path = getattr(event, "path", None) or ""
    return path.rpartition("/")[2] == escape(os.fsencode(_FILE)).rpartition("/")[2]


def _python() -> str:
    """This Python's program, by a name that can be run even where its folder may not be entered."""
    return sys.executable if os.access(sys.executable or "", os.X_OK) else "/proc/self/exe"


def _own_cgroup() -> tuple[Path | None, int]:
    """The folder of this process's cgroup and its inode number, where it can be seen."""
    try:
        folder = cgroups.mount() / cgroups.of_process(os.getpid()).lstrip("/")
        return folder, folder.stat().st_ino
    except (FlakError, OSError):
        return None, 0
