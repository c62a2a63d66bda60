"""QoS policies, their limits of bandwidth, and what has one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables, and a column of networks, ports and floating IPs each."""
    op.create_table(
        "qos_policies",
        *_columns(sa.Column("name", sa.String(255), nullable=False)),
        sa.Column("is_default", sa.Boolean, nullable=False),
    )
    op.create_index("ix_qos_policies_project_id", "qos_policies", ["project_id"])
    op.create_index(
        "ix_qos_policies_default",
        "qos_policies",
        ["project_id"],
        unique=True,
        sqlite_where=sa.text("is_default"),
        postgresql_where=sa.text("is_default"),
    )
    op.create_table(
        "qos_bandwidth_limits",
        *_columns(),
        sa.Column("policy_id", sa.String(36), sa.ForeignKey("qos_policies.id"), nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("max_kbps", sa.Integer, nullable=False),
        sa.Column("max_burst_kbps", sa.Integer, nullable=False),
        sa.UniqueConstraint("policy_id", "direction"),
    )
    op.create_index("ix_qos_bandwidth_limits_project_id", "qos_bandwidth_limits", ["project_id"])
    for table in ("networks", "ports", "floating_ips"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("qos_policy_id", sa.String(36)))
            name = f"fk_{table}_qos_policy_id_qos_policies"
            batch.create_foreign_key(name, "qos_policies", ["qos_policy_id"], ["id"])
        op.create_index(f"ix_{table}_qos_policy_id", table, ["qos_policy_id"])


def _columns(*more: sa.Column[str]) -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        *more,  # type: ignore[arg-type]
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    )
