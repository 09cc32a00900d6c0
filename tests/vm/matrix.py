"""The whole matrix: every kernel, two guests at a time; a summary, and the table of docs/kernels.md."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.build_libbpf import LibraryError
from tools.debian import Mirror, Unavailable
from tools.dist import make_dist

from . import images, kernels
from .debian import Archive
from .guests import Guest, boot

LIMIT = 600.0
"""Seconds a guest may take: what the slowest needs on an idle machine of two cores, several times over."""
AT_ONCE = 2
PAGE = images.TOP / "docs/kernels.md"
BEGIN, END = "<!-- made by make test-kernels -->", "<!-- end -->"
VARIANTS: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("amd64", "6.12"): {
        "lockdown=integrity": (
            "test_reads.py",
            "test_fault_ways.py",
            "test_names.py",
            "test_attach.py",
            "test_doctor.py",
        ),
        "lockdown=confidentiality": (),
    },
}
"""Kernels that are booted with these words too, and whose tests of the subset run there (of none: all)."""
REFUSALS = {"lockdown=confidentiality": "lockdown"}
"""What FLAK is to say where it cannot trace because of such a word."""
TOOLS = {
    "amd64": ("qemu-system-x86_64", "qemu-system-x86"),
    "arm64": ("qemu-system-aarch64", "qemu-system-arm"),
}
"""By architecture: what emulates it, and Debian's package with that."""


def main() -> int:
    """Run the guests that the command line asks for. The status is 1 when one failed, 2 when there were none."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", action="append", help="guests whose name has TEXT (6.12, aarch64, …)")
    parser.add_argument("--wheels", metavar="DIR", type=Path, help="FLAK's wheels; without, they are made of the tree")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.relative_to(images.TOP)}")
    parser.add_argument("tests", nargs="*", help="instead of the usual ones: arguments of pytest, of tests/kernel/")
    options = parser.parse_args()
    cache = Path(os.environ.get("FLAK_VM_CACHE") or Path.home() / ".cache/flak/vm")
    with tempfile.TemporaryDirectory(prefix="flak-vm-") as scratch:
        guests, missing = run(cache, Path(scratch), options.wheels, options.only or [""], options.tests)
    for reason in missing:
        print(f"not tried: {reason}")
    for guest in guests:
        print(summary(guest))
    failures = [failure for guest in guests if (failure := guest.failure())]
    print(*failures, sep="\n\n")
    if options.write and guests:
        write_table(guests, missing, options.tests)
    print(f"{len(guests) - len(failures)} guests passed, {len(failures)} failed, {len(missing)} could not be had")
    return 1 if failures else 0 if guests else 2


def run(
    cache: Path, scratch: Path, wheels: Path | None, only: Sequence[str], tests: Sequence[str]
) -> tuple[list[Guest], list[str]]:
    """Every guest whose name has one of the texts `only`, after its run, and what could not be had.

    cache: for what stays; scratch: for what does not. wheels: a folder with FLAK's wheels. tests: arguments of pytest.
    """
    mirror = Mirror.of_host()
    wheels = wheels or build_wheels(scratch / "wheels")
    guests: list[Guest] = []
    missing: list[str] = []
    disks: dict[str, list[Path]] = {}
    for architecture in images.ARCHITECTURES.values():
        name = architecture.debian
        program, package = TOOLS[name]
        if not shutil.which(program) or not shutil.which(architecture.compiler):
            missing.append(f"{architecture.machine}: {program} ({package}) or {architecture.compiler} is not installed")
            continue
        try:
            found = kernels.find(Archive(mirror, name, cache / name))
            wanted = [
                guest
                for kernel in found
                if not isinstance(kernel, Unavailable)
                for guest in guests_of(architecture, kernel)
                if any(text in guest.name for text in only)
            ]
            missing += [str(reason) for reason in found if isinstance(reason, Unavailable)]
            if wanted:
                wheel = images.wheel_for(architecture, wheels)
                disks[name] = [images.root(mirror, architecture, cache), images.flak(architecture, wheel, scratch)]
                guests += wanted
        except Unavailable as reason:
            missing.append(f"{architecture.machine}: {reason}")

    def play(guest: Guest) -> Guest:
        """Boot it, and once more if it fails, for emulation is not exact (see guests.py); both attempts are shown."""
        root, flak = disks[guest.architecture.debian]
        for attempt in (1, 2):
            folder = scratch / f"{guest.name.replace(' ', '-')}-{attempt}"
            folder.mkdir()
            boot(guest, images.initramfs(guest.kernel, root, folder), (root, flak), tests, LIMIT)
            print(summary(guest), file=sys.stderr, flush=True)
            if not (failure := guest.failure()):
                break
            print(f"attempt {attempt}: {failure}", file=sys.stderr, flush=True)
        return guest

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(play, sorted(guests, key=slowness, reverse=True)))
    return guests, missing


def guests_of(architecture: images.Architecture, kernel: kernels.Kernel) -> Iterator[Guest]:
    """A kernel as it is, and with the words that it is to be booted with."""
    yield Guest(architecture, kernel)
    for variant, modules in VARIANTS.get((architecture.debian, kernel.wanted), {}).items():
        yield Guest(architecture, kernel, variant, modules, REFUSALS.get(variant, ""))


def slowness(guest: Guest) -> tuple[object, ...]:
    """To sort guests by how long they take, so that none starts late and ends alone: those that have most to do, then
    emulated Arm, then the newest kernel, whose verifier has most to check.
    """
    version = tuple(map(int, guest.kernel.series.split(".")))
    return not guest.refusal, not guest.modules, guest.architecture.machine == "aarch64", version


def build_wheels(folder: Path) -> Path:
    """Wheels of this tree, as they are published: guests have no libbpf but the one that is in them."""
    try:
        problems = list(make_dist(folder))
    except LibraryError as error:
        problems = [str(error)]
    if problems:
        raise Unavailable("; ".join(problems))
    return folder


def summary(guest: Guest) -> str:
    """A guest's result in one line."""
    counts = ", ".join(f"{len(guest.tests(outcome))} {outcome}" for outcome in ("passed", "failed", "skipped"))
    refused = f"; {guest.host['error']}" if "error" in guest.host else ""
    again = f", attempt {guest.attempts}" if guest.attempts > 1 else ""
    return f"{guest.name:40} {guest.kernel.release:32} {counts}, {guest.seconds:.0f} s{again}{refused}"


def write_table(guests: Iterable[Guest], missing: Iterable[str], tests: Sequence[str]) -> None:
    """Replace what stands between the marks of docs/kernels.md by what guests told. tests: if not the usual ones."""
    rows = [
        "| kernel | machine | page faults | io_uring | tests | not seen |",
        "|---|---|---|---|---|---|",
    ]
    for guest in guests:
        served, lost = guest.host.get("served", {}), guest.host.get("missing", {})
        skipped = len(guest.tests("skipped"))
        outcome = f"{len(guest.tests('passed'))} passed" + (f", {skipped} skipped" if skipped else "")
        if guest.refusal:
            outcome = "refused"
        if guest.tests("failed"):
            outcome = f"**{len(guest.tests('failed'))} failed**, {outcome}"
        if guest.status is None:
            outcome = "**no end**"
        if guest.attempts > 1:
            outcome += f", at attempt {guest.attempts}"
        cells = (
            guest.kernel.release,
            guest.architecture.machine + (f" {guest.variant}" if guest.variant else ""),
            served.get("page faults", "–"),
            served.get("io_uring", "–"),
            outcome,
            guest.host.get("said", "").replace("\n", "<br>") or "; ".join(lost) or "–",
        )
        rows.append(f"| {' | '.join(cells)} |")
    rows += [f"\nNot tried: {reason}." for reason in missing]
    if tests:
        names = ", ".join(f"`{test.removeprefix('tests/kernel/')}`" for test in tests)
        rows.append(f"\nThis was a short run, of these tests alone: {names}.")
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text("\n".join([f"{head}{BEGIN}", "", *rows, "", f"{END}{tail}"]))
