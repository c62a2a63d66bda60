"""Hosts that answer again and still have guests that they lost while they were down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column that older conductors do not write."""
    op.add_column("hosts", sa.Column("to_clear", sa.Boolean, nullable=False, server_default=sa.false()))
