"""Names taken out of records: the shape of paths stays, equal names stay equal, nothing of a name is left."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import builders as b
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flak import _records as r
from flak._records import NameFlag
from flak.cli.app import run
from flak.errors import UsageError
from flak.events import Exec, File
from flak.redaction import Redaction, Redactor
from flak.selection import Selection
from flak.wire import Decoder

HASHED = re.compile(rb"[0-9a-f]{10}")

# No hex digits: a name of these cannot be part of a hash by chance.
WORDS = st.text(st.sampled_from("ghijkxyzé漢\n\\\x1b "), min_size=4, max_size=40).map(str.encode)
NAMES = WORDS.filter(lambda name: name not in (b".", b".."))
SPECIFIC = st.lists(NAMES, min_size=1, max_size=12)
WRITTEN = st.lists(st.one_of(NAMES, st.sampled_from([b"", b".", b".."])), min_size=1, max_size=12).map(b"/".join)
MODES = st.sampled_from(["hash", "basename", "prefix:1", "prefix:3"])


def redactor(mode: str = "hash") -> Redactor:
    return Redactor(Redaction.parse(mode))


def files(redactor: Redactor, *records: bytes) -> dict[int, File]:
    """What a decoder makes of redacted records."""
    decoder = Decoder()
    decoder.learn(b"".join(redactor.records(records)))
    return decoder.tables.paths


def is_name(part: bytes) -> bool:
    return part not in (b"", b".", b"..")


# the modes


@pytest.mark.parametrize(
    ("mode", "path", "kept"),
    [
        ("hash", "/home/alice/data.csv", []),
        ("basename", "/home/alice/data.csv", ["data.csv"]),
        ("prefix:1", "/home/alice/data.csv", ["home"]),
        ("prefix:2", "/home/alice/data.csv", ["home", "alice"]),
        ("prefix:9", "/home/alice/data.csv", ["home", "alice", "data.csv"]),
    ],
)
def test_what_each_mode_keeps(mode: str, path: str, kept: list[str]) -> None:
    shown = files(redactor(mode), b.name(path))[1].path
    parts = shown.split("/")
    assert len(parts) == 4 and parts[0] == ""
    assert [part for part in parts if part in path.split("/")[1:]] == kept
    assert all(HASHED.fullmatch(part.encode()) for part in parts[1:] if part not in kept)


@pytest.mark.parametrize("text", ["", "none", "prefix", "prefix:", "prefix:0", "prefix:-1", "prefix:x", "prefix:99999"])
def test_other_modes_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Redaction.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize("verb", [["trace"], ["record", "-o", "x.flak"]])
def test_a_mode_that_is_none_is_refused_before_anything_happens(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*verb, "--redact", "rot13", "-p", "1"]) == 2
    assert "--redact" in capsys.readouterr().err


def test_the_same_name_has_the_same_hash_within_a_run_and_another_in_the_next() -> None:
    first, second = redactor(), redactor()
    assert first.word(b"alice") == first.word(b"alice") != first.word(b"bob")
    assert first.word(b"alice") != second.word(b"alice")
    one, two = (part.split("/") for part in (_path(first, "/alice/x"), _path(first, "/y/alice")))
    assert one[1] == two[2]


def _path(redactor: Redactor, path: str) -> str:
    return files(redactor, b.name(path))[1].path


# properties


@given(SPECIFIC, MODES)
def test_paths_of_the_kernel_keep_their_shape(parts: list[bytes], mode: str) -> None:
    made = redactor(mode)
    shown = files(made, b.name(b"/" + b"/".join(parts)))[1].raw_path.split(b"/")
    assert shown[0] == b"" and len(shown) == len(parts) + 1
    for at, (part, replaced) in enumerate(zip(parts, shown[1:], strict=True)):
        is_kept = at < made.redaction.kept or (made.redaction.keeps_last and at == len(parts) - 1)
        assert replaced == (part if is_kept else made.word(part))


@given(WRITTEN, MODES)
def test_strings_of_programs_keep_their_shape(path: bytes, mode: str) -> None:
    made = redactor(mode)
    before, after = path.split(b"/"), made.path(path).split(b"/")
    assert len(before) == len(after)
    for part, replaced in zip(before, after, strict=True):
        if is_name(part):
            assert replaced in (part, made.word(part))
        else:
            assert replaced == part


@given(WRITTEN, NAMES)
def test_nothing_of_a_name_is_left(path: bytes, argv0: bytes) -> None:
    records = redactor().records([b.name(b"/base/" + b"/".join(filter(is_name, path.split(b"/")))), b.claim(path, 2)])
    records += redactor().records([exec_of(argv0), b.name(b"memfd:" + argv0, 3, flags=NameFlag.DETACHED)])
    everything = b"".join(bytes(record) for record in records)
    for name in {argv0, *filter(is_name, path.split(b"/"))}:
        for at in range(len(name) - 3):
            assert name[at : at + 4] not in everything


@given(st.lists(WRITTEN, min_size=1, max_size=5), MODES)
def test_what_is_joined_to_its_folder_has_the_folders_hashes(paths: list[bytes], mode: str) -> None:
    made = redactor(mode)
    claims = [b.claim(path, 10 + at, base_path_id=1) for at, path in enumerate(paths)]
    found = files(made, b.name("/home/alice", 1), *claims)
    for at, path in enumerate(paths):
        shown = found[10 + at]
        if path and not path.startswith(b"/"):
            assert shown.raw_path == found[1].raw_path + b"/" + (shown.raw_claim or b"")


def test_a_prefix_counts_from_the_root_through_the_folder() -> None:
    records = [b.name("/home/alice", 1), b.claim("one/two", 2, base_path_id=1), b.claim("../bob/x", 3, base_path_id=1)]
    found = files(redactor("prefix:3"), *records)
    assert re.fullmatch(r"/home/alice/one/[0-9a-f]{10}", found[2].path)
    assert re.fullmatch(r"/home/alice/\.\./[0-9a-f]{10}/[0-9a-f]{10}", found[3].path)


@pytest.mark.parametrize("base", [0, 7])
def test_a_prefix_of_a_path_from_an_unknown_folder_keeps_nothing(base: int) -> None:
    found = files(redactor("prefix:3"), b.claim("one/two", 2, base_path_id=base))
    assert re.fullmatch(r"[0-9a-f]{10}/[0-9a-f]{10}", found[2].path)


def test_a_prefix_of_a_path_without_its_beginning_keeps_nothing() -> None:
    for flag in (NameFlag.TRUNCATED, NameFlag.DETACHED):
        path = files(redactor("prefix:3"), b.name("/one/two", flags=flag))[1].path
        assert re.fullmatch(r"(…/)?[0-9a-f]{10}/[0-9a-f]{10}", path)


@pytest.mark.parametrize("path", ["secret/..", "secret/../", "..", "/", "//", ".", ""])
def test_the_last_component_that_is_kept_is_a_name(path: str) -> None:
    made = redactor("basename")
    assert made.path(path.encode()) == path.encode().replace(b"secret", made.word(b"secret"))


# names of other kinds


@pytest.mark.parametrize("mode", ["hash", "basename", "prefix:3"])
@pytest.mark.parametrize(
    ("name", "shown", "kind"),
    [
        ("memfd:secret", "memfd:HASH", "memfd"),
        ("SYSV0000002a", "SYSVHASH", "anon"),
        ("anon_hugepage", "anon_hugepage", "anon"),
        ("pipe:[secret]", "pipe:[HASH]", "file"),
        ("[io_uring]", "[io_uring]", "file"),
        ("[secret]", "HASH", "file"),
        ("secret", "HASH", "file"),
    ],
)
def test_a_name_without_a_folder_keeps_its_kind(mode: str, name: str, shown: str, kind: str) -> None:
    file = files(redactor(mode), b.name(name, flags=NameFlag.DETACHED))[1]
    assert re.fullmatch(re.escape(shown).replace("HASH", "[0-9a-f]{10}"), file.path)
    assert file.kind == kind


def test_a_pipe_has_its_number() -> None:
    assert files(redactor(), b.name("", mode=b.FIFO, ino=77, flags=NameFlag.DETACHED))[1].path == "pipe:[77]"


def test_a_name_that_only_looks_like_one_without_a_folder_is_hashed() -> None:
    assert re.fullmatch(r"/[0-9a-f]{10}", _path(redactor(), "/memfd:secret"))


def exec_of(argv0: bytes) -> bytes:
    return b.exec_(argv0)


def test_argv0_is_hashed_whole() -> None:
    made = redactor("basename")
    (event,) = Decoder().learn(b"".join(made.records([exec_of(b"/usr/bin/secret")])))
    assert isinstance(event, Exec) and event.argv0 == made.word(b"/usr/bin/secret").decode()


def test_tasks_and_containers_stay() -> None:
    records = [b.task(1, "worker", cgroup_id=5), b.container(5, "web")]
    assert [bytes(record) for record in redactor().records(records)] == records


def test_what_stands_behind_a_string_is_left_out() -> None:
    (record,) = redactor().records([b.claim(b"name\0secret", 1)])
    assert b"secret" not in bytes(record)


def test_a_record_of_an_unknown_kind_is_left_out() -> None:
    assert redactor().records([b"\x63\x00\x0c\x00secrets!"]) == []


# paths that grow


@given(st.integers(1, 2040), MODES)
def test_a_path_of_many_short_names_loses_its_beginning(count: int, mode: str) -> None:
    made = redactor(mode)
    path = b"/" + b"/".join([b"x"] * count)
    kernel, claimed = files(made, b.name(path), b.claim(path, 2)).values()
    for file in (kernel, claimed):
        assert len(file.raw_path) <= r.PATH_MAX + 4
        parts = file.raw_path.split(b"/")
        assert set(parts[2:]) <= {b"x", made.word(b"x")}
        assert ("path_truncated" in _marks(file)) == (len(made.path(path)) > r.PATH_MAX)


def _marks(file: File) -> list[str]:
    return ["path_truncated"] if file.marks & r.Mark.PATH_TRUNCATED else []


@pytest.mark.parametrize("mode", ["hash", "basename", "prefix:1"])
@pytest.mark.parametrize("path", [b"a/" + b"n" * 4090, b"n" * 4095, b"/" + b"n" * 4000 + b"/b" * 40, b"/" * 4095])
def test_a_string_of_the_greatest_length_can_be_read_back(mode: str, path: bytes) -> None:
    assert files(redactor(mode), b.claim(path, 1))[1].raw_path


# the header


def test_the_header_has_no_names() -> None:
    selection = Selection.of(command=["/opt/secret/tool", "--key=secret"])
    entries: dict[str, Any] = {
        "command_line": ["flak", "secret"],
        "selectors": selection.as_dict(),
        "description": selection.describe({}),
        "cgroups": {"/sys/fs/cgroup/secret": 5},
        "filters": {"path": ["/srv/secret", "!*secret*"], "failed": False},
        "findings": [{"concern": "free space", "status": "ok", "text": "in /home/secret", "hides": None, "fix": None}],
        "kernel": "6.18",
    }
    made = redactor()
    header = made.header(entries, selection)
    assert "secret" not in json.dumps(header)
    assert header.keys() == entries.keys() and header["kernel"] == "6.18"
    assert header["description"] == made.word(b"/opt/secret/tool").decode() + " + children"
    assert header["findings"][0]["status"] == "ok"


def test_cgroups_that_were_chosen_are_told_by_hashes() -> None:
    made = redactor("prefix:1")
    selection = Selection.of(cgroup=["/a.slice/secret", "!/a.slice/secret/x"], pid=[1])
    assert "secret" not in made.selection(selection).describe({}) and "/a.slice/" in made.selection(selection).describe(
        {}
    )
    assert os.fsencode(made.selection(selection).cgroups.chosen[0]) == made.path(b"/a.slice/secret")
