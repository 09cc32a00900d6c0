"""How long until the command's first instruction, where the time goes, and how much memory FLAK takes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from unittest.mock import patch

import flak
from benchmarks import tables, tracers
from benchmarks.bench import Bench
from benchmarks.rounds import interleave
from benchmarks.spread import Spread
from benchmarks.tables import Section, Verdict
from benchmarks.workloads import output_of
from flak.bpf import BpfObject

LIMIT_LOADED_MS, LIMIT_START_MS = 30, 100
PYTHON, VERSION, UNTRACED, STRACE = "python -c pass, to its end", "flak --version, to its end", "untraced", "strace -f"
TRACE, RECORD = "flak trace", "flak record"
ENTERED = "Session entered"
LOAD, REST = "load: maps, relocation, verifier", "the rest: the kernel's types, who is a target"
STEPS = {"__init__": "open the object", "load": LOAD, "attach": "attach the programs"}
ALL = "all of it: the session is entered"


def measure(bench: Bench) -> Section:
    """Start-up by the wall clock, then memory."""
    count = bench.rounds(15, 9)
    environment = _environment(bench.disk / "pycache")
    stamp = str(bench.workloads.program("stamp"))
    flak = _flak()
    recording = str(bench.data / "start.flak")
    trace, record = ([*flak, verb, "--user", "root", "-q"] for verb in ("trace", "record"))
    trace += ["--no-summary", "-o", os.devnull, "--force", "--"]
    record += ["-o", recording, "--force", "--"]
    to_end = partial(_until_end, environment)
    to_stamp = partial(_until_stamp, environment)
    ways: dict[str, Callable[[], Mapping[str, float]]] = {
        PYTHON: lambda: to_end([sys.executable, "-c", "pass"]),
        VERSION: lambda: to_end([*flak, "--version"]),
        UNTRACED: lambda: to_stamp([stamp]),
        TRACE: lambda: to_stamp([*trace, stamp]),
        RECORD: lambda: to_stamp([*record, stamp]),
        ENTERED: _enter,
    }
    if shutil.which("strace"):
        ways[STRACE] = lambda: to_stamp(["strace", "-f", "-o", os.devnull, stamp])
    for way in ways.values():
        way()  # once unmeasured: byte code and files get cached
    rounds = interleave(bench, "startup", ways, count)

    def ms(way: str, figure: str = "ms") -> Spread:
        return Spread.of([each[way][figure] for each in rounds])

    starts = [[name, ms(name).text(".1f"), f"{ms(name).minimum:.1f}"] for name in ways if name != ENTERED]
    steps = [[what, ms(ENTERED, what).text(".1f"), f"{ms(ENTERED, what).minimum:.1f}"] for what in rounds[0][ENTERED]]
    loaded, started = ms(ENTERED, LOAD), ms(TRACE)
    return Section(
        "Start-up and memory",
        [
            "From the start of the process to the first instruction of the command's `main`, which is traced by then:",
            tables.table(["start", "ms", "least"], starts),
            "In a Python that runs already, for a process that sleeps:",
            tables.table(["step", "ms", "least"], steps),
            "Peak resident memory (VmHWM) of the process that traces; the rings are mapped, and count as far as used:",
            tables.table(["when", "MiB"], _memory(bench, environment, trace, record)),
        ],
        [
            Verdict(
                "all programs loaded",
                f"≤ {LIMIT_LOADED_MS} ms",
                f"{loaded.text('.0f')} ms, least {loaded.minimum:.0f}",
                loaded.median <= LIMIT_LOADED_MS,
            ),
            Verdict(
                "flak trace, start to attached",
                f"≤ {LIMIT_START_MS} ms",
                f"{started.text('.0f')} ms, least {started.minimum:.0f}",
                started.median <= LIMIT_START_MS,
            ),
        ],
    )


def _environment(cache: Path) -> dict[str, str]:
    """With compiled Python cached, as an installation has it, but outside of the tree."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(cache)}


def _flak() -> list[str]:
    script = Path(sys.executable).with_name("flak")
    return [str(script)] if script.exists() else [sys.executable, "-m", "flak"]


def _until_end(environment: Mapping[str, str], command: list[str]) -> dict[str, float]:
    begin = time.monotonic_ns()
    output_of(command, environment)
    return {"ms": (time.monotonic_ns() - begin) / 1e6}


def _until_stamp(environment: Mapping[str, str], command: list[str]) -> dict[str, float]:
    begin = time.monotonic_ns()
    said = json.loads(output_of(command, environment))
    return {"ms": (said["began_ns"] - begin) / 1e6, "mib": said["parent_peak_kib"] / 1024}


def _enter() -> dict[str, float]:
    """Milliseconds of each step of entering a session, and of all of it."""
    spent = dict.fromkeys(STEPS.values(), 0.0)
    with contextlib.ExitStack() as stack:
        for method, what in STEPS.items():
            timed = _timed(getattr(BpfObject, method), spent, what)
            stack.enter_context(patch.object(BpfObject, method, timed))
        pid = stack.enter_context(tracers.sleeper())
        begin = time.monotonic_ns()
        with flak.trace(pid=pid):
            all_ms = (time.monotonic_ns() - begin) / 1e6
    return {**spent, REST: all_ms - sum(spent.values()), ALL: all_ms}


def _timed(method: Callable[..., None], spent: dict[str, float], what: str) -> Callable[..., None]:
    def call(*args: object, **options: object) -> None:
        begin = time.monotonic_ns()
        try:
            method(*args, **options)
        finally:
            spent[what] += (time.monotonic_ns() - begin) / 1e6

    return call


def _memory(bench: Bench, environment: Mapping[str, str], trace: list[str], record: list[str]) -> list[list[str]]:
    """When, and how much, for the verbs with and without many events behind them."""
    file = bench.data / "page"
    file.write_bytes(bytes(4096))
    stamp = str(bench.workloads.program("stamp"))
    events = 500_000
    busy = [stamp, *bench.workloads.command("preads", file, events, 1)]
    rows = []
    for what, command in (
        ("flak trace, when the command begins", [*trace, stamp]),
        (f"flak trace, after {events:,} preads, each printed", [*trace, *busy]),
        ("flak record, when the command begins", [*record, stamp]),
        (f"flak record, after {events:,} preads", [*record, *busy]),
    ):
        rows.append([what, f"{_until_stamp(environment, command)['mib']:.0f}"])
    return rows
