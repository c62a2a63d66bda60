"""Quotas: ``/quotas``. `limits` enforces them."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.errors import BadRequest, NotFound
from cumulet.network import bodies, limits, policy, resource
from cumulet.network.limits import network_quotas
from cumulet.network.resource import View
from cumulet.network.service import NETWORK
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Unset

SHOW = rule("get_quota", policy.ADMIN_OR_PROJECT_MANAGER, description="See a project's quotas")
UPDATE = rule("update_quota", policy.ADMIN, description="Change a project's quotas")
DELETE = rule("delete_quota", policy.ADMIN, description="Reset a project's quotas to the defaults")

MAX_LIMIT = 2**31 - 1


def _whose(call: Call[object, object]) -> View:
    """Policy facts: the project in the path, not the caller's."""
    return {"project_id": resource.project_in_path(call)}


def _asked(call: Call[None, None]) -> str:
    """The project in the path. Everybody may read the limits of the project of their token."""
    project_id = resource.project_in_path(call)
    if project_id != call.caller.project_id:
        call.require(SHOW, _whose(call))
    return project_id


class UpdateQuota(Body):
    """New limits; -1 is unlimited."""

    network: bodies.Number | Unset = UNSET
    subnet: bodies.Number | Unset = UNSET
    subnetpool: bodies.Number | Unset = UNSET
    port: bodies.Number | Unset = UNSET
    router: bodies.Number | Unset = UNSET
    floatingip: bodies.Number | Unset = UNSET
    security_group: bodies.Number | Unset = UNSET
    security_group_rule: bodies.Number | Unset = UNSET
    rbac_policy: bodies.Number | Unset = UNSET
    trunk: bodies.Number | Unset = UNSET
    check_limit: bodies.Truth | Unset = UNSET
    """Accepted for older clients and ignored: a limit below what is used is refused unless `force` is true."""
    force: bodies.Truth | Unset = UNSET
    """A limit may be less than what is used."""


@NETWORK.operation("GET", "/quotas", rules=(Rule(SHOW),))
def list_quotas(call: Call[None, None]) -> View:
    """List the projects that have limits of their own. Callers other than administrators see their own project only."""
    statement = sa.select(network_quotas.c.project_id).distinct().order_by(network_quotas.c.project_id)
    statement = statement.limit(call.cloud.settings.largest_page)
    if not call.caller.is_admin:
        statement = statement.where(network_quotas.c.project_id == call.caller.project_id)
    projects = [row[0] for row in call.tx.all(statement)]
    return {"quotas": [limits.limits_of(call.tx, one) | {"project_id": one, "tenant_id": one} for one in projects]}


@NETWORK.operation("GET", "/quotas/project", rules=())
def show_own_project(call: Call[None, None]) -> View:
    """Show which project the token is for."""
    return {"project": {"project_id": _own(call)}}


@NETWORK.operation("GET", "/quotas/tenant", rules=())
def show_own_tenant(call: Call[None, None]) -> View:
    """Show which project the token is for, with the name that older clients use."""
    return {"tenant": {"tenant_id": _own(call)}}


def _own(call: Call[None, None]) -> str:
    if call.caller.project_id is None:
        raise BadRequest("Project ID is missing in the token.", reason="QuotaMissingTenant")
    return call.caller.project_id


@NETWORK.operation("GET", "/quotas/{project_id}", rules=())
def show_quota(call: Call[None, None]) -> View:
    """Show a project's limits."""
    return {"quota": limits.limits_of(call.tx, _asked(call))}


@NETWORK.operation("GET", "/quotas/{project_id}/default", rules=())
def show_default_quota(call: Call[None, None]) -> View:
    """Show the limits of a project that has none of its own."""
    _asked(call)
    return {"quota": dict(limits.DEFAULT_LIMITS)}


@NETWORK.operation("GET", "/quotas/{project_id}/details", rules=())
def show_quota_details(call: Call[None, None]) -> View:
    """Show a project's limits and how much of them it uses."""
    project_id = _asked(call)
    return {
        "quota": {
            name: {"limit": limit, "used": limits.used(call.tx, project_id, name), "reserved": 0}
            for name, limit in limits.limits_of(call.tx, project_id).items()
        }
    }


@NETWORK.operation(
    "PUT", "/quotas/{project_id}", rules=(Rule(UPDATE),), facts=_whose, body=UpdateQuota, body_key="quota"
)
def update_quota(call: Call[None, UpdateQuota]) -> View:
    """Change a project's limits."""
    project_id = resource.project_in_path(call)
    given = resource.given(call.body)
    wanted = {name: limit for name, limit in given.items() if name in limits.DEFAULT_LIMITS and isinstance(limit, int)}
    for name, limit in wanted.items():
        if not -1 <= limit <= MAX_LIMIT:
            raise BadRequest(f"Invalid input for {name}. Reason: '{limit}' should be -1 to {MAX_LIMIT}.")
        if call.body.force is not True and limit != limits.UNLIMITED:
            _refuse_less_than_used(call, name, limit)
        of_this = sa.and_(network_quotas.c.project_id == project_id, network_quotas.c.resource == name)
        if not call.tx.changed(sa.update(network_quotas).where(of_this).values(limit=limit)):
            call.tx.execute(sa.insert(network_quotas).values(project_id=project_id, resource=name, limit=limit))
    return {"quota": limits.limits_of(call.tx, project_id)}


def _refuse_less_than_used(call: Call[None, UpdateQuota], name: str, limit: int) -> None:
    used = limits.used(call.tx, resource.project_in_path(call), name)
    if used > limit:
        raise BadRequest(f"Quota limit {limit} for {name} must be greater than or equal to already used {used}")


@NETWORK.operation("DELETE", "/quotas/{project_id}", rules=(Rule(DELETE),), facts=_whose, success=204)
def delete_quota(call: Call[None, None]) -> None:
    """Reset a project's limits to the defaults."""
    project_id = resource.project_in_path(call)
    if not call.tx.changed(sa.delete(network_quotas).where(network_quotas.c.project_id == project_id)):
        raise NotFound(f"Quota for project {project_id} could not be found.", reason="TenantQuotaNotFound")
