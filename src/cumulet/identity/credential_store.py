"""Credentials of users (EC2, TOTP, certificates...) as they are kept: sealed with keys that are in the state folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from sqlalchemy import JSON, Column, ForeignKey, Table, Text, select

from cumulet.clock import Clock
from cumulet.db.engine import Tx, metadata
from cumulet.identity import store
from cumulet.identity.fernet_keys import FernetKeys

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
    """A name for a credential with its content, in tokens made from it: they end when the content changes."""
    return hashlib.sha256(credential_id.encode() + blob).hexdigest()
