"""An event as a JSON object: the text that json.dumps(as_dict(event)) would give, at a fifth of the cost.

What belongs to a task, to a file or to an op is the same in thousands of events, so its text is made once. What a
class of events never has is null in its template. Nothing is written here: `sinks` does.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from flak.events import WORDS, Access, Counters, Event, Folded, Lost, as_dict

__all__ = ["JsonText"]

Text = Callable[[Any], str]
Known = dict[tuple[str, ...], dict[Any, tuple[Any, str]]]
"""Texts of members, by the words they have: by number, whose they are, and the text."""

_MOST_KNOWN = 8192

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_TASK_WORDS = frozenset({"pid", "tid", "ns_pid", "comm", "cgroup_id", "container"})
_FILE_WORDS = frozenset({"file_id", "path_id", "path", "path_bytes", "mnt_ns", "dev", "ino", "ino_gen", "kind"})
_OP_WORDS = frozenset({"via", "op"})
_GROUPS = {word: group for group in (_TASK_WORDS, _FILE_WORDS, _OP_WORDS) for word in group}


class JsonText:
    """Called with an event, gives its object. fields: only these words of accesses and process events, in this order;
    a word that does not apply is null. `lost`, `folded` and `counters` are always whole: they are the accounting.
    """

    def __init__(self, fields: Sequence[str] = WORDS) -> None:
        self._fields = tuple(fields)
        self._makers: dict[type[Event], Text] = {Lost: _whole, Folded: _whole, Counters: _whole}
        self._known: Known = defaultdict(dict)

    def __call__(self, event: Event) -> str:
        """The object, without a line break."""
        kind = type(event)
        maker = self._makers.get(kind)
        if maker is None:
            maker = self._makers[kind] = _maker(kind, self._fields, self._known)
        return maker(event)


def _whole(event: Event) -> str:
    return encode(as_dict(event))


def _maker(kind: type[Event], fields: Sequence[str], known: Known) -> Text:
    """What makes the objects of one class: a template, and for each gap in it the text that goes there. known: texts
    that were made already, of any class.
    """
    template = []
    texts: list[Text] = []
    for group, run in groupby(fields, lambda word: _group_of(kind, word)):
        words = list(run)
        if group is None:
            template += [f'"{word}":null' for word in words]
        elif group:
            template.append("%s")
            texts.append(_shared(kind, group, words, known[(*words,)]))
        else:
            template += [f'"{word}":%s' for word in words]
            texts += [_text_of(word) for word in words]
    form = "{" + ",".join(template) + "}"
    return lambda event: form % tuple([text(event) for text in texts])


def _group_of(kind: type[Event], word: str) -> frozenset[str] | None:
    """The words whose values come together with this one's. Empty: it stands alone; None: no such word."""
    return _GROUPS.get(word, frozenset()) if hasattr(kind, word) else None


def _shared(kind: type[Event], group: frozenset[str], words: Sequence[str], known: dict[Any, tuple[Any, str]]) -> Text:
    """The members for neighbouring words of a group, kept by number, for as long as the number stands for the same."""
    key_of, owner_of, is_final = _owner(kind, group)

    def text(event: Any) -> str:
        key = key_of(event)
        found = known.get(key)
        if found is None or found[0] is not owner_of(event):
            members = ",".join(f'"{word}":{encode(_value(event, word))}' for word in words)
            if not is_final(event):
                return members
            if len(known) >= _MOST_KNOWN:
                known.clear()  # what comes again is made again; a run meets ever more names
            found = known[key] = (owner_of(event), members)
        return found[1]

    return text


def _value(event: Event, word: str) -> Any:
    value = getattr(event, word)
    return value or None if word == "path_id" else value  # 0 is "no path" in the record


def _owner(kind: type[Event], group: frozenset[str]) -> tuple[Callable[[Any], Any], ...]:
    """Of a group: the number it goes by, what has the values, and whether all is known: names may come after events."""
    if group is _TASK_WORDS:
        return attrgetter("task_id"), attrgetter("task"), lambda event: event.task is not None
    if group is _FILE_WORDS:
        return attrgetter("path_id", "raw_file_id"), attrgetter("file"), _has_names
    return attrgetter("opcode" if issubclass(kind, Access) else "op"), lambda event: None, lambda event: True


def _has_names(event: Any) -> bool:
    return event.file is not None and event.raw_file_id in event.tables.files


def _text_of(word: str) -> Text:
    """The text of a value that stands alone."""
    if word == "marks":
        return _marks_text
    value_of = attrgetter(word)

    def text(event: Any) -> str:
        value = value_of(event)
        if type(value) is int:
            return str(value)
        return "null" if value is None else "true" if value is True else "false" if value is False else encode(value)

    return text


def _marks_text(event: Any) -> str:
    marks = event.marks
    return encode(list(marks)) if marks else "[]"
