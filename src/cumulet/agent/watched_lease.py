"""A host's lease beside its watchdog, and that of a host without one."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from cumulet.agent import watchdog
from cumulet.agent.agent import HostLease, Unleased
from cumulet.agent.lease import ExpiryFile, Lease

log = logging.getLogger(__name__)


class WatchedLease(Lease):
    """A lease that is renewed only while the watchdog lives. A watchdog that has ended is started again first."""

    def __init__(self, state: Path, *, seconds: float) -> None:
        """TimeoutError: no watchdog starts."""
        file = watchdog.lease_file(state)
        super().__init__(ExpiryFile(file), seconds=seconds)
        self._state = state
        if not file.exists():
            self.begin()  # Guests that ran here without a lease go on.
        watchdog.ensure(state)
        self._watched = True

    @property
    def held(self) -> bool:
        return self._watched and super().held

    def asked(self, session: str, number: int, heard: int | None) -> None:
        try:
            watchdog.ensure(self._state)
        except (TimeoutError, OSError) as problem:
            log.error("guests of this host would not end with its lease, which is not renewed: %s", problem)
            self._watched = False
            return
        self._watched = True
        super().asked(session, number, heard)


class DismissedLease(Unleased):
    """For a host without a watchdog. One of an earlier agent is ended once the control plane knows of the change."""

    def __init__(self, state: Path) -> None:
        self._state = state

    async def welcomed(self) -> None:
        try:
            await asyncio.to_thread(watchdog.dismiss, self._state)
        except (TimeoutError, OSError) as problem:
            log.error("guests of this host end with a lease that nobody renews any more: %s", problem)


async def lease_of(state: Path, seconds: float | None) -> HostLease:
    """The lease of the host with this state folder. `seconds` None: it has no watchdog."""
    if seconds is None:
        return DismissedLease(state)
    return await asyncio.to_thread(WatchedLease, state, seconds=seconds)
