"""Whose request the event loop works on next: callers have turns, so that one's many requests wait behind each other.

A turn is the work on one request until it waits for something: its first bytes, the database, a client who reads. In
one pass of the event loop a caller has one turn and `MOST_IN_A_PASS` callers have one; who then still waits comes
first in the next pass, the callers round robin. What a flood costs others is a turn a pass, however many its requests.

Nobody is refused here: a connection has one request at a time, so no more wait than there may be connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

MOST_IN_A_PASS = 4
"""Callers. What belongs to no request, such as the conductor's work, has its place in every pass."""


class Turns:
    """The turns of one event loop. A caller is named by a lane, as in `db.fair_queue`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By lane; the lane whose turn is next comes first."""
        self._had: set[str] = set()
        """Lanes that have had their turn in this pass."""
        self.now = 0
        """Counts passes; as long as it stays the same after `take`, that turn lasts."""

    async def take(self, lane: str) -> int:
        """Wait for the lane's turn. Returns `now`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting, self._had = loop, {}, set()
        if lane in self._had or len(self._had) >= MOST_IN_A_PASS or lane in self._waiting:
            place: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(lane, deque()).append(place)
            await place
        else:
            if not self._had and not self._waiting:
                loop.call_soon(self._next_pass)
            self._had.add(lane)
        return self.now

    def _next_pass(self) -> None:
        self.now += 1
        self._had.clear()
        for lane in list(islice(self._waiting, MOST_IN_A_PASS)):
            places = self._waiting.pop(lane)
            while places and (place := places.popleft()):
                if not place.done():  # or whoever waited was cancelled
                    place.set_result(None)
                    self._had.add(lane)
                    break
            if places:
                self._waiting[lane] = places
        if self._had or self._waiting:
            assert self._loop is not None
            self._loop.call_soon(self._next_pass)
