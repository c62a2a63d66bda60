"""What administrators write beside agents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table."""
    op.create_table(
        "network_agent_descriptions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("description", sa.String(255), nullable=False),
    )
