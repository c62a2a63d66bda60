"""How a database reports a full disk, and the file that keeps room for deleting."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from cumulet.space import free_bytes

log = logging.getLogger(__name__)

RESERVE_BYTES = 16 << 20
"""The size of a file that is removed when the disk is full: then deleting has this room."""
SPARE = 4
"""The file is made only if so many times its size is free."""
_DISK_FULL = "53100"
"""PostgreSQL's SQLSTATE."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException) -> bool:
    """Whether a statement or a commit failed because the database's disk is full."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return _is_full(original)
    return getattr(original, "sqlstate", None) == _DISK_FULL


def is_full_here(error: BaseException) -> bool:
    """Whether a file, SQLite's among them, could not be written because its disk is full."""
    if isinstance(error, DBAPIError):
        return isinstance(error.orig, sqlite3.Error) and _is_full(error.orig)
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def _is_full(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    # The index of the write-ahead log is a file of its own. SQLite says so if that finds no room, and in no other case.
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE or "disk is full" in str(error)


class Reserve:
    """The file that keeps room for deleting, and for a start: what does not run can delete nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"

    def spare(self) -> bool:
        """At a start: give the file away if there is less room than that. Returns whether it exists.

        Room is not tried out, for what finds none in the middle of a start may be another process, or a task that logs
        it and goes on.
        """
        try:
            if free_bytes(self._path.parent) < RESERVE_BYTES and self.give():
                log.warning("the disk of %s is full: the start takes the room kept for deleting", self._path.parent)
        except OSError:
            pass  # A process of another user, or of another machine, may only read there.
        return self._path.exists()

    def fill(self) -> bool:
        """Make the file if it is missing and the disk has room to spare. Returns whether it exists."""
        if self._path.exists():
            return True
        if free_bytes(self._path.parent) < SPARE * RESERVE_BYTES:
            return False
        try:
            file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(file, 0, RESERVE_BYTES)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        finally:
            os.close(file)
        return True

    def give(self) -> bool:
        """Remove the file. False: there was none."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
