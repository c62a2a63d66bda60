"""Subnets: ``/subnets``."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, NotYet
from cumulet.network import (
    addresses,
    filtering,
    limits,
    policy,
    refusals,
    resource,
    subnet_checks,
    topology,
    wiring_bounds,
)
from cumulet.network.addresses import Address, AddressRange
from cumulet.network.bodies import either, text
from cumulet.network.device_owners import OF_NETWORK, ROUTER_INTERFACE
from cumulet.network.networks_at_hand import NetworksAtHand
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sharing import Shareable, Sharing
from cumulet.network.sight import subnets_in_sight
from cumulet.network.store import (
    Network,
    Subnet,
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
from cumulet.network.subnet_bodies import CreateSubnets, NewSubnet, Pool, UpdateSubnet
from cumulet.network.subnet_pool_records import SubnetPool
from cumulet.network.subnet_pools import SUBNET_POOLS, cut, default_pool
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Unset

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
    """Policy facts: the owner of the network of each subnet or port."""
    ids = list({record.network_id for record in records})
    found = {network.id: network for network in find(tx, Network, networks.c.id.in_(ids))}
    return [{"network:project_id": found[record.network_id].project_id} for record in records]


def _on_external(values: Sequence[str]) -> sa.ColumnElement[bool]:
    return subnets.c.network_id.in_(
        sa.select(networks.c.id).where(filtering.by_column(networks.c.external, "router:external")(values))
    )


SHARING = Sharing(object_type=Shareable.NETWORK, column=subnets.c.network_id, shown=False)
SUBNETS = Kind(
    record=Subnet,
    singular="subnet",
    plural="subnets",
    title="Subnet",
    show=SHOW,
    sight=subnets_in_sight,
    filters=resource.filters_on(
        subnets,
        "name",
        "network_id",
        "ip_version",
        "subnetpool_id",
        "enable_dhcp",
        "ipv6_ra_mode",
        "ipv6_address_mode",
        cidr=filtering.cidr,
        gateway_ip=filtering.address,
    )
    | {"shared": SHARING, "router:external": _on_external, "segment_id": filtering.constant(None)},
    sorts=resource.sorts_on(
        subnets,
        "name",
        "ip_version",
        "network_id",
        "subnetpool_id",
        "cidr",
        "gateway_ip",
        "enable_dhcp",
        "ipv6_ra_mode",
        "ipv6_address_mode",
    )
    | {"segment_id": sa.literal("")},
    views=subnet_views,
    hidden=SHOW_ATTRIBUTES,
    parents=network_facts,
    sharing=SHARING,
)


@NETWORK.operation("GET", "/subnets", rules=())
def list_subnets(call: Call[None, None]) -> View:
    """List subnets: the project's, and those of networks it sees; for administrators all."""
    return resource.listed(call, SUBNETS)


def _first_facts(call: Call[object, object]) -> View:
    return _creation_facts(NetworksAtHand(call), resource.items_of(call.body, "subnet", "subnets")[0][0])


def _creation_facts(networks: NetworksAtHand, new: NewSubnet) -> View:
    return networks.facts(new.network_id) | {"project_id": resource.owner(networks.call, new)}


@NETWORK.operation("POST", "/subnets", rules=(Rule(CREATE),), facts=_first_facts, body=CreateSubnets, success=201)
def create_subnets(call: Call[None, CreateSubnets]) -> View:
    """Create a subnet, or several at once."""
    networks, made = NetworksAtHand(call), list[Subnet]()

    def make(new: NewSubnet) -> Subnet:
        made.append(_create(call, new, networks, sum(map(addresses.is_auto_addressed, made))))
        return made[-1]

    shown = resource.created(call, SUBNETS, make)
    # Ports that others have on a shared network are no reason to refuse its owner a subnet.
    automatic = {(one.network_id, one.project_id) for one in made if addresses.is_auto_addressed(one)}
    for network_id, project_id in sorted(automatic):
        wiring_bounds.check_network(call.tx, network_id, project_id)
    return shown


def _create(call: Call[object, object], new: NewSubnet, networks: NetworksAtHand, automatic: int) -> Subnet:
    """`automatic`: how many automatically addressed subnets the request has made before."""
    facts = _creation_facts(networks, new)
    project_id, network = str(facts["project_id"]), networks.in_sight(new.network_id)
    call.require(CREATE, facts)
    policy.require_attributes(call, CREATE_ATTRIBUTES, resource.given(new, but_defaults=True), facts)
    limits.check(call.tx, project_id, "subnet")
    pool = _pool(call, new)
    cidr = _cidr(call.tx, new, pool, project_id)
    enable_dhcp, ra_mode = either(new.enable_dhcp, True), either(new.ipv6_ra_mode, None)
    address_mode = either(new.ipv6_address_mode, None)
    if enable_dhcp:
        subnet_checks.check_dhcp(cidr)
    if isinstance(new.gateway_ip, str):
        subnet_checks.check_gateway(cidr, new.gateway_ip)
    subnet_checks.check_ipv6_modes(cidr, ra_mode=ra_mode, address_mode=address_mode, enable_dhcp=enable_dhcp)
    if address_mode in addresses.AUTO_ADDRESS_MODES:
        topology.refuse_too_many_automatic(call.tx, network, automatic)
    subnet_checks.check_mtu(network, cidr.version)
    gateway = _gateway(cidr, new.gateway_ip)
    pools = _wanted_pools(cidr, new.allocation_pools) or None
    if pools is not None and gateway is not None:
        subnet_checks.check_gateway_outside(pools, str(gateway))
    return topology.add_subnet(
        call.tx,
        call.cloud.clock,
        network,
        project_id=project_id,
        subnetpool_id=None if pool is None else pool.id,
        name=text(new.name),
        description=text(new.description),
        cidr=cidr,
        gateway=gateway,
        without_gateway=gateway is None,
        enable_dhcp=enable_dhcp,
        ipv6_ra_mode=ra_mode,
        ipv6_address_mode=address_mode,
        allocation_pools=pools,
        dns_nameservers=subnet_checks.nameservers_of(cidr.version, new.dns_nameservers),
        host_routes=subnet_checks.routes_of(cidr.version, new.host_routes),
        service_types=either(new.service_types, []),
        dns_publish_fixed_ip=either(new.dns_publish_fixed_ip, False),
        tags=either(new.tags, []),
    )


def _gateway(cidr: AddressRange, wanted: str | Unset | None) -> Address | None:
    """The wanted gateway; if absent the usual one."""
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return ip_address(wanted)
    usual = topology.usual_gateway(cidr)
    if usual == cidr.broadcast_address and cidr.version == 4:
        raise Conflict(
            f"Gateway IP {usual} cannot be the network or broadcast IP address {cidr}", reason="IpamValueInvalid"
        )
    return usual


def _wanted_pools(cidr: AddressRange, wanted: object) -> list[dict[str, str]]:
    pools: Sequence[Pool] = either(wanted, None) or []
    return subnet_checks.pools_of(cidr, [(pool.start, pool.end) for pool in pools])


def _pool(call: Call[object, object], new: NewSubnet) -> SubnetPool | None:
    """The pool to cut the subnet from; None for a subnet that is cut from no pool."""
    if new.subnetpool_id in ("prefix_delegation",) or isinstance(new.segment_id, str):
        raise NotYet("Cumulet has no prefix delegation yet, and no subnets of one segment: ports use the first.")
    if isinstance(new.subnetpool_id, str):
        return resource.find_in_sight(call, SUBNET_POOLS, new.subnetpool_id)
    if new.use_default_subnetpool is not True:
        return None
    pool = default_pool(call, new.ip_version)
    if pool is None:
        raise refusals.bad("subnets", "No default subnetpool found for this IP version.")
    return pool


def _cidr(tx: Tx, new: NewSubnet, pool: SubnetPool | None, project_id: str) -> AddressRange:
    wanted = ip_network(new.cidr) if isinstance(new.cidr, str) else None
    length = new.prefixlen if isinstance(new.prefixlen, int) else None
    if wanted is not None and length is not None:
        raise refusals.bad("subnets", "cidr and prefixlen must not be supplied together.")
    if pool is not None:
        cidr = cut(tx, pool, cidr=wanted, prefixlen=length, project_id=project_id)
    elif wanted is not None:
        cidr = wanted
    else:
        raise refusals.bad("subnets", "a subnetpool must be specified in the absence of a cidr.")
    subnet_checks.check_range(cidr, new.ip_version)
    return cidr


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
    policy.require_attributes(call, UPDATE_ATTRIBUTES, given, resource.facts_of(SUBNETS, call, subnet))
    cidr, pools = ip_network(subnet.cidr), None
    values: dict[str, object] = {
        name: given[name]
        for name in ("name", "description", "enable_dhcp", "service_types", "dns_publish_fixed_ip")
        if name in given
    }
    if "dns_nameservers" in given:
        values["dns_nameservers"] = subnet_checks.nameservers_of(cidr.version, body.dns_nameservers)
    if "host_routes" in given:
        values["host_routes"] = subnet_checks.routes_of(cidr.version, body.host_routes)
    if isinstance(body.allocation_pools, list):
        values["allocation_pools"] = pools = _wanted_pools(cidr, body.allocation_pools)
    if "gateway_ip" in given:
        if isinstance(body.gateway_ip, str):
            subnet_checks.check_gateway(cidr, body.gateway_ip)
        _refuse_moving_used_gateway(call.tx, subnet, body.gateway_ip)
        values["gateway_ip"] = body.gateway_ip
    subnet_checks.check_change(subnet, values, gateway_ip=either(body.gateway_ip, subnet.gateway_ip), pools=pools)
    change(call.tx, Subnet, subnet.id, call.now_us, **values)
    if must_get(call.tx, Subnet, subnet.id).revision != subnet.revision:
        revise(call.tx, Network, subnet.network_id, call.now_us)
    return resource.shown(call, SUBNETS, must_get(call.tx, Subnet, subnet.id))


def _refuse_moving_used_gateway(tx: Tx, subnet: Subnet, wanted: str | Unset | None) -> None:
    if subnet.gateway_ip is None or wanted == subnet.gateway_ip:
        return
    statement = (
        sa.select(ports.c.id)
        .join(port_addresses, port_addresses.c.port_id == ports.c.id)
        .where(
            port_addresses.c.subnet_id == subnet.id,
            port_addresses.c.address == subnet.gateway_ip,
            ports.c.device_owner == ROUTER_INTERFACE,
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
        # Automatic addresses of guests do not keep a subnet from being deleted. Addresses of Network's own ports do.
        blocking = sa.and_(blocking, ports.c.device_owner.startswith(OF_NETWORK))
    if tx.first(sa.select(ports.c.id).where(blocking).limit(1)) is not None:
        raise Conflict(
            f"Unable to complete operation on subnet {subnet.id}: One or more ports have an IP allocation from this "
            "subnet.",
            reason="SubnetInUse",
        )
    tx.execute(sa.delete(port_addresses).where(port_addresses.c.subnet_id == subnet.id))
    delete(tx, Subnet, subnet.id)
    revise(tx, Network, subnet.network_id, call.now_us)
