"""Security groups, their rules and address groups, as records."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.db.partial_index import unique_where
from cumulet.network.resource_columns import Resource, resource_columns

address_groups = sa.Table(
    "address_groups",
    metadata,
    *resource_columns(),
    sa.Column("addresses", sa.JSON, nullable=False),
)

security_groups = sa.Table(
    "security_groups",
    metadata,
    *resource_columns(),
    sa.Column("stateful", sa.Boolean, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
)
unique_where(security_groups, "ix_security_groups_default", "project_id", where="is_default")

security_group_rules = sa.Table(
    "security_group_rules",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("security_group_id", sa.ForeignKey("security_groups.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("ethertype", sa.String(8), nullable=False),
    sa.Column("protocol", sa.String(40)),
    sa.Column("port_range_min", sa.Integer),
    sa.Column("port_range_max", sa.Integer),
    sa.Column("remote_ip_prefix", sa.String(64)),
    sa.Column("remote_group_id", sa.ForeignKey("security_groups.id", ondelete="CASCADE"), index=True),
    sa.Column("remote_address_group_id", sa.ForeignKey("address_groups.id"), index=True),
)

port_security_groups = sa.Table(
    "port_security_groups",
    metadata,
    sa.Column("port_id", sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("security_group_id", sa.ForeignKey("security_groups.id"), primary_key=True, index=True),
)


class AddressGroup(Resource, frozen=True, kw_only=True):
    name: str
    addresses: list[str]
    """Prefixes without host bits. A single address is a prefix of full length."""


class SecurityGroup(Resource, frozen=True, kw_only=True):
    name: str
    stateful: bool
    is_default: bool


class SecurityGroupRule(Resource, frozen=True, kw_only=True):
    security_group_id: str
    direction: str
    ethertype: str
    protocol: str | None
    port_range_min: int | None
    port_range_max: int | None
    remote_ip_prefix: str | None
    remote_group_id: str | None
    remote_address_group_id: str | None
