"""The command line over a made-up session: what is parsed, shown and said, where it goes, and the exit status."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import flak as flak_package
from flak._records import ACCESS_SLOT, NAME, TASK, Meta, Op
from flak.cli import values
from flak.cli.app import run
from flak.cli.console import Console, uses_color, width_of
from flak.cli.interrupts import Abandoned, stopping
from flak.cli.outputs import check_creatable, created, standard
from flak.errors import FlakError, NotPermitted, OutputError, TargetError, UsageError
from flak.events import Batch, Counters, Event, Lost, Tables, escape
from flak.filters import Filters
from flak.selection import Choice, Selection
from flak.tracefile import Writer
from flak.wire import Decoder

START = 5_000_000_000
WALL = 1_700_000_000_000_000_000
PATH = "/data/train/shard-00042.tar"


def a_name(path_id: int, path: str) -> bytes:
    """A name record: components leaf first, each ended by NUL."""
    names = b"".join(part.encode() + b"\0" for part in reversed(path.strip("/").split("/")))
    fields = (
        Meta.NAME,
        NAME.size + len(names),
        path_id,
        path_id,
        8 << 20 | 1,
        70 + path_id,
        0,
        0,
        0,
        0,
        0,
        0o100644,
        0,
        0,
    )
    return NAME.pack(*fields) + names


def a_task(comm: bytes = b"python") -> bytes:
    return TASK.pack(Meta.TASK, TASK.size, 1, 0, 0, 4242, 4242, 4242, 4242, 1, 0, comm, 0, 0)


def a_read(number: int) -> bytes:
    """The `number`th read of 4096 bytes, each behind the one before."""
    at = START + number * 1_000_000
    return ACCESS_SLOT.pack(at, 91_000, number * 4096, 4096, 4096, 1, 1, 1, 3, number, 0, Op.READ, 0)


HEADER = {"clock_anchors": [{"boot_ns": START, "realtime_ns": WALL}]}
META = a_task() + a_name(1, PATH)


class FakeSession:
    """What `flak.session.Session` promises, from bytes made here. Class attributes say how the next one behaves."""

    made: list[FakeSession]
    rounds_of_reads: Sequence[int] = (2, 1)
    refuses: FlakError | None = None
    lost = 0
    status: int | None = None
    command_ends_with: int | None = None
    between_rounds: Callable[[FakeSession], None] | None = None

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.decoder = Decoder()
        self.served = {"system calls": "sys_enter and sys_exit"}
        self.missing = {"page faults": "what is read and written through memory maps"}
        self.anchor = (START, WALL)
        self.awaits = False
        self.elapsed_s = 2.5
        self.command_status: int | None = None
        self.is_stopped = False
        self.read_count = 0
        self.calls: list[str] = []
        type(self).made.append(self)

    @property
    def tables(self) -> Tables:
        return self.decoder.tables

    @property
    def description(self) -> str:
        return "pid 4242 (python) + children"

    @property
    def stats(self) -> Counters:
        lost = {"ring_full": self.lost} if self.lost else {}
        n = self.read_count
        return Counters(matched=n + self.lost, submitted=n, received=n, written=n, lost=lost)

    def __enter__(self) -> FakeSession:
        self.calls.append("enter")
        if self.refuses:
            raise self.refuses
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append("exit")
        self.command_status = self.command_ends_with

    def header(self) -> dict[str, Any]:
        return HEADER

    def raw_rounds(self) -> Iterator[tuple[bytes, bytes]]:
        meta = META
        for n in self.rounds_of_reads:
            if self.is_stopped:
                return
            slots = b"".join(a_read(self.read_count + i) for i in range(n))
            self.read_count += n
            yield meta, slots
            meta = b""
            if self.between_rounds:
                self.between_rounds()

    def rounds(self) -> Iterator[Batch]:
        for meta, slots in self.raw_rounds():
            yield Batch(slots, self.decoder.learn(meta))

    def decode(self, batch: Batch) -> list[Event]:
        return self.decoder.decode(batch)

    def tail(self) -> list[Event]:
        return [Lost(START, 0, self.read_count, self.lost)] if self.lost else []

    def sequences(self) -> dict[int, tuple[int, int]]:
        return {0: (self.read_count + self.lost, 0)}

    def record(self, writer: Writer) -> None:
        for meta, slots in self.raw_rounds():
            writer.round([meta] if meta else [], [slots])

    def stop(self) -> None:
        self.is_stopped = True


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    """The class that stands for Session; set its attributes, look at `made`."""

    class Fake(FakeSession):
        made: list[FakeSession] = []  # noqa: RUF012 - one list per test is the point

    monkeypatch.setattr("flak.cli.live.Session", Fake)
    monkeypatch.setattr("flak.cli.live.shed", lambda user: None)  # it would be the tests' own privileges
    monkeypatch.setattr("flak.preflight.host", list)  # what this machine lacks is no concern of these tests
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "FLAK_DEBUG", "FLAK_BUFFER_SIZE", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)
    return Fake


Captured = pytest.CaptureFixture[str]


# values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 65536),
        ("64kb", 65536),
        ("16M", 16 << 20),
        ("1.5GiB", 3 << 29),
        ("2 g", 2 << 30),
    ],
)
def test_sizes_are_powers_of_1024(text: str, expected: int) -> None:
    assert values.size("--max-size", text) == expected


@pytest.mark.parametrize("text", ["", "M", "1X", "-1", "1e3", "0x10", "1..5", "9" * 400])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-size .* is no size") as error:
        values.size("--max-size", text)
    assert "16M" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10", 10), ("10s", 10), ("250ms", 0.25), ("5m", 300), ("2h", 7200), ("1.5s", 1.5), ("7us", 7e-6), ("3ns", 3e-9)],
)
def test_times_take_units(text: str, expected: float) -> None:
    assert values.duration_s("--duration", text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "s", "10d", "-1s", "0", "0s", "ten", "9" * 400])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--duration .* is no time"):
        values.duration_s("--duration", text)


def test_lists_may_be_repeated_and_written_with_commas() -> None:
    assert values.names(["read, write", "fault"]) == ("read", "write", "fault")


# what is asked of the session


def test_every_way_to_choose_reaches_the_session(session: type[FakeSession]) -> None:
    who = "-p 7,!8 -t 9 -n py*,!sh -G /a,12 -c web --container pod/db -u 0,1000 --wait"
    what = "-P /data -P !*.tmp -x --min-latency 1.5ms --min-size 4K"
    assert run(["trace", *who.split(), *what.split()]) == 0
    assert session.made[0].options["selection"] == Selection(
        pids=Choice((7,), (8,)),
        tids=Choice((9,)),
        comms=Choice(("py*",), ("sh",)),
        cgroups=Choice(("/a", "12")),
        containers=Choice(("web", "pod/db")),
        uids=Choice((0, 1000)),
        wait=True,
    )
    assert session.made[0].options["filters"] == Filters(
        paths=("/data", "!*.tmp"), failed=True, min_latency_ns=1_500_000, min_size=4096
    )
    assert run(["trace", "-a", "-n", "!sshd"]) == 0
    assert session.made[1].options["selection"] == Selection(all_processes=True, comms=Choice((), ("sshd",)))


def test_options_reach_the_session(session: type[FakeSession]) -> None:
    arguments = "trace -p 7,8 -p 9 --no-follow -e read,fault --all-files --no-latency -d 10s --max-events 23"
    assert run([*arguments.split(), "--buffer-size", "64M", "--redact", "prefix:2"]) == 0
    assert session.made[0].options == {
        "selection": Selection(pids=Choice((7, 8, 9)), follow=False),
        "filters": Filters(),
        "all_files": True,
        "events": ("read", "fault"),
        "latency": False,
        "hung": None,
        "redact": "prefix:2",
        "buffer_size": 64 << 20,
        "duration": 10.0,
        "max_events": 23,
        "user": None,
    }


def test_what_hangs_is_asked_for_in_seconds(session: type[FakeSession]) -> None:
    assert run(["trace", "--hung", "200ms", "-p", "7"]) == 0
    assert session.made[0].options["hung"] == 0.2


def test_without_options_everything_is_traced(session: type[FakeSession]) -> None:
    run(["trace", "-p", "7"])
    options = session.made[0].options
    assert options["selection"].follow and options["latency"] and not options["all_files"]
    assert not options["filters"].is_any
    assert options["events"] is None
    assert options["buffer_size"] == 16 << 20


def test_buffer_size_may_come_from_the_environment(session: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAK_BUFFER_SIZE", "1M")
    run(["trace", "-p", "7"])
    assert session.made[0].options["buffer_size"] == 1 << 20


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (["--", "ls", "-l", "--", "--pid"], ("ls", "-l", "--", "--pid")),
        (["ls", "-l", "--help"], ("ls", "-l", "--help")),
        (["--no-follow", "sh", "-c", "exit 7"], ("sh", "-c", "exit 7")),
        (["--", "-odd-name"], ("-odd-name",)),
        (["ls", "--", "x"], ("ls", "--", "x")),
    ],
)
@pytest.mark.parametrize("verb", ["trace", "record"])
def test_a_command_is_taken_verbatim(
    verb: str, given: list[str], command: tuple[str, ...], session: type[FakeSession], tmp_path: Path
) -> None:
    run([verb, "-o", str(tmp_path / "out.flak"), "--user", "nobody", *given])
    assert session.made[0].options["selection"].command == command
    assert session.made[0].options["user"] == "nobody"


# usage errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace"], "nothing to trace"),
        (["record", "-o", "x.flak"], "nothing to trace"),
        (["record", "-p", "1"], "where should the recording go?"),
        (["trace", "-p", "1", "ls"], "a command and --pid cannot be traced in one run"),
        (["trace", "-n", "sh", "ls"], "a command and --comm cannot be traced in one run"),
        (["trace", "-a", "ls"], "a command and --all cannot be traced in one run"),
        (["trace", "-p", "x"], "--pid 'x' is no process number"),
        (["record", "-o", "x.flak", "-p", "1", "--max-size", "100K"], "--max-size 100K holds next to nothing"),
        (["trace", "-n", "a[z-b]"], "its brackets hold no character"),
        (["trace", "-t", "0"], "--tid '0' is no thread number"),
        (["trace", "-n", "a-name-of-16-byt"], "--comm 'a-name-of-16-byt' is 16 bytes long and matches nothing"),
        (["trace", "-n", "!sh"], "--comm only excludes"),
        (["trace", "-u", "no-such-user-here"], "--uid: no user named 'no-such-user-here'"),
        (["trace", "-p", "1", "--wait"], "--wait is for --container and --cgroup"),
        (["trace", "-p", "1", "--min-latency", "1ms", "--no-latency"], "--min-latency needs durations"),
        (["trace", "--user", "nobody", "-p", "1"], "--user is for a command"),
        (["trace", "--json", "ls"], "stdout belongs to the command"),
        (["trace", "-p", "1", "-s", "--no-summary"], "exclude each other"),
        (["trace", "-p", "1", "-s", "--json"], "a table, not JSON"),
        (["trace", "-p", "1", "--json", "-o", "x.flak"], "exclude each other"),
        (["trace", "-p", "1", "--color", "blue"], "--color 'blue' is not known"),
        (["trace", "-p", "1", "-T", "noon"], "--timestamp 'noon' is not known"),
        (["trace", "-p", "1", "--on-loss", "cry"], "--on-loss 'cry' is not known"),
        (["trace", "-p", "1", "--max-events", "0"], "--max-events '0' is no count"),
        (["trace", "--no-such-option"], "No such option: --no-such-option"),
        (["trace", "-p"], "requires an argument"),
        (["dump"], "RUN.flak"),
        (["dump", "x.flak", "-o", "y.flak"], "does not make one"),
        (["nonsense"], "nonsense"),
    ],
)
def test_usage_errors_are_told_in_one_style_with_status_2(
    arguments: list[str], message: str, session: type[FakeSession], capfd: Captured
) -> None:
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert message in err.splitlines()[0]
    assert all(line.startswith(("flak: ", "        flak ")) for line in err.splitlines())
    assert len(err.splitlines()) >= 2, "a hint follows"
    assert out == ""
    assert not session.made


def test_with_nothing_selected_the_ways_that_work_are_listed(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace"])
    err = capfd.readouterr().err
    assert "flak trace -p PID" in err
    assert "flak trace -- CMD ARGS" in err
    assert "flak trace -n NAME" in err
    assert "flak trace -c CONTAINER" in err


# what is shown, and where


def test_trace_of_a_process_prints_lines_and_table_on_stdout(session: type[FakeSession], capfd: Captured) -> None:
    assert run(["trace", "-p", "4242"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["TIME(s)", "COMM", "TID", "OP", "OFFSET", "SIZE", "LAT", "FILE"]
    assert [line.split()[4] for line in lines[1:4]] == ["0B", "4.0K", "8.0K"]
    assert lines[4].startswith("3 events, 2.5 s")
    assert lines[4].endswith("0 lost")
    assert lines[-1].endswith(PATH)
    assert err.splitlines() == [
        "flak: tracing pid 4242 (python) + children; ^C to stop",
        "flak: not traced on this host: what is read and written through memory maps",
    ]


def test_in_command_mode_stdout_is_left_to_the_command(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "--", "ls"])
    out, err = capfd.readouterr()
    assert out == ""
    assert PATH in err
    assert "3 events" in err
    assert "^C" not in err


def test_minus_is_stdout_in_command_mode_too(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-o", "-", "--", "ls"])
    out, err = capfd.readouterr()
    assert PATH in out
    assert PATH not in err


def test_lines_go_to_a_file_and_the_table_stays(session: type[FakeSession], capfd: Captured, tmp_path: Path) -> None:
    run(["trace", "-p", "4242", "-o", str(tmp_path / "lines.txt")])
    assert len((tmp_path / "lines.txt").read_text().splitlines()) == 4
    assert capfd.readouterr().out.startswith("3 events")
    assert (tmp_path / "lines.txt").stat().st_mode & 0o777 == 0o600


def test_summary_prints_only_the_table(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-s", "-p", "4242"])
    out = capfd.readouterr().out
    assert out.startswith("3 events")
    assert "TIME(s)" not in out


def test_a_summary_goes_to_the_file_when_there_are_no_lines(session: type[FakeSession], tmp_path: Path) -> None:
    run(["trace", "-s", "-o", str(tmp_path / "table.txt"), "--", "ls"])
    assert (tmp_path / "table.txt").read_text().startswith("3 events")


def test_no_summary_prints_only_lines_and_tells_the_counters(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "--no-summary", "-p", "4242"])
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 4
    assert "flak: 3 events, 2.5s, 0 lost" in err


@pytest.mark.parametrize("arguments", [["--json"], ["--json", "-o", "-"]])
def test_json_on_stdout_is_nothing_but_json(arguments: list[str], session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-p", "4242", *arguments])
    out, err = capfd.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["op"] for event in events] == ["read"] * 3 + ["counters"]
    assert events[0]["path"] == PATH
    assert events[-1]["written"] == 3
    assert "3 events" in err


def test_the_suffix_of_the_output_picks_json(session: type[FakeSession], capfd: Captured, tmp_path: Path) -> None:
    run(["trace", "-o", str(tmp_path / "t.jsonl"), "--", "ls"])
    texts = (tmp_path / "t.jsonl").read_text().splitlines()
    assert json.loads(texts[-1])["op"] == "counters"
    out, err = capfd.readouterr()
    assert out == ""
    assert "3 events" in err, "the table goes where the command's stdout is not"


def test_quiet_leaves_data_and_losses(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-q", "--no-summary", "-p", "4242"])
    assert capfd.readouterr().err == ""
    session.lost = 5
    run(["trace", "-q", "--no-summary", "-p", "4242"])
    assert "5 lost (ring_full 5)" in capfd.readouterr().err


def test_verbose_tells_the_hooks(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-v", "-p", "4242"])
    assert "flak: system calls: sys_enter and sys_exit" in capfd.readouterr().err


def test_a_loss_is_in_the_stream_and_in_the_end(session: type[FakeSession], capfd: Captured) -> None:
    session.lost = 5
    assert run(["trace", "-p", "4242"]) == 0
    out = capfd.readouterr().out
    assert "*** lost 5 events on cpu 0: ring_full ***" in out
    assert "5 lost" in out.splitlines()[5]


def test_timestamps_are_of_the_kind_asked_for(session: type[FakeSession], capfd: Captured) -> None:
    run(["trace", "-T", "unix", "-p", "4242"])
    assert capfd.readouterr().out.splitlines()[2].split()[0] == "1700000000.001000"


def test_the_table_needs_numpy_and_lines_do_not(
    session: type[FakeSession], capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flak.analysis", None)
    assert run(["trace", "-p", "4242"]) == 0
    out = capfd.readouterr().out
    assert PATH in out
    assert "needs numpy" in out


# recordings


def test_trace_into_a_recording_records_and_shows_the_table(
    session: type[FakeSession], capfd: Captured, tmp_path: Path
) -> None:
    path = tmp_path / "run.flak"
    assert run(["trace", "-o", str(path), "-p", "4242"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("3 events")
    assert f"flak: next: flak dump {path}" in err
    run(["dump", "--no-summary", str(path)])
    assert len(capfd.readouterr().out.splitlines()) == 4


def test_record_ends_with_the_counters_and_what_to_do_next(
    session: type[FakeSession], capfd: Captured, tmp_path: Path
) -> None:
    path = tmp_path / "run.flak"
    assert run(["record", "-o", str(path), "-p", "4242"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-2:] == ["flak: 3 events, 2.5s, 0 lost", f"flak: next: flak dump {path}"]


def test_dump_shows_what_trace_would_have(session: type[FakeSession], capfd: Captured, tmp_path: Path) -> None:
    path = tmp_path / "run.flak"
    run(["trace", "-p", "4242"])
    live = capfd.readouterr().out.splitlines()
    run(["record", "-o", str(path), "-p", "4242"])
    capfd.readouterr()
    assert run(["dump", str(path)]) == 0
    dumped, err = capfd.readouterr()
    assert dumped.splitlines()[:4] == live[:4]
    assert dumped.splitlines()[5:] == live[5:]
    assert err == ""


def test_dump_as_json_and_as_a_table(session: type[FakeSession], capfd: Captured, tmp_path: Path) -> None:
    path = tmp_path / "run.flak"
    run(["record", "-o", str(path), "-p", "4242"])
    capfd.readouterr()
    run(["dump", "--json", str(path)])
    assert [json.loads(line)["op"] for line in capfd.readouterr().out.splitlines()] == ["read"] * 3 + ["counters"]
    run(["dump", "-s", str(path)])
    assert capfd.readouterr().out.startswith("3 events")
    run(["dump", str(path), "-o", str(tmp_path / "d.jsonl"), "--no-summary"])
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 4


def test_dump_of_something_else_fails_with_a_message(tmp_path: Path, capfd: Captured) -> None:
    (tmp_path / "x.flak").write_bytes(b"not a recording")
    assert run(["dump", str(tmp_path / "x.flak")]) == 1
    assert capfd.readouterr().err.startswith("flak: ")
    assert run(["dump", str(tmp_path / "missing.flak")]) == 1


def test_a_recording_that_was_never_closed_is_shown_and_said_to_be_incomplete(capfd: Captured, tmp_path: Path) -> None:
    path = tmp_path / "run.flak"
    with Writer(path, HEADER) as writer:
        writer.round([META], [a_read(0)])
    assert run(["dump", str(path)]) == 0
    out, err = capfd.readouterr()
    assert PATH in out
    assert "incomplete" in out + err


# exit statuses


@pytest.mark.parametrize("status", [0, 7, -9])
@pytest.mark.parametrize("verb", ["trace", "record"])
def test_the_status_of_the_command_is_ours(verb: str, status: int, session: type[FakeSession], tmp_path: Path) -> None:
    session.command_ends_with = status
    assert run([verb, "-o", str(tmp_path / "out.flak"), "--", "sh"]) == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotPermitted("no CAP_BPF", "sudo flak"), 125),
        (TargetError("cannot run 'x': command not found", exit_status=127), 127),
        (TargetError("cannot run 'x': Permission denied", exit_status=126), 126),
        (TargetError("no such user", exit_status=125), 125),
        (UsageError("no events called x"), 2),
    ],
)
def test_a_command_that_never_ran_has_a_status_that_says_so(
    error: FlakError, status: int, session: type[FakeSession], capfd: Captured
) -> None:
    session.refuses = error
    assert run(["trace", "--", "x"]) == status
    err = capfd.readouterr().err
    assert f"flak: {error.message}" in err
    if error.hint:
        assert f"flak: hint: {error.hint}" in err


def test_without_a_command_a_failure_is_1(session: type[FakeSession]) -> None:
    session.refuses = NotPermitted("no CAP_BPF")
    assert run(["trace", "-p", "4242"]) == 1


def test_who_may_not_trace_is_told_how_to_become_root_with_this_very_flak(
    session: type[FakeSession], monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    session.refuses = NotPermitted("no CAP_BPF")
    monkeypatch.setattr(sys, "argv", ["/home/me/my venv/bin/flak"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    run(["trace", "--", "sh", "-c", "exit 7"])
    assert "flak: hint: sudo '/home/me/my venv/bin/flak' trace -- sh -c 'exit 7'" in capfd.readouterr().err


def test_an_output_that_cannot_be_made_stops_before_the_command_runs(
    session: type[FakeSession], tmp_path: Path, capfd: Captured
) -> None:
    for name in ("t.txt", "t.jsonl", "t.flak"):
        (tmp_path / name).write_text("precious")
        assert run(["trace", "-o", str(tmp_path / name), "--", "x"]) == 125
        assert (tmp_path / name).read_text() == "precious"
        assert "--force" in capfd.readouterr().err
    assert run(["record", "-o", str(tmp_path / "no/such/folder/x.flak"), "--", "x"]) == 125
    assert not any("enter" in made.calls for made in session.made)


def test_nothing_is_left_behind_by_a_run_that_never_began(session: type[FakeSession], tmp_path: Path) -> None:
    session.refuses = NotPermitted("no CAP_BPF")
    run(["trace", "-o", str(tmp_path / "t.txt"), "-p", "4242"])
    run(["record", "-o", str(tmp_path / "t.flak"), "-p", "4242"])
    assert not list(tmp_path.iterdir())


def test_force_overwrites(session: type[FakeSession], tmp_path: Path) -> None:
    for name in ("t.txt", "t.flak"):
        (tmp_path / name).write_text("x" * 100_000)
        assert run(["trace", "--force", "-o", str(tmp_path / name), "-p", "4242"]) == 0
        assert 0 < (tmp_path / name).stat().st_size < 100_000


def test_a_failure_amid_the_run_leaves_the_command_its_status(
    session: type[FakeSession], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Captured
) -> None:
    def fails(self: FakeSession, writer: Writer) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(session, "record", fails)
    arguments = ["record", "-o", str(tmp_path / "x.flak"), "--force", "--", "sh"]
    session.command_ends_with = 0
    assert run(arguments) == 1, "a recording that failed is no success"
    session.command_ends_with = 7
    assert run(arguments) == 7
    assert "flak: disk full" in capfd.readouterr().err


@pytest.mark.parametrize(("lost", "what", "status"), [(5, "fail", 4), (0, "fail", 0), (5, "warn", 0)])
def test_losses_make_a_status_of_their_own_only_when_asked(
    lost: int, what: str, status: int, session: type[FakeSession]
) -> None:
    session.lost = lost
    assert run(["trace", "--on-loss", what, "-p", "4242"]) == status


def test_debug_shows_where_an_error_came_from(
    session: type[FakeSession], capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.refuses = NotPermitted("no CAP_BPF")
    run(["trace", "-p", "4242"])
    assert "Traceback" not in capfd.readouterr().err
    monkeypatch.setenv("FLAK_DEBUG", "1")
    run(["trace", "-p", "4242"])
    assert "Traceback" in capfd.readouterr().err


# ^C


def test_the_first_signal_stops_and_the_run_ends_well(session: type[FakeSession], capfd: Captured) -> None:
    session.between_rounds = lambda _: os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    assert run(["trace", "-p", "4242"]) == 0
    assert session.made[0].read_count == 2, "it stopped after the first round"
    assert capfd.readouterr().out.splitlines()[3].startswith("2 events")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon a second signal comes, it is one of its own."""
    monkeypatch.setattr("flak.cli.interrupts.AT_ONCE_S", 0)


def test_a_signal_that_comes_twice_at_once_stops_in_order(session: type[FakeSession], tmp_path: Path) -> None:
    session.between_rounds = lambda _: (os.kill(os.getpid(), signal.SIGTERM), os.kill(os.getpid(), signal.SIGTERM))
    assert run(["record", "-o", str(tmp_path / "x.flak"), "-p", "4242"]) == 0
    with flak_package.open(tmp_path / "x.flak") as recording:
        assert recording.is_complete


@pytest.mark.usefixtures("impatient")
def test_the_second_signal_abandons(session: type[FakeSession]) -> None:
    def twice(_: FakeSession) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    session.between_rounds = twice
    assert run(["trace", "-p", "4242"]) == -signal.SIGINT
    assert session.made[0].calls == ["enter", "exit"], "what was attached is detached all the same"


def test_a_dump_is_abandoned_at_once(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    monkeypatch.setattr("flak.cli.replay.open_recording", lambda path: os.kill(os.getpid(), signal.SIGINT))
    assert run(["dump", "x.flak"]) == -signal.SIGINT
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("impatient")
def test_an_abandoned_recording_can_be_read(session: type[FakeSession], tmp_path: Path, capfd: Captured) -> None:
    session.between_rounds = lambda _: (os.kill(os.getpid(), signal.SIGTERM), os.kill(os.getpid(), signal.SIGTERM))
    assert run(["record", "-o", str(tmp_path / "x.flak"), "-p", "4242"]) == -signal.SIGTERM
    session.between_rounds = None
    assert run(["dump", str(tmp_path / "x.flak")]) == 0
    assert PATH in capfd.readouterr().out


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping(lambda: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("impatient")
def test_any_two_signals_abandon() -> None:
    stops = []
    with pytest.raises(Abandoned) as abandoned, stopping(lambda: stops.append(1)):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
    assert abandoned.value.number == signal.SIGTERM
    assert stops == [1]


# readers that go away, terminals


def test_a_reader_that_goes_away_ends_the_run_quietly(session: type[FakeSession], capfd: Captured) -> None:
    with closed_stdout():
        assert run(["trace", "-p", "4242"]) == 0
    err = capfd.readouterr().err
    assert session.made[0].read_count == 2, "it stopped at the first line that nobody read"
    assert "Broken pipe" not in err
    assert "2 events" in err


def test_dump_into_a_closed_pipe_is_quiet(session: type[FakeSession], capfd: Captured, tmp_path: Path) -> None:
    run(["record", "-o", str(tmp_path / "x.flak"), "-p", "4242"])
    capfd.readouterr()
    with closed_stdout():
        assert run(["dump", str(tmp_path / "x.flak")]) == 0
    assert capfd.readouterr().err == ""


class closed_stdout:
    """Standard output is a pipe that nobody reads any more."""

    def __enter__(self) -> None:
        self.saved = os.dup(1)
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        os.close(reading)

    def __exit__(self, *_: object) -> None:
        os.dup2(self.saved, 1)
        os.close(self.saved)


@pytest.fixture
def terminal() -> Iterator[int]:
    """A descriptor of a terminal."""
    controller, descriptor = pty.openpty()
    yield descriptor
    os.close(descriptor)
    os.close(controller)


@pytest.mark.parametrize(
    ("choice", "environment", "on_terminal", "in_pipe"),
    [
        ("auto", {"TERM": "xterm"}, True, False),
        ("auto", {"TERM": "dumb"}, False, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        ("auto", {"TERM": "xterm", "FORCE_COLOR": "1"}, True, True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ("always", {"NO_COLOR": "1"}, True, True),
        ("never", {"FORCE_COLOR": "1"}, False, False),
    ],
)
def test_when_colour_is_used(
    choice: str,
    environment: dict[str, str],
    on_terminal: bool,
    in_pipe: bool,
    terminal: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    reading, writing = os.pipe()
    assert uses_color(choice, standard(terminal)) == on_terminal
    assert uses_color(choice, standard(writing)) == in_pipe
    os.close(reading)
    os.close(writing)


def test_width_is_that_of_the_terminal_or_columns_or_none(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width_of(standard(terminal)) == 80
    monkeypatch.setenv("COLUMNS", "123")
    assert width_of(standard(terminal)) == 123
    reading, writing = os.pipe()
    assert width_of(standard(writing)) is None, "nothing is shortened in a pipe"
    os.close(reading)
    os.close(writing)


# outputs


def test_an_output_never_follows_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    for force in (False, True):
        with pytest.raises(OutputError), created(tmp_path / "link", force=force, owner=None):
            pass
    assert victim.read_text() == "precious"


def test_a_device_is_written_to_as_it_is() -> None:
    with created(Path("/dev/null"), force=False, owner=None) as stream:
        stream.write(b"x")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_outputs_belong_to_the_invoking_user_and_need_that_users_rights(tmp_path: Path) -> None:
    nobody = 65534
    (tmp_path / "closed").mkdir(mode=0o755)
    elsewhere = created(tmp_path / "closed/x", force=False, owner=(nobody, nobody))
    with pytest.raises(OutputError, match="Permission denied"), elsewhere:
        pass
    assert os.geteuid() == 0
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    os.chown(open_folder, nobody, nobody)
    reachable = Path("/tmp") / f"flak-test-{os.getpid()}"
    reachable.mkdir()
    os.chown(reachable, nobody, nobody)
    try:
        with created(reachable / "x", force=False, owner=(nobody, nobody)) as stream:
            stream.write(b"x")
        assert (reachable / "x").stat().st_uid == nobody
        (reachable / "x").unlink()
    finally:
        reachable.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as others")
def test_an_output_is_not_made_with_a_right_that_root_has_by_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody, group, groups = 65534, 54321, os.getgroups()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "of a group"
        folder.mkdir()
        os.chown(folder, 0, group)
        folder.chmod(0o770)
        os.setgroups([*groups, group])
        try:
            refused = created(folder / "x", force=False, owner=(nobody, nobody))
            with pytest.raises(OutputError, match="Permission denied"), refused:
                pass
            monkeypatch.setenv("SUDO_UID", str(nobody))
            monkeypatch.setenv("SUDO_GID", str(nobody))
            with pytest.raises(OutputError, match="Permission denied"):
                check_creatable(folder / "x", force=False)
            assert sorted(os.getgroups()) == sorted([*groups, group]), "they are back"
        finally:
            os.setgroups(groups)


def test_talk_escapes_what_could_move_a_cursor_as_names_are_escaped(capfd: Captured) -> None:
    name = "a\x1b[2J\u202e\x9b\udcff\n"
    Console().warn(name)
    assert capfd.readouterr().err == f"flak: {escape(os.fsencode(name))}\n"
    Console().warn(r"cannot write \u202e")
    assert capfd.readouterr().err == "flak: cannot write \\u202e\n", "nothing is escaped twice"


# the process


def flak(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "flak", *arguments)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python that imports the flak under test."""
    environment = {**os.environ, "PYTHONPATH": str(Path(flak_package.__file__).parents[1])}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def test_version_is_one_line() -> None:
    done = flak("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"flak {flak_package.__version__}\n", "")


def test_without_arguments_there_is_help() -> None:
    done = flak()
    assert done.returncode == 0
    assert "EXAMPLES" in done.stdout


@pytest.mark.parametrize("verb", ["trace", "record", "dump"])
def test_help_of_a_verb_has_examples(verb: str) -> None:
    for option in ("-h", "--help"):
        done = flak(verb, option)
        assert done.returncode == 0
        assert "EXAMPLES" in done.stdout
        assert f"flak {verb}" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_flak_dies_by_the_signal_its_command_died_of(number: signal.Signals) -> None:
    program = f"from flak.cli.interrupts import die_by; die_by({int(number)})"
    assert python("-c", program).returncode == -number


def test_version_is_quick() -> None:
    def took() -> float:
        begin = time.monotonic()
        flak("--version")
        return time.monotonic() - begin

    assert min(took() for _ in range(5)) < 0.4, "typer or numpy crept in"
