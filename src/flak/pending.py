"""What is under way: calls, page faults and requests that have not returned.

At the end of a trace each becomes an `unfinished` record; before, `Pending.look` tells of those that have lasted long,
as notices that no ring carries and no counter counts. Iterators find them (bpf/pending.bpf.c). Used by session.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from flak import probes
from flak.bpf import BpfObject, Shared
from flak.errors import AttachError
from flak.events import Access
from flak.wire import Decoder

__all__ = ["Pending"]

MOST_PATIENCE_S = 0.5
"""For paths of blocked calls: reading one may have to wait for a lock that the blocked program holds."""


class Pending:
    """Looks for what is under way.

    threshold_s: notices tell of what has lasted so long, once, and again each time its age has doubled; None: never.
    """

    def __init__(self, bpf: BpfObject, shared: Shared, decoder: Decoder, threshold_s: float | None) -> None:
        self._bpf = bpf
        self._shared = shared
        self._decoder = decoder
        self._threshold_s = threshold_s
        self._next_look = 0.0
        self._told: dict[tuple[int, int, int, int], int] = {}  # which one → its age when it was told
        self._reader: threading.Thread | None = None

    def look(self) -> bytes:
        """Records of what has lasted long, when it is time to look; else nothing. Their names are on the meta ring by
        then: when those are learnt, `notices` makes events of them.
        """
        now = time.monotonic()
        if self._threshold_s is None or now < self._next_look:
            return b""
        self._next_look = now + min(max(self._threshold_s / 2, 0.05), 1.0)
        self._name_paths()
        self._shared["tells_hung"][0] = 1
        try:
            return b"".join(self._look_once())
        finally:
            self._shared["tells_hung"][0] = 0

    def notices(self, records: bytes) -> list[Access]:
        """What `look` found and was not told yet at its age."""
        told: dict[tuple[int, int, int, int], int] = {}
        notices = []
        for notice in self._decoder.notices(records):
            which = (notice.task_id, notice.ts_ns, notice.opcode, notice.raw_offset)
            age = notice.latency_ns or 0
            before = self._told.get(which)
            if before is None or age >= 2 * before:
                notices.append(notice)
                before = age
            told[which] = before
        self._told = told
        return notices

    def finish(self) -> None:
        """Records of all that is under way, on the rings. To be called when the hooks of calls and requests are off."""
        self._name_paths()
        for _ in self._look_once():
            pass

    def _look_once(self) -> Iterator[bytes]:
        yield self._bpf.run_iterator(probes.PENDING)
        if self._bpf.has(probes.PENDING_REQUESTS):
            yield self._bpf.run_iterator(probes.PENDING_REQUESTS, "requests")

    def _name_paths(self) -> None:
        """Have the paths of blocked calls read from their programs, in a thread that may be left behind."""
        if not self._bpf.has(probes.PENDING_PATHS) or (self._reader and self._reader.is_alive()):
            return

        def read() -> None:
            with contextlib.suppress(AttachError):
                self._bpf.run_iterator(probes.PENDING_PATHS)

        self._reader = threading.Thread(target=read, name="flak-paths", daemon=True)
        self._reader.start()
        self._reader.join(MOST_PATIENCE_S)
