"""A host that joined a cloud stays its host: admitted at each start, asking why when cut off, certificates renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cumulet.agent.joining import Membership, Unreachable
from cumulet.host.joining import Granted, Refused

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
CUT_OFF_SECONDS = 5.0
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


async def keep_admitted(membership: Membership, is_connected: Callable[[], bool], session: str) -> None:
    """While cut off from the bus, ask why. Raises Refused: this host was removed, or another machine has its place."""
    while True:
        await asyncio.sleep(CUT_OFF_SECONDS)
        if is_connected():
            continue
        try:
            await membership.claim(session)
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
