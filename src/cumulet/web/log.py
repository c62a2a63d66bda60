"""Logs as JSON lines, with what must stay secret taken out wherever it turns up."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

if TYPE_CHECKING:
    from cumulet.settings import Settings

_encode = msgspec.json.Encoder().encode

_SECRETS = (
    (re.compile(r"gAAAAA[A-Za-z0-9_=-]{20,}"), "***"),
    # A scheme, and what it shows, up to the end of the line: of OAuth 1.0 a list with commas and quotes.
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*).+"), r"\1***"),
    (re.compile(r"(?i)((?:x-(?:auth|subject|service)-token|cookie)['\"]?\s*[:=]\s*['\"]?)[^\s'\",;]+"), r"\1***"),
    (
        re.compile(
            r"(?i)(['\"]?(?:password|original_password|adminpass|admin_pass|secret|user_data|private_key|token)['\"]?"
            r"\s*[:=]\s*)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;})\]]+)"
        ),
        r"\1***",
    ),
    (re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@]+):[^\s@/]+@"), r"\1:***@"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "***"),
)
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


_WORDS = ("token", "pass", "secret", "user_data", "key", "gaaaa", "authorization", "cookie", "://")
"""Each secret has one of these near it. Most texts contain none of them and need no closer look."""
_HINT = re.compile("|".join(map(re.escape, _WORDS)), re.IGNORECASE)


def _may_hold_secrets(text: str) -> bool:
    if not text.isascii():
        return _HINT.search(text) is not None
    folded = text.lower()
    # One by one: a tenth of the pattern's time.
    return any(word in folded for word in _WORDS)


def redact(text: str) -> str:
    """`text` without tokens, passwords, keys and the passwords in URLs."""
    if not _may_hold_secrets(text):
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what was given as `extra`, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = int(record.created)
        line: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = value if value is None or isinstance(value, _PLAIN) else str(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        whole = _encode(line).decode()
        if not _may_hold_secrets(whole):
            return whole
        # Each text by itself, so that the end of a secret is not searched for in the next text.
        return _encode({n: redact(text) if isinstance(text, str) else text for n, text in line.items()}).decode()


_PLAIN = (bool, int, float, str)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


SAME_LINES = 10
"""Lines of one kind (logger, level, message without its values) within `SAME_SECONDS`; more are only counted."""
SAME_SECONDS = 60.0
MOST_KINDS = 1000
UNCOUNTED = frozenset({"cumulet.access"})
"""Loggers whose lines are all alike and must all be written; see `web.access_log`."""


class _Kind(msgspec.Struct, eq=False):
    """Lines of one kind since `since` (seconds since the epoch)."""

    since: float
    lines: int = 0


class Repeats(logging.Filter):
    """Counts lines that repeat instead of letting each through; how many there were is said once their time is over.

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
        key = (record.name, record.levelno, str(record.msg))
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(since=record.created)
        kind.lines += 1
        return kind.lines <= SAME_LINES

    def tell(self, begun_before: float) -> None:
        """Say how often what began before then was repeated, and forget it."""
        while self._kinds:
            (name, level, message), kind = next(iter(self._kinds.items()))
            if kind.since > begun_before and len(self._kinds) < MOST_KINDS:
                return
            self._kinds.popitem(last=False)
            if kind.lines > SAME_LINES:
                line = logging.LogRecord(name, level, "", 0, message, None, None)
                line.repeated = kind.lines - SAME_LINES
                self._say(line)


class _Counting(logging.StreamHandler[TextIO]):
    """Lines that repeat are counted; the last counts are said when it is closed, which `logging` does at the end."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._repeats = Repeats(self.emit)
        self.addFilter(self._repeats)

    def close(self) -> None:
        self._repeats.tell(math.inf)
        super().close()


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, what was given as `extra`; below it the exception."""

    def format(self, record: logging.LogRecord) -> str:
        given = [
            f"{name}={redact(value) if isinstance(value, str) else _plain(value)}"
            for name, value in vars(record).items()
            if name not in _STANDARD and not name.startswith("_") and value is not None
        ]
        message = "\\n".join(redact(record.getMessage()).splitlines())
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        line = " ".join([when, f"{record.levelname:<7}", message, *given])
        if record.exc_info and record.exc_info[0] is not None:
            line += "\n" + redact("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return line


def log_as(settings: Settings, *, on_terminal: str = "info") -> logging.Handler:
    """`log_to` as the settings say. Where they say nothing: text from level `on_terminal` on for a terminal, else JSON
    from INFO on."""
    terminal = settings.log_file is None and sys.stderr.isatty()
    level = settings.log_level or (on_terminal if terminal else "info")
    as_json = (settings.log_format or ("text" if terminal else "json")) == "json"
    return log_to(settings.log_file, level=logging.getLevelNamesMapping()[level.upper()], as_json=as_json)


def log_to(target: TextIO | Path | None = None, *, level: int = logging.INFO, as_json: bool = True) -> logging.Handler:
    """Send all logs to `target`: a stream (default: standard error), or a file, which is bounded (`web.log_file`).

    Returns the handler, for removing it. Raises OSError for a file that cannot be written.
    """
    handler: logging.Handler
    if isinstance(target, Path):
        from cumulet.web.log_file import LogFile

        handler = LogFile(target)
    else:
        handler = _Counting(target or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    # Our lines do not show these, so `logging` need not find them out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # "Optimization" in the logging HOWTO: no walk over the stack
    # Two lines a connection that say nothing the access log does not.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Each address that is asked, whole: one of an image may open it by itself.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return handler
