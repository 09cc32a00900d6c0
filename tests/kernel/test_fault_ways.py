"""Page faults are seen in one of several ways: the same program gives the same records in each that a kernel has."""

from __future__ import annotations

from pathlib import Path

import pytest

from flak import probes
from flak.bpf import Btf
from flak.errors import FlakError
from flak.events import Fault

from .conftest import Runs, Together
from .running import PAGE, write_pages

pytestmark = [pytest.mark.kernel]

PAGES = 257
VARIANTS = ["private", "window", "read", "shared"]


def mapped(path: Path) -> None:
    write_pages(path, PAGES + 3)


@pytest.fixture(scope="module", params=probes.FAULTS, ids=lambda way: way.name)
def maps(request: pytest.FixtureRequest, together: Together) -> Runs:
    """Runs of tests/workloads/maps.c in one trace that sees faults in one way alone; a skip says why the kernel has it
    not.
    """
    way: probes.Alternative = request.param
    with Btf.of_kernel() as btf:
        if not way.is_possible(btf):
            pytest.skip(f"{way.name}: this kernel has none of the hooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "FAULTS", (way,))
        try:
            runs = together([("maps", variant, mapped, PAGES) for variant in VARIANTS])
        except FlakError as error:
            pytest.skip(f"{way.name}: {error.message.splitlines()[0]}")
    (reason,) = {run.missing.get("page faults") for run, _ in runs.values()}
    if reason:
        pytest.skip(f"{way.name}: {reason}")
    return runs


@pytest.mark.parametrize("variant", VARIANTS)
def test_faults_are_those_that_the_kernel_accounts(maps: Runs, variant: str) -> None:
    run, file = maps["maps", variant, mapped, PAGES]
    touch = run.step("touch")
    faults = run.on(file, Fault)
    assert len(faults) == touch["minflt"] + touch["majflt"]
    assert {e.is_write for e in faults} == {variant != "read"}
    base = int(touch["addr"], 16) // PAGE
    first = min(touch["order"])
    pages = [e.file_offset // PAGE for e in faults]
    assert [int(e.addr, 16) // PAGE - base + first for e in faults] == pages
    rest = iter(touch["order"])
    assert all(page in rest for page in pages), "they come in the order in which the program touched its pages"
    assert all(e.latency_ns is None or 0 < e.latency_ns < 10_000_000_000 for e in faults)
