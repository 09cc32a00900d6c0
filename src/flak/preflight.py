"""What can be told about this host by reading: what FLAK needs, whether it is there, what would mend it.

Cheap, loads no BPF, raises nothing: it runs when a trace could not be started, and goes into the header of each
recording. Whether tracing works is not decided here: `trial` tries it. `session`, `trial` and `cli` are the users.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flak._host import INITIAL_PID, INITIAL_USER, Host

__all__ = ["Finding", "causes", "host", "summary"]

SUDO = "sudo $(command -v flak) …"
"""The fix for most people; whoever prints it may put this very program in."""

_LITTLE_SPACE = 1 << 30


@dataclass(slots=True, frozen=True)
class Finding:
    """One thing that was looked at: `status` is "ok", "warn" (something will be missing) or "fail" (no trace at all).

    text: what was found. hides: what a trace cannot show because of it. fix: one command or setting that mends it.
    """

    concern: str
    status: str
    text: str
    hides: str | None = None
    fix: str | None = None


def host(root: Path = Path("/")) -> list[Finding]:
    """Everything about this host that reading tells, in the order in which it matters. `root`: where /proc and /sys
    are looked for.
    """
    here = Host(root)
    findings: list[Finding] = []
    for concern, look in _CHECKS.items():
        try:
            findings += look(here)
        except Exception as error:  # a strange /proc is a finding too: this runs while another error is being told
            findings.append(Finding(concern, "warn", f"could not be looked at: {error!r}"))
    return findings


def summary() -> list[dict[str, Any]]:
    """The same as plain data, for the header of a recording."""
    return [asdict(finding) for finding in host()]


def causes(findings: Sequence[Finding]) -> list[Finding]:
    """Those that can keep a trace from starting: the certain ones, or where there are none the possible ones."""
    failed = [finding for finding in findings if finding.status == "fail"]
    return failed or [finding for finding in findings if finding.status == "warn" and finding.concern in _CAUSES]


_CAUSES = {"capabilities", "seccomp", "security module"}


# --- the kernel and what comes with FLAK


def _kernel(here: Host) -> Iterator[Finding]:
    from flak.bpf import OLD, PLAIN, PROBE, object_bytes
    from flak.errors import NotSupported, SchemaMismatch

    system = os.uname()
    try:
        for variant in (PLAIN, PROBE, OLD):
            object_bytes(variant)
    except (NotSupported, SchemaMismatch) as error:
        yield Finding("kernel", "fail", error.message, fix=error.hint)
    else:
        yield Finding("kernel", "ok", f"{system.sysname} {system.release} {system.machine}")


def _libbpf(here: Host) -> Iterator[Finding]:
    from flak import _libbpf
    from flak.errors import NotSupported

    try:
        library, name = _libbpf.load()
    except NotSupported as error:
        yield Finding("libbpf", "fail", error.message, fix=error.hint)
        return
    version = f"{library.libbpf_major_version()}.{library.libbpf_minor_version()}"
    mapped = (line.split(None, 5)[-1] for line in (here.text("proc/self/maps") or "").splitlines())
    path = next((path for path in mapped if Path(name).stem in path), name)
    yield Finding("libbpf", "ok", f"{version}, {path}")


def _installation(here: Host) -> Iterator[Finding]:
    """Root runs what lies there, so whoever can write to it is root at the next run."""
    if here.uid != "0":
        return
    archive = PACKAGE.parent.absolute()
    is_archive = (here.folder / str(archive).lstrip("/")).is_file()  # flak.pyz
    for path in _code(here):
        if who := here.writer(path.lstrip("/")):
            text = f"{_shown(path)}: {who} can write to it, and so become root"
            fix = "install flak as root: python3 -m venv /opt/flak && /opt/flak/bin/pip install flak-tracer"
            if is_archive:
                fix = f"install {shlex.quote(str(archive))} /usr/local/bin/flak.pyz"
            if not who.startswith("user "):  # it is root's
                fix = f"chmod go-w {shlex.quote(path)}"
            yield Finding("installation", "warn", text, fix=fix)
            return
    yield Finding("installation", "ok", f"{_shown(str(archive if is_archive else PACKAGE))}: only root can write to it")


PACKAGE = Path(__file__).parent
"""Where FLAK lies."""


def _code(here: Host) -> Iterator[str]:
    """The package's folders and files, and all folders above, from the top down; also above where links lead to."""
    for place in dict.fromkeys((PACKAGE.absolute(), PACKAGE.resolve())):
        yield from (str(folder) for folder in reversed((place, *place.parents)))
    for folder, folders, files in os.walk(here.folder / str(PACKAGE.absolute()).lstrip("/")):
        place = Path("/") / Path(folder).relative_to(here.folder)
        yield from (str(place / name) for name in (*folders, *files))


def _shown(path: str) -> str:
    from flak.events import escape

    return escape(os.fsencode(path))


def _btf(here: Host) -> Iterator[Finding]:
    folder = here.folder / "sys/kernel/btf"
    try:
        with (folder / "vmlinux").open("rb") as file:
            has_types = bool(file.read(1))
    except PermissionError:
        text, fix = "/sys/kernel/btf/vmlinux may not be read", "sudo chmod a+r /sys/kernel/btf/vmlinux"
    except OSError:
        has_types = False
        if folder.exists():  # the kernel makes the folder for this one file
            text, fix = "hidden: something is mounted over /sys/kernel/btf", "umount -l /sys/kernel/btf"
        elif not here.has("sys/kernel"):
            text, fix = "not to be seen: /sys is not mounted", "mount -t sysfs sysfs /sys"
        else:
            text, fix = "this kernel has none (no /sys/kernel/btf)", "use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    else:
        if has_types:
            yield Finding("kernel BTF", "ok", "/sys/kernel/btf/vmlinux")
            return
        text = "hidden: something is mounted over /sys/kernel/btf/vmlinux"
        fix = "umount -l /sys/kernel/btf/vmlinux"
    yield Finding("kernel BTF", "fail", text, fix=fix)


# --- rights


def _capabilities(here: Host) -> Iterator[Finding]:
    if "CapEff" not in here.status:
        text = "unknown: /proc/self/status cannot be read"
        yield Finding("capabilities", "warn", text, fix="mount -t proc proc /proc")
        return
    has = here.capabilities()
    missing = [name for name in ("BPF", "PERFMON") if name not in has]
    if not missing:
        yield Finding("capabilities", "ok", "BPF and PERFMON" + (", by SYS_ADMIN" if "SYS_ADMIN" in has else ""))
        return
    are = "and PERFMON are" if len(missing) > 1 else "is"
    text = f"{missing[0]} {are} missing (uid {here.uid})"
    yield Finding("capabilities", "fail", text, fix=_how_to_get_capabilities(here))


def _how_to_get_capabilities(here: Host) -> str:
    ways = {
        "docker": "docker run --cap-add BPF --cap-add PERFMON …",
        "podman": "sudo podman run --cap-add BPF,PERFMON --security-opt seccomp=unconfined …",
        "kubernetes": "securityContext: {capabilities: {add: [BPF, PERFMON]}}",
    }
    can_sudo = here.status.get("NoNewPrivs", "0") == "0" and {"BPF", "PERFMON"} <= here.capabilities("CapBnd")
    if here.uid != "0" and can_sudo and not here.container():
        return SUDO
    return ways.get(here.container(), "start flak with both, from systemd: AmbientCapabilities=CAP_BPF CAP_PERFMON")


def _user_namespace(here: Host) -> Iterator[Finding]:
    inside, outside, length = [*(here.text("proc/self/uid_map") or "").split(), "", "", ""][:3]
    namespace = here.link("proc/self/ns/user")
    if not (namespace or inside):
        return  # a kernel without them
    if namespace == INITIAL_USER or (not namespace and (inside, outside, length) == ("0", "0", "4294967295")):
        yield Finding("user namespace", "ok", "the initial one")
        return
    who = f" (uid {inside} here is uid {outside} outside)" if outside else ""
    text = f"not the initial one{who}: capabilities held in it do not count"
    yield Finding("user namespace", "fail", text, fix="run flak outside of it; a container: as root, not rootless")


def _seccomp(here: Host) -> Iterator[Finding]:
    if here.status.get("Seccomp", "0") == "0":
        yield Finding("seccomp", "ok", "no filter" if "Seccomp" in here.status else "unknown")
        return
    ways = {"kubernetes": "securityContext: {seccompProfile: {type: Unconfined}}"}
    fix = ways.get(here.container(), f"{here.container() or 'docker'} run --security-opt seccomp=unconfined …")
    if not here.container():
        fix = "run flak outside of what set the filter; from systemd: SystemCallFilter=bpf perf_event_open"
    yield Finding("seccomp", "warn", "a filter is set; it may refuse bpf(2) and perf_event_open(2)", fix=fix)


LOCKED_DOWN = Finding(
    "lockdown",
    "fail",
    "confidentiality: BPF may not read kernel memory",
    fix="boot with lockdown=integrity, or without Secure Boot",
)


def _lockdown(here: Host) -> Iterator[Finding]:
    text = here.text("sys/kernel/security/lockdown")
    if text is None:
        yield Finding("lockdown", "ok", "not visible: no securityfs at /sys/kernel/security")
    elif "[confidentiality]" in text:
        yield LOCKED_DOWN
    elif "[integrity]" in text:
        yield Finding("lockdown", "ok", "integrity: refuses nothing that FLAK needs")
    else:
        yield Finding("lockdown", "ok", "none")


def _security_module(here: Host) -> Iterator[Finding]:
    label = here.text("proc/self/attr/current") or ""
    if (enforce := here.text("sys/fs/selinux/enforce")) is not None:
        domain = [*label.split(":"), "", "", ""][2] or label or "unknown"
        if enforce == "1" and not domain.startswith(("unconfined", "spc_t", "sysadm")):
            fix = "a container: --security-opt label=disable; else a policy that allows class bpf to it"
            text = f"SELinux confines this process ({domain}); it may refuse bpf(2)"
            yield Finding("security module", "warn", text, fix=fix)
        else:
            mode = "enforcing" if enforce == "1" else "permissive"
            yield Finding("security module", "ok", f"SELinux, {mode}, {domain}")
    elif label and label != "unconfined":
        yield Finding("security module", "ok", f"AppArmor profile {label}")
    else:
        yield Finding("security module", "ok", "none confines this process")


def _perf_events(here: Host) -> Iterator[Finding]:
    hides = "page faults, hence what is read and written through memory maps"
    paranoid = here.number("proc/sys/kernel/perf_event_paranoid")
    if paranoid is None:
        if here.has("proc/sys/kernel"):
            text = "this kernel has none (no kernel.perf_event_paranoid)"
            yield Finding("perf events", "warn", text, hides, "use a kernel built with CONFIG_PERF_EVENTS=y")
    elif paranoid > 2 and "SYS_ADMIN" not in here.capabilities():
        # Debian's and Ubuntu's own levels 3 and 4: PERFMON is not asked, only SYS_ADMIN
        text = f"kernel.perf_event_paranoid is {paranoid}: refused without SYS_ADMIN"
        yield Finding("perf events", "warn", text, hides, "sudo sysctl kernel.perf_event_paranoid=2")
    else:
        yield Finding("perf events", "ok", f"kernel.perf_event_paranoid is {paranoid}")


# --- what the host looks like from here


def _tracefs(here: Host) -> Iterator[Finding]:
    is_mounted = any(mount.kind == "tracefs" for mount in here.mounts)
    if is_mounted or here.has("sys/bus/event_source/devices/kprobe"):
        # libbpf makes kprobes by the perf kprobe unit, and by tracefs only where there is none
        yield Finding("tracefs", "ok", "mounted, not needed" if is_mounted else "not mounted, not needed")
    else:
        text = "not mounted; needed only where page faults have to be seen by a kprobe"
        yield Finding("tracefs", "ok", text)


def _cgroups(here: Host) -> Iterator[Finding]:
    versions = {mount.kind: mount.point for mount in reversed(here.mounts) if mount.kind in ("cgroup", "cgroup2")}
    if set(versions) == {"cgroup2"}:
        yield Finding("cgroups", "ok", f"version 2, at {versions['cgroup2']}")
    elif "cgroup2" in versions:
        yield Finding(
            "cgroups",
            "warn",
            f"hybrid: version 2 at {versions['cgroup2']}, the controllers in version 1",
            "groups that exist in version 1 only, to --cgroup and --container",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    elif versions:
        hides = "cgroup_id is the same for all; --cgroup and --container find nothing"
        fix = "boot with systemd.unified_cgroup_hierarchy=1"
        yield Finding("cgroups", "warn", "version 1 only", hides, fix)
    elif here.mounts:
        hides = "the names of groups, to --cgroup and --container"
        fix = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        yield Finding("cgroups", "warn", "none is mounted here", hides, fix)


def _pid_namespace(here: Host) -> Iterator[Finding]:
    own = here.link("proc/self")
    if own is None:
        yield Finding("pid namespace", "fail", "/proc is not mounted", fix="mount -t proc proc /proc")
        return
    if own != str(os.getpid()):
        text = "/proc is that of another pid namespace than this process's"
        hides = "which process a number stands for: --pid may name another one"
        yield Finding("pid namespace", "warn", text, hides, "mount -t proc proc /proc")
        return
    namespace = here.link("proc/self/ns/pid")
    if namespace in (None, INITIAL_PID):
        yield Finding("pid namespace", "ok", "the initial one" if namespace else "unknown")
        return
    ways = {"kubernetes": "hostPID: true", "docker": "docker run --pid=host …", "podman": "podman run --pid=host …"}
    text = "not the initial one: process numbers are those of this namespace"
    fix = ways.get(here.container(), "run flak outside of it, or: nsenter -t PID -p …")
    yield Finding("pid namespace", "warn", text, "processes outside of it", fix)


def _other_users(here: Host) -> Iterator[Finding]:
    options = ",".join(mount.options for mount in here.mounts if mount.kind == "proc" and mount.point == "/proc")
    is_hiding = any(f"hidepid={mode}" in options for mode in ("1", "2", "4", "noaccess", "invisible", "ptraceable"))
    if is_hiding and "SYS_PTRACE" not in here.capabilities():
        text = "/proc hides other users' processes (hidepid) from who lacks SYS_PTRACE"
        yield Finding("other users", "warn", text, "all processes but one's own, to --pid and --comm", SUDO)


_WEAK = {
    r"btrfs": "btrfs: a file that is dropped from memory and read again may count twice",
    r"nfs4?": "NFS: what other hosts rename or write",
    r"fuse|fuseblk|fuse\..*": "FUSE: what the daemon behind it reads and writes, unless that is traced too",
    r"overlay": "overlay: older kernels name a mapped file by the layer it lies in",
}


def _file_systems(here: Host) -> Iterator[Finding]:
    kinds = sorted({mount.kind for mount in here.mounts})
    weak = [kind for kind in kinds if any(re.fullmatch(pattern, kind) for pattern in _WEAK)]
    notes = [note for pattern, note in _WEAK.items() if any(re.fullmatch(pattern, kind) for kind in kinds)]
    if weak:
        yield Finding("file systems", "ok", f"seen with limits: {', '.join(weak)}", "; ".join(notes))
    elif kinds:
        yield Finding("file systems", "ok", "none mounted that is seen with limits")


def _numpy(here: Host) -> Iterator[Finding]:
    from importlib.util import find_spec

    if find_spec("numpy"):
        yield Finding("numpy", "ok", "installed")
    else:
        hides = "the closing table; lines, JSON and recordings do without"
        yield Finding("numpy", "warn", "not installed", hides, "pip install numpy")


def _space(here: Host) -> Iterator[Finding]:
    from flak.events import escape
    from flak.text import format_size

    try:
        folder = Path.cwd()
        state = os.statvfs(folder)
    except OSError as error:
        yield Finding("free space", "warn", f"the current folder: {error.strerror}", fix="cd to a folder that is there")
        return
    free = state.f_bavail * state.f_frsize
    text = f"{format_size(free)} in {escape(os.fsencode(folder))}"
    if free >= _LITTLE_SPACE:
        yield Finding("free space", "ok", text)
    else:
        hides = "the end of a long recording: it takes 72 bytes or more an access"
        yield Finding("free space", "warn", text, hides, "record elsewhere (-o), or bound it by --max-size")


_CHECKS: Mapping[str, Callable[[Host], Iterator[Finding]]] = {
    "kernel": _kernel,
    "libbpf": _libbpf,
    "installation": _installation,
    "kernel BTF": _btf,
    "user namespace": _user_namespace,
    "capabilities": _capabilities,
    "seccomp": _seccomp,
    "lockdown": _lockdown,
    "security module": _security_module,
    "perf events": _perf_events,
    "tracefs": _tracefs,
    "cgroups": _cgroups,
    "pid namespace": _pid_namespace,
    "other users": _other_users,
    "file systems": _file_systems,
    "numpy": _numpy,
    "free space": _space,
}
