"""The command line. `main` is the entry point; everything else is imported when a verb needs it.

app       the verbs and their options, and what an exception means for the exit status
options   each option, declared once
values    text of an option → value
request   options of a verb → what to do, checked
live      trace and record
replay    dump
doctor    doctor, and why a trace did not start
viewing   lines and closing table, of a live session or a recording
closing   the table, and numpy not before it is needed
outputs   files that lines go to
console   talk on stderr; colour and width
interrupts  ^C once and twice; dying by a signal
reference docs/cli.md
manual    man pages; roff makes them of Markdown
completion  what bash, zsh and fish complete the command line by
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `flak` with these arguments, by default the process's own. Returns the exit status.

    Where a traced command died of a signal, FLAK dies of it too.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a run begins ^C just ends FLAK, without a traceback
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["--version"]:  # before typer, which takes longer than all the rest
        from flak import __version__

        print(f"flak {__version__}")
        return 0
    from flak.cli.app import run

    status = run(given)
    if status < 0:
        from flak.cli.interrupts import die_by

        die_by(-status)
    return status
