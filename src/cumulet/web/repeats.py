"""Lines of a log that repeat: the first ones are written, the others are counted, and the count is a line."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Callable

import msgspec

SAME_LINES = 10
"""Lines of one kind (logger, level, message without its values) written in `SAME_SECONDS`; others are counted."""
SAME_SECONDS = 60.0
MOST_KINDS = 1000
MOST_CHARACTERS = 1000
"""Of the example that a count shows."""
UNCOUNTED = frozenset({"cumulet.access"})
"""Loggers whose lines are all of one kind and are all written: the access log."""
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_OBJECTS = re.compile(r"[(\n]")
"""Behind the first of these, asyncio's messages show objects, each of which looks different."""


def _message_of(record: logging.LogRecord) -> str:
    """The message without its values."""
    message = str(record.msg)
    return _ADDRESS.sub("", _OBJECTS.split(message, 1)[0]) if record.name == "asyncio" else message


class _Kind(msgspec.Struct, eq=False):
    """Lines of one kind since `since` (seconds since the epoch)."""

    since: float
    lines: int = 0
    example: str = ""
    """The first line that was only counted, with its values."""


class Repeats(logging.Filter):
    """Lets the first lines of a kind through and counts the others. The count, with one of them, is a line once
    `SAME_SECONDS` are over.

    Times are those of the records. A count is written with the next record of any kind: no timer, no thread.
    """

    def __init__(self, say: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self._say = say
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name in UNCOUNTED:
            return True
        self.tell(record.created - SAME_SECONDS)
        key = (record.name, record.levelno, _message_of(record))
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(since=record.created)
        kind.lines += 1
        if kind.lines == SAME_LINES + 1:
            kind.example = record.getMessage()[:MOST_CHARACTERS]
        return kind.lines <= SAME_LINES

    def tell(self, begun_before: float) -> None:
        """Write the counts of the kinds that began before this time, and forget these kinds."""
        while self._kinds:
            (name, level, _), kind = next(iter(self._kinds.items()))
            if kind.since > begun_before and len(self._kinds) < MOST_KINDS:
                return
            self._kinds.popitem(last=False)
            if kind.lines > SAME_LINES:
                line = logging.LogRecord(name, level, "", 0, kind.example, None, None)
                line.repeated = kind.lines - SAME_LINES
                self._say(line)
