"""Address scopes, as records."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

address_scopes = sa.Table(
    "address_scopes",
    metadata,
    *resource_columns(),
    sa.Column("ip_version", sa.Integer, nullable=False),
)


class AddressScope(Resource, frozen=True, kw_only=True):
    name: str
    ip_version: int
