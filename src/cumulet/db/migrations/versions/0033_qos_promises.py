"""QoS policies' promises of bandwidth and of packets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables."""
    for table, value in (("qos_minimum_bandwidths", "min_kbps"), ("qos_minimum_packet_rates", "min_kpps")):
        op.create_table(
            table,
            sa.Column("id", sa.String(36), primary_key=True),
            sa.Column("project_id", sa.String(64), nullable=False),
            sa.Column("description", sa.String(255), nullable=False),
            sa.Column("revision", sa.Integer, nullable=False),
            sa.Column("created_at_us", sa.BigInteger, nullable=False),
            sa.Column("updated_at_us", sa.BigInteger, nullable=False),
            sa.Column("policy_id", sa.String(36), sa.ForeignKey("qos_policies.id"), nullable=False),
            sa.Column("direction", sa.String(8), nullable=False),
            sa.Column(value, sa.Integer, nullable=False),
            sa.UniqueConstraint("policy_id", "direction"),
        )
        op.create_index(f"ix_{table}_project_id", table, ["project_id"])
