"""A host that joined a cloud stays its host: admitted at each start, asking why when cut off, certificates renewed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from cumulet.agent.joining import Membership, Unreachable
from cumulet.host.joining import Granted, Refused

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
CUT_OFF_SECONDS = 5.0
QUIET_SECONDS = 60.0
"""An agent that is connected, but was not asked anything for so long, may be where its cloud no longer is."""
RENEWAL_LOOK_SECONDS = 3600.0


async def granted_to(membership: Membership, session: str) -> Granted:
    """Ask until the cloud answers. Raises Refused if asking again cannot help."""
    told = ""
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
        await asyncio.sleep(AGAIN_SECONDS)


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
    asked_at = time.monotonic()
    while True:
        await asyncio.sleep(CUT_OFF_SECONDS)
        if bus.is_connected and min(bus.quiet_seconds, time.monotonic() - asked_at) < QUIET_SECONDS:
            continue
        asked_at = time.monotonic()
        try:
            await bus.move_to((await membership.claim(session)).bus)
        except Unreachable as problem:
            log.info("%s", problem)
        except Refused as refused:
            if not refused.refusal.again:
                raise


async def keep_renewed(membership: Membership) -> None:
    while True:
        if membership.needs_renewal():
            try:
                await membership.renew()
                log.info("certificates are renewed")
            except (Refused, Unreachable) as problem:
                log.warning("certificates are not renewed: %s", problem)
        await asyncio.sleep(RENEWAL_LOOK_SECONDS)
