"""Cgroups that are waited for, and that go."""

from __future__ import annotations

from pathlib import Path

import pytest

from flak import cgroups, containers
from flak.cgroups import Cgroup
from flak.errors import TargetError
from flak.selection import Selection
from flak.watch import CgroupWatch


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Runtime:
    """What the runtime's files say at the moment: a container's cgroups, or why there are none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: list[Cgroup] | TargetError = containers.NotRunning("no container 'web'")
        self.looks = 0
        monkeypatch.setattr(containers, "find", self.find)

    def find(self, name: str) -> list[Cgroup]:
        self.looks += 1
        if isinstance(self.answer, TargetError):
            raise self.answer
        return self.answer


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    return Runtime(monkeypatch)


def watching(**choice: object) -> tuple[CgroupWatch, Clock]:
    watch, clock = CgroupWatch(Selection.of(**choice)), Clock()  # type: ignore[arg-type]
    watch._clock = clock
    return watch, clock


def test_what_is_not_there_is_told_unless_it_is_waited_for(runtime: Runtime) -> None:
    with pytest.raises(TargetError, match="no container 'web'"):
        CgroupWatch(Selection.of(container="web"))
    watch, _ = watching(container="web", wait=True)
    assert watch.is_waiting and watch.found == []


def test_what_can_never_be_meant_is_told_although_it_is_waited_for(runtime: Runtime) -> None:
    runtime.answer = TargetError("'web' may be any of several containers")
    with pytest.raises(TargetError, match="any of several"):
        CgroupWatch(Selection.of(container="web", wait=True))


def test_it_is_found_when_it_appears_and_over_when_it_is_gone(runtime: Runtime, tmp_path: Path) -> None:
    watch, clock = watching(container="web", wait=True)
    assert not watch.has_news() and not watch.is_over()
    folder = tmp_path / "web"
    folder.mkdir()
    runtime.answer = [Cgroup(folder.stat().st_ino, folder)]
    assert not watch.has_news(), "it was looked for a moment ago"
    clock.now += 1
    assert watch.has_news() and not watch.is_waiting
    clock.now += 1
    assert not watch.is_over()
    folder.rmdir()
    assert not watch.is_over(), "it was looked at a moment ago"
    clock.now += 1
    assert watch.is_over()


def test_amid_a_run_a_name_that_means_two_for_a_moment_ends_nothing(runtime: Runtime, tmp_path: Path) -> None:
    watch, clock = watching(container="web", wait=True)
    runtime.answer = TargetError("'web' may be any of several containers")
    clock.now += 1
    assert not watch.has_news() and watch.is_waiting
    runtime.answer = [Cgroup(tmp_path.stat().st_ino, tmp_path)]
    clock.now += 1
    assert watch.has_news()


def test_looking_takes_a_small_share_of_the_time(runtime: Runtime) -> None:
    watch, clock = watching(container="web", wait=True)
    slow = runtime.find

    def find(name: str) -> list[Cgroup]:
        clock.now += 0.05
        return slow(name)

    containers.find = find  # type: ignore[assignment]  # the fixture puts it back
    began, looks = clock.now, runtime.looks
    watch._awaited = [lambda: containers.find("web")]
    while clock.now < began + 10:
        watch.has_news()
        clock.now += 0.005
    assert (runtime.looks - looks) * 0.05 <= 0.11 * 10


def test_several_cgroups_are_over_when_all_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(cgroups, "resolve", lambda text: Cgroup((tmp_path / text).stat().st_ino, tmp_path / text))
    watch, clock = watching(cgroup=["a", "b"])
    (tmp_path / "a").rmdir()
    clock.now += 1
    assert not watch.is_over()
    (tmp_path / "b").rmdir()
    clock.now += 1
    assert watch.is_over()
