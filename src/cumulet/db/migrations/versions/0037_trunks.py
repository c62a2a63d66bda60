"""Trunks and their subports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables."""
    op.create_table(
        "trunks",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("admin_state_up", sa.Boolean, nullable=False),
        sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id"), nullable=False),
        sa.UniqueConstraint("port_id"),
    )
    op.create_index("ix_trunks_project_id", "trunks", ["project_id"])
    op.create_table(
        "trunk_subports",
        sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id"), primary_key=True),
        sa.Column("trunk_id", sa.String(36), sa.ForeignKey("trunks.id"), nullable=False),
        sa.Column("segmentation_id", sa.Integer, nullable=False),
        sa.UniqueConstraint("trunk_id", "segmentation_id"),
    )
