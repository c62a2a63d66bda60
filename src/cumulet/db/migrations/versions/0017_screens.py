"""Tokens of console addresses say what they are for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The table is made anew: what was in it is good for a minute at most."""
    op.drop_table("console_tokens")
    op.create_table(
        "console_tokens",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("server_id", sa.String(36), nullable=False),
        sa.Column("protocol", sa.String(16), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_console_tokens_server_id", "console_tokens", ["server_id", "expires_at_us"])
