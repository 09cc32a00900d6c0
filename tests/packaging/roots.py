"""Debian and Ubuntu systems in folders, to install FLAK in: of any release, with nothing but what is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.debian import Mirror, Unavailable

UBUNTU = ("noble",)
UBUNTU_KEYRING = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")


def why_not(release: str = "") -> str:
    """Why this machine cannot make such systems, or one of a release, "" when it can."""
    if os.geteuid():
        return "makes file systems to chroot into, which takes root"
    if not shutil.which("debootstrap"):
        return "debootstrap is not installed: apt install debootstrap"
    if release in UBUNTU:
        if not os.environ.get("FLAK_UBUNTU_MIRROR"):
            return f"FLAK_UBUNTU_MIRROR names no mirror of Ubuntu to have {release} from"
        return "" if UBUNTU_KEYRING.exists() else f"{UBUNTU_KEYRING} is missing, a file of Ubuntu's ubuntu-keyring"
    try:
        Mirror.of_host()
    except Unavailable as error:
        return f"{error}: run apt-get update on a Debian system"
    return ""


class Root:
    """A system in a folder. Commands run in a mount namespace of their own, so no mount stays behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, path: Path, release: str, packages: Sequence[str] = ()) -> Root:
        """A new system with apt and some packages."""
        command = ["debootstrap", "--variant=minbase", *([f"--include={','.join(packages)}"] if packages else [])]
        if release in UBUNTU:
            command += ["--components=main,universe", f"--keyring={UBUNTU_KEYRING}"]
            source = [os.environ["FLAK_UBUNTU_MIRROR"], "/usr/share/debootstrap/scripts/gutsy"]  # it is for all since
        else:
            source = [Mirror.of_host().archive]
        made = subprocess.run([*command, release, str(path), *source], capture_output=True, text=True, timeout=1200)
        assert not made.returncode, made.stdout[-2000:]
        return cls(path)

    def run(self, script: str, *, offline: bool = False) -> str:
        """Standard output of a shell script in there, which reaches no network if that is asked for."""
        mounts = 'mount -t proc proc "$0/proc" && mount --rbind /sys "$0/sys" && exec chroot "$0" sh -c "$1"'
        enter = ["unshare", "--mount", *(["--net"] if offline else []), "sh", "-c", mounts, str(self.path), script]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(enter, capture_output=True, text=True, env=environment, timeout=900)
        assert not done.returncode, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout
