"""Which address scope a network is in, by version of IP; and that no router joins what scopes keep apart.

Neutron's routers forward nothing between scopes but what they translate. Ours forward between all their networks, so a
router whose networks are in different scopes is refused instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_network

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotYet
from cumulet.network.address_scope_records import AddressScope
from cumulet.network.device_owners import OF_ROUTERS
from cumulet.network.many import find_many
from cumulet.network.store import Network, Port, Router, find, find_by, get, must_get, ports, subnets
from cumulet.network.subnet_pool_records import SubnetPool, subnet_pools

Scopes = Mapping[tuple[str, int], str | None]
"""By network and version. A network without subnets of a version is not in it."""


def of_networks(tx: Tx, network_ids: Collection[str]) -> Scopes:
    """The scopes of networks: their subnets of one version are all in the same, or in none."""
    statement = (
        sa.select(subnets.c.network_id, subnets.c.ip_version, subnet_pools.c.address_scope_id)
        .outerjoin(subnet_pools, subnet_pools.c.id == subnets.c.subnetpool_id)
        .where(subnets.c.network_id.in_(sorted(network_ids)))
    )
    return {(row.network_id, row.ip_version): row.address_scope_id for row in tx.all(statement)}


def check_new_subnet(tx: Tx, network: Network, version: int, pool_id: str | None) -> None:
    """400 for a subnet in another scope than the network's others of its version."""
    present = of_networks(tx, [network.id])
    pool = get(tx, SubnetPool, pool_id)
    wanted = None if pool is None else pool.address_scope_id
    if (network.id, version) in present and present[network.id, version] != wanted:
        raise _several(network.id)


def _several(network_id: str) -> BadRequest:
    return BadRequest(
        "Subnets of the same address family hosted on the same network must all participate in the same address scope: "
        f"network {network_id}.",
        reason="NetworkAddressScopeAffinityError",
    )


def check_pool(tx: Tx, scope: AddressScope, pool_id: str | None, version: int, prefixes: Collection[str]) -> None:
    """400 for a pool that cannot be in a scope: of another version, or with addresses that another one there has."""
    if scope.ip_version != version:
        raise BadRequest(
            f"Illegal subnetpool association: the address scope {scope.id} is of IPv{scope.ip_version}.",
            reason="IllegalSubnetPoolIpVersionAssociationToAddressScope",
        )
    wanted = [ip_network(prefix) for prefix in prefixes]
    for other in find_by(tx, SubnetPool, address_scope_id=scope.id):
        taken = () if other.id == pool_id else (ip_network(prefix) for prefix in other.prefixes)
        if any(one.overlaps(two) for one in taken for two in wanted):
            raise BadRequest(
                "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.",
                reason="AddressScopePrefixConflict",
            )


def check_pools_networks(tx: Tx, pool_id: str) -> None:
    """After a pool is in another scope: its networks are each in one, and their routers join none that are apart."""
    network_ids = {row[0] for row in tx.all(sa.select(subnets.c.network_id).where(subnets.c.subnetpool_id == pool_id))}
    pool = must_get(tx, SubnetPool, pool_id)
    statement = sa.select(subnets.c.network_id).where(
        subnets.c.network_id.in_(sorted(network_ids)),
        subnets.c.ip_version == pool.ip_version,
        sa.or_(subnets.c.subnetpool_id.is_(None), subnets.c.subnetpool_id != pool_id),
    )
    other = tx.first(statement)
    if other is not None:
        raise _several(other[0])
    on_them = find(tx, Port, ports.c.network_id.in_(sorted(network_ids)), ports.c.device_owner.in_(OF_ROUTERS))
    for router in find_many(tx, Router, "id", {port.device_id for port in on_them}):
        check_router(tx, router.id)


def check_router(tx: Tx, router_id: str) -> None:
    """501 for a router that would forward between scopes, or translate within one."""
    router = must_get(tx, Router, router_id)
    its_ports = find(tx, Port, ports.c.device_id == router_id, ports.c.device_owner.in_(OF_ROUTERS))
    scopes = of_networks(tx, {port.network_id for port in its_ports})
    inside = {port.network_id for port in its_ports if port.id != router.gateway_port_id}
    outside = {port.network_id for port in its_ports if port.id == router.gateway_port_id}
    for version in (4, 6):
        within = {scopes[network, version] for network in inside if (network, version) in scopes}
        beyond = {scopes[network, version] for network in outside if (network, version) in scopes}
        translates = version == 4 and router.enable_snat
        if len(within) > 1 or (within and beyond and not translates and within != beyond):
            raise NotYet("Cumulet's routers do not keep address scopes apart yet: this one would join several.")
        if translates and within == beyond and within - {None}:
            raise NotYet("Cumulet's routers translate within an address scope: have this one's enable_snat false.")
