"""Floating IPs under Compute's own paths (up to 2.35, the server's actions up to 2.43), for clients that look there."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TypedDict

import sqlalchemy as sa

from cumulet.compute.attribute_types import IpAddress
from cumulet.compute.links import page
from cumulet.compute.model import Server
from cumulet.compute.rules import ANYONE, MEMBER, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.errors import BadRequest, Conflict, Forbidden, NotFound, OverQuota
from cumulet.network import floating_ips as network
from cumulet.network import for_compute, resource
from cumulet.network.sight import networks_in_sight
from cumulet.network.store import FloatingIp, Network, find, load, networks, ports, select
from cumulet.network.store import floating_ips as rows
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body

LAST = "2.35"
LAST_ACTION = "2.43"
POOLS = rule("os_compute_api:os-floating-ip-pools", ANYONE)
NAME = "os_compute_api:os-floating-ips:"
LIST = rule(f"{NAME}list", READER)
SHOW = rule(f"{NAME}show", READER)
CREATE = rule(f"{NAME}create", MEMBER)
DELETE = rule(f"{NAME}delete", MEMBER)
ADD = rule(f"{NAME}add", MEMBER)
REMOVE = rule(f"{NAME}remove", MEMBER)
ONE = "/os-floating-ips/{floatingip_id}"


class View(TypedDict):
    """`instance_id` and `fixed_ip`: where it leads to; `pool`: the name of its network, or the id of one without."""

    id: str
    ip: str
    pool: str
    fixed_ip: str | None
    instance_id: str | None


class Pool(Body, nullable=True):
    pool: str | None = None


class ToServer(Body):
    address: IpAddress
    fixed_address: IpAddress | None = None


class FromServer(Body):
    address: IpAddress


def _floating_ip(call: Call[object, object]) -> FloatingIp:
    identifier = call.path["floatingip_id"]
    try:
        return resource.find_in_sight(call, network.FLOATING_IPS, identifier)
    except NotFound:
        raise NotFound(f"Floating IP not found for ID {identifier}") from None


@COMPUTE.operation("GET", "/os-floating-ip-pools", rules=(Rule(POOLS),), until=LAST)
def list_floating_ip_pools(call: Call[None, None]) -> dict[str, list[dict[str, str]]]:
    """List the external networks that floating IPs can be taken from."""
    return {"floating_ip_pools": [{"name": _name(pool)} for pool in _pools(call)]}


@COMPUTE.operation("GET", "/os-floating-ips", rules=(Rule(LIST),), until=LAST)
def list_floating_ips(call: Call[None, None]) -> dict[str, list[View]]:
    """List the project's floating IPs: at most a page, as this list never had a way to ask for the next."""
    wanted = select(FloatingIp, rows.c.project_id == call.caller.project_id).order_by(rows.c.floating_ip_address)
    return {"floating_ips": _views(call, load(call.tx, FloatingIp, wanted.limit(page(call, since="2.36").limit)))}


@COMPUTE.operation("GET", ONE, rules=(Rule(SHOW),), target=_floating_ip, until=LAST)
def show_floating_ip(call: Call[FloatingIp, None]) -> dict[str, View]:
    """Show a floating IP."""
    return {"floating_ip": _views(call, [call.target])[0]}


@COMPUTE.operation("POST", "/os-floating-ips", rules=(Rule(CREATE),), body=Pool, until=LAST)
def create_floating_ip(call: Call[None, Pool]) -> dict[str, View]:
    """Take an address of a pool, named by name or id; none named: of the only one there is."""
    name = call.body.pool
    found = [pool for pool in _pools(call) if name is None or name in (pool.id, pool.name)]
    if not found:
        raise NotFound("Floating IP pool not found.")
    if len(found) > 1:
        raise BadRequest(f"Multiple floating IP pools matches found for name '{name or ''}'")
    try:
        made = network.create(call, network.NewFloatingIp(floating_network_id=found[0].id))
    except OverQuota:
        over = "IP allocation over quota"
        raise Forbidden(f"{over} in pool {name}." if name else f"{over}.") from None
    except Conflict:
        none = "No more floating IPs"
        raise NotFound(f"{none} in pool {name}." if name else f"{none} available.") from None
    return {"floating_ip": _views(call, [made])[0]}


@COMPUTE.operation("DELETE", ONE, rules=(Rule(DELETE),), target=_floating_ip, success=202, until=LAST)
def delete_floating_ip(call: Call[FloatingIp, None]) -> None:
    """Give the address back."""
    call.require(network.DELETE, resource.facts_of(network.FLOATING_IPS, call, call.target))
    network.delete_floatingip(call)


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="addFloatingIp",
    rules=(Rule(ADD),),
    target=server_in_sight,
    body=ToServer,
    until=LAST_ACTION,
    success=202,
)
def add_floating_ip(call: Call[Server, ToServer]) -> None:
    """Lead a floating IP of the caller's to an address of a server: the one named, or its first IPv4 address."""
    server, body = call.target, call.body
    views = for_compute.ports_of(call.tx, [server.id]).get(server.id, [])
    held = [(str(ip_address(held.address)), view.id) for view in views for held in view.addresses]
    if not held:
        raise BadRequest("No fixed IPs associated to instance")
    if body.fixed_address is not None:
        held = [(address, port) for address, port in held if address == str(ip_address(body.fixed_address))]
        if not held:
            raise BadRequest("Specified fixed address not assigned to instance")
    else:
        held = [(address, port) for address, port in held if ip_address(address).version == 4]
        if not held:
            raise BadRequest(
                f"Unable to associate floating IP {body.address} to any fixed IPs for instance {server.id}. Instance "
                "has no fixed IPv4 addresses to associate."
            )
    address, port_id = held[0]
    floating = _by_address(call, body.address)
    if floating is None:
        raise NotFound("floating IP not found")
    call.require(network.UPDATE, resource.facts_of(network.FLOATING_IPS, call, floating))
    try:
        network.lead_to(call, floating, port_id, address)
    except Conflict as error:
        raise BadRequest(error.public) from None
    except NotFound as error:
        raise BadRequest(
            f"Unable to associate floating IP {body.address} to fixed IP {address} for instance {server.id}. "
            f"Error: {error.public}"
        ) from None


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="removeFloatingIp",
    rules=(Rule(REMOVE),),
    target=server_in_sight,
    body=FromServer,
    until=LAST_ACTION,
    success=202,
)
def remove_floating_ip(call: Call[Server, FromServer]) -> None:
    """Lead a floating IP away from a server."""
    floating = _by_address(call, call.body.address)
    if floating is None:
        raise NotFound(f"Floating IP not found for address {call.body.address}.")
    if _views(call, [floating])[0]["instance_id"] != call.target.id:
        raise Conflict(f"Floating IP {call.body.address} is not associated with instance {call.target.id}.")
    call.require(network.UPDATE, resource.facts_of(network.FLOATING_IPS, call, floating))
    network.lead_nowhere(call, floating)


def _by_address(call: Call[object, object], address: str) -> FloatingIp | None:
    """One of those in the caller's sight."""
    in_sight = resource.in_sight(call, network.FLOATING_IPS)
    found = find(call.tx, FloatingIp, in_sight, rows.c.floating_ip_address == str(ip_address(address)))
    return found[0] if found else None


def _pools(call: Call[object, object]) -> list[Network]:
    wanted = select(Network, networks_in_sight(call.caller), networks.c.external).order_by(networks.c.name)
    return load(call.tx, Network, wanted.limit(page(call, since="2.44").limit))


def _name(pool: Network) -> str:
    return pool.name or pool.id


def _views(call: Call[object, object], found: list[FloatingIp]) -> list[View]:
    pools = {
        one.id: _name(one) for one in find(call.tx, Network, networks.c.id.in_({f.floating_network_id for f in found}))
    }
    leads_to = sa.select(ports.c.id, ports.c.server_id).where(ports.c.id.in_([f.port_id for f in found if f.port_id]))
    servers = {row.id: row.server_id for row in call.tx.all(leads_to)}
    return [
        {
            "id": one.id,
            "ip": one.floating_ip_address,
            "pool": pools.get(one.floating_network_id, one.floating_network_id),
            "fixed_ip": one.fixed_ip_address,
            "instance_id": servers.get(one.port_id or ""),
        }
        for one in found
    ]
