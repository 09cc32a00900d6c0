"""The options, each declared once: the same name means the same on every verb that takes it.

All values arrive as text, lists of text or flags; `values` and `request` make something of them. An option that
was not given is "", None or an empty list (typer's versions differ): only its truth is asked.
"""

from __future__ import annotations

from typing import Any

import typer


def _option(*names: str, metavar: str, help: str, **more: Any) -> Any:
    return typer.Option("", *names, metavar=metavar, help=help, show_default=False, **more)


def _list(*names: str, metavar: str, help: str) -> Any:
    return typer.Option(None, *names, metavar=metavar, help=help, show_default=False)


def _flag(*names: str, help: str) -> Any:
    return typer.Option(False, *names, help=help, show_default=False)


VERSION = _flag("--version", help="show the version")  # answered by flak.cli.main, before typer is there

COMMAND = typer.Argument(None, metavar="[-- CMD ARGS...]", show_default=False, help="command to run and trace")
RECORDING = typer.Argument(..., metavar="RUN.flak", show_default=False, help="recording made by flak record")

# what is traced
PID = _list("-p", "--pid", metavar="PID", help="trace this process; repeat it or write 1,2,3")
TID = _list("-t", "--tid", metavar="TID", help="only this thread")
COMM = _list("-n", "--comm", metavar="NAME", help="processes of this name, now or later; 'py*' and '!sh' work")
CGROUP = _list("-G", "--cgroup", metavar="ID|PATH", help="everything in this cgroup and below it")
CONTAINER = _list("-c", "--container", metavar="NAME", help="this container: name, start of its id, pod/NAME")
UID = _list("-u", "--uid", metavar="USER", help="only what runs as this user")
ALL = _flag("-a", "--all", help="every process but flak")
WAIT = _flag("--wait", help="wait for a container or cgroup that is not there yet")
NO_FOLLOW = _flag("--no-follow", help="leave out children")
EVENTS = _list(
    "-e",
    "--events",
    metavar="LIST",
    help="only these: read,write,open,close,stat,meta,mmap,fault,copy,io_uring,aio,process",
)
PATH = _list("-P", "--path", metavar="GLOB", help="only these files or folders: '*.db', /data, '!/proc/*'")
FAILED = _flag("-x", "--failed", help="only calls that failed")
MIN_LATENCY = _option("--min-latency", metavar="TIME", help="only what took at least so long: 1ms")
HUNG = _option("--hung", metavar="TIME", help="only what takes so long, told while it hangs: 1s; implies --all-files")
MIN_SIZE = _option("--min-size", metavar="SIZE", help="only what moved at least so much: 4K")
ALL_FILES = _flag("--all-files", help="pipes, sockets and devices too")
NO_LATENCY = _flag("--no-latency", help="do not measure how long calls take (cheaper)")
REDACT = _option("--redact", metavar="MODE", help="hide names: hash, basename (keep the last), prefix:N (the first N)")
USER = _option("--user", metavar="NAME", help="who CMD runs as; under sudo the invoking user")

# when it ends
DURATION = _option("-d", "--duration", metavar="TIME", help="stop tracing after 10s, 5m, 2h")
MAX_EVENTS = _option("--max-events", metavar="N", help="stop after N accesses")
MAX_SIZE = _option("--max-size", metavar="SIZE", help="stop when the recording has grown to 2G")

# where it goes
OUTPUT = _option("-o", "--output", metavar="FILE", help="write there; .flak records, .jsonl is JSON, - is stdout")
RECORD_OUTPUT = _option("-o", "--output", metavar="FILE", help="where the recording goes: RUN.flak")
DUMP_OUTPUT = _option("-o", "--output", metavar="FILE", help="write there; .jsonl is JSON, - is stdout")
FORCE = _flag("--force", help="overwrite FILE")
JSON = _flag("-j", "--json", help="JSON lines instead of columns")
WIDE = _flag("-w", "--wide", help="never shorten a path")
TIMESTAMP = _option("-T", "--timestamp", metavar="KIND", help="time as rel (since the start), wall, unix or boot")
FIELDS = _list("--fields", metavar="LIST", help="only these columns, in this order: time,op,size,file or words of JSON")
COLOR = _option("--color", metavar="WHEN", help="auto, always or never")
SUMMARY = _flag("-s", "--summary", help="only the closing table")
NO_SUMMARY = _flag("--no-summary", help="no closing table")
QUIET = _flag("-q", "--quiet", help="say nothing but errors and losses")
VERBOSE = _flag("-v", "--verbose", help="say which hooks are used")

# how
BUFFER_SIZE = _option(
    "--buffer-size", metavar="SIZE", help="ring between kernel and flak [16M]", envvar="FLAK_BUFFER_SIZE"
)
ON_LOSS = _option("--on-loss", metavar="WHAT", help="when events are lost: warn, or fail with status 4")
