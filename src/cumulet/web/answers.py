"""Answers as the dispatcher sends them: a status, headers, and a body that is whole or comes in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import cast
from urllib.parse import quote

import msgspec

from cumulet.web.operation import Operation, Reply
from cumulet.web.perform import Encoded

Answer = tuple[int, list[tuple[bytes, bytes]], bytes | AsyncIterator[bytes]]

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_encode = msgspec.json.Encoder().encode


def success(operation: Operation, result: object) -> Answer:
    """The answer for what a handler returned."""
    status = operation.success
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(result, Reply):
        status = result.status or status
        headers = encoded(result.headers)
        result = result.body
    if result is None:
        return status, headers, b""
    if isinstance(result, bytes) or hasattr(result, "__aiter__"):
        if not any(name == b"content-type" for name, _ in headers):
            headers.append((b"content-type", b"application/octet-stream"))
        return status, headers, cast("bytes | AsyncIterator[bytes]", result)
    headers.append((b"content-type", b"application/json"))
    return status, headers, result.content if isinstance(result, Encoded) else _encode(result)


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as they are sent. What is not printable ASCII, such as a tag's name in a URL, is percent-encoded."""
    return [(name.lower().encode(), quote(value, safe=_PRINTABLE).encode()) for name, value in headers.items()]
