"""What the user asked for, checked: the arguments of a verb after parsing and before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from flak.cli import values
from flak.errors import UsageError

__all__ = ["Capture", "Display"]

_NOTHING_SELECTED = """\
choose what to trace:
        flak {verb} {more}-p PID            a running process and its children
        flak {verb} {more}-p PID,PID …      several
        flak {verb} {more}-- CMD ARGS…      a command, from its start on"""


@dataclass(slots=True, frozen=True, kw_only=True)
class Capture:
    """What to trace, and when to stop."""

    pids: tuple[int, ...]
    command: tuple[str, ...]
    user: str | None
    follow: bool
    events: tuple[str, ...]
    all_files: bool
    latency: bool
    duration_s: float | None
    max_events: int | None
    buffer_size: int
    fails_on_loss: bool

    @classmethod
    def parse(
        cls,
        verb: str,
        *,
        pid: Sequence[str] | None,
        command: Sequence[str] | None,
        user: str,
        no_follow: bool,
        events: Sequence[str] | None,
        all_files: bool,
        no_latency: bool,
        duration: str,
        max_events: str,
        buffer_size: str,
        on_loss: str,
    ) -> Self:
        """From the options as given; UsageError where they don't parse or don't go together."""
        pids = values.numbers("--pid", pid or ())
        if pids and command:
            raise UsageError("a command and --pid cannot be traced in one run", "run flak twice, or trace one of them")
        if not pids and not command:
            more = "-o RUN.flak " if verb == "record" else ""
            raise UsageError("nothing to trace", _NOTHING_SELECTED.format(verb=verb, more=more))
        if user and not command:
            raise UsageError("--user is for a command that flak starts", f"flak {verb} --user {user} -- CMD ARGS…")
        return cls(
            pids=pids,
            command=tuple(command or ()),
            user=user or None,
            follow=not no_follow,
            events=values.names(events or ()),
            all_files=all_files,
            latency=not no_latency,
            duration_s=values.duration_s("--duration", duration) if duration else None,
            max_events=values.count("--max-events", max_events) if max_events else None,
            buffer_size=values.size("--buffer-size", buffer_size) if buffer_size else 16 << 20,
            fails_on_loss=values.choice("--on-loss", on_loss or "warn", ("warn", "fail")) == "fail",
        )

    def session_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `flak.session.Session`."""
        return {
            "pid": self.pids,
            "command": self.command or None,
            "follow": self.follow,
            "all_files": self.all_files,
            "events": self.events or None,
            "latency": self.latency,
            "buffer_size": self.buffer_size,
            "duration": self.duration_s,
            "max_events": self.max_events,
            "user": self.user,
        }


@dataclass(slots=True, frozen=True, kw_only=True)
class Display:
    """What to show, how and where. `output` is None for the usual place, "-" for stdout."""

    output: str | None
    form: str  # "text", "json" or "recording"
    force: bool
    wide: bool
    timestamp: str
    color: str
    has_lines: bool
    has_table: bool

    @classmethod
    def parse(
        cls,
        *,
        output: str,
        json: bool,
        force: bool,
        wide: bool,
        timestamp: str,
        color: str,
        summary: bool,
        no_summary: bool,
    ) -> Self:
        """From the options as given; UsageError where they don't parse or don't go together."""
        if summary and no_summary:
            raise UsageError("--summary and --no-summary exclude each other", "leave out one of them")
        form = _form(output, json)
        if summary and form == "json":
            raise UsageError("--summary prints a table, not JSON", "leave out one of --summary and --json")
        if json and form == "recording":
            raise UsageError(
                f"--json and -o {output} exclude each other", "record first, then: flak dump --json RUN.flak"
            )
        return cls(
            output=output or None,
            form=form,
            force=force,
            wide=wide,
            timestamp=values.choice("--timestamp", timestamp or "rel", ("rel", "wall", "unix", "boot")),
            color=values.choice("--color", color or "auto", ("auto", "always", "never")),
            has_lines=not summary,
            has_table=not no_summary,
        )


def _form(output: str, json: bool) -> str:
    """What the suffix of the output and --json ask for."""
    suffix = Path(output).suffix
    if suffix == ".flak":
        return "recording"
    return "json" if json or suffix in (".jsonl", ".json", ".ndjson") else "text"
