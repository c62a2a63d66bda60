"""Logs as JSON lines, with what must stay secret taken out wherever it turns up."""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from typing import TextIO

import msgspec

_encode = msgspec.json.Encoder().encode

_SECRETS = (
    (re.compile(r"gAAAAA[A-Za-z0-9_=-]{20,}"), "***"),
    (
        re.compile(r"(?i)((?:x-(?:auth|subject|service)-token|authorization|cookie)['\"]?\s*[:=]\s*['\"]?)[^\s'\",;]+"),
        r"\1***",
    ),
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
"""What every secret's surroundings hold; most texts hold none of it and need no closer look."""
_HINT = re.compile("|".join(map(re.escape, _WORDS)), re.IGNORECASE)


def redact(text: str) -> str:
    """`text` without tokens, passwords, keys and the passwords in URLs."""
    if text.isascii():
        # Every line has several texts, and looking for words one by one takes a tenth of the pattern's time.
        folded = text.lower()
        for word in _WORDS:
            if word in folded:
                break
        else:
            return text
    elif _HINT.search(text) is None:
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
            "message": redact(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = redact(value) if isinstance(value, str) else _plain(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = redact("".join(traceback.format_exception(*record.exc_info)))
        return _encode(line).decode()


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def log_as_json(stream: TextIO | None = None, *, level: int = logging.INFO) -> logging.Handler:
    """Send all logs to `stream` (default: standard error) as JSON lines; returns the handler, for removing it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    # What no line of ours says need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Two lines a connection that say nothing the access log does not.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return handler
