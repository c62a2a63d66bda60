"""How many addresses networks have and use: ``/network-ip-availabilities``, for administrators."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.one_of import one_of
from cumulet.network import addresses, policy, resource
from cumulet.network.networks import NETWORKS
from cumulet.network.resource import View
from cumulet.network.service import NETWORK
from cumulet.network.store import Network, Subnet, find, load, networks, port_addresses, select, subnets
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("get_network_ip_availability", policy.ADMIN_OR_SERVICE, description="See how many addresses are used")


def _views(tx: Tx, records: Sequence[Network]) -> list[View]:
    ids = [network.id for network in records]
    used: dict[str, int] = {}
    statement = sa.select(port_addresses.c.subnet_id, sa.func.count()).where(port_addresses.c.network_id.in_(ids))
    for subnet_id, count in map(tuple, tx.all(statement.group_by(port_addresses.c.subnet_id))):
        used[subnet_id] = count
    contained: dict[str, list[Subnet]] = {network_id: [] for network_id in ids}
    for subnet in find(tx, Subnet, subnets.c.network_id.in_(ids)):
        contained[subnet.network_id].append(subnet)
    return [_view(network, contained[network.id], used) for network in records]


def _view(network: Network, contained: Sequence[Subnet], used: dict[str, int]) -> View:
    return {
        "network_id": network.id,
        "network_name": network.name,
        "project_id": network.project_id,
        "tenant_id": network.project_id,
        "total_ips": sum(_size(subnet) for subnet in contained),
        "used_ips": sum(used.get(subnet.id, 0) for subnet in contained),
        "subnet_ip_availability": [
            {
                "subnet_id": subnet.id,
                "subnet_name": subnet.name,
                "cidr": subnet.cidr,
                "ip_version": subnet.ip_version,
                "total_ips": _size(subnet),
                "used_ips": used.get(subnet.id, 0),
            }
            for subnet in contained
        ],
    }


def _size(subnet: Subnet) -> int:
    """How many addresses the pools have. For IPv6 the number can be larger than JSON holds exactly, as upstream."""
    return sum(
        int(addresses.parse(pool["end"])) - int(addresses.parse(pool["start"])) + 1 for pool in subnet.allocation_pools
    )


_FILTERS = {
    "network_id": networks.c.id,
    "network_name": networks.c.name,
    "project_id": networks.c.project_id,
    "tenant_id": networks.c.project_id,
}


@NETWORK.operation("GET", "/network-ip-availabilities", rules=())
def list_network_ip_availability(call: Call[None, None]) -> View:
    """List networks with their numbers of addresses. The list is empty for a caller who may not see them."""
    if not call.authorise(SHOW, {"project_id": call.caller.project_id}):
        return {"network_ip_availabilities": []}
    conditions = [one_of(column, call.query.getall(name)) for name, column in _FILTERS.items() if name in call.query]
    for version in {6 if version == "6" else 4 for version in call.query.getall("ip_version")}:
        of_version = sa.select(subnets.c.network_id).where(subnets.c.ip_version == version)
        conditions.append(networks.c.id.in_(of_version))
    found = load(call.tx, Network, select(Network, *conditions).limit(call.cloud.settings.largest_page))
    return {"network_ip_availabilities": _views(call.tx, found)}


def _target(call: Call[object, object]) -> Network:
    network = resource.find_in_sight(call, NETWORKS, call.path["network_id"])
    if not call.authorise(SHOW, {"project_id": network.project_id}):
        raise resource.unknown(NETWORKS, call.path["network_id"])
    return network


@NETWORK.operation("GET", "/network-ip-availabilities/{network_id}", rules=(Rule(SHOW),), target=_target)
def show_network_ip_availability(call: Call[Network, None]) -> View:
    """Show a network's numbers of addresses."""
    return {"network_ip_availability": _views(call.tx, [call.target])[0]}
