"""The verbs. Each parses its options, calls one function, and returns its exit status.

Errors end here: a message, a hint and a status (0 well, 1 failed, 2 usage; of a traced command its own, or 125 to 127
when it never ran). FLAK_DEBUG=1 adds the traceback.
"""

from __future__ import annotations

import os
import shlex
import traceback
from pathlib import Path

import typer

from flak.cli import options, values
from flak.cli.console import Console, has_lines
from flak.cli.interrupts import Abandoned, abandoning
from flak.cli.request import Capture, Display, What, Who
from flak.errors import AttachError, FlakError, LoadError, NotPermitted, NotSupported, TargetError, UsageError

__all__ = ["app", "run"]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SMALLEST = 1 << 20
"""Of --max-size: a recording grows by rounds of up to 256 KiB."""

# The first word that is no option begins the command, whose options are its own.
_TAKES_COMMAND = {"allow_interspersed_args": False}


@app.callback()
def flak(version: bool = options.VERSION) -> None:
    """See which files a program reads and writes: where, how much, how long, and by which road.

    \b
    EXAMPLES
        flak trace -p 4242                      live, until ^C; then a table
        flak trace -- python train.py           a command, from its start on
        flak record -o run.flak -p 4242         at the least cost
        flak dump run.flak                      print what was recorded
        flak doctor                             can this host be traced?
    """


@app.command(context_settings=_TAKES_COMMAND)
def trace(
    command: list[str] = options.COMMAND,
    pid: list[str] = options.PID,
    tid: list[str] = options.TID,
    comm: list[str] = options.COMM,
    cgroup: list[str] = options.CGROUP,
    container: list[str] = options.CONTAINER,
    uid: list[str] = options.UID,
    everybody: bool = options.ALL,
    wait: bool = options.WAIT,
    no_follow: bool = options.NO_FOLLOW,
    events: list[str] = options.EVENTS,
    path: list[str] = options.PATH,
    failed: bool = options.FAILED,
    min_latency: str = options.MIN_LATENCY,
    hung: str = options.HUNG,
    min_size: str = options.MIN_SIZE,
    all_files: bool = options.ALL_FILES,
    no_latency: bool = options.NO_LATENCY,
    redact: str = options.REDACT,
    user: str = options.USER,
    duration: str = options.DURATION,
    max_events: str = options.MAX_EVENTS,
    output: str = options.OUTPUT,
    json: bool = options.JSON,
    wide: bool = options.WIDE,
    timestamp: str = options.TIMESTAMP,
    fields: list[str] = options.FIELDS,
    color: str = options.COLOR,
    summary: bool = options.SUMMARY,
    no_summary: bool = options.NO_SUMMARY,
    force: bool = options.FORCE,
    buffer_size: str = options.BUFFER_SIZE,
    on_loss: str = options.ON_LOSS,
    quiet: bool = options.QUIET,
    verbose: bool = options.VERBOSE,
) -> int:
    """Show accesses as they happen, then a table of the files.

    Stops at ^C or when the traced processes have ended.

    A command keeps its stdout to itself: lines go to stderr or -o. Its exit status becomes that of flak.

    \b
    EXAMPLES
        flak trace -p 4242 -e read,fault        reads and page faults of a process
        flak trace -s -d 10s -p 4242            ten seconds, only the table
        flak trace --hung 1s -p 4242            what it waits for
        flak trace -o t.jsonl -- make -j8       a command, as JSON lines
        flak trace --json -p 4242 | jq .path    for programs
    """
    from flak.cli import live

    capture = Capture.parse(
        "trace",
        Who(
            pid=pid,
            tid=tid,
            comm=comm,
            cgroup=cgroup,
            container=container,
            uid=uid,
            everybody=everybody,
            command=command,
            no_follow=no_follow,
            wait=wait,
        ),
        What(
            events=events,
            path=path,
            failed=failed,
            min_latency=min_latency,
            hung=hung,
            min_size=min_size,
            all_files=all_files,
            no_latency=no_latency,
            redact=redact,
        ),
        user=user,
        duration=duration,
        max_events=max_events,
        buffer_size=buffer_size,
        on_loss=on_loss,
    )
    display = Display.parse(
        output=output,
        json=json,
        force=force,
        wide=wide,
        timestamp=timestamp,
        fields=fields,
        color=color,
        summary=summary,
        no_summary=no_summary,
    )
    if command and display.form == "json" and not output:
        raise UsageError("where should the JSON go? stdout belongs to the command", "add -o FILE, or -o - for stdout")
    return live.trace(capture, display, Console(quiet, verbose))


@app.command(context_settings=_TAKES_COMMAND)
def record(
    command: list[str] = options.COMMAND,
    pid: list[str] = options.PID,
    tid: list[str] = options.TID,
    comm: list[str] = options.COMM,
    cgroup: list[str] = options.CGROUP,
    container: list[str] = options.CONTAINER,
    uid: list[str] = options.UID,
    everybody: bool = options.ALL,
    wait: bool = options.WAIT,
    no_follow: bool = options.NO_FOLLOW,
    events: list[str] = options.EVENTS,
    path: list[str] = options.PATH,
    failed: bool = options.FAILED,
    min_latency: str = options.MIN_LATENCY,
    min_size: str = options.MIN_SIZE,
    all_files: bool = options.ALL_FILES,
    no_latency: bool = options.NO_LATENCY,
    redact: str = options.REDACT,
    user: str = options.USER,
    duration: str = options.DURATION,
    max_events: str = options.MAX_EVENTS,
    max_size: str = options.MAX_SIZE,
    output: str = options.RECORD_OUTPUT,
    force: bool = options.FORCE,
    buffer_size: str = options.BUFFER_SIZE,
    on_loss: str = options.ON_LOSS,
    quiet: bool = options.QUIET,
    verbose: bool = options.VERBOSE,
) -> int:
    """Record accesses to a file, at the least cost.

    \b
    EXAMPLES
        flak record -o run.flak -p 4242         until ^C
        flak record -o run.flak -- make -j8     a command and its children
        flak dump run.flak                      then look at it
    """
    from flak.cli import live

    if not output:
        raise UsageError("where should the recording go?", "add -o RUN.flak")
    capture = Capture.parse(
        "record",
        Who(
            pid=pid,
            tid=tid,
            comm=comm,
            cgroup=cgroup,
            container=container,
            uid=uid,
            everybody=everybody,
            command=command,
            no_follow=no_follow,
            wait=wait,
        ),
        What(
            events=events,
            path=path,
            failed=failed,
            min_latency=min_latency,
            min_size=min_size,
            all_files=all_files,
            no_latency=no_latency,
            redact=redact,
        ),
        user=user,
        duration=duration,
        max_events=max_events,
        buffer_size=buffer_size,
        on_loss=on_loss,
    )
    most = values.size("--max-size", max_size) if max_size else None
    if most is not None and most < SMALLEST:
        raise UsageError(f"--max-size {max_size} holds next to nothing", "at least 1M")
    return live.record(capture, Path(output), force=force, max_size=most, console=Console(quiet, verbose))


@app.command()
def dump(
    recording: str = options.RECORDING,
    output: str = options.DUMP_OUTPUT,
    json: bool = options.JSON,
    wide: bool = options.WIDE,
    timestamp: str = options.TIMESTAMP,
    fields: list[str] = options.FIELDS,
    color: str = options.COLOR,
    summary: bool = options.SUMMARY,
    no_summary: bool = options.NO_SUMMARY,
    force: bool = options.FORCE,
    quiet: bool = options.QUIET,
    verbose: bool = options.VERBOSE,
) -> int:
    """Print a recording: the lines of flak trace, then the table.

    \b
    EXAMPLES
        flak dump run.flak | less               columns
        flak dump -s run.flak                   only the table
        flak dump --json run.flak | jq .path    for programs
    """
    from flak.cli import replay

    display = Display.parse(
        output=output,
        json=json,
        force=force,
        wide=wide,
        timestamp=timestamp,
        fields=fields,
        color=color,
        summary=summary,
        no_summary=no_summary,
    )
    if display.form == "recording":
        raise UsageError("dump prints a recording, it does not make one", "choose another name than *.flak for -o")
    return replay.dump(Path(recording), display, Console(quiet, verbose))


@app.command()
def doctor(
    json: bool = options.JSON,
    color: str = options.COLOR,
    verbose: bool = options.VERBOSE,
) -> int:
    """Try whether this host can be traced, and say what would be missing.

    \b
    EXAMPLES
        flak doctor                             what works, and what mends the rest
        flak doctor --json | jq .can_trace      for programs
    """
    from flak.cli import doctor

    when = values.choice("--color", color or "auto", ("auto", "always", "never"))
    return doctor.doctor(is_json=json, color=when, console=Console(is_verbose=verbose))


def run(arguments: list[str]) -> int:
    """Run the command line; the exit status, −N for "die of signal N"."""
    console = Console()
    try:
        command = typer.main.get_command(app)
        with abandoning():
            status: int | None = command.main(arguments or ["--help"], prog_name="flak", standalone_mode=False)
    except FlakError as error:
        if os.environ.get("FLAK_DEBUG"):
            traceback.print_exception(error)
            console.warn(getattr(error, "log", ""), has_lines=True)
        _tell(console, error, arguments)
        return _status(error)
    except Abandoned as abandoned:
        return -abandoned.number
    except Exception as error:
        # typer's usage errors. Their class has no name one could rely on: newer typers bring their own copy of click.
        if not hasattr(error, "format_message"):
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", "flak")
        console.fail(UsageError(error.format_message(), f"{where} --help"))
        return 2
    return status or 0


def _tell(console: Console, error: FlakError, arguments: list[str]) -> None:
    """Print an error; of a trace that did not start also what about this host may be the reason."""
    refusal = next((e for e in (error, error.__cause__) if isinstance(e, _REFUSALS)), None)
    if refusal is None:
        console.fail(error)
        return
    from flak.cli.doctor import explain

    sudo = _with_sudo(arguments) if isinstance(refusal, NotPermitted) else ""
    console.warn(error.message, has_lines=has_lines(error))
    if not explain(console, said=error.message, has_sudo_hint=bool(sudo)) and error.hint:
        console.warn(f"hint: {error.hint}")
    if sudo:
        console.warn(f"hint: {sudo}")


_REFUSALS = (NotPermitted, NotSupported, LoadError, AttachError)


def _with_sudo(arguments: list[str]) -> str:
    """How to become root with this very flak, "" for who is."""
    from flak.cli.doctor import this_program

    words = this_program()
    return f"sudo {shlex.join([*words, *arguments])}" if words and os.geteuid() else ""


def _status(error: FlakError) -> int:
    if isinstance(error, UsageError):
        return 2
    return error.exit_status if isinstance(error, TargetError) else 1
