"""Bodies of requests: whole, within bounds of size and time."""

from __future__ import annotations

import asyncio

from cumulet.errors import BadRequest, TooLarge
from cumulet.web import faults
from cumulet.web.asgi import Receive

LARGEST_PUBLIC_BODY = 32_768
"""Bytes of a request's body where no token is asked for: to log in takes no more."""
BODY_SECONDS = 30.0
"""How long a client may take to send a body that is not a stream."""


async def whole_body(receive: Receive, length: bytes | None, largest: int) -> bytes:
    """The body. It is refused as soon as it is known to be too large, or when it takes too long to arrive."""
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
