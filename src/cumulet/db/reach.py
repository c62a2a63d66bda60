"""Which errors of a database say that it cannot be reached, and which that it wants another try."""

from __future__ import annotations

import sqlite3

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoneFree

_AWAY = ("08", "57", "53200", "53300", "53400", "25006", "25P03", "25P04")
"""Beginnings of SQLSTATEs: a connection could not be made or was lost (08); the server stops, starts, or its operator
ended a statement (57); no memory, no connection or no configured room left (53200, 53300, 53400); it takes no changes,
as a standby (25006); it ended a transaction that took too long (25P03, 25P04)."""


class NoAnswer(OperationalError):
    """The database did not answer in time, and nothing was done."""


class OutcomeUnknown(OperationalError):
    """The database stopped answering during a change, which may have been made. The caller has to look first."""


def connected(engine: Engine) -> Connection:
    """A connection of the engine's pool. NoAnswer: none became free in time."""
    try:
        return engine.connect()
    except NoneFree as late:  # SQLAlchemy's own error, and no DBAPIError.
        raise NoAnswer("", {}, late) from late


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


def asks_for_another_try(error: DBAPIError) -> bool:
    """Whether PostgreSQL asks for a retry: 40001 serialization_failure, 40P01 deadlock_detected."""
    return getattr(error.orig, "sqlstate", None) in ("40001", "40P01")
