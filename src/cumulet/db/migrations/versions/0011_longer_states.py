"""Room for `shelved_offloaded` among the states of servers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """SQLite keeps to no length."""
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("servers", "vm_state", type_=sa.String(32), existing_nullable=False)
