"""The report: all subjects, what they have in common, and how to repeat it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks import machine, tables
from benchmarks.bench import Bench
from benchmarks.tables import Section

COMMAND = "make bench"

INTRODUCTION = """\
# Overhead

What FLAK costs the traced program, the others, and itself. This page is written by `{command}`, which measures
everything anew; nothing in it is estimated. The loops are the worst case: they do nothing but make the calls that are
traced. A program that works on what it reads pays the same nanoseconds a call and a far smaller ratio.
"""

METHOD = """\
## How it was measured

- Ways to run the same loop take turns within a round, in reversed order every other round; every ratio and every
  difference is against the untraced run of its own round. Figures are medians over the rounds, with the quartiles in
  parentheses.
- The traced thread is pinned to one CPU, FLAK's drain to another. Other tools run where they do best: strace on the
  CPU of what it traces (elsewhere it takes two to five times as long here), the others on any.
- CPU time is the traced thread's own (`CLOCK_THREAD_CPUTIME_ID`), taken inside the loop. Tools that make the traced
  program wait (strace, perf trace) are compared by wall time, from `CLOCK_MONOTONIC` around the same loop.
- Interference only ever adds. Rounds during which other processes or the hypervisor took over 10 % of the CPUs are
  repeated as far as time allows, and rounds whose untraced system calls took over 15 % more than the fastest ones are
  dropped. Before each round the harness waits until nobody else traces or keeps the CPUs busy.
- Recordings go to tmpfs, so that no disk is measured. Loops: `benchmarks/loops.c`, `tests/workloads/preads.c`.
- Empty programs (`benchmarks/floor.bpf.c`) are the floor under any tracer at these hooks: as soon as a program sits at
  the entry or exit of system calls, the kernel takes its slow path for every process.

## Limits

- One machine, one kernel. Where system calls are cheaper than here the same added nanoseconds make a larger ratio;
  compare ratios between rows, not nanoseconds between machines.
- A shared or virtual machine is noisy: look at the quartiles before you believe a difference.
- What a traced program loses to caches that FLAK's records pass through is in its CPU time; what a drain on another
  CPU takes from a program that needs that CPU too is not.
"""


def write(bench: Bench, sections: Sequence[Section], began: float) -> str:
    """The page."""
    facts = [
        *machine.facts(),
        ("date", time.strftime("%Y-%m-%d", time.gmtime(began))),
        ("repeat with", f"`{COMMAND}` ({(time.time() - began) / 60:.1f} minutes)"),
    ]
    if bench.disturbed:
        facts.append(("disturbed", f"in {bench.disturbed} of {bench.rounds_taken} rounds others kept the CPUs busy"))
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    parts = [
        INTRODUCTION.format(command=COMMAND).rstrip(),
        "\n".join(f"- {name}: {value}" for name, value in facts),
        "## Targets",
        tables.verdict_table(verdicts),
        *[section.text() for section in sections],
        METHOD.rstrip(),
    ]
    return "\n\n".join(parts) + "\n"
