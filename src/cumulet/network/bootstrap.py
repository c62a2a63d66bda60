"""The networks that a first start makes: an external one for everybody, and one with a router for project demo."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.network import default_security_group, routing, topology
from cumulet.network.store import Network, Subnet, find, networks, subnets

PUBLIC_CIDR, PUBLIC_GATEWAY = "172.24.4.0/24", "172.24.4.1"
PUBLIC_POOL = {"start": "172.24.4.2", "end": "172.24.4.254"}
PRIVATE_CIDR = "10.0.0.0/24"


def public_gateways(tx: Tx) -> list[str]:
    """The gateways of the external subnets on the physical network `public`, like ``172.24.4.1/24``."""
    on_it = sa.select(networks.c.id).where(
        networks.c.external, networks.c.network_type == "flat", networks.c.physical_network == topology.PUBLIC
    )
    found = find(tx, Subnet, subnets.c.network_id.in_(on_it), subnets.c.gateway_ip.is_not(None))
    return sorted(f"{subnet.gateway_ip}/{subnet.cidr.rpartition('/')[2]}" for subnet in found)


def seed(db: Database, clock: Clock, *, admin_project_id: str, demo_project_id: str, wire_mtu: int) -> None:
    """Make the external network `public`, and in project demo `private` with subnet and router, unless they exist."""
    db.write(lambda tx: _seed(tx, clock, admin_project_id, demo_project_id, wire_mtu))


def _seed(tx: Tx, clock: Clock, admin_project_id: str, demo_project_id: str, wire_mtu: int) -> None:
    if find(tx, Network, networks.c.name == topology.PUBLIC, networks.c.external):
        return
    public = topology.add_network(
        tx,
        clock,
        project_id=admin_project_id,
        name=topology.PUBLIC,
        wire_mtu=wire_mtu,
        external=True,
        is_default=True,
        network_type="flat",
        physical_network=topology.PUBLIC,
    )
    topology.add_subnet(
        tx,
        clock,
        public,
        name="public-subnet",
        cidr=ip_network(PUBLIC_CIDR),
        gateway=ip_address(PUBLIC_GATEWAY),
        enable_dhcp=False,
        allocation_pools=[PUBLIC_POOL],
    )
    private = topology.add_network(tx, clock, project_id=demo_project_id, name="private", wire_mtu=wire_mtu)
    subnet = topology.add_subnet(tx, clock, private, name="private-subnet", cidr=ip_network(PRIVATE_CIDR))
    router = routing.add_router(tx, clock, project_id=demo_project_id, name="router1")
    routing.set_gateway(tx, clock, router, public, fixed_ips=None, enable_snat=True)
    routing.add_interface_by_subnet(tx, clock, router, subnet)
    default_security_group.ensure(tx, clock, demo_project_id)
