"""Which variants of the object a kernel may load, asked of its BTF. The objects are compared in tests/kernel/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from flak import bpf

NEW = {"loop", "get_current_task_btf", "task_pt_regs", "task_storage_get", "copy_from_user_task"}


@dataclass
class FakeBtf:
    helpers: set[str]
    functions: tuple[str, ...] = ()
    structs: tuple[str, ...] = ()

    def has_helper(self, name: str) -> bool:
        return name in self.helpers

    def has_function(self, name: str) -> bool:
        return name in self.functions

    def has_struct(self, name: str) -> bool:
        return name in self.structs


@pytest.mark.parametrize(
    ("btf", "variants"),
    [
        (FakeBtf(NEW, ("bpf_rdonly_cast",), ("maple_tree",)), (bpf.PLAIN, bpf.PROBE)),
        (FakeBtf(NEW, (), ("maple_tree",)), (bpf.PROBE,)),
        (FakeBtf(NEW), (bpf.PROBE, bpf.OLD)),  # if what is not in BTF is missing all the same
        (FakeBtf(set()), (bpf.OLD,)),
        *((FakeBtf(NEW - {helper}), (bpf.OLD,)) for helper in sorted(NEW)),
    ],
)
def test_variants(btf: Any, variants: tuple[str, ...]) -> None:
    assert bpf.variants_for(btf) == variants


def test_the_kernel_here_has_helpers_and_not_others() -> None:
    try:
        btf = bpf.Btf.of_kernel()
    except bpf.NotSupported as error:
        pytest.skip(error.message)
    with btf:
        assert btf.has_helper("map_lookup_elem")
        assert not btf.has_helper("map_lookup_elements")
