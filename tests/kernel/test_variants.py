"""The objects for older kernels, which newer kernels can run too, see what the newest one's sees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flak import bpf, probes
from flak.events import Access, as_dict

from .conftest import Traced
from .running import Run

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("privileged")]

FIELDS = ["via", "op", "fd", "path", "new_path", "dev", "kind", "file_offset", "arg_offset", "size_req", "size_ret"]
FIELDS += ["page_count", "errno", "role", "prot", "map_flags", "open_flags", "flags", "marks"]


def seen(run: Run, folder: Path) -> list[str]:
    """The accesses below a folder by what does not differ from run to run, sorted."""
    ours = [as_dict(e) for e in run.of(Access) if e.path and e.path.startswith(str(folder))]
    return sorted(re.sub(str(folder), "", str([access.get(name) for name in FIELDS])) for access in ours)


@pytest.mark.parametrize("variant", [bpf.PROBE, bpf.OLD])
@pytest.mark.parametrize(
    "command",
    [
        ("rw", "preadv2", "{}/f"), ("append", "pwrite64", "{}/f"), ("dups", "fork", "{}/f"), ("names", "open", "{}"),
        ("names", "rename-parent", "{}"), ("maps", "private", "{}/f", 103), ("uring", "readv", "{}/f", 61, 4),
        ("uring", "meta", "{}"), ("uring", "skip", "{}/f"), ("aio", "pwritev", "{}/f", 61, 4),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)  # fmt: skip
def test_each_sees_the_same(
    traced: Traced, tmp_path: Path, command: tuple[str, *tuple[Any, ...]], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[bytes] = []

    def run_in(name: str) -> Run:
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"".join(number.to_bytes(4, "little") for number in range(131072)))
        if command[0] == "names" or command[1] == "meta":
            (tmp_path / name / "f").unlink()
        return traced(*[str(word).format(tmp_path / name) for word in command])

    object_bytes = probes.object_bytes
    monkeypatch.setattr(probes, "object_bytes", lambda variant: loaded.append(object_bytes(variant)) or loaded[-1])
    one = run_in("one")
    monkeypatch.setattr(probes, "variants_for", lambda btf: [variant])
    other = run_in("other")
    if len(set(loaded)) == 1:
        pytest.skip("this kernel has no other object")
    roads = {"uring": "io_uring", "aio": "aio"}
    if variant == bpf.OLD and command[0] in roads:
        assert roads[command[0]] in other.missing
        return
    assert seen(one, tmp_path / "one") == seen(other, tmp_path / "other")
    assert len(seen(one, tmp_path / "one")) > 5
