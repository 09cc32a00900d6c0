"""A real container of podman: found by its names, named by its cgroup, gone when it is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flak import cgroups, containers
from flak.cgroups import NotThere
from flak.containers import Names, NotRunning
from flak.errors import NotSupported

from .conftest import give_up
from .podman import RunningContainer, container, make_rootfs, unique
from .running import wait_until

pytestmark = pytest.mark.kernel

SLEEP = ["/bin/busybox", "sleep", "60"]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        cgroups.mount()
    except NotSupported as error:
        give_up(f"containers are found by version 2 cgroups: {error.message}")
    return make_rootfs(tmp_path_factory.mktemp("container"), {"/etc/greeting": b"hello\n"})


@pytest.fixture(scope="module")
def sleeper(rootfs: Path) -> Iterator[RunningContainer]:
    """A container that runs as long as these tests."""
    with container(unique("sleeper"), SLEEP, rootfs) as running:
        yield running


def test_a_container_is_found_by_name_and_id(sleeper: RunningContainer) -> None:
    expected = [sleeper.cgroup]
    for text in (sleeper.name, sleeper.container_id, sleeper.container_id[:12]):
        assert containers.find(text) == expected
    assert expected[0].cgroup_id != cgroups.resolve("/").cgroup_id


def test_it_is_listed_with_its_runtime(sleeper: RunningContainer) -> None:
    (found,) = [c for c in containers.known() if c.container_id == sleeper.container_id]
    assert (found.name, found.shown, found.runtime) == (sleeper.name, sleeper.name, "podman")
    assert (found.pod, found.namespace, found.cgroup) == (None, None, sleeper.cgroup.path)


def test_its_cgroup_is_named_with_and_without_a_process(sleeper: RunningContainer) -> None:
    number = sleeper.cgroup.cgroup_id
    assert Names().name_of(number, sleeper.pid) == sleeper.name
    assert Names().name_of(number, 0) == sleeper.name


def test_a_program_executed_in_it_is_in_its_cgroup(sleeper: RunningContainer) -> None:
    assert sleeper.exec("/bin/busybox", "cat", "/etc/greeting") == "hello\n"
    line = next(x for x in sleeper.exec("/bin/busybox", "cat", "/proc/self/cgroup").splitlines() if x[:3] == "0::")
    # in a cgroup namespace of its own, as version 2 hosts have it, the container's cgroup is the root
    assert line in (f"0::{cgroups.of_process(sleeper.pid)}", "0::/")


def test_its_monitor_is_in_no_container(sleeper: RunningContainer) -> None:
    status = Path(f"/proc/{sleeper.pid}/status").read_text().splitlines()
    monitor = int(next(line for line in status if line.startswith("PPid:")).split()[1])
    found = cgroups.named(cgroups.of_process(monitor))
    if found is None:
        pytest.skip("the monitor's cgroup is outside the part of the hierarchy that is mounted here")
    assert Names().name_of(found.cgroup_id, monitor) is None


def test_its_cgroup_resolves_by_path_and_id(sleeper: RunningContainer) -> None:
    cgroup = sleeper.cgroup
    for text in (str(cgroup.cgroup_id), str(cgroup.path), cgroups.of_process(sleeper.pid)):
        assert cgroups.resolve(text) == cgroup


def test_the_hint_for_an_unknown_name_lists_it(sleeper: RunningContainer) -> None:
    with pytest.raises(NotRunning) as error:
        containers.find("no-such-container")
    hint = error.value.hint or ""
    assert sleeper.name in hint or " more" in hint


def test_looking_for_a_container_is_quick_enough_to_be_repeated(sleeper: RunningContainer) -> None:
    started = time.monotonic()
    for _ in range(10):
        containers.find(sleeper.name)
    assert time.monotonic() - started < 2, "200 ms each at the very most"


def test_a_container_that_ends_is_gone_but_keeps_its_name(rootfs: Path) -> None:
    names = Names()
    with container(unique("brief"), SLEEP, rootfs) as running:
        (cgroup,) = containers.find(running.name)
        assert not cgroups.is_gone(cgroup)
        assert names.name_of(cgroup.cgroup_id, running.pid) == running.name
        running.remove()
        wait_until(lambda: cgroups.is_gone(cgroup), "the removal of the cgroup")
        with pytest.raises(NotRunning):
            containers.find(running.name)
        with pytest.raises(NotThere):
            cgroups.resolve(str(cgroup.path))
        assert names.name_of(cgroup.cgroup_id, running.pid) == running.name


def test_a_container_that_starts_later_is_found_then(rootfs: Path) -> None:
    name = unique("later")
    with pytest.raises(NotRunning):
        containers.find(name)
    with container(name, SLEEP, rootfs) as running:
        assert containers.find(name) == [running.cgroup]
