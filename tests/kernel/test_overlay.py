"""Overlay filesystems: a file has one identity for read(2) and another for mapped pages, and must be one file here."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from flak.events import Fault, Mmap, Read

from .running import Run, Workloads, trace_command, write_pages

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("sees_faults")]

PAGES = 257


class Overlay:
    """An overlay that is mounted anew by each command, in a mount namespace of that command's own."""

    def __init__(self, folder: Path) -> None:
        self.lower, self.upper, self.work, self.merged = (folder / n for n in ("lower", "upper", "work", "merged"))
        for part in (self.lower, self.upper, self.work, self.merged):
            part.mkdir()

    def command(self, command: list[str]) -> list[str]:
        """A command that mounts it and then becomes the one given."""
        options = f"lowerdir={self.lower},upperdir={self.upper},workdir={self.work}"
        mount = f"mount -t overlay overlay -o {shlex.quote(options)} {shlex.quote(str(self.merged))}"
        return ["unshare", "-m", "sh", "-c", f"{mount} && exec {shlex.join(command)}"]


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    overlay = Overlay(tmp_path)
    tried = subprocess.run(overlay.command(["true"]), capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"an overlay filesystem cannot be mounted here: {tried.stderr.strip()}")
    return overlay


@pytest.fixture(params=["lower", "upper"])
def run(request: pytest.FixtureRequest, overlay: Overlay, workloads: Workloads, tmp_path: Path) -> Run:
    """A file that is in one of the layers, read and then touched through a map, by its name in the overlay."""
    write_pages(getattr(overlay, request.param) / "file", PAGES + 3)
    command = workloads.command("maps", "both", overlay.merged / "file", PAGES)
    return trace_command(overlay.command(command), tmp_path)


def test_every_read_and_fault_has_the_name_in_the_overlay(run: Run, overlay: Overlay) -> None:
    touch = run.step("touch")
    assert len(run.on(overlay.merged / "file", Read)) == 11
    assert len(run.on(overlay.merged / "file", Fault)) == touch["minflt"] + touch["majflt"]


def test_a_file_read_and_mapped_is_one_file(run: Run, overlay: Overlay) -> None:
    seen = [e for e in run.of(Read, Mmap, Fault) if e.path and e.path.endswith("/file")]
    assert {type(e) for e in seen} == {Read, Mmap, Fault}
    assert len({e.file_id for e in seen}) == 1
    assert {e.path for e in seen} == {str(overlay.merged / "file")}
