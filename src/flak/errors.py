"""The exceptions FLAK raises, all under one root.

    FlakError(message, hint)
    ├ UsageError         options that cannot go together, values that do not parse
    ├ TargetError        no such process · exited · not permitted to look · command not found
    ├ NotSupported       kernel or machine lacks a feature (names it; tests skip on this and only this)
    ├ NotPermitted       which capability is missing and how to grant it
    ├ LoadError          verifier or libbpf refused: last lines, how many were left out
    ├ AttachError        which program, which hook
    ├ SchemaMismatch     which struct.field, expected and actual
    ├ OutputError        cannot write there: what, where, why
    └ TraceFileError     not a recording · other format · damaged at byte N

`message` says what failed on what; `hint` is a command or a setting that mends it. The command line catches
`FlakError` once, prints both and sets the exit status.
"""

from __future__ import annotations


class FlakError(Exception):
    """Base of everything FLAK raises on purpose."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(FlakError):
    """The caller asked for something that makes no sense; nothing was started."""


class TargetError(FlakError):
    """The process or command to be traced is not there or cannot be looked at.

    `exit_status` is what a shell would report for a command that could not be started (126, 127).
    """

    def __init__(self, message: str, hint: str | None = None, exit_status: int = 1) -> None:
        super().__init__(message, hint)
        self.exit_status = exit_status


class NotSupported(FlakError):
    """This kernel or machine lacks something FLAK cannot do without."""


class NotPermitted(FlakError):
    """A capability is missing."""


class LoadError(FlakError):
    """The kernel's verifier or libbpf refused the BPF object. `log` is the whole log."""

    def __init__(self, message: str, hint: str | None = None, log: str = "") -> None:
        super().__init__(message, hint)
        self.log = log


class AttachError(FlakError):
    """A loaded program could not be attached to its hook."""


class SchemaMismatch(FlakError):
    """The BPF object was built from another flak.h than this Python package, or changed since."""


class OutputError(FlakError):
    """An output could not be created or written."""


class TraceFileError(FlakError):
    """A file is not a recording, of another format, or damaged where it may not be."""
