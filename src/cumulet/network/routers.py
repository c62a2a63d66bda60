"""Routers, their interfaces and gateways: ``/routers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Annotated

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotYet
from cumulet.network import (
    addresses,
    availability_zones,
    bodies,
    filtering,
    limits,
    policy,
    qos,
    refusals,
    resource,
    routing,
    topology,
)
from cumulet.network.addresses import FixedIp
from cumulet.network.bodies import either, text
from cumulet.network.device_owners import ROUTER_GATEWAY
from cumulet.network.fixed_ips import WantedIp
from cumulet.network.hosts import GATEWAY_LIMITS
from cumulet.network.networks import NETWORKS
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import (
    Network,
    Port,
    Router,
    Subnet,
    change,
    find,
    find_by,
    must_get,
    ports,
    routers,
    tags_of,
)
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

_MEMBER = policy.ADMIN_OR_PROJECT_MEMBER
_ATTRIBUTE_CHECKS = {
    "distributed": policy.ADMIN,
    "ha": policy.ADMIN,
    "external_gateway_info": _MEMBER,
    "external_gateway_info:network_id": _MEMBER,
    "external_gateway_info:enable_snat": policy.ADMIN,
    "external_gateway_info:external_fixed_ips": policy.ADMIN,
    "enable_default_route_bfd": policy.ADMIN,
    "enable_default_route_ecmp": policy.ADMIN,
    "tags": _MEMBER,
}
_READER_CHECKS = {"distributed": policy.ADMIN, "ha": policy.ADMIN, "tags": policy.ADMIN_OR_PROJECT_READER}

CREATE = rule("create_router", _MEMBER, description="Create a router")
CREATE_ATTRIBUTES = policy.attribute_rules(CREATE, _ATTRIBUTE_CHECKS)
SHOW = rule("get_router", policy.ADMIN_OR_PROJECT_READER, description="See a router")
SHOW_ATTRIBUTES = policy.attribute_rules(SHOW, _READER_CHECKS)
UPDATE = rule("update_router", _MEMBER, description="Change a router")
UPDATE_ATTRIBUTES = policy.attribute_rules(UPDATE, _ATTRIBUTE_CHECKS)
DELETE = rule("delete_router", _MEMBER, description="Delete a router")
DELETE_TAGS = rule("delete_router:tags", _MEMBER, description="Remove tags of a router")

MAX_ROUTES = 30


def router_views(tx: Tx, records: Sequence[Router]) -> list[View]:
    """Routers as the API shows them."""
    tags = tags_of(tx, [router.id for router in records])
    gateway_ids = [router.gateway_port_id for router in records if router.gateway_port_id]
    gateways = {port.id: port for port in find(tx, Port, ports.c.id.in_(gateway_ids))} if gateway_ids else {}
    held = addresses.held_by(tx, gateway_ids)
    return [
        resource.resource_view(router, tags.get(router.id, []))
        | {
            "name": router.name,
            "status": "ACTIVE",
            "admin_state_up": router.admin_state_up,
            "external_gateway_info": _gateway_view(router, gateways, held),
            "routes": router.routes,
            "availability_zone_hints": router.availability_zone_hints,
            "availability_zones": [availability_zones.ZONE],
            "distributed": False,
            "ha": router.ha,
            "flavor_id": None,
        }
        for router in records
    ]


def _gateway_view(router: Router, gateways: Mapping[str, Port], held: Mapping[str, list[FixedIp]]) -> View | None:
    if router.gateway_port_id is None:
        return None
    limited = {} if router.qos_policy_id is None else {"qos_policy_id": router.qos_policy_id}
    return limited | {
        "network_id": gateways[router.gateway_port_id].network_id,
        "enable_snat": router.enable_snat,
        "external_fixed_ips": [
            {"subnet_id": fixed.subnet_id, "ip_address": fixed.address}
            for fixed in held.get(router.gateway_port_id, [])
        ],
    }


ROUTERS = Kind(
    record=Router,
    singular="router",
    plural="routers",
    title="Router",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, routers),
    filters=resource.filters_on(routers, "name", "admin_state_up", "ha")
    | {"distributed": filtering.constant(False), "status": filtering.constant("ACTIVE")},
    sorts=resource.sorts_on(routers, "name", "admin_state_up")
    | {"status": sa.literal("ACTIVE"), "flavor_id": sa.literal("")},
    views=router_views,
    hidden=SHOW_ATTRIBUTES,
)


class GatewayInfo(Body):
    """A router's gateway. Without `network_id` it has none."""

    network_id: bodies.Id | Unset = UNSET
    enable_snat: bodies.Truth | Unset = UNSET
    external_fixed_ips: Annotated[list[WantedIp], Json({"maxItems": 5})] | Unset | None = UNSET
    qos_policy_id: bodies.Id | Unset | None = UNSET


class Route(Body):
    destination: bodies.IpRange
    nexthop: bodies.IpAddress


Routes = Annotated[list[Route], Json({"maxItems": MAX_ROUTES})]


class NewRouter(bodies.NewNamed):
    admin_state_up: bodies.Truth | Unset = UNSET
    external_gateway_info: GatewayInfo | Unset | None = UNSET
    distributed: bodies.Truth | Unset | None = UNSET
    ha: bodies.Truth | Unset | None = UNSET
    availability_zone_hints: bodies.ZoneHints | Unset = UNSET
    flavor_id: bodies.Id | Unset | None = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateRouters(Body):
    router: NewRouter | Unset = UNSET
    routers: list[NewRouter] | Unset = UNSET


class UpdateRouter(bodies.NamedChange):
    admin_state_up: bodies.Truth | Unset = UNSET
    external_gateway_info: GatewayInfo | Unset | None = UNSET
    distributed: bodies.Truth | Unset = UNSET
    ha: bodies.Truth | Unset = UNSET
    routes: Routes | Unset | None = UNSET


def _policed(given: Mapping[str, object]) -> list[str]:
    info = given.get("external_gateway_info")
    parts = resource.given(info) if isinstance(info, GatewayInfo) else {}
    return [*given, *(f"external_gateway_info:{name}" for name in parts)]


@NETWORK.operation("GET", "/routers", rules=())
def list_routers(call: Call[None, None]) -> View:
    """List the project's routers; for administrators all."""
    return resource.listed(call, ROUTERS)


@NETWORK.operation(
    "POST", "/routers", rules=(Rule(CREATE),), facts=resource.first_owner(ROUTERS), body=CreateRouters, success=201
)
def create_routers(call: Call[None, CreateRouters]) -> View:
    """Create a router, or several at once."""
    return resource.created(call, ROUTERS, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewRouter) -> Router:
    project_id = resource.owner(call, new)
    facts = {"project_id": project_id}
    call.require(CREATE, facts)
    policy.require_attributes(call, CREATE_ATTRIBUTES, _policed(resource.given(new, but_defaults=True)), facts)
    _refuse_kinds(new.distributed, new.flavor_id)
    limits.check(call.tx, project_id, "router")
    router = routing.add_router(
        call.tx,
        call.cloud.clock,
        project_id=project_id,
        name=text(new.name),
        description=text(new.description),
        admin_state_up=either(new.admin_state_up, True),
        availability_zone_hints=availability_zones.wanted(new.availability_zone_hints),
        ha=either(new.ha, None) or False,
    )
    topology.set_tags(call.tx, router.id, either(new.tags, []))
    if isinstance(new.external_gateway_info, GatewayInfo):
        _change_gateway(call, router, new.external_gateway_info)
    return must_get(call.tx, Router, router.id)


def _refuse_kinds(distributed: object, flavor_id: object) -> None:
    if distributed is True or isinstance(flavor_id, str):
        raise NotYet("Cumulet does not offer distributed or flavored routers yet.")


def _change_gateway(call: Call[object, object], router: Router, info: GatewayInfo) -> None:
    tx, clock = call.tx, call.cloud.clock
    if info.network_id is UNSET:
        if resource.given(info):
            raise BadRequest("Invalid input for external_gateway_info. Reason: network_id is required.")
        routing.clear_gateway(tx, clock, router)
        return
    assert isinstance(info.network_id, str)
    external = resource.find_in_sight(call, NETWORKS, info.network_id)
    if not external.external:
        raise refusals.bad("router", f"Network {external.id} is not an external network.")
    _refuse_overlap_with_outside(tx, router, external)
    wanted = info.external_fixed_ips
    fixed_ips = None
    if isinstance(wanted, list) and wanted:
        fixed_ips = [FixedIp(subnet_id=either(w.subnet_id, None), address=either(w.ip_address, None)) for w in wanted]
        _refuse_gateways_address(tx, external, fixed_ips)
    limit = qos.changed(call, router.qos_policy_id, info.qos_policy_id, GATEWAY_LIMITS)
    routing.set_gateway(
        tx, clock, router, external, fixed_ips=fixed_ips, enable_snat=either(info.enable_snat, router.enable_snat)
    )
    change(tx, Router, router.id, call.now_us, qos_policy_id=limit)


def _refuse_gateways_address(tx: Tx, external: Network, wanted: Sequence[FixedIp]) -> None:
    taken = {subnet.gateway_ip for subnet in find_by(tx, Subnet, network_id=external.id)} - {None}
    for fixed in wanted:
        if fixed.address in taken:
            raise refusals.bad("router", f"External IP {fixed.address} is the same as the gateway IP.")


def _refuse_overlap_with_outside(tx: Tx, router: Router, external: Network) -> None:
    outside = [ip_network(subnet.cidr) for subnet in addresses.usable_subnets(tx, external.id, ROUTER_GATEWAY)]
    for subnet in routing.connected_subnets(tx, router.id):
        inside = ip_network(subnet.cidr)
        if any(addresses.overlap(inside, cidr) for cidr in outside):
            raise refusals.bad(
                "router", f"Cidr {subnet.cidr} of subnet {subnet.id} overlaps with the external network."
            )


@NETWORK.operation("GET", "/routers/{router_id}", rules=(), target=resource.target(ROUTERS))
def show_router(call: Call[Router, None]) -> View:
    """Show a router."""
    return resource.shown(call, ROUTERS, call.target)


@NETWORK.operation(
    "PUT",
    "/routers/{router_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(ROUTERS),
    body=UpdateRouter,
    body_key="router",
)
def update_router(call: Call[Router, UpdateRouter]) -> View:
    """Change a router."""
    router, body = call.target, call.body
    given = resource.given(body)
    policy.require_attributes(call, UPDATE_ATTRIBUTES, _policed(given), {"project_id": router.project_id})
    _refuse_kinds(body.distributed, None)
    if "external_gateway_info" in given:
        info = body.external_gateway_info
        _change_gateway(call, router, info if isinstance(info, GatewayInfo) else GatewayInfo())
    values: dict[str, object] = {
        name: given[name] for name in ("name", "description", "admin_state_up", "ha") if name in given
    }
    if values.get("ha", router.ha) != router.ha and router.admin_state_up:
        raise refusals.bad(
            "router",
            "Cannot change HA attribute of active routers. Please set router admin_state_up to False prior to upgrade",
        )
    if "routes" in given:
        values["routes"] = checked_routes(call.tx, router, either(body.routes, None) or [])
    change(call.tx, Router, router.id, call.now_us, **values)
    return resource.shown(call, ROUTERS, must_get(call.tx, Router, router.id))


def checked_routes(tx: Tx, router: Router, wanted: Sequence[Route]) -> list[dict[str, str]]:
    """Static routes as they are stored. 400 for a next hop that is on none of the router's subnets, or is its own."""
    routes = [{"destination": route.destination, "nexthop": route.nexthop} for route in wanted]
    if len({tuple(route.values()) for route in routes}) != len(routes):
        raise BadRequest("Invalid input for routes. Reason: Duplicate route.")
    reachable = [ip_network(subnet.cidr) for subnet in routing.connected_subnets(tx, router.id)]
    own_ports = [port.id for port in routing.interfaces(tx, router.id)]
    if router.gateway_port_id is not None:
        own_ports.append(router.gateway_port_id)
        network_id = must_get(tx, Port, router.gateway_port_id).network_id
        outside = addresses.usable_subnets(tx, network_id, ROUTER_GATEWAY)
        reachable += [ip_network(subnet.cidr) for subnet in outside]
    own = {fixed.address for held in addresses.held_by(tx, own_ports).values() for fixed in held}
    for route in routes:
        nexthop = ip_address(route["nexthop"])
        if not any(nexthop in cidr for cidr in reachable):
            raise BadRequest(
                f"Invalid format for routes: {routes}, the nexthop is not connected with router", reason="InvalidRoutes"
            )
        if route["nexthop"] in own:
            raise BadRequest(
                f"Invalid format for routes: {routes}, the nexthop is used by router", reason="InvalidRoutes"
            )
    return routes


@NETWORK.operation(
    "DELETE", "/routers/{router_id}", rules=(Rule(DELETE),), target=resource.target(ROUTERS), success=204
)
def delete_router(call: Call[Router, None]) -> None:
    """Delete a router that has no interfaces."""
    routing.refuse_interfaces(call.tx, call.target)
    routing.clear_gateway(call.tx, call.cloud.clock, call.target)
    routing.remove_router(call.tx, call.target)
