"""How a database reports a full disk, and the file that keeps room for deleting."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from cumulet.space import free_bytes

RESERVE_BYTES = 16 << 20
"""The size of a file that is removed when the disk is full: then deleting has this room."""
SPARE = 4
"""The file is made only if so many times its size is free."""
_DISK_FULL = "53100"
"""PostgreSQL's SQLSTATE."""


def is_full(error: BaseException) -> bool:
    """Whether a statement or a commit failed because the database's disk is full."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL or "disk is full" in str(original)
    return getattr(original, "sqlstate", None) == _DISK_FULL


class Reserve:
    """The file that keeps room for deleting."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"

    def fill(self) -> bool:
        """Make the file if it is missing and the disk has room to spare. Returns whether it exists."""
        if self._path.exists():
            return True
        if free_bytes(self._path.parent) < SPARE * RESERVE_BYTES:
            return False
        file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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
