"""Subnets: ``/subnets``."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Annotated, Any, Literal

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotYet
from cumulet.network import addresses, bodies, limits, policy, resource, routing, topology
from cumulet.network.addresses import AddressRange
from cumulet.network.bodies import either, text
from cumulet.network.networks import NETWORKS
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import subnets_in_sight
from cumulet.network.store import (
    Network,
    Port,
    Subnet,
    SubnetPool,
    change,
    delete,
    find,
    must_get,
    networks,
    port_addresses,
    ports,
    revise,
    subnets,
    tags_of,
)
from cumulet.network.subnet_pools import SUBNET_POOLS, cut, default_pool
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

_OWNERS = f"{policy.PROJECT_MEMBER} or {policy.ADMIN_OR_NETWORK_OWNER_MEMBER}"
_SEEN_BY_MANY = (
    f"{policy.PROJECT_READER} or rule:shared or rule:external_network or {policy.ADMIN_OR_NETWORK_OWNER_READER}"
)
_ADMINS_ATTRIBUTES = {"segment_id": policy.ADMIN, "service_types": policy.ADMIN, "tags": _OWNERS}

CREATE = rule("create_subnet", policy.ADMIN_OR_NETWORK_OWNER_MEMBER, description="Create a subnet")
CREATE_ATTRIBUTES = policy.attribute_rules(CREATE, _ADMINS_ATTRIBUTES)
SHOW = rule("get_subnet", f"{_SEEN_BY_MANY} or {policy.SERVICE}", description="See a subnet")
SHOW_ATTRIBUTES = policy.attribute_rules(SHOW, {"segment_id": policy.ADMIN, "tags": _SEEN_BY_MANY})
UPDATE = rule("update_subnet", _OWNERS, description="Change a subnet")
UPDATE_ATTRIBUTES = policy.attribute_rules(UPDATE, _ADMINS_ATTRIBUTES | {"leak_routes": policy.ADMIN})
DELETE = rule("delete_subnet", _OWNERS, description="Delete a subnet")
DELETE_TAGS = rule("delete_subnet:tags", _OWNERS, description="Remove tags of a subnet")

MAX_NAMESERVERS, MAX_ROUTES = 5, 20


def subnet_views(tx: Tx, records: Sequence[Subnet]) -> list[View]:
    """Subnets as the API shows them."""
    tags = tags_of(tx, [subnet.id for subnet in records])
    external = sa.select(networks.c.id).where(
        networks.c.external, networks.c.id.in_({subnet.network_id for subnet in records})
    )
    external_ids = {row[0] for row in tx.all(external)}
    return [_view(subnet, tags.get(subnet.id, []), subnet.network_id in external_ids) for subnet in records]


def _view(subnet: Subnet, tags: list[str], external: bool) -> View:
    return resource.resource_view(subnet, tags) | {
        "name": subnet.name,
        "network_id": subnet.network_id,
        "ip_version": subnet.ip_version,
        "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway_ip,
        "enable_dhcp": subnet.enable_dhcp,
        "ipv6_ra_mode": subnet.ipv6_ra_mode,
        "ipv6_address_mode": subnet.ipv6_address_mode,
        "allocation_pools": subnet.allocation_pools,
        "dns_nameservers": subnet.dns_nameservers,
        "dns_publish_fixed_ip": subnet.dns_publish_fixed_ip,
        "host_routes": subnet.host_routes,
        "service_types": subnet.service_types,
        "subnetpool_id": subnet.subnetpool_id,
        "segment_id": None,
        "router:external": external,
    }


def network_facts(tx: Tx, records: Sequence[Any]) -> list[View]:
    """Whose the network of each subnet or port is, and whether it is shared."""
    ids = list({record.network_id for record in records})
    found = {network.id: network for network in find(tx, Network, networks.c.id.in_(ids))}
    return [
        {"network:project_id": found[record.network_id].project_id, "shared": found[record.network_id].shared}
        for record in records
    ]


def _on_shared(values: Sequence[str]) -> sa.ColumnElement[bool]:
    return subnets.c.network_id.in_(
        sa.select(networks.c.id).where(resource.column_filter(networks.c.shared, "shared", values))
    )


def _on_external(values: Sequence[str]) -> sa.ColumnElement[bool]:
    return subnets.c.network_id.in_(
        sa.select(networks.c.id).where(resource.column_filter(networks.c.external, "router:external", values))
    )


SUBNETS = Kind(
    record=Subnet,
    singular="subnet",
    plural="subnets",
    title="Subnet",
    show=SHOW,
    sight=subnets_in_sight,
    columns=resource.resource_columns(
        subnets,
        "name",
        "network_id",
        "ip_version",
        "subnetpool_id",
        "cidr",
        "gateway_ip",
        "enable_dhcp",
        "ipv6_ra_mode",
        "ipv6_address_mode",
        "dns_publish_fixed_ip",
    ),
    filters={
        "shared": _on_shared,
        "router:external": _on_external,
        "segment_id": lambda values: sa.true() if values == [""] else sa.false(),
    },
    views=subnet_views,
    hidden=SHOW_ATTRIBUTES,
    parents=network_facts,
)


class Pool(Body):
    start: bodies.IpAddress
    end: bodies.IpAddress


class HostRoute(Body):
    destination: bodies.IpRange
    nexthop: bodies.IpAddress


Ipv6Mode = Literal["dhcpv6-stateful", "dhcpv6-stateless", "slaac"]
Pools = Annotated[list[Pool], Json({"maxItems": 50})]
NameServers = Annotated[list[bodies.IpAddress], Json({"maxItems": MAX_NAMESERVERS})]
HostRoutes = Annotated[list[HostRoute], Json({"maxItems": MAX_ROUTES})]


class NewSubnet(bodies.NewNamed):
    """A subnet to be made."""

    network_id: bodies.Id
    ip_version: bodies.Number
    cidr: bodies.IpRange | Unset | None = UNSET
    gateway_ip: bodies.IpAddress | Unset | None = UNSET
    enable_dhcp: bodies.Truth | Unset = UNSET
    ipv6_ra_mode: Ipv6Mode | Unset | None = UNSET
    ipv6_address_mode: Ipv6Mode | Unset | None = UNSET
    allocation_pools: Pools | Unset = UNSET
    dns_nameservers: NameServers | Unset | None = UNSET
    host_routes: HostRoutes | Unset | None = UNSET
    service_types: Annotated[list[bodies.Name], Json({"maxItems": 20})] | Unset = UNSET
    dns_publish_fixed_ip: bodies.Truth | Unset = UNSET
    subnetpool_id: bodies.Name | Unset | None = UNSET
    use_default_subnetpool: bodies.Truth | Unset = UNSET
    prefixlen: bodies.Number | Unset | None = UNSET
    segment_id: bodies.Id | Unset | None = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateSubnets(Body):
    subnet: NewSubnet | Unset = UNSET
    subnets: list[NewSubnet] | Unset = UNSET


class UpdateSubnet(bodies.NamedChange):
    gateway_ip: bodies.IpAddress | Unset | None = UNSET
    enable_dhcp: bodies.Truth | Unset = UNSET
    allocation_pools: Pools | Unset = UNSET
    dns_nameservers: NameServers | Unset | None = UNSET
    host_routes: HostRoutes | Unset | None = UNSET
    service_types: Annotated[list[bodies.Name], Json({"maxItems": 20})] | Unset = UNSET
    dns_publish_fixed_ip: bodies.Truth | Unset = UNSET


@NETWORK.operation("GET", "/subnets", rules=())
def list_subnets(call: Call[None, None]) -> View:
    """List subnets: the project's, and those of networks it sees; for administrators all."""
    return resource.listed(call, SUBNETS)


def _creation_facts(call: Call[Any, Any], new: NewSubnet | None = None) -> View:
    if new is None:
        new = resource.items_of(call.body, "subnet", "subnets")[0][0]
    network = resource.find_in_sight(call, NETWORKS, new.network_id)
    return {
        "project_id": resource.owner(call, new),
        "network:project_id": network.project_id,
        "shared": network.shared,
        "router:external": network.external,
    }


@NETWORK.operation("POST", "/subnets", rules=(Rule(CREATE),), facts=_creation_facts, body=CreateSubnets, success=201)
def create_subnets(call: Call[None, CreateSubnets]) -> View:
    """Create a subnet, or several at once."""
    return resource.created(call, SUBNETS, lambda new: _create(call, new))


def _create(call: Call[Any, Any], new: NewSubnet) -> Subnet:
    facts = _creation_facts(call, new)
    resource.require(call, CREATE, facts)
    policy.require_attributes(call, CREATE_ATTRIBUTES, resource.given(new, but_defaults=True), facts)
    limits.check(call.tx, facts["project_id"], "subnet")
    pool = _pool(call, new)
    cidr = _cidr(call.tx, new, pool)
    gateway = None if not isinstance(new.gateway_ip, str) else ip_address(new.gateway_ip)
    _check_gateway(cidr, new.gateway_ip)
    enable_dhcp = either(new.enable_dhcp, True)
    _check_dhcp(cidr, enable_dhcp)
    _check_ipv6_modes(cidr, new, enable_dhcp)
    pools = None if not isinstance(new.allocation_pools, list) else _pools(cidr, new.allocation_pools)
    if pools is not None and gateway is None and new.gateway_ip is UNSET:
        _check_gateway_outside(pools, str(cidr.network_address + (cidr.num_addresses > 1)))
    elif pools is not None and gateway is not None:
        _check_gateway_outside(pools, str(gateway))
    return topology.add_subnet(
        call.tx,
        call.cloud.clock,
        must_get(call.tx, Network, new.network_id),
        project_id=facts["project_id"],
        subnetpool_id=None if pool is None else pool.id,
        name=text(new.name),
        description=text(new.description),
        cidr=cidr,
        gateway=gateway,
        without_gateway=new.gateway_ip is None,
        enable_dhcp=enable_dhcp,
        ipv6_ra_mode=either(new.ipv6_ra_mode, None),
        ipv6_address_mode=either(new.ipv6_address_mode, None),
        allocation_pools=pools,
        dns_nameservers=_nameservers(new.dns_nameservers),
        host_routes=_routes(cidr, new.host_routes),
        service_types=either(new.service_types, []),
        dns_publish_fixed_ip=either(new.dns_publish_fixed_ip, False),
        tags=either(new.tags, []),
    )


def _pool(call: Call[Any, Any], new: NewSubnet) -> SubnetPool | None:
    """The pool to cut the subnet from; None if it names a range of its own."""
    if new.subnetpool_id in ("prefix_delegation",) or isinstance(new.segment_id, str):
        raise NotYet("Cumulet does not offer prefix delegation or routed network segments yet.")
    if isinstance(new.subnetpool_id, str):
        return resource.find_in_sight(call, SUBNET_POOLS, new.subnetpool_id)
    if new.use_default_subnetpool is not True:
        return None
    pool = default_pool(call.tx, new.ip_version)
    if pool is None:
        raise BadRequest("Bad subnets request: No default subnetpool found for this IP version.")
    return pool


def _cidr(tx: Tx, new: NewSubnet, pool: SubnetPool | None) -> AddressRange:
    wanted = ip_network(new.cidr) if isinstance(new.cidr, str) else None
    length = new.prefixlen if isinstance(new.prefixlen, int) else None
    if wanted is not None and length is not None:
        raise BadRequest("Bad subnets request: cidr and prefixlen must not be supplied together.")
    if pool is not None:
        cidr = cut(tx, pool, cidr=wanted, prefixlen=length)
    elif wanted is not None:
        cidr = wanted
    else:
        raise BadRequest("Bad subnets request: a subnetpool must be specified in the absence of a cidr.")
    if new.ip_version not in (4, 6):
        raise BadRequest(f"Invalid input for ip_version. Reason: '{new.ip_version}' is not in [4, 6].")
    if cidr.version != new.ip_version:
        raise BadRequest(
            f"Invalid input for operation: cidr '{cidr}' does not match the ip_version '{new.ip_version}'."
        )
    if cidr.prefixlen == 0:
        raise BadRequest("Invalid input for operation: 0 is not allowed as CIDR prefix length.")
    first = cidr.network_address
    if first.is_multicast or first.is_loopback or first.is_link_local or (cidr.version == 4 and first.is_unspecified):
        raise BadRequest(f"Invalid input for operation: {cidr} is not a range that hosts can have addresses of.")
    return cidr


def _check_gateway(cidr: AddressRange, gateway_ip: str | Unset | None) -> None:
    if not isinstance(gateway_ip, str):
        return
    gateway = ip_address(gateway_ip)
    if gateway.version != cidr.version:
        raise BadRequest(
            f"Invalid input for operation: gateway_ip '{gateway_ip}' does not match the ip_version '{cidr.version}'."
        )
    outer = (cidr.network_address, cidr.broadcast_address)
    if cidr.version == 4 and cidr.prefixlen < 31 and gateway in outer:
        raise BadRequest("Invalid input for operation: Gateway is not valid on subnet.")


def _check_dhcp(cidr: AddressRange, enable_dhcp: bool) -> None:
    if enable_dhcp and cidr.num_addresses <= 2:
        raise BadRequest(
            "Invalid input for operation: Subnet has a prefix length that is incompatible with DHCP service enabled."
        )


def _check_ipv6_modes(cidr: AddressRange, new: NewSubnet, enable_dhcp: bool) -> None:
    modes = [mode for mode in (new.ipv6_ra_mode, new.ipv6_address_mode) if isinstance(mode, str)]
    if not modes:
        return
    if cidr.version == 4:
        raise BadRequest("Invalid input for operation: ipv6_ra_mode and ipv6_address_mode need ip_version 6.")
    if not enable_dhcp:
        raise BadRequest(
            "Invalid input for operation: ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to "
            "False."
        )
    if len(set(modes)) > 1:
        raise BadRequest(
            f"Invalid input for operation: ipv6_ra_mode set to '{modes[0]}' with ipv6_address_mode set to '{modes[1]}' "
            "is not valid. If both attributes are set, they must be the same value."
        )
    if modes[0] in addresses.AUTO_ADDRESS_MODES and cidr.prefixlen != 64:
        raise BadRequest(
            f"Invalid input for operation: Invalid CIDR {cidr} for IPv6 address mode. "
            "OpenStack uses the EUI-64 address format, which requires the prefix to be /64."
        )


def _pools(cidr: AddressRange, wanted: Sequence[Pool]) -> list[dict[str, str]]:
    """Allocation pools, lowest first, checked to lie within the subnet and apart from each other."""
    ranges = []
    for pool in wanted:
        start, end = ip_address(pool.start), ip_address(pool.end)
        if start.version != cidr.version or end.version != cidr.version or int(start) > int(end):
            raise BadRequest(
                f"The allocation pool {pool.start}-{pool.end} is not valid.", reason="InvalidAllocationPool"
            )
        if start not in cidr or end not in cidr:
            raise BadRequest(
                f"The allocation pool {pool.start}-{pool.end} spans beyond the subnet cidr {cidr}.",
                reason="OutOfBoundsAllocationPool",
            )
        ranges.append((int(start), int(end), pool))
    ranges.sort(key=lambda item: item[:2])
    for (_, end_before, pool_before), (start_after, _, pool_after) in pairwise(ranges):
        if start_after <= end_before:
            raise Conflict(
                f"Found overlapping allocation pools: {pool_before.start}-{pool_before.end}, "
                f"{pool_after.start}-{pool_after.end} for subnet {cidr}.",
                reason="OverlappingAllocationPools",
            )
    return [{"start": pool.start, "end": pool.end} for _, _, pool in ranges]


def _check_gateway_outside(pools: Sequence[dict[str, str]], gateway_ip: str) -> None:
    gateway = addresses.number(gateway_ip)
    for pool in pools:
        if addresses.number(pool["start"]) <= gateway <= addresses.number(pool["end"]):
            raise Conflict(
                f"Gateway ip {gateway_ip} conflicts with allocation pool {pool['start']}-{pool['end']}.",
                reason="GatewayConflictWithAllocationPools",
            )


def _nameservers(wanted: Any) -> list[str]:
    servers: list[str] = either(wanted, None) or []
    if len(set(servers)) != len(servers):
        raise BadRequest("Invalid input for dns_nameservers. Reason: Duplicate nameserver.")
    return servers


def _routes(cidr: AddressRange, wanted: Any) -> list[dict[str, str]]:
    routes: list[HostRoute] = either(wanted, None) or []
    found = [{"destination": route.destination, "nexthop": route.nexthop} for route in routes]
    if len({tuple(route.items()) for route in found}) != len(found):
        raise BadRequest("Invalid input for host_routes. Reason: Duplicate hostroute.")
    for route in routes:
        if ip_address(route.nexthop).version != cidr.version or ip_network(route.destination).version != cidr.version:
            raise BadRequest(f"Invalid input for host_routes. Reason: not of IP version {cidr.version}.")
    return found


@NETWORK.operation("GET", "/subnets/{subnet_id}", rules=(), target=resource.target(SUBNETS))
def show_subnet(call: Call[Subnet, None]) -> View:
    """Show a subnet."""
    return resource.shown(call, SUBNETS, call.target)


@NETWORK.operation(
    "PUT",
    "/subnets/{subnet_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(SUBNETS),
    facts=resource.target_facts(SUBNETS),
    body=UpdateSubnet,
    body_key="subnet",
)
def update_subnet(call: Call[Subnet, UpdateSubnet]) -> View:
    """Change a subnet."""
    subnet, body = call.target, call.body
    given = resource.given(body)
    policy.require_attributes(call, UPDATE_ATTRIBUTES, given, resource.facts_of(SUBNETS, call.tx, subnet))
    cidr = ip_network(subnet.cidr)
    values: dict[str, Any] = {
        name: given[name] for name in ("name", "enable_dhcp", "service_types", "dns_publish_fixed_ip") if name in given
    }
    if "description" in given:
        values["description"] = text(body.description)
    if "dns_nameservers" in given:
        values["dns_nameservers"] = _nameservers(body.dns_nameservers)
    if "host_routes" in given:
        values["host_routes"] = _routes(cidr, body.host_routes)
    if isinstance(body.allocation_pools, list):
        values["allocation_pools"] = _pools(cidr, body.allocation_pools)
    if "gateway_ip" in given:
        _check_gateway(cidr, body.gateway_ip)
        _refuse_moving_used_gateway(call.tx, subnet, body.gateway_ip)
        values["gateway_ip"] = body.gateway_ip
    gateway_ip = values.get("gateway_ip", subnet.gateway_ip)
    if gateway_ip is not None:
        _check_gateway_outside(values.get("allocation_pools", subnet.allocation_pools), gateway_ip)
    _check_dhcp(cidr, values.get("enable_dhcp", subnet.enable_dhcp))
    if subnet.ipv6_ra_mode or subnet.ipv6_address_mode:
        _refuse_without_dhcp(values)
    change(call.tx, Subnet, subnet.id, call.now_us, **values)
    if must_get(call.tx, Subnet, subnet.id).revision != subnet.revision:
        revise(call.tx, Network, subnet.network_id, call.now_us)
    return resource.shown(call, SUBNETS, must_get(call.tx, Subnet, subnet.id))


def _refuse_without_dhcp(values: dict[str, Any]) -> None:
    if values.get("enable_dhcp") is False:
        raise BadRequest(
            "Invalid input for operation: ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to "
            "False."
        )


def _refuse_moving_used_gateway(tx: Tx, subnet: Subnet, wanted: str | Unset | None) -> None:
    if subnet.gateway_ip is None or wanted == subnet.gateway_ip:
        return
    statement = (
        sa.select(ports.c.id)
        .join(port_addresses, port_addresses.c.port_id == ports.c.id)
        .where(
            port_addresses.c.subnet_id == subnet.id,
            port_addresses.c.address == subnet.gateway_ip,
            ports.c.device_owner == routing.INTERFACE_OWNER,
        )
    )
    row = tx.first(statement)
    if row is not None:
        raise Conflict(
            f"Current gateway ip {subnet.gateway_ip} already in use by port {row[0]}. Unable to update.",
            reason="GatewayIpInUse",
        )


@NETWORK.operation(
    "DELETE",
    "/subnets/{subnet_id}",
    rules=(Rule(DELETE),),
    target=resource.target(SUBNETS),
    facts=resource.target_facts(SUBNETS),
    success=204,
)
def delete_subnet(call: Call[Subnet, None]) -> None:
    """Delete a subnet; refused while ports have addresses in it."""
    tx, subnet = call.tx, call.target
    holding = sa.select(port_addresses.c.port_id).where(port_addresses.c.subnet_id == subnet.id)
    blocking: sa.ColumnElement[bool] = ports.c.id.in_(holding)
    if addresses.is_auto_addressed(subnet):
        # Addresses that guests gave themselves end with the announcement; a router's interface does not.
        blocking = sa.and_(blocking, ports.c.device_owner.startswith("network:"))
    if find(tx, Port, blocking):
        raise Conflict(
            f"Unable to complete operation on subnet {subnet.id}: One or more ports have an IP allocation from this "
            "subnet.",
            reason="SubnetInUse",
        )
    tx.execute(sa.delete(port_addresses).where(port_addresses.c.subnet_id == subnet.id))
    delete(tx, Subnet, subnet.id)
    revise(tx, Network, subnet.network_id, call.now_us)
