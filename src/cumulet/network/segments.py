"""Segments of networks: ``/segments``. Each network here has exactly one, which comes and goes with it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.db.engine import Tx
from cumulet.network import filtering, policy, resource
from cumulet.network.filtering import Column
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.store import Network, networks
from cumulet.web.operation import Call
from cumulet.web.policy import rule

SHOW = rule("get_segment", policy.ADMIN, description="See a segment of a network")

_COLUMNS: dict[str, Column] = {"id": networks.c.id, "network_id": networks.c.id}
_COLUMNS |= {name: networks.c[name] for name in ("network_type", "physical_network")}


def _views(_tx: Tx, records: Sequence[Network]) -> list[View]:
    """A segment has the id of its network, and neither a name nor a description of its own."""
    return [
        {
            "id": network.id,
            "network_id": network.id,
            "name": None,
            "description": "",
            "network_type": network.network_type,
            "physical_network": network.physical_network,
            "segmentation_id": network.segmentation_id,
            "revision_number": network.revision,
            "created_at": iso_z(network.created_at_us),
            "updated_at": iso_z(network.updated_at_us),
        }
        for network in records
    ]


SEGMENTS = Kind(
    record=Network,
    singular="segment",
    plural="segments",
    title="Segment",
    show=SHOW,
    sight=None,
    filters=filtering.by_columns(_COLUMNS | {"revision_number": networks.c.revision})
    | {"name": filtering.constant(None), "description": filtering.constant("")},
    sorts=_COLUMNS | {"segmentation_id": networks.c.segmentation_id, "name": sa.literal("")},
    views=_views,
    hidden={},
)


@NETWORK.operation("GET", "/segments", rules=())
def list_segments(call: Call[None, None]) -> View:
    """List the segments of all networks, for administrators."""
    return resource.listed(call, SEGMENTS)


@NETWORK.operation("GET", "/segments/{segment_id}", rules=(), target=resource.target(SEGMENTS))
def show_segment(call: Call[Network, None]) -> View:
    """Show the segment of a network."""
    return resource.shown(call, SEGMENTS, call.target)


_ADMINISTRATORS = {
    "POST /segments": rule("create_segment", policy.ADMIN, description="Add a segment to a network"),
    "PUT /segments/{segment_id}": rule("update_segment", policy.ADMIN, description="Change a segment"),
    "DELETE /segments/{segment_id}": rule("delete_segment", policy.ADMIN, description="Remove a network's segment"),
}
NETWORK.gap_rules.update({place: (name, None) for place, name in _ADMINISTRATORS.items()})
"""These answer 501 only to those who could use them if they existed, and 403 to others."""
