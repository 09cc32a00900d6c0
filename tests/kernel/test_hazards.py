"""Hazards to a tracer's numbers that no other test meets. tests/hazards.py has all, and where each is tested."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from flak import bpf
from flak.events import Access, Close, Open, Read

from .conftest import Traced
from .running import flak_environment

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

ENVIRONMENT = flak_environment()


def test_hazard_03_a_path_that_changes_while_it_is_opened(traced: Traced, folder: Path) -> None:
    files = [folder / "0", folder / "1"]
    for file in files:
        file.write_bytes(b"x")
    run = traced("flip", folder, 20_011, events=["open"])
    path_of = {file.stat().st_ino: str(file) for file in files}
    opened = [e for e in run.of(Open) if e.ino in path_of]
    assert [e.ino for e in opened] == [step["ino"] for step in run.steps]
    assert all(e.path == path_of[e.ino] for e in opened), "the path is that of the file which was opened"
    assert not any("path_claimed" in e.marks for e in opened)
    assert min(Counter(e.ino for e in opened).values()) > 100, "the path hardly changed: the test proved nothing"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root distrusts its environment")
def test_hazard_11_root_loads_no_library_that_the_environment_names(tmp_path: Path) -> None:
    planted = tmp_path / "libbpf.so.1"
    planted.write_bytes(b"not a library")
    done = subprocess.run(
        [sys.executable, "-m", "flak", "record", "-o", tmp_path / "run.flak", "--", "true"],
        capture_output=True, text=True, timeout=20, env=ENVIRONMENT | {"FLAK_LIBBPF": str(planted)}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(planted) not in done.stderr


def test_hazard_13_calls_through_the_32_bit_entry_are_counted_not_misread(traced: Traced, indexed: Path) -> None:
    run = traced("ia32", indexed)
    if run.output == "none\n":
        pytest.skip("this kernel has no 32-bit entry")
    assert run.stats.not_decoded["compat32"] == 1 + 7 + 1
    seen = [e for e in run.on(indexed) if not isinstance(e, Close)]
    assert [(type(e), e.size_ret) for e in seen] == [(Open, None)] + 5 * [(Read, 3)]
    assert [e.file_offset for e in seen if isinstance(e, Read)] == [0, 3, 6, 9, 12], "the second open began anew"
    assert not [e for e in run.of(Access) if e.op in ("close", "newfstat", "newlstat") and e.errno == "EBADF"]
    assert run.stats.is_exact


def test_hazard_22_skipped_programs_forbid_to_say_that_nothing_was_lost(
    traced: Traced, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf.BpfObject, "recursion_misses", lambda self, programs: 3)
    run = traced("preads", indexed, 101, 1)
    assert run.stats.recursion_misses == 3
    assert run.stats.is_exact, "they lie outside the equations"
    planted = "from flak import bpf; bpf.BpfObject.recursion_misses = lambda self, programs: 3"
    script = f"import sys; {planted}; from flak.cli import main; sys.exit(main())"
    words = ["record", "--on-loss", "fail", "-o", str(indexed.with_suffix(".flak")), "--", "true"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=20, env=ENVIRONMENT
    )
    assert done.returncode == 4
    assert "unknown lost, 3 recursion misses" in done.stderr
    assert "0 lost" not in done.stderr
