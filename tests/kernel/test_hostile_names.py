"""Names made to mislead whoever prints them, through every way out of FLAK: text, JSON, recordings, the table, columns.

`test_names.py` has what arrives in Python. Here a program uses files, a thread name and an argv[0] of hostile bytes
while the command line runs, and what it prints must stay whole: as many lines as there were accesses, none forged, no
byte that a terminal obeys, strict JSON from which the very bytes can be had back.
"""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flak.events import WORDS, escape

from .running import flak_environment

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

NAMES = [
    b"new\nline",
    b"\n   0.0001 forged              1 pread64     4.0K  4.0K  1.0us shadow",
    b'\n{"op":"pread64","path":"passwd"}',
    b'","path":"injected","x":"',
    b"carriage\rreturn\ttab\x0b\x0c\x08\x08\x7f",
    b"\x1b[2J\x1b[H\x1b[31mred",
    b"\x1b]0;title\x07",
    b"\xc2\x9b31mC1",
    b"latin\xff\xfe",
    b"\xed\xb3\xbf\xed\xa0\x80",
    "left\u202ethgir\u2066\u2069\u200f".encode(),
    "lines\u2028and\u2029paragraphs\x85".encode(),
    "invisible\u200b\ufeff\u00ad\U000e0041".encode(),
    "é漢e\u0301🙂".encode(),
    b"\\n \\x1b \\\\",
    b"'single' \"double\" `ticks` $(id) $HOME ;&|<>",
    b"--json",
    b"-rf *",
    b"=cmd|'calc'!A1",
    b"@SUM(1+1)*cmd",
    b"%s%n%d{0}",
    b" blanks  at both ends ",
    b"...",
    b"web:name",
    b"*** lost 5 events on cpu 0: ring_full ***",
    b"\xff" * 255,
    "漢".encode() * 85,
]
DEEP, DEEP_NAME = 128, b"\x1b["
LONG, LONG_NAME = 20, b"\n" + b"l" * 240  # 4,820 bytes, reached by chdir
PER_NAME = dict.fromkeys(("openat", "pwrite64", "pread64", "close", "renameat"), 1)

WORKLOAD = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
folder, names, program = map(os.fsencode, sys.argv[1:])

def use(name):
    assert libc.prctl(15, name[:15], 0, 0, 0) == 0
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.pwrite(fd, b"abc", 0)
    os.pread(fd, 3, 0)
    os.close(fd)

def go_down(name, levels):
    top = os.open(".", os.O_RDONLY)
    for _ in range(levels):
        os.path.isdir(name) or os.mkdir(name)
        os.chdir(name)
    use(b"leaf")
    os.fchdir(top)
    os.close(top)

os.chdir(folder)
with open(names) as file:
    names = [bytes.fromhex(line) for line in file]
for name in names:
    use(name)
    libc.syscall(264, -100, name, -100, name)  # renameat to itself
    try:
        os.open(name + b"/none", os.O_RDONLY)
    except OSError:
        pass
    child = os.fork()
    if not child:
        os.execv(program, [name])
    os.waitpid(child, 0)
go_down(b"\x1b[", 128)
go_down(b"\n" + b"l" * 240, 20)
"""


class Scene(NamedTuple):
    """A folder, and the command that uses hostile names below it."""

    folder: Path
    command: list[str]
    program: bytes

    @property
    def options(self) -> list[str]:
        """What confines a trace to the folder: these accesses are counted."""
        return ["-P", str(self.folder), "-e", "open,read,write,close,meta"]

    def below(self, name: bytes) -> bytes:
        return os.fsencode(self.folder) + b"/" + name


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Its own name is hostile, too: it stands in the command line and in every path."""
    if os.uname().machine != "x86_64":
        pytest.skip("the workload calls renameat by its number on x86-64")
    top = tmp_path_factory.mktemp("hostile")
    folder = top / "to\np\x1bc"
    folder.mkdir()
    names = top / "names"
    names.write_text("".join(name.hex() + "\n" for name in NAMES))
    program = os.fsencode(top) + b"/pro\ngram\xff"
    shutil.copy(shutil.which("true") or "/bin/true", program)
    command = [sys.executable, "-I", "-S", "-c", WORKLOAD, str(folder), str(names), os.fsdecode(program)]
    return Scene(folder, command, program)


@pytest.fixture(scope="module")
def recording(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run, recorded with everything."""
    path = tmp_path_factory.mktemp("recorded") / "run.flak"
    run("record", "-o", str(path), "--", *scene.command)
    return path


class Said(NamedTuple):
    """What FLAK printed."""

    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.split("\n")[:-1]


def run(*words: str, through: tuple[str, ...] = ()) -> Said:
    """Runs FLAK; both streams are UTF-8, whole lines, and printable."""
    environment = flak_environment()
    done = subprocess.run(
        [*through, sys.executable, "-m", "flak", *words], capture_output=True, env=environment, timeout=20
    )
    said = Said(done.stdout.decode(), done.stderr.decode())
    assert done.returncode == 0, said.err
    for text in said:
        assert not text or text.endswith("\n")
        assert_is_printable(text)
    assert all(line.startswith("flak: ") for line in said.err.splitlines()), said.err
    return said


def assert_is_printable(text: str) -> None:
    """Of lines: nothing but line feeds that a terminal would obey, nothing that hides or turns text."""
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", line)


def strict(line: str) -> dict[str, Any]:
    """An object, each of whose names comes once."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    value = json.loads(line, object_pairs_hook=members, parse_constant=pytest.fail)
    assert isinstance(value, dict)
    return value


def unescaped(text: str) -> bytes:
    """The bytes that an escaped name stands for, as docs/events.md describes it."""

    def character(found: re.Match[str]) -> bytes:
        code = found[1]
        if code[0] == "x":
            return bytes([int(code[1:], 16)])
        if code[0] in "uU":
            return chr(int(code[1:], 16)).encode()
        return {"n": b"\n", "t": b"\t", "r": b"\r", "\\": b"\\"}[code]

    pieces, at = [], 0
    for found in re.finditer(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", text):
        pieces += [text[at : found.start()].encode(), character(found)]
        at = found.end()
    return b"".join([*pieces, text[at:].encode()])


def bytes_of(event: dict[str, Any]) -> bytes:
    """A path's bytes, which the two words must agree about."""
    path = unescaped(event["path"])
    if event["path_bytes"] is None:
        path.decode()  # or it would have been given
        return path
    assert base64.b64decode(event["path_bytes"], validate=True) == path
    return path


def accesses_below(folder: bytes, events: list[dict[str, Any]]) -> Counter[tuple[bytes, str]]:
    """How often each path below a folder was accessed by each operation."""
    paths = [(bytes_of(event), event["op"]) for event in events if event.get("path")]
    return Counter((path.removeprefix(folder + b"/"), op) for path, op in paths if path.startswith(folder + b"/"))


def assert_has_every_name(scene: Scene, events: list[dict[str, Any]]) -> None:
    """Every access by every name, by its very bytes."""
    seen = accesses_below(os.fsencode(scene.folder), events)
    for name in NAMES:
        assert {op: n for (path, op), n in seen.items() if path == name} == PER_NAME, name
        assert seen[name + b"/none", "openat"] == 1
        (renamed,) = (e for e in events if e["op"] == "renameat" and e["claimed_path"] == escape(name))
        assert unescaped(renamed["new_path"]) == scene.below(name)
        (refused,) = (e for e in events if e.get("claimed_path") == escape(name + b"/none"))
        assert refused["errno"] == "ENOTDIR" and "path_claimed" in refused["marks"]
        (written,) = (e for e in events if e["op"] == "pwrite64" and bytes_of(e) == scene.below(name))
        assert written["comm"] == escape(name[:15])
    deep = b"/".join(DEEP * [DEEP_NAME]) + b"/leaf"
    assert [op for (path, op) in seen if path == deep] == ["openat", "pwrite64", "pread64", "close"]


def assert_has_the_end_of_a_path_too_long(scene: Scene, events: list[dict[str, Any]]) -> None:
    cut = [e for e in events if (e.get("path") or "").endswith("l/leaf")]
    assert [e["op"] for e in cut] == ["openat", "pwrite64", "pread64", "close"]
    whole = b"/".join([os.fsencode(scene.folder), *LONG * [LONG_NAME], b"leaf"])
    assert len(whole) > 4096
    for event in cut:
        assert "path_truncated" in event["marks"] and event["path"].startswith("…/")
        kept = bytes_of(event).partition(b"/")[2]
        assert whole.endswith(b"/" + kept) and len(kept) > 2048


def test_live_json(scene: Scene, tmp_path: Path) -> None:
    output = tmp_path / "run.jsonl"
    run("trace", "-q", *scene.options, "-o", str(output), "--no-summary", "--", *scene.command)
    text = output.read_text()
    assert_is_printable(text)
    events = [strict(line) for line in text.split("\n")[:-1]]
    assert events[-1]["op"] == "counters" and len(events) - 1 == events[-1]["written"]
    assert all(tuple(event) == WORDS for event in events[:-1])
    assert_has_every_name(scene, events[:-1])


def test_live_text(scene: Scene, tmp_path: Path) -> None:
    output = tmp_path / "run.txt"
    said = run("trace", *scene.options, "-o", str(output), "--no-summary", "--", *scene.command)
    text = output.read_text()
    assert_is_printable(text)
    titles, *lines = text.split("\n")[:-1]
    (total,) = re.findall(r": ([\d ]+) events, ", said.err)
    assert len(lines) == int(total.replace(" ", "")), "a line for each access, and no other"
    assert_has_lines(scene, titles, lines)


def assert_has_lines(scene: Scene, titles: str, lines: list[str]) -> None:
    """Every name is in as many lines as it had accesses, at its place."""
    at, op_at = titles.index("FILE"), titles.index("OP")
    files = [line[at:] for line in lines]
    for name in NAMES:
        path = escape(scene.below(name))
        with_it = [line for line in lines if line[at:] == path or line[at:].startswith(path + "  ")]
        assert Counter(line[op_at:].split()[0] for line in with_it) == PER_NAME, name
        comm = escape(name[:15])[:15]
        assert all(line[: titles.index(" TID") - 3].rstrip().endswith(comm.rstrip()) for line in with_it), name
        assert f"{path}/none  ENOTDIR" in "\n".join(files)


def test_recorded_and_dumped_as_json(scene: Scene, recording: Path) -> None:
    events = [strict(line) for line in run("dump", "--json", str(recording)).lines]
    assert len(events) - 1 == events[-1]["written"] and events[-1]["lost"] == {}
    assert_has_every_name(scene, events)
    assert_has_the_end_of_a_path_too_long(scene, events)
    executed = [event for event in events if event["op"] == "exec"][-len(NAMES) :]
    assert [(unescaped(event["argv0"]), bytes_of(event)) for event in executed] == [
        (name[:255], scene.program) for name in NAMES
    ]


@pytest.mark.parametrize("options", [[], ["-w", "-T", "wall"]])
def test_recorded_and_dumped_as_text(scene: Scene, recording: Path, options: list[str]) -> None:
    count = len(run("dump", "--json", str(recording)).lines) - 1
    titles, *lines = run("dump", "--no-summary", *options, str(recording)).lines
    assert len(lines) == count
    assert_has_lines(scene, titles, lines)
    program = escape(scene.program)
    executed = [line for line in lines if re.search(r" exec +- +- +- ", line) and program in line]
    assert [line.partition(program)[2] for line in executed] == [f"  as {escape(name[:255])}" for name in NAMES]


def test_columns_of_everything(recording: Path) -> None:
    events = [strict(line) for line in run("dump", "--json", str(recording)).lines][:-1]
    words = ",".join(("time", "offset", "size", "lat", "file", *WORDS))
    titles, *lines = run("dump", "--no-summary", "--fields", words, str(recording)).lines
    assert titles.split() == ["TIME(s)", "OFFSET", "SIZE", "LAT", "FILE", *(word.upper() for word in WORDS)]
    assert len(lines) == len(events)
    for line, event in zip(lines, events, strict=True):
        for word in ("path", "claimed_path", "new_path", "argv0"):
            assert event[word] is None or event[word] in line
    as_json = run("dump", "--json", "--fields", words, str(recording)).lines
    assert len(as_json) == len(events) + 1
    chosen = ["ts_ns", "file_offset", "size_ret", "latency_ns", "path"]
    assert [strict(line) for line in as_json[:-1]] == [
        {word: event[word] for word in dict.fromkeys((*chosen, *WORDS))} for event in events
    ]


def test_the_closing_table(scene: Scene, tmp_path: Path) -> None:
    output = tmp_path / "table.txt"
    run("trace", "-q", *scene.options, "-s", "-w", "-o", str(output), "--", *scene.command)
    text = output.read_text()
    assert_is_printable(text)
    headline, titles, *rows = text.split("\n")[:-1]
    at = titles.index(" FILE")
    shown = [row[at:].removeprefix(" ") for row in rows if not row.startswith("…")]
    (files,) = re.findall(r"(\d+) files", headline)
    assert int(files) == len(NAMES) + 1, "those below the folder and a deep one, each once"
    assert len(shown) == 20 and len(rows) == 21, "and the line that says how many more there are"
    paths = {escape(scene.below(name)) for name in NAMES}
    assert len(set(shown)) == 20 and len(set(shown) & paths) >= 18


def test_a_terminal_gets_colours_and_nothing_else(scene: Scene, recording: Path) -> None:
    controller, terminal = pty.openpty()
    environment = flak_environment(COLUMNS="100", TERM="xterm")
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "flak", "dump", str(recording)]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        data = b""
        try:
            while piece := os.read(controller, 1 << 16):
                data += piece
        except OSError:  # nobody has it open any more
            pass
    os.close(controller)
    assert process.returncode == 0
    text = data.decode()
    assert "\x1b[31m" in text, "failed opens are red"
    plain = re.sub(r"\x1b\[(0|2|3[1-6])?m", "", text).replace("\r\n", "\n")
    assert_is_printable(plain)
    events = [line for line in plain.split("\n") if re.match(r" *\d+\.\d{4} ", line)]
    assert len(events) == len(run("dump", "--json", str(recording)).lines) - 1


def test_what_is_said_about_a_command(scene: Scene, tmp_path: Path) -> None:
    """The command and the file's name are told on stderr."""
    output = tmp_path / "o\nflak: 0 events, 0ns, 0 lost\x1b[2J\u202e.flak"
    said = run("record", "-v", "-o", str(output), "--", os.fsdecode(scene.program), "\x1b[2J\nflak: forged")
    assert "\nflak: forged" not in said.err and "\nflak: 0 events, 0ns" not in said.err
    assert [line.split()[1] for line in said.err.splitlines()][-1] == "next:"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_doctor_started_under_a_hostile_name(options: list[str]) -> None:
    """Neither the program's own place, which it names where rights are missing, nor the folder it is run in breaks what
    doctor prints.
    """
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    environment = flak_environment()
    can = [*nobody, sys.executable, "-c", "import flak"]
    if not shutil.which("setpriv") or subprocess.run(can, env=environment, capture_output=True).returncode:
        pytest.skip("no setpriv, or others may not run this Python")
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "pa\nth\x1b[2J\u202e"
        folder.mkdir(0o755)
        Path(top).chmod(0o755)
        program = folder / "flak"
        program.write_text(f"#!{sys.executable}\nimport sys\nfrom flak.cli import main\nsys.exit(main())\n")
        program.chmod(0o755)
        for through in ([], nobody):
            done = subprocess.run(
                [*through, program, "doctor", *options], capture_output=True, env=environment, cwd=folder, timeout=20
            )
            assert done.returncode == bool(through) and done.stderr == b""
            out = done.stdout.decode()
            assert_is_printable(out)
            if options:
                assert strict(out)["can_trace"] is not bool(through)
            else:
                assert "this host can" in out.splitlines()[-1]
                assert (escape(os.fsencode(program)) in out) is bool(through)
