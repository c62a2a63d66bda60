"""Whose request the event loop works on next: callers have turns, so that one's many requests wait behind each other.

A turn is the work on one request until it waits for something: its first bytes, the database, a client who reads. In
one pass of the event loop a caller has one turn and `MOST_IN_A_PASS` callers have one; who then still waits comes
first in the next pass, the callers round robin. What a flood costs others is a turn a pass, however many its requests.

Turns differ in length, so callers are charged for them, and for what the database's threads compute for them: only one
thread of the interpreter computes at a time. A caller may be `FREE_SECONDS` ahead of half of the time. Who is further
ahead has no turn as long as another caller asked a moment ago. Who has computed for long is `MOST_AHEAD_SECONDS` ahead,
so somebody who comes finds the loop free for the difference. Nobody waits where nobody else asks.

Requests that are worked on together cost a fifth less than one by one: the processor still has the program at hand. So
a caller has `MOST_OF_ONE_ALONE` turns in a pass as long as nobody else has asked for `ALONE_PASSES` passes.

While a guest stands still in its move, whoever is ahead waits until it runs (`cumulet.standstill`).

Nobody is refused here: a connection has one request at a time, so no more wait than there may be connections.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

MOST_IN_A_PASS = 4
"""Callers. What belongs to no request, such as the conductor's work, has its place in every pass."""
MOST_OF_ONE_ALONE = 8
"""Turns in a pass, of a caller who is alone."""
ALONE_PASSES = 1000
"""After so many passes in which nobody else has asked, a caller is alone: a tenth of a second or more of their work."""
LONGER = 2
"""How many times as long as a turn its caller is behind afterwards: half of the time is left to others."""
FREE_SECONDS = 0.004
"""So far ahead of half of the loop's time a caller waits for nobody: a few requests in a row."""
MOST_AHEAD_SECONDS = 0.008
RECENT_SECONDS = 0.05
"""For so long after one has asked, others who are ahead wait: a request asks again after each wait, as for the disk."""
MOST_CHARGED = 10_000
"""Callers that may be ahead at once before those who are not any more are forgotten."""


class _Asked(msgspec.Struct):
    """Who asked, and when."""

    lane: str = ""
    at: float = float("-inf")


class Turns:
    """The turns of one event loop, by its clock. A caller is named by a lane, as in `db.fair_queue`."""

    def __init__(self) -> None:
        self.now = 0
        """Counts passes; as long as it stays the same after `take`, that turn lasts."""
        self._noted: deque[tuple[str, float]] = deque()
        """Lanes and seconds to charge them for."""
        self._begin(None)

    def _begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By lane; the lane whose turn is next comes first."""
        self._had: dict[str, int] = {}
        """How many turns lanes have had in this pass."""
        self._ahead_until: dict[str, float] = {}
        """By lane: when it is ahead no more."""
        self._charged, self._since = "", 0.0
        """The lane whose turn lasts, and since when."""
        self._last, self._before = _Asked(), _Asked()
        """Who asked last, and who before them; they are two lanes."""
        self._alone_since = self.now
        """The pass since which nobody but `_last`'s lane has asked."""
        self._make_way: set[str] = set()
        """Lanes that have no turn until `_way_until`."""
        self._way_until = float("-inf")
        self._next: asyncio.Handle | None = None
        """The end of this pass; a timer if all who wait are ahead."""

    async def take(self, lane: str) -> int:
        """Wait for the lane's turn. Returns `now`."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin(loop)
        at = loop.time()
        if lane != self._last.lane:
            self._before, self._last = self._last, _Asked(lane)
            self._alone_since = self.now
        self._last.at = at
        had = self._had.get(lane, 0)
        full = had >= self._most_of_one() or (not had and len(self._had) >= MOST_IN_A_PASS)
        wait = self._wait(lane, at)
        if full or lane in self._waiting or wait > 0:
            place: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(lane, deque()).append(place)
            if self._next is None or self._next_is_after(at + wait):
                self._end_pass(loop.call_later(wait, self._next_pass))
            await place
        else:
            self._had[lane] = had + 1
            if self._next is None or self._next_is_after(at):
                self._end_pass(loop.call_soon(self._next_pass))
        self._charge(lane)
        return self.now

    def _most_of_one(self) -> int:
        return MOST_OF_ONE_ALONE if self.now - self._alone_since > ALONE_PASSES else 1

    def busy(self) -> bool:
        """Whether a pass with turns in it lasts. From any thread."""
        return self._next is not None and not isinstance(self._next, asyncio.TimerHandle)

    # -- what turns cost

    def make_way(self, seconds: float) -> None:
        """For so long whoever is ahead, or comes to be too far ahead, has no turn. 0: no longer."""
        if self._loop is None:
            return
        at = self._loop.time()
        self._way_until = at + seconds
        self._make_way = {lane for lane, until in self._ahead_until.items() if until > at} if seconds else set()
        if self._waiting and not seconds:
            self._end_pass(self._loop.call_soon(self._next_pass))

    def note(self, lane: str, seconds: float) -> None:
        """A thread has computed so long for the lane. From any thread."""
        self._noted.append((lane, seconds))

    def _charge(self, lane: str) -> None:
        """A turn of `lane` begins (of nobody: ""), so the one before has ended."""
        assert self._loop is not None
        at = self._loop.time()
        if self._charged:
            self._noted.append((self._charged, at - self._since))
        self._charged, self._since = lane, at
        while self._noted:
            self._put_ahead(*self._noted.popleft(), at)
        if len(self._ahead_until) > MOST_CHARGED:
            self._ahead_until = {one: until for one, until in self._ahead_until.items() if until > at}

    def _put_ahead(self, lane: str, lasted: float, at: float) -> None:
        until = max(at - lasted, self._ahead_until.get(lane, 0.0)) + LONGER * lasted
        self._ahead_until[lane] = min(until, at + max(MOST_AHEAD_SECONDS, FREE_SECONDS + lasted))

    def _wait(self, lane: str, at: float) -> float:
        """Seconds until it may have a turn: until it is not too far ahead, or nobody else has asked for a while."""
        other = self._before if lane == self._last.lane else self._last
        too_far = self._ahead_until.get(lane, at) - FREE_SECONDS - at
        if at < self._way_until and (too_far > 0 or lane in self._make_way):
            self._make_way.add(lane)
            return self._way_until - at
        return min(too_far, other.at + RECENT_SECONDS - at)

    # -- passes

    def _end_pass(self, by: asyncio.Handle) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = by

    def _next_is_after(self, at: float) -> bool:
        return isinstance(self._next, asyncio.TimerHandle) and self._next.when() > at

    def _next_pass(self) -> None:
        assert self._loop is not None
        self._charge("")
        self._next = None
        self.now += 1
        self._had.clear()
        at, most, soonest = self._loop.time(), self._most_of_one(), RECENT_SECONDS
        for lane in list(self._waiting):
            if (wait := self._wait(lane, at)) > 0:
                soonest = min(soonest, wait)
                continue
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
            if len(self._had) == MOST_IN_A_PASS:
                break
        if self._had:
            self._end_pass(self._loop.call_soon(self._next_pass))
        elif self._waiting:
            self._end_pass(self._loop.call_later(soonest, self._next_pass))
