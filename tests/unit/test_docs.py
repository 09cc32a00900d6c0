"""The documents say what the code does: words, marks, causes, verbs, options, statuses."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

import flak
from flak._records import CountersRecord
from flak.cli.reference import commands, updated
from flak.events import (
    CLASS_OF_OP,
    MARK_NAMES,
    OP_NAMES,
    VIA,
    WORDS,
    Access,
    Counters,
    Event,
    Folded,
    Lost,
    Tables,
    as_dict,
)

FOLDED = Folded(1, 2, 3, 4, 5, Access(1, -1, -1, -1, 0, 1, 1, 1, -1, None, 0, 5, None, Tables()))
DOCS = Path(__file__).parents[2] / "docs"
EVENTS = (DOCS / "events.md").read_text()
CLI = (DOCS / "cli.md").read_text()


def rows(text: str, title: str) -> dict[str, str]:
    """The first column of a section's tables, its backticks taken off, with the rest of the row."""
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))


def test_every_word_is_explained_in_order() -> None:
    assert tuple(rows(EVENTS, "Words")) == WORDS


def test_every_mark_is_explained_in_order() -> None:
    assert list(rows(EVENTS, "Marks")) == list(MARK_NAMES.values())


def test_every_road_is_named() -> None:
    for via in VIA.values():
        assert f"`{via}`" in rows(EVENTS, "Words")["via"]


def kinds() -> list[tuple[list[str], type[Event], list[str]]]:
    """Rows of the table by kind: ops, class, words."""
    table = re.findall(r"^\| (.+?) \| `(\w+)` \| (.*?) \| .*\|$", EVENTS, re.MULTILINE)
    names = re.compile(r"`(\w+)`")
    return [(names.findall(ops), getattr(flak, kind), names.findall(words)) for ops, kind, words in table]


def test_every_class_of_event_is_in_the_table_with_its_ops() -> None:
    listed = {op: kind for ops, kind, _ in kinds() for op in ops}
    processes = {"fork": flak.Fork, "exec": flak.Exec, "exit": flak.Exit}
    assert listed == {OP_NAMES[op]: kind for op, kind in CLASS_OF_OP.items()} | processes


@pytest.mark.parametrize(("kind", "words"), [(kind, words) for _, kind, words in kinds()])
def test_a_class_has_the_words_of_its_row(kind: type[Event], words: list[str]) -> None:
    for word in words:
        assert word in WORDS
        assert hasattr(kind, word) or word in getattr(kind, "__slots__", ()), f"{kind.__name__}.{word}"


def test_loss_and_counters_have_the_documented_words() -> None:
    section = EVENTS.split("\n## lost and counters\n")[1]
    for word in as_dict(Lost(1, 2, 3, 4)):
        assert f"`{word}`" in section
    for word in as_dict(FOLDED).keys() - set(WORDS):
        assert f"`{word}`" in section
    for word in as_dict(Counters()).keys() - {"op"}:
        assert f"| `{word}` |" in section


def test_every_cause_of_loss_and_every_kind_not_decoded_is_explained() -> None:
    section = EVENTS.split("\n## lost and counters\n")[1]
    for field in CountersRecord._fields:
        for prefix in ("lost_", "not_decoded_"):
            if field.startswith(prefix):
                assert f"`{field.removeprefix(prefix)}`" in section


def test_examples_are_events() -> None:
    examples = re.findall(r"^    (\{.*?\})\n\n", EVENTS, re.M | re.S)
    access, lost, folded, counters = map(json.loads, examples)
    assert tuple(access) == WORDS
    assert lost.keys() == as_dict(Lost(1, 2, 3, 4)).keys()
    assert folded.keys() == as_dict(FOLDED).keys()
    assert counters.keys() == as_dict(Counters()).keys()
    del counters["op"]
    assert Counters(**counters).is_exact


def test_public_fields_of_counters_are_all_machine_words() -> None:
    machine = as_dict(Counters()).keys()
    assert {field.name for field in dataclasses.fields(Counters)} - {"is_complete", "ts_ns"} <= machine


def test_the_command_reference_is_current() -> None:
    assert updated(CLI) == CLI, "run: python -m flak.cli.reference docs/cli.md"


@pytest.mark.parametrize("verb", commands())
def test_every_verb_and_option_has_help_and_is_documented(verb: str) -> None:
    command = commands()[verb]
    assert f"<!-- {f'flak {verb}'.strip()} -->" in CLI
    assert "EXAMPLES" in command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        if parameter.opts[0].startswith("-"):
            assert parameter.opts[-1] in CLI


def test_options_of_one_name_mean_the_same_everywhere() -> None:
    seen: dict[str, str] = {}
    for command in commands().values():
        for parameter in command.params:
            if parameter.name != "output":  # what a suffix means depends on what can be written
                assert seen.setdefault(parameter.opts[-1], parameter.help) == parameter.help
