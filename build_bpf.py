"""Makes what FLAK ships from its BPF sources: two objects per architecture and two typed Python modules.

    bpf/flak.h ─────pycparser─► src/flak/_records.py   record layouts, enums, constants
    bpf/flak.bpf.c ─────clang─► src/flak/_bpf/flak.{x86_64,aarch64}{,.probe,.old}.bpf.o and manifest.json
    the objects' BTF ──libbpf─► src/flak/_skeleton.py  programs, maps, settings, variables

The two modules are committed, the objects are not: a wheel and an sdist carry them. Nothing is compiled while the
manifest says that the objects were made from the present sources. Run it as `python build_bpf.py`; setup.py calls
`build()`. Needs clang, llvm-strip, libbpf with its headers and pycparser; no privileges.
"""

from __future__ import annotations

import argparse
import ctypes
import difflib
import functools
import hashlib
import itertools
import json
import operator
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent
HEADER = Path("bpf/flak.h")
SOURCE = Path("bpf/flak.bpf.c")
OUTPUT = Path("src/flak/_bpf")
RECORDS = Path("src/flak/_records.py")
SKELETON = Path("src/flak/_skeleton.py")

TARGETS = {"x86_64": "x86", "aarch64": "arm64"}
"""Architectures by the name `platform.machine()` has for them, with the name bpf_tracing.h has."""

OLD = ".old"
VARIANTS = {"": (), ".probe": ("-DFLAK_PROBE_READS",), OLD: ("-DFLAK_PROBE_READS", "-DFLAK_OLD_KERNEL")}
"""Objects of one architecture, by what stands in their names, with their compiler options (bpf/kernel.bpf.h and
old_kernel.bpf.h). One that leaves the choice to the verifier loads a third more slowly: the other half is removed
branch by branch."""


class BuildError(Exception):
    """What is wrong with the sources or missing on this machine, as one message for whoever builds."""


# --- flak.h -----------------------------------------------------------------------------------------------------

SCALARS = {"__u8": "B", "__u16": "H", "__u32": "I", "__u64": "Q", "__s8": "b", "__s16": "h", "__s32": "i", "__s64": "q"}
"""Types a record may use, with their codes in `struct` formats."""

INTEGER = re.compile(r"(0x[0-9a-fA-F]+|0|[1-9][0-9]*)[uUlL]*")
OPERATORS = {"==": operator.eq, "<=": operator.le, "+": operator.add, "-": operator.sub, "*": operator.mul}


class Field(NamedTuple):
    """A member of a struct; `code` is its `struct` format, arrays and nested structs being plain bytes."""

    name: str
    offset: int
    size: int
    code: str


@dataclass
class Struct:
    """A record layout as C lays it out, proven free of padding."""

    name: str
    size: int = 0
    align: int = 1
    fields: list[Field] = field(default_factory=list)


@dataclass
class Header:
    """What a header defines. Numbers are kept as they are written, so that hexadecimal stays hexadecimal."""

    constants: dict[str, str] = field(default_factory=dict)
    enums: dict[str, dict[str, str]] = field(default_factory=dict)
    structs: dict[str, Struct] = field(default_factory=dict)


def parse_header(path: Path) -> Header:
    """Read a header of `#define`s, enums, structs and static assertions; refuse whatever Python could not mirror."""
    from pycparser import c_ast, c_parser

    text = re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: "\n" * m[0].count("\n"), path.read_text(), flags=re.DOTALL)
    header = Header()
    for name, value in re.findall(r"^#[ \t]*define[ \t]+(\S+)[ \t]+(\S.*?)[ \t]*$", text, flags=re.MULTILINE):
        header.constants[name] = _integer(name, value)
    # On the first line, which is a comment: the parser's line numbers stay those of the file.
    typedefs = "".join(f"typedef int {name};" for name in SCALARS)
    try:
        tree = c_parser.CParser().parse(typedefs + re.sub(r"^#.*$", "", text, flags=re.MULTILINE), str(path))
    except c_parser.ParseError as error:
        raise BuildError(f"cannot parse {error}") from None
    for node in tree.ext:
        if isinstance(node, c_ast.StaticAssert):
            if not _evaluate(node.cond, header):
                raise BuildError(f"{path}: static assertion does not hold: {node.message.value}")
        elif isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.Enum):
            header.enums[node.type.name] = _parse_enum(node.type)
        elif isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.Struct):
            header.structs[node.type.name] = _parse_struct(node.type, header)
        elif not isinstance(node, c_ast.Typedef):
            raise BuildError(f"{node.coord}: only enums, structs and static assertions belong here")
    return header


def _integer(name: str, text: str) -> str:
    """The Python spelling of a C integer literal."""
    match = INTEGER.fullmatch(text)
    if not match:
        raise BuildError(f"{name}: {text!r} is not an integer literal")
    return "0x" + match[1][2:].upper() if match[1].startswith("0x") else match[1]


def _parse_enum(node: Any) -> dict[str, str]:
    """Enumerators by name; each must be numbered, and no number may be given twice."""
    if not node.name:
        raise BuildError(f"{node.coord}: unnamed enum")
    values: dict[str, str] = {}
    for item in node.values.enumerators:
        where = f"{node.name}.{item.name}"
        values[item.name] = _integer(where, getattr(item.value, "value", "no number"))
        if int(values[item.name], 0) in [int(v, 0) for v in list(values.values())[:-1]]:
            raise BuildError(f"{where}: {values[item.name]} is taken")
    return values


def _parse_struct(node: Any, header: Header) -> Struct:
    """Lay a struct out by natural alignment, which is the ABI of BPF, and refuse every hole."""
    if not node.name:
        raise BuildError(f"{node.coord}: unnamed struct")
    layout = Struct(node.name)
    for member in node.decls or []:
        where = f"{node.name}.{member.name}"
        if not member.name:
            raise BuildError(f"{where}: unnamed member ({member.coord})")
        if member.bitsize is not None:
            raise BuildError(f"{where}: bitfields have no layout of their own")
        size, align, code = _parse_type(member.type, where, header)
        if layout.size % align:
            raise BuildError(f"{where}: {align - layout.size % align} bytes of padding before it; write them out")
        layout.fields.append(Field(member.name, layout.size, size, code))
        layout.size += size
        layout.align = max(layout.align, align)
    if layout.size % layout.align:
        where = f"{node.name}.{layout.fields[-1].name}"
        raise BuildError(f"{where}: {layout.align - layout.size % layout.align} bytes of padding after it")
    return layout


def _parse_type(node: Any, where: str, header: Header) -> tuple[int, int, str]:
    """Size, alignment and `struct` code of a member's type."""
    from pycparser import c_ast

    if isinstance(node, c_ast.ArrayDecl) and node.dim is not None:
        size, align, _ = _parse_type(node.type, where, header)
        size *= _evaluate(node.dim, header)
        return size, align, f"{size}s"
    inner = getattr(node, "type", None)
    if isinstance(node, c_ast.TypeDecl) and isinstance(inner, c_ast.IdentifierType):
        code = SCALARS.get(" ".join(inner.names))
        if code:
            return struct.calcsize(code), struct.calcsize(code), code
    if isinstance(node, c_ast.TypeDecl) and isinstance(inner, c_ast.Struct) and inner.name in header.structs:
        nested = header.structs[inner.name]
        return nested.size, nested.align, f"{nested.size}s"
    kind = {"PtrDecl": "pointer", "ArrayDecl": "flexible array"}.get(type(node).__name__, "type without a fixed width")
    raise BuildError(f"{where}: {kind}; a record holds __u8 … __s64, arrays of them and structs defined above")


def _evaluate(node: Any, header: Header) -> int:
    """Value of an array bound or of a static assertion's condition."""
    from pycparser import c_ast

    if isinstance(node, c_ast.Constant):
        return int(_integer(str(node.coord), node.value), 0)
    if isinstance(node, c_ast.ID) and node.name in header.constants:
        return int(header.constants[node.name], 0)
    if isinstance(node, c_ast.BinaryOp) and node.op in OPERATORS:
        return int(OPERATORS[node.op](_evaluate(node.left, header), _evaluate(node.right, header)))
    if isinstance(node, c_ast.UnaryOp) and node.op == "sizeof" and isinstance(node.expr, c_ast.Typename):
        return _parse_type(node.expr.type, "sizeof", header)[0]
    raise BuildError(f"{node.coord}: cannot evaluate this expression")


# --- _records.py ------------------------------------------------------------------------------------------------

SLOTS = {"flak_access": {"latency_ns", "file_offset", "size_req"}, "flak_operands": {"arg_offset"}}
"""Records that fill a slot of the access ring, with their u64 fields in which FLAK_NONE shall read as -1."""

RING_HEADER = 8

RECORDS_HEAD = '''"""Record layouts, enums and constants of FLAK's two streams.

Written by build_bpf.py from bpf/flak.h; do not edit.

For `struct flak_task` there is `TASK`, its packed little-endian format, and `TaskRecord`, its fields by name; arrays
and nested structs are bytes. `ACCESS_SLOT` and `OPERANDS_SLOT` decode a slot of the access ring: the ring header is
skipped, and NONE reads as -1. `ACCESS_FIELDS` and `OPERANDS_FIELDS` say the same to `numpy.dtype()`.
"""

from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple
'''


def records_module(header: Header) -> str:
    """Source of `_records.py`."""
    lines = [RECORDS_HEAD]
    lines += [f"{_python_name(name)} = {value}" for name, value in header.constants.items()]
    for name, values in header.enums.items():
        lines += ["", "", *_enum_lines(name, values)]
    for layout in header.structs.values():
        lines += ["", "", *_record_lines(layout)]
    for name, signed in SLOTS.items():
        if name in header.structs:
            lines += ["", *_slot_lines(header.structs[name], signed)]
    lines += ["", "LAYOUTS: dict[str, tuple[int, list[tuple[str, int, int]]]] = {"]
    for layout in header.structs.values():
        lines += [f'    "{layout.name}": (', f"        {layout.size},", "        ["]
        lines += [f'            ("{f.name}", {f.offset}, {f.size}),' for f in layout.fields]
        lines += ["        ],", "    ),"]
    lines += ["}", '"""Size and fields (name, offset, size) of each struct, to be compared with an object\'s BTF."""']
    return "\n".join(lines) + "\n"


def _python_name(name: str) -> str:
    """FLAK_SLOT_SIZE → SLOT_SIZE, flak_access_long → ACCESS_LONG."""
    return name.upper().removeprefix("FLAK_")


def _class_name(name: str) -> str:
    """flak_name_flag → NameFlag."""
    return "".join(word.capitalize() for word in name.removeprefix("flak_").split("_"))


def _enum_lines(name: str, values: dict[str, str]) -> Iterator[str]:
    """A class for an enum. Where every number is a single bit in hexadecimal the enumerators are flags."""
    is_flags = all(v.startswith("0x") and int(v, 0).bit_count() == 1 for v in values.values())
    prefix = name.removesuffix("_flag").upper() + "_"
    yield f"class {_class_name(name)}({'IntFlag' if is_flags else 'IntEnum'}):"
    yield f'    """enum {name}."""'
    yield ""
    for enumerator, value in values.items():
        if not enumerator.startswith(prefix):
            raise BuildError(f"{name}.{enumerator}: does not begin with {prefix}")
        yield f"    {enumerator.removeprefix(prefix)} = {value}"


def _record_lines(layout: Struct) -> Iterator[str]:
    """A class with a struct's fields in order, and its packed format."""
    yield f"class {_class_name(layout.name)}Record(NamedTuple):"
    yield f'    """struct {layout.name}, {layout.size} bytes."""'
    yield ""
    yield from (f"    {f.name}: {'bytes' if f.code.endswith('s') else 'int'}" for f in layout.fields)
    yield ""
    yield ""
    yield f'{_python_name(layout.name)} = Struct("<{"".join(f.code for f in layout.fields)}")'


def _slot_lines(layout: Struct, signed: set[str]) -> Iterator[str]:
    """The formats of a struct as it lies in a slot of the access ring, for `struct` and for numpy."""
    missing = signed - {f.name for f in layout.fields}
    if missing:
        raise BuildError(f"{layout.name}.{missing.pop()}: not in the header")
    codes = [f.code.lower() if f.name in signed else f.code for f in layout.fields]
    name = _python_name(layout.name)
    yield f'{name}_SLOT = Struct("<{RING_HEADER}x{"".join(codes)}")'
    yield f"{name}_FIELDS = ["
    yield f'    ("ring_header", "<u{RING_HEADER}"),'
    for member, code in zip(layout.fields, codes, strict=True):
        yield f'    ("{member.name}", "<{"i" if code.islower() else "u"}{member.size}"),'
    yield "]"


# --- objects ----------------------------------------------------------------------------------------------------

NO_TOOLS = (
    "the BPF objects in src/flak/_bpf are missing or do not match the sources, and {} is not here to make them: "
    "install clang, llvm and libbpf-dev (Fedora: libbpf-devel), or install FLAK from a wheel"
)


def compile_objects(root: Path, architectures: Sequence[str], output: Path) -> list[Path]:
    """Compile the sources under `root` into `output`, an object for each variant of each architecture; the same sources
    and the same clang give the same bytes wherever `root` is.
    """
    output.mkdir(parents=True, exist_ok=True)
    objects = [output / name for name in _object_names(architectures)]
    kinds = itertools.product(architectures, VARIANTS.values())
    for (arch, options), path in zip(kinds, objects, strict=True):
        _run_clang(root, arch, path.resolve(), "-Werror", *options)
        # libbpf has no use for DWARF, nor for relocations against BTF, which make up a quarter of what is left; nor for
        # the names of basic blocks, which hardly compress.
        strip = ["llvm-strip", "-g", "-R", ".rel.BTF", "-R", ".rel.BTF.ext", "-w", "-N", "LBB*"]
        _run([*strip, str(path.resolve())], root)
    return objects


def _object_names(architectures: Sequence[str]) -> list[str]:
    return [f"flak.{arch}{variant}.bpf.o" for arch, variant in itertools.product(architectures, VARIANTS)]


def _run_clang(root: Path, arch: str, output: Path, *options: str) -> None:
    """Compile the sources. Their paths are relative to `root`, for the line information of BTF keeps them.

    It keeps no columns: every change of one would be an entry of its own, a tenth of the object.
    """
    command = ["clang", "-O2", "-g", "-gno-column-info", "-target", "bpf", "-mcpu=v3", "-Wall", *options]
    command += [f"-D__TARGET_ARCH_{TARGETS[arch]}", "-Ibpf", "-I."]
    command += [f"-ffile-prefix-map={root}=.", "-fdebug-compilation-dir=."]
    _run([*command, "-c", str(SOURCE), "-o", str(output)], root)


def _run(command: Sequence[str], root: Path) -> str:
    """What a tool of the build prints."""
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        raise BuildError(NO_TOOLS.format(command[0])) from None
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


@functools.cache
def _libbpf() -> ctypes.CDLL:
    """libbpf, with the functions that return pointers declared."""
    try:
        libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise BuildError(NO_TOOLS.format("libbpf.so.1")) from None
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [text, pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__btf", pointer, [pointer]),
        ("bpf_object__next_program", pointer, [pointer, pointer]),
        ("bpf_program__name", text, [pointer]),
        ("bpf_program__section_name", text, [pointer]),
        ("bpf_object__next_map", pointer, [pointer, pointer]),
        ("bpf_object__find_map_by_name", pointer, [pointer, text]),
        ("bpf_map__name", text, [pointer]),
        ("bpf_map__initial_value", pointer, [pointer, pointer]),
        ("btf__type_cnt", number, [pointer]),
        ("btf__type_by_id", pointer, [pointer, number]),
        ("btf__find_by_name_kind", ctypes.c_int, [pointer, text, number]),
        ("btf__name_by_offset", text, [pointer, number]),
        ("btf__resolve_size", ctypes.c_int64, [pointer, number]),
    ):
        function = getattr(libbpf, name)
        function.restype, function.argtypes = result, arguments
    return libbpf


# BTF_KIND_*, from linux/btf.h.
INT, ARRAY, STRUCT, TYPEDEF, VOLATILE, CONST, RESTRICT, DATASEC = 1, 3, 4, 8, 9, 10, 11, 15


class Type(NamedTuple):
    """A `struct btf_type`: `size` is a type's id in kinds that refer to one; `data` is the address of what follows."""

    name: str
    kind: int
    members: int
    size: int
    data: int


class Variable(NamedTuple):
    """A global variable. `kind` is a `struct` code or "struct NAME"; `default` is there for settings alone."""

    name: str
    section: str
    kind: str
    size: int
    length: int
    default: int | bool | None


class BpfObject:
    """A compiled object, opened and not loaded: what its ELF file and its BTF say. Closed by `with`."""

    def __init__(self, path: Path) -> None:
        self._libbpf = _libbpf()
        self._object = self._libbpf.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            raise BuildError(f"cannot open {path}: errno {ctypes.get_errno()}")
        self._btf = self._libbpf.bpf_object__btf(self._object)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, *_: object) -> None:
        self._libbpf.bpf_object__close(self._object)

    def programs(self) -> dict[str, str]:
        """Section of each program by its name."""
        libbpf, programs = self._libbpf, {}
        program = libbpf.bpf_object__next_program(self._object, None)
        while program:
            section = libbpf.bpf_program__section_name(program).decode()
            programs[libbpf.bpf_program__name(program).decode()] = section
            program = libbpf.bpf_object__next_program(self._object, program)
        return programs

    def maps(self) -> list[str]:
        """Names of the maps that the sources define; those libbpf makes of sections have a dot in theirs."""
        libbpf, names = self._libbpf, []
        bpf_map = libbpf.bpf_object__next_map(self._object, None)
        while bpf_map:
            names.append(libbpf.bpf_map__name(bpf_map).decode())
            bpf_map = libbpf.bpf_object__next_map(self._object, bpf_map)
        return [name for name in names if "." not in name]

    def layout(self, name: str) -> tuple[int, list[tuple[str, int, int]]] | None:
        """Size and fields (name, offset, size) of a struct; None when BTF does not have it."""
        number = self._libbpf.btf__find_by_name_kind(self._btf, name.encode(), STRUCT)
        if number < 0:
            return None
        layout = self._type(number)
        fields = []
        for name_offset, type_id, bits in self._triples(layout):
            size = self._libbpf.btf__resolve_size(self._btf, type_id)
            fields.append((self._name(name_offset), bits // 8, size))
        return layout.size, fields

    def variables(self) -> Iterator[Variable]:
        """Global variables but those whose name begins with an underscore."""
        for number in range(1, self._libbpf.btf__type_cnt(self._btf)):
            section = self._type(number)
            if section.kind == DATASEC and section.name.startswith((".rodata", ".data", ".bss")):
                for type_id, offset, _ in self._triples(section):
                    variable = self._type(type_id)
                    if self._is_global(variable) and not variable.name.startswith("_"):
                        yield self._variable(variable, section.name, offset)

    def _variable(self, variable: Type, section: str, offset: int) -> Variable:
        """What a variable at `offset` of its section is made of."""
        type_id, length, is_setting = variable.size, 1, False
        element = self._type(type_id)
        while element.kind in (ARRAY, TYPEDEF, CONST, VOLATILE, RESTRICT):
            is_setting |= element.kind == VOLATILE and section == ".rodata"
            type_id = element.size
            if element.kind == ARRAY:
                type_id, _, count = _read("<III", element.data)
                length *= count
            element = self._type(type_id)
        size = element.size
        if element.kind == STRUCT:
            return Variable(variable.name, section, f"struct {element.name}", size, length, None)
        if element.kind != INT or size > 8:
            raise BuildError(f"{variable.name}: neither integer nor struct; begin its name with _ to keep it private")
        kind = self._integer_code(element)
        default = self._initial_value(section, offset, kind) if is_setting and length == 1 else None
        return Variable(variable.name, section, kind, size, length, default)

    def _initial_value(self, section: str, offset: int, kind: str) -> int | bool:
        """What a variable of `kind` at `offset` of `section` has been initialised with."""
        bpf_map = self._libbpf.bpf_object__find_map_by_name(self._object, section.encode())
        size = ctypes.c_size_t()
        start = self._libbpf.bpf_map__initial_value(bpf_map, ctypes.byref(size))
        (value,) = _read("<" + kind, start + offset)
        return bool(value) if kind == "?" else int(value)

    @staticmethod
    def _integer_code(element: Type) -> str:
        """`struct` code of a BTF integer."""
        (encoding,) = _read("<I", element.data)
        is_signed, is_bool = encoding >> 24 & 1, encoding >> 24 & 4
        code = "?" if is_bool else {1: "B", 2: "H", 4: "I", 8: "Q"}[element.size]
        return code.lower() if is_signed else code

    @staticmethod
    def _is_global(variable: Type) -> bool:
        """Defined here and visible outside its source, BTF_VAR_GLOBAL_ALLOCATED."""
        return bool(_read("<I", variable.data) == (1,))

    def _type(self, number: int) -> Type:
        """The type with this id."""
        address = self._libbpf.btf__type_by_id(self._btf, number)
        name, info, size = _read("<III", address)
        return Type(self._name(name), info >> 24 & 0x1F, info & 0xFFFF, size, address + 12)

    def _triples(self, owner: Type) -> Iterator[tuple[int, int, int]]:
        """The members of a struct (name, type, bit offset) or of a section (type, offset, size)."""
        return struct.iter_unpack("<III", ctypes.string_at(owner.data, owner.members * 12))

    def _name(self, offset: int) -> str:
        """A string of the BTF."""
        text: bytes = self._libbpf.btf__name_by_offset(self._btf, offset)
        return text.decode()


def _read(layout: str, address: int) -> tuple[Any, ...]:
    """Unpack memory at an address."""
    return struct.unpack(layout, ctypes.string_at(address, struct.calcsize(layout)))


def check_layouts(header: Header, path: Path) -> None:
    """Compare every struct of the header with the object's BTF; the first difference is an error that names it."""
    with BpfObject(path) as obj:
        for expected in header.structs.values():
            found = obj.layout(expected.name)
            if found is None:
                raise BuildError(f"{expected.name}: not in the BTF of {path.name}; anchor it with a global pointer")
            for ours, theirs in itertools.zip_longest([f[:3] for f in expected.fields], found[1]):
                if ours != theirs:
                    where = f"{expected.name}.{(ours or theirs)[0]}"
                    raise BuildError(f"{where}: (name, offset, size) is {ours} in flak.h, {theirs} in {path.name}")
            if found[0] != expected.size:
                raise BuildError(f"{expected.name}: {expected.size} bytes in flak.h, {found[0]} in {path.name}")


# --- _skeleton.py -----------------------------------------------------------------------------------------------

SKELETON_HEAD = '''"""What the BPF objects offer, by name: programs, maps, variables, settings.

Written by build_bpf.py from the objects' BTF; do not edit.

Where a variable lies may differ between architectures: look its offset up in the BTF of the object that is loaded.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Variable(NamedTuple):
    """A global variable: `length` elements (1 if no array) of `size` bytes, each a `struct` code or "struct NAME"."""

    section: str
    kind: str
    size: int
    length: int

'''

CONFIG_HEAD = '''

@dataclass(slots=True, kw_only=True)
class Config:
    """The settings: constants of the object that are chosen before it is loaded."""
'''

NAME_LIMIT = 15  # BPF_OBJ_NAME_LEN less its NUL: the kernel cuts longer names, so that nothing finds them


def skeleton_module(path: Path) -> str:
    """Source of `_skeleton.py` for an object."""
    with BpfObject(path) as obj:
        programs, maps = sorted(obj.programs().items()), sorted(obj.maps())
        variables = sorted(obj.variables())
    for name in [*dict(programs), *maps]:
        if len(name) > NAME_LIMIT:
            raise BuildError(f"{name}: longer than the {NAME_LIMIT} characters that the kernel keeps")
    lines = [SKELETON_HEAD, "PROGRAMS: dict[str, str] = {"]
    lines += [f'    "{name}": "{section}",' for name, section in programs]
    lines += ["}", '"""Section of each program; it names the hook."""', "", "MAPS: tuple[str, ...] = ("]
    lines += [f'    "{name}",' for name in maps]
    lines += [")", "", "VARIABLES: dict[str, Variable] = {"]
    lines += [f'    "{v.name}": Variable("{v.section}", "{v.kind}", {v.size}, {v.length}),' for v in variables]
    lines += ["}", '"""Everything in .rodata, .data and .bss, settings included."""', CONFIG_HEAD]
    lines += [f"    {v.name}: {type(v.default).__name__} = {v.default}" for v in variables if v.default is not None]
    return "\n".join(lines) + "\n"


# --- the build --------------------------------------------------------------------------------------------------


def build(root: Path = ROOT, architectures: Sequence[str] = tuple(TARGETS)) -> None:
    """Bring objects, generated modules and manifest under `root` up to date; do nothing where they are.

    The records need no compiler and come first; the manifest is written last, so a build that failed is repeated.
    """
    if is_current(root, architectures):
        return
    header = parse_header(root / HEADER)
    (root / RECORDS).write_text(records_module(header))
    objects = compile_objects(root, architectures, root / OUTPUT)
    (root / SKELETON).write_text(checked_skeleton(header, objects))
    write_manifest(root, objects)


def checked_skeleton(header: Header, objects: Sequence[Path]) -> str:
    """Source of `_skeleton.py`, after all objects have been found to agree with the header and with each other."""
    for path in objects:
        check_layouts(header, path)
    alike = [path for path in objects if f"{OLD}." not in path.name]
    first, *others = ((path.name, skeleton_module(path)) for path in alike)
    for other in others:
        if other[1] != first[1]:
            raise BuildError("the objects differ:\n" + _diff(first, other))
    for path in objects:
        if path not in alike:
            check_variables(alike[0], path)
    return first[1]


def check_variables(complete: Path, old: Path) -> None:
    """Fail where an object for old kernels, which may have other programs, cannot be set and read as `complete` is."""
    with BpfObject(complete) as one, BpfObject(old) as other:
        there, here = set(one.variables()), set(other.variables())
    wrong = here - there | {variable for variable in there - here if variable.section == ".rodata"}
    if wrong:
        names = ", ".join(sorted({variable.name for variable in wrong}))
        raise BuildError(f"{old.name} and {complete.name} differ in {names}")


def check(root: Path = ROOT, architectures: Sequence[str] = tuple(TARGETS)) -> None:
    """Fail with a diff where the generated modules are not what the sources give; writes nothing under `root`."""
    header = parse_header(root / HEADER)
    with tempfile.TemporaryDirectory() as scratch:
        objects = compile_objects(root, architectures, Path(scratch))
        texts = {RECORDS: records_module(header), SKELETON: checked_skeleton(header, objects)}
    for path, text in texts.items():
        committed = (root / path).read_text() if (root / path).exists() else ""
        if committed != text:
            difference = _diff((f"{path}", committed), ("regenerated", text))
            raise BuildError(f"{path} is stale, run build_bpf.py:\n{difference}")


def check_field_names(root: Path = ROOT) -> None:
    """Compile against this kernel's full types in place of vmlinux.h, in which a wrong field name goes unnoticed.

    It would surface at load alone, as a relocation that cannot be resolved.
    """
    bpftool, arch = shutil.which("bpftool"), platform.machine()
    if not bpftool or arch not in TARGETS:
        print("field names are not checked: " + ("bpftool is missing" if not bpftool else f"{arch} is not supported"))
        return
    with tempfile.TemporaryDirectory() as scratch:
        dump = _run([bpftool, "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"], root)
        # Names are compared, not qualifiers: i_nlink and d_name are const since they sit in unions.
        Path(scratch, "vmlinux.h").write_text(dump.replace("const ", ""))
        _run_clang(root, arch, Path(scratch, "object"), f"-I{scratch}")


def is_current(root: Path, architectures: Sequence[str]) -> bool:
    """The manifest says that the objects and the generated modules were made from the present sources."""
    try:
        manifest = json.loads((root / OUTPUT / "manifest.json").read_text())
        return bool(
            manifest["sources"] == _digests(root, _sources(root))
            and manifest["modules"] == _digests(root, [RECORDS, SKELETON])
            and all(manifest["objects"].get(n) == _digest(root / OUTPUT / n) for n in _object_names(architectures))
        )
    except (FileNotFoundError, ValueError, KeyError):  # none, or one cut short
        return False


def write_manifest(root: Path, objects: Sequence[Path]) -> None:
    """Say what was made, from what, and by which compiler."""
    manifest = {
        "clang": _run(["clang", "--version"], root).splitlines()[0],
        "sources": _digests(root, _sources(root)),
        "modules": _digests(root, [RECORDS, SKELETON]),
        "objects": {path.name: _digest(path) for path in objects},
    }
    (root / OUTPUT / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _sources(root: Path) -> list[Path]:
    """Everything under `root` that the objects are made from; build_bpf.py has the compiler's options."""
    names = [*root.glob("bpf/*.[ch]"), *root.glob("vmlinux.h"), *root.glob("build_bpf.py")]
    return sorted(path.relative_to(root) for path in names)


def _digests(root: Path, paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of files under `root`."""
    return {str(path): _digest(root / path) for path in paths}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _diff(before: tuple[str, str], after: tuple[str, str]) -> str:
    """A unified diff of two texts, each given with its name."""
    (old_name, old), (new_name, new) = before, after
    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), old_name, new_name))


def main() -> int:
    """The command line; the exit status is 1 with one message when something does not fit."""
    parser = argparse.ArgumentParser(description="Compile FLAK's BPF objects and write the modules made from them.")
    parser.add_argument("--arch", default=",".join(TARGETS), help="architectures, separated by commas (%(default)s)")
    parser.add_argument("--check", action="store_true", help="compare the generated modules, write nothing")
    parser.add_argument("--full-btf", action="store_true", help="check vmlinux.h against this kernel's types")
    options = parser.parse_args()
    architectures = options.arch.split(",")
    if not set(architectures) <= set(TARGETS):
        parser.error(f"--arch: one or more of {', '.join(TARGETS)}")
    try:
        if options.full_btf:
            check_field_names()
        if options.check:
            check(ROOT, architectures)
        else:
            build(ROOT, architectures)
    except BuildError as error:
        print(f"build_bpf.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
