"""The BPF object and what belongs to it: programs, links, shared memory, rings, iterators.

Handles close themselves, errno becomes an exception here and nowhere else. Knows nothing of what the records mean.
Used by probes, drain, tally and session.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import mmap
import os
import platform
import re
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from ctypes import c_size_t, c_uint32
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from flak import _libbpf
from flak._skeleton import PROGRAMS, VARIABLES
from flak.errors import AttachError, LoadError, NotPermitted, NotSupported, SchemaMismatch
from flak.text import errno_name

# enum btf_kind (include/uapi/linux/btf.h)
KIND_PTR, KIND_STRUCT, KIND_ENUM, KIND_TYPEDEF, KIND_FUNC, KIND_DATASEC = 2, 4, 6, 8, 12, 15

LIBBPF_INFO = 1  # enum libbpf_print_level; debug is 2

_log: list[str] = []
_libc = ctypes.CDLL(None, use_errno=True)
_libc.vsnprintf.argtypes = [ctypes.c_void_p, c_size_t, ctypes.c_char_p, ctypes.c_void_p]
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

_CAPABILITY_VERSION_3 = 0x20080522  # <linux/capability.h>
_CALLING_THREAD = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
_CAPABILITY_SETS = struct.Struct("=6I")  # effective, permitted, inheritable: the low words, then the high ones


@_libbpf.PRINT_FN  # type: ignore[untyped-decorator]
def _collect(level: int, text: bytes, arguments: int) -> int:
    # libbpf's messages. No exception may cross back into C; the va_list can be used once.
    if level > LIBBPF_INFO:
        return 0
    buffer = ctypes.create_string_buffer(1 << 16)
    _libc.vsnprintf(buffer, len(buffer), text, arguments)
    _log.append(buffer.value.decode(errors="replace"))
    return 0


_library: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """libbpf, opened at the first call. Raises NotSupported."""
    global _library
    if _library is None:
        _library, _ = _libbpf.load()
        _library.libbpf_set_print(_collect)  # C keeps the callback; the module keeps it alive
    return _library


PLAIN, PROBE, OLD = "", ".probe", ".old"
"""The variants of the object, by what stands in its name (VARIANTS of build_bpf.py), the newest kernels' first."""

_NOT_OLD = ("loop", "get_current_task_btf", "task_pt_regs", "task_storage_get", "copy_from_user_task")


def variants_for(btf: Btf) -> tuple[str, ...]:
    """Which variants a kernel with that BTF may load, best first."""
    if btf.has_function("bpf_rdonly_cast"):
        return PLAIN, PROBE
    if not all(map(btf.has_helper, _NOT_OLD)):
        return (OLD,)
    return (PROBE,) if btf.has_struct("maple_tree") else (PROBE, OLD)  # OLD walks the list of mappings that was before


def object_bytes(variant: str = PLAIN) -> bytes:
    """A variant of the BPF object for this machine's architecture.

    Raises NotSupported when there is none, SchemaMismatch when it is not what the build made.
    """
    name = f"flak.{platform.machine()}{variant}.bpf.o"
    folder = resources.files("flak") / "_bpf"
    try:
        image = _unpacked(folder, name)
    except FileNotFoundError:
        raise NotSupported(
            f"this installation has no {name}", "install a wheel, or run `python build_bpf.py` in the source tree"
        ) from None
    try:
        digest = json.loads((folder / "manifest.json").read_text())["objects"].get(name)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or one cut short
        digest = None
    if hashlib.sha256(image).hexdigest() != digest:
        raise SchemaMismatch(
            f"{_object_file(folder, name)} is not the object that was built: it differs from manifest.json",
            "reinstall FLAK, or run `python build_bpf.py` in the source tree",
        )
    return image


def _object_file(folder: Traversable, name: str) -> Traversable:
    # Wheels have each object as NAME.xz (setup.py), which takes 10 ms to unpack; a source tree has it as it was built.
    packed = folder / f"{name}.xz"
    return packed if packed.is_file() and not (folder / name).is_file() else folder / name


_LARGEST, _UNPACKING = 16 << 20, 16 << 20
"""Bytes: no object is larger, and none takes more memory to unpack."""


def _unpacked(folder: Traversable, name: str) -> bytes:
    file = _object_file(folder, name)
    if file.name == name:
        return file.read_bytes()
    try:
        import lzma
    except ImportError:
        raise NotSupported(
            "this Python was built without lzma", "use one that has it, as distributions' have"
        ) from None
    try:
        return lzma.LZMADecompressor(memlimit=_UNPACKING).decompress(file.read_bytes(), _LARGEST)
    except lzma.LZMAError:
        return b""  # what manifest.json does not know


class Btf:
    """Types by name, of the kernel or of an object."""

    def __init__(self, handle: int, *, is_owned: bool) -> None:
        self._handle = handle
        self._is_owned = is_owned

    @classmethod
    def of_kernel(cls) -> Btf:
        """The running kernel's. Raises NotSupported when it has none."""
        handle = library().btf__load_vmlinux_btf()
        if not handle:
            raise NotSupported(
                "this kernel has no BTF (/sys/kernel/btf/vmlinux)", "use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
            )
        return cls(handle, is_owned=True)

    def close(self) -> None:
        """Free it; may be called twice."""
        if self._is_owned and self._handle:
            library().btf__free(self._handle)
        self._handle = 0

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, name: str, kind: int) -> int:
        """Type id, 0 when there is none."""
        return max(int(library().btf__find_by_name_kind(self._handle, name.encode(), kind)), 0)

    def has_function(self, name: str) -> bool:
        """The kernel has a function of that name that BPF may look at."""
        return bool(self.find(name, KIND_FUNC))

    def has_helper(self, name: str) -> bool:
        """BPF programs can call bpf_NAME(), if their kind may: it has a number in enum bpf_func_id."""
        type_id = self.find("bpf_func_id", KIND_ENUM)
        if not type_id:
            return False
        _, length, address, _ = self._type(type_id)
        starts = struct.iter_unpack("<Ii", ctypes.string_at(address + 12, 8 * length))
        return any(self._name(name_at) == f"BPF_FUNC_{name}" for name_at, _ in starts)

    def has_tracepoint(self, name: str) -> bool:
        """A tp_btf program can be attached to that tracepoint, if it is compiled in."""
        return bool(self.find(f"btf_trace_{name}", KIND_TYPEDEF))

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a tracepoint passes, 0 when it does not exist."""
        type_id = self.find(f"btf_trace_{name}", KIND_TYPEDEF)
        while type_id:
            kind, length, _, referred = self._type(type_id)
            if kind not in (KIND_TYPEDEF, KIND_PTR):
                return length - 1  # the first parameter is the tracepoint's own data
            type_id = referred
        return 0

    def has_struct(self, name: str) -> bool:
        """The kernel has a struct of that name."""
        return bool(self.find(name, KIND_STRUCT))

    def layout(self, name: str) -> tuple[int, list[tuple[str, int, int]]]:
        """Size of a struct and (name, offset, size) of its members, in bytes; (0, []) when it is not there."""
        type_id = self.find(name, KIND_STRUCT)
        if not type_id:
            return 0, []
        _, length, address, size = self._type(type_id)
        members = []
        for i in range(length):
            name_at, member_type, bit_offset = struct.unpack("<III", ctypes.string_at(address + 12 + 12 * i, 12))
            members.append(
                (self._name(name_at), bit_offset // 8, library().btf__resolve_size(self._handle, member_type))
            )
        return size, members

    def variables(self, section: str) -> dict[str, tuple[int, int]]:
        """Offset and size in bytes of each variable of a data section like ".rodata"."""
        type_id = self.find(section, KIND_DATASEC)
        if not type_id:
            return {}
        _, length, address, _ = self._type(type_id)
        found = {}
        for i in range(length):
            variable, offset, size = struct.unpack("<III", ctypes.string_at(address + 12 + 12 * i, 12))
            name_at = struct.unpack("<I", ctypes.string_at(library().btf__type_by_id(self._handle, variable), 4))[0]
            found[self._name(name_at)] = (offset, size)
        return found

    def _type(self, type_id: int) -> tuple[int, int, int, int]:
        """Kind, number of members, address, and size or referred type of a type (struct btf_type)."""
        address = library().btf__type_by_id(self._handle, type_id)
        _, info, size = struct.unpack("<III", ctypes.string_at(address, 12))
        return info >> 24 & 0x1F, info & 0xFFFF, address, size

    def _name(self, offset: int) -> str:
        return str(library().btf__name_by_offset(self._handle, offset).decode())


class BpfObject:
    """FLAK's BPF object, from open to close: settings before `load()`, links and shared memory after it."""

    def __init__(self, image: bytes) -> None:
        self._image = image  # libbpf reads it until load
        self._links: dict[str, list[int]] = {}
        self._selected = set(PROGRAMS)
        self._shared: mmap.mmap | None = None
        self._handle = library().bpf_object__open_mem(image, len(image), None)
        if not self._handle:
            raise LoadError(f"cannot open the BPF object: {_error(ctypes.get_errno())}", log=_take_log())
        self.btf = Btf(library().bpf_object__btf(self._handle), is_owned=False)
        self._sections = {name: self.btf.variables(name) for name in (".rodata", ".bss")}

    def close(self) -> None:
        """Detach, unload and free everything; may be called twice."""
        for name in reversed(list(self._links)):
            self.detach(name)
        if self._shared:
            self._shared.close()
            self._shared = None
        if self._handle:
            library().bpf_object__close(self._handle)
            self._handle = 0

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- before load

    def configure(self, settings: Mapping[str, int | bool | bytes]) -> None:
        """Set `const volatile` variables by name; integers are written in the variable's own width."""
        memory = self._settings()
        for name, value in settings.items():
            offset, size = self._sections[".rodata"][name]
            data = value if isinstance(value, bytes) else int(value).to_bytes(size, "little")
            if len(data) != size:
                raise ValueError(f"{name} holds {size} bytes, not {len(data)}")
            memory[offset : offset + size] = data

    def initial(self, name: str) -> bytes:
        """Bytes a `const volatile` variable was compiled with."""
        offset, size = self._sections[".rodata"][name]
        return bytes(self._settings()[offset : offset + size])

    def set_size(self, map_name: str, entries: int) -> None:
        """Set the size of a map; of a ring in bytes, a power of two of at least a page."""
        code = library().bpf_map__set_max_entries(self._map(map_name), entries)
        if code:
            raise LoadError(f"cannot give map {map_name} {entries} entries: {_error(-code)}")

    def select(self, programs: Iterable[str]) -> None:
        """Load these programs and no others."""
        wanted = self._selected = set(programs)
        program = library().bpf_object__next_program(self._handle, None)
        while program:
            name = library().bpf_program__name(program).decode()
            library().bpf_program__set_autoload(program, name in wanted)
            program = library().bpf_object__next_program(self._handle, program)

    def load(self) -> None:
        """Verify and load. Raises NotPermitted, or LoadError with the verifier's last lines."""
        _log.clear()
        code = library().bpf_object__load(self._handle)
        if not code:
            size = max(offset + size for offset, size in self._sections[".bss"].values())
            fd = library().bpf_map__fd(self._map(".bss"))
            self._shared = _mapped(fd, size, mmap.PROT_READ | mmap.PROT_WRITE)
            return
        log = _take_log()
        if code == -errno.EPERM and not _is_verifier_log(log):
            raise NotPermitted(
                "the kernel does not let this process load BPF programs (EPERM)",
                "run it as root, or give it the capabilities BPF and PERFMON",
            )
        if re.search("(unknown func|cannot use helper) bpf_probe_read", log):
            raise NotPermitted(
                "this kernel is locked down (confidentiality): BPF may not read its memory",
                "boot with lockdown=integrity, or without Secure Boot",
            )
        raise LoadError(f"the kernel refused FLAK's BPF programs: {_error(-code)}\n{_last_lines(log)}", log=log)

    # --- after load

    def attach(self, name: str) -> None:
        """Attach a program to the hook its section names. Raises AttachError."""
        link = library().bpf_program__attach(self._program(name))
        if not link:
            raise AttachError(f"cannot attach {name} to {PROGRAMS[name]}: {_error(ctypes.get_errno())}")
        self._links.setdefault(name, []).append(link)

    def attach_software_event(self, name: str, config: int) -> None:
        """Run a program at each event of a software counter (PERF_COUNT_SW_*), on every CPU. Raises AttachError."""
        for cpu in online_cpus():
            fd = _open_software_event(config, cpu)
            link = library().bpf_program__attach_perf_event(self._program(name), fd)  # the link owns fd from here on
            if not link:
                os.close(fd)
                raise AttachError(f"cannot attach {name} to CPU {cpu}: {_error(ctypes.get_errno())}")
            self._links.setdefault(name, []).append(link)

    def detach(self, name: str) -> None:
        """Detach a program; one that is not attached is left alone."""
        for link in self._links.pop(name, []):
            library().bpf_link__destroy(link)

    @property
    def attached(self) -> tuple[str, ...]:
        """Programs that are attached now."""
        return tuple(self._links)

    def has(self, program: str) -> bool:
        """That program was selected."""
        return program in self._selected

    def run_iterator(self, name: str, map_name: str | None = None) -> bytes:
        """Run an iterator program over everything it iterates, or over the elements of a map; returns what it wrote.

        Raises AttachError.
        """
        options = _libbpf.IterAttachOpts(sz=ctypes.sizeof(_libbpf.IterAttachOpts))
        if map_name:
            which = _libbpf.IterLinkInfo(library().bpf_map__fd(self._map(map_name)))
            options.link_info, options.link_info_len = ctypes.addressof(which), ctypes.sizeof(which)
        link = library().bpf_program__attach_iter(self._program(name), ctypes.byref(options))
        if not link:
            raise AttachError(f"cannot attach iterator {name}: {_error(ctypes.get_errno())}")
        written = bytearray()
        try:
            fd = library().bpf_iter_create(library().bpf_link__fd(link))
            if fd < 0:
                raise AttachError(f"cannot run iterator {name}: {_error(-fd)}")
            try:
                while True:
                    try:
                        chunk = os.read(fd, 1 << 16)
                    except BlockingIOError:  # a million objects without output: the kernel asks to go on
                        continue
                    if not chunk:
                        return bytes(written)
                    written += chunk
            finally:
                os.close(fd)
        finally:
            library().bpf_link__destroy(link)

    def variable(self, name: str) -> memoryview:
        """Memory of a global variable, shared with the programs, as bytes. To be released before `close()`."""
        assert self._shared, "not loaded"
        offset, size = self._sections[".bss"][name]
        return memoryview(self._shared)[offset : offset + size]

    def ring(self, name: str) -> Ring:
        """The consumer's side of a ring buffer map."""
        return Ring(library().bpf_map__fd(self._map(name)))

    def recursion_misses(self, programs: Iterable[str]) -> int:
        """How often these programs could not run because they were running already on that CPU; 0 before 5.12."""
        total = 0
        for name in programs:
            info = _libbpf.ProgInfo()
            length = c_uint32(ctypes.sizeof(info))
            fd = library().bpf_program__fd(self._program(name))
            if not library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(length)):
                total += info.recursion_misses
        return total

    def _program(self, name: str) -> int:
        program = library().bpf_object__find_program_by_name(self._handle, name.encode())
        if not program:
            raise AttachError(f"the BPF object has no program {name}", "rebuild it: python build_bpf.py")
        return int(program)

    def _map(self, name: str) -> int:
        found = library().bpf_object__find_map_by_name(self._handle, name.encode())
        if not found:
            raise LoadError(f"the BPF object has no map {name}", "rebuild it: python build_bpf.py")
        return int(found)

    def _settings(self) -> memoryview:
        """The image that .rodata is loaded from."""
        size = c_size_t()
        address = library().bpf_map__initial_value(self._map(".rodata"), ctypes.byref(size))
        return memoryview((ctypes.c_uint8 * size.value).from_address(address)).cast("B")


class Shared:
    """Global variables of the programs by name, as the integers they are made of; records (and all else) as bytes.

    A context manager: the memory is given back on leaving, before the object is closed.
    """

    def __init__(self, bpf: BpfObject) -> None:
        self._bpf = bpf
        self._views: dict[str, memoryview[int]] = {}

    def __getitem__(self, name: str) -> memoryview[int]:
        if name not in self._views:
            kind = VARIABLES[name].kind
            memory = self._bpf.variable(name)
            match kind:
                case "I" | "i" | "Q":
                    memory = memory.cast(kind)
            self._views[name] = memory
        return self._views[name]

    def write(self, name: str, values: Sequence[int], at: int = 0) -> None:
        """Fill elements of an array, from index `at` on."""
        self[name][at : at + len(values)] = memoryview(array(VARIABLES[name].kind, values))

    def close(self) -> None:
        """Give the memory back; may be called twice."""
        for view in self._views.values():
            view.release()
        self._views.clear()

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ring:
    """The consumer's side of a BPF_MAP_TYPE_RINGBUF, by its memory: kernel/bpf/ringbuf.c.

    Page 0 holds the consumer's position, page 1 the producer's, then the data, mapped twice, so that no span wraps.
    Positions grow for ever. Views handed out stay valid until `release()`.
    """

    BUSY = 0x80  # top byte of a record's first word: being written

    def __init__(self, fd: int) -> None:
        page = mmap.PAGESIZE
        info = (ctypes.c_uint32 * 24)()
        length = c_uint32(ctypes.sizeof(info))
        code = library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(length))
        if code:
            raise LoadError(f"cannot look at a ring: {_error(-code)}")
        self.size = int(info[4])  # struct bpf_map_info: type, id, key_size, value_size, max_entries
        self._consumer_page = _mapped(fd, page, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_pages = _mapped(fd, page + 2 * self.size, mmap.PROT_READ, offset=page)
        # Loads and stores of 8 bytes: struct.pack_into writes byte by byte, and the kernel could see a position of 0.
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._producer_pages)[:page].cast("Q")
        self._data = memoryview(self._producer_pages)[page:]
        self.position: int = self._consumer[0]

    def close(self) -> None:
        """Unmap; views handed out must be released first. May be called twice."""
        self._data.release()
        self._producer.release()
        self._consumer.release()
        if not self._producer_pages.closed:
            self._producer_pages.close()
            self._consumer_page.close()

    @property
    def produced(self) -> int:
        """Position up to which the kernel has reserved."""
        return self._producer[0]

    def slots(self, until: int, stride: int) -> memoryview:
        """Committed records up to position `until`, of a ring whose records are whole numbers of `stride` bytes.

        One strided copy of the headers' top bytes says how far everything is committed; it is read once, because a
        second look could see more than the first. Bytes are ring headers and payloads as they lie in the ring.
        """
        begin = self.position & (self.size - 1)
        length = until - self.position
        flags = bytes(self._data[begin + 3 : begin + length : stride])
        busy = flags.find(self.BUSY)
        if busy >= 0:
            length = busy * stride
        return self._data[begin : begin + length]

    def records(self, until: int) -> tuple[list[memoryview], int]:
        """Payloads of committed records of any size up to position `until`, and the position behind them."""
        found = []
        position = self.position
        while position < until:
            at = position & (self.size - 1)
            word = int.from_bytes(self._data[at : at + 4], "little")
            if word & 0x8000_0000:
                break
            length = word & 0x3FFF_FFFF
            if not word & 0x4000_0000:
                found.append(self._data[at + 8 : at + 8 + length])
            position += (length + 8 + 7) // 8 * 8
        return found, position

    def release(self, position: int) -> None:
        """Give everything before a position back to the kernel."""
        self.position = position
        self._consumer[0] = position


def online_cpus() -> list[int]:
    """Numbers of the CPUs that are on."""
    return _cpu_list("online")


def possible_cpus() -> list[int]:
    """Numbers a CPU of this machine can have."""
    return _cpu_list("possible")


def _cpu_list(name: str) -> list[int]:
    found: list[int] = []
    for part in Path(f"/sys/devices/system/cpu/{name}").read_text().strip().split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_SOFTWARE = 1
_PERF_FLAG_FD_CLOEXEC = 8
_ATTR_SIZE = 64  # PERF_ATTR_SIZE_VER0: all that is used lies within it


def _open_software_event(config: int, cpu: int) -> int:
    """A descriptor of perf_event_open(2) for each event (period 1) of a software counter on one CPU."""
    attributes = struct.pack("<IIQQ", _PERF_TYPE_SOFTWARE, _ATTR_SIZE, config, 1).ljust(_ATTR_SIZE, b"\0")
    number = _PERF_EVENT_OPEN[platform.machine()]
    fd = _libc.syscall(number, attributes, -1, cpu, -1, ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC))
    if fd < 0:
        raise AttachError(f"cannot open software event {config} on CPU {cpu}: {_error(ctypes.get_errno())}")
    return int(fd)


def _mapped(fd: int, size: int, protection: int, offset: int = 0) -> mmap.mmap:
    """Memory that is shared with the programs. Raises LoadError."""
    try:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, protection, offset=offset)
    except OSError as error:
        raise LoadError(f"cannot map memory shared with the programs: {error.strerror}") from None


def _error(number: int) -> str:
    """Text of an errno or of one of libbpf's own numbers (from 4000 on)."""
    buffer: Any = ctypes.create_string_buffer(256)
    library().libbpf_strerror(number, buffer, len(buffer))
    name = errno_name(number)
    text = buffer.value.decode(errors="replace")
    return f"{text} ({name})" if name else text


def _take_log() -> str:
    text = "".join(_log)
    _log.clear()
    return text


def _is_verifier_log(log: str) -> bool:
    return "BEGIN PROG LOAD LOG" in log and "processed" in log


def _last_lines(log: str, count: int = 12) -> str:
    """The end of a verifier log, where the reason stands, and how much was left out."""
    lines = [line for line in log.splitlines() if line.strip()]
    head = (
        f"  … {len(lines) - count} lines of log before this (FLAK_DEBUG=1 shows them)\n" if len(lines) > count else ""
    )
    return head + "\n".join(f"  {line}" for line in lines[-count:])


# What Python's os module does not offer; used by privileges.


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one argument; what the kernel refuses is left as it is."""
    _libc.prctl(option, argument, 0, 0, 0)


def permitted_capabilities() -> int:
    """The calling thread's permitted capabilities, a bit each (capget(2)); 0 where that is not known."""
    sets = ctypes.create_string_buffer(_CAPABILITY_SETS.size)
    if _libc.capget(_CALLING_THREAD, sets):
        return 0
    words = _CAPABILITY_SETS.unpack(sets.raw)
    return int(words[1] | words[4] << 32)


def limit_capabilities(kept: int) -> None:
    """Make these the calling thread's effective and permitted capabilities (capset(2))."""
    low, high = kept & 0xFFFF_FFFF, kept >> 32
    _libc.capset(_CALLING_THREAD, _CAPABILITY_SETS.pack(low, low, 0, high, high, 0))
