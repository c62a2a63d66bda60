"""Segments of a network beside its first one; a segment's name and description."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns and a table."""
    op.add_column("networks", sa.Column("segment_name", sa.String(255)))
    op.add_column("networks", sa.Column("segment_description", sa.String(255)))
    op.create_table(
        "network_segments",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(255)),
        sa.Column("network_id", sa.String(36), sa.ForeignKey("networks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("network_type", sa.String(32), nullable=False),
        sa.Column("physical_network", sa.String(64)),
        sa.Column("segmentation_id", sa.Integer),
    )
    op.create_index("ix_network_segments_project_id", "network_segments", ["project_id"])
    op.create_index("ix_network_segments_network_id", "network_segments", ["network_id"])
