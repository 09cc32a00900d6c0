"""What reading tells about a host: over trees of /proc and /sys made here, odd ones too."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from flak import preflight
from flak._host import Host
from flak.preflight import SUDO, Finding, causes, host

BPF, PERFMON, SYS_ADMIN, SYS_PTRACE = 1 << 39, 1 << 38, 1 << 21, 1 << 19
ALL = (1 << 41) - 1
UNIFIED = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "40 31 0:37 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
HYBRID = f"{V1}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
ROOT = "23 1 254:0 / / rw - ext4 /dev/vda rw"


class Fake:
    """A tree that looks like a host; `write` and `link` change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owners: dict[str, int] = {}  # path → who it belongs to, of an installation
        self.self = f"proc/{os.getpid()}"
        self.link("proc/self", str(os.getpid()))
        self.status()
        self.write(f"{self.self}/mountinfo", f"{ROOT}\n{UNIFIED}\n")
        self.write(f"{self.self}/uid_map", "         0          0 4294967295\n")
        self.write(f"{self.self}/attr/current", "unconfined\n")
        self.link(f"{self.self}/ns/user", "user:[4026531837]")
        self.link(f"{self.self}/ns/pid", "pid:[4026531836]")
        self.write("proc/sys/kernel/perf_event_paranoid", "2\n")
        self.write("sys/kernel/btf/vmlinux", "\x9f\xeb\x01")
        self.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("latin-1", "replace"))

    def link(self, path: str, target: str) -> None:
        link = self.folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def remove(self, path: str) -> None:
        (self.folder / path).unlink()

    def status(self, capabilities: int = ALL, uid: int = 0, **more: object) -> None:
        fields: dict[str, object] = {
            "Name": "flak",
            "Uid": f"{uid}\t{uid}\t{uid}\t{uid}",
            "CapEff": f"{capabilities:016x}",
            "CapBnd": f"{ALL:016x}",
            "NoNewPrivs": 0,
            "Seccomp": 0,
            **more,
        }
        self.write(f"{self.self}/status", "".join(f"{name}:\t{value}\n" for name, value in fields.items()))

    def mounts(self, *lines: str) -> None:
        self.write(f"{self.self}/mountinfo", "\n".join([ROOT, *lines]))

    def __getitem__(self, concern: str) -> Finding:
        """The finding about a concern."""
        return next(finding for finding in host(self.folder) if finding.concern == concern)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return Fake(tmp_path)


def as_tuple(finding: Finding) -> tuple[str, str]:
    return finding.status, finding.text


def test_a_host_that_has_everything_is_fine(fake: Fake) -> None:
    findings = host(fake.folder)
    assert {finding.status for finding in findings if finding.concern not in ("free space", "numpy")} == {"ok"}
    assert causes(findings) == []


def test_every_warning_and_failure_has_one_line_of_fix_and_short_words(fake: Fake) -> None:
    fake.status(0, uid=1000, Seccomp=2)
    fake.write("proc/sys/kernel/perf_event_paranoid", "4")
    fake.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")
    fake.link(f"{fake.self}/ns/user", "user:[4026532001]")
    fake.link(f"{fake.self}/ns/pid", "pid:[4026532002]")
    fake.mounts(HYBRID, "50 23 0:4 / /proc rw,hidepid=2 - proc proc rw")
    fake.remove("sys/kernel/btf/vmlinux")
    troubles = [finding for finding in host(fake.folder) if finding.status != "ok"]
    assert len(troubles) >= 8
    for finding in troubles:
        assert finding.fix, finding
        assert "\n" not in finding.fix
        assert len(finding.text) <= 100
        assert len(finding.fix) <= 100


def test_it_is_cheap() -> None:
    host()  # imports
    took = []
    for _ in range(5):  # the collector may come in between, and look at all that other tests have left
        begin = time.process_time()
        host()
        took.append(time.process_time() - begin)
    assert min(took) < 0.05  # 3 ms; the rest is for machines that are busy


def test_the_summary_is_plain_data() -> None:
    assert json.loads(json.dumps(preflight.summary())) == preflight.summary()
    assert set(preflight.summary()[0]) == {"concern", "status", "text", "hides", "fix"}


# capabilities


@pytest.mark.parametrize(
    ("capabilities", "status", "text"),
    [
        (BPF | PERFMON, "ok", "BPF and PERFMON"),
        (SYS_ADMIN, "ok", "BPF and PERFMON, by SYS_ADMIN"),
        (BPF, "fail", "PERFMON is missing (uid 1000)"),
        (PERFMON, "fail", "BPF is missing (uid 1000)"),
        (SYS_PTRACE, "fail", "BPF and PERFMON are missing (uid 1000)"),
    ],
)
def test_two_capabilities_are_needed(capabilities: int, status: str, text: str, fake: Fake) -> None:
    fake.status(capabilities, uid=1000)
    assert as_tuple(fake["capabilities"]) == (status, text)
    assert fake["capabilities"].fix == (SUDO if status == "fail" else None)


def test_who_cannot_use_sudo_is_not_told_to(fake: Fake) -> None:
    for cannot in ({"NoNewPrivs": 1}, {"CapBnd": "0"}):
        fake.status(0, uid=1000, **cannot)
        assert "AmbientCapabilities=" in str(fake["capabilities"].fix)
    fake.status(0, uid=0)
    assert "AmbientCapabilities=" in str(fake["capabilities"].fix)


@pytest.mark.parametrize(
    ("sign", "fix"), [(".dockerenv", "docker run --cap-add BPF"), ("run/.containerenv", "podman run --cap-add BPF")]
)
def test_a_container_is_told_how_it_has_to_be_started(sign: str, fix: str, fake: Fake) -> None:
    fake.status(0)
    fake.write(sign, "")
    assert fix not in str(fake["capabilities"].fix), "a machine made from a container's image has the file, too"
    fake.write(f"{fake.self}/mountinfo", f"23 1 0:50 / / rw - overlay overlay rw\n{UNIFIED}")
    assert fix in str(fake["capabilities"].fix)
    fake.mounts(UNIFIED)
    fake.link(f"{fake.self}/ns/pid", "pid:[4026532002]")
    assert fix in str(fake["capabilities"].fix)


def test_a_pod_is_told_what_its_manifest_lacks(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    fake.status(0, Seccomp=2)
    assert fake["capabilities"].fix == "securityContext: {capabilities: {add: [BPF, PERFMON]}}"
    assert "seccompProfile" in str(fake["seccomp"].fix)


# namespaces


def test_capabilities_of_another_user_namespace_do_not_count(fake: Fake) -> None:
    fake.write(f"{fake.self}/uid_map", "0 1000 1\n1 100000 65536\n")
    fake.link(f"{fake.self}/ns/user", "user:[4026532001]")
    assert fake["user namespace"].status == "fail"
    assert "uid 0 here is uid 1000 outside" in fake["user namespace"].text


def test_the_map_decides_where_the_namespace_has_no_name(fake: Fake) -> None:
    fake.remove(f"{fake.self}/ns/user")
    assert fake["user namespace"].status == "ok"
    fake.write(f"{fake.self}/uid_map", "0 1000 1\n")
    assert fake["user namespace"].status == "fail"


def test_a_namespace_that_maps_everybody_is_still_another_one(fake: Fake) -> None:
    fake.link(f"{fake.self}/ns/user", "user:[4026532001]")
    assert fake["user namespace"].status == "fail"


def test_another_pid_namespace_and_a_foreign_or_missing_proc_are_told_apart(fake: Fake) -> None:
    fake.link(f"{fake.self}/ns/pid", "pid:[4026532002]")
    assert as_tuple(fake["pid namespace"]) == (
        "warn",
        "not the initial one: process numbers are those of this namespace",
    )
    fake.link("proc/self", "1")
    assert fake["pid namespace"].text.startswith("/proc is that of another pid namespace")
    fake.remove("proc/self")
    assert as_tuple(fake["pid namespace"]) == ("fail", "/proc is not mounted")


@pytest.mark.parametrize("option", ["hidepid=2", "hidepid=invisible", "hidepid=1", "hidepid=ptraceable"])
def test_hidepid_hides_others_from_who_lacks_sys_ptrace(option: str, fake: Fake) -> None:
    fake.mounts(UNIFIED, f"50 23 0:4 / /proc rw,relatime - proc proc rw,{option}")
    assert not any(finding.concern == "other users" for finding in host(fake.folder))
    fake.status(BPF | PERFMON, uid=1000)
    assert fake["other users"].status == "warn"


def test_an_object_is_packed_in_a_wheel_and_then_checked_as_well(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(preflight.PACKAGE / "_bpf", tmp_path / "_bpf")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    image = tmp_path / f"_bpf/flak.{os.uname().machine}.bpf.o"
    packed = image.with_name(f"{image.name}.xz")
    packed.write_bytes(lzma.compress(image.read_bytes()))
    image.unlink()
    assert fake["kernel"].status == "ok"
    half = packed.read_bytes()[: packed.stat().st_size // 2]
    endless, greedy = lzma.compress(bytes(64 << 20), preset=0), lzma.compress(b"", preset=9)
    for broken in half, b"no xz at all", lzma.compress(b"another object"), endless, greedy, b"":
        packed.write_bytes(broken)
        assert fake["kernel"].text == f"{packed} is not the object that was built: it differs from manifest.json"
    packed.unlink()
    assert fake["kernel"].text == f"this installation has no {image.name}"


def test_an_object_that_was_changed_is_named_and_not_loaded(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(preflight.PACKAGE / "_bpf", tmp_path / "_bpf")
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    image = tmp_path / f"_bpf/flak.{os.uname().machine}.bpf.o"
    assert fake["kernel"].status == "ok"
    original = image.read_bytes()
    image.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert as_tuple(fake["kernel"])[0] == "fail"
    assert fake["kernel"].text == f"{image} is not the object that was built: it differs from manifest.json"
    assert "reinstall" in (fake["kernel"].fix or "")
    image.write_bytes(original)
    for manifest in ("{", "[]", '{"objects": 1}', '{"objects": {}}'):
        (tmp_path / "_bpf/manifest.json").write_text(manifest)
        assert fake["kernel"].status == "fail", manifest


# the kernel's own refusals


@pytest.mark.parametrize(
    ("text", "status", "found"),
    [
        ("[none] integrity confidentiality", "ok", "none"),
        ("none [integrity] confidentiality", "ok", "integrity: refuses nothing that FLAK needs"),
        ("none integrity [confidentiality]", "fail", "confidentiality: BPF may not read kernel memory"),
    ],
)
def test_only_confidentiality_keeps_us_out(text: str, status: str, found: str, fake: Fake) -> None:
    fake.write("sys/kernel/security/lockdown", f"{text}\n")
    assert as_tuple(fake["lockdown"]) == (status, found)


def test_lockdown_is_unknown_without_securityfs(fake: Fake) -> None:
    fake.remove("sys/kernel/security/lockdown")
    assert fake["lockdown"].text.startswith("not visible")


def test_a_seccomp_filter_may_be_the_reason(fake: Fake) -> None:
    fake.status(BPF | PERFMON, uid=1000, Seccomp=2, Seccomp_filters=1)
    assert fake["seccomp"].status == "warn"
    assert causes(host(fake.folder)) == [fake["seccomp"]]
    fake.status(0, uid=1000, Seccomp=2)
    assert causes(host(fake.folder)) == [fake["capabilities"]], "what is certain comes before what may be"


def test_btf_missing_hidden_unmounted_and_unreadable_are_told_apart(fake: Fake) -> None:
    assert fake["kernel BTF"].status == "ok"
    fake.write("sys/kernel/btf/vmlinux", "")
    assert fake["kernel BTF"].fix == "umount -l /sys/kernel/btf/vmlinux"
    fake.remove("sys/kernel/btf/vmlinux")
    assert fake["kernel BTF"].fix == "umount -l /sys/kernel/btf"
    (fake.folder / "sys/kernel/btf").rmdir()
    assert as_tuple(fake["kernel BTF"]) == ("fail", "this kernel has none (no /sys/kernel/btf)")
    (fake.folder / "sys").rename(fake.folder / "away")
    assert fake["kernel BTF"].fix == "mount -t sysfs sysfs /sys"


def test_btf_that_may_not_be_read(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "vmlinux":
            raise PermissionError(13, "Permission denied")
        return original(self, *arguments, **options)

    original: Callable[..., Any] = Path.open
    monkeypatch.setattr(Path, "open", refuses)
    assert fake["kernel BTF"].fix == "sudo chmod a+r /sys/kernel/btf/vmlinux"


@pytest.mark.parametrize(("level", "status"), [("-1", "ok"), ("2", "ok"), ("3", "warn"), ("4", "warn")])
def test_levels_that_debian_and_ubuntu_added_refuse_perf_events(level: str, status: str, fake: Fake) -> None:
    fake.write("proc/sys/kernel/perf_event_paranoid", level)
    assert fake["perf events"].status == "ok", "SYS_ADMIN may"
    fake.status(BPF | PERFMON, uid=1000)
    assert fake["perf events"].status == status
    assert ("page faults" in str(fake["perf events"].hides)) == (status == "warn")


def test_a_kernel_without_perf_events(fake: Fake) -> None:
    fake.remove("proc/sys/kernel/perf_event_paranoid")
    assert fake["perf events"].status == "warn"


def test_selinux_names_the_domain_and_suspects_only_a_confined_one(fake: Fake) -> None:
    fake.write("sys/fs/selinux/enforce", "1")
    fake.write(f"{fake.self}/attr/current", "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023\0")
    assert as_tuple(fake["security module"]) == ("ok", "SELinux, enforcing, unconfined_t")
    fake.write(f"{fake.self}/attr/current", "system_u:system_r:container_t:s0:c1,c2\0")
    assert fake["security module"].status == "warn"
    assert "container_t" in fake["security module"].text
    fake.write("sys/fs/selinux/enforce", "0")
    assert as_tuple(fake["security module"]) == ("ok", "SELinux, permissive, container_t")


def test_apparmor_is_named_and_not_suspected(fake: Fake) -> None:
    fake.write(f"{fake.self}/attr/current", "docker-default (enforce)\n")
    assert as_tuple(fake["security module"]) == ("ok", "AppArmor profile docker-default (enforce)")


# surroundings


@pytest.mark.parametrize(
    ("mounts", "status", "text"),
    [
        (UNIFIED, "ok", "version 2, at /sys/fs/cgroup"),
        (HYBRID, "warn", "hybrid: version 2 at /sys/fs/cgroup/unified, the controllers in version 1"),
        (V1, "warn", "version 1 only"),
        ("", "warn", "none is mounted here"),
        (UNIFIED.replace("/sys/fs/cgroup", r"/sys/fs/c\040group"), "ok", "version 2, at /sys/fs/c group"),
    ],
)
def test_versions_of_cgroups(mounts: str, status: str, text: str, fake: Fake) -> None:
    fake.mounts(mounts)
    assert as_tuple(fake["cgroups"]) == (status, text)


def test_tracefs_is_never_called_a_need(fake: Fake) -> None:
    assert fake["tracefs"].text.startswith("not mounted; needed only where")
    fake.write("sys/bus/event_source/devices/kprobe/type", "6")
    assert fake["tracefs"].text == "not mounted, not needed"
    fake.mounts("43 23 0:13 / /sys/kernel/tracing rw - tracefs tracefs rw")
    assert fake["tracefs"].text == "mounted, not needed"


def test_file_systems_that_are_seen_with_limits_are_named(fake: Fake) -> None:
    kinds = ["btrfs", "nfs4", "fuse.sshfs", "fusectl", "overlay", "tmpfs"]
    fake.mounts(*(f"{60 + n} 23 0:{n} / /mnt/{n} rw - {kind} none rw" for n, kind in enumerate(kinds)))
    assert fake["file systems"].text == "seen with limits: btrfs, fuse.sshfs, nfs4, overlay"
    for name in ("btrfs", "NFS", "FUSE", "overlay"):
        assert f"{name}:" in str(fake["file systems"].hides)


def test_little_space_and_a_folder_that_is_gone(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "_LITTLE_SPACE", 1 << 62)
    assert "--max-size" in str(fake["free space"].fix)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert fake["free space"].status == "warn"


def test_numpy_is_asked_for_without_being_imported(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fake["numpy"].status == "ok"
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert (fake["numpy"].status, fake["numpy"].fix) == ("warn", "pip install numpy")


# odd contents


GARBAGE = [
    "",
    "\0" * 4096,
    "\xff\xfe\x80",
    ":" * 999,
    "\n\n - - - \n",
    " - ".join("abc def"),
    "CapEff:\tzz\nUid:\n",
    "9" * 5000,
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_no_content_makes_it_raise(garbage: str, fake: Fake) -> None:
    for path in sorted(path for path in fake.folder.rglob("*") if path.is_file() and not path.is_symlink()):
        path.write_bytes(garbage.encode("latin-1"))
    json.dumps([(finding.concern, finding.text) for finding in host(fake.folder)])


def test_folders_in_place_of_files_and_an_empty_root_do_not_make_it_raise(fake: Fake, tmp_path: Path) -> None:
    for path in sorted(path for path in fake.folder.rglob("*") if path.is_file() and not path.is_symlink()):
        path.unlink()
        path.mkdir()
    assert host(fake.folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert host(empty)
    assert host(tmp_path / "not there")


def test_a_check_that_fails_is_a_finding(fake: Fake) -> None:
    fake.status(CapEff="not hex")
    assert fake["capabilities"].status == "warn"
    assert "could not be looked at" in fake["capabilities"].text


def test_numbers_links_and_mounts_are_read_or_none(tmp_path: Path) -> None:
    here = Host(tmp_path)
    (tmp_path / "number").write_text(" 12\n")
    (tmp_path / "word").write_text("x12")
    assert (here.number("number"), here.number("word"), here.number("none")) == (12, None, None)
    assert (here.link("number"), here.text("none"), here.mounts, here.uid) == (None, None, [], "?")


# --- who can write to what root runs

PLACE = "opt/flak/lib/flak"
MODULES = ("__init__.py", "session.py", "cli/app.py", "_bpf/flak.x86_64.bpf.o")


@pytest.fixture
def installed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """FLAK as root has installed it. Files belong to whoever runs the tests: they count as root's, but for `owners`."""
    for name in MODULES:
        fake.write(f"{PLACE}/{name}", "x")
    for path in (fake.folder / "opt", *(fake.folder / "opt").rglob("*")):
        path.chmod(0o755)
    look = Path.stat

    def as_root(path: Path, **options: Any) -> os.stat_result:
        values = list(look(path, **options))
        values[stat.ST_UID] = fake.owners.get(str(path).removeprefix(f"{fake.folder}/"), 0)
        return os.stat_result(values)

    monkeypatch.setattr(Path, "stat", as_root)
    monkeypatch.setattr(preflight, "PACKAGE", Path("/") / PLACE)
    return fake


def test_an_installation_of_roots_is_fine(installed: Fake) -> None:
    assert as_tuple(installed["installation"]) == ("ok", f"/{PLACE}: only root can write to it")


@pytest.mark.parametrize(
    "path", ["opt", "opt/flak", "opt/flak/lib", PLACE, f"{PLACE}/cli", *(f"{PLACE}/{name}" for name in MODULES)]
)
@pytest.mark.parametrize("mode", [0o757, 0o777])
def test_what_everybody_can_write_is_told(installed: Fake, path: str, mode: int) -> None:
    (installed.folder / path).chmod(mode)
    finding = installed["installation"]
    assert finding.status == "warn" and finding.text.startswith(f"/{path}: everybody can write to it")
    assert finding.fix == f"chmod go-w /{path}"
    assert len(finding.text) <= 100


@pytest.mark.parametrize("path", ["opt", PLACE, f"{PLACE}/session.py"])
def test_what_belongs_to_somebody_is_told(installed: Fake, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.owners[path] = 4711
    finding = installed["installation"]
    assert finding.status == "warn" and finding.text.startswith(f"/{path}: user 4711 can write to it")
    assert finding.fix and finding.fix.startswith("install flak as root: ") and len(finding.fix) <= 100
    monkeypatch.setattr("flak._host.pwd.getpwuid", lambda uid: ["alice"])
    assert ": user alice can write to it" in installed["installation"].text


def test_an_archive_is_told_as_one_file(installed: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.write("opt/flak.pyz", "x")
    (installed.folder / "opt/flak.pyz").chmod(0o755)
    monkeypatch.setattr(preflight, "PACKAGE", Path("/opt/flak.pyz/flak"))
    assert as_tuple(installed["installation"]) == ("ok", "/opt/flak.pyz: only root can write to it")
    installed.owners["opt/flak.pyz"] = 4711
    assert installed["installation"].text.startswith("/opt/flak.pyz: user 4711 can write to it")
    assert installed["installation"].fix == "install /opt/flak.pyz /usr/local/bin/flak.pyz"


def test_a_group_counts_unless_it_is_roots(installed: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed.folder / PLACE / "session.py").chmod(0o664)
    group = (installed.folder / PLACE).stat().st_gid
    monkeypatch.setattr("flak._host.grp.getgrgid", lambda gid: ["staff"])
    if group:
        assert ": group staff can write to it" in installed["installation"].text
    else:
        assert installed["installation"].status == "ok"
        os.chown(installed.folder / PLACE / "session.py", -1, 4711)
        assert ": group staff can write to it" in installed["installation"].text


def test_a_folder_like_tmp_is_no_danger_to_what_lies_in_it(installed: Fake) -> None:
    (installed.folder / "opt").chmod(0o1777)
    assert installed["installation"].status == "ok"


def test_only_root_is_told(installed: Fake) -> None:
    (installed.folder / "opt").chmod(0o777)
    installed.status(ALL, uid=1000)
    assert "installation" not in {finding.concern for finding in host(installed.folder)}
    installed.status(ALL, uid=0)
    assert installed["installation"].status == "warn"


def test_a_hostile_place_is_escaped(installed: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = f"{PLACE}/new\nline\x1b.py"
    installed.write(hostile, "x")
    (installed.folder / hostile).chmod(0o666)
    assert installed["installation"].text.startswith(f"/{PLACE}/new\\nline\\x1b.py: everybody can write to it")
