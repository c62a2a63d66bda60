"""Users' credentials (EC2, TOTP, certificates...) as they are kept: sealed with keys of their own, in the state folder.

The keys rotate at a start, once the present one has sealed for `ROTATE_AFTER_SECONDS`: first everything is sealed anew
with the present key, then the next one takes over. So a key that is destroyed has nothing left under it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from sqlalchemy import JSON, Column, ForeignKey, Table, Text, select, update

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx, metadata
from cumulet.identity import store
from cumulet.identity.fernet_keys import FernetKeys
from cumulet.settings import Settings

ROTATE_AFTER_SECONDS = 30 * 24 * 3600

credentials = Table(
    "identity_credentials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Text, index=True),
    Column("type", Text, nullable=False),
    Column("sealed", Text, nullable=False),
    Column("extra", JSON, nullable=False, default=dict),
)
"""sealed: what the API calls `blob`. A project that is gone takes its credentials with it."""


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user_id: str
    project_id: str | None
    type: str
    sealed: str
    extra: dict[str, object]


def credential_keys(state_dir: Path, clock: Clock) -> FernetKeys:
    return FernetKeys(state_dir / "credential-keys", clock, rotates=False)


def rotate_keys(db: Database, settings: Settings, clock: Clock) -> None:
    """At a start: rotate the keys if they are old."""
    if not (settings.state_dir / "credential-keys").exists():
        return
    keys = credential_keys(settings.state_dir, clock)
    if keys.age_seconds() > ROTATE_AFTER_SECONDS:
        db.write(lambda tx: _seal_anew(tx, keys))
        keys.rotate()


_SEALED: list[tuple[Column[str], Column[str]]] = [(credentials.c.id, credentials.c.sealed)]
"""Each table's key, and a column of it that is sealed with these keys."""


def also_sealed(key: Column[str], column: Column[str]) -> None:
    """Another column that is sealed with the keys of credentials, and rotates with them."""
    _SEALED.append((key, column))


def _seal_anew(tx: Tx, keys: FernetKeys) -> None:
    for key, column in _SEALED:
        for row in tx.all(select(key.label("key"), column.label("sealed")).where(column.is_not(None))):
            opened = keys.open(row.sealed)
            if opened is not None:
                tx.execute(update(column.table).where(key == row.key).values({column: keys.seal(opened)}))


def credential_by_id(tx: Tx, identifier: str) -> Credential | None:
    return store.one(tx, Credential, select(credentials).where(credentials.c.id == identifier))


def credentials_of(tx: Tx, user_id: str, kind: str) -> list[Credential]:
    c = credentials.c
    statement = select(credentials).where(c.user_id == user_id, c.type == kind).order_by(c.id)
    return store.many(tx, Credential, statement)


def id_of_access(access: str) -> str:
    """The id of an EC2 credential, from its access key."""
    return hashlib.sha256(access.encode("utf-8", "surrogatepass")).hexdigest()


def id_of_content(credential_id: str, blob: bytes) -> str:
    """What a token made from a credential names: it ends when the credential holds something else or is gone."""
    return hashlib.sha256(credential_id.encode() + blob).hexdigest()
