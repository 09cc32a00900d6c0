"""Numbers and paths as people read them: sizes, latencies, counts, names of errors, paths that fit a column.

Everything printed for people uses these, so one quantity looks the same everywhere. Paths are expected escaped
(`events.escape`). Imports nothing of FLAK.
"""

from __future__ import annotations

import errno
import unicodedata

_UNITS = "KMGTPE"
ELLIPSIS = "…"


def format_size(size: int) -> str:
    """Bytes in units of 1024, at most five characters: 0B, 512B, 4.0K, 12.7G, 128K; one decimal below 100."""
    if size < 1024:
        return f"{size}B"
    value = float(size)
    for unit in _UNITS:
        value /= 1024
        if value < 99.95:
            return f"{value:.1f}{unit}"
        if value < 1023.5:
            return f"{value:.0f}{unit}"
    return f"{value:.0f}{_UNITS[-1]}"


def format_latency(latency_ns: int) -> str:
    """Nanoseconds, at most five characters up to 9999 s: 850ns, 4.2us, 91us, 4.2ms, 35s; one decimal below 10."""
    if latency_ns < 1000:
        return f"{latency_ns}ns"
    value = float(latency_ns)
    for unit in ("us", "ms", "s"):
        value /= 1000
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return f"{value:.0f}s"


def format_count(count: int) -> str:
    """Digits in groups of three: 1 204 113."""
    return f"{count:,}".replace(",", " ")


def counted(count: int, noun: str) -> str:
    """A number of things: 1 event, 1 204 events, 3 processes."""
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{format_count(count)} {noun}{plural}"


def cell_width(text: str) -> int:
    """Columns the text takes on a terminal: wide East Asian characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_cells(c) for c in text)


def elide_path(path: str, width: int) -> str:
    """The path in at most `width` columns: components are left out of its middle, the last one is kept.

    /data/train/2024/shards/shard-00042.tar → /data/…/shard-00042.tar. What stays is taken from both ends in turn.
    Only a last component that is too long by itself is cut, in its middle. Widths below 3 are taken as 3.
    """
    width = max(width, 3)
    if len(path) <= width and cell_width(path) <= width:
        return path
    *folders, name = path.split("/")
    if not folders or cell_width(name) + 2 > width:
        return _cut(name, width)
    # An absolute path has an empty first component; it is taken like any other.
    front: list[str] = []
    back = [name]
    while folders:
        options = [([*front, folders[0]], back, folders[1:]), (front, [folders[-1], *back], folders[:-1])]
        if len(front) > len(back):
            options.reverse()
        for longer_front, longer_back, rest in options:
            if cell_width("/".join([*longer_front, ELLIPSIS, *longer_back])) <= width:
                front, back, folders = longer_front, longer_back, rest
                break
        else:
            break
    return "/".join([*front, ELLIPSIS, *back])


def _cut(name: str, width: int) -> str:
    """A name that is too long, without its middle: its end, where numbers and suffixes are, gets the larger half."""
    room = width - 1
    end = _fitting(name[::-1], (room + 1) // 2)[::-1]
    start = _fitting(name, room - cell_width(end))
    return f"{start}{ELLIPSIS}{end}"


def _fitting(text: str, width: int) -> str:
    """The longest beginning of the text that fits."""
    for at, c in enumerate(text):
        width -= _cells(c)
        if width < 0:
            return text[:at]
    return text


def _cells(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


_ERRNO_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK"}


def errno_name(number: int) -> str | None:
    """ "ENOENT" for 2: the kernel's name, which of two that mean the same is not always Python's."""
    return _ERRNO_NAMES.get(number)
