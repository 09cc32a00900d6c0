"""Debian's packages, of suites and architectures that this host does not use.

An apt of its own does the work: with sources, lists and a cache in a folder, and the host's mirror, proxy and keys. It
checks signatures as ever. Nothing of the host's apt is changed.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

SUITES = (
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "trixie",
    "trixie-security",
    "trixie-backports",
)
"""Where kernels are looked for; the root of the guests comes from `ROOT_SUITE`."""

ROOT_SUITE = "trixie"


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

    def source(self, suite: str) -> str:
        """The line of a sources.list for a suite."""
        where = self.security if suite.endswith("-security") else self.archive
        return f"deb [signed-by={KEYRING}] {where} {suite} main"


class Archive:
    """Debian's packages of one architecture ("amd64", "arm64")."""

    def __init__(self, mirror: Mirror, architecture: str, folder: Path) -> None:
        """folder: where lists and packages are kept. Raises Unavailable when the lists cannot be had."""
        self.architecture = architecture
        self.folder = folder
        self.packages = folder / "packages"
        for place in (folder / "lists/partial", folder / "cache/archives/partial", self.packages):
            place.mkdir(parents=True, exist_ok=True)
        sources, status = folder / "sources.list", folder / "status"
        sources.write_text("".join(mirror.source(suite) + "\n" for suite in SUITES))
        status.touch()
        self._configuration = folder / "apt.conf"
        self._configuration.write_text(
            f"""APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
#clear APT::Default-Release;
Acquire::Languages "none";
Acquire::Retries "2";
APT::Sandbox::User "root";
Dir::Etc::SourceList "{sources}";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "{folder}/lists";
Dir::State::Status "{status}";
Dir::Cache "{folder}/cache";
"""
        )
        self._apt("apt-get", "update", "-qq")

    def names(self, pattern: str) -> list[str]:
        """Names of all packages that match a regular expression."""
        return self._apt("apt-cache", "search", "--names-only", pattern, "-n").splitlines()

    def unpack(self, package: str) -> Path:
        """The folder with a package's files, downloaded when they are not there yet. Raises Unavailable."""
        folder = self.packages / package
        if folder.exists():
            return folder
        unfinished = self.packages / f".{package}.{os.getpid()}"
        unfinished.mkdir()
        self._apt("apt-get", "download", "-qq", package, cwd=unfinished)
        (deb,) = unfinished.glob("*.deb")
        run("dpkg-deb", "-x", str(deb), str(unfinished))
        deb.unlink()
        unfinished.rename(folder)
        return folder

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        return run(command[0], "-c", str(self._configuration), *command[1:], cwd=cwd)


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
