"""Debian's packages, of suites and architectures that this host does not use.

An apt of its own does the work: with sources, lists and a cache in a folder, and the host's mirror, proxy and keys. It
checks signatures as ever. Nothing of the host's apt is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from tools.debian import Mirror, run

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
