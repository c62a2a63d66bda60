"""Users of the machine for programs that handle untrusted data: no two programs have the same one at a time.

A note for each that is taken stands in a folder of the machine, so that all processes of all clouds on it agree.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulet.confined import user_ids

IN_USE = Path("/run/cumulet/uids")


class NoUserLeft(Exception):
    """All users that may be given out are taken."""


def take(uids: range, owner: Path) -> int:
    """A user that nobody else has, noted for `owner`: a folder, with which the note ends. The last one of `uids` is
    given to nobody. Raises `NoUserLeft`."""
    with _all_notes_locked():
        for uid in uids[:-1]:
            note = IN_USE / str(uid)
            # One left by a folder that was deleted as a whole is free again.
            if (note.exists() and Path(note.read_text()).exists()) or user_ids.known(uid):
                continue
            note.write_text(str(owner))
            return uid
    raise NoUserLeft


def keep(uid: int, owner: Path) -> None:
    """After a restart of the machine: note again who has this user."""
    with _all_notes_locked():
        (IN_USE / str(uid)).write_text(str(owner))


def give_back(owner: Path) -> None:
    """What is noted for `owner` is free again."""
    with _all_notes_locked():
        for note in IN_USE.iterdir():
            if note.read_text() == str(owner):
                note.unlink()


@contextmanager
def _all_notes_locked() -> Iterator[None]:
    """A lock that all processes of the machine take in turn; one that dies releases it."""
    IN_USE.mkdir(parents=True, exist_ok=True, mode=0o755)
    lock = os.open(IN_USE.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
