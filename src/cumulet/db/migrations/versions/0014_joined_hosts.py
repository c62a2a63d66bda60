"""Hosts on other machines, that join with a token and a key of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "joined_hosts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("identity", sa.String(128), nullable=False, unique=True),
        sa.Column("token_sha256", sa.String(64), unique=True),
        sa.Column("token_ends_at_us", sa.BigInteger),
        sa.Column("key_sha256", sa.String(64)),
        sa.Column("machine", sa.String(128)),
        sa.Column("session", sa.String(128)),
        sa.Column("added_at_us", sa.BigInteger, nullable=False),
        sa.Column("joined_at_us", sa.BigInteger),
    )
