"""Prototypes of the libbpf functions FLAK calls, in the order of libbpf.h; no behaviour.

All exist since libbpf 1.0. Handles are plain addresses (`c_void_p`): bpf.py gives them owners. Used by bpf.py alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from importlib import resources
from pathlib import Path

from flak.errors import NotSupported

PRINT_FN = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
"""int (*)(enum libbpf_print_level, const char *format, va_list): the va_list is handed through as a pointer, which is
what both x86-64 and AAPCS64 pass."""


class IterAttachOpts(ctypes.Structure):
    """struct bpf_iter_attach_opts."""

    _fields_ = (("sz", c_size_t), ("link_info", c_void_p), ("link_info_len", c_uint32))


class IterLinkInfo(ctypes.Structure):
    """union bpf_iter_link_info, of a map's elements (include/uapi/linux/bpf.h)."""

    _fields_ = (("map_fd", c_uint32), ("others", c_uint32 * 3))


class ProgInfo(ctypes.Structure):
    """struct bpf_prog_info up to recursion_misses (include/uapi/linux/bpf.h); the kernel fills what it knows."""

    _fields_ = (
        ("head", c_uint64 * 24),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
    )


_PROTOTYPES = {
    "libbpf_strerror": (c_int, [c_int, c_char_p, c_size_t]),
    "libbpf_set_print": (c_void_p, [PRINT_FN]),
    "bpf_object__open_mem": (c_void_p, [c_void_p, c_size_t, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "bpf_object__find_program_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, c_bool]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_link__fd": (c_int, [c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_program__attach_perf_event": (c_void_p, [c_void_p, c_int]),
    "bpf_program__attach_iter": (c_void_p, [c_void_p, POINTER(IterAttachOpts)]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_iter_create": (c_int, [c_int]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, POINTER(c_uint32)]),
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__free": (None, [c_void_p]),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint]),
    "btf__type_by_id": (c_void_p, [c_void_p, c_uint]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint]),
    "btf__resolve_size": (ctypes.c_int64, [c_void_p, c_uint]),
}


_IN_MEMORY = "libflak-bpf.so.1"
_AT_SECURE = 23  # linux/auxvec.h
_libc = ctypes.CDLL(None)


def _from_archive() -> list[str]:
    """The library that a flak.pyz carries for this architecture, as a file in memory; nothing where there is none.

    Only a file can be loaded. One in memory leaves nothing on the disk, and no folder's noexec concerns it.
    """
    packed = resources.files("flak") / "_lib" / f"libflak-bpf.{platform.machine()}.so.1"
    try:
        content = packed.read_bytes()
        with open(os.memfd_create(_IN_MEMORY), "wb", closefd=False) as file:  # it is loaded by its number
            file.write(content)
            return [f"/proc/self/fd/{file.fileno()}"]
    except OSError:  # a kernel may forbid such files (vm.memfd_noexec): then the host's library is tried
        return []


def _may_choose() -> bool:
    """Whether the environment may name a library: not for root, nor where exec gave rights that the caller lacks
    (AT_SECURE in getauxval(3): a Python with file capabilities)."""
    return os.geteuid() != 0 and not _libc.getauxval(_AT_SECURE)


def load() -> tuple[ctypes.CDLL, str]:
    """libbpf and where it was found. `FLAK_LIBBPF` names another, where the environment may be trusted.

    Raises NotSupported when there is none, or only one before 1.0.
    """
    override = os.environ.get("FLAK_LIBBPF") if _may_choose() else None
    bundled = Path(__file__).with_name("_lib") / "libflak-bpf.so.1"
    candidates = [override] if override else [str(bundled), *_from_archive(), "libbpf.so.1"]
    hint = "install libbpf1 (Debian, Ubuntu) or libbpf (Fedora, RHEL)"
    hint += ", or name a libbpf.so.1 in FLAK_LIBBPF" if _may_choose() else ""
    if override:
        hint = "correct FLAK_LIBBPF, or unset it to use the libbpf of the package or of the system"
    reasons = []
    for candidate in candidates:
        try:
            library = ctypes.CDLL(candidate, use_errno=True)
        except OSError as error:
            reasons.append(f"{candidate}: {str(error).removeprefix(f'{candidate}: ')}")
            continue
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name, None)
            if function is None:
                raise NotSupported(f"{candidate} has no {name}: FLAK needs libbpf 1.0 or newer", hint)
            function.restype, function.argtypes = result, arguments
        return library, f"memfd:{_IN_MEMORY}" if candidate.startswith("/proc/self/fd/") else candidate
    raise NotSupported(f"cannot load libbpf: {'; '.join(reasons)}", hint)
