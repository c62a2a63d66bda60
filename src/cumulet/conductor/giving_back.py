"""What a process that ends as it was told gives back: others need not wait until its leases have run out."""

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
    """Once nothing of it goes on here. A database that does not answer within `seconds` is not waited for."""
    try:
        async with asyncio.timeout(seconds):
            await db.write_async(lambda tx: tx.run(what, values))
    except (DBAPIError, TimeoutError):
        log.warning("%s cannot be given back: it runs out", said, exc_info=True)
