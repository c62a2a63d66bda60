"""Whether a database can be reached at all: what its errors say of that, and how it is asked."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, OperationalError

if TYPE_CHECKING:
    from cumulet.db.engine import Database

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
_AWAY = ("08", "57", "53200", "53300", "53400", "25006", "25P03", "25P04")
"""Beginnings of SQLSTATEs: of connections that cannot be made or were lost; of a server that stops, starts, or was told
by its operator to end a statement; that has no memory or no connection left; that takes no changes, as a standby;
that has ended a transaction which took too long."""


class NoAnswer(OperationalError):
    """The database did not answer in time, and nothing was done."""


class OutcomeUnknown(OperationalError):
    """A change was under way when the database stopped answering: it may be made. Whoever goes on looks first."""


def is_away(error: BaseException) -> bool:
    """Whether a statement or a commit failed because there is no way to the database, or none any more."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN
    state: str | None = getattr(original, "sqlstate", None)
    if state is None:  # The server said nothing: libpq itself found no way.
        return error.connection_invalidated or isinstance(error, OperationalError)
    return state.startswith(_AWAY)


async def problem_of(database: Database) -> str | None:
    """None where it answers in time."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await database.read_async(lambda tx: tx.connection.exec_driver_sql("SELECT 1").scalar())
    except Exception:
        log.exception("the database does not answer")
        return "the database does not answer"
    return None
