"""The lease of a simulated host, and its watchdog: the host lives in this process, and so do they."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cumulet.agent.lease import Lease
from cumulet.clock import Clock


class SimulatedWatchdog:
    """`agent.lease.Noted`, and a watchdog that calls `end` once the lease has run out."""

    def __init__(self, clock: Clock, end: Callable[[], None]) -> None:
        self._clock = clock
        self._end = end
        self._ends_at = 0.0
        self._watching: asyncio.Task[None] | None = None

    def now(self) -> float:
        return self._clock.monotonic()

    def left(self) -> float:
        return self._ends_at - self.now()

    def end_at(self, at: float) -> None:
        self._ends_at = at
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="simulated-watchdog")

    async def _watch(self) -> None:
        while (left := self.left()) > 0:
            await self._clock.sleep(left)
        self._end()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)


class SimulatedLease(Lease):
    """`agent.lease.Lease`, which notes nothing on a disk, so it takes no time."""

    async def renew(self, session: str, number: int, heard: int | None) -> None:
        self.asked(session, number, heard)
