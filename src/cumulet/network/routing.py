"""What a router is connected to: interfaces on subnets and one gateway on an external network, each of them a port."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.network import addresses, port_life
from cumulet.network.addresses import FixedIp
from cumulet.network.store import (
    FloatingIp,
    Network,
    Port,
    Router,
    Subnet,
    change,
    delete,
    find,
    floating_ips,
    insert,
    must_get,
    port_addresses,
    ports,
    revise,
    subnets,
)

INTERFACE_OWNER = "network:router_interface"
GATEWAY_OWNER = "network:router_gateway"


def add_router(
    tx: Tx,
    clock: Clock,
    *,
    project_id: str,
    name: str = "",
    description: str = "",
    admin_state_up: bool = True,
    availability_zone_hints: Sequence[str] = (),
) -> Router:
    """Add a router that is connected to nothing."""
    return insert(
        tx,
        Router,
        clock,
        project_id=project_id,
        name=name,
        description=description,
        admin_state_up=admin_state_up,
        gateway_port_id=None,
        enable_snat=True,
        routes=[],
        availability_zone_hints=list(availability_zone_hints),
    )


def remove_router(tx: Tx, router: Router) -> None:
    """Remove a router that is connected to nothing."""
    if interfaces(tx, router.id):
        raise Conflict(f"Router {router.id} still has ports", reason="RouterInUse")
    delete(tx, Router, router.id)


def interfaces(tx: Tx, router_id: str) -> list[Port]:
    """The router's ports on tenants' subnets, oldest first."""
    found = find(tx, Port, ports.c.device_id == router_id, ports.c.device_owner == INTERFACE_OWNER)
    return sorted(found, key=lambda port: (port.created_at_us, port.id))


def connected_subnets(tx: Tx, router_id: str) -> list[Subnet]:
    """The subnets the router's interfaces have addresses in."""
    on_interfaces = (
        sa.select(port_addresses.c.subnet_id)
        .join(ports, ports.c.id == port_addresses.c.port_id)
        .where(ports.c.device_id == router_id, ports.c.device_owner == INTERFACE_OWNER)
    )
    return find(tx, Subnet, subnets.c.id.in_(on_interfaces))


def add_interface_by_subnet(tx: Tx, clock: Clock, router: Router, subnet: Subnet) -> Port:
    """Connect a subnet: the router takes its gateway address."""
    if subnet.gateway_ip is None:
        raise BadRequest("Bad router request: Subnet for router interface must have a gateway IP.")
    refuse_overlapping(tx, router, [subnet])
    network = must_get(tx, Network, subnet.network_id)
    new = port_life.NewPort(
        # The interface belongs to the router's project, whoever owns the network.
        project_id=router.project_id,
        fixed_ips=[FixedIp(subnet_id=subnet.id, address=subnet.gateway_ip)],
        device_id=router.id,
        device_owner=INTERFACE_OWNER,
        status="ACTIVE",
        security_group_ids=[],
        port_security_enabled=False,
    )
    port = port_life.make(tx, clock, network, new)
    revise(tx, Router, router.id, clock.now_us())
    return port


def add_interface_by_port(tx: Tx, clock: Clock, router: Router, port: Port) -> list[Subnet]:
    """Connect with a port that is there; answers the subnets it has addresses in."""
    if port.device_id or port.server_id:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. "
            f"Port already has an attached device {port.device_id}."
        )
    held = addresses.held_by(tx, [port.id]).get(port.id, [])
    connected = [must_get(tx, Subnet, fixed.subnet_id) for fixed in held if fixed.subnet_id]
    if not connected:
        raise BadRequest(f"Bad router request: Port {port.id} has no fixed IPs.")
    if sum(subnet.ip_version == 4 for subnet in connected) > 1:
        raise BadRequest("Bad router request: Cannot have multiple IPv4 subnets on router port.")
    refuse_overlapping(tx, router, connected)
    port_life.join_groups(tx, port.id, [])
    change(
        tx,
        Port,
        port.id,
        clock.now_us(),
        device_id=router.id,
        device_owner=INTERFACE_OWNER,
        status="ACTIVE",
        port_security_enabled=False,
    )
    revise(tx, Router, router.id, clock.now_us())
    return connected


def refuse_overlapping(tx: Tx, router: Router, added: Sequence[Subnet]) -> None:
    """A router cannot tell two overlapping subnets apart."""
    present = connected_subnets(tx, router.id)
    for subnet in added:
        for other in present:
            if other.id == subnet.id:
                raise BadRequest(f"Bad router request: Router already has a port on subnet {subnet.id}.")
            ours, theirs = ip_network(subnet.cidr), ip_network(other.cidr)
            if ours.version == theirs.version and ours.overlaps(theirs):
                raise BadRequest(
                    f"Bad router request: Cidr {subnet.cidr} of subnet {subnet.id} "
                    f"overlaps with cidr {other.cidr} of subnet {other.id}."
                )


def interface_on(tx: Tx, router: Router, subnet_id: str) -> Port:
    """The router's port in a subnet."""
    found = [
        port
        for port in interfaces(tx, router.id)
        if any(fixed.subnet_id == subnet_id for fixed in addresses.held_by(tx, [port.id]).get(port.id, []))
    ]
    if not found:
        raise NotFound(f"Router {router.id} has no interface on subnet {subnet_id}")
    return found[0]


def remove_interface(tx: Tx, clock: Clock, router: Router, port: Port) -> list[str]:
    """Disconnect a port; answers the subnets it had. 409 while floating IPs or routes need it."""
    subnet_ids = [fixed.subnet_id for fixed in addresses.held_by(tx, [port.id]).get(port.id, []) if fixed.subnet_id]
    inside = sa.select(port_addresses.c.port_id).where(port_addresses.c.subnet_id.in_(subnet_ids))
    if find(tx, FloatingIp, floating_ips.c.router_id == router.id, floating_ips.c.port_id.in_(inside)):
        raise Conflict(
            f"Router interface for subnet {subnet_ids[0]} on router {router.id} cannot be deleted, "
            "as it is required by one or more floating IPs."
        )
    cidrs = [ip_network(must_get(tx, Subnet, subnet_id).cidr) for subnet_id in subnet_ids]
    for route in router.routes:
        if any(addresses.parse(route["nexthop"]) in cidr for cidr in cidrs):
            raise Conflict(
                f"Router interface for subnet {subnet_ids[0]} on router {router.id} cannot be deleted, "
                "as it is required by one or more routes."
            )
    port_life.end(tx, port.id)
    revise(tx, Router, router.id, clock.now_us())
    return subnet_ids


def set_gateway(
    tx: Tx, clock: Clock, router: Router, external: Network, *, fixed_ips: Sequence[FixedIp] | None, enable_snat: bool
) -> None:
    """Connect the router to an external network; an older gateway on another network goes."""
    present = None if router.gateway_port_id is None else must_get(tx, Port, router.gateway_port_id)
    port_id = router.gateway_port_id
    if present is None or present.network_id != external.id or fixed_ips is not None:
        if present is not None:
            _refuse_gateway_in_use(tx, router, but_network=external.id)
            clear_gateway(tx, clock, router, checked=True)
        new = port_life.NewPort(
            # Upstream leaves the gateway port without an owner: tenants do not see or change it.
            project_id="",
            fixed_ips=fixed_ips,
            device_id=router.id,
            device_owner=GATEWAY_OWNER,
            status="ACTIVE",
            security_group_ids=[],
            port_security_enabled=False,
        )
        port_id = port_life.make(tx, clock, external, new).id
    change(tx, Router, router.id, clock.now_us(), gateway_port_id=port_id, enable_snat=enable_snat)


def clear_gateway(tx: Tx, clock: Clock, router: Router, *, checked: bool = False) -> None:
    """Disconnect the router from its external network."""
    if router.gateway_port_id is None:
        return
    if not checked:
        _refuse_gateway_in_use(tx, router, but_network=None)
    change(tx, Router, router.id, clock.now_us(), gateway_port_id=None, enable_snat=True)
    port_life.end(tx, router.gateway_port_id)


def _refuse_gateway_in_use(tx: Tx, router: Router, *, but_network: str | None) -> None:
    held = find(tx, FloatingIp, floating_ips.c.router_id == router.id)
    if any(floating.floating_network_id != but_network for floating in held):
        network_id = must_get(tx, Port, router.gateway_port_id or "").network_id
        raise Conflict(
            f"Gateway cannot be updated for router {router.id}, since a gateway to external network {network_id} "
            "is required by one or more floating IPs."
        )
