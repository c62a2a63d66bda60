"""A network with a router that a project gets by one request: ``/auto-allocated-topology/{project}``."""

from __future__ import annotations

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.network import auto_topology, networks, policy, routing
from cumulet.network.auto_topology import default_external, ensure_topology
from cumulet.network.resource import View, project_in_path
from cumulet.network.service import NETWORK
from cumulet.network.store import Router, find, routers
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("get_auto_allocated_topology", policy.ADMIN_OR_PROJECT_READER, description="Get the automatic topology")
DELETE = rule(
    "delete_auto_allocated_topology", policy.ADMIN_OR_PROJECT_MEMBER, description="Delete the automatic topology"
)

DRY_RUN = "dry-run"


def _project(call: Call[object, object]) -> str:
    """``null`` is the caller's own."""
    named = project_in_path(call)
    return (call.caller.project_id or "") if named.lower() in ("null", "none") else named


def _whose(call: Call[object, object]) -> View:
    return {"project_id": _project(call)}


@NETWORK.operation("GET", "/auto-allocated-topology/{project_id}", rules=(Rule(SHOW),), facts=_whose)
async def show_auto_allocated_topology(call: Call[None, None]) -> View:
    """Show the project's automatic topology, made if missing. `fields=dry-run` only checks that it can be made."""
    project_id = _project(call)
    database = call.cloud.db
    if DRY_RUN in call.query.getall("fields"):
        await database.read_async(_require_default)
        found = "dry-run=pass"
    else:
        wire_mtu = call.cloud.settings.global_physnet_mtu
        network = await database.write_async(lambda tx: ensure_topology(tx, call.cloud.clock, project_id, wire_mtu))
        found = network.id
    return {"auto_allocated_topology": {"id": found, "project_id": project_id, "tenant_id": project_id}}


def _require_default(tx: Tx) -> None:
    if default_external(tx) is None:
        raise BadRequest(
            "Deployment error: No default router:external network is configured.",
            reason="AutoAllocationFailure",
        )


@NETWORK.operation("DELETE", "/auto-allocated-topology/{project_id}", rules=(Rule(DELETE),), facts=_whose, success=204)
def delete_auto_allocated_topology(call: Call[None, None]) -> None:
    """Delete the project's automatic topology; refused while servers are on it."""
    tx, clock, project_id = call.tx, call.cloud.clock, _project(call)
    network = auto_topology.existing(tx, project_id)
    if network is None:
        raise NotFound(f"There is no auto allocated topology for project {project_id}.")
    of_project = find(tx, Router, routers.c.project_id == project_id, routers.c.name == auto_topology.ROUTER_NAME)
    for router in of_project:
        for port in routing.interfaces(tx, router.id):
            routing.remove_interface(tx, clock, router, port)
        routing.clear_gateway(tx, clock, router)
        routing.remove_router(tx, router)
    networks.remove(tx, network)
