"""Leases that a process gives back, so that others need not wait until they have run out: it is told to stop, or has
lost the bus."""

from __future__ import annotations

import asyncio
import logging

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.conductor.saga import operations
from cumulet.db.engine import Database, Tx

log = logging.getLogger(__name__)

OPERATIONS = (
    sa.update(operations)
    .where(operations.c.lease_owner == sa.bindparam("of_owner"), operations.c.ended_at_us.is_(None))
    .values(lease_owner=None)
)


async def give_back(
    db: Database,
    what: sa.Update | sa.Delete,
    values: dict[str, object],
    *,
    seconds: float,
    said: str,
    channel: str | None = None,
) -> bool:
    """Give a lease back; its work here must have ended. Who listens on `channel` is told. False if the database does
    not answer within `seconds`."""

    def give(tx: Tx) -> None:
        if tx.changed(what, values) and channel is not None:
            tx.say(channel, "")

    try:
        async with asyncio.timeout(seconds):
            await db.write_async(give)
    except (DBAPIError, TimeoutError):
        log.warning("cannot give back %s: others wait until it has run out", said, exc_info=True)
        return False
    return True
