"""Findings are about subjects of any kind, operations say of which kind theirs is, and being the one that looks after
hosts is a lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE findings RENAME COLUMN server_id TO subject")
    op.add_column("operations", sa.Column("kind", sa.String(32), nullable=False, server_default="server"))
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
