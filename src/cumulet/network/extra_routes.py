"""Static routes of routers, added and removed one by one: ``add_extraroutes``, ``remove_extraroutes``."""

from __future__ import annotations

from cumulet.errors import BadRequest
from cumulet.network import policy, resource
from cumulet.network.resource import View
from cumulet.network.routers import MAX_ROUTES, ROUTERS, Routes, checked_routes
from cumulet.network.service import NETWORK
from cumulet.network.store import Router, change, must_get
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body

_MEMBER = policy.ADMIN_OR_PROJECT_MEMBER
ADD_ROUTES = rule("add_extraroutes", _MEMBER, description="Add static routes to a router")
REMOVE_ROUTES = rule("remove_extraroutes", _MEMBER, description="Remove static routes of a router")


class ExtraRoutes(Body):
    routes: Routes


@NETWORK.operation(
    "PUT",
    "/routers/{router_id}/add_extraroutes",
    rules=(Rule(ADD_ROUTES),),
    target=resource.target(ROUTERS),
    body=ExtraRoutes,
    body_key="router",
)
def add_extraroutes(call: Call[Router, ExtraRoutes]) -> View:
    """Add static routes to a router."""
    router = call.target
    added = checked_routes(call.tx, router, call.body.routes)
    return _with_routes(call, [*router.routes, *(route for route in added if route not in router.routes)])


@NETWORK.operation(
    "PUT",
    "/routers/{router_id}/remove_extraroutes",
    rules=(Rule(REMOVE_ROUTES),),
    target=resource.target(ROUTERS),
    body=ExtraRoutes,
    body_key="router",
)
def remove_extraroutes(call: Call[Router, ExtraRoutes]) -> View:
    """Remove static routes of a router."""
    gone = [{"destination": route.destination, "nexthop": route.nexthop} for route in call.body.routes]
    return _with_routes(call, [route for route in call.target.routes if route not in gone])


def _with_routes(call: Call[Router, ExtraRoutes], routes: list[dict[str, str]]) -> View:
    if len(routes) > MAX_ROUTES:
        raise BadRequest(
            f"Unable to complete operation for {call.target.id}. The number of routes exceeds the maximum."
        )
    change(call.tx, Router, call.target.id, call.now_us, routes=routes)
    return resource.shown(call, ROUTERS, must_get(call.tx, Router, call.target.id))
