"""Bodies of requests: whole, within bounds of size and time."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from cumulet.errors import BadRequest, TooLarge
from cumulet.web import faults
from cumulet.web.asgi import Receive
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


async def read_form(call: Call[object, object]) -> dict[str, str]:
    """The fields of the form sent to a public operation with a raw body. 400 if the body is no form."""
    assert call.request is not None
    length = call.headers.get("content-length")
    known = length.encode("latin-1") if length is not None else None
    data = await whole_body(call.request.receive, known, LARGEST_PUBLIC_BODY)
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise BadRequest("The request body is no form.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequest("A field of the form is given twice.")
    return fields
