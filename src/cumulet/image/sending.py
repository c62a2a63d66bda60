"""What a client sends as an image's data, in pieces: how slowly, and how many may do so at once.

Each upload has two blocks of memory (`uploads`), so a project and a process have a bounded number of them under way.
What hosts bring, and imports, do not count here: they have bounds of their own, and no client can take their places.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from cumulet.errors import TooManyRequests, Unavailable
from cumulet.space import Space
from cumulet.web.operation import Caller

if TYPE_CHECKING:
    from starlette.requests import Request

IDLE_SECONDS = 60.0
"""How long an upload may send nothing, and how far it may be behind its least rate."""
DRAIN_LIMIT_BYTES = 256 << 20
"""How much of a refused upload is read and discarded: some clients read the answer only after they sent all."""
DRAIN_SECONDS = 30.0
"""How long that is done."""
MOST_OF_ONE = 8
"""Uploads of clients under way in a process, of one project."""
MOST = 64
"""The same of all projects together."""
_AGAIN = {"Retry-After": "10"}


class Places:
    """The uploads of clients under way in a process."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextlib.contextmanager
    def taken(self, caller: Caller) -> Iterator[None]:
        """A place for one more. 429 or 503 if there is none; the image stays as it is, so it can be tried again."""
        who = caller.project_id or caller.user_id
        if self._of[who] >= MOST_OF_ONE:
            raise TooManyRequests(f"{MOST_OF_ONE} uploads of this project are under way.", headers=_AGAIN)
        if self._of.total() >= MOST:
            raise Unavailable("Too many uploads are under way. Try again soon.", headers=_AGAIN)
        self._of[who] += 1
        try:
            yield
        finally:
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]


_places: WeakKeyDictionary[Space, Places] = WeakKeyDictionary()
"""By the process, which has one `Space`."""


def places_of(space: Space) -> Places:
    return _places.setdefault(space, Places())


class Body:
    """The request's body in pieces, and what is left of it after a refusal.

    `least`: bytes of a second, 0 for any. Its sender may be behind this by `IDLE_SECONDS`; what it sent faster before
    does not count. The time that we take for what has come is not its own.
    """

    def __init__(self, request: Request, least: int) -> None:
        self._pieces = aiter(request.stream())
        self._least = least
        self._left = IDLE_SECONDS

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
        """The next piece, None at the end; TimeoutError for a client that has stopped sending, or is too slow."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with asyncio.timeout(self._left):
            piece = await anext(self._pieces, None)
        if self._least and piece is not None:
            gained = len(piece) / self._least
            self._left = min(IDLE_SECONDS, self._left - (loop.time() - asked_at) + gained)
        return piece
