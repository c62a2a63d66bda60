"""How networks and subnets are made, for the API, the bootstrap and automatic topologies alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import addresses, refusals, scopes, sharing
from cumulet.network.addresses import Address, AddressRange
from cumulet.network.device_owners import OF_NETWORK
from cumulet.network.free_segments import free_segment, like
from cumulet.network.sharing import EVERYBODY, Action, Shareable
from cumulet.network.store import (
    SEGMENTS,
    Network,
    Subnet,
    erase,
    insert,
    inserting,
    network_tags,
    ports,
    revise,
    subnets,
)
from cumulet.network.subnet_checks import MOST_AUTOMATIC, MOST_GIVEN

TENANT_NETWORK_TYPE: Final = "vxlan"
PUBLIC: Final = "public"
"""The name of the physical network that hosts reach, and of the external network on it."""
_ENCAPSULATION = {"vxlan": 50, "geneve": 58, "gre": 42}
"""Bytes that the encapsulation of a type of network takes of each packet, over IPv4."""


def largest_mtu(network_type: str, wire_mtu: int) -> int:
    """The largest MTU of a network of this type, in bytes. `wire_mtu`: setting `global_physnet_mtu`."""
    return wire_mtu - _ENCAPSULATION.get(network_type, 0)


def add_network(
    tx: Tx,
    clock: Clock,
    *,
    project_id: str,
    name: str,
    wire_mtu: int,
    description: str = "",
    admin_state_up: bool = True,
    shared: bool = False,
    external: bool = False,
    is_default: bool = False,
    mtu: int | None = None,
    port_security_enabled: bool = True,
    network_type: str = TENANT_NETWORK_TYPE,
    physical_network: str | None = None,
    segmentation_id: int | None = None,
    availability_zone_hints: Sequence[str] = (),
    dns_domain: str = "",
    qos_policy_id: str | None = None,
    tags: Sequence[str] = (),
) -> Network:
    """Add a network. Without `segmentation_id` it gets a free segment of its project's ranges, or another; without
    `mtu`, the largest that `wire_mtu` leaves it.
    """
    segmentation_id = take_segment(
        tx,
        project_id=project_id,
        network_type=network_type,
        physical_network=physical_network,
        segmentation_id=segmentation_id,
    )
    network = insert(
        tx,
        Network,
        clock,
        project_id=project_id,
        name=name,
        description=description,
        admin_state_up=admin_state_up,
        external=external,
        is_default=is_default,
        mtu=largest_mtu(network_type, wire_mtu) if mtu is None else mtu,
        port_security_enabled=port_security_enabled,
        network_type=network_type,
        physical_network=physical_network,
        segmentation_id=segmentation_id,
        availability_zone_hints=list(availability_zone_hints),
        dns_domain=dns_domain,
        qos_policy_id=qos_policy_id,
    )
    for wanted, action in ((shared, Action.SHARED), (external, Action.EXTERNAL)):
        if wanted:
            sharing.share(tx, clock, Shareable.NETWORK, network.id, owner=project_id, target=EVERYBODY, action=action)
    set_tags(tx, network.id, tags)
    return network


def take_segment(
    tx: Tx, *, project_id: str, network_type: str, physical_network: str | None, segmentation_id: int | None
) -> int | None:
    """The number of a new segment: the one given, or a free one; None for types without numbers. 409 if it is taken."""
    if segmentation_id is None and network_type not in ("flat", "local"):
        return free_segment(tx, project_id=project_id, network_type=network_type, physical_network=physical_network)
    if network_type != "local":
        _refuse_taken_segment(tx, network_type, physical_network, segmentation_id)
    return segmentation_id


def _refuse_taken_segment(tx: Tx, network_type: str, physical_network: str | None, segmentation_id: int | None) -> None:
    statement = sa.select(SEGMENTS.c.network_id).where(
        like(SEGMENTS, network_type, physical_network),
        SEGMENTS.c.segmentation_id.is_not_distinct_from(segmentation_id),
    )
    if tx.first(statement) is not None:
        segment = physical_network if segmentation_id is None else segmentation_id
        raise Conflict(f"Unable to create the {network_type} network. The segment {segment} is in use.")


def add_subnet(
    tx: Tx,
    clock: Clock,
    network: Network,
    *,
    cidr: AddressRange,
    project_id: str | None = None,
    subnetpool_id: str | None = None,
    name: str = "",
    description: str = "",
    gateway: Address | None = None,
    without_gateway: bool = False,
    enable_dhcp: bool = True,
    ipv6_ra_mode: str | None = None,
    ipv6_address_mode: str | None = None,
    allocation_pools: Sequence[Mapping[str, str]] | None = None,
    dns_nameservers: Sequence[str] = (),
    host_routes: Sequence[Mapping[str, str]] = (),
    service_types: Sequence[str] = (),
    dns_publish_fixed_ip: bool = False,
    tags: Sequence[str] = (),
) -> Subnet:
    """Add a subnet. By default it has the usual gateway, and its pools are all other addresses."""
    refuse_overlap(tx, network.id, cidr)
    scopes.check_new_subnet(tx, network, cidr.version, subnetpool_id)
    if gateway is None and not without_gateway:
        gateway = usual_gateway(cidr)
    if allocation_pools is None:
        pools = addresses.default_pools(cidr, gateway)
    else:
        pools = [dict(pool) for pool in allocation_pools]
    subnet = insert(
        tx,
        Subnet,
        clock,
        project_id=project_id or network.project_id,
        name=name,
        description=description,
        network_id=network.id,
        subnetpool_id=subnetpool_id,
        ip_version=cidr.version,
        cidr=str(cidr),
        gateway_ip=None if gateway is None else str(gateway),
        enable_dhcp=enable_dhcp,
        ipv6_ra_mode=ipv6_ra_mode,
        ipv6_address_mode=ipv6_address_mode,
        dns_publish_fixed_ip=dns_publish_fixed_ip,
        allocation_pools=pools,
        dns_nameservers=list(dns_nameservers),
        host_routes=[dict(route) for route in host_routes],
        service_types=list(service_types),
    )
    set_tags(tx, subnet.id, tags)
    revise(tx, Network, network.id, clock.now_us())
    if addresses.is_auto_addressed(subnet):
        _give_to_present_ports(tx, subnet)
    return subnet


def usual_gateway(cidr: AddressRange) -> Address:
    """The first address for hosts; in IPv6 the subnet-router anycast address (RFC 4291, 2.6.1)."""
    return cidr.network_address + (1 if cidr.version == 4 else 0)


_RANGES = sa.select(subnets.c.cidr).where(
    subnets.c.network_id == sa.bindparam("of"), subnets.c.ip_version == sa.bindparam("version")
)


def refuse_overlap(tx: Tx, network_id: str, cidr: AddressRange) -> None:
    """400 for a subnet that overlaps with another one of its network."""
    for (other,) in tx.all(_RANGES, {"of": network_id, "version": cidr.version}):
        if addresses.overlap(cidr, addresses.range_of(other)):
            raise refusals.invalid(
                f"Requested subnet with cidr: {cidr} for network: {network_id} overlaps with another subnet."
            )


_ARE_GUESTS = sa.and_(ports.c.network_id == sa.bindparam("of"), ~ports.c.device_owner.startswith(OF_NETWORK))
_GUESTS = sa.select(ports.c.id, ports.c.mac_address).where(_ARE_GUESTS)
_NUMBER_OF_GUESTS = sa.select(sa.func.count()).select_from(ports).where(_ARE_GUESTS)
_AUTOMATIC = (
    sa.select(sa.func.count())
    .select_from(subnets)
    .where(
        subnets.c.network_id == sa.bindparam("of"),
        subnets.c.ipv6_address_mode.in_(sorted(addresses.AUTO_ADDRESS_MODES)),
    )
)


def refuse_too_many_automatic(tx: Tx, network: Network, before: int) -> None:
    """Refuse one more automatically addressed subnet where there are too many, or where too many ports would get
    addresses at once. `before`: how many the same request has made."""
    if tx.scalar(_AUTOMATIC, {"of": network.id}) >= MOST_AUTOMATIC:
        raise Conflict(
            f"Network {network.id} has {MOST_AUTOMATIC} subnets with automatic addresses: there cannot be more."
        )
    if before and (before + 1) * tx.scalar(_NUMBER_OF_GUESTS, {"of": network.id}) > MOST_GIVEN:
        raise refusals.invalid(
            f"The ports of network {network.id} would get more than {MOST_GIVEN} automatic addresses by one request. "
            "Create these subnets one by one."
        )


def _give_to_present_ports(tx: Tx, subnet: Subnet) -> None:
    """Record the addresses that guests on the network give themselves once the prefix is advertised."""
    guests = [(port_id, mac) for port_id, mac in tx.all(_GUESTS, {"of": subnet.network_id})]
    addresses.hold_automatic(tx, subnet, guests)


def set_tags(tx: Tx, resource_id: str, tags: Sequence[str]) -> None:
    """Give the resource exactly these tags."""
    erase(tx, network_tags, resource_id=resource_id)
    if tags:
        tx.execute(inserting(network_tags), [{"resource_id": resource_id, "tag": tag} for tag in dict.fromkeys(tags)])
