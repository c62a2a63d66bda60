"""Ranges of segments, as records."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

network_segment_ranges = sa.Table(
    "network_segment_ranges",
    metadata,
    *resource_columns(),
    sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64)),
    sa.Column("minimum", sa.Integer, nullable=False),
    sa.Column("maximum", sa.Integer, nullable=False),
)
"""`project_id` is empty where the range is shared. Ranges of one type and physical network do not overlap."""


class SegmentRange(Resource, frozen=True, kw_only=True):
    name: str
    shared: bool
    network_type: str
    physical_network: str | None
    minimum: int
    maximum: int
