"""OAuth 1.0a (OS-OAUTH1) as it is kept: consumers, request tokens and access tokens, their secrets sealed.

A consumer is a program. It gets a request token for a project; a user lets it have some of their roles there; then it
gets an access token in exchange, with which it logs in as that user until the token ends.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Table, Text, select

from cumulet.db.engine import Tx, metadata
from cumulet.identity import store

consumers = Table(
    "identity_oauth1_consumers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("description", Text),
    Column("sealed", Text, nullable=False),
    Column("extra", JSON, nullable=False, default=dict),
)
"""sealed: its secret, as in the two tables below."""

request_tokens = Table(
    "identity_oauth1_request_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("consumer_id", Text, ForeignKey(consumers.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Text, ForeignKey(store.projects.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("sealed", Text, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), index=True),
    Column("role_ids", JSON, nullable=False, default=list),
    Column("verifier", Text),
)
"""user_id, role_ids: who consented, and to which roles. verifier: what that user was told; sealed."""

access_tokens = Table(
    "identity_oauth1_access_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("consumer_id", Text, ForeignKey(consumers.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Text, ForeignKey(store.projects.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("sealed", Text, nullable=False),
    Column("role_ids", JSON, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
)

nonces = Table(
    "identity_oauth1_nonces",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("consumer_id", Text, ForeignKey(consumers.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("expires_at_us", BigInteger, nullable=False),
)
"""Signed requests that were accepted, so that each is accepted once. Kept until they are too old anyway."""


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    description: str | None
    sealed: str
    extra: dict[str, object]


class RequestToken(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    consumer_id: str
    project_id: str
    sealed: str
    expires_at_us: int
    user_id: str | None
    role_ids: list[str]
    verifier: str | None


class AccessToken(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    consumer_id: str
    project_id: str
    user_id: str
    sealed: str
    role_ids: list[str]
    expires_at_us: int


def consumer_by_id(tx: Tx, identifier: str) -> Consumer | None:
    return store.one(tx, Consumer, select(consumers).where(consumers.c.id == identifier))


def request_token_by_id(tx: Tx, identifier: str) -> RequestToken | None:
    return store.one(tx, RequestToken, select(request_tokens).where(request_tokens.c.id == identifier))


def access_token_by_id(tx: Tx, identifier: str) -> AccessToken | None:
    return store.one(tx, AccessToken, select(access_tokens).where(access_tokens.c.id == identifier))
