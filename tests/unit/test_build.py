"""build_bpf.py: what it takes from a header, what it refuses, and that what is committed is what it writes."""

import shutil
import struct
from contextlib import nullcontext
from pathlib import Path

import pytest

import build_bpf
from build_bpf import BpfObject, BuildError
from flak import _records

HEADER = """
#ifndef TEST_H
#define TEST_H
#define FLAK_BOUND 4 /* a bound */
#define FLAK_NONE 0xffffffffffffffff
enum flak_op {
	FLAK_OP_READ = 1, // numbered
	FLAK_OP_FAULT = 0x300,
};
enum flak_name_flag { FLAK_NAME_CLAIMED = 0x1, FLAK_NAME_DELETED = 0x2 };
struct flak_head {
	__u32 a;
	__s16 b;
	__u8 comm[FLAK_BOUND - 2];
};
struct flak_body {
	struct flak_head head;
	__u64 words[FLAK_BOUND];
};
_Static_assert(sizeof(struct flak_body) == 8 + FLAK_BOUND * 8, "no holes");
#endif
"""

VMLINUX = """
typedef unsigned char __u8;
typedef unsigned short __u16, __be16, __sum16;
typedef unsigned int __u32, __be32, __wsum;
typedef unsigned long long __u64;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
enum bpf_map_type { BPF_MAP_TYPE_ARRAY = 2 };
"""

SOURCE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "flak.h"

char _license[] SEC("license") = "Dual BSD/GPL";
const struct flak_head *const volatile _head_anchor;
const struct flak_body *const volatile _body_anchor;

const volatile _Bool follow = 1;
const volatile __s32 level = -2;
const volatile __u16 table[3] = {1};
struct flak_body rows[2];
__u64 hits;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} things SEC(".maps");

SEC("tp_btf/sys_enter")
int flak_enter(void *ctx)
{
	if (follow)
		__sync_fetch_and_add(&hits, 1);
	return 0;
}

SEC("?fentry/handle_mm_fault")
int flak_fault(void *ctx)
{
	return 0;
}
"""

needs_clang = pytest.mark.skipif(
    not (shutil.which("clang") and shutil.which("llvm-strip")),
    reason="clang and llvm-strip are not installed: nothing can be compiled",
)


def parse(tmp_path: Path, text: str) -> build_bpf.Header:
    path = tmp_path / "test.h"
    path.write_text(text)
    return build_bpf.parse_header(path)


def make_tree(root: Path) -> Path:
    """A source tree with a small BPF object to be made."""
    (root / "bpf").mkdir(parents=True)
    (root / "src/flak").mkdir(parents=True)
    (root / "vmlinux.h").write_text(VMLINUX)
    for name, text in ("flak.h", HEADER), ("flak.bpf.c", SOURCE):
        (root / "bpf" / name).write_text(text)
    return root


def test_header_gives_constants_enums_and_offsets(tmp_path: Path) -> None:
    header = parse(tmp_path, HEADER)
    assert header.constants == {"FLAK_BOUND": "4", "FLAK_NONE": "0xFFFFFFFFFFFFFFFF"}
    assert header.enums["flak_op"] == {"FLAK_OP_READ": "1", "FLAK_OP_FAULT": "0x300"}
    assert header.structs["flak_head"].fields == [("a", 0, 4, "I"), ("b", 4, 2, "h"), ("comm", 6, 2, "2s")]
    assert header.structs["flak_body"].fields == [("head", 0, 8, "8s"), ("words", 8, 32, "32s")]
    assert header.structs["flak_body"].size == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("struct s { __u8 a; __u32 b; };", "s.b: 3 bytes of padding before it"),
        ("struct s { __u64 a; __u32 b; };", "s.b: 4 bytes of padding after it"),
        ("struct s { __u32 a : 3; };", "s.a: bitfields"),
        ("struct s { __u8 *a; };", "s.a: pointer"),
        ("struct s { __u8 a[]; };", "s.a: flexible array"),
        ("struct s { int a; };", "s.a: type without a fixed width"),
        ("struct s { struct t a; };", "s.a: type without a fixed width"),
        ("struct s { struct { __u8 a; }; };", "s.None: unnamed member"),
        ("struct s { struct { __u8 a; } b; };", "s.b: type without a fixed width"),
        ("struct s { union { __u8 a; __s8 b; }; };", "s.None: unnamed member"),
        ("struct { __u8 a; };", "unnamed struct"),
        ("enum { A = 1 };", "unnamed enum"),
        ("enum e { A, B = 1 };", "e.A: 'no number' is not an integer literal"),
        ("enum e { A = 1, B = 0x1 };", "e.B: 0x1 is taken"),
        ("#define A (1 << 2)\n", "A: '(1 << 2)' is not an integer literal"),
        ('struct s { __u8 a; };\n_Static_assert(sizeof(struct s) == 2, "two");', 'does not hold: "two"'),
        ("struct s { __u8 a[2]; } __attribute__((packed));", "cannot parse"),
        ("\nstruct s { __u8 a b; };", "test.h:2"),
        ("int x;", "only enums, structs and static assertions"),
    ],
)
def test_header_that_python_could_not_mirror_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        parse(tmp_path, text)
    assert message in str(caught.value)


def test_enumerator_outside_its_enum_is_refused(tmp_path: Path) -> None:
    header = parse(tmp_path, "enum flak_op { FLAK_OPEN = 1 };")
    with pytest.raises(BuildError, match=r"flak_op\.FLAK_OPEN: does not begin with FLAK_OP_"):
        build_bpf.records_module(header)


def test_records_module_has_typed_records_and_enums(tmp_path: Path) -> None:
    names: dict[str, object] = {"__name__": "records"}
    exec(build_bpf.records_module(parse(tmp_path, HEADER)), names)
    packed = names["HEAD"].pack(1, -1, b"ab")
    assert names["HeadRecord"]._make(names["HEAD"].unpack(packed)) == (1, -1, b"ab")
    assert names["BODY"].size == 40
    assert names["Op"].FAULT == 0x300
    assert names["NameFlag"].CLAIMED | names["NameFlag"].DELETED == 3
    assert names["LAYOUTS"]["flak_head"] == (8, [("a", 0, 4), ("b", 4, 2), ("comm", 6, 2)])


def test_records_have_the_sizes_of_the_header() -> None:
    for name, (size, fields) in _records.LAYOUTS.items():
        packed: struct.Struct = getattr(_records, name.removeprefix("flak_").upper())
        assert packed.size == size == sum(length for _, _, length in fields)


def test_access_slot_reads_none_as_minus_one() -> None:
    ours = _records.AccessRecord(1, _records.NONE, _records.NONE, 4099, -2, 3, 4, 5, 6, 7, 8, 9, 10)
    slot = bytes(8) + _records.ACCESS.pack(*ours)
    assert _records.ACCESS_SLOT.size == _records.SLOT_SIZE
    assert next(_records.ACCESS_SLOT.iter_unpack(slot)) == (1, -1, -1, 4099, -2, 3, 4, 5, 6, 7, 8, 9, 10)


def test_numpy_sees_what_the_slot_format_sees() -> None:
    numpy = pytest.importorskip("numpy")
    slot = bytes(range(100, 100 + _records.SLOT_SIZE))
    for fields, layout in (
        (_records.ACCESS_FIELDS, _records.ACCESS_SLOT),
        (_records.OPERANDS_FIELDS, _records.OPERANDS_SLOT),
    ):
        dtype = numpy.dtype(fields)
        assert dtype.itemsize == _records.SLOT_SIZE
        assert numpy.frombuffer(slot, dtype)[0].item()[1:] == layout.unpack(slot)


@needs_clang
def test_skeleton_lists_what_the_sources_define(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    path, *_ = build_bpf.compile_objects(root, ["aarch64"], root / "out")
    with BpfObject(path) as obj:
        assert obj.programs() == {"flak_enter": "tp_btf/sys_enter", "flak_fault": "fentry/handle_mm_fault"}
        assert obj.maps() == ["things"]
        assert sorted(obj.variables()) == [
            ("follow", ".rodata", "?", 1, 1, True),
            ("hits", ".bss", "Q", 8, 1, None),
            ("level", ".rodata", "i", 4, 1, -2),
            ("rows", ".bss", "struct flak_body", 40, 2, None),
            ("table", ".rodata", "H", 2, 3, None),
        ]
    names: dict[str, object] = {"__name__": "build_bpf"}  # a module that exists, for dataclasses to look it up
    exec(build_bpf.skeleton_module(path), names)
    config = names["Config"]()
    assert (config.follow, config.level) == (True, -2)


@needs_clang
def test_object_without_debug_information_is_the_same_in_any_folder(tmp_path: Path) -> None:
    objects = []
    for name in "one", "another":
        root = make_tree(tmp_path / name)
        objects += build_bpf.compile_objects(root, ["x86_64"], root / "out")[:1]
    one, another = (path.read_bytes() for path in objects)
    assert one == another
    assert b".debug_" not in one
    assert bytes(tmp_path) not in one


@needs_clang
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("__s16 b;", "__u8 b[2];", None),  # only names, offsets and sizes count
        (
            "__u32 a;",
            "__u32 renamed;",
            "flak_head.renamed: (name, offset, size) is ('renamed', 0, 4) in flak.h, ('a', 0, 4)",
        ),
        ("__s16 b;\n\t__u8 comm[FLAK_BOUND - 2];", "__u8 comm[2];\n\t__s16 b;", "flak_head.comm: (name, offset, size)"),
        ("words[FLAK_BOUND];", "words[FLAK_BOUND];\n\t__u64 more;", "flak_body.more"),
        ("struct flak_body {", "struct flak_new { __u8 a; };\nstruct flak_body {", "flak_new: not in the BTF"),
    ],
)
def test_difference_between_header_and_object_is_named(
    tmp_path: Path, before: str, after: str, message: str | None
) -> None:
    path, *_ = build_bpf.compile_objects(make_tree(tmp_path), ["x86_64"], tmp_path / "out")
    header = parse(tmp_path, HEADER[: HEADER.index("_Static_assert")].replace(before, after))
    if message is None:
        build_bpf.check_layouts(header, path)
    else:
        with pytest.raises(BuildError) as caught:
            build_bpf.check_layouts(header, path)
        assert message in str(caught.value)


@needs_clang
def test_objects_that_differ_between_architectures_are_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    with (root / "bpf/flak.bpf.c").open("a") as source:
        source.write("#ifdef __TARGET_ARCH_x86\n__u64 only_here;\n#endif\n")
    with pytest.raises(BuildError, match="only_here"):
        build_bpf.build(root)


@needs_clang
@pytest.mark.parametrize(
    ("guard", "variable", "is_fine"),
    [("ifdef", "int more;", False), ("ifndef", "int more;", True), ("ifndef", "const volatile int more = 0;", False)],
)
def test_the_object_for_old_kernels_has_the_same_settings_and_no_other_variables(
    tmp_path: Path, guard: str, variable: str, is_fine: bool
) -> None:
    root = make_tree(tmp_path)
    with (root / "bpf/flak.bpf.c").open("a") as source:
        source.write(f"#{guard} FLAK_OLD_KERNEL\n{variable}\n#endif\n")
    with nullcontext() if is_fine else pytest.raises(BuildError, match=r"\.old\.bpf\.o and .* differ in more$"):
        build_bpf.build(root)


@needs_clang
def test_error_of_the_compiler_is_passed_on(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    (root / "bpf/flak.bpf.c").write_text("int x = y;\n")
    with pytest.raises(BuildError, match=r"(?s)clang .*bpf/flak\.bpf\.c:1:9: .*undeclared"):
        build_bpf.build(root, ["x86_64"])


@needs_clang
def test_long_names_are_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    (root / "bpf/flak.bpf.c").write_text(SOURCE.replace("flak_fault", "flak_fault_too_long"))
    with pytest.raises(BuildError, match="flak_fault_too_long: longer than the 15 characters"):
        build_bpf.build(root, ["x86_64"])


@needs_clang
def test_build_needs_clang_only_when_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(tmp_path)
    build_bpf.build(root)
    build_bpf.check(root)
    monkeypatch.setenv("PATH", "/nonexistent")
    build_bpf.build(root)
    for changed in "vmlinux.h", "bpf/flak.bpf.c", "src/flak/_skeleton.py", "src/flak/_bpf/flak.aarch64.bpf.o":
        was = (root / changed).read_bytes()
        (root / changed).write_bytes(was + b"\n")
        with pytest.raises(BuildError, match="install clang, llvm and libbpf-dev"):
            build_bpf.build(root)
        (root / changed).write_bytes(was)
    build_bpf.build(root)


@needs_clang
def test_stale_module_is_shown_as_a_diff(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    build_bpf.build(root)
    with (root / "src/flak/_skeleton.py").open("a") as skeleton:
        skeleton.write("EDITED = 1\n")
    with pytest.raises(BuildError, match=r"_skeleton.py is stale, run build_bpf.py:\n(.|\n)*-EDITED = 1"):
        build_bpf.check(root)


def test_committed_records_are_those_of_the_header() -> None:
    header = build_bpf.parse_header(build_bpf.ROOT / build_bpf.HEADER)
    assert (build_bpf.ROOT / build_bpf.RECORDS).read_text() == build_bpf.records_module(header)


@needs_clang
def test_committed_modules_fit_the_objects_of_both_architectures() -> None:
    build_bpf.check()
