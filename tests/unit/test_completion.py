"""Completion, as the shells themselves do it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from flak.cli.completion import CHOICES, scripts
from flak.cli.reference import commands, is_option

SCRIPTS = scripts()
VERBS = [verb for verb in commands() if verb]


def options_of(verb: str) -> set[str]:
    return {name for parameter in commands()[verb].params if is_option(parameter) for name in parameter.opts}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with two files and a name that needs quoting."""
    for name in ("run.flak", "rest.txt", "a b"):
        (tmp_path / name).touch()
    return tmp_path


def bash(line: str, here: Path) -> set[str]:
    """What bash offers at the end of a line; it splits words at = as well, as the real one does."""
    words = [part for word in line.split(" ") for part in word.replace("=", " = ").split(" ")]
    program = f"""
{SCRIPTS["flak.bash"]}
COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}
_flak; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    bare = ["bash", "--norc", "--noprofile", "-c", program]
    done = subprocess.run(bare, capture_output=True, text=True, cwd=here)
    assert not done.stderr
    return set(done.stdout.split("\n")) - {""}


def fish(line: str, here: Path) -> set[str]:
    (here / ".flak.fish").write_text(SCRIPTS["flak.fish"])
    environment = {**os.environ, "HOME": str(here), "XDG_CONFIG_HOME": str(here / ".config")}
    program = f"source .flak.fish; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program], capture_output=True, text=True, cwd=here, env=environment
    )
    assert not done.stderr
    return {offer.split("\t")[0] for offer in done.stdout.splitlines()}


SHELLS = {"bash": bash, "fish": fish}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def test_verbs(shell: str, here: Path) -> None:
    assert SHELLS[shell]("flak ", here) >= set(VERBS)
    assert SHELLS[shell]("flak tr", here) == {"trace"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_and_no_other(shell: str, verb: str, here: Path) -> None:
    long_ones = {name for name in options_of(verb) if name.startswith("--")}
    assert SHELLS[shell](f"flak {verb} --", here) - {"--help"} == long_ones
    offered = SHELLS[shell](f"flak {verb} -", here)
    assert offered - {"-h", "--help"} == options_of(verb)


@pytest.mark.parametrize("line", ["flak dump r", "flak trace -o r", "flak record -p 1 --path r", "flak trace -- ls r"])
def test_files(shell: str, line: str, here: Path) -> None:
    assert SHELLS[shell](line, here) == {"run.flak", "rest.txt"}


def test_words_that_an_option_takes(shell: str, here: Path) -> None:
    complete = SHELLS[shell]
    assert complete("flak trace --color a", here) == {"auto", "always"}
    assert complete("flak trace -p 7 -T ", here) == {"rel", "wall", "unix", "boot"}
    assert complete("flak record --on-loss f", here) == {"fail"}
    assert complete("flak trace --user roo", here) == {"root"}
    assert str(os.getpid()) in complete(f"flak trace -p {os.getpid()}", here)
    assert complete("flak trace --duration ", here) == set()


def test_words_after_an_equals_sign_and_a_comma(here: Path) -> None:
    assert bash("flak trace --color=al", here) == {"always"}
    assert bash("flak trace --color=", here) == {"auto", "always", "never"}
    assert bash("flak trace -e read,wr", here) == {"read,write"}


@pytest.mark.parametrize("begin", ["trace", "record -o run.flak", "trace --color=never -p 1", "trace --"])
def test_commands_to_trace(begin: str, here: Path) -> None:
    assert "bash" in bash(f"flak {begin} bas", here)
    assert not bash(f"flak {begin} bash --on", here), "options of the command are not those of flak"


def test_names_that_need_quoting_come_whole(here: Path) -> None:
    assert bash("flak dump a", here) == {"a b"}


@pytest.mark.parametrize(("shell", "name"), {"bash": "flak.bash", "zsh": "_flak", "fish": "flak.fish"}.items())
def test_a_shell_can_read_its_file(shell: str, name: str, here: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (here / name).write_text(SCRIPTS[name])
    done = subprocess.run([shell, "-n", name], capture_output=True, text=True, cwd=here)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_zsh_has_every_option(verb: str) -> None:
    part = SCRIPTS["_flak"].partition(f"        {verb})\n")[2].partition(";;\n")[0]
    for name in options_of(verb):
        assert name in part


def test_the_words_are_those_that_the_help_tells() -> None:
    texts = {name: p.help for command in commands().values() for p in command.params for name in p.opts}
    for option, words in CHOICES.items():
        for word in words.split():
            assert word in texts[option], f"{option} {word}"
