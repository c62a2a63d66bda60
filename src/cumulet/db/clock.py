"""The time of a cloud that several machines share is its database's: what one has written, another may compare."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.periodic import Periodic

_NOW = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
ASKED_AGAIN_SECONDS = 60.0
"""Between two askings our monotonic clock counts: a bad one is wrong by some milliseconds in so long."""


class DatabaseClock:
    """`clock.Clock` whose wall time PostgreSQL says; all else is `inner`'s. Ask before the first use."""

    def __init__(self, db: Database, inner: Clock) -> None:
        self._db = db
        self._inner = inner
        self._ahead_us = 0
        """Of our monotonic clock."""

    def ask(self) -> None:
        """Set it by the database. Not for the event loop's thread once it serves."""
        before = self._inner.monotonic()
        said = self._db.read(_said)
        after = self._inner.monotonic()
        self._ahead_us = said - int((before + after) / 2 * 1_000_000)

    def now_us(self) -> int:
        return self._ahead_us + int(self._inner.monotonic() * 1_000_000)

    def monotonic(self) -> float:
        return self._inner.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    def uuid(self) -> str:
        return self._inner.uuid()

    def token_bytes(self, count: int) -> bytes:
        return self._inner.token_bytes(count)

    def random(self) -> float:
        return self._inner.random()


def _said(tx: Tx) -> int:
    return int(tx.scalar(_NOW))


class AskedAgain(Periodic):
    """Keeps a `DatabaseClock` right."""

    def __init__(self, clock: DatabaseClock) -> None:
        super().__init__(name="database-clock", clock=clock, seconds=ASKED_AGAIN_SECONDS)
        self._asked = clock

    async def round(self) -> None:
        """One that cannot be asked is asked in the next."""
        await asyncio.to_thread(self._asked.ask)
