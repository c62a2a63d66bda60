"""The database and the clock of a process beside others: PostgreSQL, with a cloud that `cumulet up` has prepared."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from cumulet.clock import Clock
from cumulet.db import schema
from cumulet.db.clock import AskedAgain, DatabaseClock
from cumulet.db.engine import Database
from cumulet.db.schema import OtherState
from cumulet.settings import Settings

NOTHING_PREPARED = "the database holds no cloud of this version: start `cumulet up` on it first"
OTHER_SCHEMA = (
    "the database has schema {there}, and this version of Cumulet knows {here}: where that is newer, run `cumulet "
    "database upgrade` with it; else start the newer version here"
)


async def shared_database(settings: Settings, stack: AsyncExitStack) -> Database:
    """Open the database. Raises OtherState if several processes cannot share it, or if it is of another version."""
    db = Database(settings.database_url)
    stack.push_async_callback(asyncio.to_thread, db.close)
    if db.embedded:
        raise OtherState("a role of its own needs PostgreSQL: a SQLite database belongs to one process")
    there = await asyncio.to_thread(schema.version_of, db)
    if there is None:
        raise OtherState(NOTHING_PREPARED)
    if there != schema.HEAD:
        raise OtherState(OTHER_SCHEMA.format(there=there, here=schema.HEAD))
    return db


async def shared_clock(db: Database, inner: Clock, stack: AsyncExitStack) -> Clock:
    """The database's clock, so that times written by one machine can be compared by another."""
    clock = DatabaseClock(db, inner)
    await clock.ask()
    again = AskedAgain(clock)
    stack.push_async_callback(again.stop)
    await again.start()
    return clock
