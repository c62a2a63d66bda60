"""A state folder and a database belong together: what only one of them knows would be taken for left over, and removed.

Once a cloud has begun, its folder says which one it is, so that a start with another database changes nothing.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from cumulet.db import schema
from cumulet.db.engine import Database, Tx, database_file
from cumulet.db.schema import OtherState
from cumulet.identity import store
from cumulet.identity.api import DEFAULT_DOMAIN_ID
from cumulet.owned import write_whole
from cumulet.part import SEEDED

FIRST_ROLE = "admin"
"""Its id is made at random with the cloud, and goes where the records go. Who removes it, or names it otherwise, has no
mark any more, and starts as before."""
NO_RECORDS = (
    "{state} is the folder of a cloud whose records are not here: there is no cloud in {place}. Name its database with "
    "--database, or, to begin a new cloud, an empty folder with --state"
)
OTHER_RECORDS = (
    "{state} is the folder of another cloud than that in {place}. Name its own database with --database, or this "
    "cloud's own folder with --state"
)
NO_KEYS = (
    "{place} holds a cloud, and none of its keys are in {state}: its folder is elsewhere. Mount that or name it with "
    "--state, or restore it first (`cumulet restore`)"
)
KEYS = ("ca/ca-key.pem", "fernet-keys")
"""A cloud has both before it has records. An operator may take one of them away, to have a new one made."""


def require_keys(state: Path, url: str) -> None:
    """Raise OtherState where the cloud in this database has no key in this folder: one that is not mounted, not
    restored yet, or not the cloud's. A start there would make new passwords and keys, and open nothing that was sealed
    before. Changes nothing."""
    if not any((state / key).exists() for key in KEYS) and _cloud_at(url) is not None:
        raise OtherState(NO_KEYS.format(state=state, place=_place(url)))


def require_same_cloud(state: Path, url: str) -> None:
    """Raise OtherState unless the cloud of this folder, if it has one, is the one in this database. Changes nothing."""
    mark = state / SEEDED
    if not mark.exists():
        return
    known, found, place = mark.read_text(encoding="ascii").strip(), _cloud_at(url), _place(url)
    if found is None:
        raise OtherState(NO_RECORDS.format(state=state, place=place))
    if known and found and known != found:
        raise OtherState(OTHER_RECORDS.format(state=state, place=place))


def note_cloud(state: Path, database: Database) -> None:
    """Let the folder of a cloud that has begun say which one it is."""
    mark = state / SEEDED
    if mark.exists() and not mark.read_text(encoding="ascii") and (cloud := database.read(_cloud)):
        write_whole(mark, f"{cloud}\n".encode("ascii"))


def _place(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)


def _cloud_at(url: str) -> str | None:
    file = database_file(url)
    if file is not None and not file.exists():
        return None
    database = Database(url)
    try:
        return None if schema.version_of(database) is None else database.read(_cloud)
    finally:
        database.close()


def _cloud(tx: Tx) -> str | None:
    """The id of its first role, empty if that is gone; None: no cloud has begun here."""
    if store.domain_by_id(tx, DEFAULT_DOMAIN_ID) is None:
        return None
    of = (store.roles.c.name == FIRST_ROLE) & store.roles.c.domain_id.is_(None)
    found: str | None = tx.scalar(sa.select(store.roles.c.id).where(of))
    return found or ""
