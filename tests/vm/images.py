"""What a guest boots from: an initramfs with the modules of its kernel, a root with a Python, and FLAK with its tests.

The root changes seldom and is kept; FLAK's image is made for each run. A guest writes to neither: QEMU keeps what it
writes apart. Both are ext4, so that files have a page cache with hooks of its own, which those of an initramfs lack.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.debian import Mirror, Unavailable, run

from .debian import ROOT_SUITE
from .kernels import Kernel, module_bytes

TOP = Path(__file__).resolve().parent.parent.parent
PACKAGES = (
    "python3",
    "libstdc++6",
    "busybox-static",
    "coreutils",
    "bash",
    "dash",
    "procps",
    "util-linux",
    "mount",
)
PYTHON = "3.13"
"""Of ROOT_SUITE."""
REQUIREMENTS = ("pytest", "typer<0.29", "numpy")


@dataclass(frozen=True)
class Architecture:
    """The names that one architecture goes by."""

    debian: str
    machine: str
    compiler: str
    wheel_tags: tuple[str, ...]


ARCHITECTURES = {
    "amd64": Architecture(
        "amd64",
        "x86_64",
        "x86_64-linux-gnu-gcc",
        tuple(f"manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_27", "_2_28")),
    ),
    "arm64": Architecture(
        "arm64",
        "aarch64",
        "aarch64-linux-gnu-gcc",
        tuple(f"manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_27", "_2_28")),
    ),
}

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do [ -e "$module" ] && insmod "$module"; done
mount -t ext4 /dev/vda /new && mount -t ext4 -o ro /dev/vdb /new/flak || echo "no disks"
for place in proc sys dev; do mount --move /$place /new/$place; done
exec switch_root /new /flak/init
"""

START = """#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONPATH=/flak/site:/flak:/opt/python PYTHONDONTWRITEBYTECODE=1
mkdir -p /dev/pts /dev/shm; ln -s /proc/self/fd /dev/fd
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
mount -t tracefs tracefs /sys/kernel/tracing; mount -t bpf bpf /sys/fs/bpf; mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs security /sys/kernel/security
busybox ip link set lo up
out=/dev/ttyS1; [ -e /sys/class/tty/ttyAMA0 ] && out=/dev/ttyS0
stty -F $out raw -echo
cd /flak
python3 -m tests.vm.inside >$out 2>&1 </dev/null
echo "@@EXIT=$?" >$out
busybox poweroff -f
"""


def root(mirror: Mirror, architecture: Architecture, cache: Path) -> Path:
    """The image of the guests' root: a Debian without FLAK, with a Python and what FLAK and its tests need."""
    described = f"{ROOT_SUITE} {PACKAGES} {PYTHON} {REQUIREMENTS} {Path(__file__).read_text()}"
    image = cache / f"root-{architecture.debian}-{hashlib.sha256(described.encode()).hexdigest()[:12]}.ext4"
    if image.exists():
        return image
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        folder = Path(scratch) / "root"
        _unpack_root(mirror, architecture, folder, *PACKAGES)
        for place in ("flak", "opt/python", "proc", "sys", "dev", "run"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        )
        (folder / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        for useless in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt", "var/cache"):
            shutil.rmtree(folder / useless, ignore_errors=True)
        _install(architecture, folder / "opt/python", *REQUIREMENTS)
        _compile(mirror, cache, folder, f"usr/lib/python{PYTHON}", "opt/python")
        unfinished = Path(scratch) / image.name
        run("mke2fs", "-q", "-t", "ext4", "-d", str(folder), str(unfinished), "600M")
        for old in cache.glob(f"root-{architecture.debian}-*.ext4"):
            old.unlink()
        unfinished.rename(image)
    return image


def flak(architecture: Architecture, wheel: Path, folder: Path) -> Path:
    """The image that a guest has at /flak: the wheel, installed, the tests, and the programs that these run."""
    stage = folder / f"flak-{architecture.debian}"
    (stage / "site").mkdir(parents=True)
    _install(architecture, stage / "site", str(wheel), "--no-deps")
    shutil.copytree(
        TOP / "tests", stage / "tests", ignore=shutil.ignore_patterns("__pycache__", "unit", "soak", "fuzz")
    )
    (stage / "tests/unit").mkdir()
    for name in ("pyproject.toml",):
        shutil.copy(TOP / name, stage)
    workloads = stage / "workloads"
    workloads.mkdir()
    for source in sorted((TOP / "tests/workloads").glob("*.c")):
        if source.stem != "ia32" and (source.stem != "original" or architecture.machine == "x86_64"):
            options = ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
            run(architecture.compiler, *options, "-o", str(workloads / source.stem), str(source))
    start = stage / "init"
    start.write_text(START)
    start.chmod(0o755)
    image = folder / f"flak-{architecture.debian}.ext4"
    run("mke2fs", "-q", "-t", "ext4", "-d", str(stage), str(image), "64M")
    return image


def wheel_for(architecture: Architecture, folder: Path) -> Path:
    """FLAK's wheel in a folder that fits a machine best: its own one, else one for all. Raises Unavailable."""
    wheels = sorted(folder.glob("*.whl"))
    for ending in (f"_{architecture.machine}.whl", "-any.whl"):
        for wheel in wheels:
            if wheel.name.endswith(ending):
                return wheel
    raise Unavailable(f"no wheel for {architecture.machine} in {folder}")


def initramfs(kernel: Kernel, root_image: Path, folder: Path) -> Path:
    """The initramfs of a kernel: busybox from the root, the modules, and an init that finds the disks."""
    stage = folder / "initramfs"
    for place in ("bin", "modules", "proc", "sys", "dev", "new"):
        (stage / place).mkdir(parents=True)
    run("debugfs", "-R", f"dump /usr/bin/busybox {stage}/bin/busybox", str(root_image))
    (stage / "bin/busybox").chmod(0o755)
    for number, module in enumerate(kernel.modules):
        (stage / "modules" / f"{number:02}-{module.name.split('.ko')[0]}.ko").write_bytes(module_bytes(module))
    (stage / "init").write_text(INIT)
    (stage / "init").chmod(0o755)
    archive = folder / "initramfs.cpio"
    with archive.open("wb") as file:
        names = "".join(f"{path.relative_to(stage)}\0" for path in sorted(stage.rglob("*")))
        cpio = ["cpio", "-0", "-o", "-H", "newc", "--quiet", "-R", "0:0"]
        subprocess.run(cpio, cwd=stage, input=names.encode(), stdout=file, check=True)
    return archive


def _install(architecture: Architecture, folder: Path, *what: str) -> None:
    """Install with pip for another machine's Python."""
    platforms = [f"--platform={tag}" for tag in architecture.wheel_tags]
    run(
        *(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"),
        *("--target", str(folder), "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"),
        *platforms,
        *what,
    )


def _compile(mirror: Mirror, cache: Path, folder: Path, *places: str) -> None:
    """Compile the Python modules of a root, which guests would do again at each start, in seconds. Bytecode is the same
    on all machines, so the same Python as the root's does it, built for this one.
    """
    here = next((a for a in ARCHITECTURES.values() if a.machine == platform.machine()), None)
    if here is None:
        return
    native = cache / f"python-{ROOT_SUITE}"
    if not native.exists():
        unfinished = native.with_suffix(f".{os.getpid()}")
        _unpack_root(mirror, here, unfinished, "base-files", "python3-minimal", "libpython3-stdlib")
        unfinished.rename(native)
    inside = native / f"work.{os.getpid()}"
    folder.rename(inside)
    try:
        options = ["-q", "-s", f"/{inside.name}", "-p", "/", "--invalidation-mode=unchecked-hash"]
        command = ["python3", "-m", "compileall", *options, *(f"/{inside.name}/{place}" for place in places)]
        subprocess.run(["chroot", str(native), *command], check=False, stdin=subprocess.DEVNULL)
    finally:
        inside.rename(folder)


def _unpack_root(mirror: Mirror, architecture: Architecture, folder: Path, *packages: str) -> None:
    """Unpack packages with all they need. Nothing of them is run, so they may be of another architecture."""
    run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--architectures={architecture.debian}"),
        *(f"--include={','.join(packages)}", ROOT_SUITE, str(folder), mirror.source(ROOT_SUITE)),
    )
