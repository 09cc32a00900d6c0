"""`flak trace` and `flak record`: a live run from start to exit status.

Whatever can fail is tried before the command is let go. From then on its exit status is FLAK's own, and troubles of
FLAK are told but leave it alone.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from flak.cli.closing import tell_counters
from flak.cli.console import Console
from flak.cli.interrupts import stopping
from flak.cli.outputs import check_creatable, standard, streams
from flak.cli.replay import view
from flak.cli.request import Capture, Display
from flak.cli.viewing import Viewer
from flak.errors import AttachError, FlakError, TargetError, UsageError
from flak.privileges import shed
from flak.session import Session
from flak.target import FAILED_BEFORE_EXEC, NOT_EXECUTABLE, NOT_FOUND, run_as
from flak.tracefile import Writer, open_recording

__all__ = ["record", "trace"]

LOST = 4
"""Exit status of --on-loss fail."""


def trace(capture: Capture, display: Display, console: Console) -> int:
    """Show accesses as they happen, then the table. Returns the exit status; −N: die of signal N."""
    if display.form == "recording" and display.output:
        return _record_and_view(capture, display, Path(display.output), console)
    with contextlib.ExitStack() as stack:
        with _before_exec(capture):
            usual = _usual_stream(capture)
            output = streams(display.output, usual=usual, has_lines=display.has_lines, force=display.force)
            lines, closing = stack.enter_context(output)
            viewer = Viewer(display, console, lines=lines, closing=closing, page_size=mmap.PAGESIZE)
        return _run(capture, console, lambda session: _view(session, viewer))


def _view(session: Session, viewer: Viewer) -> None:
    with viewer:
        viewer.begin(session.anchor)
        try:
            for batch in session.rounds():
                if viewer.has_lines and not viewer.show(session.decode(batch)):
                    session.stop()
                viewer.count(batch, session.tables)
        except AttachError:  # comes last, when all that was seen has been shown
            viewer.end(session.tail() if viewer.has_lines else (), session.stats, session.elapsed_s)
            raise
        viewer.end(session.tail() if viewer.has_lines else (), session.stats, session.elapsed_s)


def record(capture: Capture, path: Path, *, force: bool, max_size: int | None, console: Console) -> int:
    """Write a recording. Returns the exit status; −N: die of signal N."""
    with _before_exec(capture):
        check_creatable(path, force=force)

    def write(session: Session) -> None:
        with Writer(path, session.header(), force=force, max_size=max_size) as writer:
            try:
                session.record(writer)
            except FlakError:  # a recording that could not be finished says what it lacks
                writer.close(session.stats, session.sequences())
                tell_counters(console, session.stats, session.elapsed_s)
                raise
            writer.close(session.stats, session.sequences())
        tell_counters(console, session.stats, session.elapsed_s)
        if writer.is_full:
            console.say(f"stopped at --max-size: {path} is full")
        console.say(f"next: flak dump {path}")

    return _run(capture, console, write)


def _usual_stream(capture: Capture) -> int:
    """stdout; but that belongs to the command where there is one."""
    return 2 if capture.command else 1


def _record_and_view(capture: Capture, display: Display, path: Path, console: Console) -> int:
    status = record(capture, path, force=display.force, max_size=None, console=console)
    if display.has_table:
        stream = standard(_usual_stream(capture))
        with open_recording(path) as recording:
            view(recording, replace(display, form="text", has_lines=False), console, lines=stream, closing=stream)
    return status


def _run(capture: Capture, console: Console, body: Callable[[Session], None]) -> int:
    """Trace while `body` uses the session; the exit status."""
    session = Session(**capture.session_arguments())
    status = 0
    with contextlib.ExitStack() as stack:
        with _before_exec(capture):
            stack.enter_context(stopping(session.stop))
            stack.enter_context(session)
        _announce(session, capture, console)
        shed(run_as())
        try:
            body(session)
        except FlakError as error:
            if not capture.command:
                raise
            console.fail(error)
            status = 1
        is_bounded = capture.duration_s is not None or capture.max_events is not None
        if capture.command and is_bounded and session.command_status is None:
            console.say(f"tracing has ended; waiting for {capture.command[0]}")
    stats = session.stats
    if capture.fails_on_loss and (stats.lost_total or stats.recursion_misses):
        status = status or LOST
    return session.command_status or status


@contextlib.contextmanager
def _before_exec(capture: Capture) -> Iterator[None]:
    """In here an error means that the command was never run, and its exit status says so."""
    try:
        yield
    except UsageError:
        raise
    except FlakError as error:
        never_ran = isinstance(error, TargetError) and error.exit_status in (NOT_EXECUTABLE, NOT_FOUND)
        if never_ran or not capture.command:
            raise
        raise TargetError(error.message, error.hint, FAILED_BEFORE_EXEC) from error


def _announce(session: Session, capture: Capture, console: Console) -> None:
    """Say what is traced, how to stop, and what will be missing."""
    doing = "waiting for" if session.awaits else "tracing"
    console.say(f"{doing} {session.description}" + ("" if capture.command else "; ^C to stop"))
    user = run_as() if capture.command and not capture.user else None
    if user:
        console.say(f"{capture.command[0]} runs as {user.name}, who called sudo; --user root keeps root")
    for lost in session.missing.values():
        console.say(f"not traced on this host: {lost}")
    for concern, hook in session.served.items():
        console.detail(f"{concern}: {hook}")
