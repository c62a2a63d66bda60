"""Indexes of living images only, and of deleted ones. Nobody meets a deleted image by its name."""

from __future__ import annotations

from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """In SQL that SQLite and PostgreSQL both read."""
    op.execute("UPDATE images SET name = NULL WHERE deleted_at_us IS NOT NULL")
    op.execute("CREATE INDEX ix_images_living ON images (owner) WHERE deleted_at_us IS NULL")
    op.execute("CREATE INDEX ix_images_living_visibility ON images (visibility) WHERE deleted_at_us IS NULL")
    op.execute("CREATE INDEX ix_images_deleted ON images (deleted_at_us) WHERE deleted_at_us IS NOT NULL")
