"""Data stays where it is: a program moves a secret by every road, and nothing that FLAK puts out holds a piece of it.

`tests/unit/test_user_reads.py` asks the same of the programs that are loaded.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flak.events import escape

from .running import Workloads, flak_environment

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

SIZE, PIECE = 64, 6
ROADS = {"write", "read", "pwrite64", "pread64", "pwritev2", "preadv2", "sendfile64", "splice", "getdents64", "fault"}


def random_bytes(size: int) -> bytes:
    """Such as may stand in a name, too."""
    found = b""
    while len(found) < size:
        found += os.urandom(size).translate(None, b"\0/")
    return found[:size]


class Outputs(NamedTuple):
    """What one run left behind."""

    recording: bytes
    json: str


def record(command: list[str], folder: Path, data: bytes) -> Outputs:
    """Records a command that is given data on stdin, with all that can be recorded."""
    path = folder / "run.flak"
    flak_command = [sys.executable, "-m", "flak"]
    environment = flak_environment()
    subprocess.run(
        [*flak_command, "record", "-q", "--all-files", "--on-loss", "fail", "-o", str(path), "--", *command],
        input=data, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=20,
    )  # fmt: skip
    dump = [*flak_command, "dump", "--json", str(path)]
    done = subprocess.run(dump, env=environment, capture_output=True, check=True, timeout=20)
    return Outputs(path.read_bytes(), done.stdout.decode())


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + PIECE] for at in range(len(data) - PIECE + 1))


def leaks(outputs: Outputs, data: bytes) -> list[str]:
    """Where a piece of the data is found, as bytes or as anything that JSON makes of bytes."""
    found = [f"recording: {piece.hex()}" for piece in pieces(data) if piece in outputs.recording]
    text = outputs.json
    strings, numbers = set(), set()
    for line in text.splitlines():
        for value in json.loads(line).values():
            if isinstance(value, str):
                strings.add(value)
            elif isinstance(value, int):
                numbers.add(value % (1 << 64))
    everything = "\n".join(strings)
    in_base64 = b"\n".join(base64.b64decode(value) for value in strings if value and _is_base64(value))
    for piece in pieces(data):
        if escape(piece) in everything or piece.hex() in everything or piece in in_base64:
            found.append(f"JSON: {piece.hex()}")
    for at in range(len(data) - 7):
        for order in ("little", "big"):
            if int.from_bytes(data[at : at + 8], order) in numbers:  # type: ignore[arg-type]
                found.append(f"JSON number: {data[at : at + 8].hex()}")
    return found


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


@pytest.fixture
def scene(folder: Path) -> Path:
    (folder / "listed").mkdir()
    return folder


def test_no_byte_of_a_buffer_gets_out(workloads: Workloads, scene: Path, tmp_path: Path) -> None:
    secret, name = random_bytes(SIZE), random_bytes(SIZE)
    (scene / "listed" / os.fsdecode(name)).touch()
    outputs = record(workloads.command("secret", scene), tmp_path, secret)
    events = [json.loads(line) for line in outputs.json.splitlines()]
    moved = [event for event in events if event.get("size_ret") == SIZE]
    assert len(moved) > 25, "the secret was moved, and that was recorded"
    assert {event["op"] for event in events} >= ROADS
    assert {event["kind"] for event in moved} >= {"file", "pipe", "socket", "memfd"}
    assert (scene / "one").read_bytes().startswith(secret)
    assert leaks(outputs, secret) == []
    assert leaks(outputs, name) == [], "what a listing returned is data"


def test_what_is_a_name_would_have_been_found(workloads: Workloads, scene: Path, tmp_path: Path) -> None:
    """The search above finds what is there."""
    name = random_bytes(SIZE)
    (scene / "listed" / os.fsdecode(name)).write_bytes(b"x")
    outputs = record(["cat", str(scene / "listed" / os.fsdecode(name))], tmp_path, b"")
    assert {leak.partition(":")[0] for leak in leaks(outputs, name)} == {"recording", "JSON"}
