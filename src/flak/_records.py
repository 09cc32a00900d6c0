"""Record layouts, enums and constants of FLAK's two streams.

Written by build_bpf.py from bpf/flak.h; do not edit.

For `struct flak_task` there is `TASK`, its packed little-endian format, and `TaskRecord`, its fields by name; arrays
and nested structs are bytes. `ACCESS_SLOT` and `OPERANDS_SLOT` decode a slot of the access ring: the ring header is
skipped, and NONE reads as -1. `ACCESS_FIELDS` and `OPERANDS_FIELDS` say the same to `numpy.dtype()`.
"""

from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

FORMAT_VERSION = 1
NONE = 0xFFFFFFFFFFFFFFFF
SLOT_SIZE = 72
ACCESS_SIZE = 64
COMM_LEN = 16
PATH_MAX = 4096
MAX_CPUS = 1024
MAX_PIDS = 4194304
TRAIT_WORDS = 1048576
MAX_CHOICES = 64
NAME_WORDS = 4
CLAIM_BIT = 0x80000000
MAX_VERDICTS = 1048576
VERDICT_WORDS = 16384
FOLDED_SLOTS = 16384
MAX_OPCODES = 128
MAX_SYSCALLS = 512
NOT_DECODED = 248
FOLDED_MARKS = 0x30930


class Op(IntEnum):
    """enum flak_op."""

    NONE = 0
    READ = 1
    WRITE = 2
    READV = 3
    WRITEV = 4
    PREAD64 = 5
    PWRITE64 = 6
    PREADV = 7
    PWRITEV = 8
    PREADV2 = 9
    PWRITEV2 = 10
    OPEN = 16
    OPENAT = 17
    OPENAT2 = 18
    CREAT = 19
    CLOSE = 20
    DUP = 22
    DUP2 = 23
    DUP3 = 24
    FCNTL = 25
    LSEEK = 26
    MMAP = 32
    MUNMAP = 33
    MREMAP = 34
    MADVISE = 35
    MSYNC = 36
    SENDFILE64 = 40
    SENDFILE64_TO = 41
    SPLICE = 42
    SPLICE_TO = 43
    COPY_FILE_RANGE = 44
    COPY_FILE_RANGE_TO = 45
    FICLONE = 46
    FICLONE_TO = 47
    FICLONERANGE = 48
    FICLONERANGE_TO = 49
    NEWSTAT = 64
    NEWLSTAT = 65
    NEWFSTAT = 66
    NEWFSTATAT = 67
    STATX = 68
    STATFS = 69
    FSTATFS = 70
    ACCESS = 71
    FACCESSAT = 72
    FACCESSAT2 = 73
    RENAME = 74
    RENAMEAT = 75
    RENAMEAT2 = 76
    LINK = 77
    LINKAT = 78
    SYMLINK = 79
    SYMLINKAT = 80
    UNLINK = 81
    UNLINKAT = 82
    MKDIR = 83
    MKDIRAT = 84
    RMDIR = 85
    TRUNCATE = 86
    FTRUNCATE = 87
    FALLOCATE = 88
    FSYNC = 89
    FDATASYNC = 90
    SYNC_FILE_RANGE = 91
    READAHEAD = 92
    FADVISE64 = 93
    GETDENTS64 = 94
    CLOSE_RANGE = 95
    IO_URING_READV = 0x101
    IO_URING_WRITEV = 0x102
    IO_URING_FSYNC = 0x103
    IO_URING_READ_FIXED = 0x104
    IO_URING_WRITE_FIXED = 0x105
    IO_URING_SYNC_FILE_RANGE = 0x108
    IO_URING_FALLOCATE = 0x111
    IO_URING_OPENAT = 0x112
    IO_URING_CLOSE = 0x113
    IO_URING_STATX = 0x115
    IO_URING_READ = 0x116
    IO_URING_WRITE = 0x117
    IO_URING_FADVISE = 0x118
    IO_URING_MADVISE = 0x119
    IO_URING_OPENAT2 = 0x11C
    IO_URING_SPLICE = 0x11E
    IO_URING_RENAMEAT = 0x123
    IO_URING_UNLINKAT = 0x124
    IO_URING_MKDIRAT = 0x125
    IO_URING_SYMLINKAT = 0x126
    IO_URING_LINKAT = 0x127
    IO_URING_FTRUNCATE = 0x137
    IO_URING_READV_FIXED = 0x13C
    IO_URING_WRITEV_FIXED = 0x13D
    IO_URING_SPLICE_TO = 0x19E
    AIO_PREAD = 0x200
    AIO_PWRITE = 0x201
    AIO_FSYNC = 0x202
    AIO_FDSYNC = 0x203
    AIO_PREADV = 0x207
    AIO_PWRITEV = 0x208
    FAULT = 0x300
    FORK = 0x400
    EXEC = 0x401
    EXIT = 0x402
    PUT_ASIDE = 0xFE00
    OPERANDS = 0xFFFF


class Nr(IntEnum):
    """enum flak_nr."""

    EXEC = 248
    COMPAT_RENAMES = 249
    RENAMES = 250
    IO_URING = 251
    AIO = 252
    AIO_EVENTS = 253


class Mark(IntFlag):
    """enum flak_mark."""

    PATH_CLAIMED = 0x1
    PATH_TRUNCATED = 0x2
    PATH_FAULT = 0x4
    NO_ENTER = 0x8
    INTERRUPTED = 0x10
    UNFINISHED = 0x20
    COMPAT32 = 0x40
    DELETED = 0x80
    ATTACHED = 0x100
    OFFSET_SHARED = 0x200
    OFFSET_FROM_SIZE = 0x400
    RESULT_UNKNOWN = 0x800
    KERNEL_FAULT = 0x1000
    FD_REPLACED = 0x2000
    HUNG = 0x4000
    BY_EXEC = 0x8000
    IS_WRITE = 0x10000
    IS_MAJOR = 0x20000
    HAS_OPERANDS = 0x40000
    IS_SOURCE = 0x80000
    IS_TARGET = 0x100000


class Has(IntFlag):
    """enum flak_has."""

    ADDR = 0x1
    PROT = 0x2
    MAP_FLAGS = 0x4
    OPEN_FLAGS = 0x8
    MODE = 0x10
    RET64 = 0x20
    ARG_OFFSET = 0x40
    FLAGS = 0x80


class Meta(IntEnum):
    """enum flak_meta."""

    NAME = 1
    TASK = 2
    PROCESS = 3
    CONTAINER = 4
    FOLDED = 5


class NameFlag(IntFlag):
    """enum flak_name_flag."""

    TRUNCATED = 0x1
    CLAIMED = 0x2
    FAULT = 0x4
    DELETED = 0x8
    DETACHED = 0x10
    FROM_STAT = 0x40
    WEAK = 0x20


class AccessRecord(NamedTuple):
    """struct flak_access, 64 bytes."""

    ts_ns: int
    latency_ns: int
    file_offset: int
    size_req: int
    ret: int
    task_id: int
    file_id: int
    path_id: int
    fd: int
    seq: int
    marks: int
    op: int
    cpu: int


ACCESS = Struct("<QQQQiIIIiIIHH")


class OperandsRecord(NamedTuple):
    """struct flak_operands, 64 bytes."""

    addr: int
    old_addr: int
    arg_offset: int
    prot: int
    map_flags: int
    open_flags: int
    mode: int
    new_fd: int
    claim_id: int
    other_file_id: int
    other_path_id: int
    call_id: int
    op: int
    has: int


OPERANDS = Struct("<QQQIIIIiIIIIHH")


class AccessLongRecord(NamedTuple):
    """struct flak_access_long, 136 bytes."""

    access: bytes
    slot_len: int
    slot_zero: int
    operands: bytes


ACCESS_LONG = Struct("<64sII64s")


class NameRecord(NamedTuple):
    """struct flak_name, 56 bytes."""

    type: int
    size: int
    path_id: int
    file_id: int
    dev: int
    ino: int
    ino_gen: int
    base_path_id: int
    mnt_id: int
    mnt_ns: int
    fs_magic: int
    mode: int
    flags: int
    file_size: int


NAME = Struct("<HHIIIQIIIIIHHQ")


class TaskRecord(NamedTuple):
    """struct flak_task, 72 bytes."""

    type: int
    size: int
    task_id: int
    start_time_ns: int
    cgroup_id: int
    pid: int
    tid: int
    ns_pid: int
    ns_tid: int
    ppid: int
    uid: int
    comm: bytes
    mnt_ns: int
    process_tag: int


TASK = Struct("<HHIQQIIIIII16sII")


class ContainerRecord(NamedTuple):
    """struct flak_container, 16 bytes."""

    type: int
    size: int
    reserved: int
    cgroup_id: int


CONTAINER = Struct("<HHIQ")


class FoldedRecord(NamedTuple):
    """struct flak_folded, 64 bytes."""

    type: int
    size: int
    task_id: int
    file_id: int
    path_id: int
    marks: int
    op: int
    has_failed: int
    accesses: int
    result: int
    latency_ns: int
    first_ns: int
    last_ns: int


FOLDED = Struct("<HHIIIIHHQQQQQ")


class ProcessRecord(NamedTuple):
    """struct flak_process, 48 bytes."""

    type: int
    size: int
    op: int
    cpu: int
    ts_ns: int
    task_id: int
    seq: int
    child_pid: int
    child_tid: int
    exit_code: int
    is_last: int
    file_id: int
    path_id: int


PROCESS = Struct("<HHHHQIIIIiIII")


class CountersRecord(NamedTuple):
    """struct flak_counters, 192 bytes."""

    matched: int
    submitted: int
    lost_ring_full: int
    meta_matched: int
    meta_submitted: int
    lost_meta_full: int
    lost_state_full: int
    excluded_self: int
    not_decoded_compat32: int
    not_decoded_gup_fault: int
    not_decoded_io_uring: int
    not_decoded_aio: int
    folded: int
    names_sent: int
    names_failed: int
    vma_misses: int
    filtered_path: int
    filtered_failed: int
    filtered_min_latency: int
    filtered_min_size: int
    reserved_1: int
    reserved_2: int
    reserved_3: int
    reserved_4: int


COUNTERS = Struct("<QQQQQQQQQQQQQQQQQQQQQQQQ")

ACCESS_SLOT = Struct("<8xQqqqiIIIiIIHH")
ACCESS_FIELDS = [
    ("ring_header", "<u8"),
    ("ts_ns", "<u8"),
    ("latency_ns", "<i8"),
    ("file_offset", "<i8"),
    ("size_req", "<i8"),
    ("ret", "<i4"),
    ("task_id", "<u4"),
    ("file_id", "<u4"),
    ("path_id", "<u4"),
    ("fd", "<i4"),
    ("seq", "<u4"),
    ("marks", "<u4"),
    ("op", "<u2"),
    ("cpu", "<u2"),
]

OPERANDS_SLOT = Struct("<8xQQqIIIIiIIIIHH")
OPERANDS_FIELDS = [
    ("ring_header", "<u8"),
    ("addr", "<u8"),
    ("old_addr", "<u8"),
    ("arg_offset", "<i8"),
    ("prot", "<u4"),
    ("map_flags", "<u4"),
    ("open_flags", "<u4"),
    ("mode", "<u4"),
    ("new_fd", "<i4"),
    ("claim_id", "<u4"),
    ("other_file_id", "<u4"),
    ("other_path_id", "<u4"),
    ("call_id", "<u4"),
    ("op", "<u2"),
    ("has", "<u2"),
]

LAYOUTS: dict[str, tuple[int, list[tuple[str, int, int]]]] = {
    "flak_access": (
        64,
        [
            ("ts_ns", 0, 8),
            ("latency_ns", 8, 8),
            ("file_offset", 16, 8),
            ("size_req", 24, 8),
            ("ret", 32, 4),
            ("task_id", 36, 4),
            ("file_id", 40, 4),
            ("path_id", 44, 4),
            ("fd", 48, 4),
            ("seq", 52, 4),
            ("marks", 56, 4),
            ("op", 60, 2),
            ("cpu", 62, 2),
        ],
    ),
    "flak_operands": (
        64,
        [
            ("addr", 0, 8),
            ("old_addr", 8, 8),
            ("arg_offset", 16, 8),
            ("prot", 24, 4),
            ("map_flags", 28, 4),
            ("open_flags", 32, 4),
            ("mode", 36, 4),
            ("new_fd", 40, 4),
            ("claim_id", 44, 4),
            ("other_file_id", 48, 4),
            ("other_path_id", 52, 4),
            ("call_id", 56, 4),
            ("op", 60, 2),
            ("has", 62, 2),
        ],
    ),
    "flak_access_long": (
        136,
        [
            ("access", 0, 64),
            ("slot_len", 64, 4),
            ("slot_zero", 68, 4),
            ("operands", 72, 64),
        ],
    ),
    "flak_name": (
        56,
        [
            ("type", 0, 2),
            ("size", 2, 2),
            ("path_id", 4, 4),
            ("file_id", 8, 4),
            ("dev", 12, 4),
            ("ino", 16, 8),
            ("ino_gen", 24, 4),
            ("base_path_id", 28, 4),
            ("mnt_id", 32, 4),
            ("mnt_ns", 36, 4),
            ("fs_magic", 40, 4),
            ("mode", 44, 2),
            ("flags", 46, 2),
            ("file_size", 48, 8),
        ],
    ),
    "flak_task": (
        72,
        [
            ("type", 0, 2),
            ("size", 2, 2),
            ("task_id", 4, 4),
            ("start_time_ns", 8, 8),
            ("cgroup_id", 16, 8),
            ("pid", 24, 4),
            ("tid", 28, 4),
            ("ns_pid", 32, 4),
            ("ns_tid", 36, 4),
            ("ppid", 40, 4),
            ("uid", 44, 4),
            ("comm", 48, 16),
            ("mnt_ns", 64, 4),
            ("process_tag", 68, 4),
        ],
    ),
    "flak_container": (
        16,
        [
            ("type", 0, 2),
            ("size", 2, 2),
            ("reserved", 4, 4),
            ("cgroup_id", 8, 8),
        ],
    ),
    "flak_folded": (
        64,
        [
            ("type", 0, 2),
            ("size", 2, 2),
            ("task_id", 4, 4),
            ("file_id", 8, 4),
            ("path_id", 12, 4),
            ("marks", 16, 4),
            ("op", 20, 2),
            ("has_failed", 22, 2),
            ("accesses", 24, 8),
            ("result", 32, 8),
            ("latency_ns", 40, 8),
            ("first_ns", 48, 8),
            ("last_ns", 56, 8),
        ],
    ),
    "flak_process": (
        48,
        [
            ("type", 0, 2),
            ("size", 2, 2),
            ("op", 4, 2),
            ("cpu", 6, 2),
            ("ts_ns", 8, 8),
            ("task_id", 16, 4),
            ("seq", 20, 4),
            ("child_pid", 24, 4),
            ("child_tid", 28, 4),
            ("exit_code", 32, 4),
            ("is_last", 36, 4),
            ("file_id", 40, 4),
            ("path_id", 44, 4),
        ],
    ),
    "flak_counters": (
        192,
        [
            ("matched", 0, 8),
            ("submitted", 8, 8),
            ("lost_ring_full", 16, 8),
            ("meta_matched", 24, 8),
            ("meta_submitted", 32, 8),
            ("lost_meta_full", 40, 8),
            ("lost_state_full", 48, 8),
            ("excluded_self", 56, 8),
            ("not_decoded_compat32", 64, 8),
            ("not_decoded_gup_fault", 72, 8),
            ("not_decoded_io_uring", 80, 8),
            ("not_decoded_aio", 88, 8),
            ("folded", 96, 8),
            ("names_sent", 104, 8),
            ("names_failed", 112, 8),
            ("vma_misses", 120, 8),
            ("filtered_path", 128, 8),
            ("filtered_failed", 136, 8),
            ("filtered_min_latency", 144, 8),
            ("filtered_min_size", 152, 8),
            ("reserved_1", 160, 8),
            ("reserved_2", 168, 8),
            ("reserved_3", 176, 8),
            ("reserved_4", 184, 8),
        ],
    ),
}
"""Size and fields (name, offset, size) of each struct, to be compared with an object's BTF."""
