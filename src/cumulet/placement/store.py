"""Placement's tables: providers with inventories, consumers with allocations. One provider per host."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata

resource_providers = sa.Table(
    "resource_providers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(36), nullable=False, unique=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("parent_uuid", sa.String(36)),
    sa.Column("traits", sa.JSON, nullable=False),
    sa.Column("aggregates", sa.JSON, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
)

inventories = sa.Table(
    "inventories",
    metadata,
    sa.Column("provider_id", sa.ForeignKey("resource_providers.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("resource_class", sa.String(255), primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("min_unit", sa.BigInteger, nullable=False),
    sa.Column("max_unit", sa.BigInteger, nullable=False),
    sa.Column("step_size", sa.BigInteger, nullable=False),
    sa.Column("allocation_ratio", sa.Float, nullable=False),
)

consumers = sa.Table(
    "consumers",
    metadata,
    sa.Column("uuid", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(255), nullable=False, index=True),
    sa.Column("user_id", sa.String(255), nullable=False),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
)

allocations = sa.Table(
    "allocations",
    metadata,
    sa.Column("consumer_uuid", sa.ForeignKey("consumers.uuid"), primary_key=True),
    sa.Column("provider_id", sa.ForeignKey("resource_providers.id"), primary_key=True),
    sa.Column("resource_class", sa.String(255), primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Index("ix_allocations_provider", "provider_id"),
)

resource_classes = sa.Table(
    "resource_classes",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
)

traits = sa.Table(
    "traits",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
)
