"""How often a password may be tried: a sliding minute per user and address, the same for users that do not exist."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

from cumulet.clock import Clock
from cumulet.errors import TooManyRequests

WINDOW_SECONDS = 60.0
MOST_KEYS = 50_000


class LoginLimiter:
    """Counts attempts as failures from their start, so that many at once gain nothing; success takes its own back.

    Lives on the event loop's thread. Bounded: under a flood of different keys the one longest untouched is forgotten.
    """

    def __init__(self, clock: Clock, *, failures_per_minute: int) -> None:
        self._clock = clock
        self._limit = failures_per_minute
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def begin(self, user: str, address: str) -> float:
        """Count an attempt, or refuse it with 429. Returns what `succeeded` takes."""
        now = self._clock.monotonic()
        times = self._failures.get((user, address))
        if times is None:
            times = self._failures[user, address] = deque()
            if len(self._failures) > MOST_KEYS:
                self._failures.popitem(last=False)
        self._failures.move_to_end((user, address))
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        if len(times) >= self._limit:
            wait = max(1, math.ceil(times[0] + WINDOW_SECONDS - now))
            raise TooManyRequests("Too many failed logins. Try again later.", headers={"Retry-After": str(wait)})
        times.append(now)
        return now

    def succeeded(self, user: str, address: str, attempt: float) -> None:
        times = self._failures.get((user, address))
        if times is not None and attempt in times:
            times.remove(attempt)
