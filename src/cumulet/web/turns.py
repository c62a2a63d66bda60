"""Whose request the event loop works on next: callers have turns, so that one's many requests wait behind each other.

A turn is the work on one request until it waits for something: its first bytes, the database, a client who reads. In
one pass of the event loop a caller has one turn and `MOST_IN_A_PASS` callers have one; who then still waits comes
first in the next pass, the callers round robin. What a flood costs others is a turn a pass, however many its requests.

Requests that are worked on together cost a fifth less than one by one: the processor still has the program at hand. So
a caller has `MOST_OF_ONE_ALONE` turns in a pass as long as nobody else has asked for `ALONE_PASSES` passes.

Nobody is refused here: a connection has one request at a time, so no more wait than there may be connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

MOST_IN_A_PASS = 4
"""Callers. What belongs to no request, such as the conductor's work, has its place in every pass."""
MOST_OF_ONE_ALONE = 8
"""Turns in a pass, of a caller who is alone."""
ALONE_PASSES = 1000
"""After so many passes in which nobody else has asked, a caller is alone: a tenth of a second or more of their work."""


class Turns:
    """The turns of one event loop. A caller is named by a lane, as in `db.fair_queue`."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By lane; the lane whose turn is next comes first."""
        self._had: dict[str, int] = {}
        """How many turns lanes have had in this pass."""
        self._asked_last = ""
        self._alone_since = 0
        """The pass since which nobody but `_asked_last` has asked."""
        self.now = 0
        """Counts passes; as long as it stays the same after `take`, that turn lasts."""

    async def take(self, lane: str) -> int:
        """Wait for the lane's turn. Returns `now`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting, self._had = loop, {}, {}
        if lane != self._asked_last:
            self._asked_last, self._alone_since = lane, self.now
        had = self._had.get(lane, 0)
        if lane in self._waiting or had >= self._most_of_one() or (not had and len(self._had) >= MOST_IN_A_PASS):
            place: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(lane, deque()).append(place)
            await place
        else:
            if not self._had and not self._waiting:
                loop.call_soon(self._next_pass)
            self._had[lane] = had + 1
        return self.now

    def _most_of_one(self) -> int:
        return MOST_OF_ONE_ALONE if self.now - self._alone_since > ALONE_PASSES else 1

    def _next_pass(self) -> None:
        self.now += 1
        self._had.clear()
        most = self._most_of_one()
        for lane in list(islice(self._waiting, MOST_IN_A_PASS)):
            places, given = self._waiting.pop(lane), 0
            while places and given < most:
                place = places.popleft()
                if not place.done():  # or whoever waited was cancelled
                    place.set_result(None)
                    given += 1
            if given:
                self._had[lane] = given
            if places:
                self._waiting[lane] = places
        if self._had or self._waiting:
            assert self._loop is not None
            self._loop.call_soon(self._next_pass)
