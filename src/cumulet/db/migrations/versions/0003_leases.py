"""A lease of an operation is a number that changes, no moment of somebody's wall clock."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of what ran, any number will do: it is seen unchanged, and taken over."""
    op.execute("ALTER TABLE operations RENAME COLUMN lease_until_us TO lease_beat")
    op.execute("ALTER TABLE operations DROP COLUMN not_before_us")
