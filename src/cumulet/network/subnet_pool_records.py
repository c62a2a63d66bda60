"""Subnet pools, as records."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

subnet_pools = sa.Table(
    "subnet_pools",
    metadata,
    *resource_columns(),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("prefixes", sa.JSON, nullable=False),
    sa.Column("min_prefixlen", sa.Integer, nullable=False),
    sa.Column("max_prefixlen", sa.Integer, nullable=False),
    sa.Column("default_prefixlen", sa.Integer, nullable=False),
    sa.Column("default_quota", sa.Integer),
    # Read by control planes of the version before, as that of networks.
    sa.Column("shared", sa.Boolean, nullable=False, default=False, index=True),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("address_scope_id", sa.ForeignKey("address_scopes.id"), index=True),
)


class SubnetPool(Resource, frozen=True, kw_only=True):
    name: str
    ip_version: int
    prefixes: list[str]
    min_prefixlen: int
    max_prefixlen: int
    default_prefixlen: int
    default_quota: int | None
    is_default: bool
    address_scope_id: str | None = None
