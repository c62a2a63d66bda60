"""Interfaces of routers: ``/routers/{router_id}/add_router_interface`` and ``remove_router_interface``."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.errors import BadRequest, NotFound
from cumulet.network import addresses, bodies, policy, refusals, resource, routing, sharing
from cumulet.network.ports import PORTS
from cumulet.network.resource import View
from cumulet.network.routers import ROUTERS
from cumulet.network.service import NETWORK
from cumulet.network.sight import sees_all
from cumulet.network.store import Network, Port, Router, Subnet, must_get
from cumulet.network.subnets import SUBNETS
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Unset

_MEMBER = policy.ADMIN_OR_PROJECT_MEMBER
ADD_INTERFACE = rule("add_router_interface", _MEMBER, description="Connect a router to a subnet")
REMOVE_INTERFACE = rule("remove_router_interface", _MEMBER, description="Disconnect a router from a subnet")


class Interface(Body):
    """A subnet, or a port on one."""

    subnet_id: bodies.Id | Unset = UNSET
    port_id: bodies.Id | Unset = UNSET


def _interface_view(router: Router, port_id: str, network_id: str, subnet_ids: Sequence[str]) -> View:
    return {
        "id": router.id,
        "tenant_id": router.project_id,
        "project_id": router.project_id,
        "port_id": port_id,
        "network_id": network_id,
        "subnet_id": subnet_ids[0] if subnet_ids else None,
        "subnet_ids": list(subnet_ids),
    }


@NETWORK.operation(
    "PUT",
    "/routers/{router_id}/add_router_interface",
    rules=(Rule(ADD_INTERFACE),),
    target=resource.target(ROUTERS),
    body=Interface,
)
def add_router_interface(call: Call[Router, Interface]) -> View:
    """Connect a router to a subnet, or with a port."""
    tx, clock, router, body = call.tx, call.cloud.clock, call.target, call.body
    if body.subnet_id is UNSET and body.port_id is UNSET:
        raise refusals.bad("router", "Either subnet_id or port_id must be specified.")
    if body.subnet_id is not UNSET and body.port_id is not UNSET:
        raise refusals.bad("router", "Cannot specify both subnet-id and port-id.")
    if isinstance(body.subnet_id, str):
        subnet = resource.find_in_sight(call, SUBNETS, body.subnet_id)
        _refuse_others_subnet(call, subnet)
        port = routing.add_interface_by_subnet(tx, clock, router, subnet)
        return _interface_view(router, port.id, subnet.network_id, [subnet.id])
    assert isinstance(body.port_id, str)
    port = resource.find_in_sight(call, PORTS, body.port_id)
    if port.project_id != router.project_id and not sees_all(call.caller):
        # On one's own network one sees others' ports, but they are not one's to plug.
        raise resource.unknown(PORTS, port.id)
    connected = routing.add_interface_by_port(tx, clock, router, port)
    return _interface_view(router, port.id, port.network_id, [subnet.id for subnet in connected])


def _refuse_others_subnet(call: Call[Router, Interface], subnet: Subnet) -> None:
    network = must_get(call.tx, Network, subnet.network_id)
    own = call.caller.project_id in (subnet.project_id, network.project_id)
    if not own and not sharing.with_caller(call, network.id) and not sees_all(call.caller):
        raise refusals.bad(
            "router",
            f"Cannot add interface to router because subnet {subnet.id} is not owned by project making the request.",
        )


@NETWORK.operation(
    "PUT",
    "/routers/{router_id}/remove_router_interface",
    rules=(Rule(REMOVE_INTERFACE),),
    target=resource.target(ROUTERS),
    body=Interface,
)
def remove_router_interface(call: Call[Router, Interface]) -> View:
    """Disconnect a router from a subnet, or a port from it."""
    router, body = call.target, call.body
    port = _interface_named(call)
    only = body.subnet_id if isinstance(body.subnet_id, str) and body.port_id is UNSET else None
    subnet_ids = routing.remove_interface(call.tx, call.cloud.clock, router, port, only=only)
    if isinstance(body.subnet_id, str):
        subnet_ids = [body.subnet_id]
    return _interface_view(router, port.id, port.network_id, subnet_ids)


def _interface_named(call: Call[Router, Interface]) -> Port:
    tx, router, body = call.tx, call.target, call.body
    if isinstance(body.port_id, str):
        found = [port for port in routing.interfaces(tx, router.id) if port.id == body.port_id]
        if not found:
            raise NotFound(
                f"Router {router.id} does not have an interface with id {body.port_id}",
                reason="RouterInterfaceNotFound",
            )
        if isinstance(body.subnet_id, str):
            held = addresses.of_port(tx, found[0].id)
            if all(fixed.subnet_id != body.subnet_id for fixed in held):
                raise BadRequest(
                    f"Subnet on port {body.port_id} does not match the requested subnet {body.subnet_id}.",
                    reason="SubnetMismatchForPort",
                )
        return found[0]
    if isinstance(body.subnet_id, str):
        return routing.interface_on(tx, router, body.subnet_id)
    raise refusals.bad("router", "Either subnet_id or port_id must be specified.")
