"""`flak dump`: a recording, as the lines and the table of a live trace."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import RawIOBase
from pathlib import Path

from flak.cli.console import Console
from flak.cli.outputs import streams
from flak.cli.request import Display
from flak.cli.viewing import Viewer
from flak.events import Batch, Counters
from flak.tracefile import Recording, open_recording
from flak.wire import Decoder

__all__ = ["dump", "view"]


def dump(path: Path, display: Display, console: Console) -> int:
    """Print a recording. Returns the exit status."""
    output = streams(display.output, usual=1, has_lines=display.has_lines, force=display.force)
    with open_recording(path) as recording, output as (lines, closing):
        view(recording, display, console, lines=lines, closing=closing)
    return 0


def view(recording: Recording, display: Display, console: Console, *, lines: RawIOBase, closing: RawIOBase) -> None:
    """Show a recording on these streams, and say what was found wrong with it."""
    page_size = _page_size(recording)
    with Viewer(display, console, lines=lines, closing=closing, page_size=page_size, is_live=False) as viewer:
        is_whole = _show(recording, viewer)
    for warning in recording.warnings if is_whole else ():
        console.warn(warning)


def _show(recording: Recording, viewer: Viewer) -> bool:
    """Show all of it; False when whoever read it has seen enough."""
    viewer.begin(recording.anchor)
    last = Batch(b"")
    # A recording holds the process events even when nobody asked for them (Session.record says why).
    events = recording.header.get("events")
    has_processes = not isinstance(events, list) or "process" in events
    hidden = 0
    for last in recording.batches():
        hidden += 0 if has_processes else len(last.process_events)
        if viewer.has_lines:
            events = [*recording.decoder.decode(last), *last.folded]
            if not viewer.show([e for e in events if has_processes or e.via != "sched"]):
                return False
        viewer.count(last, recording.tables)
    tail = recording.tail() if viewer.has_lines else ()
    return viewer.end(tail, _without(recording.stats, hidden), _elapsed_s(recording, last))


def _without(stats: Counters, hidden: int) -> Counters:
    """The counters as a live run had them: events that are in the recording and not shown are filtered."""
    if not hidden:
        return stats
    filtered = Counter(stats.filtered) + Counter(events=hidden)
    return replace(stats, written=stats.written - hidden, filtered=dict(filtered))


def _page_size(recording: Recording) -> int:
    """Of the host it was made on; the smallest there is where the header does not tell."""
    size = recording.header.get("page_size")
    return size if isinstance(size, int) and 4096 <= size <= 1 << 20 else 4096


def _elapsed_s(recording: Recording, last: Batch) -> float:
    """How long was traced: up to the footer, or in a recording that was never closed to an event of its last round."""
    begin_ns, _ = recording.anchor
    clock = recording.footer.get("clock")
    end_ns = clock.get("boot_ns") if isinstance(clock, dict) else None
    if not isinstance(end_ns, int) or not 0 <= end_ns < 1 << 64:
        end_ns = max((event.ts_ns for event in Decoder(recording.tables).decode(last)), default=begin_ns)
    return max(end_ns - begin_ns, 0) / 1e9
