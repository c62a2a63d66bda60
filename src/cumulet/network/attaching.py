"""Ports attached to a server that exists, and detached from it, for compute.

Refusals have Nova's statuses: 404 for what does not exist and 409 for what is in use, where the creation of a server
has 400.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.errors import ApiError, BadRequest, Conflict, NotFound
from cumulet.network import bindings, for_compute, port_life
from cumulet.network.for_compute import PortView, RequestedNetwork
from cumulet.network.refusals import Refused
from cumulet.network.store import Port, change, find_by, port_bindings, ports

_STATUS: dict[str, type[ApiError]] = {
    Refused.NO_SUCH_NETWORK: NotFound,
    Refused.NO_SUCH_PORT: NotFound,
    Refused.ADDRESS_IN_USE: Conflict,
    Refused.SEVERAL_NETWORKS: BadRequest,
}


def attach(
    tx: Tx,
    *,
    clock: Clock,
    project_id: str,
    is_admin: bool,
    server_id: str,
    server_hostname: str,
    availability_zone: str,
    wanted: RequestedNetwork,
    wire_mtu: int,
) -> PortView:
    """Give a server one more port, not bound yet. If `wanted` names nothing, it is on the project's one network."""
    named = wanted.network_id is not None or wanted.port_id is not None
    before = {port.id for port in find_by(tx, Port, server_id=server_id)}
    try:
        held = for_compute.allocate(
            tx,
            clock=clock,
            caller_project_id=project_id,
            is_admin=is_admin,
            server_id=server_id,
            server_hostname=server_hostname,
            availability_zone=availability_zone,
            request=(wanted,) if named else None,
            wire_mtu=wire_mtu,
        )
    except ApiError as error:
        other = _STATUS.get(error.reason or "")
        if other is None:
            raise
        raise other(error.public, private=error.private, reason=error.reason) from error
    made = [port for port in held if port.id not in before]
    if not made:
        raise BadRequest(f"No specific network was requested and none are available for project '{project_id}'.")
    vnic_type = bindings.of_ports(tx, [made[0].id])[made[0].id][0].vnic_type
    if vnic_type != bindings.NORMAL:
        raise BadRequest(f"No host has a NIC of type {vnic_type} for the port {made[0].id}.")
    if not named and wanted.tag is not None:
        change(tx, Port, made[0].id, None, server_tag=wanted.tag)
        return replace(made[0], tag=wanted.tag)
    return made[0]


_PLUGGED_ON = OfMany(
    sa.select(port_bindings.c.host, ports.c.server_id, ports.c.id)
    .join(port_bindings, port_bindings.c.port_id == ports.c.id)
    .where(port_bindings.c.active, ports.c.server_id.is_not(None)),
    port_bindings.c.host,
)


def plugged_on(tx: Tx, hosts: Sequence[str]) -> dict[tuple[str, str], set[str]]:
    """The ports of each server that has some on one of these hosts, by host and server."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in _PLUGGED_ON.rows(tx, hosts):
        found.setdefault((row.host, row.server_id or ""), set()).add(row.id)
    return found


_WIRED = OfMany(
    sa.select(port_bindings.c.host)
    .join(ports, ports.c.id == port_bindings.c.port_id)
    .where(ports.c.server_id.is_not(None))
    .distinct(),
    port_bindings.c.host,
)


def wired(tx: Tx, hosts: Sequence[str]) -> set[str]:
    """Those of these hosts that have a server's port, or will have one. A subport is nowhere without its parent."""
    return {row.host for row in _WIRED.rows(tx, hosts)}


def detach(tx: Tx, server_id: str, port_id: str) -> None:
    """Take a port from a server. Repeating does nothing."""
    for port in find_by(tx, Port, id=port_id, server_id=server_id):
        port_life.release(tx, port)
