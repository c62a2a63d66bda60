"""Notices between processes of one PostgreSQL: what a transaction says (`Tx.say`) is heard once it is durable.

They are hints. One that is lost, as all are while the connection is away, costs the time until its hearer looks anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from cumulet.clock import Clock
from cumulet.db.engine import Database
from cumulet.db.postgresql import CONNECTION

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
"""After so long a connection that was lost, or could not be made, is tried again."""


class Listening:
    """Hears what is said on some channels, on a connection of its own, for as long as it is started."""

    def __init__(self, *, db: Database, clock: Clock, hear: Mapping[str, Callable[[str], None]]) -> None:
        """`hear`: by a channel's name, in small letters, what is called on the event loop with each notice's words."""
        self._db = db
        self._clock = clock
        self._hear = hear
        self._task: asyncio.Task[None] | None = None
        self.listens = asyncio.Event()
        """Set while nothing is missed."""

    async def start(self) -> None:
        if not self._db.is_sqlite:
            self._task = asyncio.create_task(self._go_on(), name="notices")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _go_on(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as problem:
                log.warning("notices are not heard, will retry: %r", problem)
            await self._clock.sleep(AGAIN_SECONDS)

    async def _listen(self) -> None:
        from psycopg import AsyncConnection, sql  # Most clouds are on SQLite.

        engine = self._db.engine
        parameters = {**CONNECTION, **engine.dialect.create_connect_args(self._db.url)[1]}
        async with await AsyncConnection.connect(autocommit=True, **parameters) as connection:
            for channel in self._hear:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self.listens.set()
            try:
                async for notice in connection.notifies():
                    self._hear[notice.channel](notice.payload)
            finally:
                self.listens.clear()
