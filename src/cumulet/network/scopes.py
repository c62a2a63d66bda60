"""The address scopes of networks, by version of IP, and the refusal of routers that would join several scopes.

Neutron's routers forward only translated packets between scopes. Ours forward between all their networks, so a router
whose networks are in different scopes is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotYet
from cumulet.network.address_scope_records import AddressScope
from cumulet.network.addresses import range_of
from cumulet.network.device_owners import OF_ROUTERS
from cumulet.network.many import find_many
from cumulet.network.store import Network, Port, Router, find, get, must_get, ports, subnets
from cumulet.network.subnet_pool_records import SubnetPool, subnet_pools

Scopes = Mapping[tuple[str, int], str | None]
"""The scope by network and version of IP. A network without subnets of a version is left out."""


def of_networks(tx: Tx, network_ids: Collection[str]) -> Scopes:
    """The scopes of networks. All subnets of one version of a network are in the same scope, or all in none."""
    statement = (
        sa.select(subnets.c.network_id, subnets.c.ip_version, subnet_pools.c.address_scope_id)
        .outerjoin(subnet_pools, subnet_pools.c.id == subnets.c.subnetpool_id)
        .where(subnets.c.network_id.in_(sorted(network_ids)))
        .distinct()
    )
    return {(row.network_id, row.ip_version): row.address_scope_id for row in tx.all(statement)}


def check_new_subnet(tx: Tx, network: Network, version: int, pool_id: str | None) -> None:
    """400 for a subnet whose scope is not that of the network's other subnets of its version."""
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


MOST_PREFIXES = 512
"""Of all subnet pools in one address scope together. All are looked at before another one joins them."""
_PREFIXES = sa.select(subnet_pools.c.prefixes).where(
    subnet_pools.c.address_scope_id == sa.bindparam("of_scope"), subnet_pools.c.id != sa.bindparam("but")
)


def check_pool(tx: Tx, scope: AddressScope, pool_id: str | None, version: int, prefixes: Collection[str]) -> None:
    """400 for a pool that cannot be in a scope: it is of another version, or overlaps with a pool of the scope."""
    if scope.ip_version != version:
        raise BadRequest(
            f"Illegal subnetpool association: the address scope {scope.id} is of IPv{scope.ip_version}.",
            reason="IllegalSubnetPoolIpVersionAssociationToAddressScope",
        )
    others = tx.all(_PREFIXES, {"of_scope": scope.id, "but": pool_id or ""})
    taken = [prefix for (of_pool,) in others for prefix in of_pool]
    if len(taken) + len(prefixes) > MOST_PREFIXES:
        raise BadRequest(
            f"Failed to associate address scope: its subnetpools have more than {MOST_PREFIXES} prefixes together.",
            reason="AddressScopePrefixConflict",
        )
    ends = sorted(_ends(prefix) for prefix in (*taken, *prefixes))
    if any(after[0] <= before[1] for before, after in pairwise(ends)):
        raise BadRequest(
            "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.",
            reason="AddressScopePrefixConflict",
        )


def _ends(prefix: str) -> tuple[int, int]:
    """The first and the last address. No two prefixes of one pool overlap."""
    cidr = range_of(prefix)
    return int(cidr.network_address), int(cidr.broadcast_address)


def check_pools_networks(tx: Tx, pool_id: str) -> None:
    """After a pool has changed its scope: check the networks with subnets of it, and their routers."""
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
    """501 for a router that would forward between scopes, or translate addresses within one scope."""
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
