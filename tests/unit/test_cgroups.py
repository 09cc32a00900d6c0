"""Ids, directories and paths against a made-up hierarchy, and against this machine's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fake_host import FakeHost

from flak import cgroups
from flak.cgroups import Cgroup, NotThere, is_gone, mount, named, of_process, path_of_id, resolve, walk
from flak.errors import FlakError, NotSupported, TargetError, UsageError

needs_no_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    """A machine with the version 2 hierarchy in the usual place."""
    fake = FakeHost(tmp_path)
    fake.mount()
    return fake


@pytest.fixture
def bare(tmp_path: Path) -> FakeHost:
    """A machine with nothing mounted."""
    return FakeHost(tmp_path)


# the mount


def test_the_mount_is_found_wherever_it_is(bare: FakeHost) -> None:
    bare.mount("/sys/fs/cgroup/unified")
    assert mount(host=bare.host) == bare.path("/sys/fs/cgroup/unified")


def test_blanks_in_the_mount_point_are_read(bare: FakeHost) -> None:
    bare.mount("/mnt/my cgroups")
    assert mount(host=bare.host) == bare.path("/mnt/my cgroups")


def test_a_mount_of_all_is_preferred_to_one_of_a_part(bare: FakeHost) -> None:
    bare.mount("/mnt/part", root="/some/part")
    bare.mount("/sys/fs/cgroup")
    assert mount(host=bare.host) == bare.path("/sys/fs/cgroup")


def test_a_machine_with_version_1_only_is_told_what_it_has(bare: FakeHost) -> None:
    bare.mount_v1("/sys/fs/cgroup/memory", "memory")
    bare.mount_v1("/sys/fs/cgroup/systemd", "xattr,release_agent=/x,name=systemd")
    with pytest.raises(NotSupported, match=r"only version 1 cgroup hierarchies \(memory, name=systemd\)") as error:
        mount(host=bare.host)
    assert "--pid" in (error.value.hint or "")


def test_without_any_hierarchy_the_hint_is_to_mount_one(bare: FakeHost) -> None:
    with pytest.raises(NotSupported, match="no cgroup hierarchy is mounted") as error:
        mount(host=bare.host)
    assert "-v /sys/fs/cgroup" in (error.value.hint or "")


@pytest.mark.parametrize("line", ["", "garbage", "1 2 3 - cgroup2", "- cgroup2 ", " - cgroup2 x y", "1 - cgroup2 a b"])
def test_a_damaged_mountinfo_is_not_a_traceback(bare: FakeHost, line: str) -> None:
    bare.write("/proc/self/mountinfo", line)
    with pytest.raises(NotSupported):
        mount(host=bare.host)


# resolve


@pytest.mark.parametrize(
    "text",
    ["/sys/fs/cgroup/a.slice/b.service", "/a.slice/b.service", "a.slice/b.service", "a.slice/b.service/", "{id}"],
)
def test_a_cgroup_is_found_by_each_of_its_names(fake: FakeHost, text: str) -> None:
    number = fake.cgroup("/a.slice/b.service")
    found = resolve(text.format(id=number), host=fake.host)
    assert found == Cgroup(number, fake.top / "a.slice/b.service")


@pytest.mark.parametrize("text", ["/", "/sys/fs/cgroup", "/sys/fs/cgroup/"])
def test_the_root_is_a_cgroup(fake: FakeHost, text: str) -> None:
    assert resolve(text, host=fake.host) == Cgroup(fake.top.stat().st_ino, fake.top)


def test_a_symlink_into_the_mount_is_followed(fake: FakeHost) -> None:
    number = fake.cgroup("/a")
    fake.path("/alias").symlink_to(fake.top / "a")
    assert resolve("/alias", host=fake.host) == Cgroup(number, fake.top / "a")


def test_a_cgroup_with_digits_for_a_name_is_written_with_a_slash(fake: FakeHost) -> None:
    number = fake.cgroup("/77")
    assert resolve("/77", host=fake.host).cgroup_id == number


def test_the_hierarchy_comes_before_the_file_system(fake: FakeHost) -> None:
    number = fake.cgroup("/init")
    fake.path("/init").mkdir()
    assert resolve("/init", host=fake.host).cgroup_id == number


@pytest.mark.parametrize("text", ["/nowhere", "nowhere", "/sys/fs/cgroup/nowhere", "../..", "/sys/fs/cgroup/../x"])
def test_what_does_not_exist_may_come_yet(fake: FakeHost, text: str) -> None:
    with pytest.raises(NotThere, match="no cgroup") as error:
        resolve(text, host=fake.host)
    assert "find " in (error.value.hint or "")


@pytest.mark.parametrize("text", ["/etc", "/etc/passwd", "/sys/fs/cgroup/cgroup.procs", "/loop"])
def test_what_is_no_cgroup_is_refused_for_good(fake: FakeHost, text: str) -> None:
    fake.write("/etc/passwd", "")
    fake.write("/sys/fs/cgroup/cgroup.procs", "")
    fake.path("/loop").symlink_to(fake.path("/loop"))
    with pytest.raises(TargetError, match="not the directory of a cgroup") as error:
        resolve(text, host=fake.host)
    assert not isinstance(error.value, NotThere)


def test_nothing_outside_the_mount_is_taken_for_a_cgroup(fake: FakeHost) -> None:
    fake.path("/etc").mkdir()
    (fake.top / "out").symlink_to(fake.path("/etc"))
    for text in ("/out", "/sys/fs/cgroup/out", "/sys/fs/cgroup/../../../etc"):
        with pytest.raises(TargetError):
            resolve(text, host=fake.host)


@pytest.mark.parametrize("text", ["/sys/fs/cgroup/memory/web", "/web", "web"])
def test_a_version_1_cgroup_is_refused_by_its_controllers(bare: FakeHost, text: str) -> None:
    bare.mount_v1("/sys/fs/cgroup/memory", "memory")
    bare.mount("/sys/fs/cgroup/unified")
    bare.path("/sys/fs/cgroup/memory/web").mkdir()
    with pytest.raises(TargetError, match=r"version 1 hierarchy \(memory\); FLAK judges by version 2") as error:
        resolve(text, host=bare.host)
    assert not isinstance(error.value, NotThere)
    assert "--pid" in (error.value.hint or "")
    assert "/sys/fs/cgroup/unified" in (error.value.hint or "")


def test_a_cgroup_of_both_versions_is_that_of_version_2(bare: FakeHost) -> None:
    bare.mount_v1("/sys/fs/cgroup/memory", "memory")
    bare.mount("/sys/fs/cgroup/unified")
    bare.path("/sys/fs/cgroup/memory/web").mkdir()
    number = bare.cgroup("/web")
    assert resolve("/web", host=bare.host).cgroup_id == number


@pytest.mark.parametrize("text", ["", "0", "-1", "+0", "18446744073709551616", "9" * 5000, "a\0b"])
def test_what_can_be_no_cgroup_is_a_usage_error(fake: FakeHost, text: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(text, host=fake.host)
    assert len(error.value.message) < 100


def test_an_id_of_no_cgroup_does_not_come_later(fake: FakeHost) -> None:
    with pytest.raises(TargetError, match="no cgroup with id 18446744073709551615") as error:
        resolve(str(2**64 - 1), host=fake.host)
    assert not isinstance(error.value, NotThere)


def test_control_characters_do_not_reach_the_terminal(fake: FakeHost) -> None:
    with pytest.raises(NotThere) as error:
        resolve("/\x1b[2J\u202e", host=fake.host)
    assert error.value.message.isprintable()


@pytest.mark.parametrize("text", ["x" * 5000, "/" + "x/" * 5000, "\udcff", "\ud800"])
def test_odd_paths_are_no_traceback(fake: FakeHost, text: str) -> None:
    with pytest.raises(FlakError):
        resolve(text, host=fake.host)


# of a process


def test_the_cgroup_of_a_process_is_its_version_2_line(fake: FakeHost) -> None:
    fake.process(23, "/a.slice/b c.service")
    assert of_process(23, host=fake.host) == "/a.slice/b c.service"


def test_a_removed_cgroup_still_has_its_path(fake: FakeHost) -> None:
    fake.process(23, "/gone (deleted)")
    assert of_process(23, host=fake.host) == "/gone"


def test_a_process_that_is_not_there_is_a_target_error(fake: FakeHost) -> None:
    with pytest.raises(TargetError, match="no process 23"):
        of_process(23, host=fake.host)


def test_a_process_without_a_version_2_cgroup_is_not_supported(fake: FakeHost) -> None:
    fake.process(23, None)
    with pytest.raises(NotSupported, match="process 23 is in no version 2 cgroup"):
        of_process(23, host=fake.host)


def test_a_path_is_found_within_a_mount_of_a_part(bare: FakeHost) -> None:
    bare.mount(root="/docker/abc")
    number = bare.cgroup("/inner")
    assert named("/docker/abc/inner", host=bare.host) == Cgroup(number, bare.top / "inner")
    assert named("/docker/abcd/inner", host=bare.host) is None
    assert named("/inner", host=bare.host) is None


def test_a_path_above_the_cgroup_namespace_is_found_where_the_mount_shows_it(bare: FakeHost) -> None:
    bare.mount(root="/../..")
    number = bare.cgroup("/system.slice")
    assert named("/../../system.slice", host=bare.host) == Cgroup(number, bare.top / "system.slice")
    assert named("/../../../system.slice", host=bare.host) is None


@pytest.mark.parametrize("path", ["/../x", "/..", "/../cgroup/a", "/nowhere", "x\0"])
def test_paths_that_cannot_be_seen_are_none(fake: FakeHost, path: str) -> None:
    fake.cgroup("/a")
    assert named(path, host=fake.host) is None


# walking


def test_a_walk_meets_each_cgroup_after_its_parent(fake: FakeHost) -> None:
    paths = ["/a", "/a/b", "/a/b/c", "/d"]
    ids = {fake.cgroup(path) for path in paths}
    fake.write("/sys/fs/cgroup/a/cgroup.procs", "")
    (fake.top / "a/loop").symlink_to(fake.top)
    found = list(walk(host=fake.host))
    assert {c.cgroup_id for c in found} == {*ids, fake.top.stat().st_ino}
    assert all(c.path.parent in {before.path for before in found[:i]} for i, c in enumerate(found) if i)


def test_a_directory_that_vanishes_during_a_walk_is_left_out(fake: FakeHost) -> None:
    fake.cgroup("/a/b")
    fake.cgroup("/a/c")
    steps = walk(host=fake.host)
    assert next(steps).path == fake.top
    assert next(steps).path == fake.top / "a"
    shutil.rmtree(fake.top / "a")
    assert list(steps) == []


@needs_no_root
def test_a_directory_that_may_not_be_read_is_left_out(fake: FakeHost) -> None:
    fake.cgroup("/a/b")
    (fake.top / "a").chmod(0)
    assert [c.path.name for c in walk(host=fake.host)] == ["cgroup", "a"]
    (fake.top / "a").chmod(0o755)


def test_an_id_leads_to_its_path(fake: FakeHost) -> None:
    number = fake.cgroup("/a/b")
    assert path_of_id(number, host=fake.host) == fake.top / "a/b"
    assert path_of_id(2**60, host=fake.host) is None


# being gone


def test_a_removed_cgroup_is_gone(fake: FakeHost) -> None:
    fake.cgroup("/a")
    found = resolve("/a", host=fake.host)
    assert not is_gone(found)
    found.path.rmdir()
    assert is_gone(found)


def test_another_cgroup_of_the_same_path_is_another(fake: FakeHost) -> None:
    found = Cgroup(fake.cgroup("/a") + 1, fake.top / "a")
    assert is_gone(found)


def test_a_cgroup_whose_parent_is_gone_is_gone(fake: FakeHost) -> None:
    file = fake.write("/sys/fs/cgroup/a", "")
    assert is_gone(Cgroup(1, file / "b"))
    assert is_gone(Cgroup(1, fake.top / "c/d"))


# this machine


def test_this_process_is_in_a_cgroup_of_this_machine() -> None:
    try:
        path = of_process(os.getpid())
        found = named(path)
    except NotSupported as error:
        pytest.skip(f"no version 2 cgroups here: {error.message}")
    if found is None:
        pytest.skip("this process's cgroup is outside the part of the hierarchy that is mounted here")
    assert found.path.stat().st_ino == found.cgroup_id
    assert str(os.getpid()) in (found.path / "cgroup.procs").read_text().split()
    assert resolve(str(found.cgroup_id)) == found == resolve(path) == resolve(str(found.path))
    assert not is_gone(found)
    assert cgroups.path_of_id(found.cgroup_id) == found.path
