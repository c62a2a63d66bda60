"""The timer of reconcilers that look for servers which need something, and see to one after the other."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Sequence

from cumulet.clock import Clock
from cumulet.conductor import findings
from cumulet.db.engine import Database, Tx
from cumulet.db.reach import is_away
from cumulet.periodic import Periodic

log = logging.getLogger(__name__)


class PerServer(Periodic):
    """There may be thousands of servers to look at or to see to. So it looks in a transaction that only reads, and sees
    to each server in one of its own: what others write never waits for all of them."""

    def __init__(
        self, *, db: Database, name: str, clock: Clock, seconds: float | None, woken: asyncio.Event | None = None
    ) -> None:
        super().__init__(name=name, clock=clock, seconds=seconds, woken=woken)
        self._db = db

    @abstractmethod
    def find(self, tx: Tx) -> Sequence[str]:
        """Ids of the servers that need it now."""

    @abstractmethod
    def see_to(self, tx: Tx, server_id: str) -> None:
        """Look at this one again, because time has passed, and do it."""

    async def round(self) -> None:
        for server_id in await self._db.read_async(self.find):
            try:
                await self._see_to(server_id)
            except Exception as error:
                if is_away(error):
                    raise
                log.exception("%s: server %s failed, will retry", self._name, server_id)
                now_us = self._clock.now_us()
                await findings.note_failure(self._db, self._name, error, now_us=now_us, subject=server_id)

    async def _see_to(self, server_id: str) -> None:
        await self._db.write_async(lambda tx: self.see_to(tx, server_id))
