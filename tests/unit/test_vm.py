"""The kernel matrix, as far as no guest is needed: which packages are taken, and what counts as a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.vm import inside, kernels, matrix
from tests.vm.guests import Guest, _reports
from tests.vm.images import ARCHITECTURES, wheel_for

NAMES = [
    "linux-image-5.10.0-46-cloud-amd64",
    "linux-image-6.1.0-9-cloud-amd64",
    "linux-image-6.1.0-56-cloud-amd64",
    "linux-image-6.12.117+deb13-cloud-amd64",
    "linux-image-6.17.13+deb13-cloud-amd64",
    "linux-binary-7.3.4+deb13-cloud-amd64",
    "linux-binary-7.2.12+deb13-cloud-amd64",
]


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ("5.10", "linux-image-5.10.0-46-cloud-amd64"),
        ("6.1", "linux-image-6.1.0-56-cloud-amd64"),
        ("6.18", "linux-image-6.17.13+deb13-cloud-amd64"),  # there is none: the nearest
        ("newest", "linux-binary-7.3.4+deb13-cloud-amd64"),
    ],
)
def test_the_newest_package_of_a_series_is_tried_first(wanted: str, first: str) -> None:
    assert kernels._candidates(NAMES, wanted)[0] == first


def test_a_module_is_loaded_behind_those_it_needs(tmp_path: Path) -> None:
    needs = {"a": "b,c-d", "b": "", "c_d": "b"}
    files = {}
    for name, others in needs.items():
        files[name] = tmp_path / f"{name}.ko"
        files[name].write_bytes(b"\x7fELF\0license=GPL\0depends=" + others.encode() + b"\0name=x\0")
    assert [path.stem for path in kernels._in_order(files, ("a", "built_in", "b"))] == ["b", "c_d", "a"]


def guest(reports: list[dict[str, Any]], status: int | None, refusal: str = "") -> Guest:
    kernel = kernels.Kernel("6.12", "6.12.1-cloud", Path("vmlinuz"), ())
    return Guest(ARCHITECTURES["amd64"], kernel, refusal=refusal, status=status, reports=reports, console="panic: why")


PASSED = {"test": "x", "outcome": "passed"}
REFUSED = {"served": {}, "error": "no maple tree", "said": "error: no maple tree\nhint: use Linux 6.1 or newer"}


@pytest.mark.parametrize(
    ("guest", "expected"),
    [
        (guest([PASSED], 0), None),
        (guest([], 0), "status 0"),  # nothing was tested
        (guest([PASSED], 1), "status 1"),
        (guest([PASSED], None), "panic: why"),
        (guest([REFUSED], 100, "Linux 6.1 or newer"), None),
        (guest([REFUSED], 100, "lockdown"), "no maple tree"),
        (guest([PASSED], 0, "lockdown"), "status 0"),
        (guest([REFUSED], 100), "status 100"),
    ],
)
def test_a_guest_that_said_nothing_tested_nothing_or_refused_unasked_has_failed(
    guest: Guest, expected: str | None
) -> None:
    failure = guest.failure()
    assert failure is None if expected is None else failure and expected in failure


def test_every_file_that_a_variant_names_has_tests_in_the_subset() -> None:
    every = inside.subset(())
    for variants in matrix.VARIANTS.values():
        for modules in variants.values():
            chosen = inside.subset(modules)
            assert {test.partition("::")[0] for test in chosen} == set(modules or (t.partition("::")[0] for t in every))
            assert set(chosen) <= set(every)


def test_a_guest_that_takes_longer_starts_first() -> None:
    kernel = {
        release: kernels.Kernel(release, f"{release}.1-cloud", Path("vmlinuz"), ())
        for release in ("5.10", "6.12", "7.3")
    }
    amd64, arm64 = ARCHITECTURES["amd64"], ARCHITECTURES["arm64"]
    guests = [
        Guest(amd64, kernel["5.10"], refusal="too old"),
        Guest(amd64, kernel["6.12"]),
        Guest(amd64, kernel["6.12"], "lockdown=integrity", modules=("test_reads.py",)),
        Guest(amd64, kernel["7.3"]),
        Guest(arm64, kernel["6.12"]),
        Guest(arm64, kernel["7.3"]),
    ]
    assert [guest.name for guest in sorted(guests, key=matrix.slowness, reverse=True)] == [
        "7.3 aarch64",
        "6.12 aarch64",
        "7.3 x86_64",
        "6.12 x86_64",
        "6.12 x86_64, lockdown=integrity",
        "5.10 x86_64",
    ]


def test_reports_are_told_from_what_else_is_printed() -> None:
    lines = ["warming up", '@@{"test": "x", "outcome": "failed"}', ".F", "@@EXIT=1"]
    assert list(_reports(lines)) == [{"test": "x", "outcome": "failed"}, {"status": 1}]


@pytest.mark.parametrize("line", ['@@{"test": "y", "outc', "@@EXIT=", "@@"])
def test_a_report_cut_off_where_the_guest_was_killed_is_none(line: str) -> None:
    assert list(_reports(['@@{"test": "x", "outcome": "passed"}', line])) == [{"test": "x", "outcome": "passed"}]


def test_a_wheel_of_the_machine_is_better_than_one_for_all(tmp_path: Path) -> None:
    for name in ("flak-1-py3-none-any.whl", "flak-1-py3-none-manylinux2014_x86_64.whl"):
        (tmp_path / name).touch()
    assert "x86_64" in wheel_for(ARCHITECTURES["amd64"], tmp_path).name
    assert "any" in wheel_for(ARCHITECTURES["arm64"], tmp_path).name
