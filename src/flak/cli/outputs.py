"""Files that lines are written to: made with care for whose they are and what was there before.

Recordings are made by `tracefile`; this is for text and JSON lines.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from io import FileIO, RawIOBase
from pathlib import Path

from flak.errors import OutputError
from flak.target import invoking_owner, user_of

__all__ = ["check_creatable", "created", "standard", "streams"]


@contextlib.contextmanager
def created(path: Path, *, force: bool, owner: tuple[int, int] | None) -> Iterator[RawIOBase]:
    """A stream into a file that is new, or may be overwritten (`force`), and that only its owner can read.

    Devices and named pipes are written to as they are. A new file to which nothing was written is removed again:
    the run never began. `owner` is the invoking user, in whose name the file is made.
    """
    is_new = not path.exists()
    try:
        with _acting_as(owner):
            descriptor = os.open(path, _flags(path, force), 0o600)
    except FileExistsError:
        raise OutputError(f"{path} exists", "overwrite it with --force, or choose another name") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    # With an opener a stream is named like its file, for messages; fdopen would name it by its number.
    with FileIO(path, "wb", opener=lambda *_: descriptor) as stream:
        try:
            yield stream
        finally:
            if is_new and os.fstat(descriptor).st_size == 0:
                with _acting_as(owner):
                    path.unlink(missing_ok=True)


def standard(descriptor: int) -> RawIOBase:
    """Standard output or error, unbuffered: a write that failed leaves nothing behind that is tried again at exit."""
    return os.fdopen(descriptor, "wb", buffering=0, closefd=False)


@contextlib.contextmanager
def streams(output: str | None, *, usual: int, has_lines: bool, force: bool) -> Iterator[tuple[RawIOBase, RawIOBase]]:
    """Where lines go, and where the table goes: `output` ("-" is stdout) and the descriptor `usual`.

    A file takes the lines; the table, too, only when there are no lines.
    """
    if output is None or output == "-":
        both = standard(usual if output is None else 1)
        yield both, both
        return
    with created(Path(output), force=force, owner=invoking_owner()) as file:
        yield file, standard(usual) if has_lines else file


def check_creatable(path: Path, *, force: bool) -> None:
    """OutputError where a file could not be created now, by the user who called sudo if there is one.

    To be asked before something is started that must not fail.
    """
    with _acting_as(invoking_owner()):
        try:
            path.lstat()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        else:
            if not force:
                raise OutputError(f"{path} exists", "overwrite it with --force, or choose another name")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: {path.parent} is no folder")
        if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise OutputError(f"cannot write {path}: not permitted to write in {path.parent}")


def _flags(path: Path, force: bool) -> int:
    """Flags that never follow a link and never cut off what may not be overwritten."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        is_regular = stat.S_ISREG(path.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        is_regular = True
    if not is_regular:
        return flags
    return flags | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)


@contextlib.contextmanager
def _acting_as(owner: tuple[int, int] | None) -> Iterator[None]:
    """With the rights of another user: with root's, a link in a folder of theirs could lead anywhere."""
    if owner is None:
        yield
        return
    # Of the whole process, all threads: the C library sees to that.
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    is_root = uid == 0  # no longer so once the privileges are shed; the groups are the user's then
    try:
        if is_root:
            os.setgroups(user_of(owner).groups)
        os.setegid(owner[1])
        os.seteuid(owner[0])
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        if is_root:
            os.setgroups(groups)
