"""/roles: names that policies speak of, and which of them imply which others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Forbidden, NotFound
from cumulet.identity import holding, store
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    ANYWHERE,
    IDENTITY,
    NOT_DOMAIN,
    collection,
    known,
    member,
    new_id,
)
from cumulet.identity.immutable import Options, given_extra, refuse_delete_of_immutable, refuse_update_of_immutable
from cumulet.identity.listing import AskedId, AskedName, On, filtered, page
from cumulet.identity.projects import Id
from cumulet.identity.service import Identity
from cumulet.identity.store import Role
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import UNSET, Body, Empty, Json, Query, Unset

base_rule(
    "domain_managed_target_role",
    "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s",
)

GET = rule(
    "identity:get_role",
    f"({ADMIN_OR_SYSTEM_READER}) or (role:manager and rule:domain_managed_target_role)",
    scope=ANYWHERE,
)
LIST = rule(
    "identity:list_roles", f"({ADMIN_OR_SYSTEM_READER}) or (role:manager and not domain_id:None)", scope=ANYWHERE
)
CREATE = rule("identity:create_role", ADMIN, scope=NOT_DOMAIN)
UPDATE = rule("identity:update_role", ADMIN, scope=NOT_DOMAIN)
DELETE = rule("identity:delete_role", ADMIN, scope=NOT_DOMAIN)
# Roles of one domain have rules of their own, each at least as strict as the one above it.
GET_OF_DOMAIN = rule("identity:get_domain_role", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
LIST_OF_DOMAIN = rule("identity:list_domain_roles", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CREATE_OF_DOMAIN = rule("identity:create_domain_role", ADMIN, scope=NOT_DOMAIN)
UPDATE_OF_DOMAIN = rule("identity:update_domain_role", ADMIN, scope=NOT_DOMAIN)
DELETE_OF_DOMAIN = rule("identity:delete_domain_role", ADMIN, scope=NOT_DOMAIN)

GET_IMPLIED = rule("identity:get_implied_role", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
LIST_IMPLIED = rule("identity:list_implied_roles", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CREATE_IMPLIED = rule("identity:create_implied_role", ADMIN, scope=NOT_DOMAIN)
DELETE_IMPLIED = rule("identity:delete_implied_role", ADMIN, scope=NOT_DOMAIN)
LIST_INFERENCES = rule("identity:list_role_inference_rules", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CHECK_IMPLIED = rule("identity:check_implied_role", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)

Name = Annotated[str, Json({"minLength": 1, "maxLength": 255, "pattern": r"\S"})]


class NewRole(Body, extra="allow"):
    name: Name
    description: str | None = None
    domain_id: Id = None
    options: Options | Unset = UNSET


class RoleChanges(Body, extra="allow", min_properties=1):
    name: Name | Unset = UNSET
    description: str | Unset | None = UNSET
    domain_id: Id | Unset = UNSET
    options: Options | Unset = UNSET


def role_view(call: Call[object, object], role: Role) -> dict[str, object]:
    return {
        **role.extra,
        "id": role.id,
        "name": role.name,
        "domain_id": role.domain_id,
        "description": role.description,
        "options": role.options,
        "links": member(call, "roles", role.id),
    }


def role_in_path(call: Call[object, object]) -> Role | None:
    return store.role_by_id(call.tx, call.path["role_id"])


def known_role_in_path(call: Call[object, object]) -> Role:
    """The role in the path, for operations on it: as upstream, 404 comes before the rules."""
    return known(role_in_path(call), "role", call.path["role_id"])


def role_facts(call: Call[Role | None, object]) -> Mapping[str, object]:
    role = call.target
    if role is None:
        return {}
    return {"target.role.id": role.id, "target.role.name": role.name, "target.role.domain_id": role.domain_id}


class ListRoles(Query):
    name: Annotated[AskedName | Unset, On(store.roles.c.name)] = UNSET
    domain_id: Annotated[AskedId | Unset, On(store.roles.c.domain_id)] = UNSET


@IDENTITY.operation("GET", "/roles", rules=(Rule(LIST),), query=ListRoles)
def list_roles(call: Call[None, None]) -> dict[str, object]:
    """List roles: those of no domain, or those of the domain asked for."""
    statement = filtered(call, select(store.roles))
    if call.query.get("domain_id"):
        call.require(LIST_OF_DOMAIN)
    else:
        statement = statement.where(store.roles.c.domain_id.is_(None))
    rows, following = page(call, statement, store.roles)
    views = (role_view(call, Role(**row._mapping)) for row in rows)
    return collection(call, "roles", "roles", views, next_marker=following)


@IDENTITY.operation("GET", "/roles/{role_id}", rules=(Rule(GET),), target=known_role_in_path, facts=role_facts)
def show_role(call: Call[Role, None]) -> dict[str, object]:
    """Show a role."""
    role = call.target
    if role.domain_id is not None:
        call.require(GET_OF_DOMAIN)
    return {"role": role_view(call, role)}


@IDENTITY.operation("POST", "/roles", rules=(Rule(CREATE),), body=NewRole, body_key="role", success=201)
def create_role(call: Call[None, NewRole]) -> dict[str, object]:
    """Create a role, of one domain or of none."""
    body = call.body
    if body.domain_id is not None:
        call.require(CREATE_OF_DOMAIN)
        if store.domain_by_id(call.tx, body.domain_id) is None:
            raise BadRequest(f"Could not find domain: {body.domain_id}.")
    _refuse_taken_name(call.tx, body.name, body.domain_id)
    role = Role(
        id=new_id(call.cloud.clock),
        name=body.name,
        domain_id=body.domain_id,
        description=body.description,
        options={} if body.options is UNSET else body.options,
        extra=given_extra(body),
    )
    call.tx.execute(insert(store.roles).values(**asdict(role)))
    return {"role": role_view(call, role)}


def _refuse_taken_name(tx: Tx, name: str, domain_id: str | None) -> None:
    if store.role_spelled_like(tx, name, domain_id):
        raise Conflict(f"Conflict occurred attempting to store role - Duplicate entry found with name {name}.")


@IDENTITY.operation(
    "PATCH",
    "/roles/{role_id}",
    rules=(Rule(UPDATE),),
    target=known_role_in_path,
    facts=role_facts,
    body=RoleChanges,
    body_key="role",
)
def update_role(call: Call[Role, RoleChanges]) -> dict[str, object]:
    """Change a role. Policies speak of roles by name, so a new name changes what its holders may do."""
    role = call.target
    body = call.body
    if role.domain_id is not None:
        call.require(UPDATE_OF_DOMAIN)
    refuse_update_of_immutable(role.options, body.options, "role", role.id)
    if body.domain_id is not UNSET and body.domain_id != role.domain_id:
        raise BadRequest("Update of `domain_id` is not allowed.")
    if isinstance(body.name, str) and body.name.lower() != role.name.lower():
        _refuse_taken_name(call.tx, body.name, role.domain_id)
    values: dict[str, object] = {
        name: value for name in ("name", "description") if (value := getattr(body, name)) is not UNSET
    }
    if body.options is not UNSET:
        values["options"] = {**role.options, **body.options}
    values["extra"] = {**role.extra, **given_extra(body)}
    call.tx.execute(update(store.roles).where(store.roles.c.id == role.id).values(**values))
    Identity.of(call).changed(call.tx)
    return {"role": role_view(call, known(role_in_path(call), "role", role.id))}


@IDENTITY.operation(
    "DELETE", "/roles/{role_id}", rules=(Rule(DELETE),), target=known_role_in_path, facts=role_facts, success=204
)
def delete_role(call: Call[Role, None]) -> None:
    """Delete a role and take it from everybody."""
    role = call.target
    if role.domain_id is not None:
        call.require(DELETE_OF_DOMAIN)
    refuse_delete_of_immutable(role.options, "role", role.id)
    call.tx.execute(delete(store.roles).where(store.roles.c.id == role.id))
    Identity.of(call).changed(call.tx)


# -- implications

IMPLICATIONS = "/roles/{prior_role_id}/implies"
IMPLICATION = "/roles/{prior_role_id}/implies/{implied_role_id}"


def _brief(call: Call[object, object], role: Role) -> dict[str, object]:
    return {"id": role.id, "name": role.name, "links": member(call, "roles", role.id)}


def _role_named(call: Call[object, object], parameter: str) -> Role:
    return known(store.role_by_id(call.tx, call.path[parameter]), "role", call.path[parameter])


def _implication(call: Call[object, object]) -> dict[str, object]:
    prior, implied = _role_named(call, "prior_role_id"), _role_named(call, "implied_role_id")
    if not _implies(call.tx, prior.id, implied.id):
        raise NotFound(f"{prior.id} does not imply {implied.id}.")
    return {
        "role_inference": {"prior_role": _brief(call, prior), "implies": _brief(call, implied)},
        "links": {"self": f"{call.service_url}/roles/{prior.id}/implies/{implied.id}"},
    }


def _implies(tx: Tx, prior_id: str, implied_id: str) -> bool:
    i = store.implied_roles.c
    there = select(func.count()).select_from(store.implied_roles)
    return bool(tx.scalar(there.where(i.prior_role_id == prior_id, i.implied_role_id == implied_id)))


@IDENTITY.operation("GET", IMPLICATIONS, rules=(Rule(LIST_IMPLIED),))
def list_implied_roles(call: Call[None, None]) -> dict[str, object]:
    """List the roles that a role implies directly."""
    prior = _role_named(call, "prior_role_id")
    i = store.implied_roles.c
    statement = select(store.roles).join(store.implied_roles, i.implied_role_id == store.roles.c.id)
    implied = store.many(call.tx, Role, statement.where(i.prior_role_id == prior.id).order_by(store.roles.c.name))
    return {
        "role_inference": {"prior_role": _brief(call, prior), "implies": [_brief(call, role) for role in implied]},
        "links": {"self": f"{call.service_url}/roles/{prior.id}/implies"},
    }


@IDENTITY.operation("GET", IMPLICATION, rules=(Rule(GET_IMPLIED),))
def show_implied_role(call: Call[None, None]) -> dict[str, object]:
    """Show that a role implies another."""
    return _implication(call)


@IDENTITY.operation("HEAD", IMPLICATION, rules=(Rule(CHECK_IMPLIED), Rule(GET_IMPLIED)), success=204)
def check_implied_role(call: Call[None, None]) -> None:
    """Say whether a role implies another."""
    _implication(call)


@IDENTITY.operation("PUT", IMPLICATION, rules=(Rule(CREATE_IMPLIED),), body=Empty, success=201)
def create_implied_role(call: Call[None, Empty]) -> dict[str, object]:
    """Let a role imply another. As upstream, none implies admin; circles are refused, too."""
    prior, implied = _role_named(call, "prior_role_id"), _role_named(call, "implied_role_id")
    if implied.name == "admin":
        raise Forbidden(f"{implied.id} cannot be an implied roles.")
    if implied.domain_id is not None and prior.domain_id is None:
        raise Forbidden("A role without a domain cannot imply a role of a domain.")
    if prior.id in holding.with_implied(call.tx, [implied.id]):
        raise BadRequest("Roles that imply each other in a circle are one role.")
    if _implies(call.tx, prior.id, implied.id):
        raise Conflict("Conflict occurred attempting to store implied_role - Duplicate entry found.")
    values = {"prior_role_id": prior.id, "implied_role_id": implied.id}
    call.tx.execute(insert(store.implied_roles).values(**values))
    Identity.of(call).changed(call.tx)
    return _implication(call)


@IDENTITY.operation("DELETE", IMPLICATION, rules=(Rule(DELETE_IMPLIED),), success=204)
def delete_implied_role(call: Call[None, None]) -> None:
    """Let a role no longer imply another."""
    _implication(call)
    i = store.implied_roles.c
    statement = delete(store.implied_roles).where(i.prior_role_id == call.path["prior_role_id"])
    call.tx.execute(statement.where(i.implied_role_id == call.path["implied_role_id"]))
    Identity.of(call).changed(call.tx)


@IDENTITY.operation("GET", "/role_inferences", rules=(Rule(LIST_INFERENCES),))
def list_role_inferences(call: Call[None, None]) -> dict[str, object]:
    """List every implication."""
    roles = {role.id: role for role in store.many(call.tx, Role, select(store.roles))}
    rules: dict[str, list[Role]] = {}
    for row in call.tx.all(select(store.implied_roles)):
        rules.setdefault(row.prior_role_id, []).append(roles[row.implied_role_id])
    return {
        "role_inferences": [
            {"prior_role": _brief(call, roles[prior]), "implies": [_brief(call, role) for role in implied]}
            for prior, implied in sorted(rules.items(), key=lambda item: roles[item[0]].name)
        ],
        "links": {"self": f"{call.service_url}/role_inferences"},
    }
