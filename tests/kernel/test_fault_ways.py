"""Page faults are seen in one of several ways: the same program gives the same records in each that a kernel has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flak import probes
from flak.errors import FlakError
from flak.events import Fault

from .conftest import Traced
from .running import PAGE, Run, write_pages

pytestmark = [pytest.mark.kernel]

PAGES = 257


@pytest.fixture(params=probes.FAULTS, ids=lambda way: way.name)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> probes.Alternative:
    """The only way there is in this test."""
    way: probes.Alternative = request.param
    monkeypatch.setattr(probes, "FAULTS", (way,))
    return way


def run_in(way: probes.Alternative, traced: Traced, *args: object, **options: Any) -> Run:
    """A run of tests/workloads/maps.c whose faults were seen in that way; a skip says why the kernel has it not."""
    try:
        run = traced("maps", *args, **options)
    except FlakError as error:
        pytest.skip(f"{way.name}: {error.message.splitlines()[0]}")
    if "page faults" in run.missing:
        pytest.skip(f"{way.name}: {run.missing['page faults']}")
    return run


@pytest.mark.parametrize("variant", ["private", "window", "read", "shared"])
def test_faults_are_those_that_the_kernel_accounts(
    way: probes.Alternative, traced: Traced, tmp_path: Path, variant: str
) -> None:
    mapped = write_pages(tmp_path / "mapped", PAGES + 3)
    run = run_in(way, traced, variant, mapped, PAGES)
    touch = run.step("touch")
    faults = run.on(mapped, Fault)
    assert len(faults) == touch["minflt"] + touch["majflt"]
    assert {e.is_write for e in faults} == {variant != "read"}
    base = int(touch["addr"], 16) // PAGE
    first = min(touch["order"])
    pages = [e.file_offset // PAGE for e in faults]
    assert [int(e.addr, 16) // PAGE - base + first for e in faults] == pages
    rest = iter(touch["order"])
    assert all(page in rest for page in pages), "they come in the order in which the program touched its pages"
    assert all(e.latency_ns is None or 0 < e.latency_ns < 10_000_000_000 for e in faults)
