"""Deleted servers are kept without what their users wrote at any length."""

from __future__ import annotations

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Only data. An older process still keeps these of servers that it deletes."""
    op.execute(
        "UPDATE servers SET image_properties = '{}', public_key = NULL, user_data = NULL, metadata = '{}',"
        " scheduler_hints = '{}' WHERE deleted_at_us IS NOT NULL"
    )
