"""Which projects may use a private flavor."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.flavors import ShowQuery, flavor_in_sight
from cumulet.compute.projects import require_project
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import flavor_access
from cumulet.errors import Conflict, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body

LIST = rule("os_compute_api:os-flavor-access", ADMIN)
ADD = rule("os_compute_api:os-flavor-access:add_tenant_access", ADMIN)
REMOVE = rule("os_compute_api:os-flavor-access:remove_tenant_access", ADMIN)


class TenantAccess(Body):
    tenant: t.Text255


@COMPUTE.operation("GET", "/flavors/{flavor_id}/os-flavor-access", rules=(Rule(LIST),), query=ShowQuery)
def list_flavor_access(call: Call[None, None]) -> dict[str, object]:
    """List the projects that may use a private flavor."""
    flavor = flavor_in_sight(call.tx, call.caller, call.path["flavor_id"])
    if flavor.is_public:
        raise NotFound("Access list not available for public flavors.")
    return _view(call, flavor.flavor_id)


@COMPUTE.operation(
    "POST", "/flavors/{flavor_id}/action", action="addTenantAccess", rules=(Rule(ADD),), body=TenantAccess
)
def add_flavor_access(call: Call[None, TenantAccess]) -> dict[str, object]:
    """Let a project use a private flavor."""
    require_project(call.tx, call.body.tenant)
    flavor = flavor_in_sight(call.tx, call.caller, call.path["flavor_id"])
    if flavor.is_public and call.version.at_least("2.7"):
        raise Conflict("Can not add access to a public flavor.")
    known = sa.select(flavor_access).where(
        flavor_access.c.flavor_id == flavor.flavor_id, flavor_access.c.project_id == call.body.tenant
    )
    if call.tx.first(known) is not None:
        raise Conflict(
            f"Flavor access already exists for flavor {flavor.flavor_id} and project {call.body.tenant} combination."
        )
    call.tx.execute(sa.insert(flavor_access).values(flavor_id=flavor.flavor_id, project_id=call.body.tenant))
    return _view(call, flavor.flavor_id)


@COMPUTE.operation(
    "POST", "/flavors/{flavor_id}/action", action="removeTenantAccess", rules=(Rule(REMOVE),), body=TenantAccess
)
def remove_flavor_access(call: Call[None, TenantAccess]) -> dict[str, object]:
    """Take a private flavor from a project, whether or not the project still exists."""
    flavor = flavor_in_sight(call.tx, call.caller, call.path["flavor_id"])
    removed = call.tx.changed(
        sa.delete(flavor_access).where(
            flavor_access.c.flavor_id == flavor.flavor_id, flavor_access.c.project_id == call.body.tenant
        )
    )
    if not removed:
        raise NotFound(f"Flavor access not found for {flavor.flavor_id} / {call.body.tenant} combination.")
    return _view(call, flavor.flavor_id)


def _view(call: Call[object, object], flavor_id: str) -> dict[str, object]:
    rows = call.tx.all(
        sa.select(flavor_access.c.project_id)
        .where(flavor_access.c.flavor_id == flavor_id)
        .order_by(flavor_access.c.project_id)
        .limit(call.cloud.settings.largest_page)
    )
    return {"flavor_access": [{"flavor_id": flavor_id, "tenant_id": row.project_id} for row in rows]}
