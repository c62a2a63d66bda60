"""Metering labels and their rules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables."""
    op.create_table(
        "metering_labels",
        *_columns(sa.Column("name", sa.String(255), nullable=False)),
        sa.Column("shared", sa.Boolean, nullable=False),
    )
    op.create_index("ix_metering_labels_project_id", "metering_labels", ["project_id"])
    op.create_table(
        "metering_label_rules",
        *_columns(),
        sa.Column("metering_label_id", sa.String(36), sa.ForeignKey("metering_labels.id"), nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("excluded", sa.Boolean, nullable=False),
        sa.Column("remote_ip_prefix", sa.String(64)),
        sa.Column("source_ip_prefix", sa.String(64)),
        sa.Column("destination_ip_prefix", sa.String(64)),
    )
    for column in ("project_id", "metering_label_id"):
        op.create_index(f"ix_metering_label_rules_{column}", "metering_label_rules", [column])


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
