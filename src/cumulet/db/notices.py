"""Notices between processes of one PostgreSQL: what a transaction says to others is heard once it is durable.

They are hints. One that is lost, as all are while the connection is away, costs the time until its hearer looks anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.db.postgresql import CONNECTION

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
"""After so long a connection that was lost, or could not be made, is tried again."""
_SAY = sa.text("SELECT pg_notify(:channel, :words)")


def say(tx: Tx, channel: str, words: str) -> None:
    """To all that listen, after the commit; on SQLite nobody else is there. At most 7,999 bytes."""
    if tx.connection.dialect.name != "sqlite":
        tx.execute(_SAY, {"channel": channel, "words": words})


class Listening:
    """Hears what is said on a channel, on a connection of its own, for as long as it is started."""

    def __init__(self, *, db: Database, clock: Clock, channel: str, hear: Callable[[str], None]) -> None:
        """`channel`: a name in small letters. `hear`: is called on the event loop, with the words of each notice."""
        self._db = db
        self._clock = clock
        self._channel = channel
        self._hear = hear
        self._task: asyncio.Task[None] | None = None
        self.listens = asyncio.Event()
        """Set while nothing is missed."""

    async def start(self) -> None:
        if not self._db.is_sqlite:
            self._task = asyncio.create_task(self._go_on(), name=f"notices-{self._channel}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _go_on(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as problem:
                log.warning("notices on %s are not heard, will retry: %r", self._channel, problem)
            await self._clock.sleep(AGAIN_SECONDS)

    async def _listen(self) -> None:
        from psycopg import AsyncConnection, sql  # Most clouds are on SQLite.

        engine = self._db.engine
        parameters = {**CONNECTION, **engine.dialect.create_connect_args(self._db.url)[1]}
        async with await AsyncConnection.connect(autocommit=True, **parameters) as connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
            self.listens.set()
            try:
                async for notice in connection.notifies():
                    self._hear(notice.payload)
            finally:
                self.listens.clear()
