"""Extra DHCP options of ports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table of its own."""
    op.create_table(
        "port_dhcp_options",
        sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("opt_name", sa.String(64), primary_key=True),
        sa.Column("ip_version", sa.Integer, primary_key=True),
        sa.Column("opt_value", sa.String(255), nullable=False),
    )
