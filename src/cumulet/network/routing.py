"""Routers and their ports: interfaces on subnets, and a gateway on an external network."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import Conflict, NotFound
from cumulet.network import address_changes, addresses, port_life, refusals, scopes, trunk_ports
from cumulet.network.addresses import FixedIp
from cumulet.network.device_owners import ROUTER_GATEWAY, ROUTER_INTERFACE
from cumulet.network.forwarding_records import port_forwardings
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


def add_router(
    tx: Tx,
    clock: Clock,
    *,
    project_id: str,
    name: str = "",
    description: str = "",
    admin_state_up: bool = True,
    availability_zone_hints: Sequence[str] = (),
    ha: bool = False,
) -> Router:
    """Add a router without interfaces and gateway."""
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
        ha=ha,
    )


def remove_router(tx: Tx, router: Router) -> None:
    """Remove a router. 409 while it has interfaces."""
    refuse_interfaces(tx, router)
    delete(tx, Router, router.id)


def refuse_interfaces(tx: Tx, router: Router) -> None:
    """409 while the router has interfaces."""
    found = interfaces(tx, router.id)
    if found:
        still = ", ".join(port.id for port in found)
        raise Conflict(f"Router {router.id} has ports still attached: {still}", reason="RouterInUse")


def interfaces(tx: Tx, router_id: str) -> list[Port]:
    """The router's interfaces, oldest first."""
    found = find(tx, Port, ports.c.device_id == router_id, ports.c.device_owner == ROUTER_INTERFACE)
    return sorted(found, key=lambda port: (port.created_at_us, port.id))


def connected_subnets(tx: Tx, router_id: str) -> list[Subnet]:
    """The subnets the router's interfaces have addresses in."""
    on_interfaces = (
        sa.select(port_addresses.c.subnet_id)
        .join(ports, ports.c.id == port_addresses.c.port_id)
        .where(ports.c.device_id == router_id, ports.c.device_owner == ROUTER_INTERFACE)
    )
    return find(tx, Subnet, subnets.c.id.in_(on_interfaces))


def add_interface_by_subnet(tx: Tx, clock: Clock, router: Router, subnet: Subnet) -> Port:
    """Connect a router to a subnet. The router gets the subnet's gateway address."""
    if subnet.gateway_ip is None:
        raise refusals.bad("router", "Subnet for router interface must have a gateway IP.")
    refuse_overlapping(tx, router, [subnet])
    network = must_get(tx, Network, subnet.network_id)
    gateway = FixedIp(subnet_id=subnet.id, address=subnet.gateway_ip)
    shared = _ipv6_interface(tx, router, network.id) if subnet.ip_version == 6 else None
    if shared is not None:
        _add_address(tx, clock, shared, gateway)
        scopes.check_router(tx, router.id)
        revise(tx, Router, router.id, clock.now_us())
        return shared
    new = port_life.NewPort(
        # The interface belongs to the router's project, also on another project's network.
        project_id=router.project_id,
        fixed_ips=[gateway],
        device_id=router.id,
        device_owner=ROUTER_INTERFACE,
        status="ACTIVE",
        security_group_ids=[],
        port_security_enabled=False,
    )
    port = port_life.make(tx, clock, network, new)
    scopes.check_router(tx, router.id)
    revise(tx, Router, router.id, clock.now_us())
    return port


def _ipv6_interface(tx: Tx, router: Router, network_id: str) -> Port | None:
    """The interface for all IPv6 subnets of a network. There is one, because guests hear one router."""
    for port in interfaces(tx, router.id):
        held = addresses.of_port(tx, port.id)
        if port.network_id == network_id and any(":" in (fixed.address or "") for fixed in held):
            return port
    return None


def _add_address(tx: Tx, clock: Clock, port: Port, wanted: FixedIp) -> None:
    present = addresses.of_port(tx, port.id)
    addresses.claim_more(
        tx,
        port_id=port.id,
        network_id=port.network_id,
        mac=port.mac_address,
        device_owner=port.device_owner,
        wanted=[wanted],
        present=present,
    )
    revise(tx, Port, port.id, clock.now_us())


def add_interface_by_port(tx: Tx, clock: Clock, router: Router, port: Port) -> list[Subnet]:
    """Make a port an interface of the router. Returns the subnets that it has addresses in."""
    if port.device_id or port.server_id or trunk_ports.in_trunk(tx, port.id):
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. "
            f"Port already has an attached device {port.device_id}.",
            reason="PortInUse",
        )
    held = addresses.of_port(tx, port.id)
    connected = [must_get(tx, Subnet, fixed.subnet_id) for fixed in held if fixed.subnet_id]
    if not connected:
        raise refusals.bad("router", "Router port must have at least one fixed IP.")
    if sum(subnet.ip_version == 4 for subnet in connected) > 1:
        raise refusals.bad("router", "Cannot have multiple IPv4 subnets on router port.")
    refuse_overlapping(tx, router, connected)
    port_life.join_groups(tx, port.id, [])
    change(
        tx,
        Port,
        port.id,
        clock.now_us(),
        device_id=router.id,
        device_owner=ROUTER_INTERFACE,
        status="ACTIVE",
        port_security_enabled=False,
    )
    scopes.check_router(tx, router.id)
    revise(tx, Router, router.id, clock.now_us())
    return connected


def refuse_overlapping(tx: Tx, router: Router, added: Sequence[Subnet]) -> None:
    """400 for a subnet that overlaps with one that the router is connected to."""
    present = connected_subnets(tx, router.id) + _outside_subnets(tx, router)
    for subnet in added:
        for other in present:
            if other.id == subnet.id:
                raise refusals.bad("router", f"Router already has a port on subnet {subnet.id}.")
            ours, theirs = ip_network(subnet.cidr), ip_network(other.cidr)
            if addresses.overlap(ours, theirs):
                raise refusals.bad(
                    "router",
                    f"Cidr {subnet.cidr} of subnet {subnet.id} overlaps with cidr {other.cidr} of subnet {other.id}.",
                )


def _outside_subnets(tx: Tx, router: Router) -> list[Subnet]:
    """The subnets that the router's gateway has addresses in."""
    if router.gateway_port_id is None:
        return []
    held = addresses.of_port(tx, router.gateway_port_id)
    return [must_get(tx, Subnet, fixed.subnet_id) for fixed in held if fixed.subnet_id]


def interface_on(tx: Tx, router: Router, subnet_id: str) -> Port:
    """The router's port in a subnet."""
    found = [
        port
        for port in interfaces(tx, router.id)
        if any(fixed.subnet_id == subnet_id for fixed in addresses.of_port(tx, port.id))
    ]
    if not found:
        raise NotFound(
            f"Router {router.id} has no interface on subnet {subnet_id}", reason="RouterInterfaceNotFoundForSubnet"
        )
    return found[0]


def remove_interface(tx: Tx, clock: Clock, router: Router, port: Port, *, only: str | None = None) -> list[str]:
    """Remove an interface, or (`only`) its addresses in one subnet. Returns the subnets that are disconnected.

    409 while floating IPs or static routes need it.
    """
    held = addresses.of_port(tx, port.id)
    subnet_ids = [fixed.subnet_id for fixed in held if fixed.subnet_id and only in (None, fixed.subnet_id)]
    _refuse_subnets_in_use(tx, router, subnet_ids)
    revise(tx, Router, router.id, clock.now_us())
    if len(subnet_ids) < len(held):
        addresses.give_back(tx, port.id, [h.address for h in held if h.subnet_id in subnet_ids and h.address])
        revise(tx, Port, port.id, clock.now_us())
    else:
        port_life.end(tx, port.id)
    return subnet_ids


def _refuse_subnets_in_use(tx: Tx, router: Router, subnet_ids: Sequence[str]) -> None:
    inside = sa.select(port_addresses.c.port_id).where(port_addresses.c.subnet_id.in_(subnet_ids))
    refused = f"Router interface for subnet {', '.join(subnet_ids)} on router {router.id} cannot be deleted, "
    forwards = sa.select(port_forwardings.c.floating_ip_id).where(port_forwardings.c.internal_port_id.in_(inside))
    leads_in = sa.or_(floating_ips.c.port_id.in_(inside), floating_ips.c.id.in_(forwards))
    if find(tx, FloatingIp, floating_ips.c.router_id == router.id, leads_in):
        raise Conflict(
            refused + "as it is required by one or more floating IPs.", reason="RouterInterfaceInUseByFloatingIP"
        )
    cidrs = [ip_network(must_get(tx, Subnet, subnet_id).cidr) for subnet_id in subnet_ids]
    for route in router.routes:
        if any(addresses.parse(route["nexthop"]) in cidr for cidr in cidrs):
            raise Conflict(refused + "as it is required by one or more routes.", reason="RouterInterfaceInUseByRoute")


def set_gateway(
    tx: Tx, clock: Clock, router: Router, external: Network, *, fixed_ips: Sequence[FixedIp] | None, enable_snat: bool
) -> None:
    """Connect the router to an external network. A gateway on another network is removed first."""
    present = None if router.gateway_port_id is None else must_get(tx, Port, router.gateway_port_id)
    port_id = router.gateway_port_id
    if present is not None and present.network_id == external.id:
        if fixed_ips is not None:
            _move_gateway(tx, clock, present, fixed_ips)
    else:
        if present is not None:
            clear_gateway(tx, clock, router)
        new = port_life.NewPort(
            # Upstream leaves the gateway port without an owner: tenants do not see or change it.
            project_id="",
            fixed_ips=fixed_ips,
            device_id=router.id,
            device_owner=ROUTER_GATEWAY,
            status="ACTIVE",
            security_group_ids=[],
            port_security_enabled=False,
        )
        port_id = port_life.make(tx, clock, external, new).id
    change(tx, Router, router.id, clock.now_us(), gateway_port_id=port_id, enable_snat=enable_snat)
    scopes.check_router(tx, router.id)


def _move_gateway(tx: Tx, clock: Clock, port: Port, wanted: Sequence[FixedIp]) -> None:
    """Give the gateway other addresses on its network."""
    if address_changes.change(tx, port, port.mac_address, wanted, frozenset()):
        revise(tx, Port, port.id, clock.now_us())


def clear_gateway(tx: Tx, clock: Clock, router: Router) -> None:
    """Disconnect the router from its external network. 409 while floating IPs need it."""
    if router.gateway_port_id is None:
        return
    if find(tx, FloatingIp, floating_ips.c.router_id == router.id):
        network_id = must_get(tx, Port, router.gateway_port_id).network_id
        raise Conflict(
            f"Gateway cannot be updated for router {router.id}, since a gateway to external network {network_id} "
            "is required by one or more floating IPs.",
            reason="RouterExternalGatewayInUseByFloatingIp",
        )
    change(tx, Router, router.id, clock.now_us(), gateway_port_id=None, enable_snat=True, qos_policy_id=None)
    port_life.end(tx, router.gateway_port_id)
