"""What FLAK may read of a traced program's memory: names, and what tells which bytes of which file, never those bytes.

Asked of the objects as they are loaded, so that no macro hides a reader. Whoever adds one has to say here what it
reads.
`tests/kernel/test_buffers.py` asks the same of what comes out.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import flak

OBJECTS = sorted((Path(flak.__file__).parent / "_bpf").glob("*.bpf.o"))
MAIN = [path for path in OBJECTS if path.name.count(".") == 3]  # without a variant in its name

USER_READERS = {
    4: "bpf_probe_read",
    45: "bpf_probe_read_str",
    112: "bpf_probe_read_user",
    114: "bpf_probe_read_user_str",
    148: "bpf_copy_from_user",
    191: "bpf_copy_from_user_task",
}
"""Helpers that can read a program's memory, by number (include/uapi/linux/bpf.h)."""

MAY_READ = {
    ("add_iov", "bpf_probe_read_user"): (1, "a struct iovec: address and length of a piece; the length is taken"),
    ("vector_size", "bpf_probe_read_user"): (1, "the same, where loops are no functions"),
    ("submit_iocb", "bpf_probe_read_user"): (1, "the array of addresses given to io_submit"),
    ("refuse_iocb", "bpf_probe_read_user"): (1, "the same array, for iocbs that were not taken"),
    ("begin_iocb", "bpf_probe_read_user"): (1, "a struct iocb: opcode, descriptor, offset, length"),
    ("send_late_iocb", "bpf_probe_read_user"): (1, "a struct iocb of which only the end was seen"),
    ("complete_iocb", "bpf_probe_read_user"): (1, "a struct io_event: which iocb, and its result"),
    ("enter_copy", "bpf_probe_read_user"): (1, "the struct file_clone_range of FICLONERANGE"),
    ("exit_copy", "bpf_probe_read_user"): (2, "the two offsets of sendfile, splice and copy_file_range"),
    ("enter_metadata", "bpf_probe_read_user"): (1, "the first byte of a path: is it empty, under AT_EMPTY_PATH?"),
    ("read_found", "bpf_probe_read_user"): (3, "device, inode, mode and size in a struct stat or statx"),
    ("exit_descriptor", "bpf_probe_read_user"): (1, "flags and mode in the struct open_how of openat2"),
    ("intern_claim_found", "bpf_probe_read_user_str"): (1, "the path string that a call was given"),
    ("send_exec", "bpf_probe_read_user_str"): (1, "argv[0] of a program that was started"),
    ("flak_claims", "bpf_copy_from_user_task"): (2, "the path string of a call that is blocked, in two pages"),
}  # fmt: skip
"""(function, helper) → how many calls it has at most, and what they read."""

KERNEL_READERS = {113: "bpf_probe_read_kernel", 115: "bpf_probe_read_kernel_str"}

MAY_READ_KERNEL = {
    ("walk_step", "bpf_probe_read_kernel"): (1, "a component of a path, in its dentry"),
    ("complete_request", "bpf_probe_read_kernel"): (1, "the first byte of the kernel's copy of a path"),
    ("describe_request", "bpf_probe_read_kernel"): (1, "the same, where it is gone when the request completes"),
    ("intern_claim_found", "bpf_probe_read_kernel_str"): (2, "the kernel's copy of a path string"),
    ("flak_rename", "bpf_probe_read_kernel_str"): (1, "the name that a thread is given"),
}
"""The same of reads of the kernel's memory whose size is no field's. Pages of files are kernel memory, too."""

HARMLESS = {
    1: "map_lookup_elem",
    2: "map_update_elem",
    3: "map_delete_elem",
    8: "get_smp_processor_id",
    35: "get_current_task",
    125: "ktime_get_boot_ns",
    127: "seq_write",
    130: "ringbuf_output",
    131: "ringbuf_reserve",
    132: "ringbuf_submit",
    134: "ringbuf_query",
    156: "task_storage_get",
    158: "get_current_task_btf",
    175: "task_pt_regs",
    181: "loop",
}
"""Helpers that read nobody's memory. bpf_probe_write_user (36) will never be here."""

KFUNCS = {"bpf_rdonly_cast"}
"""Loads behind it reach kernel memory alone: the kernel gives 0 for a user's address."""

CALL, STT_FUNC, SHT_SYMTAB, SHT_REL = 0x85, 2, 2, 9


class Call(NamedTuple):
    """A call instruction: helper number, or what is called otherwise."""

    function: str
    helper: int | None
    callee: str | None


class Section(NamedTuple):
    """Elf64_Shdr."""

    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


def calls_of(image: bytes) -> Iterator[Call]:
    """Every call in the functions of a BPF object."""
    (at,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [Section(*struct.unpack_from("<IIQQQQIIQQ", image, at + i * size)) for i in range(count)]
    table = next(section for section in sections if section.type == SHT_SYMTAB)
    strings = sections[table.link].offset
    symbols = list(struct.iter_unpack("<IBBHQQ", image[table.offset : table.offset + table.size]))

    def name_of(symbol: int) -> str:
        start = strings + symbols[symbol][0]
        return image[start : image.index(b"\0", start)].decode()

    relocated: dict[tuple[int, int], int] = {}
    for section in sections:
        if section.type == SHT_REL:
            for place, info in struct.iter_unpack("<QQ", image[section.offset : section.offset + section.size]):
                relocated[section.info, place] = info >> 32

    for number, (_, kind, _, index, value, length) in enumerate(symbols):
        if kind & 15 != STT_FUNC:
            continue
        for place in range(value, value + length, 8):
            opcode, registers, _, immediate = struct.unpack_from("<BBhi", image, sections[index].offset + place)
            if opcode != CALL:
                continue
            symbol = relocated.get((index, place))
            if symbol is not None and not symbols[symbol][3]:  # defined elsewhere: in the kernel
                yield Call(name_of(number), None, name_of(symbol))
            elif symbol is None and not registers >> 4:
                yield Call(name_of(number), immediate, None)


def readers(image: bytes, helpers: dict[int, str]) -> Counter[tuple[str, str]]:
    """How often each function calls each of these helpers."""
    return Counter((call.function, helpers[call.helper]) for call in calls_of(image) if call.helper in helpers)


@pytest.fixture(params=OBJECTS, ids=lambda path: path.name)
def image(request: pytest.FixtureRequest) -> bytes:
    return Path(request.param).read_bytes()


def test_there_are_objects() -> None:
    assert OBJECTS and MAIN


def test_only_these_functions_read_the_memory_of_programs(image: bytes) -> None:
    found = readers(image, USER_READERS)
    assert found.keys() <= MAY_READ.keys()
    for reader, count in found.items():
        most, what = MAY_READ[reader]
        assert count <= most, f"{reader} is known to read {what}; what is the other call for?"


def test_each_of_them_is_in_some_object() -> None:
    found = {reader for path in OBJECTS for reader in readers(path.read_bytes(), USER_READERS)}
    assert found == MAY_READ.keys()


@pytest.mark.parametrize("path", MAIN, ids=lambda path: path.name)
def test_only_these_functions_read_kernel_memory_of_any_size(path: Path) -> None:
    """The other objects read every field of a kernel structure that way, where this one uses plain loads."""
    found = readers(path.read_bytes(), KERNEL_READERS)
    assert found.keys() == MAY_READ_KERNEL.keys()
    assert all(count <= MAY_READ_KERNEL[reader][0] for reader, count in found.items())


def test_strings_of_the_kernel_are_names(image: bytes) -> None:
    helper = {115: KERNEL_READERS[115]}
    assert readers(image, helper).keys() == {reader for reader in MAY_READ_KERNEL if reader[1] == helper[115]}


def test_no_other_helper_is_called(image: bytes) -> None:
    """A helper that the lists do not know might be another way to read memory, or to change it."""
    used = {call.helper for call in calls_of(image) if call.helper is not None}
    assert used <= HARMLESS.keys() | USER_READERS.keys() | KERNEL_READERS.keys()


def test_no_other_function_of_the_kernel_is_called(image: bytes) -> None:
    assert {call.callee for call in calls_of(image) if call.callee} <= KFUNCS
