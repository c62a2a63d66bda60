"""Flavors of Network's services, and their profiles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Three tables."""
    op.create_table(
        "network_flavors",
        *_columns(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("service_type", sa.String(36), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
    )
    op.create_table(
        "network_service_profiles",
        *_columns(),
        sa.Column("metainfo", sa.String(4096), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
    )
    for table in ("network_flavors", "network_service_profiles"):
        op.create_index(f"ix_{table}_project_id", table, ["project_id"])
    op.create_table(
        "network_flavor_profiles",
        sa.Column("flavor_id", sa.String(36), sa.ForeignKey("network_flavors.id"), primary_key=True),
        sa.Column("service_profile_id", sa.String(36), sa.ForeignKey("network_service_profiles.id"), primary_key=True),
    )
    op.create_index("ix_network_flavor_profiles_service_profile_id", "network_flavor_profiles", ["service_profile_id"])


def _columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("description", sa.String(1024), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    )
