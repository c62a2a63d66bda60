"""Whether a database can be reached: which of its errors say that it cannot, and a question to it."""

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
"""Beginnings of SQLSTATEs: a connection could not be made or was lost (08); the server stops, starts, or its operator
ended a statement (57); no memory, no connection or no configured room left (53200, 53300, 53400); it takes no changes,
as a standby (25006); it ended a transaction that took too long (25P03, 25P04)."""


class NoAnswer(OperationalError):
    """The database did not answer in time, and nothing was done."""


class OutcomeUnknown(OperationalError):
    """The database stopped answering during a change, which may have been made. The caller has to look first."""


def is_away(error: BaseException) -> bool:
    """Whether a statement or a commit failed because the database could not be reached."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN
    state: str | None = getattr(original, "sqlstate", None)
    if state is None:  # The error is libpq's own: the server said nothing.
        return error.connection_invalidated or isinstance(error, OperationalError)
    return state.startswith(_AWAY)


async def problem_of(database: Database) -> str | None:
    """Why the database cannot be used; None: it answers in time."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await database.read_async(lambda tx: tx.connection.exec_driver_sql("SELECT 1").scalar())
    except Exception:
        log.exception("the database does not answer")
        return "the database does not answer"
    return None
