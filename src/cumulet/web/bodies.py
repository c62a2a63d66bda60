"""Bodies of requests: whole, within bounds of size and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import parse_qsl

from cumulet.errors import BadRequest, TooLarge
from cumulet.web import faults
from cumulet.web.asgi import Receive
from cumulet.web.connections import CONNECTION
from cumulet.web.json_reader import LARGEST_BODY
from cumulet.web.operation import Call

LONG_BODY = 4096
"""Bytes of a body beyond which reading it and judging it are a turn each. Shorter ones have no room for values whose
reading would take long."""
LARGEST_PUBLIC_BODY = 32_768
"""Bytes of the body of a public operation. Logging in needs no more."""
BODY_SECONDS = 30.0
"""How long a client may take to send a body that is not a stream."""
MOST_FIELDS = 64
"""Fields of one form."""


async def whole_body(receive: Receive, length: bytes | None, largest: int) -> bytes:
    """The body. 413 as soon as it is known to be too large, 408 if it takes too long to arrive."""
    if length is not None and length.isdigit() and (len(length) > 12 or int(length) > largest):
        raise _too_large(largest)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequest("Malformed request body", private="the client went away")
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > largest:
                    raise _too_large(largest)
                pieces.append(piece)
                if not message.get("more_body"):
                    return b"".join(pieces)
    except TimeoutError:
        raise faults.RequestTimeout("The request body did not arrive in time.") from None


def _too_large(largest: int) -> TooLarge:
    return TooLarge(f"Request is too large. The largest body is {largest} bytes.")


async def raw_body(call: Call[object, object], largest: int = LARGEST_BODY) -> bytes:
    """The body of an operation with a raw body that is no stream: 413 and 408 as with every other."""
    assert call.request is not None
    length = call.headers.get("content-length")
    known = length.encode("latin-1") if length is not None else None
    return await whole_body(call.request.receive, known, largest)


@contextlib.contextmanager
def streaming(call: Call[object, object]) -> Iterator[None]:
    """Around the reading of a body that is a stream with bounds of its own: its connection is not dropped for others,
    as those are whose bodies are not whole."""
    assert call.request is not None
    link = call.request.scope.get(CONNECTION)
    if link is None:
        yield
        return
    link.stream(True)
    try:
        yield
    finally:
        link.stream(False)


async def read_form(call: Call[object, object]) -> dict[str, str]:
    """The fields of the form sent to a public operation with a raw body. 400 if the body is no form."""
    data = await raw_body(call, LARGEST_PUBLIC_BODY)
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise BadRequest("The request body is no form.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequest("A field of the form is given twice.")
    return fields
