"""When the password of each user was last right."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column. The users that there are count from now on: nobody knows when they logged in."""
    op.add_column("identity_users", sa.Column("last_active_us", sa.BigInteger))
    users = sa.table("identity_users", sa.column("last_active_us", sa.BigInteger))
    op.execute(users.update().values(last_active_us=time.time_ns() // 1000))
