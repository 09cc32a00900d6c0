"""Where Debian's packages and sources are had from: the mirror that this host's apt uses, or one that is named."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """Something that this host or its mirror does not have, in one line."""


@dataclass(frozen=True)
class Mirror:
    """Where Debian is had from: the archive, and its security updates."""

    archive: str
    security: str

    @classmethod
    def of_host(cls) -> Mirror:
        """What the host's apt uses, or what FLAK_DEBIAN_MIRROR and FLAK_DEBIAN_SECURITY_MIRROR say.

        Raises Unavailable when neither names a mirror of Debian.
        """
        archive = os.environ.get("FLAK_DEBIAN_MIRROR", "")
        security = os.environ.get("FLAK_DEBIAN_SECURITY_MIRROR", "")
        if not archive:
            targets = run("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages")
            found = dict(line.split("|", 1) for line in reversed(targets.splitlines()))
            archive, security = found.get("Debian", ""), security or found.get("Debian-Security", "")
        if not archive:
            raise Unavailable("no mirror of Debian: this host's apt has none, and FLAK_DEBIAN_MIRROR is not set")
        return cls(archive.rstrip("/"), (security or archive.rstrip("/") + "-security").rstrip("/"))

    def source(self, suite: str, kind: str = "deb") -> str:
        """The line of a sources.list for a suite; `kind` is deb or deb-src."""
        where = self.security if suite.endswith("-security") else self.archive
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        return f"{kind} {signed}{where} {suite} main"


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command prints. Raises Unavailable, with the last line of its complaint, when it fails or is not there."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise Unavailable(f"{' '.join(command[:4])} …: {complaint[-1]}")
    return done.stdout
