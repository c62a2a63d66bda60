"""Trunks and their subports, as records. Who carries a port follows from them (`trunk_ports`)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

VLAN = "vlan"
"""The one `segmentation_type` that there is: a subport's frames have an IEEE 802.1Q tag on their parent port."""

trunks = sa.Table(
    "trunks",
    metadata,
    *resource_columns(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("port_id", sa.ForeignKey("ports.id"), nullable=False, unique=True),
)

trunk_subports = sa.Table(
    "trunk_subports",
    metadata,
    sa.Column("port_id", sa.ForeignKey("ports.id"), primary_key=True),
    sa.Column("trunk_id", sa.ForeignKey("trunks.id"), nullable=False),
    sa.Column("segmentation_id", sa.Integer, nullable=False),
    sa.UniqueConstraint("trunk_id", "segmentation_id"),
)
"""A constraint refuses the same port in two trunks, and the same tag twice in one, also in a race."""


class Trunk(Resource, frozen=True, kw_only=True):
    name: str
    admin_state_up: bool
    """Whether its subports may be changed. As upstream, packets do not heed it."""
    port_id: str
    """Its parent port: the one that a guest has a NIC for."""


class Subport(msgspec.Struct, frozen=True, kw_only=True):
    port_id: str
    trunk_id: str
    segmentation_id: int
    """The tag of its frames: 1 to 4094."""


TRUNK_TABLES: Mapping[type[object], sa.Table] = {Trunk: trunks, Subport: trunk_subports}
