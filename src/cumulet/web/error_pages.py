"""Errors as a page or as text, for services whose answers follow the request's ``Accept`` (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

HTML, JSON, PLAIN = "text/html", "application/json", "text/plain"

_RANGE = re.compile(r"\s*([A-Za-z0-9!#$&^_.+-]+|\*)/([A-Za-z0-9!#$&^_.+-]+|\*)\s*((?:;[^;,]*)*)", re.ASCII)
_QUALITY = re.compile(r";\s*q=([01](?:\.[0-9]{0,3})?)\s*(?:;|\Z)", re.ASCII | re.IGNORECASE)
MOST_RANGES = 20
"""So many media ranges of a header count."""


def preferred(accept: str, offers: Sequence[str]) -> str | None:
    """The offer that a client prefers, the first of several it likes equally; None: it accepts none."""
    best, quality = None, 0.0
    ranges = [match for match in map(_RANGE.fullmatch, accept.split(",")[:MOST_RANGES]) if match is not None]
    for offer in offers:
        found = _quality(offer, ranges)
        if found > quality:
            best, quality = offer, found
    return best


def _quality(offer: str, ranges: Sequence[re.Match[str]]) -> float:
    """The quality that the most specific matching range gives this offer."""
    kind, _, subtype = offer.partition("/")
    found, narrowest = 0.0, -1
    for match in ranges:
        wanted = (match[1].lower(), match[2].lower())
        if wanted not in ((kind, subtype), (kind, "*"), ("*", "*")):
            continue
        narrow = 2 - wanted.count("*")
        if narrow > narrowest:
            given = _QUALITY.search(match[3])
            found, narrowest = float(given[1]) if given else 1.0, narrow
    return found


def page(status: str, message: str) -> bytes:
    """``status``: ``404 Not Found``."""
    text = escape(message, quote=True)
    body = f"<html>\n <head>\n  <title>{status}</title>\n </head>\n <body>\n  <h1>{status}</h1>\n  {text}<br /><br />\n"
    return f"{body}\n\n\n </body>\n</html>".encode()


def text(status: str, message: str) -> bytes:
    return f"{status}\n\n{message}\n\n".encode()
