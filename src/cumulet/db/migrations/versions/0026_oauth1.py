"""Consumers and tokens of OAuth 1.0; when a token was revoked, and what else ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def _of(table: str, name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, sa.ForeignKey(f"identity_{table}.id", ondelete="CASCADE"), nullable=nullable)


def upgrade() -> None:
    """Tables of their own, and columns with a default."""
    op.create_table(
        "identity_oauth1_consumers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("description", sa.Text),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("extra", sa.JSON, nullable=False),
    )
    op.create_table(
        "identity_oauth1_request_tokens",
        sa.Column("id", sa.Text, primary_key=True),
        _of("oauth1_consumers", "consumer_id"),
        _of("projects", "project_id"),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
        _of("users", "user_id", nullable=True),
        sa.Column("role_ids", sa.JSON, nullable=False),
        sa.Column("verifier", sa.Text),
    )
    op.create_table(
        "identity_oauth1_access_tokens",
        sa.Column("id", sa.Text, primary_key=True),
        _of("oauth1_consumers", "consumer_id"),
        _of("projects", "project_id"),
        _of("users", "user_id"),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("role_ids", sa.JSON, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "identity_oauth1_nonces",
        sa.Column("digest", sa.Text, primary_key=True),
        _of("oauth1_consumers", "consumer_id"),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    )
    for table in ("request_tokens", "access_tokens"):
        for column in ("consumer_id", "project_id", "user_id"):
            op.create_index(f"ix_identity_oauth1_{table}_{column}", f"identity_oauth1_{table}", [column])
    op.create_index("ix_identity_oauth1_nonces_consumer_id", "identity_oauth1_nonces", ["consumer_id"])
    _revocations()


def _revocations() -> None:
    table = "identity_revoked_tokens"
    op.add_column(table, sa.Column("revoked_at_us", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column(table, sa.Column("kind", sa.Text, nullable=False, server_default="token"))
