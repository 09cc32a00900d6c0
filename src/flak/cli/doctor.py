"""`flak doctor`: the findings as a table, and why a trace could not start.

Finding out is left to `trial` and `preflight`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from flak import __version__, preflight
from flak.cli.console import Console, uses_color, width_of
from flak.cli.outputs import standard
from flak.events import escape
from flak.outlets import ReaderGone, write_text
from flak.preflight import Finding

__all__ = ["doctor", "explain", "render", "this_program"]

_COLORS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}
_RESET = "\x1b[0m"
_WIDEST = 100


def doctor(*, is_json: bool, color: str, console: Console) -> int:
    """Try everything, print the findings; the exit status is 0 where tracing works."""
    from flak import trial

    findings = trial.doctor(tell=lambda text: console.detail(text) if text else None)
    stream = standard(1)
    if is_json:
        text = json.dumps(_as_object(findings)) + "\n"
    else:
        width = width_of(stream)
        text = render(
            [replace(finding, fix=_with_this_program(finding.fix)) for finding in findings],
            width=min(width, _WIDEST) if width else None,
            color=uses_color(color, stream),
        )
    with contextlib.suppress(ReaderGone):  # the status still tells
        write_text(stream, text)
    return 0 if _can_trace(findings) else 1


def render(findings: Sequence[Finding], *, width: int | None, color: bool) -> str:
    """The findings as a table that ends in a verdict; `width` None: every text on one line."""
    names = max(len(finding.concern) for finding in findings)
    rows = [line for finding in findings for line in _row(finding, names, width, color)]
    return "\n".join([*rows, "", *_wrapped("", _verdict(findings), width), ""])


def _row(finding: Finding, names: int, width: int | None, color: bool) -> list[str]:
    """Status, concern and text in columns; below them what it hides and what mends it."""
    first, *rest = _wrapped(f"{finding.status:4}  {finding.concern:{names}}  ", finding.text, width)
    if color:
        first = first.replace(finding.status, f"{_COLORS[finding.status]}{finding.status}{_RESET}", 1)
    lines = [first, *rest]
    if finding.hides:
        lines += _wrapped("      hides  ", finding.hides, width)
    if finding.fix:
        lines.append(f"      fix    {_printable(finding.fix)}")  # whole, so that it can be copied
    return lines


def _wrapped(head: str, text: str, width: int | None) -> list[str]:
    """Lines of text behind `head`, the second and later ones behind blanks."""
    return textwrap.wrap(
        _printable(text) or "-",
        width=max(width, len(head) + 20) if width else sys.maxsize,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _printable(text: str) -> str:
    return text if text.isprintable() else escape(text.encode(errors="surrogateescape"))


def _can_trace(findings: Sequence[Finding]) -> bool:
    return all(finding.status != "fail" for finding in findings)


def _verdict(findings: Sequence[Finding]) -> str:
    failure = next((finding for finding in findings if finding.status == "fail"), None)
    if failure:
        return f"this host cannot be traced: {failure.concern}: {_printable(failure.text)}"
    warnings = sum(finding.status == "warn" for finding in findings)
    return "this host can be traced" + (f"; {warnings} warning{'s' * (warnings > 1)}" if warnings else "")


def _as_object(findings: Sequence[Finding]) -> dict[str, object]:
    system = os.uname()
    return {
        "can_trace": _can_trace(findings),
        "findings": [asdict(finding) for finding in findings],
        "flak": __version__,
        "kernel": system.release,
        "machine": system.machine,
    }


def this_program() -> list[str]:
    """The words that call this very FLAK, which sudo's PATH may leave out; none where it runs by `python -m`."""
    program = Path(sys.argv[0]).absolute()
    if program.suffix == ".pyz":
        return [sys.executable or "python3", str(program)]
    return [str(program)] if program.name == "flak" else []


def _with_this_program(fix: str | None) -> str | None:
    words = this_program()
    return f"sudo {shlex.join(words)} …" if words and fix == preflight.SUDO else fix


def explain(console: Console, *, said: str = "", has_sudo_hint: bool = False) -> bool:
    """Say what about this host can be the reason that a trace did not start; False when nothing is known.

    said: what the refusal said already, so that only its fix is missing. has_sudo_hint: somebody else says how to
    become root.
    """
    reasons = preflight.causes(preflight.host())
    for finding in reasons:
        fix = None if has_sudo_hint and finding.fix == preflight.SUDO else _with_this_program(finding.fix)
        if finding.text != said:
            console.warn(f"{finding.concern}: {finding.text}" + (f"; fix: {fix}" if fix else ""))
        elif fix:
            console.warn(f"hint: {fix}")
    return bool(reasons)
