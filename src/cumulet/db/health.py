"""Whether the database answers: a question to it that needs no table."""

from __future__ import annotations

import asyncio
import logging

from cumulet.db.engine import Database

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0


async def problem_of(database: Database) -> str | None:
    """Why the database cannot be used; None: it answers in time, and what it is asked for is done."""
    if any(not thread.is_alive() for thread in database.threads):
        log.error("a thread of the database has ended: this process must be started again")
        return "the database cannot be written or read by this process"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await database.read_async(lambda tx: tx.connection.exec_driver_sql("SELECT 1").scalar())
    except Exception:
        log.exception("the database does not answer")
        return "the database does not answer"
    return None
