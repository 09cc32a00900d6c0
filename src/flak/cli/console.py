"""Talk: what FLAK says to the person who runs it. All of it goes to stderr, one line each, begun with "flak:".

Also what the terminal and the environment say about colour and width.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from io import RawIOBase

from flak.errors import FlakError, LoadError
from flak.events import escape_character

__all__ = ["Console", "has_lines", "uses_color", "width_of"]


@dataclass(slots=True, frozen=True)
class Console:
    """How much to say. Errors and losses are said whatever it is."""

    is_quiet: bool = False
    is_verbose: bool = False

    def say(self, text: str) -> None:
        """What is going on."""
        if not self.is_quiet:
            self.warn(text)

    def detail(self, text: str) -> None:
        """What only -v asks for."""
        if self.is_verbose:
            self.warn(text)

    def warn(self, text: str, *, has_lines: bool = False) -> None:
        """What has to be said even with -q. has_lines: line breaks in it are FLAK's own."""
        with contextlib.suppress(OSError, ValueError):  # nobody listens: no reason to stop
            print(f"flak: {_safe(text, has_lines)}", file=sys.stderr, flush=True)

    def fail(self, error: FlakError) -> None:
        """An error and what to do about it."""
        self.warn(error.message, has_lines=has_lines(error))
        if error.hint:
            self.warn(f"hint: {error.hint}" if "\n" not in error.hint else error.hint, has_lines=True)


def has_lines(error: FlakError) -> bool:
    """Line breaks in its message are FLAK's own: it quotes what the kernel's verifier said."""
    return isinstance(error, LoadError) or isinstance(error.__cause__, LoadError)


def _safe(text: str, has_lines: bool) -> str:
    """The text without what could move a terminal's cursor: file names and arguments may stand in it.

    Backslashes stay, for names may have been escaped already.
    """
    kept = "\n\t\\" if has_lines else "\t\\"
    return "".join(c if c in kept else escape_character(c) for c in text)


def uses_color(choice: str, stream: RawIOBase) -> bool:
    """Whether to write colours: --color, else NO_COLOR, FORCE_COLOR, else whether a terminal reads them."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def width_of(stream: RawIOBase) -> int | None:
    """Columns of the terminal that reads a stream; None where none does, so that nothing has to be shortened."""
    if not stream.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
