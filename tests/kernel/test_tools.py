"""Real programs under FLAK, and what their files say: every byte that was copied, every name that was made or removed.

Each program runs twice: under strace, which FLAK follows, so that both see the same execution and must tell of the same
calls, one by one; and alone, as users run it. What the files say must hold both times.
"""

from __future__ import annotations

import errno
import importlib.util
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

import flak
from flak.analysis import FilePatterns, FileRow
from flak.events import (
    Access,
    CopyFrom,
    CopyTo,
    Event,
    Exec,
    Exit,
    Fault,
    Fork,
    Link,
    ListDir,
    Mkdir,
    Mmap,
    Open,
    Read,
    Rename,
    Seek,
    Stat,
    Sync,
    Unlink,
    Write,
    escape,
)

from . import witness
from .running import PAGE, Run, by_tid, count_by
from .witness import Witness

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

AT_REMOVEDIR = 0x200
FIGURES = ("read_count", "read_bytes", "write_count", "write_bytes", "failed_count")


class Seen(Run):
    """A run with its figures per file."""

    rows: list[FileRow]

    def below(self, folder: Path, *classes: type) -> list[Any]:
        """Accesses of these classes to a folder and what is in it, without those that failed."""
        return [e for e in self.of(*classes) if e.errno is None and f"{e.path}/".startswith(f"{shown(folder)}/")]

    def names(self, folder: Path, *classes: type) -> Counter[str]:
        """The paths of such accesses, with how often."""
        return count_by(self.below(folder, *classes), "path")

    def names_made(self) -> Counter[str]:
        """Names that links were given, with how often."""
        return count_by((e for e in self.of(Link) if e.errno is None), "new_path")

    def moved(self, folder: Path, kind: type) -> dict[int, int]:
        """Bytes read or written below a folder, by inode number; without inodes of which it was none.

        Of files that had the same number in turn it is the last.
        """
        sums: Counter[int] = Counter()
        last: dict[int, int] = {}
        for access in self.below(folder, kind):
            last[access.ino] = access.file_id
            sums[access.file_id] += access.size_ret
        return {ino: sums[file_id] for ino, file_id in last.items() if sums[file_id]}


def shown(path: Path) -> str:
    """A path as FLAK shows it."""
    return escape(os.fsencode(path))


def trace(command: Sequence[str], folder: Path) -> Seen:
    """Runs a command under FLAK; its stdout goes to a file beside the folder."""
    output = folder.parent / "stdout"
    patterns, events = FilePatterns(page_size=mmap.PAGESIZE), list[Event]()
    with output.open("wb") as stdout, flak.trace(command=command, stdout=stdout.fileno()) as session:
        for batch in session.batches():
            patterns.add(batch, session.tables)
            events += session.decode(batch)
        events += session.tail()
    seen = Seen(events, session.stats, session.command_status, os.fsdecode(output.read_bytes()))
    seen.rows = patterns.results()
    assert seen.status == 0
    assert seen.stats.is_exact and not seen.stats.lost and not seen.stats.filtered
    return seen


def agree(seen: Seen, log: Witness) -> None:
    """FLAK and strace tell of the same calls of each thread, in order, in all the words that strace has for them."""
    # What the kernel maps for an exec is no call.
    threads = by_tid(e for e in seen.of(Access) if not isinstance(e, Fault) and "by_exec" not in e.marks)
    # strace's child is strace itself until it executes the program.
    begin = min(e.ts_ns for e in seen.of(Exec) if e.tid == log.first)
    threads[log.first] = [e for e in threads[log.first] if e.ts_ns > begin]
    for tid, calls in log.threads.items():
        accesses = threads.get(tid, [])
        assert [(e.op, e.path) for e in accesses] == [(call.op, call.words["path"]) for call in calls]
        for access, call in zip(accesses, calls, strict=True):
            words = {word: getattr(access, word) for word in call.words}
            words["errno"] = words["errno"] and getattr(errno, words["errno"])
            assert words == call.words, call.line
    assert {tid for tid in threads if tid in log.exits} <= set(log.threads), "nobody else did anything"


def agree_on_processes(seen: Seen, log: Witness) -> None:
    """The same threads were made, took up programs and ended."""
    forks = defaultdict(list)
    for fork in seen.of(Fork):
        forks[fork.tid].append(fork.child_tid)
    assert {tid: children for tid, children in forks.items() if tid in log.exits} == log.forks
    execs = count_by(seen.of(Exec), "tid")
    assert {tid: n for tid, n in execs.items() if tid in log.exits} == log.execs
    assert {e.tid: e.exit_code for e in seen.of(Exit) if e.tid in log.exits} == log.exits


def named(seen: Seen) -> dict[int, str]:
    """The name that each file had when it was first read or written, by file_id."""
    names: dict[int, str] = {}
    for access in seen.of(Read, Write):
        names.setdefault(access.file_id, access.path)
    return names


def figures(seen: Seen, folder: Path) -> dict[str, Counter[str]]:
    """What the analysis says of each file below a folder, by that name."""
    names, sums = named(seen), defaultdict[str, Counter[str]](Counter)
    for row in seen.rows:
        sums[names.get(row.file_id, row.path)].update({figure: getattr(row, figure) for figure in FIGURES})
    return only_below(folder, sums)


def counted(seen: Seen, folder: Path) -> dict[str, Counter[str]]:
    """The same, added up from the accesses."""
    names, sums = named(seen), defaultdict[str, Counter[str]](Counter)
    for access in seen.of(Read, Write):
        verb = "write" if access.is_write else "read"
        done = {f"{verb}_count": 1, f"{verb}_bytes": access.size_ret or 0}
        sums[names[access.file_id]].update({"failed_count": 1} if access.errno else done)
    return only_below(folder, sums)


def only_below(folder: Path, sums: Mapping[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Without what is elsewhere and without zeros."""
    return {name: +total for name, total in sums.items() if name.startswith(f"{shown(folder)}/") and +total}


def links_below(folder: Path) -> list[set[str]]:
    """The names of each file that has several."""
    names: dict[int, set[str]] = defaultdict(set)
    for path in folder.rglob("*"):
        names[path.lstat().st_ino].add(str(path))
    return [same for same in names.values() if len(same) > 1]


class Watch(Protocol):
    """`watch(command)`: see the fixture."""

    def __call__(self, *command: object) -> Seen: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the program works: its own log, output and programs are elsewhere."""
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture(params=["beside strace", "alone"])
def watch(request: pytest.FixtureRequest, folder: Path) -> Watch:
    """Runs a command and checks all that holds for any: FLAK agrees with strace, nothing is counted twice or not."""

    def run(*command: object) -> Seen:
        words = [str(part) for part in command]
        words[0] = tool(words[0])
        if request.param == "alone":
            seen = trace(words, folder)
            assert seen.stats.not_decoded == {}
            assert figures(seen, folder) == counted(seen, folder)
            return seen
        prefix, links = folder.parent / "strace", links_below(folder)
        seen = trace([tool("strace"), *witness.OPTIONS, "-o", str(prefix), *words], folder)
        # strace reads strings from the program's memory, and brings in pages for that.
        assert set(seen.stats.not_decoded) <= {"gup_fault"}
        log = Witness(prefix, links)
        assert not log.not_decoded, "io_uring_enter and io_submit"
        agree(seen, log)
        agree_on_processes(seen, log)
        assert figures(seen, folder) == counted(seen, folder) == only_below(folder, log.totals)
        return seen

    return run


def tool(name: str) -> str:
    """The program of that name."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


NAMES = [
    b"plain", b"two words", b"a\nline", b"quo\"te'", b"back\\slash", b"<angle>, [x]", b"\xff\xfe", "ünïcødé".encode(),
]  # fmt: skip


@pytest.fixture
def tree(folder: Path) -> Path:
    """Folders, files of sizes from 0 on, of all sorts of names, a hard and a symbolic link in each folder."""
    top = folder / "tree"
    for number, name in enumerate(NAMES):
        part = top / os.fsdecode(name)
        part.mkdir(parents=True)
        for size, file in enumerate(NAMES):
            (part / os.fsdecode(file)).write_bytes(os.urandom(4099 * size * number))
        (part / "symbolic").symlink_to("plain")
        (part / "hard").hardlink_to(part / "two words")
    return top


def files_below(folder: Path) -> list[Path]:
    """Regular files, by each of their names."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def folders_below(folder: Path) -> list[Path]:
    """The folder and those in it."""
    return [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]


def sizes(paths: Iterable[Path]) -> dict[int, int]:
    """Inode number → size, of files that are not empty."""
    return {path.stat().st_ino: path.stat().st_size for path in paths if path.stat().st_size}


def data_of(path: Path) -> list[tuple[int, int]]:
    """Where a file has data: (offset, end)."""
    parts, at = list[tuple[int, int]](), 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while at < os.fstat(fd).st_size:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            parts.append((begin, at))
    except OSError as error:
        assert error.errno == errno.ENXIO, "a hole at the end"
    finally:
        os.close(fd)
    return parts


def ranges(accesses: Iterable[Any]) -> list[tuple[int, int]]:
    """The parts of a file that were moved, those that touch joined. None may have been moved twice."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted((e.file_offset, e.end_offset) for e in accesses if e.size_ret):
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            assert not joined or joined[-1][1] < begin, f"{begin} was moved twice"
            joined.append((begin, end))
    return joined


@pytest.fixture
def holes(folder: Path) -> Path:
    """8 MiB with three islands of data."""
    path = folder / "holes"
    with path.open("wb") as file:
        for at in (0, 3 << 20, 5 << 20):
            file.seek(at)
            file.write(os.urandom(300_017))
        file.truncate(8 << 20)
    return path


def skip_clones(seen: Seen) -> None:
    """cp shares blocks where it can, and moves no bytes."""
    if any(e.op == "ficlone" and e.errno is None for e in seen.of(CopyTo)):
        pytest.skip("this file system clones")


def test_cp_copies_what_is_no_hole(watch: Watch, folder: Path, holes: Path) -> None:
    copy = folder / "copy"
    seen = watch("cp", holes, copy)
    assert copy.read_bytes() == holes.read_bytes()
    skip_clones(seen)
    assert seen.on(holes, Seek), "it looked for the holes"
    assert ranges(seen.on(holes, Read)) == ranges(seen.on(copy, Write)) == data_of(holes)
    data_bytes = sum(end - begin for begin, end in data_of(holes))
    (source,), (target,) = ([row for row in seen.rows if row.path == str(path)] for path in (holes, copy))
    assert (source.read_bytes, source.unique_read_bytes, source.write_bytes) == (data_bytes, data_bytes, 0)
    assert (target.write_bytes, target.unique_write_bytes, target.read_bytes) == (data_bytes, data_bytes, 0)


def test_cp_of_a_tree_reads_and_writes_each_file_once(watch: Watch, folder: Path, tree: Path) -> None:
    copy = folder / "copy"
    seen = watch("cp", "-a", tree, copy)
    skip_clones(seen)
    assert seen.moved(tree, Read) == sizes(files_below(tree))
    assert seen.moved(copy, Write) == sizes(files_below(copy))
    assert not seen.moved(tree, Write) and not seen.moved(copy, Read)
    assert seen.names(copy, Mkdir) == {shown(path): 1 for path in folders_below(copy)}
    assert seen.names_made() == {shown(path / link): 1 for path in copy.iterdir() for link in ("symbolic", "hard")}


def test_mv_within_a_file_system_is_one_rename(watch: Watch, folder: Path, tree: Path) -> None:
    moved = folder / "moved"
    seen = watch("mv", tree, moved)
    assert [(e.path, e.new_path, e.errno) for e in seen.of(Rename)] == [(str(tree), str(moved), None)]
    assert not seen.below(folder, Read, Write, Unlink, Mkdir, Open)
    assert figures(seen, folder) == {}


@pytest.fixture
def elsewhere(folder: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == folder.stat().st_dev:
        pytest.skip(f"{memory} is no file system of its own")
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path)


def test_mv_to_another_file_system_and_back_copies_and_unlinks(
    watch: Watch, folder: Path, tree: Path, elsewhere: Path
) -> None:
    away, back = elsewhere / "away", folder / "back"
    relative = [path.relative_to(tree) for path in (tree, *tree.rglob("*"))]
    before = sizes(files_below(tree))
    seen = watch("sh", "-c", 'mv "$1" "$2" && mv "$2" "$3"', "sh", tree, away, back)
    assert [(e.path, e.new_path, e.errno) for e in seen.of(Rename)] == [
        (str(tree), str(away), "EXDEV"), (str(away), str(back), "EXDEV"),
    ]  # fmt: skip
    assert seen.moved(tree, Read) == before and seen.moved(back, Write) == sizes(files_below(back))
    assert seen.moved(away, Read) == seen.moved(away, Write)
    assert sorted(before.values()) == sorted(seen.moved(away, Read).values())
    for source in (tree, away):
        assert seen.names(source, Unlink) == {shown(source / path): 1 for path in relative}


def test_rsync_writes_beside_and_renames(watch: Watch, folder: Path, tree: Path) -> None:
    copy = folder / "copy"
    read = Counter(path.stat().st_ino for path in files_below(tree))  # it takes a hard link for a file of its own
    seen = watch("rsync", "-a", f"{tree}/", copy)
    assert seen.moved(tree, Read) == {ino: size * read[ino] for ino, size in sizes(files_below(tree)).items()}
    assert seen.moved(copy, Write) == sizes(files_below(copy))
    renamed = count_by(seen.of(Rename), "new_path")
    assert renamed == {shown(path): 1 for path in files_below(copy)}


def test_busybox_cat_sends_the_file(watch: Watch, folder: Path, holes: Path) -> None:
    seen = watch("busybox", "cat", holes)
    assert os.fsencode(seen.output) == holes.read_bytes()
    both = [seen.on(path, CopyFrom, CopyTo) for path in (holes, folder.parent / "stdout")]
    assert [ranges(side) for side in both] == 2 * [[(0, 8 << 20)]]
    assert {e.op for side in both for e in side} == {"sendfile64"}
    assert not [e for e in seen.on(holes, Read) if not isinstance(e, CopyFrom)]


def test_busybox_cp_moves_all_bytes_once(watch: Watch, folder: Path, holes: Path) -> None:
    copy = folder / "copy"
    seen = watch("busybox", "cp", holes, copy)
    assert ranges(seen.on(holes, Read)) == ranges(seen.on(copy, Write)) == [(0, 8 << 20)]
    assert copy.read_bytes() == holes.read_bytes()


def test_rm_unlinks_each_name_once(watch: Watch, tree: Path) -> None:
    names = {shown(path): 1 for path in (tree, *tree.rglob("*"))}
    folders = {shown(path) for path in folders_below(tree)}
    seen = watch("rm", "-r", tree)
    assert seen.names(tree, Unlink) == names
    assert {e.path for e in seen.below(tree, Unlink) if e.flags == AT_REMOVEDIR} == folders
    assert not seen.below(tree, Read, Write)


def test_find_looks_at_each_file(watch: Watch, tree: Path) -> None:
    old = tree / "plain" / "plain"
    os.utime(old, (0, 0))
    inodes = {shown(path): path.lstat().st_ino for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()}
    seen = watch("find", tree, "-size", "+40k", "-newer", old)
    looks = [e for e in seen.below(tree, Stat) if e.path in inodes]
    assert {e.path: e.ino for e in looks} == inodes
    assert count_by(looks, "path") == dict.fromkeys(inodes, 1) | {str(old): 2}
    assert {e.path for e in seen.below(tree, ListDir)} == {shown(path) for path in folders_below(tree)}
    large = {str(path) for path in files_below(tree) if path.stat().st_size > 40 << 10}
    assert large and all(path in seen.output for path in large)


def test_tar_reads_each_file_into_the_archive(watch: Watch, folder: Path, tree: Path) -> None:
    archive = folder / "archive"
    seen = watch("tar", "-C", folder, "-cf", archive, tree.name)
    assert seen.moved(tree, Read) == sizes(files_below(tree))
    assert ranges(seen.on(archive, Write)) == [(0, archive.stat().st_size)]
    assert seen.names(tree, ListDir).keys() == {shown(path) for path in folders_below(tree)}


def test_tar_writes_each_file_of_the_archive(watch: Watch, folder: Path, tree: Path) -> None:
    archive, out = folder / "archive", folder / "out"
    subprocess.run([tool("tar"), "-C", folder, "-cf", archive, tree.name], check=True)
    out.mkdir()
    seen = watch("tar", "-C", out, "-xf", archive)
    made = out / tree.name
    assert ranges(seen.on(archive, Read)) == [(0, archive.stat().st_size)]
    assert seen.moved(out, Write) == sizes(files_below(made))
    assert seen.names(made, Mkdir) == {shown(path): 1 for path in folders_below(made)}
    assert seen.names_made().keys() >= {shown(path / "symbolic") for path in made.iterdir()}
    assert seen.names_made().total() == 2 * len(NAMES)


def test_git_gc_packs_the_objects(watch: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOME": folder.parent, "GIT_CONFIG_NOSYSTEM": 1}.items():
        monkeypatch.setenv(name, str(value))
    git = [tool("git"), "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(7):
        (folder / f"file{number}").write_bytes(os.urandom(1009 * number))
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", f"{number}"], check=True)
    objects = folder / ".git" / "objects"
    loose = {str(path) for path in objects.glob("??/*")}
    assert len(loose) == 3 * 7, "a file, a folder, a commit each"
    seen = watch(*git, "gc", "-q")
    assert seen.names(objects, Unlink).keys() >= loose
    made = list((objects / "pack").iterdir())
    assert {path.suffix for path in made} >= {".pack", ".idx"}
    for path in made:
        writes = [e for e in seen.of(Write) if e.ino == path.stat().st_ino]
        last = [e for e in writes if e.file_id == writes[-1].file_id]  # the number may have been another file's before
        assert ranges(last) == [(0, path.stat().st_size)]
        assert shown(path) in {e.new_path for e in seen.of(Rename, Link) if e.errno is None}, "it had another name"


DATA = "0123456789" * 5003


def build_wheel(folder: Path) -> Path:
    """A wheel by hand: what pip needs of one."""
    name, wheel = "witnessed-1.0", folder / "witnessed-1.0-py3-none-any.whl"
    files = {
        "witnessed/__init__.py": "number = 1\n" * 101,
        "witnessed/data": DATA,
        f"{name}.dist-info/METADATA": "Metadata-Version: 2.1\nName: witnessed\nVersion: 1.0\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{name}.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(record, "".join(f"{path},,\n" for path in [*files, record]))
    return wheel


def test_pip_installs_a_wheel(watch: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed")
    monkeypatch.setenv("TMPDIR", str(folder))
    wheel, site = build_wheel(folder), folder / "site"
    options = [
        "--quiet", "--isolated", "--disable-pip-version-check", "--no-cache-dir", "--no-index", "--no-deps",
        "--no-compile",
    ]  # fmt: skip
    seen = watch(sys.executable, "-I", "-m", "pip", "install", *options, "--target", site, wheel)
    installed, written = sizes(files_below(site)), seen.moved(folder, Write)
    assert (site / "witnessed" / "data").read_text() == DATA
    assert {ino: written[ino] for ino in installed} == installed
    (row,) = (row for row in seen.rows if row.path == str(wheel))
    assert row.unique_read_bytes == wheel.stat().st_size


def test_a_compilation_reads_source_and_header(watch: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    source, header, program = folder / "main.c", folder / "number.h", folder / "main"
    source.write_text('#include "number.h"\n#include <stdio.h>\nint main(void) { printf("%d", NUMBER); }\n')
    header.write_text("#define NUMBER 1009\n" + "/* */\n" * 2003)
    seen = watch("gcc", "-O1", "-o", program, source)
    assert subprocess.run([program], stdout=subprocess.PIPE).stdout == b"1009"
    for path in (source, header):
        assert ranges(seen.on(path, Read)) == [(0, path.stat().st_size)]
        assert [e.errno for e in seen.on(path, Open)] == [None]
    assert max(e.end_offset for e in seen.on(program, Write)) == program.stat().st_size
    made = {e.path for e in seen.below(folder, Open) if e.open_flags & os.O_CREAT}
    assert made - seen.names(folder, Unlink).keys() == {str(program)}
    assert {Path(path).suffix for path in made} >= {".s", ".o"}


def test_an_import_writes_the_bytecode_and_the_next_reads_it(
    watch: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    source = folder / "witnessed.py"
    source.write_text("def f():\n    return 1\n" * 503)
    statements = f"import sys; sys.path.insert(0, {str(folder)!r}); import witnessed"
    python = [sys.executable, "-I", "-S", "-c", statements]
    seen = watch("sh", "-c", '"$@" && "$@"', "sh", *python)
    (bytecode,) = (folder / "__pycache__").iterdir()
    assert seen.moved(folder, Read) == sizes([source, bytecode])
    assert seen.moved(folder, Write) == sizes([bytecode])
    (first,), (second,) = (by_tid(seen.on(path, Read)) for path in (source, bytecode))
    assert first != second
    assert [(e.tid, e.new_path) for e in seen.of(Rename)] == [(first, str(bytecode))]


def test_sqlite_writes_through_its_log(watch: Watch, folder: Path) -> None:
    base = folder / "base"
    statements = """
        PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; CREATE TABLE t(a, b);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2003)
        INSERT INTO t SELECT i, hex(zeroblob(50)) FROM n; SELECT count(*) FROM t;
    """
    seen = watch("sqlite3", base, statements)
    assert seen.output == "wal\n2003\n"
    log, index = Path(f"{base}-wal"), Path(f"{base}-shm")
    written = sum(e.size_ret for e in seen.on(log, Write))
    assert (written - 32) % (24 + PAGE) == 0, "the log's head, then a head and a page for each page"
    assert {e.file_offset for e in seen.on(base, Write)} == set(range(0, base.stat().st_size, PAGE))
    assert {e.size_ret for e in seen.on(base, Write)} == {PAGE}
    assert seen.on(index, Mmap) and seen.on(log, Sync) and seen.on(base, Sync)
    assert seen.names(folder, Unlink) == {f"{base}-{part}": 1 for part in ("journal", "wal", "shm")}
