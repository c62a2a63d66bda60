"""QoS policies' DSCP marks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table."""
    op.create_table(
        "qos_dscp_marks",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("policy_id", sa.String(36), sa.ForeignKey("qos_policies.id"), nullable=False),
        sa.Column("dscp_mark", sa.Integer, nullable=False),
        sa.UniqueConstraint("policy_id"),
    )
    op.create_index("ix_qos_dscp_marks_project_id", "qos_dscp_marks", ["project_id"])
