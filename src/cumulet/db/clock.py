"""Several machines of one cloud take the time from its database, so they can compare the times that others wrote."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.periodic import Periodic

_NOW = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
ASKED_AGAIN_SECONDS = 60.0
"""Between two questions the own monotonic clock counts. In so long, a bad one is wrong by some milliseconds."""


class DatabaseClock:
    """A `clock.Clock` with PostgreSQL's wall time; all else is `inner`'s. Call `ask` before the first use."""

    def __init__(self, db: Database, inner: Clock) -> None:
        self._db = db
        self._inner = inner
        self._ahead_us = 0
        """The database's wall time minus the own monotonic clock."""

    async def ask(self) -> None:
        """Ask the database for the time."""
        self._ahead_us = await self._db.read_async(self._ahead)

    def _ahead(self, tx: Tx) -> int:
        """How long it waits for a thread and a connection does not count."""
        before = self._inner.monotonic()
        said = time_of(tx)
        after = self._inner.monotonic()
        return said - int((before + after) / 2 * 1_000_000)

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


def time_of(tx: Tx) -> int:
    """PostgreSQL's wall time, in microseconds since the epoch."""
    return int(tx.scalar(_NOW))


class AskedAgain(Periodic):
    """Keeps a `DatabaseClock` right."""

    def __init__(self, clock: DatabaseClock) -> None:
        super().__init__(name="database-clock", clock=clock, seconds=ASKED_AGAIN_SECONDS)
        self._asked = clock

    async def round(self) -> None:
        """If the database does not answer, the next round asks again."""
        await self._asked.ask()
