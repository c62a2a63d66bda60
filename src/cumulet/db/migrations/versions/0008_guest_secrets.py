"""What only a guest is told - its administrator's password, the seed of its random numbers - and its key's type."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Servers that are there have none: their config drives stay as they were made."""
    op.add_column("servers", sa.Column("key_type", sa.String(8)))
    op.add_column("servers", sa.Column("guest_secrets", sa.JSON(none_as_null=True)))
