"""Where the parts of a cloud disagree at rest: when nothing is under way, they must agree."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import sqlalchemy as sa

from cumulet.compute.model import VmState
from cumulet.compute.operations import OBSERVED, UNDECIDED
from cumulet.compute.resized import kept_of, resized_servers
from cumulet.compute.store import migrations, servers
from cumulet.conductor.saga import operations
from cumulet.db.engine import Row, Tx
from cumulet.host.driver import GuestState
from cumulet.image.store import image_properties, images
from cumulet.network import bindings_for_compute as bindings
from cumulet.network.many import find_many
from cumulet.network.store import Port
from cumulet.network.wiring import ports_of_server
from cumulet.placement import allocations as placement
from cumulet.placement.store import consumers

ENDED_MIGRATIONS = ("completed", "done", "error", "failed", "cancelled", "finished", "confirmed", "reverted")
"""`finished`: a resize whose user has neither confirmed nor reverted it yet."""

_OPERATIONS = sa.select(operations).where(operations.c.ended_at_us.is_(None))
_UNMADE = (
    sa.select(image_properties.c.image_id, image_properties.c.value, images.c.status)
    .join(images, images.c.id == image_properties.c.image_id)
    .where(
        image_properties.c.name == "instance_uuid",
        images.c.status.in_(("queued", "saving")),
        images.c.deleted_at_us.is_(None),
    )
)
"""Images of servers that no operation is making."""
_SERVERS = sa.select(servers)
_RESIZED = sa.select(resized_servers.c.migration_uuid)
_CONSUMERS = sa.select(consumers.c.uuid)
_MIGRATIONS = sa.select(migrations).where(migrations.c.status.not_in(ENDED_MIGRATIONS))


def unfinished(tx: Tx) -> Iterator[str]:
    """Operations and migrations that have not ended."""
    for row in tx.all(_OPERATIONS, {}):
        yield f"{row.saga} of {row.subject[:8]} is {row.status} at {row.position} ({row.stuck_cause or 'not stuck'})"
    for row in tx.all(_MIGRATIONS, {}):
        yield f"migration {row.id} of {row.server_id[:8]} is {row.status}"


def disagreements(
    tx: Tx, guests: Mapping[str, Mapping[str, GuestState]], linked: Mapping[str, Collection[str]] | None = None
) -> Iterator[str]:
    """Where records, hypervisors, placement and port bindings differ, and what is left over.

    guests: the state of each guest by its hypervisor, host -> server id -> state;
    linked: the ports that each host reports as plugged.
    """
    where: dict[str, dict[str, GuestState]] = {}
    for host, seen in guests.items():
        for server_id, state in seen.items():
            where.setdefault(server_id, {})[host] = state
    rows = {row.id: row for row in tx.all(_SERVERS, {})}
    for server_id, row in rows.items():
        if row.deleted_at_us is None:
            yield from _of_server(tx, row, where.pop(server_id, {}))
            if linked is not None and row.host is not None:
                yield from _of_ports(tx, row, linked[row.host])
        else:
            yield from _of_deleted(tx, row)
    for server_id, places in where.items():
        yield f"guest {server_id[:8]} is left over: {places}"
    known = {row.id for row in rows.values() if row.deleted_at_us is None}
    known |= {row.migration_uuid for row in tx.all(_RESIZED, {})}
    for row in tx.all(_CONSUMERS, {}):
        if row.uuid not in known:
            yield f"allocation of {row.uuid[:8]} is left over"
    for row in tx.all(_UNMADE, {}):
        yield f"image {row.image_id[:8]} of server {row.value[:8]} is {row.status}, and nobody makes it"


def _of_server(tx: Tx, row: Row, places: dict[str, GuestState]) -> Iterator[str]:
    name = row.id[:8]
    if row.task_state is not None:
        yield f"server {name} is {row.task_state}, and nobody at work on it"
    if row.host is None:
        if row.vm_state not in (VmState.ERROR, VmState.SHELVED_OFFLOADED):
            yield f"server {name} is {row.vm_state} on no host"
        if places:
            yield f"server {name} has no host, but there are guests: {places}"
        if placement.held(tx, row.id):
            yield f"server {name} has no host, but holds {placement.held(tx, row.id)}"
        if row.launched_at_us is None and (ports := bindings.hosts_of(tx, row.id)):
            yield f"server {name} has never run and never will, but has ports {sorted(ports)}"
        return
    seen = places.get(row.host, GuestState.ABSENT)
    kept = kept_of(tx, row.id)
    if (row.vm_state == VmState.RESIZED) != (kept is not None):
        yield f"server {name} is {row.vm_state}, but kept where it came from is {kept}"
    if kept is not None and places.pop(kept.host, GuestState.ABSENT) is not GuestState.STOPPED:
        yield f"server {name} was resized, but {kept.host} keeps no stopped guest"
    if kept is not None and set(placement.held(tx, kept.migration_uuid)) != {kept.host}:
        yield f"server {name} was resized, but its migration holds {placement.held(tx, kept.migration_uuid)}"
    if set(places) - {row.host}:
        yield f"server {name} belongs to {row.host}, but there are guests: {places}"
    says_nothing = kept is not None or row.vm_state in UNDECIDED
    recorded = (OBSERVED.get(seen, (None,))[0] if says_nothing else row.vm_state, row.power_state)
    if seen not in OBSERVED or OBSERVED[seen] != recorded:
        yield f"server {name} is {row.vm_state}/{row.power_state} on {row.host}, where it is {seen}"
    if set(placement.held(tx, row.id)) != {row.host}:
        yield f"server {name} belongs to {row.host}, but holds {placement.held(tx, row.id)}"
    ports = bindings.hosts_of(tx, row.id)
    described = {nic["port_id"] for nic in (row.guest or {}).get("nics", ())}
    if row.guest is not None and described != set(ports):
        yield f"server {name} has ports {sorted(ports)}, but its guest is described with {sorted(described)}"
    for bound in ports.values():
        if bound.active != row.host or bound.inactive:
            yield f"server {name} belongs to {row.host}, but its port is bound to {bound}"


def _of_ports(tx: Tx, row: Row, linked: Collection[str]) -> Iterator[str]:
    """An ACTIVE port is plugged on the host that runs its server, and a plugged one is ACTIVE; subports are like it."""
    for port in find_many(tx, Port, "id", ports_of_server(tx, row.id)):
        if (port.status == "ACTIVE") != (port.id in linked):
            said = "is plugged" if port.id in linked else "is not plugged"
            yield f"port {port.id[:8]} of server {row.id[:8]} is {port.status}, and {said} on {row.host}"


def _of_deleted(tx: Tx, row: Row) -> Iterator[str]:
    if placement.held(tx, row.id):
        yield f"server {row.id[:8]} is deleted, but holds {placement.held(tx, row.id)}"
    if bindings.hosts_of(tx, row.id):
        yield f"server {row.id[:8]} is deleted, but has ports"
