"""When a password ends, and what rules for the next one need to know."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table and a column."""
    op.add_column("identity_users", sa.Column("password_expires_at_us", sa.BigInteger))
    user = sa.ForeignKey("identity_users.id", ondelete="CASCADE")
    op.create_table(
        "identity_password_states",
        sa.Column("user_id", sa.Text, user, primary_key=True),
        sa.Column("set_at_us", sa.BigInteger, nullable=False),
        sa.Column("self_service", sa.Boolean, nullable=False),
        sa.Column("earlier", sa.JSON, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failed_at_us", sa.BigInteger, nullable=False),
    )
