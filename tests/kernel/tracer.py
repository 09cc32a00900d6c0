"""A tracer in a process of its own, for tests that stop it: `python tracer.py RESULT OPTIONS COMMAND…`.

Prints "tracing" at the first access by pread64, takes events until the command has ended, and writes what it found to
RESULT as JSON: the counters, how many accesses there were of each op (pread64: of each path,
those lost included), the gaps in their numbers, what the stream said was lost, and the times around the largest loss.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import flak
from flak.events import Access, Counters, Event, Folded, Lost, as_dict
from tests.kernel.running import lost_ranges, missing_numbers


class Tally:
    """What is kept of each event: these runs have millions."""

    def __init__(self) -> None:
        self.ops: Counter[str] = Counter()
        self.numbers: list[tuple[int, int]] = []
        self.times: list[int] = []
        self.lost: list[Lost] = []
        self.others = 0
        self.path_ids: Counter[int] = Counter()  # of pread64
        self.folded: Counter[str] = Counter()
        self.folded_bytes: Counter[str] = Counter()

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Access):
                self.numbers.append((event.cpu, event.seq))
                self.times.append(event.ts_ns)
                self.ops[event.op] += 1
                if event.op == "pread64":
                    self.path_ids[event.path_id] += 1
                    if self.ops["pread64"] == 1:
                        print("tracing", flush=True)
            elif isinstance(event, Lost):
                self.lost.append(event)
            elif isinstance(event, Folded):
                self.folded[event.access.op] += event.count
                if event.access.op == "pread64":
                    self.path_ids[event.access.path_id] += event.count
                self.folded_bytes[event.access.op] += event.size_ret or 0
            elif not isinstance(event, Counters):
                self.others += 1

    def largest_loss(self) -> dict[str, Any] | None:
        """The largest loss that has accesses around it, and the times of those numbered just before and behind it."""
        time_of = dict(zip(self.numbers, self.times, strict=True))
        inner = [
            (lost.count, time_of[before], lost.ts_ns, time_of[behind])
            for lost in self.lost
            if (before := (lost.cpu, lost.first_seq - 1)) in time_of
            and (behind := (lost.cpu, lost.first_seq + lost.count)) in time_of
        ]
        return dict(zip(("count", "before_ns", "ts_ns", "behind_ns"), max(inner), strict=True)) if inner else None


def main() -> None:
    result, options, command = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    tally = Tally()
    with (
        result.with_suffix(".stdout").open("wb") as stdout,
        flak.trace(command=command, stdout=stdout.fileno(), **options) as session,
    ):
        tally.take(session)
    stats = session.stats
    result.write_text(
        json.dumps(
            {
                "status": session.command_status,
                "counters": as_dict(stats),
                "is_exact": stats.is_exact,
                "ops": tally.ops,
                "paths": {session.tables.paths[i].path: count for i, count in tally.path_ids.items()},
                "folded": tally.folded,
                "folded_bytes": tally.folded_bytes,
                "accesses": len(tally.numbers),
                "others": tally.others,
                "gaps": missing_numbers(tally.numbers),
                "lost": lost_ranges(tally.lost),
                "largest": tally.largest_loss(),
            }
        )
    )


if __name__ == "__main__":
    main()
