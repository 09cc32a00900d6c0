"""Accesses in few words, and the tables they refer to: what the tests of the analysis are fed with."""

from __future__ import annotations

import builders

from flak._records import NONE
from flak.analysis import FilePatterns, FileRow
from flak.events import Batch, File, Op, Tables, Task

PAGE = 4096


def access(
    op: int = Op.PREAD64,
    offset: int | None = 0,
    size: int | None = 10,
    ret: int | None = None,
    *,
    file: int = 1,
    path: int | None = None,
    task: int = 1,
    ts: int = 0,
    latency: int | None = 1000,
    fd: int = 3,
    marks: int = 0,
) -> bytes:
    """One slot. `ret` is `size` unless said; `path` has the file's number unless said."""
    return builders.access(
        op,
        ts_ns=ts,
        latency_ns=NONE if latency is None else latency,
        file_offset=NONE if offset is None else offset,
        size_req=NONE if size is None else size,
        ret=(size or 0) if ret is None else ret,
        task_id=task,
        file_id=file,
        path_id=file if path is None else path,
        fd=fd,
        marks=marks,
    )


def fault(page: int, pages: int = 0, before: int = 0, **rest: int) -> bytes:
    """A page fault; `pages` is the window the kernel tried to map, `before` how many of them lie before `page`."""
    return access(Op.FAULT, page * PAGE, 0x7F00_0000_0000, pages, fd=before, **rest)


def name(path_id: int, raw_path: bytes = b"", file_id: int | None = None) -> File:
    return File(path_id, file_id or path_id, raw_path or b"/f%d" % path_id, 8, 1, path_id, 0, 0o100644)


def make_tables() -> Tables:
    """Files 1 to 9 at /f1 to /f9; tasks 1 and 2 are processes 100 and 200, task 3 a second thread of 100."""
    tables = Tables()
    tables.files.update({n: n for n in range(1, 10)})
    tables.paths.update({n: name(n) for n in range(1, 10)})
    tables.tasks.update({1: Task(1, 100, 100, "a"), 2: Task(2, 200, 200, "b"), 3: Task(3, 100, 101, "a")})
    return tables


def results(*slots: bytes, tables: Tables | None = None, **options: int) -> list[FileRow]:
    patterns = FilePatterns(**options)
    patterns.add(Batch(b"".join(slots)), tables or make_tables())
    return patterns.results()


def result(*slots: bytes, **options: int) -> FileRow:
    (row,) = results(*slots, **options)
    return row
