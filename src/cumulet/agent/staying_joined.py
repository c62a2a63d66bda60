"""A host that joined a cloud stays its host: admitted at each start, asking why when cut off, certificates renewed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from cumulet.agent.joining import Membership, Unreachable
from cumulet.clock import Clock, SystemClock
from cumulet.host.joining import Granted, Refused

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
CUT_OFF_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0
"""A cloud that was away is asked by all its hosts: each waits twice as long before another attempt, up to this, and not
as long as the others."""
QUIET_SECONDS = 60.0
"""An agent that is connected, but was not asked anything for so long, may be where its cloud no longer is."""
RENEWAL_LOOK_SECONDS = 3600.0


class Pauses:
    """Between attempts."""

    def __init__(self, first_seconds: float, clock: Clock | None = None) -> None:
        self._first = self._next = first_seconds
        self._clock = clock or SystemClock()

    def next(self) -> float:
        pause, self._next = self._next, min(2 * self._next, LONGEST_PAUSE_SECONDS)
        return pause * (0.5 + self._clock.random() / 2)

    def begin_anew(self) -> None:
        self._next = self._first


async def granted_to(membership: Membership, session: str) -> Granted:
    """Ask until the cloud answers. Raises Refused if asking again cannot help."""
    told, pauses = "", Pauses(AGAIN_SECONDS)
    while True:
        try:
            return await membership.claim(session)
        except Unreachable as problem:
            words = str(problem)
        except Refused as refused:
            if not refused.refusal.again:
                raise
            words = str(refused)
        if words != told:
            log.warning("%s; trying again", words)
        told = words
        await asyncio.sleep(pauses.next())


class OnBus(Protocol):
    """The agent's connection to the bus, as `keep_admitted` sees it."""

    @property
    def is_connected(self) -> bool: ...
    @property
    def quiet_seconds(self) -> float: ...
    async def move_to(self, servers: Sequence[str]) -> None: ...


async def keep_admitted(membership: Membership, bus: OnBus, session: str) -> None:
    """While cut off from the bus, or not asked anything for long, ask why, and where the bus is now. Raises Refused:
    this host was removed, or another machine has its place."""
    asked_at, pauses = time.monotonic(), Pauses(CUT_OFF_SECONDS)
    while True:
        await asyncio.sleep(pauses.next())
        if bus.is_connected:
            pauses.begin_anew()
            if min(bus.quiet_seconds, time.monotonic() - asked_at) < QUIET_SECONDS:
                continue
        asked_at = time.monotonic()
        try:
            await bus.move_to((await membership.claim(session)).bus)
        except (Unreachable, OSError) as problem:
            log.info("%s", in_words(problem))
        except Refused as refused:
            if not refused.refusal.again:
                raise


async def keep_renewed(membership: Membership) -> None:
    """Whatever keeps the certificate from being renewed, such as a full disk, has ended by a later look: there are ten
    days for it. It is said once."""
    told = ""
    while True:
        try:
            if membership.needs_renewal():
                await membership.renew()
                log.info("certificates are renewed")
                told = ""
        except (Refused, Unreachable, OSError) as problem:
            words = in_words(problem)
            if words != told:
                log.warning("certificates are not renewed, will retry: %s", words)
            told = words
        await asyncio.sleep(RENEWAL_LOOK_SECONDS)


def in_words(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror is not None:
        return f"{problem.filename}: {problem.strerror}" if problem.filename is not None else problem.strerror
    return str(problem)
