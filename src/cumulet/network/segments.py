"""Segments of networks: ``/segments``. The first of each network comes and goes with it.

Hosts connect every port of a network to its first segment, as upstream's agents do where they reach that one. Further
segments hold their number, so that no other network gets it, and carry nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.db.engine import Tx
from cumulet.errors import NotFound, NotYet, OverQuota
from cumulet.network import bodies, filtering, policy, resource, topology
from cumulet.network.bodies import text
from cumulet.network.filtering import Column
from cumulet.network.networks import refuse_unconnectable, segment_of
from cumulet.network.resource import Kind, View
from cumulet.network.segment_records import FurtherSegment, Segment
from cumulet.network.service import NETWORK
from cumulet.network.store import SEGMENTS as EVERY_SEGMENT
from cumulet.network.store import Network, change, delete, find, get, insert, must_get, revise
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

CREATE = rule("create_segment", policy.ADMIN, description="Add a segment to a network")
SHOW = rule("get_segment", policy.ADMIN, description="See a segment of a network")
UPDATE = rule("update_segment", policy.ADMIN, description="Change a segment")
DELETE = rule("delete_segment", policy.ADMIN, description="Remove a network's segment")

PATH = "/segments/{segment_id}"
MOST = 16
"""Segments of one network."""

_S = EVERY_SEGMENT.c
_COLUMNS: dict[str, Column] = {name: _S[name] for name in ("id", "network_id", "network_type", "physical_network")}


def _views(_tx: Tx, records: Sequence[Segment]) -> list[View]:
    return [
        {
            "id": segment.id,
            "network_id": segment.network_id,
            "name": segment.name,
            "description": segment.description,
            "network_type": segment.network_type,
            "physical_network": segment.physical_network,
            "segmentation_id": segment.segmentation_id,
            "revision_number": segment.revision,
            "created_at": iso_z(segment.created_at_us),
            "updated_at": iso_z(segment.updated_at_us),
        }
        for segment in records
    ]


_OTHERS: dict[str, Column] = {"revision_number": _S.revision, "description": _S.description}
SEGMENTS = Kind(
    record=Segment,
    singular="segment",
    plural="segments",
    title="Segment",
    show=SHOW,
    sight=None,
    filters=filtering.by_columns(_COLUMNS | _OTHERS | {"name": sa.func.coalesce(_S.name, "")}),
    sorts=_COLUMNS | {"segmentation_id": _S.segmentation_id, "name": _S.name},
    views=_views,
    hidden={},
)


class UpdateSegment(bodies.ResourceChange):
    name: bodies.Name | Unset | None = UNSET


class CreateSegment(UpdateSegment):
    network_id: bodies.Id
    network_type: Annotated[str, Json({"maxLength": 32})]
    physical_network: bodies.PhysicalNetwork | Unset | None = UNSET
    segmentation_id: bodies.Number | Unset | None = UNSET
    project_id: bodies.ProjectId | Unset = UNSET
    tenant_id: bodies.ProjectId | Unset = UNSET


class NewSegments(Body):
    segment: CreateSegment | Unset = UNSET
    segments: list[CreateSegment] | Unset = UNSET


@NETWORK.operation("GET", "/segments", rules=())
def list_segments(call: Call[None, None]) -> View:
    """List the segments of all networks, for administrators."""
    return resource.listed(call, SEGMENTS)


@NETWORK.operation("POST", "/segments", rules=(Rule(CREATE),), body=NewSegments, success=201)
def create_segments(call: Call[None, NewSegments]) -> View:
    """Add a segment to a network, or several at once. No host connects a port to it."""
    return resource.created(call, SEGMENTS, lambda new: _create(call, new))


def _create(call: Call[object, object], new: CreateSegment) -> Segment:
    tx = call.tx
    network = get(tx, Network, new.network_id)
    if network is None:
        raise NotFound(f"Network {new.network_id} could not be found.", reason="NetworkNotFound")
    network_type, physical_network, number = segment_of(new.network_type, new.physical_network, new.segmentation_id)
    refuse_unconnectable(call, network_type, physical_network)
    if len(find(tx, Segment, _S.network_id == network.id)) >= MOST:
        raise OverQuota("Quota exceeded for resources: ['segment'].", reason="QUOTA")
    number = topology.take_segment(
        tx,
        project_id=network.project_id,
        network_type=network_type,
        physical_network=physical_network,
        segmentation_id=number,
    )
    made = insert(
        tx,
        FurtherSegment,
        call.cloud.clock,
        project_id=network.project_id,
        name=new.name if isinstance(new.name, str) else None,
        description=text(new.description),
        network_id=network.id,
        network_type=network_type,
        physical_network=physical_network,
        segmentation_id=number,
    )
    revise(tx, Network, network.id, call.now_us)
    return must_get(tx, Segment, made.id)


@NETWORK.operation("GET", PATH, rules=(), target=resource.target(SEGMENTS))
def show_segment(call: Call[Segment, None]) -> View:
    """Show a segment of a network."""
    return resource.shown(call, SEGMENTS, call.target)


@NETWORK.operation(
    "PUT", PATH, rules=(Rule(UPDATE),), target=resource.target(SEGMENTS), body=UpdateSegment, body_key="segment"
)
def update_segment(call: Call[Segment, UpdateSegment]) -> View:
    """Name or describe a segment. With a network's first one the network's revision counts too."""
    given, segment = resource.given(call.body), call.target
    if segment.first:
        change(call.tx, Network, segment.id, call.now_us, **{f"segment_{name}": given[name] for name in given})
    else:
        change(call.tx, FurtherSegment, segment.id, call.now_us, **given)
    return resource.shown(call, SEGMENTS, must_get(call.tx, Segment, segment.id))


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=resource.target(SEGMENTS), success=204)
def delete_segment(call: Call[Segment, None]) -> None:
    """Remove a segment that is not its network's first one."""
    if call.target.first:
        raise NotYet(
            f"Cumulet does not remove the first segment of a network yet, which carries its ports: delete network "
            f"{call.target.network_id} instead.",
            reason="FirstSegment",
        )
    delete(call.tx, FurtherSegment, call.target.id)
    revise(call.tx, Network, call.target.network_id, call.now_us)
