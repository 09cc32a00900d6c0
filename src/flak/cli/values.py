"""What people write on a command line → values: sizes, times, lists, choices.

Every parser takes the option's name first, so that its UsageError says which option was wrong, what was given and
what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from flak.errors import UsageError

__all__ = ["choice", "count", "duration_s", "names", "size"]

_SIZE_UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}
_TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)", re.ASCII | re.IGNORECASE)


def size(option: str, text: str) -> int:
    """Bytes of "4096", "16M", "1.5GiB", "64kb": units are powers of 1024."""
    match = _QUANTITY.fullmatch(text.strip())
    unit = match[2].upper().removesuffix("B").removesuffix("I") if match else ""
    if not match or unit not in _SIZE_UNITS or math.isinf(float(match[1])):
        raise UsageError(f"{option} {text!r} is no size", "write it like 4096, 64K, 16M or 2G (powers of 1024)")
    return int(float(match[1]) * _SIZE_UNITS[unit])


def duration_s(option: str, text: str) -> float:
    """Seconds of "10s", "1.5m", "250ms", "2h"; a number without a unit is seconds."""
    match = _QUANTITY.fullmatch(text.strip())
    unit = (match[2].lower() or "s") if match else ""
    if not match or unit not in _TIME_UNITS or float(match[1]) == 0 or math.isinf(float(match[1]) * 3600e9):
        raise UsageError(f"{option} {text!r} is no time", "write it like 10s, 250ms, 5m or 2h")
    return float(match[1]) * _TIME_UNITS[unit]


def count(option: str, text: str) -> int:
    """A whole number of at least 1."""
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) == 0:
        raise UsageError(f"{option} {text!r} is no count", "write a whole number of at least 1")
    return int(text)


def names(given: Iterable[str]) -> tuple[str, ...]:
    """The words of an option that may be repeated and take lists: `-e read,write -e fault`. No word comes twice."""
    words = (word.strip() for text in given for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def choice(option: str, text: str, choices: Sequence[str]) -> str:
    """`text`, which has to be one of `choices`."""
    if text not in choices:
        raise UsageError(f"{option} {text!r} is not known", f"choose one of: {', '.join(choices)}")
    return text
