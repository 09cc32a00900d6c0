"""A file system that answers when it is told to: FUSE's own protocol (linux/fuse.h), without a library.

`Fuse` mounts it and starts its server, a process of its own: this file as a program. All files lie in the root, are
`SIZE` bytes long and consist of the 32-bit numbers 0, 1, 2, …: what is read tells where. Nothing is kept by the kernel
but pages, so that every lookup and every stat asks the server.

    with mounted(folder, ["a", "b"]) as fuse:
        fuse.hold("read", "a")        # from now on these requests stay without an answer
        …                             # somebody reads a, and hangs
        fuse.wait_held("read", "a")
        fuse.let_go()                 # all is answered, and nothing is held any more

Whatever happens, nobody stays hanging: when the server ends, the kernel fails all that waits; and the server ends with
the process that started it. It ignores what the kernel says about signals (INTERRUPT), as a dead server does: who has
been killed waits on.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import json
import os
import select
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SIZE = 1 << 20
PATIENCE_S = 10
MNT_FORCE, MNT_DETACH = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


class Opcode(enum.IntEnum):
    """enum fuse_opcode, as far as somebody asks for it."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


class CannotMount(Exception):
    """There is no FUSE here, or it is not permitted."""


class Fuse:
    """The mounted file system, as who mounted it sees it: `folder` is where."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        try:
            device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise CannotMount(f"/dev/fuse cannot be opened: {error.strerror}") from None
        try:
            options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
            if _libc.mount(b"hanging", os.fsencode(folder), b"fuse", 0, options.encode()):
                raise CannotMount(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, __file__, str(device), str(theirs.fileno()), str(folder), *names],
                    pass_fds=(device, theirs.fileno()),
                )
        finally:
            os.close(device)  # the server's alone: its end is the end of all that waits
        self._control.settimeout(PATIENCE_S)
        self._turn = threading.Lock()

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def _tell(self, *words: str) -> str:
        with self._turn:
            self._control.send(" ".join(words).encode())
            return self._control.recv(1 << 16).decode()

    def hold(self, op: str, name: str) -> None:
        """From now on requests of this kind ("read", "lookup", "open" …) for this file are not answered."""
        self._tell("hold", op, name)

    def held(self) -> list[tuple[str, str]]:
        """What waits for an answer, as (op, name)."""
        return [(op, name) for op, name in json.loads(self._tell("held"))]

    def wait_held(self, op: str, name: str) -> None:
        """Waits until somebody hangs there."""
        deadline = time.monotonic() + PATIENCE_S
        while (op, name) not in self.held():
            assert time.monotonic() < deadline, f"nobody asked to {op} {name}"
            time.sleep(0.002)

    def let_go(self) -> None:
        """Answers all that is held, and holds no more. May be called again, and when the server has ended."""
        with suppress(OSError):
            self._tell("let_go")

    def close(self) -> None:
        """Ends the server, whereupon the kernel fails what still waits, and unmounts."""
        self.process.kill()
        self.process.wait()
        self._control.close()
        unmount(self.folder)


def unmount(folder: Path) -> None:
    """Unmounts, where anything is mounted, whoever still uses it; waits for no server."""
    _libc.umount2(os.fsencode(folder), MNT_FORCE | MNT_DETACH)


@contextmanager
def mounted(folder: Path, names: Sequence[str]) -> Iterator[Fuse]:
    """A file system with these files while inside; CannotMount where that is not possible."""
    fuse = Fuse(folder, names)
    try:
        yield fuse
    finally:
        fuse.close()


# --- the server

_IN = struct.Struct("<IIQQIIIHH")  # fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, …
_OUT = struct.Struct("<IiQ")  # fuse_out_header: len, error, unique
_ATTR = struct.Struct("<6Q10I")  # fuse_attr
_ROOT = 1
_FIRST = 2  # nodeid of the first file
_FOPEN_DIRECT_IO = 1
_ASYNC_READ, _ASYNC_DIO = 1 << 0, 1 << 15
_BUFFER = (1 << 17) + 4096

Request = tuple[int, int, int, bytes]
"""(opcode, unique, nodeid, body)."""


class Server:
    """Answers the kernel's requests. A file whose name begins with "direct" is not kept in the page cache."""

    def __init__(self, device: int, control: socket.socket, names: Sequence[str]) -> None:
        self.device = device
        self.control = control
        self.names = list(names)
        self.holds: set[tuple[str, str]] = set()
        self.waiting: list[Request] = []
        self.answers: dict[int, Callable[[int, bytes], bytes]] = {
            Opcode.INIT: self.init,
            Opcode.LOOKUP: self.lookup,
            Opcode.GETATTR: lambda node, _: struct.pack("<QII", 0, 0, 0) + self.attributes(node),
            Opcode.SETATTR: lambda node, _: struct.pack("<QII", 0, 0, 0) + self.attributes(node),
            Opcode.OPEN: self.open,
            Opcode.OPENDIR: lambda *_: bytes(16),
            Opcode.READ: self.read,
            Opcode.READDIR: lambda *_: b"",
            Opcode.WRITE: lambda _, body: body[16:20] + bytes(4),
            Opcode.STATFS: lambda *_: struct.pack("<5Q4I24x", 1, 0, 0, 1, 0, 4096, 255, 4096, 0),
            Opcode.RELEASE: lambda *_: b"",
            Opcode.RELEASEDIR: lambda *_: b"",
            Opcode.FLUSH: lambda *_: b"",
            Opcode.FSYNC: lambda *_: b"",
        }

    def serve(self) -> None:
        """Until it is unmounted, or nobody holds the other end of `control` any more."""
        while True:
            ready, _, _ = select.select([self.device, self.control.fileno()], [], [])
            if self.control.fileno() in ready:
                words = self.control.recv(4096).decode().split()
                if not words:
                    return
                self.control.send(self.obey(*words).encode())
            elif not self.take():
                return

    def obey(self, command: str, *words: str) -> str:
        if command == "hold":
            self.holds.add((words[0], words[1]))
        elif command == "let_go":
            self.holds.clear()
            waiting, self.waiting = self.waiting, []
            for request in waiting:
                self.answer(request)
        elif command == "held":
            return json.dumps([self.key(request) for request in self.waiting])
        return "done"

    def take(self) -> bool:
        """Takes a request; False when there will be none any more."""
        try:
            data = os.read(self.device, _BUFFER)
        except OSError as error:
            return error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN)  # ENOENT: it has been taken back
        _, opcode, unique, node, *_ = _IN.unpack_from(data)
        request = (opcode, unique, node, data[_IN.size :])
        if self.key(request) in self.holds:
            self.waiting.append(request)
        elif opcode not in (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT):  # those get no answer
            self.answer(request)
        return True

    def key(self, request: Request) -> tuple[str, str]:
        """What is asked for, of which file."""
        opcode, _, node, body = request
        op = Opcode(opcode).name.lower() if opcode in Opcode.__members__.values() else str(opcode)
        return (op, body.rstrip(b"\0").decode() if opcode == Opcode.LOOKUP else self.name(node))

    def answer(self, request: Request) -> None:
        opcode, unique, node, body = request
        error, data = 0, b""
        if opcode in self.answers:
            try:
                data = self.answers[opcode](node, body)
            except FileNotFoundError:
                error = -errno.ENOENT
        else:
            error = -errno.ENOSYS
        with suppress(OSError):  # who asked may be gone
            os.write(self.device, _OUT.pack(_OUT.size + len(data), error, unique) + data)

    def name(self, node: int) -> str:
        return self.names[node - _FIRST] if _FIRST <= node < _FIRST + len(self.names) else ""

    def attributes(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR | 0o755, 0) if node == _ROOT else (stat.S_IFREG | 0o666, SIZE)
        return _ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def init(self, _: int, body: bytes) -> bytes:
        major, _minor, readahead, flags = struct.unpack_from("<4I", body)
        flags &= _ASYNC_READ | _ASYNC_DIO
        # Minor 31: no request is longer or otherwise than read here.
        return struct.pack("<4IHHIIHH32x", major, 31, readahead, flags, 64, 64, 1 << 16, 1, 0, 0)

    def lookup(self, _: int, body: bytes) -> bytes:
        name = body.rstrip(b"\0").decode()
        if name not in self.names:
            raise FileNotFoundError
        node = _FIRST + self.names.index(name)
        return struct.pack("<4Q2I", node, 0, 0, 0, 0, 0) + self.attributes(node)

    def open(self, node: int, _: bytes) -> bytes:
        return struct.pack("<QII", 0, _FOPEN_DIRECT_IO if self.name(node).startswith("direct") else 0, 0)

    def read(self, _: int, body: bytes) -> bytes:
        _handle, offset, size = struct.unpack_from("<QQI", body)
        first, end = offset // 4, min(offset + size, SIZE)
        return b"".join(n.to_bytes(4, "little") for n in range(first, -(-end // 4)))[offset % 4 :][: end - offset]


def main() -> None:
    device, control, folder, *names = sys.argv[1:]
    try:
        with socket.socket(fileno=int(control)) as theirs:
            Server(int(device), theirs, names).serve()
    finally:
        unmount(Path(folder))


if __name__ == "__main__":
    main()
