"""Host aggregates: administrators' groups of hosts. One that names an availability zone makes it its hosts' zone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import sqlalchemy as sa

from cumulet.clock import iso_us
from cumulet.compute import attribute_types as t
from cumulet.compute import places
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.hosts import DEFAULT_ZONE
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import aggregate_hosts, aggregates, hosts
from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

INDEX = rule("os_compute_api:os-aggregates:index", ADMIN)
SHOW = rule("os_compute_api:os-aggregates:show", ADMIN)
CREATE = rule("os_compute_api:os-aggregates:create", ADMIN)
UPDATE = rule("os_compute_api:os-aggregates:update", ADMIN)
DELETE = rule("os_compute_api:os-aggregates:delete", ADMIN)
ADD_HOST = rule("os_compute_api:os-aggregates:add_host", ADMIN)
REMOVE_HOST = rule("os_compute_api:os-aggregates:remove_host", ADMIN)
SET_METADATA = rule("os_compute_api:os-aggregates:set_metadata", ADMIN)

ZONE_KEY = "availability_zone"
_INTEGER = re.compile(r"-?[0-9]{1,18}")
Zone = Annotated[str | None, Json({"minLength": 1, "maxLength": 255, "format": "az_name"})]


class CreateAggregate(Body):
    name: t.Name
    availability_zone: Zone = None


class UpdateAggregate(Body, min_properties=1):
    name: t.SpacedName | Unset = UNSET
    availability_zone: Zone | Unset = UNSET


class HostOfAggregate(Body):
    host: t.HostName


class SetMetadata(Body):
    metadata: t.MetadataOrNull


PATH = "/os-aggregates/{aggregate_id}"


@COMPUTE.operation("GET", "/os-aggregates", rules=(Rule(INDEX),), query=ShowQuery)
def list_aggregates(call: Call[None, None]) -> dict[str, object]:
    """List aggregates."""
    rows = call.tx.all(sa.select(aggregates).order_by(aggregates.c.id).limit(call.cloud.settings.largest_page))
    return {"aggregates": [_view(call, row) for row in rows]}


@COMPUTE.operation("GET", PATH, rules=(Rule(SHOW),), query=ShowQuery)
def show_aggregate(call: Call[None, None]) -> dict[str, object]:
    """Show an aggregate."""
    return {"aggregate": _view(call, _found(call))}


@COMPUTE.operation("POST", "/os-aggregates", rules=(Rule(CREATE),), body=CreateAggregate, body_key="aggregate")
def create_aggregate(call: Call[None, CreateAggregate]) -> dict[str, object]:
    """Create an aggregate without hosts."""
    _require_free_name(call.tx, call.body.name)
    zone = call.body.availability_zone
    result = call.tx.execute(
        sa.insert(aggregates).values(
            uuid=call.cloud.clock.uuid(),
            name=call.body.name,
            metadata={ZONE_KEY: zone} if zone else {},
            created_at_us=call.now_us,
        )
    )
    key = result.inserted_primary_key
    assert key is not None
    view = _view(call, _row(call.tx, key[0]))
    # Nova's answer leaves out what is empty anyway.
    return {"aggregate": {name: value for name, value in view.items() if name not in ("hosts", "metadata")}}


@COMPUTE.operation("PUT", PATH, rules=(Rule(UPDATE),), body=UpdateAggregate, body_key="aggregate")
def update_aggregate(call: Call[None, UpdateAggregate]) -> dict[str, object]:
    """Change an aggregate's name or zone."""
    row, body = _found(call), call.body
    values: dict[str, object] = {}
    if not isinstance(body.name, Unset) and body.name != row.name:
        _require_free_name(call.tx, body.name)
        values["name"] = body.name
    if not isinstance(body.availability_zone, Unset):
        values["metadata"] = _with_zone(row.metadata, body.availability_zone)
        _require_movable(call.tx, row, body.availability_zone)
    return {"aggregate": _changed(call, row, values)}


@COMPUTE.operation("DELETE", PATH, rules=(Rule(DELETE),))
def delete_aggregate(call: Call[None, None]) -> None:
    """Delete an aggregate that has no hosts."""
    row = _found(call)
    if _hosts_of(call.tx, row.id):
        raise BadRequest(
            f"Unacceptable parameters. Cannot perform action 'delete' on aggregate {row.id}. "
            "Reason: Host aggregate is not empty."
        )
    call.tx.execute(sa.delete(aggregates).where(aggregates.c.id == row.id))


@COMPUTE.operation("POST", PATH + "/action", action="add_host", rules=(Rule(ADD_HOST),), body=HostOfAggregate)
def add_host(call: Call[None, HostOfAggregate]) -> dict[str, object]:
    """Add a host to an aggregate, and so perhaps to a zone."""
    row, name = _found(call), call.body.host
    host = call.tx.first(sa.select(hosts).where(hosts.c.name == name))
    if host is None:
        raise NotFound(f"Compute host {name} could not be found.")
    if name in _hosts_of(call.tx, row.id):
        raise Conflict(f"Aggregate {row.id} already has host {name}.")
    zone = row.metadata.get(ZONE_KEY)
    if zone and zone != host.zone:
        if host.zone != DEFAULT_ZONE:
            raise _refused(row, "add_host_to_aggregate", f"Host already in availability zone {host.zone}")
        if places.any_on(call.tx, [name]):
            raise _refused(row, "add_host_to_aggregate", "One or more hosts contain instances in this zone")
    call.tx.execute(sa.insert(aggregate_hosts).values(aggregate_id=row.id, host=name))
    return {"aggregate": _changed(call, row, {}, also=[name])}


@COMPUTE.operation("POST", PATH + "/action", action="remove_host", rules=(Rule(REMOVE_HOST),), body=HostOfAggregate)
def remove_host(call: Call[None, HostOfAggregate]) -> dict[str, object]:
    """Take a host out of an aggregate."""
    row, name = _found(call, f"Cannot remove host {call.body.host} in aggregate {{}}"), call.body.host
    if name not in _hosts_of(call.tx, row.id):
        raise NotFound(f"Cannot remove host {name} in aggregate {row.id}")
    if row.metadata.get(ZONE_KEY) not in (None, DEFAULT_ZONE) and places.any_on(call.tx, [name]):
        raise _refused(row, "remove_host_from_aggregate", "One or more hosts contain instances in this zone")
    call.tx.execute(
        sa.delete(aggregate_hosts).where(aggregate_hosts.c.aggregate_id == row.id, aggregate_hosts.c.host == name)
    )
    return {"aggregate": _changed(call, row, {}, also=[name])}


@COMPUTE.operation("POST", PATH + "/action", action="set_metadata", rules=(Rule(SET_METADATA),), body=SetMetadata)
def set_metadata(call: Call[None, SetMetadata]) -> dict[str, object]:
    """Set items of an aggregate's metadata; null removes one. The zone is the item ``availability_zone``."""
    row, given = _found(call), call.body.metadata
    if ZONE_KEY in given:
        if not given[ZONE_KEY]:
            raise BadRequest("Unacceptable parameters.")
        _require_movable(call.tx, row, given[ZONE_KEY])
    metadata = {key: value for key, value in (row.metadata | given).items() if value is not None}
    return {"aggregate": _changed(call, row, {"metadata": metadata})}


def _found(call: Call[None, object], missing: str = "Aggregate {} could not be found.") -> Row:
    text = call.path["aggregate_id"]
    if not _INTEGER.fullmatch(text):
        raise BadRequest(f"Invalid input received: id must be an integer. Value: {text}")
    row = call.tx.first(sa.select(aggregates).where(aggregates.c.id == int(text)))
    if row is None:
        raise NotFound(missing.format(text))
    return row


def _row(tx: Tx, aggregate_id: int) -> Row:
    row = tx.first(sa.select(aggregates).where(aggregates.c.id == aggregate_id))
    assert row is not None
    return row


def _changed(
    call: Call[None, object], row: Row, values: dict[str, object], *, also: Iterable[str] = ()
) -> dict[str, object]:
    """Store what changed, and what follows from it for the zones of hosts. Its hosts are no change of an aggregate."""
    if values:
        changed = values | {"updated_at_us": call.now_us}
        call.tx.execute(sa.update(aggregates).where(aggregates.c.id == row.id).values(**changed))
    for name in {*_hosts_of(call.tx, row.id), *also}:
        call.tx.touch(name)
        call.tx.execute(
            sa.update(hosts).where(hosts.c.name == name).values(zone=_zone_of(call.tx, name), updated_at_us=call.now_us)
        )
    return _view(call, _row(call.tx, row.id))


def _zone_of(tx: Tx, host: str) -> str:
    rows = tx.all(
        sa.select(aggregates.c.metadata)
        .join(aggregate_hosts, aggregate_hosts.c.aggregate_id == aggregates.c.id)
        .where(aggregate_hosts.c.host == host)
        .order_by(aggregates.c.id)
    )
    return next((row.metadata[ZONE_KEY] for row in rows if row.metadata.get(ZONE_KEY)), DEFAULT_ZONE)


def _hosts_of(tx: Tx, aggregate_id: int) -> list[str]:
    query = sa.select(aggregate_hosts.c.host).where(aggregate_hosts.c.aggregate_id == aggregate_id)
    return [row.host for row in tx.all(query.order_by(aggregate_hosts.c.host))]


def _require_movable(tx: Tx, row: Row, zone: str | None) -> None:
    """The zone of hosts with servers in it does not change under them, and a host is in one zone only."""
    held = _hosts_of(tx, row.id)
    if not held or (zone or None) == row.metadata.get(ZONE_KEY):
        return
    elsewhere = sa.select(hosts.c.name).where(
        hosts.c.name.in_(held), hosts.c.zone.not_in([DEFAULT_ZONE, row.metadata.get(ZONE_KEY) or DEFAULT_ZONE])
    )
    reason = None
    if zone and tx.first(elsewhere) is not None:
        reason = "One or more hosts already in different availability zone(s)"
    elif places.any_on(tx, held):
        reason = "One or more hosts contain instances in this zone"
    if reason is not None:
        raise BadRequest(
            f"Unacceptable parameters. Cannot perform action 'update_aggregate' on aggregate {row.id}. "
            f"Reason: {reason}."
        )


def _require_free_name(tx: Tx, name: str) -> None:
    if tx.first(sa.select(aggregates.c.id).where(aggregates.c.name == name)) is not None:
        raise Conflict(f"Aggregate {name} already exists.")


def _refused(row: Row, action: str, reason: str) -> Conflict:
    return Conflict(f"Cannot perform action '{action}' on aggregate {row.id}. Reason: {reason}.")


def _with_zone(metadata: dict[str, str], zone: str | None) -> dict[str, str]:
    kept = {key: value for key, value in metadata.items() if key != ZONE_KEY}
    return kept | ({ZONE_KEY: zone} if zone else {})


def _view(call: Call[None, object], row: Row) -> dict[str, object]:
    view = {
        "id": row.id,
        "name": row.name,
        "hosts": _hosts_of(call.tx, row.id),
        "metadata": row.metadata,
        "availability_zone": row.metadata.get(ZONE_KEY),
        "created_at": iso_us(row.created_at_us),
        "updated_at": iso_us(row.updated_at_us),
        "deleted": False,
        "deleted_at": None,
    }
    if call.version.at_least("2.41"):
        view["uuid"] = row.uuid
    return view
