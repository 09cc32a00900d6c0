"""Markdown of the report: tables, and what a subject has to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.spread import Spread


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target of the design, what was measured, and whether that meets it (None: nothing to compare)."""

    what: str
    target: str
    measured: str
    is_met: bool | None = None


@dataclass(slots=True)
class Section:
    """What one subject found: paragraphs and tables, and its verdicts."""

    title: str
    parts: list[str]
    verdicts: list[Verdict] = field(default_factory=list)

    def text(self) -> str:
        """The section as Markdown."""
        return "\n\n".join([f"## {self.title}", *self.parts])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns lined up; the first is text, the others are figures."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *figures])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Targets and whether they are met."""
    words = {True: "met", False: "**missed**", None: "–"}
    rows = [[v.what, v.target, v.measured, words[v.is_met]] for v in verdicts]
    return table(["what", "target", "measured", ""], rows)


def times(spread: Spread) -> str:
    """A ratio: "1.80x (1.78–1.83)"."""
    return spread.text(".2f", "x")


def dropped(count: int, of: int) -> list[str]:
    """A sentence on rounds that were left out, none when there were none."""
    return [f"{count} of {of} rounds were dropped: their untraced run was disturbed."] if count else []
