"""Flavors of services, and the profiles that they are made of, as records."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

LONGEST_DESCRIPTION = 1024
LONGEST_METAINFO = 4096

network_flavors = sa.Table(
    "network_flavors",
    metadata,
    *resource_columns(but=("description",)),
    sa.Column("description", sa.String(LONGEST_DESCRIPTION), nullable=False),
    sa.Column("service_type", sa.String(36), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
)
"""`project_id` is empty: a flavor is everybody's."""

service_profiles = sa.Table(
    "network_service_profiles",
    metadata,
    *resource_columns(but=("name", "description")),
    sa.Column("description", sa.String(LONGEST_DESCRIPTION), nullable=False),
    sa.Column("metainfo", sa.String(LONGEST_METAINFO), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
)
"""`project_id` is empty."""

flavor_profiles = sa.Table(
    "network_flavor_profiles",
    metadata,
    sa.Column("flavor_id", sa.ForeignKey("network_flavors.id"), primary_key=True),
    sa.Column("service_profile_id", sa.ForeignKey("network_service_profiles.id"), primary_key=True, index=True),
)


class ServiceFlavor(Resource, frozen=True, kw_only=True):
    name: str
    service_type: str
    enabled: bool


class ServiceProfile(Resource, frozen=True, kw_only=True):
    metainfo: str
    enabled: bool


FLAVOR_TABLES: Mapping[type[Resource], sa.Table] = {ServiceFlavor: network_flavors, ServiceProfile: service_profiles}
