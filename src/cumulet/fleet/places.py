"""Places at a door, for transfers or questions: so many in all, few of one host, given fairly to hosts that wait."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable


class Busy(Exception):
    """There is no place: too many of this host wait already, or it has waited too long."""


class Places:
    """`most` in all and `most_of_one` of a host. So many of a host may wait, each for `wait_seconds` at most. A place
    goes to a host that has the fewest; of those, to the one that waits longest since it came or had its turn."""

    def __init__(self, *, most: int, most_of_one: int, most_waiting_of_one: int, wait_seconds: float) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._most_waiting_of_one = most_waiting_of_one
        self._wait_seconds = wait_seconds
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By host, in the order of their turns."""

    @contextlib.asynccontextmanager
    async def place(
        self, host: str, *, say_seconds: float = math.inf, say: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Have a place in the block. While it waits, `say` is called every `say_seconds`. Raises Busy, and what `say`
        raises."""
        waiting = self._waiting.setdefault(host, deque())
        if len(waiting) >= self._most_waiting_of_one:
            raise Busy(f"{len(waiting)} of {host} wait already")
        given = asyncio.get_running_loop().create_future()
        waiting.append(given)
        self._give()
        try:
            await self._wait(given, host, say_seconds, say)
            yield
        finally:
            if given.done():
                self._held[host] -= 1
            else:
                waiting.remove(given)
            self._give()

    async def _wait(
        self,
        given: asyncio.Future[None],
        host: str,
        say_seconds: float,
        say: Callable[[], Awaitable[None]] | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_seconds
        while not given.done():
            left = until - loop.time()
            if left <= 0:
                raise Busy(f"no place for {host} in {self._wait_seconds:.0f} s")
            await asyncio.wait((given,), timeout=min(say_seconds, left))
            if not given.done() and say is not None:
                await say()

    def _give(self) -> None:
        """Give what is free; then forget who has nothing and waits for nothing."""
        while self._held.total() < self._most:
            may = [host for host, queue in self._waiting.items() if queue and self._held[host] < self._most_of_one]
            if not may:
                break
            host = min(may, key=self._held.__getitem__)
            self._held[host] += 1
            queue = self._waiting.pop(host)
            queue.popleft().set_result(None)
            self._waiting[host] = queue
        for host in [host for host, queue in self._waiting.items() if not queue]:
            del self._waiting[host]
        self._held += Counter()  # Without those that hold none.
