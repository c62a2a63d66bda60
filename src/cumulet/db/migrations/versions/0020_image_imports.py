"""Imports of images: their tasks, and which one an image is being imported by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table and two columns."""
    op.add_column("images", sa.Column("import_task_id", sa.String(36)))
    op.add_column("images", sa.Column("import_failed", sa.Boolean))
    op.create_table(
        "image_tasks",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("image_id", sa.String(36), nullable=False),
        sa.Column("user_id", sa.String(255)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger),
    )
    op.create_index("ix_image_tasks_owner", "image_tasks", ["owner"])
    op.create_index("ix_image_tasks_image_id", "image_tasks", ["image_id"])
