"""What a project gets when it asks for just any network: a network, a subnet, a router to the default way out."""

from __future__ import annotations

from ipaddress import ip_network

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.network import limits, routing, topology
from cumulet.network.store import Network, find, networks

NAME = "auto_allocated_network"
ROUTER_NAME = "auto_allocated_router"
CIDR = "10.0.0.0/26"


def default_external(tx: Tx) -> Network | None:
    """The external network that the administrator marked as the default one."""
    found = find(tx, Network, networks.c.external, networks.c.is_default)
    return found[0] if found else None


def existing(tx: Tx, project_id: str) -> Network | None:
    """The project's auto-allocated network."""
    found = find(tx, Network, networks.c.project_id == project_id, networks.c.name == NAME)
    return found[0] if found else None


def ensure_topology(tx: Tx, clock: Clock, project_id: str, wire_mtu: int) -> Network:
    """The project's auto-allocated network, made with its subnet and router if it is not there."""
    found = existing(tx, project_id)
    if found is not None:
        return found
    external = default_external(tx)
    if external is None:
        raise BadRequest(f"Unable to automatically allocate a network for project {project_id}")
    for resource in ("network", "subnet", "router"):
        limits.check(tx, project_id, resource)
    network = topology.add_network(tx, clock, project_id=project_id, name=NAME, wire_mtu=wire_mtu)
    subnet = topology.add_subnet(tx, clock, network, name="auto_allocated_subnet_v4", cidr=ip_network(CIDR))
    router = routing.add_router(tx, clock, project_id=project_id, name=ROUTER_NAME)
    routing.set_gateway(tx, clock, router, external, fixed_ips=None, enable_snat=True)
    routing.add_interface_by_subnet(tx, clock, router, subnet)
    return network
