"""Users' credentials, sealed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table."""
    op.create_table(
        "identity_credentials",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, sa.ForeignKey("identity_users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("project_id", sa.Text),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("extra", sa.JSON, nullable=False),
    )
    for column in ("user_id", "project_id"):
        op.create_index(f"ix_identity_credentials_{column}", "identity_credentials", [column])
