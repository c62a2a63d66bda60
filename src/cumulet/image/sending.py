"""What a client sends as an image's data, in pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

IDLE_SECONDS = 60.0
"""How long an upload may send nothing."""
DRAIN_LIMIT_BYTES = 256 << 20
"""How much of a refused upload is read and discarded: some clients read the answer only after they sent all."""
DRAIN_SECONDS = 30.0
"""How long that is done."""


class Body:
    """The request's body in pieces, and what is left of it after a refusal."""

    def __init__(self, request: Request) -> None:
        self._pieces = aiter(request.stream())

    async def pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self._next()) is not None:
            yield piece

    async def drain(self) -> None:
        from starlette.requests import ClientDisconnect

        left = DRAIN_LIMIT_BYTES
        with contextlib.suppress(ClientDisconnect, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and (piece := await anext(self._pieces, None)) is not None:
                    left -= len(piece)

    async def _next(self) -> bytes | None:
        """The next piece, None at the end; TimeoutError for a client that has stopped sending."""
        async with asyncio.timeout(IDLE_SECONDS):
            return await anext(self._pieces, None)
