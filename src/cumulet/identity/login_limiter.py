"""How often a password may be tried: a sliding minute for each user at each address, and for each user in all.

The same for users that do not exist. Only passwords that were compared, and were wrong, count.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec

from cumulet.clock import Clock
from cumulet.errors import TooManyRequests
from cumulet.web.peer import peer_of

V = TypeVar("V")

WINDOW_SECONDS = 60.0
MOST_KEYS = 50_000
EVERYWHERE = ""
"""In the place of an address: all of them."""


class _Tries(msgspec.Struct, eq=False):
    """Failures by their time, attempts under way, and attempts that wait for one of those to end."""

    failures: deque[float] = msgspec.field(default_factory=deque)
    running: int = 0
    waiting: list[asyncio.Future[None]] = msgspec.field(default_factory=list)


class Attempt(msgspec.Struct, eq=False):
    """One attempt. `right` is set once the password was compared."""

    right: bool | None = None


class LoginLimiter:
    """All attempts under way may fail. So at most as many run at once as may still fail; the others wait. Many attempts
    at once gain nothing, and a right password is not refused because of wrong ones beside it.

    The limit for a user at all addresses does not count addresses where the user has logged in. So guesses from many
    other addresses do not lock the user out there. Lives on the event loop's thread. Bounded: with too many different
    users or addresses, the one that was not used for longest is forgotten.
    """

    def __init__(self, clock: Clock, *, failures_per_minute: int, failures_per_minute_everywhere: int) -> None:
        self._clock = clock
        self._limit = failures_per_minute
        self._limit_everywhere = failures_per_minute_everywhere
        self._tries: OrderedDict[tuple[str, str], _Tries] = OrderedDict()
        self._at_home: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def forget(self) -> None:
        """Forget all failures, and where users are at home: for tests that start over."""
        self._tries.clear()
        self._at_home.clear()

    @contextlib.asynccontextmanager
    async def attempt(self, user: str, address: str) -> AsyncIterator[Attempt]:
        """Around the comparison of a password; raises 429 where `user` failed too often of late."""
        peer = peer_of(address)
        bounds = [(self._tried(user, peer), self._limit)]
        if (user, peer) not in self._at_home:
            bounds.append((self._tried(user, EVERYWHERE), self._limit_everywhere))
        while (full := self._full(bounds)) is not None:
            free = asyncio.get_running_loop().create_future()
            full.waiting.append(free)
            await free
        for tries, _ in bounds:
            tries.running += 1
        attempt = Attempt()
        try:
            yield attempt
        finally:
            for tries, _ in bounds:
                self._ended(tries, attempt)
            if attempt.right:
                _remember(self._at_home, (user, peer), None)

    def _tried(self, user: str, peer: str) -> _Tries:
        return _remember(self._tries, (user, peer), self._tries.get((user, peer)) or _Tries())

    def _full(self, bounds: list[tuple[_Tries, int]]) -> _Tries | None:
        """Where as many run as may still fail."""
        now = self._clock.monotonic()
        for tries, limit in bounds:
            while tries.failures and tries.failures[0] <= now - WINDOW_SECONDS:
                tries.failures.popleft()
            if len(tries.failures) >= limit:
                first = tries.failures[0] if tries.failures else now
                wait = max(1, math.ceil(first + WINDOW_SECONDS - now))
                raise TooManyRequests("Too many failed logins. Try again later.", headers={"Retry-After": str(wait)})
        return next((tries for tries, limit in bounds if len(tries.failures) + tries.running >= limit), None)

    def _ended(self, tries: _Tries, attempt: Attempt) -> None:
        tries.running -= 1
        if attempt.right is False:
            tries.failures.append(self._clock.monotonic())
        for free in tries.waiting:
            if not free.done():
                free.set_result(None)
        tries.waiting.clear()


def _remember(known: OrderedDict[tuple[str, str], V], key: tuple[str, str], value: V) -> V:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MOST_KEYS:
        known.popitem(last=False)
    return value
