"""A process that is told to stop gives its leases back, so that others need not wait until they have run out."""

from __future__ import annotations

import asyncio
import logging

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.conductor.saga import operations
from cumulet.db.engine import Database

log = logging.getLogger(__name__)

OPERATIONS = (
    sa.update(operations)
    .where(operations.c.lease_owner == sa.bindparam("of_owner"), operations.c.ended_at_us.is_(None))
    .values(lease_owner=None)
)


async def give_back(
    db: Database, what: sa.Update | sa.Delete, values: dict[str, object], *, seconds: float, said: str
) -> None:
    """Give a lease back; its work here must have ended. Gives up if the database does not answer within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await db.write_async(lambda tx: tx.run(what, values))
    except (DBAPIError, TimeoutError):
        log.warning("cannot give back %s: others wait until it has run out", said, exc_info=True)
