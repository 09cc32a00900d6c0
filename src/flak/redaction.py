"""Names made unreadable before anybody sees them: `--redact`.

Path components, argv[0] and names of memfds are replaced in the meta records as they come from the kernel, so text,
JSON, recordings and tables cannot hold what was taken out. Nothing else is touched: names of threads and containers,
numbers, sizes and times stay (docs/cli.md says so). Used by session, and by cli to check the option.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Self

from flak._records import NAME, PATH_MAX, PROCESS, Meta, NameFlag, NameRecord
from flak.errors import UsageError
from flak.packed import PackedMap
from flak.selection import Choice, Selection
from flak.wire import Buffer, records_of

__all__ = ["Redaction", "Redactor"]

_DIGEST_SIZE = 5  # 10 hex digits: among a million names some two share one by chance
_KEY_SIZE = 32
_MOST_KEPT = 4096

_UNSPECIFIC = (b"", b".", b"..")  # what stands between slashes and is no name
_ELLIPSIS = "…".encode()

# Names without a folder. The kernel's own stay; what a program may have chosen is behind a colon, or everything.
_OF_THE_KERNEL = re.compile(
    rb"dev/zero|anon_hugepage|"
    rb"\[(eventpoll|eventfd|signalfd|timerfd|inotify|fanotify|io_uring|perf_event|pidfd|userfaultfd|fscontext|aio)\]"
)
_OF_A_KIND = re.compile(rb"(memfd:|SYSV|(?:pipe|socket|anon_inode):\[?)(.*?)(\]?)", re.DOTALL)


@dataclass(slots=True, frozen=True)
class Redaction:
    """How much of a name is taken out: `text` is the mode as it is written, "hash", "basename" or "prefix:N".

    keeps_last: a path's last component stays. kept: so many of the first stay.
    """

    text: str
    keeps_last: bool = False
    kept: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the value of --redact; UsageError where it is none."""
        if text == "hash":
            return cls(text)
        if text == "basename":
            return cls(text, keeps_last=True)
        word, _, number = text.partition(":")
        if word == "prefix" and re.fullmatch(r"[0-9]{1,4}", number) and 0 < int(number) <= _MOST_KEPT:
            return cls(text, kept=int(number))
        raise UsageError(f"--redact: there is no mode {text!r}", "hash, basename, or prefix:2 to keep two components")


class Redactor:
    """Takes names out of the records of one run.

    Equal names are replaced alike within the run. The key is random and never leaves this object, so nobody can tell
    which names these were by trying some, or compare two runs.
    """

    def __init__(self, redaction: Redaction) -> None:
        self.redaction = redaction
        self._key = os.urandom(_KEY_SIZE)
        self._depths = PackedMap(4, 2)  # path_id → components, of paths from the root on

    def word(self, name: bytes) -> bytes:
        """What stands for one name."""
        return blake2b(name, digest_size=_DIGEST_SIZE, key=self._key).hexdigest().encode()

    def path(self, path: bytes, depth: int | None = None) -> bytes:
        """A path as it is written, its components replaced; `.`, `..` and slashes stay.

        depth: how many components the folder has that a relative one starts from, None when unknown.
        """
        return b"/".join(self._components(path.split(b"/"), 0 if path.startswith(b"/") else depth))

    def _components(self, parts: list[bytes], depth: int | None) -> list[bytes]:
        last = max((at for at, part in enumerate(parts) if part not in (b"", b".")), default=-1)
        replaced = []
        for at, part in enumerate(parts):
            if part in _UNSPECIFIC:
                replaced.append(part)
                depth = None if part == b".." else depth  # where that leads only the kernel knows
                continue
            stays = self.redaction.keeps_last and at == last
            if depth is not None:
                stays |= depth < self.redaction.kept
                depth += 1
            replaced.append(part if stays else self.word(part))
        return replaced

    def records(self, meta: Iterable[Buffer]) -> list[Buffer]:
        """Meta records with nothing but replaced names, one in each buffer; those of unknown kinds are left out."""
        found: list[Buffer] = []
        for payload in meta:
            for kind, record in records_of(payload):
                if kind == Meta.NAME:
                    found.append(self._name(record))
                elif kind == Meta.PROCESS:
                    found.append(self._process(record))
                elif kind in (Meta.TASK, Meta.CONTAINER, Meta.FOLDED):
                    found.append(record)
        return found

    def _name(self, record: bytes) -> bytes:
        name, text = NameRecord(*NAME.unpack_from(record)), record[NAME.size :]
        if name.flags & NameFlag.CLAIMED:
            text, flags = self._claimed(text.partition(b"\0")[0], self._depths.get(_key(name.base_path_id)))
        else:
            text, flags = self._names([part for part in text.split(b"\0") if part], name)
        changed = name._replace(size=NAME.size + len(text), flags=name.flags | flags)
        return NAME.pack(*changed) + text

    def _names(self, names: list[bytes], name: NameRecord) -> tuple[bytes, int]:
        """Names from the leaf to the root, each ended by NUL, as many as a record may hold; flags to be added."""
        if name.flags & NameFlag.DETACHED and len(names) == 1:
            return self._without_folder(names[0]) + b"\0", 0
        is_whole = not name.flags & (NameFlag.DETACHED | NameFlag.TRUNCATED)
        if is_whole and name.path_id:
            self._depths.put(_key(name.path_id), len(names))
        replaced = [b"%s\0" % part for part in reversed(self._all(names[::-1], 0 if is_whole else None))]
        size = 0
        for at, part in enumerate(replaced):
            size += len(part)
            if size > PATH_MAX:
                return b"".join(replaced[:at]), NameFlag.TRUNCATED
        return b"".join(replaced), 0

    def _all(self, names: list[bytes], depth: int | None) -> list[bytes]:
        """Components from the root to the leaf; the kernel's own names hold no dots that mean something."""
        last = len(names) - 1
        kept = 0 if depth is None else self.redaction.kept
        return [
            part if at < kept or (self.redaction.keeps_last and at == last) else self.word(part)
            for at, part in enumerate(names)
        ]

    def _without_folder(self, name: bytes) -> bytes:
        """A name that is in no folder, as a memfd's: what kind it is stays, whatever the mode."""
        if _OF_THE_KERNEL.fullmatch(name):
            return name
        if found := _OF_A_KIND.fullmatch(name):
            return found[1] + self.word(found[2]) + found[3]
        return self.word(name)

    def _claimed(self, claim: bytes, depth: int | None) -> tuple[bytes, int]:
        """A string that a program passed. One that grows beyond what a record may hold loses its beginning."""
        text = self.path(claim, depth)
        if len(text) <= PATH_MAX:
            return text, 0
        start = b"/" * text.startswith(b"/") + _ELLIPSIS
        tail = text[len(start) - PATH_MAX :]
        _, slash, rest = tail.partition(b"/")  # from the next whole component on
        return start + slash + rest, NameFlag.TRUNCATED

    def _process(self, record: bytes) -> bytes:
        head, argv0 = record[: PROCESS.size], record[PROCESS.size :].partition(b"\0")[0]
        text = self.word(argv0) if argv0 else b""
        size = (PROCESS.size + len(text)).to_bytes(2, "little")
        return head[:2] + size + head[4:] + text

    def selection(self, selection: Selection) -> Selection:
        """A selection to be told about, without the words of its command and the paths of its cgroups."""
        cgroups = Choice(
            chosen=tuple(map(self._text, selection.cgroups.chosen)),
            excluded=tuple(map(self._text, selection.cgroups.excluded)),
        )
        command = tuple(self.word(os.fsencode(word)).decode() for word in selection.command)
        return replace(selection, command=command, cgroups=cgroups)

    def header(self, entries: Mapping[str, Any], selection: Selection) -> dict[str, Any]:
        """What a recording says about itself, without names."""
        told = self.selection(selection)
        return {
            **entries,
            "command_line": None,
            "selectors": told.as_dict(),
            "description": told.describe({}),
            "cgroups": {self._text(path): number for path, number in entries["cgroups"].items()},
            "filters": {**entries["filters"], "path": [self._text(p) for p in entries["filters"]["path"]]},
            "findings": [{**finding, "text": "", "hides": None, "fix": None} for finding in entries["findings"]],
        }

    def _text(self, path: str) -> str:
        return os.fsdecode(self.path(os.fsencode(path), None))


def _key(path_id: int) -> bytes:
    return path_id.to_bytes(4, "little")
