"""The stack of the BPF programs: 512 bytes for a program and all it calls together.

Older kernels count each function's frame in units of 32 bytes, newer ones in units of 16, or give functions stacks of
their own (check_max_stack_depth in verifier.c; "bpf: Support private stack for bpf progs"): what loads on a new kernel
may be refused by an older one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

OBJECTS = Path(__file__).parent.parent.parent / "src/flak/_bpf"
LIMIT, UNIT = 512, 32


class Frames:
    """Functions of an object, by name: their frames in bytes, and whom they call (callbacks too)."""

    def __init__(self, path: Path) -> None:
        self.sizes: dict[str, int] = {}
        self.calls: dict[str, set[str]] = defaultdict(set)
        listing = subprocess.run(
            ["llvm-objdump", "-dr", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
        ).stdout
        lines = listing.splitlines()
        starts = self._starts(lines)
        section = function = ""
        for before, line in zip(["", *lines], lines, strict=False):
            if match := re.match(r"Disassembly of section (\S+):", line):
                section = match[1]
            elif match := re.match(r"[0-9a-f]+ <(?!LBB)(\S+)>:", line):
                function = match[1]
                self.sizes[function] = 1
            for offset in re.findall(r"r10 - (\w+)\)", line):
                self._grow(function, int(offset, 0))
            if (match := re.search(r"(r\d) \+= -(\w+)$", line)) and before.endswith(f"{match[1]} = r10"):
                self._grow(function, int(match[2], 0))
            if match := re.search(r"R_BPF_64_(?:32|64)\s+(\S+)", line):
                self.calls[function].add(self._called(match[1], before, starts))
        self.calls = defaultdict(set, {name: called & set(self.sizes) for name, called in self.calls.items()})
        assert section

    def _grow(self, function: str, size: int) -> None:
        self.sizes[function] = max(self.sizes[function], size)

    @staticmethod
    def _starts(lines: list[str]) -> dict[int, str]:
        """Functions of .text, where static ones lie, by the number of their first instruction."""
        starts, section = {}, ""
        for line in lines:
            if match := re.match(r"Disassembly of section (\S+):", line):
                section = match[1]
            elif section == ".text" and (match := re.match(r"([0-9a-f]+) <(?!LBB)(\S+)>:", line)):
                starts[int(match[1], 16) // 8] = match[2]
        return starts

    @staticmethod
    def _called(symbol: str, instruction: str, starts: dict[int, str]) -> str:
        """The function behind a relocation; one against .text says which by a number in the instruction."""
        if symbol != ".text":
            return symbol
        if match := re.search(r"call (-?\w+)$", instruction):
            return starts[int(match[1], 0) + 1]
        match = re.search(r"= (\w+) ll$", instruction)
        assert match, instruction
        return starts[int(match[1], 0) // 8]

    def deepest(self, function: str) -> tuple[int, list[str]]:
        """Bytes of stack below a function, itself included, and the functions on the way."""
        frame = -(-self.sizes[function] // UNIT) * UNIT
        below, way = max((self.deepest(called) for called in self.calls[function]), default=(0, []))
        return frame + below, [f"{function} {frame}", *way]


@pytest.mark.parametrize("path", sorted(OBJECTS.glob("*.bpf.o")), ids=lambda path: path.name)
def test_no_program_and_its_functions_take_more_stack_than_old_kernels_have(path: Path) -> None:
    if not shutil.which("llvm-objdump"):
        pytest.skip("llvm-objdump is not installed (package llvm)")
    frames = Frames(path)
    programs = [name for name in frames.sizes if name.startswith("flak_")]
    assert len(programs) > 20 and any(frames.calls[name] for name in programs)
    assert {name: way for name in programs if (way := frames.deepest(name))[0] > LIMIT} == {}
