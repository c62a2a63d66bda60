"""Checkers for the JSON schema formats that bodies use; jsonschema-rs passes a format it has no checker for."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import unicodedata
import uuid
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?\Z", re.ASCII)


def is_uuid(text: str) -> bool:
    """A UUID as OpenStack takes it: hyphens may be missing, case does not matter."""
    try:
        return uuid.UUID(text).hex == text.replace("-", "").lower().removeprefix("urn:uuid:").strip("{}")
    except ValueError:
        return False


def is_date_time(text: str) -> bool:
    if _DATE_TIME.match(text) is None:
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def is_ipv6(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def is_cidr(text: str) -> bool:
    if "/" not in text or re.search(r"\s", text):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_uri(text: str) -> bool:
    if not text.isascii() or re.search(r"[\x00-\x20\x7f<>\"{}|\\^`]", text):
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port >= 0)
    except ValueError:
        return False


def is_hostname(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(_HOST_LABEL.match(label) for label in labels)


def is_base64(text: str) -> bool:
    """Standard alphabet, padding required; line breaks are allowed, as MIME encoders write them."""
    try:
        base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_printable(text: str) -> bool:
    """No control characters and no separators except spaces (Unicode categories C*, Zl, Zp)."""
    if text.isascii():
        return text.isprintable()
    for char in text:
        category = unicodedata.category(char)
        if category[0] == "C" or category in ("Zl", "Zp"):
            return False
    return True


_BREAKS = ("Cc", "Zl", "Zp")
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction in which a text is shown, so that it looks like another one. Other format characters, such
as joiners and the marks of a direction, are needed to write some languages."""


def is_one_line(text: str) -> bool:
    """No control characters, no separators of lines (Unicode categories Cc, Zl, Zp), and no turns of direction."""
    if text.isprintable():
        return True
    return _DIRECTIONS.isdisjoint(text) and not any(unicodedata.category(char) in _BREAKS for char in text)


def is_name(text: str) -> bool:
    """Nova's names: printable, no white space at either end. The empty string is left to minLength."""
    return _is_printable(text) and text.strip() == text


def is_spaced_name(text: str) -> bool:
    """Names where spaces at the ends are cut off afterwards, but something must remain."""
    return _is_printable(text) and bool(text.strip())


def is_zone_name(text: str) -> bool:
    return is_name(text) and ":" not in text


def _for_text(check: Callable[[str], bool]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or check(value)


FORMATS: dict[str, Callable[[object], bool]] = {
    name: _for_text(check)
    for name, check in {
        "uuid": is_uuid,
        "date-time": is_date_time,
        "ipv4": is_ipv4,
        "ipv6": is_ipv6,
        "cidr": is_cidr,
        "uri": is_uri,
        "hostname": is_hostname,
        "base64": is_base64,
        "one line": is_one_line,
        "name": is_name,
        "name_with_leading_trailing_spaces": is_spaced_name,
        "az_name": is_zone_name,
    }.items()
}
"""Every format a schema may name; a schema naming another one is refused when it is compiled."""

NAME_REASONS = {
    "name": "An invalid 'name' value was provided. The name must be: printable characters. "
    "Can not start or end with whitespace.",
    "name_with_leading_trailing_spaces": "An invalid 'name' value was provided. The name must be: "
    "printable characters with at least one non space character",
    "az_name": "An invalid 'name' value was provided. The name must be: printable characters except :. "
    "Can not start or end with whitespace.",
}
"""What Nova says, without naming the field, when a name is refused."""
