"""Started in a folder of somebody else's, FLAK runs none of the modules that lie there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flak

PACKAGE = Path(flak.__file__).parent
GOLDEN = Path(__file__).parent.parent / "data" / "golden.flak"
HOSTILE = ("numpy", "typer", "click", "rich", "base64", "dataclasses", "typing_extensions", "json", "shlex", "ctypes")
"""Modules of others, and of the standard library that are not in memory when Python starts."""

VERBS = [["--version"], ["trace", "--help"], ["doctor", "--json"], ["dump", "-s", str(GOLDEN)]]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that tell when they are run."""
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text("import os\nos.write(1, b'HOSTILE ' + __name__.encode())\nos._exit(66)\n")
    return tmp_path


def python(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment}
    return subprocess.run([sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("option", [["-m", "flak"], ["-mflak"], ["-Bmflak"], ["-P", "-m", "flak"]], ids=" ".join)
def test_modules_of_the_current_folder_are_not_run(hostile: Path, option: list[str], verb: list[str]) -> None:
    done = python(hostile, *option, *verb)
    assert "HOSTILE" not in done.stdout
    assert done.returncode == 0 or verb[0] == "doctor"
    assert done.stdout


def test_they_would_have_been(hostile: Path) -> None:
    assert python(hostile, "-c", "import flak").stdout.startswith("HOSTILE")


@pytest.mark.parametrize(
    "program", ["import flak, sys; print(sys.path[0])", "import flak.cli, sys; print(sys.path[0])"]
)
def test_the_path_of_other_programs_is_left_alone(tmp_path: Path, program: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text("import flak\n")
    (tmp_path / "other" / "__main__.py").write_text(program)
    for arguments in ([], ["flak"], ["-m", "flak"]):
        assert python(tmp_path, "-m", "other", *arguments).stdout.strip() == str(tmp_path)


def test_a_folder_on_pythonpath_stays_there(hostile: Path) -> None:
    """Who sets the variable means it."""
    both = f"{hostile}{os.pathsep}{PACKAGE.parent}"
    assert python(hostile, "-m", "flak", "dump", "-s", str(GOLDEN), PYTHONPATH=both).stdout.startswith("HOSTILE")


def test_flak_is_found_in_its_own_folder() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "flak", "--version"], cwd=PACKAGE.parent, env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"flak {flak.__version__}\n"


def test_a_current_folder_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"import os; os.rmdir({str(gone)!r}); os.execv({sys.executable!r}, ['python', '-m', 'flak', '--version'])"
    assert python(gone, "-c", program).stdout == f"flak {flak.__version__}\n"
