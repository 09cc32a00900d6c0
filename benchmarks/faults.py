"""What a page fault costs while faults are traced: of anonymous memory, which is not recorded, and of a mapped file."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import Comparison, interleave
from benchmarks.tables import Section, Verdict
from benchmarks.workloads import Cost, write_pages
from flak.errors import AttachError, LoadError

UNTRACED, FLOOR, FIND_VMA, FLAK = "untraced", "empty program", "bpf_find_vma alone", "flak record"
FILE_PAGES = 8192
LIMIT = 1.3
EXPLANATION = f"""\
Anonymous memory is no file: its faults are looked at and not recorded. The mapped file has {FILE_PAGES:,} small folios
in the page cache, so a fault maps a window of them around the page that was read. FLAK finds the mapping of a fault by
walking the maple tree; bpf_find_vma(), alone in a program at the same hook, is what it would cost otherwise."""


def measure(bench: Bench) -> Section:
    """CPU time per fault, of one toucher after the other."""
    file = write_pages(bench.disk / "pages", FILE_PAGES)
    count = bench.rounds(15, 3)
    pages = bench.rounds(4, 2)
    touchers = {
        "anonymous page, written": bench.workloads.command("loops", "anon", pages * 16384),
        "page of a mapped file, read": bench.workloads.command("loops", "mapped", pages * 32 * FILE_PAGES, file),
    }
    body, verdicts = [], []
    for touch, command in touchers.items():
        rounds = interleave(bench, f"faults ({touch})", _ways(bench, command), count)
        # All rounds: which memory the kernel hands out moves the baseline more than other programs do.
        cpu = Comparison(rounds, lambda cost: cost.cpu_ns_per_fault, UNTRACED, tolerance=math.inf)
        for name in cpu.names:
            added = [cpu.added(name).text(), tables.times(cpu.ratio(name))] if name != UNTRACED else ["", ""]
            body.append([f"{touch}, {name}", cpu.cost(name).text(), *added])
        ratio, added_ns = cpu.ratio(FLAK), cpu.added(FLAK)
        if touch.startswith("anonymous"):
            is_met = ratio.median <= LIMIT
            verdicts.append(
                Verdict("an anonymous page toucher, faults traced", f"≤ {LIMIT}x", tables.times(ratio), is_met)
            )
        else:
            verdicts.append(Verdict("a toucher of a cached mapping", "", f"+{added_ns.text()} ns a fault"))
    table = tables.table(["fault", "CPU ns a fault", "added ns", "against untraced"], body)
    return Section("A page fault", [EXPLANATION, table], verdicts)


def _ways(bench: Bench, command: list[str]) -> dict[str, Callable[[], Cost]]:
    def under(program: str) -> Cost:
        with tracers.attached(bench, program):
            return tracers.run(command)

    ways = {UNTRACED: partial(tracers.run, command)}
    if _has_fault_tracepoint(bench):
        ways |= {FLOOR: partial(under, "floor_fault"), FIND_VMA: partial(under, "floor_find_vma")}
    return ways | {FLAK: lambda: Cost.told(tracers.record(bench, command).output)}


def _has_fault_tracepoint(bench: Bench) -> bool:
    """page_fault_user is of x86 only."""
    try:
        with tracers.attached(bench, "floor_fault"):
            return True
    except (AttachError, LoadError):
        return False
