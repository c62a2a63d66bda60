"""The limits of a project and its users, shown and set; and the defaults, which are quota class `default`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.projects import require_project
from cumulet.compute.quotas import (
    DEFAULTS,
    LONGEST_CLASS_NAME,
    default_limits,
    limits_of,
    quota_classes,
    quotas,
    usage_of,
)
from cumulet.compute.rules import ADMIN, ANYONE, READER
from cumulet.compute.service import COMPUTE
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.web.annotations import declared
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, LooseBool, Query, Unset, Until

SHOW = rule("os_compute_api:os-quota-sets:show", READER)
DETAIL = rule("os_compute_api:os-quota-sets:detail", READER)
SHOW_DEFAULTS = rule("os_compute_api:os-quota-sets:defaults", ANYONE)
UPDATE = rule("os_compute_api:os-quota-sets:update", ADMIN)
DELETE = rule("os_compute_api:os-quota-sets:delete", ADMIN)
SHOW_CLASS = rule("os_compute_api:os-quota-class-sets:show", ADMIN)
UPDATE_CLASS = rule("os_compute_api:os-quota-class-sets:update", ADMIN)

NETWORK = frozenset({"fixed_ips", "floating_ips", "security_groups", "security_group_rules"})
FILES = frozenset({"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"})
GROUPS = frozenset({"server_groups", "server_group_members"})


class Limits(Body):
    instances: t.QuotaLimit | Unset = UNSET
    cores: t.QuotaLimit | Unset = UNSET
    ram: t.QuotaLimit | Unset = UNSET
    metadata_items: t.QuotaLimit | Unset = UNSET
    key_pairs: t.QuotaLimit | Unset = UNSET
    injected_files: Annotated[t.QuotaLimit | Unset, Until("2.56")] = UNSET
    injected_file_content_bytes: Annotated[t.QuotaLimit | Unset, Until("2.56")] = UNSET
    injected_file_path_bytes: Annotated[t.QuotaLimit | Unset, Until("2.56")] = UNSET
    server_groups: t.QuotaLimit | Unset = UNSET
    server_group_members: t.QuotaLimit | Unset = UNSET


class UpdateQuotaSet(Limits):
    floating_ips: Annotated[t.QuotaLimit | Unset, Until("2.35")] = UNSET
    fixed_ips: Annotated[t.QuotaLimit | Unset, Until("2.35")] = UNSET
    security_groups: Annotated[t.QuotaLimit | Unset, Until("2.35")] = UNSET
    security_group_rules: Annotated[t.QuotaLimit | Unset, Until("2.35")] = UNSET
    force: LooseBool = False


class UpdateQuotaClass(Limits):
    floating_ips: Annotated[t.QuotaLimit | Unset, Until("2.49")] = UNSET
    fixed_ips: Annotated[t.QuotaLimit | Unset, Until("2.49")] = UNSET
    security_groups: Annotated[t.QuotaLimit | Unset, Until("2.49")] = UNSET
    security_group_rules: Annotated[t.QuotaLimit | Unset, Until("2.49")] = UNSET


class QuotaQuery(Query, closed_since="2.75"):
    user_id: str | None = None


def _facts(call: Call[None, object]) -> Mapping[str, object]:
    return {"project_id": call.path["project_id"]}


@COMPUTE.operation("GET", "/os-quota-sets/{project_id}", rules=(Rule(SHOW),), facts=_facts, query=QuotaQuery)
def show_quota_set(call: Call[None, None]) -> dict[str, object]:
    """Show a project's limits, or those of one of its users."""
    project_id = _project(call)
    return {"quota_set": {"id": project_id, **_shown(call, limits_of(call.tx, project_id, _user(call)))}}


@COMPUTE.operation("GET", "/os-quota-sets/{project_id}/detail", rules=(Rule(DETAIL),), facts=_facts, query=QuotaQuery)
def show_quota_set_in_detail(call: Call[None, None]) -> dict[str, object]:
    """Show a project's limits with what is used of them."""
    project_id, user_id = _project(call), _user(call)
    used = usage_of(call.tx, project_id, user_id or None)
    limits = _shown(call, limits_of(call.tx, project_id, user_id))
    detail = {name: {"limit": limit, "in_use": used[name], "reserved": 0} for name, limit in limits.items()}
    return {"quota_set": {"id": project_id, **detail}}


@COMPUTE.operation("GET", "/os-quota-sets/{project_id}/defaults", rules=(Rule(SHOW_DEFAULTS),), facts=_facts)
def show_quota_defaults(call: Call[None, None]) -> dict[str, object]:
    """Show the limits a project has as long as none are set for it."""
    # Who may not see a project's limits is not told either whether there is such a project.
    project_id = _project(call) if call.authorise(SHOW, None) else call.path["project_id"]
    return {"quota_set": {"id": project_id, **_shown(call, default_limits(call.tx))}}


@COMPUTE.operation(
    "PUT",
    "/os-quota-sets/{project_id}",
    rules=(Rule(UPDATE),),
    facts=_facts,
    query=QuotaQuery,
    body=UpdateQuotaSet,
    body_key="quota_set",
)
def update_quota_set(call: Call[None, UpdateQuotaSet]) -> dict[str, object]:
    """Set limits of a project, or of one of its users."""
    project_id, user_id = _project(call), _user(call)
    asked = _given(call.body)
    if not call.body.force:
        _require_sensible(call.tx, project_id, user_id, asked)
    for resource, limit in asked.items():
        key = (quotas.c.project_id == project_id, quotas.c.user_id == user_id, quotas.c.resource == resource)
        if not call.tx.changed(sa.update(quotas).where(*key).values(hard_limit=limit)):
            call.tx.execute(
                sa.insert(quotas).values(project_id=project_id, user_id=user_id, resource=resource, hard_limit=limit)
            )
    return {"quota_set": _shown(call, limits_of(call.tx, project_id, user_id))}


@COMPUTE.operation(
    "DELETE", "/os-quota-sets/{project_id}", rules=(Rule(DELETE),), facts=_facts, query=QuotaQuery, success=202
)
def delete_quota_set(call: Call[None, None]) -> None:
    """Forget the limits set for a project (or one of its users): the defaults apply again."""
    unset = sa.delete(quotas).where(quotas.c.project_id == call.path["project_id"])
    if user_id := _user(call):
        unset = unset.where(quotas.c.user_id == user_id)
    call.tx.execute(unset)


@COMPUTE.operation("GET", "/os-quota-class-sets/{class_name}", rules=(Rule(SHOW_CLASS),), query=ShowQuery)
def show_quota_class(call: Call[None, None]) -> dict[str, object]:
    """Show a quota class; only `default` means anything."""
    name = call.path["class_name"]
    return {"quota_class_set": {"id": name, **_shown_class(call, _class_limits(call.tx, name))}}


@COMPUTE.operation(
    "PUT",
    "/os-quota-class-sets/{class_name}",
    rules=(Rule(UPDATE_CLASS),),
    body=UpdateQuotaClass,
    body_key="quota_class_set",
)
def update_quota_class(call: Call[None, UpdateQuotaClass]) -> dict[str, object]:
    """Set the limits of a quota class: those of `default` are every project's defaults."""
    name = call.path["class_name"]
    if len(name) > LONGEST_CLASS_NAME:
        raise BadRequest(f"Invalid input for class_name: it has more than {LONGEST_CLASS_NAME} characters.")
    if not is_one_line(name):
        raise BadRequest("Invalid input for class_name: it has control characters.")
    for resource, limit in _given(call.body).items():
        key = (quota_classes.c.class_name == name, quota_classes.c.resource == resource)
        if not call.tx.changed(sa.update(quota_classes).where(*key).values(hard_limit=limit)):
            call.tx.execute(sa.insert(quota_classes).values(class_name=name, resource=resource, hard_limit=limit))
    return {"quota_class_set": _shown_class(call, _class_limits(call.tx, name))}


def _project(call: Call[None, object]) -> str:
    project_id = call.path["project_id"]
    require_project(call.tx, project_id)
    return project_id


def _user(call: Call[None, object]) -> str:
    given = call.query.getall("user_id")
    return given[0] if given else ""


def _given(body: Limits) -> dict[str, int]:
    values = {f.name: getattr(body, f.name) for f in declared(type(body)) if f.name != "force"}
    return {name: value for name, value in values.items() if value is not UNSET}


def _shown(call: Call[None, object], limits: Mapping[str, int]) -> dict[str, int]:
    hidden: frozenset[str] = frozenset()
    if call.version.at_least("2.36"):
        hidden |= NETWORK
    if call.version.at_least("2.57"):
        hidden |= FILES
    return {name: limit for name, limit in limits.items() if name not in hidden}


def _shown_class(call: Call[None, object], limits: Mapping[str, int]) -> dict[str, int]:
    hidden = NETWORK if call.version.at_least("2.50") else GROUPS
    if call.version.at_least("2.57"):
        hidden |= FILES
    return {name: limit for name, limit in limits.items() if name not in hidden}


def _class_limits(tx: Tx, name: str) -> dict[str, int]:
    rows = tx.all(
        sa.select(quota_classes.c.resource, quota_classes.c.hard_limit).where(quota_classes.c.class_name == name)
    )
    return {**DEFAULTS, **{row.resource: row.hard_limit for row in rows}}


def _require_sensible(tx: Tx, project_id: str, user_id: str, asked: Mapping[str, int]) -> None:
    """Not below what is used; for a user, not above the project's limit."""
    used = usage_of(tx, project_id, user_id or None)
    project_limits = limits_of(tx, project_id)
    for resource, limit in asked.items():
        if 0 <= limit < used[resource]:
            raise BadRequest(
                f"Quota limit {limit} for {resource} must be greater than or equal to already used and "
                f"reserved {used[resource]}."
            )
        most = project_limits[resource] if user_id else -1
        if most >= 0 and (limit < 0 or limit > most):
            raise BadRequest(f"Quota limit {limit} for {resource} must be less than or equal to {most}.")
