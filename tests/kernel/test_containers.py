"""Real containers: chosen by name, id and cgroup; paths as they see them; pid namespaces; FLAK in one itself."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.events import Access, Event, Read
from flak.session import Session

from .podman import RunningContainer, container, make_rootfs, unique
from .running import wait_until, write_pages

PAGES = 13
ROUNDS = 3
DD = "dd if=/data/f of=/dev/null bs=4096 2>/dev/null"
JOB = f"until [ -e /tmp/go ]; do sleep 0.01; done; {'; '.join([DD] * ROUNDS)}; touch /tmp/done; sleep 60"


@dataclass
class Box:
    """A container that does its job when it is told to: it reads /data/f by as many `dd` as there are rounds."""

    running: RunningContainer
    rootfs: Path

    @property
    def file(self) -> Path:
        return self.rootfs / "data/f"

    def go(self) -> None:
        (self.rootfs / "tmp/go").touch()

    @property
    def is_done(self) -> bool:
        return (self.rootfs / "tmp/done").exists()


@contextlib.contextmanager
def box(name: str, folder: Path, job: str = JOB, *options: str) -> Iterator[Box]:
    folder.mkdir()
    rootfs = make_rootfs(folder)
    for applet in ("dd", "sleep", "touch", "mkdir"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "data").mkdir()
    write_pages(rootfs / "data/f", PAGES)
    with container(unique(name), ["/bin/sh", "-c", job], rootfs, *options) as running:
        yield Box(running, rootfs)


def watch(boxes: Sequence[Box], **choice: Any) -> tuple[list[Event], Session]:
    """All that FLAK saw of these boxes' jobs, which begin when it traces."""
    events = []
    with flak.trace(duration=20, **choice) as session:
        for each in boxes:
            each.go()
        for batch in session.rounds():
            events += session.decode(batch)
            if all(each.is_done for each in boxes):
                session.stop()
    assert all(each.is_done for each in boxes), "the job was done in time"
    assert session.stats.is_exact and not session.stats.lost_total
    return events, session


def reads(events: Sequence[Event]) -> list[Read]:
    return [event for event in events if isinstance(event, Read) and (event.path or "").endswith("/data/f")]


@pytest.mark.parametrize("way", ["name", "id", "path", "number", "process name and container"])
def test_two_containers_run_the_same_program_and_each_is_traced_alone(tmp_path: Path, way: str) -> None:
    with box("one", tmp_path / "one") as one, box("two", tmp_path / "two") as two:
        chosen = one.running
        choice: dict[str, Any] = {
            "name": {"container": chosen.name},
            "id": {"container": chosen.container_id[:12]},
            "path": {"cgroup": chosen.cgroup.path},
            "number": {"cgroup": chosen.cgroup.cgroup_id},
            "process name and container": {"comm": "dd", "container": chosen.name},
        }[way]
        events, _ = watch([one, two], **choice)
        seen = reads(events)
        assert len(seen) == ROUNDS * (PAGES + 1), "dd reads until the end"
        assert {(e.dev, e.ino) for e in seen} == {identity(one.file)}
        assert {e.container for e in events if isinstance(e, Access)} == {chosen.name}
        comms = {e.comm for e in events if isinstance(e, Access)}
        assert comms == {"dd"} if "process" in way else comms >= {"dd", "sh"}


def identity(file: Path) -> tuple[str, int]:
    status = file.stat()
    return f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}", status.st_ino


def test_a_path_is_as_the_container_sees_it_and_says_whose_it_is(tmp_path: Path) -> None:
    with box("paths", tmp_path / "box") as one:
        own_mnt_ns = Path("/proc/self/ns/mnt").stat().st_ino
        its_mnt_ns = Path(f"/proc/{one.running.pid}/ns/mnt").stat().st_ino
        host_reader = threading.Thread(target=lambda: subprocess.run(["cat", one.file], stdout=subprocess.DEVNULL))
        with flak.trace(all_processes=True, path="*/data/f", duration=20) as session:
            one.go()
            host_reader.start()
            events: list[Event] = []
            for batch in session.rounds():
                events += session.decode(batch)
                if one.is_done and not host_reader.is_alive():
                    session.stop()
    inside = [event for event in reads(events) if event.mnt_ns == its_mnt_ns]
    outside = [event for event in reads(events) if event.mnt_ns == own_mnt_ns]
    assert {event.path for event in inside} == {"/data/f"}
    assert {event.path for event in outside} == {str(one.file)}
    assert len({event.file_id for event in inside + outside}) == 1, "it is one file"
    tables = session.tables
    shown = {tables.shown_path(event.file) for event in inside + outside if event.file}
    assert shown == {f"{one.running.name}:/data/f", str(one.file)}


def test_a_process_number_is_the_hosts_and_its_own_stands_beside_it(tmp_path: Path) -> None:
    with box("pids", tmp_path / "box") as one:
        events, _ = watch([one], pid=one.running.pid)
    assert len(reads(events)) == ROUNDS * (PAGES + 1), "its children are followed"
    shells = [event for event in events if event.pid == one.running.pid]
    assert shells and {event.ns_pid for event in shells} == {1}
    for event in reads(events):
        assert event.pid != event.ns_pid and event.ns_pid and event.ns_pid > 1


def test_cgroups_that_a_container_makes_after_the_start_are_part_of_it(tmp_path: Path) -> None:
    unified = next(
        (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line), ""
    )
    job = JOB.replace(
        "done; dd",
        "done; own=/cg$(sed -n s/^0:://p /proc/self/cgroup); mkdir $own/child; echo $$ >$own/child/cgroup.procs; dd",
        1,
    )
    folder = tmp_path / "box"
    with box("nested", folder, job, "--privileged", "--cgroupns=host", "-v", f"{unified}:/cg") as one:
        (one.rootfs / "bin/sed").symlink_to("busybox")
        own = one.running.cgroup
        events, _ = watch([one], container=one.running.name)
        child = (own.path / "child").stat().st_ino
    assert len(reads(events)) == ROUNDS * (PAGES + 1)
    assert {event.cgroup_id for event in reads(events)} == {child} != {own.cgroup_id}
    assert {event.container for event in reads(events)} == {one.running.name}


def test_a_container_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    name = unique("late")
    with flak.trace(container=name, wait=True, duration=20) as session:
        stop = session.rounds()
        waiting = threading.Event()
        events: list[Event] = []

        def drain() -> None:
            for batch in stop:
                events.extend(session.decode(batch))
                waiting.set()

        thread = threading.Thread(target=drain)
        thread.start()
        with box("late", tmp_path / "box") as one:
            assert waiting.wait(15), "something of it was seen"
            one.go()
            wait_until(lambda: one.is_done, "the job")
        thread.join(15)
        assert not thread.is_alive(), "the trace ends with its container"
    assert len(reads(events)) == ROUNDS * (PAGES + 1)


def test_a_container_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(flak.TargetError, match=unique("absent")), flak.trace(container=unique("absent")):
        pass


def test_the_command_line_says_which_container_and_shows_whose_paths(tmp_path: Path) -> None:
    with box("cli", tmp_path / "box") as one:
        command = [sys.executable, "-m", "flak", "trace", "-c", one.running.name, "-e", "read", "-P", "/data/f"]
        tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr and tracer.stdout
        assert f"in container {one.running.name}" in tracer.stderr.readline()
        one.go()
        wait_until(lambda: one.is_done, "the job")
        one.running.remove()
        out, err = tracer.communicate(timeout=20)
    assert tracer.returncode == 0, err
    shown = [line for line in out.splitlines() if f"{one.running.name}:/data/f" in line and " read " in line]
    assert len(shown) == ROUNDS * (PAGES + 1)
    assert "0 lost" in out


# --- FLAK in a pid namespace of its own


def in_pid_namespace(script: str, tmp_path: Path) -> list[dict[str, Any]]:
    """What FLAK records when run as `script` says ($FLAK, $OUT, $FILE) by PID 1 of a new pid namespace."""
    if not shutil.which("unshare"):
        pytest.skip("unshare(1) is not installed")
    out = tmp_path / "out.jsonl"
    environment = {
        **os.environ,
        "FLAK": f"{sys.executable} -m flak",
        "OUT": str(out),
        "FILE": str(write_pages(tmp_path / "f", PAGES)),
    }
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=25)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_in_a_pid_namespace_a_command_has_the_numbers_seen_there(tmp_path: Path) -> None:
    script = "$FLAK trace --json -o $OUT -- sh -c 'echo $$ >$OUT.pid; dd if=$FILE of=/dev/null bs=4096; :' 2>/dev/null"
    lines = in_pid_namespace(script, tmp_path)
    pid = int((tmp_path / "out.jsonl.pid").read_text())
    assert pid < 100
    forks = [line for line in lines if line["op"] == "fork"]
    assert [line["pid"] for line in forks] == [pid]
    assert forks[0]["child_pid"] in range(pid + 1, pid + 10)
    of_file = [line for line in lines if line["op"] == "read" and line["path"] == str(tmp_path / "f")]
    assert len(of_file) == PAGES + 1
    assert {line["pid"] for line in of_file} == {forks[0]["child_pid"]}
    assert {line["ns_pid"] for line in of_file} == {None}, "the number seen here is its own"


def test_in_a_pid_namespace_a_number_means_what_is_seen_there(tmp_path: Path) -> None:
    script = """
        (until [ -e $OUT.go ]; do sleep 0.01; done; unshare --pid --fork dd if=$FILE of=/dev/null bs=4096 2>/dev/null) &
        job=$!
        (until [ -s $OUT ]; do sleep 0.05; done; touch $OUT.go) &
        exec $FLAK trace --json -o $OUT -p $job >/dev/null
    """
    lines = in_pid_namespace(script, tmp_path)
    of_file = [line for line in lines if line["op"] == "read" and line["path"] == str(tmp_path / "f")]
    assert len(of_file) == PAGES + 1
    assert {line["ns_pid"] for line in of_file} == {1}, "it is the first one in a namespace below"
    assert all(1 < line["pid"] < 1000 for line in of_file)


def test_in_a_pid_namespace_a_name_means_what_is_seen_there(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    outside = subprocess.Popen(["sh", "-c", f"until [ -e {stop} ]; do dd if=/dev/null of=/dev/null 2>/dev/null; done"])
    try:
        script = """
            ($FLAK trace --json -o $OUT -n dd -d 3s >/dev/null) &
            until [ -s $OUT ]; do sleep 0.05; dd if=$FILE of=/dev/null bs=4096 2>/dev/null; done
            wait
        """
        lines = in_pid_namespace(script, tmp_path)
    finally:
        stop.touch()
        outside.wait()
    accesses = [line for line in lines if line["op"] not in ("counters", "lost")]
    assert any(line["path"] == str(tmp_path / "f") for line in accesses)
    assert all(line["pid"] for line in accesses), "what has no number there is not meant"


# --- FLAK in a container


def test_doctor_in_a_container_without_capabilities_says_so(tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path)
    package = Path(flak.__file__).parent.parent
    folders = {sys.prefix, sys.base_prefix, str(package), "/usr", "/lib", "/lib64", "/bin"}
    tops = [folder for folder in folders if Path(folder).exists()]
    volumes = [option for folder in sorted(tops) for option in ("-v", f"{folder}:{folder}:ro")]
    with container(unique("doctor"), ["/bin/sleep", "60"], rootfs, *volumes) as running:
        with pytest.raises(subprocess.CalledProcessError) as failure:
            running.exec("/usr/bin/env", f"PYTHONPATH={package}", sys.executable, "-m", "flak", "doctor", "--json")
        found = json.loads(failure.value.stdout)
    assert failure.value.returncode == 1 and not found["can_trace"]
    assert found["machine"] == platform.machine()
    by_concern = {finding["concern"]: finding for finding in found["findings"]}
    assert by_concern["capabilities"]["status"] == "fail"
    assert "--cap-add" in by_concern["capabilities"]["fix"]
    assert "not the initial one" in by_concern["pid namespace"]["text"]
