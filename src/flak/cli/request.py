"""What the user asked for, checked: the arguments of a verb after parsing and before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from flak.cli import values
from flak.errors import UsageError
from flak.filters import Filters
from flak.redaction import Redaction
from flak.selection import Selection

__all__ = ["Capture", "Display", "What", "Who"]

_NOTHING_SELECTED = """\
choose what to trace:
        flak {verb} {more}-p PID            a running process and its children
        flak {verb} {more}-n NAME           processes of that name, running now or later
        flak {verb} {more}-- CMD ARGS…      a command, from its start on
        flak {verb} {more}-c CONTAINER      a container; -G PATH: a cgroup
        flak {verb} {more}-n NAME -c WEB    processes of that name in a container"""


_LONGEST_S = 100 * 365 * 86400


@dataclass(slots=True, frozen=True, kw_only=True)
class Who:
    """The options that say who is traced, as given."""

    pid: Sequence[str] | None = None
    tid: Sequence[str] | None = None
    comm: Sequence[str] | None = None
    cgroup: Sequence[str] | None = None
    container: Sequence[str] | None = None
    uid: Sequence[str] | None = None
    everybody: bool = False
    command: Sequence[str] | None = None
    no_follow: bool = False
    wait: bool = False

    def selection(self, verb: str) -> Selection:
        """What they amount to; UsageError where they don't parse or don't go together."""
        kinds = (self.pid, self.tid, self.comm, self.cgroup, self.container, self.uid)
        if not any(kinds) and not self.everybody and not self.command:
            more = "-o RUN.flak " if verb == "record" else ""
            raise UsageError("nothing to trace", _NOTHING_SELECTED.format(verb=verb, more=more))
        pid, tid, comm, cgroup, container, uid = (values.names(given or ()) for given in kinds)
        return Selection.of(
            pid=pid,
            tid=tid,
            comm=comm,
            cgroup=cgroup,
            container=container,
            uid=uid,
            all_processes=self.everybody,
            command=self.command,
            follow=not self.no_follow,
            wait=self.wait,
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class What:
    """The options that say what of their accesses is wanted, as given."""

    events: Sequence[str] | None = None
    path: Sequence[str] | None = None
    failed: bool = False
    min_latency: str = ""
    hung: str = ""
    min_size: str = ""
    all_files: bool = False
    no_latency: bool = False
    redact: str = ""

    def _min_latency_ns(self) -> int:
        if not self.min_latency:
            return 0
        return max(round(values.duration_s("--min-latency", self.min_latency) * 1e9), 1)

    def filters(self) -> Filters:
        """What they amount to; UsageError where they don't parse."""
        filters = Filters(
            paths=tuple(self.path or ()),  # no lists: a comma may be part of a name
            failed=self.failed,
            min_latency_ns=self._min_latency_ns(),
            min_size=values.size("--min-size", self.min_size) if self.min_size else 0,
        )
        if self.no_latency and filters.min_latency_ns:
            raise UsageError("--min-latency needs durations", "leave out --no-latency")
        return filters

    def hung_s(self) -> float | None:
        """The time of --hung in seconds; UsageError where it does not parse."""
        if not self.hung:
            return None
        if self.no_latency:
            raise UsageError("--hung needs durations", "leave out --no-latency")
        if (threshold_s := values.duration_s("--hung", self.hung)) > _LONGEST_S:
            raise UsageError(f"--hung {self.hung!r} is too long", "no call can have lasted for more than a century")
        return max(threshold_s, 0.001)


@dataclass(slots=True, frozen=True, kw_only=True)
class Capture:
    """What to trace, and when to stop."""

    selection: Selection
    filters: Filters
    events: tuple[str, ...]
    all_files: bool
    latency: bool
    hung_s: float | None
    redact: str | None
    user: str | None
    duration_s: float | None
    max_events: int | None
    buffer_size: int
    fails_on_loss: bool

    @classmethod
    def parse(
        cls,
        verb: str,
        who: Who,
        what: What,
        *,
        user: str = "",
        duration: str = "",
        max_events: str = "",
        buffer_size: str = "",
        on_loss: str = "",
    ) -> Self:
        """From the options as given; UsageError where they don't parse or don't go together."""
        selection = who.selection(verb)
        if user and not selection.command:
            raise UsageError("--user is for a command that flak starts", f"flak {verb} --user {user} -- CMD ARGS…")
        return cls(
            selection=selection,
            filters=what.filters(),
            events=values.names(what.events or ()),
            all_files=what.all_files,
            latency=not what.no_latency,
            hung_s=what.hung_s(),
            redact=Redaction.parse(what.redact).text if what.redact else None,
            user=user or None,
            duration_s=values.duration_s("--duration", duration) if duration else None,
            max_events=values.count("--max-events", max_events) if max_events else None,
            buffer_size=values.size("--buffer-size", buffer_size) if buffer_size else 16 << 20,
            fails_on_loss=values.choice("--on-loss", on_loss or "warn", ("warn", "fail")) == "fail",
        )

    @property
    def command(self) -> tuple[str, ...]:
        """The command to start; empty where there is none."""
        return self.selection.command

    def session_arguments(self) -> dict[str, Any]:
        """Arguments of `flak.session.Session`, by name."""
        return {
            "selection": self.selection,
            "filters": self.filters,
            "all_files": self.all_files,
            "events": self.events or None,
            "latency": self.latency,
            "hung": self.hung_s,
            "redact": self.redact,
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
    fields: tuple[str, ...]
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
        fields: Sequence[str] | None,
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
        names = values.names(fields or ())
        if names and summary:
            raise UsageError("--summary has no lines for --fields", "leave out one of them")
        if names and form == "recording":
            raise UsageError(
                f"--fields and -o {output} exclude each other", "record first, then: flak dump --fields … RUN.flak"
            )
        return cls(
            output=output or None,
            form=form,
            force=force,
            wide=wide,
            timestamp=values.choice("--timestamp", timestamp or "rel", ("rel", "wall", "unix", "boot")),
            color=values.choice("--color", color or "auto", ("auto", "always", "never")),
            fields=_fields(names, form),
            has_lines=not summary,
            has_table=not no_summary,
        )


def _fields(names: Sequence[str], form: str) -> tuple[str, ...]:
    """What --fields asks for."""
    if not names:
        return ()
    from flak.columns import chosen  # imports what a trace needs, and help does not

    return chosen(names, is_json=form == "json")


def _form(output: str, json: bool) -> str:
    """What the suffix of the output and --json ask for."""
    suffix = Path(output).suffix
    if suffix == ".flak":
        return "recording"
    return "json" if json or suffix in (".jsonl", ".json", ".ndjson") else "text"
