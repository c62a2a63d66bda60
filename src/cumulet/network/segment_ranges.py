"""Ranges of segments: ``/network_segment_ranges``. From which numbers the networks of a project, or of all, get theirs.

Upstream has a default range besides, from its configuration. Here it is all that is in no range, and is not listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, OverQuota
from cumulet.network import bodies, filtering, policy, refusals, resource
from cumulet.network.bodies import either, text
from cumulet.network.free_segments import HIGHEST, like
from cumulet.network.networks import refuse_unconnectable
from cumulet.network.resource import Kind, View
from cumulet.network.segment_range_records import SegmentRange, network_segment_ranges
from cumulet.network.service import NETWORK
from cumulet.network.store import SEGMENTS, change, delete, find, insert, must_get
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Unset

CREATE = rule("create_network_segment_range", policy.ADMIN, description="Create a range of segments")
SHOW = rule("get_network_segment_range", policy.ADMIN, description="See a range of segments")
UPDATE = rule("update_network_segment_range", policy.ADMIN, description="Change a range of segments")
DELETE = rule("delete_network_segment_range", policy.ADMIN, description="Delete a range of segments")

PATH = "/network_segment_ranges"
MOST = 100
"""Ranges of the whole cloud."""
MOST_LISTED = 1000
"""The free numbers that a range shows in `available`, lowest first. Upstream shows all."""

_R = network_segment_ranges.c


def _used(tx: Tx, ids: Sequence[str]) -> dict[str, dict[int, str]]:
    """For each range the numbers in use, with the project of the network."""
    statement = (
        sa.select(_R.id, SEGMENTS.c.segmentation_id, SEGMENTS.c.project_id)
        .join(SEGMENTS, like(SEGMENTS, _R.network_type, _R.physical_network))
        .where(_R.id.in_(ids), SEGMENTS.c.segmentation_id.between(_R.minimum, _R.maximum))
        .order_by(SEGMENTS.c.segmentation_id)
    )
    found: dict[str, dict[int, str]] = {range_id: {} for range_id in ids}
    for range_id, number, project_id in map(tuple, tx.all(statement)):
        found[range_id][number] = project_id
    return found


def _views(tx: Tx, records: Sequence[SegmentRange]) -> list[View]:
    used = _used(tx, [one.id for one in records])
    return [_view(one, used[one.id]) for one in records]


def _view(one: SegmentRange, used: dict[int, str]) -> View:
    view = resource.resource_view(one, None) | {
        "project_id": one.project_id or None,
        "name": one.name,
        "default": False,
        "shared": one.shared,
        "network_type": one.network_type,
        "physical_network": one.physical_network or "",
        "minimum": one.minimum,
        "maximum": one.maximum,
        "used": {str(number): project_id for number, project_id in used.items()},
    }
    del view["tenant_id"]
    free = (number for number in range(one.minimum, one.maximum + 1) if number not in used)
    return view | {"available": list(islice(free, MOST_LISTED))}


_SORTS: dict[str, filtering.Column] = {name: _R[name] for name in ("id", "name", "project_id")}
_FILTERS: dict[str, filtering.Column] = {
    **_SORTS,
    "network_type": _R.network_type,
    "physical_network": sa.func.coalesce(_R.physical_network, ""),
    "description": _R.description,
    "revision_number": _R.revision,
}
RANGES = Kind(
    record=SegmentRange,
    singular="network_segment_range",
    plural="network_segment_ranges",
    title="Network Segment Range",
    show=SHOW,
    sight=None,
    filters=filtering.by_columns(_FILTERS),
    sorts=_SORTS,
    views=_views,
    hidden={},
    place="network_segment_ranges",
)


class ChangeRange(bodies.NamedChange):
    minimum: bodies.Number | Unset = UNSET
    maximum: bodies.Number | Unset = UNSET


class NewRange(bodies.NewNamed):
    """A new range. Unless it is not shared, it belongs to no project."""

    shared: bodies.Truth | Unset = UNSET
    network_type: Literal["vlan", "vxlan", "gre", "geneve"]
    physical_network: bodies.PhysicalNetwork | Unset | None = UNSET
    minimum: bodies.Number
    maximum: bodies.Number


class CreateRanges(Body):
    network_segment_range: NewRange | Unset = UNSET
    network_segment_ranges: list[NewRange] | Unset = UNSET


@NETWORK.operation("GET", PATH, rules=())
def list_segment_ranges(call: Call[None, None]) -> View:
    """List ranges of segments, for administrators."""
    return resource.listed(call, RANGES)


@NETWORK.operation(
    "POST", PATH, rules=(Rule(CREATE),), facts=resource.first_owner(RANGES), body=CreateRanges, success=201
)
def create_segment_ranges(call: Call[None, CreateRanges]) -> View:
    """Create a range of segments for the networks of a project, or of all; or several at once."""
    return resource.created(call, RANGES, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewRange) -> SegmentRange:
    project_id = resource.may_create(call, new, CREATE)
    physical = new.physical_network if isinstance(new.physical_network, str) else None
    if new.network_type not in HIGHEST:
        raise refusals.invalid(f"Network type {new.network_type} does not support network segment ranges.")
    if (new.network_type == "vlan") != (physical is not None):
        problem = "required" if physical is None else "not allowed"
        raise refusals.invalid(f"physical_network {problem} for {new.network_type} network.")
    refuse_unconnectable(call, new.network_type, physical)
    shared = either(new.shared, True)
    if len(find(call.tx, SegmentRange)) >= MOST:
        raise OverQuota("Quota exceeded for resources: ['network_segment_range'].", reason="QUOTA")
    _check(call.tx, new.network_type, physical, new.minimum, new.maximum)
    return insert(
        call.tx,
        SegmentRange,
        call.cloud.clock,
        project_id="" if shared else project_id,
        name=text(new.name),
        description=text(new.description),
        shared=shared,
        network_type=new.network_type,
        physical_network=physical,
        minimum=new.minimum,
        maximum=new.maximum,
    )


def _check(
    tx: Tx, network_type: str, physical_network: str | None, minimum: int, maximum: int, *, but: str = ""
) -> None:
    """400 for a range that is none; 409 for one that overlaps with another, except the range `but`."""
    highest = HIGHEST[network_type]
    if not 1 <= minimum <= maximum <= highest:
        raise refusals.invalid(
            f"'{minimum}:{maximum}' is no range of {network_type} segments: minimum is at least 1, and not more than "
            f"maximum, which is {highest} at most."
        )
    others = find(
        tx,
        SegmentRange,
        like(network_segment_ranges, network_type, physical_network),
        _R.id != but,
        _R.minimum <= maximum,
        _R.maximum >= minimum,
    )
    if others:
        ids = ", ".join(sorted(one.id for one in others))
        raise Conflict(
            f"Network segment range overlaps with range(s) with id {ids}", reason="NetworkSegmentRangeOverlaps"
        )


@NETWORK.operation("GET", PATH + "/{network_segment_range_id}", rules=(), target=resource.target(RANGES))
def show_segment_range(call: Call[SegmentRange, None]) -> View:
    """Show a range of segments: which of its numbers are in use by which project, and which are free."""
    return resource.shown(call, RANGES, call.target)


@NETWORK.operation(
    "PUT",
    PATH + "/{network_segment_range_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(RANGES),
    body=ChangeRange,
    body_key="network_segment_range",
)
def update_segment_range(call: Call[SegmentRange, ChangeRange]) -> View:
    """Change a range of segments. The numbers in use stay in it."""
    one, body = call.target, call.body
    minimum, maximum = either(body.minimum, one.minimum), either(body.maximum, one.maximum)
    if any(not minimum <= number <= maximum for number in _used(call.tx, [one.id])[one.id]):
        raise _referenced(one)
    _check(call.tx, one.network_type, one.physical_network, minimum, maximum, but=one.id)
    change(call.tx, SegmentRange, one.id, call.now_us, **resource.given(body))
    return resource.shown(call, RANGES, must_get(call.tx, SegmentRange, one.id))


@NETWORK.operation(
    "DELETE",
    PATH + "/{network_segment_range_id}",
    rules=(Rule(DELETE),),
    target=resource.target(RANGES),
    success=204,
)
def delete_segment_range(call: Call[SegmentRange, None]) -> None:
    """Delete a range of segments that no network has one of."""
    if _used(call.tx, [call.target.id])[call.target.id]:
        raise _referenced(call.target)
    delete(call.tx, SegmentRange, call.target.id)


def _referenced(one: SegmentRange) -> Conflict:
    return Conflict(
        f"Network Segment Range {one.id} is referenced by one or more project networks.",
        reason="NetworkSegmentRangeReferencedByProject",
    )
