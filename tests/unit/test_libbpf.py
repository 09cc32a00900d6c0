"""Which libbpf is loaded, and what is said when none can be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import flak
from flak import _libbpf
from tools import build_libbpf

SOURCE = Path(flak.__file__).parent


@pytest.fixture
def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_libbpf, "_may_choose", lambda: True)


def test_the_library_of_the_environment_is_taken_or_nothing(
    not_root: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, reason in (("missing.so", "No such file"), ("text.so", "invalid ELF header")):
        (tmp_path / "text.so").write_text("not a library " * 10)
        monkeypatch.setenv("FLAK_LIBBPF", str(tmp_path / name))
        with pytest.raises(flak.NotSupported) as raised:
            _libbpf.load()
        assert raised.value.message.startswith(f"cannot load libbpf: {tmp_path / name}: ")
        assert reason in raised.value.message
        assert "libbpf.so.1" not in raised.value.message
        assert "FLAK_LIBBPF" in raised.value.hint


def test_a_libbpf_before_1_0_is_refused_by_the_function_it_lacks(
    not_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAK_LIBBPF", "libc.so.6")
    with pytest.raises(flak.NotSupported) as raised:
        _libbpf.load()
    assert raised.value.message.startswith("libc.so.6 has no libbpf_strerror: FLAK needs libbpf 1.0")
    assert "correct FLAK_LIBBPF" in raised.value.hint


@pytest.mark.parametrize("uid", [0, 1000])
def test_every_place_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    def open_library(name: str, **_: object) -> None:
        raise OSError(f"{name}: cannot open" if name.startswith("/") else "libelf.so.1: no such file")

    monkeypatch.delenv("FLAK_LIBBPF", raising=False)
    monkeypatch.setattr(_libbpf, "_may_choose", lambda: bool(uid))
    monkeypatch.setattr(_libbpf.ctypes, "CDLL", open_library)
    with pytest.raises(flak.NotSupported) as raised:
        _libbpf.load()
    bundled = SOURCE / "_lib/libflak-bpf.so.1"
    expected = f"cannot load libbpf: {bundled}: cannot open; libbpf.so.1: libelf.so.1: no such file"
    assert raised.value.message == expected
    assert "libbpf1 (Debian" in raised.value.hint and "libbpf (Fedora" in raised.value.hint
    assert ("FLAK_LIBBPF" in raised.value.hint) == bool(uid), "root does not obey it, so it is no way out"


def test_the_bundled_library_exports_whatever_is_called() -> None:
    """A function that is called and not exported would be missing in wheels alone."""
    called = {
        node.attr
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith(("bpf_", "btf__", "libbpf_", "ring_buffer__"))
    }
    assert "bpf_object__load" in called
    assert called - set(build_libbpf.exported_functions()) <= {"bpf_object"}
