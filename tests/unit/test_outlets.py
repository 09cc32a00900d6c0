"""Finished lines into pipes and files: all of them, soon, in few writes; and what happens when they take nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator
from io import FileIO, RawIOBase
from pathlib import Path

import pytest

from flak.cli.outputs import created, standard
from flak.errors import OutputError
from flak.outlets import COLLECTED_BYTES, COLLECTED_S, Collected, Direct, ReaderGone, name_of, write_text

LINE = "x" * 99 + "\n"


class Stream(RawIOBase):
    """Notes each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.writes.append(bytes(data))
        return len(data)

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)


class Pipe:
    """A pipe as its writer has it (`stream`), and what its reader can do."""

    def __init__(self, size: int | None = None) -> None:
        self.reading, writing = os.pipe()
        if size:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
        self.stream = FileIO(writing, "wb")

    def read(self) -> bytes:
        """What is there now."""
        ready, _, _ = select.select([self.reading], [], [], 0)
        return os.read(self.reading, 1 << 20) if ready else b""

    def read_to_end(self, pause_s: float = 0) -> bytes:
        """Everything until the writer has closed it, with pauses."""
        found = b""
        while data := os.read(self.reading, 4096):
            found += data
            time.sleep(pause_s)
        return found

    def leave(self) -> None:
        """Nobody reads any more."""
        os.close(self.reading)
        self.reading = -1

    def close(self) -> None:
        self.stream.close()
        if self.reading >= 0:
            os.close(self.reading)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def small_pipe() -> Iterator[Pipe]:
    made = Pipe(4096)
    yield made
    made.close()


def until(is_so: object, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_lines_after_a_silence_are_written_at_once() -> None:
    stream = Stream()
    outlet = Collected(stream)
    outlet.put([LINE])
    assert stream.data == LINE.encode()
    time.sleep(COLLECTED_S)
    outlet.put([LINE])
    assert stream.data == 2 * LINE.encode()
    outlet.close()


def test_lines_in_quick_succession_are_collected() -> None:
    stream = Stream()
    outlet = Collected(stream)
    begin = time.monotonic()
    for _ in range(600):  # rounds without a pause, less than 64 KiB of them
        outlet.put([LINE])
    most = 2 + (time.monotonic() - begin) / COLLECTED_S
    assert len(stream.writes) <= most
    outlet.close()
    assert stream.data == 600 * LINE.encode()


def test_sixty_four_kilobytes_do_not_wait() -> None:
    stream = Stream()
    outlet = Collected(stream)
    outlet.put([LINE])
    for _ in range(COLLECTED_BYTES // len(LINE) // 10 + 1):
        outlet.put([LINE] * 10)
    assert any(len(data) >= COLLECTED_BYTES for data in stream.writes)
    outlet.close()


def test_the_last_lines_before_a_silence_wait_for_nobody(pipe: Pipe) -> None:
    outlet = Collected(pipe.stream)
    outlet.put(["first\n"])
    assert pipe.read() == b"first\n"
    begin = time.monotonic()
    outlet.put(["last\n"])
    assert select.select([pipe.reading], [], [], 5)[0], "nobody called the outlet again"
    assert time.monotonic() - begin < 5 * COLLECTED_S
    assert pipe.read() == b"last\n"
    outlet.close()


def test_closing_writes_what_is_left_and_ends_the_thread(pipe: Pipe) -> None:
    before = threading.active_count()
    outlet = Collected(pipe.stream)
    outlet.put(["1\n"])
    outlet.put(["2\n", "3\n"])
    assert threading.active_count() == before + 1
    outlet.close()
    assert pipe.read() == b"1\n2\n3\n"
    assert threading.active_count() == before
    outlet.close()


def test_a_full_pipe_is_waited_for_and_gets_every_line(small_pipe: Pipe) -> None:
    lines = [f"{number:07}\n" for number in range(20_011)]
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(small_pipe.read_to_end(0.0005)))
    reader.start()
    outlet = Collected(small_pipe.stream)
    for at in range(0, len(lines), 13):
        outlet.put(lines[at : at + 13])
    outlet.close()
    small_pipe.stream.close()
    reader.join()
    assert found[0].decode() == "".join(lines)


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for(small_pipe: Pipe) -> None:
    os.set_blocking(small_pipe.stream.fileno(), False)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(small_pipe.read_to_end(0.001)))
    reader.start()
    begin = time.process_time()
    write_text(small_pipe.stream, LINE * 1009)
    small_pipe.stream.close()
    reader.join()
    assert found[0] == LINE.encode() * 1009
    assert time.process_time() - begin < 1, "it waited idly"


def test_a_reader_that_has_gone_is_noticed_at_the_next_lines(pipe: Pipe) -> None:
    outlet = Collected(pipe.stream)
    outlet.put(["1\n"])
    pipe.leave()
    time.sleep(COLLECTED_S)
    with pytest.raises(ReaderGone):
        outlet.put(["2\n"])
    outlet.close()


def test_what_the_thread_meets_is_raised_by_whoever_comes_next(pipe: Pipe) -> None:
    outlet = Collected(pipe.stream)
    outlet.put(["1\n"])
    pipe.leave()
    outlet.put(["2\n"])
    until(lambda: outlet._error)
    with pytest.raises(ReaderGone):
        outlet.put(["3\n"])
    outlet.close()


def test_closing_tells_that_the_reader_has_gone(pipe: Pipe) -> None:
    outlet = Collected(pipe.stream)
    outlet.put(["1\n"])
    pipe.leave()
    outlet.put(["2\n"])
    with pytest.raises(ReaderGone):
        outlet.close()
    outlet.close()


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    with created(Path("/dev/full"), force=False, owner=None) as stream:
        outlet = Collected(stream)
        with pytest.raises(OutputError, match=r"^cannot write /dev/full: No space left on device$"):
            outlet.put([LINE])
        outlet.close()


def test_a_full_disk_is_an_error_at_the_end_too() -> None:
    class Full(Stream):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            if self.writes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    outlet = Collected(Full())
    outlet.put([LINE])
    outlet.put([LINE])
    with pytest.raises(OutputError, match="cannot write the output: No space"):
        outlet.close()


def test_streams_are_called_what_people_call_them(tmp_path: Path) -> None:
    assert name_of(standard(1)) == "stdout"
    assert name_of(standard(2)) == "stderr"
    with created(tmp_path / "lines.txt", force=False, owner=None) as stream:
        assert name_of(stream) == str(tmp_path / "lines.txt")
        stream.write(b"x")


def test_direct_writes_each_time() -> None:
    stream = Stream()
    outlet = Direct(stream)
    outlet.put(["1\n", "2\n"])
    outlet.put(["3\n"])
    assert stream.writes == [b"1\n2\n", b"3\n"]
    outlet.close()
