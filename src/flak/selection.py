"""Who is to be traced: what was asked for, checked, before anything is looked up.

Choices of one kind are alternatives, and of each kind that was used one must hold: `--comm postgres --uid 26,27`.
A `!` in front excludes. `Selection.of` reads both the command line's words and the arguments of `flak.trace`; `watch`
finds the cgroups that are meant, `session` tells the programs.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from flak import comms as comm_patterns
from flak._records import MAX_CHOICES
from flak.errors import UsageError
from flak.events import escape

__all__ = ["Choice", "Selection"]

T = TypeVar("T")
Word = int | str | os.PathLike[str]
Words = Word | Iterable[Word]


@dataclass(slots=True, frozen=True)
class Choice(Generic[T]):
    """What of one kind is wanted, and what is not. Nothing wanted means that this kind does not matter."""

    chosen: tuple[T, ...] = ()
    excluded: tuple[T, ...] = ()

    @classmethod
    def of(cls, option: str, given: Words, parse: Callable[[str, str], T]) -> Self:
        """From words of which those with a `!` exclude. UsageError when they are too many, or don't parse."""
        words = [str(word) for word in ([given] if isinstance(given, int | str | os.PathLike) else given)]
        chosen = dict.fromkeys(parse(option, word) for word in words if not word.startswith("!"))
        excluded = dict.fromkeys(parse(option, word[1:]) for word in words if word.startswith("!"))
        if max(len(chosen), len(excluded)) > MAX_CHOICES:
            raise UsageError(
                f"{option}: {max(len(chosen), len(excluded))} are too many, at most {MAX_CHOICES} can be named"
            )
        return cls(tuple(chosen), tuple(excluded))

    def __bool__(self) -> bool:
        return bool(self.chosen or self.excluded)

    def words(self) -> list[T | str]:
        """As it was given."""
        return [*self.chosen, *(f"!{word}" for word in self.excluded)]


_DECIMAL = re.compile(r"[0-9]{1,10}")


def _number(option: str, word: str) -> int:
    if not _DECIMAL.fullmatch(word) or not 0 < int(word) < 1 << 32:
        what = "thread" if option == "--tid" else "process"
        raise UsageError(f"{option} {word!r} is no {what} number", f"write it like {option} 4242 or {option} 4242,4250")
    return int(word)


def _uid(option: str, word: str) -> int:
    if _DECIMAL.fullmatch(word) and int(word) < (1 << 32) - 1:  # the last number means nobody
        return int(word)
    try:
        return pwd.getpwnam(word).pw_uid
    except (KeyError, ValueError):
        raise UsageError(f"{option}: no user named {word!r}", "list users with: getent passwd") from None


def _comm(option: str, word: str) -> str:
    comm_patterns.check(option, word)
    return word


def _name(option: str, word: str) -> str:
    if not word or "\0" in word:
        raise UsageError(f"{option}: an empty name")
    return word


@dataclass(slots=True, frozen=True, kw_only=True)
class Selection:
    """Who is to be traced.

    pids, tids, uids, comms (patterns of names), cgroups (ids or paths), containers (names, beginnings of ids,
    pod/NAME): see `Choice`. all_processes: everybody. command: program and arguments to start. follow: what a process
    chosen by number or name forks, too. wait: for cgroups and containers that are not there yet.
    """

    pids: Choice[int] = Choice()
    tids: Choice[int] = Choice()
    comms: Choice[str] = Choice()
    cgroups: Choice[str] = Choice()
    containers: Choice[str] = Choice()
    uids: Choice[int] = Choice()
    all_processes: bool = False
    command: tuple[str, ...] = ()
    follow: bool = True
    wait: bool = False

    @classmethod
    def of(
        cls,
        *,
        pid: Words = (),
        tid: Words = (),
        comm: Words = (),
        cgroup: Words = (),
        container: Words = (),
        uid: Words = (),
        all_processes: bool = False,
        command: Sequence[str] | None = None,
        follow: bool = True,
        wait: bool = False,
    ) -> Self:
        """From words as given; UsageError where they don't parse or don't go together."""
        selection = cls(
            pids=Choice.of("--pid", pid, _number),
            tids=Choice.of("--tid", tid, _number),
            comms=Choice.of("--comm", comm, _comm),
            cgroups=Choice.of("--cgroup", cgroup, _name),
            containers=Choice.of("--container", container, _name),
            uids=Choice.of("--uid", uid, _uid),
            all_processes=all_processes,
            command=tuple(command or ()),
            follow=follow,
            wait=wait,
        )
        selection._check()
        return selection

    def _check(self) -> None:
        chosen = [option for option, choice in self._choices().items() if choice.chosen]
        if self.all_processes:
            chosen.append("--all")
        if self.command and chosen:
            raise UsageError(
                f"a command and {chosen[0]} cannot be traced in one run", "run flak twice, or trace one of them"
            )
        if not chosen and not self.command:
            excluding = next((option for option, choice in self._choices().items() if choice), None)
            if excluding:
                raise UsageError(f"{excluding} only excludes, so nothing is left to trace", "add --all for all others")
            raise UsageError("nothing to trace", "name a process (pid, comm), a cgroup, a container or a command")
        if self.wait and not (self.cgroups.chosen or self.containers.chosen):
            raise UsageError(
                "--wait is for --container and --cgroup", "names are always waited for: --comm NAME needs no --wait"
            )
        if self.comms:
            self.machine()

    def _choices(self) -> dict[str, Choice[Any]]:
        return {
            "--pid": self.pids,
            "--tid": self.tids,
            "--comm": self.comms,
            "--cgroup": self.cgroups,
            "--container": self.containers,
            "--uid": self.uids,
        }

    def machine(self) -> comm_patterns.Machine:
        """What matches the names. UsageError when they are too many."""
        return comm_patterns.Machine.of(self.comms.chosen, self.comms.excluded)

    @property
    def has_cgroups(self) -> bool:
        """Whether a task's cgroup matters."""
        return bool(self.cgroups.chosen or self.containers.chosen)

    @property
    def is_narrow(self) -> bool:
        """Whether what is traced is a part of the machine, so that what it has open already is worth listing."""
        return bool(self.command or self.pids.chosen or self.tids.chosen or self.comms.chosen or self.has_cgroups)

    def settings(self) -> dict[str, int]:
        """Settings of the BPF object that follow from the choices alone."""
        has_tasks = self.tids or self.uids or self.cgroups or self.containers
        return {
            "follow_children": self.follow,
            "selects_numbers": bool(self.pids.chosen or self.command),
            "selects_names": bool(self.comms.chosen),
            "judges_names": bool(self.comms),
            "has_exclusions": bool(self.pids.excluded or self.comms.excluded),
            "judges_tasks": bool(has_tasks),
            "selects_threads": bool(self.tids),
            "selects_cgroups": self.has_cgroups,
            "tid_count": len(self.tids.chosen),
            "excluded_tid_count": len(self.tids.excluded),
            "uid_count": len(self.uids.chosen),
            "excluded_uid_count": len(self.uids.excluded),
        }

    def as_dict(self) -> dict[str, Any]:
        """For the header of a recording: each kind as it was given."""
        kinds = {option.removeprefix("--"): choice.words() for option, choice in self._choices().items()}
        return {**kinds, "all": self.all_processes, "command": list(self.command) or None, "follow": self.follow}

    def describe(self, named: dict[int, str]) -> str:
        """In words: "pid 4242 (python) + children". `named`: pid → its name, as far as known."""
        children = " + children" if self.follow and (self.command or self.pids.chosen or self.comms.chosen) else ""
        text = self._describe_who(named) + children
        if self.uids.chosen:
            text += f" as user {_either(self.uids.chosen)}"
        where = [f"cgroup {path}" for path in self.cgroups.chosen] + [f"container {n}" for n in self.containers.chosen]
        if where:
            text += f" in {_either(where)}"
        kinds = self._choices().items()
        excluded = [f"{option.removeprefix('--')} {word}" for option, kind in kinds for word in kind.excluded]
        if excluded:
            text += f", but not {', '.join(excluded)}"
        return escape(text.encode("utf-8", "surrogateescape"))

    def _describe_who(self, named: dict[int, str]) -> str:
        if self.command:
            return Path(self.command[0]).name
        pids = [f"pid {pid} ({named[pid]})" if pid in named else f"pid {pid}" for pid in self.pids.chosen]
        tids = [f"thread {tid}" for tid in self.tids.chosen]
        comms = [f"processes named {name}" for name in self.comms.chosen]
        return " and ".join(_either(kind) for kind in (pids, tids, comms) if kind) or "all processes"


def _either(words: Sequence[object]) -> str:
    return " or ".join(map(str, words))
