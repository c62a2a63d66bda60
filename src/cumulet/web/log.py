"""Logs as JSON lines or as text. Secrets are left out, wherever in a line they are."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from cumulet.web.log_file import LogFile
from cumulet.web.repeats import Repeats
from cumulet.web.secret_names import SECRET_NAMES

if TYPE_CHECKING:
    from cumulet.settings import Settings

_encode = msgspec.json.Encoder().encode

_SECRETS = (
    (re.compile(r"gAAAAA[A-Za-z0-9_=-]{20,}"), "***"),
    # The scheme and everything after it to the end of the line: OAuth 1.0 has a list with commas and quotes.
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*).+"), r"\1***"),
    (re.compile(r"(?i)((?:x-(?:auth|subject|service)-token|cookie)['\"]?\s*[:=]\s*['\"]?)[^\s'\",;]+"), r"\1***"),
    (
        re.compile(
            # The value is a text. If it is an object or a list, the texts in it are matched by their own names.
            rf"(?i)(['\"]?(?:{'|'.join(SECRET_NAMES)})['\"]?"
            r"\s*[:=]\s*)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|(?![{\[])[^\s,;})\]]+)"
        ),
        r"\1***",
    ),
    # Without the scheme before it, which would be looked for from each letter of a long word.
    (re.compile(r"(://[^\s:/@]+):[^\s@/]+@"), r"\1:***@"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "***"),
)
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


_WORDS = (
    "token",
    "pass",
    "secret",
    "user_data",
    "key",
    "gaaaa",
    "authorization",
    "cookie",
    "blob",
    "credential",
    "://",
)
"""Every secret has one of these beside it. Most texts have none of them and are not examined further."""
_HINT = re.compile("|".join(map(re.escape, _WORDS)), re.IGNORECASE)


def _may_hold_secrets(text: str) -> bool:
    if not text.isascii():
        return _HINT.search(text) is not None
    folded = text.lower()
    # Looking for one after the other takes a tenth of the pattern's time.
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
        # Each text by itself: a secret that begins in one text must not be taken to end in another.
        return _encode({n: redact(text) if isinstance(text, str) else text for n, text in line.items()}).decode()


_PLAIN = (bool, int, float, str)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


class _Counting(logging.StreamHandler[TextIO]):
    """Counts lines that repeat. `logging` closes it at the end of the process, which writes the last counts."""

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
            f"{name}={_plain(value)}"
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
    """Log as the settings say. Default: on a terminal text from level `on_terminal` on, else JSON from INFO on."""
    terminal = settings.log_file is None and sys.stderr.isatty()
    level = settings.log_level or (on_terminal if terminal else "info")
    as_json = (settings.log_format or ("text" if terminal else "json")) == "json"
    return log_to(settings.log_file, level=logging.getLevelNamesMapping()[level.upper()], as_json=as_json)


def log_to(target: TextIO | Path | None = None, *, level: int = logging.INFO, as_json: bool = True) -> logging.Handler:
    """Send all logs to `target`: a stream (default: standard error), or a file, which is bounded (`web.log_file`).

    Returns the handler, for `end_log`. Raises OSError for a file that cannot be written.
    """
    handler: logging.Handler
    handler = LogFile(target) if isinstance(target, Path) else _Counting(target or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    # Our lines do not show threads and processes, so `logging` need not look them up for each line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # "Optimization" in the logging HOWTO: no walk over the stack
    # uvicorn's two lines for each connection repeat the access log.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # httpx logs whole URLs, and the URL of an image may hold its credential.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return handler


def end_log(handler: logging.Handler) -> None:
    """Send logs there no longer. Writes the last counts of lines that repeat, and closes a file."""
    logging.getLogger().removeHandler(handler)
    handler.close()
