"""The object for kernels without bpf_rdonly_cast(), which newer kernels can run too, sees what the other one sees."""

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


@pytest.mark.parametrize(
    "command",
    [
        ("rw", "preadv2", "{}/f"), ("append", "pwrite64", "{}/f"), ("dups", "fork", "{}/f"), ("names", "open", "{}"),
        ("names", "rename-parent", "{}"), ("maps", "private", "{}/f", 103), ("uring", "readv", "{}/f", 61, 4),
        ("uring", "meta", "{}"), ("uring", "skip", "{}/f"), ("aio", "pwritev", "{}/f", 61, 4),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)  # fmt: skip
def test_probe_reads_see_the_same(
    traced: Traced, tmp_path: Path, command: tuple[str, *tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    has_function = bpf.Btf.has_function
    images: list[bytes] = []

    def object_bytes(btf: bpf.Btf | None = None) -> bytes:
        images.append(bpf.object_bytes(btf))
        return images[-1]

    def run_in(name: str) -> list[str]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"".join(number.to_bytes(4, "little") for number in range(131072)))
        if command[0] == "names" or command[1] == "meta":
            (tmp_path / name / "f").unlink()
        return seen(traced(*[str(word).format(tmp_path / name) for word in command]), tmp_path / name)

    monkeypatch.setattr(probes, "object_bytes", object_bytes)
    one = run_in("one")
    monkeypatch.setattr(
        bpf.Btf, "has_function", lambda btf, name: name != "bpf_rdonly_cast" and has_function(btf, name)
    )
    other = run_in("other")
    if len(set(images)) == 1:
        pytest.skip("this kernel has no bpf_rdonly_cast(): there is but one object for it")
    assert one == other
    assert len(one) > 5
