"""Which errors of a database say that it cannot be reached."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError

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
