"""SECURITY.md says what the code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import flak
from flak import _libbpf, privileges
from flak.privileges import _CAP_BPF, _CAP_DAC_READ_SEARCH, _CAP_KILL, _CAP_SYS_ADMIN, _CAP_SYS_PTRACE

PACKAGE = Path(flak.__file__).parent
ROOT = PACKAGE.parents[1]
TEXT = (ROOT / "SECURITY.md").read_text()


def test_the_capabilities_that_stay_are_those_named() -> None:
    everywhere, before_6_1 = re.search(r"every capability but three: (.*?);(.*?);\n", TEXT, re.DOTALL).groups()
    assert set(re.findall(r"CAP_[A-Z_]+", everywhere)) == {"CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_KILL"}
    assert privileges._KEPT == 1 << _CAP_DAC_READ_SEARCH | 1 << _CAP_SYS_PTRACE | 1 << _CAP_KILL
    assert re.findall(r"CAP_[A-Z_]+", before_6_1) == ["CAP_BPF", "CAP_SYS_ADMIN"]
    both, admin = 1 << _CAP_BPF | 1 << _CAP_SYS_ADMIN, 1 << _CAP_SYS_ADMIN
    assert privileges._kept(both, is_before_6_1=False) == privileges._KEPT
    assert privileges._kept(both, is_before_6_1=True) == privileges._KEPT | 1 << _CAP_BPF
    assert privileges._kept(admin, is_before_6_1=True) == privileges._KEPT | 1 << _CAP_SYS_ADMIN


def test_what_it_links_to_is_there() -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#]+)(#?)([^)]*)\)", TEXT):
        assert (ROOT / target).exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", (ROOT / target).read_text(), re.MULTILINE)
            assert anchor in {title.lower().replace(" ", "-") for title in titles}


FORBIDDEN = {"pickle", "marshal", "shelve", "yaml", "runpy", "imp", "code"}
"""Modules that run what they read."""


def names_used() -> Iterator[tuple[Path, str]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield path, (node.module or "").partition(".")[0]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield path, f"{node.func.id}()"


def test_nothing_runs_what_it_read() -> None:
    for path, name in names_used():
        assert name not in FORBIDDEN | {"eval()", "exec()", "compile()", "__import__()"}, path


def test_who_has_rights_takes_no_library_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = []

    def open_library(name: str, **_: object) -> None:
        opened.append(name)
        raise OSError("not here")

    monkeypatch.setenv("FLAK_LIBBPF", str(tmp_path / "evil.so"))
    monkeypatch.setattr(_libbpf.ctypes, "CDLL", open_library)
    for uid, secure, expected in ((0, 0, False), (1000, 0, True), (1000, 1, False)):
        opened.clear()
        monkeypatch.setattr(_libbpf.os, "geteuid", lambda uid=uid: uid)
        monkeypatch.setattr(_libbpf._libc, "getauxval", lambda which, secure=secure: secure)
        with pytest.raises(flak.NotSupported):
            _libbpf.load()
        assert (str(tmp_path / "evil.so") in opened) is expected
        assert all(name.startswith("/") or name == "libbpf.so.1" for name in opened)
