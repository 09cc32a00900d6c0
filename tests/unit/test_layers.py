"""Imports point one way (docs/architecture.md), and the command line imports no more than it needs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import flak

PACKAGE = Path(flak.__file__).parent

LAYERS = [
    {"_host", "_records", "_safe_path", "errors", "packed", "text"},
    {"archive"},
    {"events", "outlets"},
    {"wire", "jsontext", "notes", "terminal", "_libbpf", "_skeleton", "cgroups", "comms", "target"},
    {"bpf", "containers", "filters", "lines", "selection", "analysis"},
    {"probes", "columns", "drain", "folded", "redaction", "tally", "tracefile", "watch"},
    {"pending", "preflight", "privileges", "roster"},
    {"session"},
    {"sinks", "report", "trial"},
    {"cli"},
]
"""From the bottom up. A module imports from lower layers; what is in one layer does not know its neighbours."""

SPECIAL = {"__init__", "__main__"}
"""The package itself gives out names of every layer, on demand; `python -m flak` is the command line."""

FORBIDDEN = {"analysis": {"wire", "target", "_libbpf", "_skeleton"}, "sinks": {"session"}, "report": {"session"}}
"""Lower layers that a module is to know nothing of all the same."""


def modules() -> Iterator[tuple[str, Path]]:
    """(unit, file): a module of the package, or each file of a subpackage under the subpackage's name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield parts[0], path


def imported_units(path: Path) -> set[str]:
    """Units of flak that a file imports anywhere, "" for the package itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"flak.{alias.name}" for alias in node.names] if node.module == "flak" else [node.module or ""]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("flak.")}
    return found


def layer_of(unit: str) -> int:
    return next(level for level, units in enumerate(LAYERS) if unit in units)


@pytest.mark.parametrize(("unit", "path"), list(modules()), ids=lambda value: str(value).removeprefix(f"{PACKAGE}/"))
def test_imports_point_down(unit: str, path: Path) -> None:
    if unit in SPECIAL:
        return
    for imported in imported_units(path) - {unit, "__version__"}:
        assert layer_of(imported) < layer_of(unit), f"{unit} must not know {imported}"
        assert imported not in FORBIDDEN.get(unit, set()), f"{unit} must not know {imported}"


def test_every_module_has_a_layer() -> None:
    assert {unit for unit, _ in modules()} - SPECIAL <= set().union(*LAYERS)


def test_the_graph_in_the_architecture_says_the_same() -> None:
    document = (PACKAGE.parents[1] / "docs/architecture.md").read_text()
    graph = document.partition("    cli ─►")[2].partition("\n\n")[0].partition("analysis ─►")[0]
    levels = [[layer_of(unit.strip()) for unit in group.split(",")] for group in f"cli ─►{graph}".split("─►")]
    for upper, lower in pairwise(levels):
        assert min(upper) > max(lower)


def third_party(path: Path) -> set[str]:
    """Packages from elsewhere that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"flak"}


def test_dependencies_stay_where_they_belong() -> None:
    allowed = {"analysis": {"numpy"}, "cli": {"typer"}}
    for unit, path in modules():
        assert third_party(path) <= allowed.get(unit, set()), path


def test_ctypes_stays_in_two_files() -> None:
    for _, path in modules():
        if path.stem not in ("_libbpf", "bpf"):
            assert "ctypes" not in path.read_text(), path


def imported_by(*arguments: str) -> set[str]:
    """Modules that a run of the command line has imported when it ends."""
    program = f"""
import sys
from flak.cli import main
try:
    main({list(arguments)!r})
finally:
    print(*sys.modules, file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    return set(done.stderr.split())


def test_version_imports_neither_typer_nor_capture() -> None:
    assert not imported_by("--version") & {"typer", "numpy", "flak.session", "flak.bpf", "ctypes"}


@pytest.mark.parametrize("verb", ["trace", "record", "dump", "doctor"])
def test_help_imports_neither_numpy_nor_capture(verb: str) -> None:
    unused = {"numpy", "rich", "flak.session", "flak.bpf", "flak.analysis", "flak.cli.reference", "flak.cli.roff"}
    assert not imported_by(verb, "--help") & unused


@pytest.mark.parametrize(
    "arguments", [["trace", "-p", "4194304"], ["record", "-o", "/no/x", "-p", "1"], ["dump", "/no"]]
)
def test_a_run_begins_without_numpy(arguments: list[str]) -> None:
    modules_seen = imported_by(*arguments)
    assert "flak.tracefile" in modules_seen
    assert not modules_seen & {"numpy", "rich", "flak.analysis"}
