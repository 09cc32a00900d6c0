"""Who is chosen: words to choices, what goes together, what it is called."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest

from flak.errors import UsageError
from flak.selection import Choice, Selection


def test_words_with_an_exclamation_mark_exclude() -> None:
    selection = Selection.of(pid=[7, "!8", "7"], comm=["py*", "!pyright"], uid="!0")
    assert selection.pids == Choice((7,), (8,))
    assert selection.comms == Choice(("py*",), ("pyright",))
    assert selection.uids == Choice((), (0,))


def test_a_single_word_needs_no_list() -> None:
    assert Selection.of(pid=7) == Selection.of(pid=[7]) == Selection.of(pid="7")
    assert Selection.of(cgroup=12).cgroups == Choice(("12",))


def test_users_are_named_or_numbered() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    assert Selection.of(uid=name) == Selection.of(uid=os.getuid())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to trace"),
        ({"comm": "!sh"}, "--comm only excludes"),
        ({"pid": 0}, "--pid '0' is no process number"),
        ({"pid": "-1"}, "is no process number"),
        ({"pid": "\u0664"}, "is no process number"),
        ({"tid": "x"}, "--tid 'x' is no thread number"),
        ({"uid": "no such user"}, "no user named 'no such user'"),
        ({"uid": "a\0b"}, "no user named"),
        ({"uid": 2**32 - 1}, "no user named '4294967295'"),
        ({"uid": 2**64}, "no user named"),
        ({"pid": "9" * 5000}, "is no process number"),
        ({"comm": [""]}, "--comm: an empty name"),
        ({"cgroup": ["!"]}, "--cgroup: an empty name"),
        ({"pid": range(1, 66)}, "65 are too many, at most 64"),
        ({"pid": 7, "command": ["ls"]}, "a command and --pid cannot be traced in one run"),
        ({"all_processes": True, "command": ["ls"]}, "a command and --all"),
        ({"comm": "sh", "wait": True}, "--wait is for --container and --cgroup"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Selection.of(**given)


def test_a_command_may_exclude() -> None:
    selection = Selection.of(command=["make"], comm="!cc1")
    assert selection.settings()["has_exclusions"] and not selection.settings()["selects_names"]
    assert selection.describe({}) == "make + children, but not comm cc1"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"pid": [7, 8]}, "pid 7 (python) or pid 8 + children"),
        ({"pid": 7, "follow": False}, "pid 7 (python)"),
        ({"tid": 9}, "thread 9"),
        ({"pid": 7, "comm": "w*"}, "pid 7 (python) and processes named w* + children"),
        ({"uid": [0, 1]}, "all processes as user 0 or 1"),
        (
            {"cgroup": "/a", "container": ["web", "!db"]},
            "all processes in cgroup /a or container web, but not container db",
        ),
        ({"all_processes": True}, "all processes"),
        ({"command": ["/usr/bin/ls", "-l"]}, "ls + children"),
        ({"comm": "a\x1bb"}, "processes named a\\x1bb + children"),
    ],
)
def test_what_is_traced_is_said_in_words(given: dict[str, Any], text: str) -> None:
    assert Selection.of(**given).describe({7: "python"}) == text


def test_only_what_is_asked_is_judged_at_each_event() -> None:
    asked = Selection.of(pid=7).settings()
    assert asked["selects_numbers"] and not asked["judges_tasks"] and not asked["selects_names"]
    for given in ({"tid": 7}, {"uid": 0}, {"cgroup": "/a"}, {"pid": 7, "container": "!web"}):
        assert Selection.of(**given).settings()["judges_tasks"]  # type: ignore[arg-type]
    assert not Selection.of(all_processes=True).settings()["judges_tasks"]


def test_the_header_says_what_was_asked() -> None:
    assert Selection.of(pid=[7, "!8"], follow=False).as_dict() == {
        "pid": [7, "!8"], "tid": [], "comm": [], "cgroup": [], "container": [], "uid": [],
        "all": False, "command": None, "follow": False,
    }  # fmt: skip


def test_the_whole_machine_is_no_narrow_choice() -> None:
    assert Selection.of(pid=1).is_narrow and Selection.of(command=["ls"]).is_narrow and Selection.of(cgroup=1).is_narrow
    assert not Selection.of(all_processes=True).is_narrow and not Selection.of(uid=0, comm="!sh").is_narrow
