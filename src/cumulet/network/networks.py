"""Networks: ``/networks``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, NotYet
from cumulet.network import (
    availability_zones,
    bodies,
    dns,
    filtering,
    limits,
    policy,
    port_life,
    qos,
    refusals,
    resource,
    scopes,
    sharing,
    sharing_use,
    subnet_checks,
    topology,
)
from cumulet.network.bodies import either, text
from cumulet.network.free_segments import HIGHEST
from cumulet.network.hosts import BANDWIDTH_LIMITS
from cumulet.network.many import find_many
from cumulet.network.resource import Kind, View
from cumulet.network.segment_records import FurtherSegment
from cumulet.network.service import NETWORK
from cumulet.network.sharing import EVERYBODY, Action, Shareable, Sharing
from cumulet.network.sight import networks_in_sight
from cumulet.network.store import (
    FloatingIp,
    Network,
    Subnet,
    change,
    delete,
    find,
    floating_ips,
    must_get,
    networks,
    ports,
    subnets,
    tags_of,
)
from cumulet.network.wiring import EVERY_KIND
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Key, Unset

_SEGMENT_CHECKS = {
    "segments": policy.ADMIN,
    "provider:network_type": policy.ADMIN,
    "provider:physical_network": policy.ADMIN,
    "provider:segmentation_id": policy.ADMIN,
}
_ATTRIBUTE_CHECKS = {
    "shared": policy.ADMIN,
    "router:external": policy.ADMIN,
    "is_default": policy.ADMIN,
    "port_security_enabled": policy.ADMIN_OR_PROJECT_MEMBER,
    "tags": policy.ADMIN_OR_PROJECT_MEMBER,
} | _SEGMENT_CHECKS
_SEEN_BY_MANY = f"{policy.ADMIN_OR_PROJECT_READER} or {{}}rule:shared or rule:external or {policy.ADVSVC}"

CREATE = rule("create_network", policy.ADMIN_OR_PROJECT_MEMBER, description="Create a network")
CREATE_ATTRIBUTES = policy.attribute_rules(CREATE, _ATTRIBUTE_CHECKS)
SHOW = rule("get_network", _SEEN_BY_MANY.format(f"{policy.SERVICE} or "), description="See a network")
SHOW_ATTRIBUTES = policy.attribute_rules(SHOW, _SEGMENT_CHECKS | {"tags": _SEEN_BY_MANY.format("")})
UPDATE = rule("update_network", policy.ADMIN_OR_PROJECT_MEMBER, description="Change a network")
UPDATE_ATTRIBUTES = policy.attribute_rules(UPDATE, _ATTRIBUTE_CHECKS)
DELETE = rule("delete_network", policy.ADMIN_OR_PROJECT_MEMBER, description="Delete a network")
DELETE_TAGS = rule("delete_network:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Remove tags of a network")

NETWORK_TYPES = ("vxlan", "geneve", "vlan", "flat", "local")


def network_views(tx: Tx, records: Sequence[Network]) -> list[View]:
    """Networks as the API shows them."""
    ids = [network.id for network in records]
    tags = tags_of(tx, ids)
    contained: dict[str, list[str]] = {}
    statement = sa.select(subnets.c.network_id, subnets.c.id).where(subnets.c.network_id.in_(ids))
    for network_id, subnet_id in map(tuple, tx.all(statement.order_by(subnets.c.created_at_us, subnets.c.id))):
        contained.setdefault(network_id, []).append(subnet_id)
    in_scopes = scopes.of_networks(tx, ids)
    views = [_view(network, tags.get(network.id, []), contained.get(network.id, []), in_scopes) for network in records]
    _show_several_segments(tx, records, views)
    return views


def _show_several_segments(tx: Tx, records: Sequence[Network], views: Sequence[View]) -> None:
    """As upstream, a network with several segments shows a list of them in place of the one."""
    further: dict[str, list[FurtherSegment]] = {}
    for segment in sorted(find_many(tx, FurtherSegment, "network_id", [network.id for network in records]), key=_age):
        further.setdefault(segment.network_id, []).append(segment)
    for network, view in zip(records, views, strict=True):
        if network.id in further:
            view["segments"] = [_provider(network), *map(_provider, further[network.id])]
            for attribute in _provider(network):
                del view[attribute]


def _age(segment: FurtherSegment) -> tuple[int, str]:
    return segment.created_at_us, segment.id


def _provider(of: Network | FurtherSegment) -> View:
    return {
        "provider:network_type": of.network_type,
        "provider:physical_network": of.physical_network,
        "provider:segmentation_id": of.segmentation_id,
    }


def _view(network: Network, tags: list[str], subnet_ids: list[str], in_scopes: scopes.Scopes) -> View:
    view = resource.resource_view(network, tags) | {
        "name": network.name,
        "status": "ACTIVE",
        "admin_state_up": network.admin_state_up,
        "router:external": network.external,
        "mtu": network.mtu,
        "port_security_enabled": network.port_security_enabled,
        **_provider(network),
        "availability_zone_hints": network.availability_zone_hints,
        "availability_zones": [availability_zones.ZONE],
        "dns_domain": network.dns_domain,
        "qos_policy_id": network.qos_policy_id,
        "l2_adjacency": True,
        "ipv4_address_scope": in_scopes.get((network.id, 4)),
        "ipv6_address_scope": in_scopes.get((network.id, 6)),
        "subnets": subnet_ids,
    }
    if network.external:
        view["is_default"] = network.is_default
    return view


SHARING = Sharing(object_type=Shareable.NETWORK, column=networks.c.id)
NETWORKS = Kind(
    record=Network,
    singular="network",
    plural="networks",
    title="Network",
    show=SHOW,
    sight=networks_in_sight,
    filters=resource.filters_on(networks, "name", "admin_state_up", "is_default", "mtu")
    | {
        "shared": SHARING,
        "status": filtering.constant("ACTIVE"),
        "router:external": filtering.by_column(networks.c.external, "router:external"),
        "provider:network_type": filtering.by_column(networks.c.network_type, "provider:network_type"),
        "provider:physical_network": filtering.by_column(networks.c.physical_network, "provider:physical_network"),
        "provider:segmentation_id": filtering.by_column(networks.c.segmentation_id, "provider:segmentation_id"),
    },
    sorts=resource.sorts_on(networks, "name", "admin_state_up", "mtu")
    | {"status": sa.literal("ACTIVE"), "availability_zone_hints": sa.cast(networks.c.availability_zone_hints, sa.Text)},
    views=network_views,
    hidden=SHOW_ATTRIBUTES,
    sharing=SHARING,
)


class UpdateNetwork(bodies.NamedChange):
    admin_state_up: bodies.Truth | Unset = UNSET
    shared: bodies.Truth | Unset = UNSET
    external: Annotated[bodies.Truth | Unset, Key("router:external")] = UNSET
    is_default: bodies.Truth | Unset = UNSET
    mtu: bodies.Number | Unset = UNSET
    port_security_enabled: bodies.Truth | Unset = UNSET
    network_type: Annotated[str | Unset | None, Key("provider:network_type")] = UNSET
    physical_network: Annotated[bodies.PhysicalNetwork | Unset | None, Key("provider:physical_network")] = UNSET
    segmentation_id: Annotated[bodies.Number | Unset | None, Key("provider:segmentation_id")] = UNSET
    dns_domain: bodies.DnsDomain | Unset = UNSET
    qos_policy_id: bodies.Id | Unset | None = UNSET


class NewNetwork(UpdateNetwork):
    project_id: bodies.ProjectId | Unset = UNSET
    tenant_id: bodies.ProjectId | Unset = UNSET
    availability_zone_hints: bodies.ZoneHints | Unset = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateNetworks(Body):
    network: NewNetwork | Unset = UNSET
    networks: list[NewNetwork] | Unset = UNSET


@NETWORK.operation("GET", "/networks", rules=())
def list_networks(call: Call[None, None]) -> View:
    """List networks: the project's, shared and external ones; for administrators all."""
    return resource.listed(call, NETWORKS)


@NETWORK.operation(
    "POST",
    "/networks",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(NETWORKS),
    body=CreateNetworks,
    success=201,
)
def create_networks(call: Call[None, CreateNetworks]) -> View:
    """Create a network, or several at once."""
    return resource.created(call, NETWORKS, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewNetwork) -> Network:
    project_id = resource.may_create(call, new, CREATE, CREATE_ATTRIBUTES)
    limits.check(call.tx, project_id, "network")
    network_type, physical_network, segmentation_id = segment_of(
        new.network_type, new.physical_network, new.segmentation_id
    )
    refuse_unconnectable(call, network_type, physical_network)
    external, is_default = either(new.external, False), either(new.is_default, False)
    if is_default:
        _refuse_second_default(call.tx, external=external)
    return topology.add_network(
        call.tx,
        call.cloud.clock,
        project_id=project_id,
        name=text(new.name),
        description=text(new.description),
        admin_state_up=either(new.admin_state_up, True),
        shared=either(new.shared, False),
        external=external,
        is_default=is_default,
        wire_mtu=call.cloud.settings.global_physnet_mtu,
        mtu=_mtu(call, new.mtu, network_type),
        port_security_enabled=either(new.port_security_enabled, True),
        network_type=network_type,
        physical_network=physical_network,
        segmentation_id=segmentation_id,
        availability_zone_hints=availability_zones.wanted(new.availability_zone_hints),
        dns_domain=text(new.dns_domain),
        qos_policy_id=qos.of_new_network(call, project_id, new.qos_policy_id),
        tags=either(new.tags, []),
    )


def segment_of(
    network_type: str | Unset | None, physical_network: str | Unset | None, segmentation_id: int | Unset | None
) -> tuple[str, str | None, int | None]:
    """Type, physical network and number of a new segment, checked against each other."""
    kind = network_type if isinstance(network_type, str) else None
    physical = physical_network if isinstance(physical_network, str) else None
    segment = segmentation_id if isinstance(segmentation_id, int) else None
    if kind is None:
        if physical is not None or segment is not None:
            raise refusals.invalid("network_type required.")
        return topology.TENANT_NETWORK_TYPE, None, None
    if kind not in NETWORK_TYPES:
        raise refusals.invalid(f"network_type value '{kind}' not supported.")
    if (kind in ("flat", "vlan")) != (physical is not None):
        problem = "required" if physical is None else "not allowed"
        raise refusals.invalid(f"physical_network {problem} for {kind} network.")
    if kind in ("flat", "local") and segment is not None:
        raise refusals.invalid(f"segmentation_id not allowed for {kind} network.")
    if segment is not None and not 1 <= segment <= HIGHEST[kind]:
        raise refusals.invalid(f"segmentation_id out of range (1 through {HIGHEST[kind]}).")
    return kind, physical, segment


def refuse_unconnectable(call: Call[object, object], kind: str, physical: str | None) -> None:
    """501 for a network that no host with real guests could connect a port to."""
    connected = kind in ("vxlan", "local") or (kind, physical) == ("flat", topology.PUBLIC)
    if connected or call.cloud.hosts_offer(call.tx, EVERY_KIND):
        return
    what = kind if physical is None else f"{kind} networks on physical network {physical}"
    raise NotYet(
        f"Cumulet's hosts do not connect real guests to {what} yet: they have vxlan and local networks, and flat "
        f"ones on physical network {topology.PUBLIC}.",
        reason="NO_SUCH_PROVIDER_NETWORK",
    )


def _mtu(call: Call[object, object], wanted: int | Unset, network_type: str) -> int:
    largest = topology.largest_mtu(network_type, call.cloud.settings.global_physnet_mtu)
    if not isinstance(wanted, int) or wanted == 0:
        return largest
    if wanted < 0:
        raise BadRequest(f"Invalid input for mtu. Reason: '{wanted}' should be non-negative.")
    if wanted > largest:
        raise refusals.invalid(f"Requested MTU is too big, maximum is {largest}.")
    return wanted


def _refuse_mtu_too_small(tx: Tx, network: Network, mtu: int) -> None:
    versions = {row[0] for row in tx.all(sa.select(subnets.c.ip_version).where(subnets.c.network_id == network.id))}
    needed = max((subnet_checks.SMALLEST_MTU[version] for version in versions), default=0)
    if mtu < needed:
        raise subnet_checks.mtu_conflict(network, needed)


def _refuse_default_of_few(tx: Tx, network_id: str) -> None:
    if EVERYBODY not in {entry.target_project for entry in sharing.entries(tx, network_id, Action.EXTERNAL)}:
        raise refusals.invalid("Default external networks must be shared to everyone.")


def _refuse_second_default(tx: Tx, *, external: bool, but: str | None = None) -> None:
    if not external:
        raise refusals.invalid("only an external network can be the default one.")
    others = find(tx, Network, networks.c.is_default, networks.c.id != (but or ""))
    if others:
        raise Conflict(
            f"A default external network already exists: {others[0].id}.", reason="DefaultExternalNetworkExists"
        )


@NETWORK.operation("GET", "/networks/{network_id}", rules=(), target=resource.target(NETWORKS))
def show_network(call: Call[Network, None]) -> View:
    """Show a network."""
    return resource.shown(call, NETWORKS, call.target)


@NETWORK.operation(
    "PUT",
    "/networks/{network_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(NETWORKS),
    facts=resource.target_facts(NETWORKS),
    body=UpdateNetwork,
    body_key="network",
)
def update_network(call: Call[Network, UpdateNetwork]) -> View:
    """Change a network."""
    network, body = call.target, call.body
    given = resource.given(body)
    policy.require_attributes(call, UPDATE_ATTRIBUTES, given, resource.facts_of(NETWORKS, call, network))
    if any(name.startswith("provider:") for name in given):
        raise refusals.invalid("Plugin does not support updating provider attributes.")
    values = {name: value for name, value in given.items() if name not in ("router:external", "shared")}
    if isinstance(body.mtu, int):
        values["mtu"] = mtu = _mtu(call, body.mtu, network.network_type)
        _refuse_mtu_too_small(call.tx, network, mtu)
    if isinstance(body.dns_domain, str):
        dns.refuse_too_long_domain(call.tx, network, body.dns_domain)
    external = either(body.external, network.external)
    values["qos_policy_id"] = qos.changed(call, network.qos_policy_id, body.qos_policy_id, BANDWIDTH_LIMITS)
    clock, touched = call.cloud.clock, False
    if isinstance(body.shared, bool):
        touched = sharing_use.set_shared(call.tx, clock, Shareable.NETWORK, network, shared=body.shared)
    sharing_use.set_external(call.tx, clock, network, external=external)
    if body.is_default is True:
        _refuse_second_default(call.tx, external=external, but=network.id)
        _refuse_default_of_few(call.tx, network.id)
    change(call.tx, Network, network.id, call.now_us, touched, external=external, **values)
    return resource.shown(call, NETWORKS, must_get(call.tx, Network, network.id))


@NETWORK.operation(
    "DELETE",
    "/networks/{network_id}",
    rules=(Rule(DELETE),),
    target=resource.target(NETWORKS),
    facts=resource.target_facts(NETWORKS),
    success=204,
)
def delete_network(call: Call[Network, None]) -> None:
    """Delete a network with its subnets; refused while ports are on it."""
    remove(call.tx, call.target)


def remove(tx: Tx, network: Network) -> None:
    """Remove a network that nothing uses. As upstream, floating IPs on it that lead nowhere are removed too."""
    for floating in find(
        tx, FloatingIp, floating_ips.c.floating_network_id == network.id, floating_ips.c.router_id.is_(None)
    ):
        delete(tx, FloatingIp, floating.id)
        port_life.end(tx, floating.floating_port_id)
    if tx.first(sa.select(ports.c.id).where(ports.c.network_id == network.id).limit(1)) is not None:
        raise Conflict(
            f"Unable to complete operation on network {network.id}. There are one or more ports still in use on the "
            "network.",
            reason="NetworkInUse",
        )
    for subnet in find(tx, Subnet, subnets.c.network_id == network.id):
        delete(tx, Subnet, subnet.id)
    delete(tx, Network, network.id)
