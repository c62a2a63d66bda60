"""Ports of floating IPs that lead to ports of several guests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table of its own."""
    op.create_table(
        "port_forwardings",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("floating_ip_id", sa.String(36), sa.ForeignKey("floating_ips.id"), nullable=False),
        sa.Column("protocol", sa.String(8), nullable=False),
        sa.Column("internal_port_id", sa.String(36), sa.ForeignKey("ports.id"), nullable=False),
        sa.Column("internal_ip_address", sa.String(64), nullable=False),
        sa.Column("internal_first", sa.Integer, nullable=False),
        sa.Column("internal_last", sa.Integer, nullable=False),
        sa.Column("external_first", sa.Integer, nullable=False),
        sa.Column("external_last", sa.Integer, nullable=False),
    )
    for column in ("project_id", "floating_ip_id", "internal_port_id"):
        op.create_index(f"ix_port_forwardings_{column}", "port_forwardings", [column])
