"""Rows that count no more since their time is over: deleted each hour, also where nobody asks again."""

from __future__ import annotations

from sqlalchemy import Column, Table, delete, select

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.identity.oauth1_store import access_tokens, nonces, request_tokens
from cumulet.identity.store import revoked_tokens
from cumulet.periodic import Periodic

ROUND_SECONDS = 3600.0
MOST_AT_ONCE = 1000
"""Rows of one transaction, so that others do not wait long for it."""
TABLES: tuple[tuple[Table, Column[str]], ...] = (
    (revoked_tokens, revoked_tokens.c.audit_id),
    (nonces, nonces.c.digest),
    (request_tokens, request_tokens.c.id),
    (access_tokens, access_tokens.c.id),
)
"""Each with its key. All of them have `expires_at_us`."""


class Expired(Periodic):
    """Deletes the rows of `TABLES` that have expired, on a timer."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        super().__init__(name="identity-expired", clock=clock, seconds=ROUND_SECONDS)
        self._db = db

    async def round(self) -> None:
        for table, key in TABLES:
            while await self._delete(table, key) == MOST_AT_ONCE:
                pass

    async def _delete(self, table: Table, key: Column[str]) -> int:
        """One transaction: how many rows were deleted."""
        over = select(key).where(table.c.expires_at_us < self._clock.now_us()).limit(MOST_AT_ONCE)

        def work(tx: Tx) -> int:
            keys = [row[0] for row in tx.all(over)]
            return tx.changed(delete(table).where(key.in_(keys))) if keys else 0

        deleted: int = await self._db.write_async(work)
        return deleted
