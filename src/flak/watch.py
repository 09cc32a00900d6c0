"""The cgroups that are meant, from when they appear until they are gone.

What was chosen by path, id or container becomes cgroup ids: at once, or when it is there (`--wait`). A cgroup that was
removed never comes back under its id, so when all are gone there is nothing left to trace. Used by session.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flak import cgroups, containers
from flak._records import MAX_CHOICES
from flak.cgroups import Cgroup, NotThere
from flak.errors import TargetError
from flak.selection import Selection

__all__ = ["CgroupWatch"]

LOOK_S = 0.02
"""How often something that is waited for is looked for: a container spends longer than that on being set up."""
LOOK_SHARE = 0.1
"""Share of the time that looking may take: on a host of a thousand containers one look takes 50 ms."""
GONE_S = 0.25
"""How often is asked whether a cgroup is still there."""


class CgroupWatch:
    """Finds the cgroups of a selection. TargetError, NotSupported or UsageError where one cannot be meant.

    found: what was found so far, in order. excluded: what is left out; that must be there at once.
    """

    def __init__(self, selection: Selection) -> None:
        self._clock = time.monotonic
        self._awaited: list[Callable[[], list[Cgroup]]] = []
        self._waits = selection.wait
        self._next_look = 0.0
        self.found: list[Cgroup] = []
        self.excluded = [
            found for look in _looks(selection.cgroups.excluded, selection.containers.excluded) for found in look()
        ]
        _check_count(self.excluded)
        for look in _looks(selection.cgroups.chosen, selection.containers.chosen):
            self._try(look)

    def _try(self, look: Callable[[], list[Cgroup]], *, is_running: bool = False) -> bool:
        try:
            found = look()
        except TargetError as error:
            # Amid a run nothing ends it: a container may be on its way to its cgroup, or have a namesake for a moment.
            if not (is_running or (self._waits and isinstance(error, NotThere))):
                raise
            self._awaited.append(look)
            return False
        self.found += [cgroup for cgroup in found if cgroup not in self.found]
        _check_count(self.found)
        return True

    @property
    def is_waiting(self) -> bool:
        """Something chosen was not there yet."""
        return bool(self._awaited)

    def has_news(self) -> bool:
        """Look again, when it is time: whether more was found."""
        if not self._awaited or self._clock() < self._next_look:
            return False
        begun = self._clock()
        looks, self._awaited = self._awaited, []
        found = [self._try(look, is_running=True) for look in looks]  # all of them, also behind one that was found
        self._next_look = self._clock() + max(LOOK_S, (self._clock() - begun) / LOOK_SHARE)
        return any(found)

    def is_over(self) -> bool:
        """All that was found is gone, and nothing is waited for. Asked often, looked at now and then."""
        if self._awaited or not self.found or self._clock() < self._next_look:
            return False
        self._next_look = self._clock() + GONE_S
        return all(map(cgroups.is_gone, self.found))


def _looks(paths: tuple[str, ...], names: tuple[str, ...]) -> list[Callable[[], list[Cgroup]]]:
    """What finds each of them."""

    def by_path(path: str) -> Callable[[], list[Cgroup]]:
        return lambda: [cgroups.resolve(path)]

    def by_name(name: str) -> Callable[[], list[Cgroup]]:
        return lambda: containers.find(name)

    return [*map(by_path, paths), *map(by_name, names)]


def _check_count(found: list[Cgroup]) -> None:
    if len(found) > MAX_CHOICES:
        raise TargetError(
            f"{len(found)} cgroups are too many, at most {MAX_CHOICES} can be traced at once",
            "name one that holds them all: --cgroup PATH covers everything below it",
        )
