"""Each hazard has tests that are there, and a row in docs/limits.md that says which."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.hazards import HAZARDS

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


@cache
def names_in(module: str) -> set[str]:
    """The tests of a module, "kernel/names", without "test_"."""
    folder, name = module.split("/")
    nodes = ast.walk(ast.parse((TESTS / folder / f"test_{name}.py").read_text()))
    return {node.name.removeprefix("test_") for node in nodes if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("hazard", "tests"),
    HAZARDS.items(),
    ids=[f"{number:02}_{re.sub('[^a-z0-9]+', '_', name)}" for number, name in enumerate(HAZARDS, 1)],
)
def test_hazard(hazard: str, tests: tuple[str, ...]) -> None:
    assert tests, hazard
    for test in tests:
        module, function = test.split("::")
        assert function in names_in(module), test


def test_there_are_25_of_them() -> None:
    assert len(HAZARDS) == 25


def test_every_test_that_is_named_after_a_hazard_is_registered() -> None:
    named = {name for name in names_in("kernel/hazards") if name.startswith("hazard_")}
    registered = {
        test.split("::")[1]: number
        for number, tests in enumerate(HAZARDS.values(), 1)
        for test in tests
        if test.startswith("kernel/hazards::")
    }
    assert named == registered.keys()
    for name, number in registered.items():
        assert name.startswith(f"hazard_{number:02}_")


def test_the_table_in_the_limits_says_the_same() -> None:
    section = (DOCS / "limits.md").read_text().split("\n## Hazards\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    assert [(int(number), name) for number, name, _, _ in rows] == list(enumerate(HAZARDS, 1))
    for (_, name, does, where), tests in zip(rows, HAZARDS.values(), strict=True):
        assert does
        modules = {test.split("::")[0] for test in tests}
        assert set(re.findall(r"`([a-z0-9_/]+)`", where)) == modules, name


def test_the_tests_that_trust_rests_on_are_there() -> None:
    named = set(re.findall(r"`((?:kernel|unit)/\w+)`", (DOCS / "trust.md").read_text()))
    assert len(named) > 20
    for module in named:
        assert names_in(module), module
