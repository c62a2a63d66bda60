"""Segments of networks, as records.

The first segment of a network is in the network's own row, because hosts connect that one. Further ones are rows here.
"""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns
from cumulet.network.segment_range_records import SegmentRange, network_segment_ranges

network_segments = sa.Table(
    "network_segments",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("name", sa.String(255)),
    sa.Column("network_id", sa.ForeignKey("networks.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64)),
    sa.Column("segmentation_id", sa.Integer),
    sa.Index("ix_network_segments_segment", "network_type", "physical_network", "segmentation_id"),
)
"""`project_id` is the network's."""


class Segment(Resource, frozen=True, kw_only=True):
    """A segment. The first one of a network has the network's id."""

    network_id: str
    name: str | None
    network_type: str
    physical_network: str | None
    segmentation_id: int | None

    @property
    def first(self) -> bool:
        return self.id == self.network_id


class FurtherSegment(Segment, frozen=True, kw_only=True):
    """One that is not the first of its network."""


SEGMENT_TABLES: dict[type[Resource], sa.Table] = {
    SegmentRange: network_segment_ranges,
    FurtherSegment: network_segments,
}


def every_segment(networks: sa.Table) -> sa.Subquery:
    """All segments, with the columns of `Segment`."""
    same = ("project_id", "revision", "created_at_us", "updated_at_us")
    kind = ("network_type", "physical_network", "segmentation_id")
    further = network_segments.c
    first = sa.select(
        networks.c.id,
        networks.c.id.label("network_id"),
        networks.c.segment_name.label("name"),
        sa.func.coalesce(networks.c.segment_description, "").label("description"),
        *(networks.c[column] for column in (*same, *kind)),
    )
    others = sa.select(
        further.id, further.network_id, further.name, further.description, *(further[c] for c in (*same, *kind))
    )
    return sa.union_all(first, others).subquery("segments")
