"""Who has which role where: grants on projects, domains and the system, and /role_assignments to look them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from sqlalchemy import Select, delete, select

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Forbidden, NotFound
from cumulet.identity import administrators, store
from cumulet.identity.administrators import refuse_unless_administrator
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    ANYWHERE,
    IDENTITY,
    NOT_DOMAIN,
    SYSTEM_READER,
    collection,
    is_true,
    known,
)
from cumulet.identity.listing import AskedId
from cumulet.identity.roles import role_view
from cumulet.identity.store import Domain, Project, Role, User
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Empty, Key, Query, Unset


def _matching(role: str) -> list[str]:
    """`role` in the one domain that user (or group) and project (or domain) share: upstream's four combinations."""
    return [
        f"(role:{role} and domain_id:%(target.{actor}.domain_id)s and domain_id:%({target})s)"
        for actor in ("user", "group")
        for target in ("target.project.domain_id", "target.domain.id")
    ]


_GLOBAL_OR_OWN_ROLE = "(domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s)"
_CHANGE = (
    f"({ADMIN}) or ({' or '.join(_matching('admin'))}) and {_GLOBAL_OR_OWN_ROLE} "
    f"or ({' or '.join(_matching('manager'))}) and rule:domain_managed_target_role"
)

CHECK = rule(
    "identity:check_grant",
    f"({ADMIN}) or ({SYSTEM_READER} or ({' or '.join(_matching('reader'))}) and {_GLOBAL_OR_OWN_ROLE})",
    scope=ANYWHERE,
)
LIST = rule(
    "identity:list_grants", f"({ADMIN}) or ({SYSTEM_READER} or {' or '.join(_matching('reader'))})", scope=ANYWHERE
)
CREATE = rule("identity:create_grant", _CHANGE, scope=ANYWHERE)
REVOKE = rule("identity:revoke_grant", _CHANGE, scope=ANYWHERE)

LIST_SYSTEM = rule("identity:list_system_grants_for_user", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CHECK_SYSTEM = rule("identity:check_system_grant_for_user", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CREATE_SYSTEM = rule("identity:create_system_grant_for_user", ADMIN, scope=NOT_DOMAIN)
REVOKE_SYSTEM = rule("identity:revoke_system_grant_for_user", ADMIN, scope=NOT_DOMAIN)

_LIST_ASSIGNMENTS = (
    f"({ADMIN}) or {SYSTEM_READER} or "
    "(role:reader and domain_id:%(target.domain_id)s and not None:%(target.domain_id)s)"
)
LIST_ASSIGNMENTS = rule("identity:list_role_assignments", _LIST_ASSIGNMENTS, scope=ANYWHERE)
LIST_ASSIGNMENTS_FOR_TREE = rule("identity:list_role_assignments_for_tree", _LIST_ASSIGNMENTS, scope=ANYWHERE)


# -- grants


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a grant's path names; what is not there is None until the policy has spoken."""

    scope: str
    scope_id: str
    user_id: str
    role_id: str | None
    user: User | None
    role: Role | None
    project: Project | None = None
    domain: Domain | None = None

    def require(self, *, user: bool = True) -> None:
        """404 for whatever is not there. A role may be taken from a user who is gone."""
        if user:
            known(self.user, "user", self.user_id)
        if self.role_id is not None:
            known(self.role, "role", self.role_id)
        if self.scope == "project":
            known(self.project, "project", self.scope_id)
        elif self.scope == "domain":
            known(self.domain, "domain", self.scope_id)


def grant_in_path(call: Call[Any, Any]) -> Grant:
    tx, path = call.tx, call.path
    role_id = path.get("role_id")
    scope = "project" if "project_id" in path else "domain" if "domain_id" in path else "system"
    scope_id = path.get("project_id") or path.get("domain_id") or "all"
    return Grant(
        scope=scope,
        scope_id=scope_id,
        user_id=path["user_id"],
        role_id=role_id,
        user=store.user_by_id(tx, path["user_id"]),
        role=store.role_by_id(tx, role_id) if role_id is not None else None,
        project=store.project_by_id(tx, scope_id) if scope == "project" else None,
        domain=store.domain_by_id(tx, scope_id) if scope == "domain" else None,
    )


def grant_facts(call: Call[Grant, Any]) -> Mapping[str, Any]:
    grant = call.target
    facts: dict[str, Any] = {}
    if grant.user:
        facts |= {"target.user.id": grant.user.id, "target.user.domain_id": grant.user.domain_id}
    if grant.role:
        facts |= {"target.role.name": grant.role.name, "target.role.domain_id": grant.role.domain_id}
    if grant.project:
        facts |= {"target.project.id": grant.project.id, "target.project.domain_id": grant.project.domain_id}
    if grant.domain:
        facts["target.domain.id"] = grant.domain.id
    return facts


def _list(call: Call[Grant, None]) -> dict[str, Any]:
    call.target.require()
    grant, a = call.target, store.assignments.c
    statement = select(store.roles).join(store.assignments, a.role_id == store.roles.c.id).order_by(store.roles.c.name)
    mine = statement.where(a.user_id == grant.user_id, a.scope == grant.scope, a.scope_id == grant.scope_id)
    path = "/".join((*_path_of(grant.scope, grant.scope_id), "users", grant.user_id, "roles"))
    return collection(call, path, "roles", [role_view(call, role) for role in store.many(call.tx, Role, mine)])


def _path_of(scope: str, scope_id: str) -> tuple[str, ...]:
    return ("system",) if scope == "system" else (f"{scope}s", scope_id)


def _check(call: Call[Grant, Any]) -> None:
    call.target.require()
    if call.tx.first(_exactly(select(store.assignments.c.role_id), call.target)) is None:
        raise NotFound(f"Could not find role assignment with role: {call.target.role_id}, user: {call.target.user_id}.")


def _exactly(statement: Any, grant: Grant) -> Any:
    a = store.assignments.c
    return statement.where(
        a.user_id == grant.user_id, a.scope == grant.scope, a.scope_id == grant.scope_id, a.role_id == grant.role_id
    )


def _create(call: Call[Grant, Empty]) -> None:
    grant = call.target
    grant.require()
    refuse_unless_administrator(call, CREATE, administrators.is_one(call.tx, grant.user_id))
    assert grant.role is not None
    own = grant.role.domain_id
    place = grant.project.domain_id if grant.project else grant.domain.id if grant.domain else None
    if own is not None and own != place:
        raise Forbidden("A role of one domain can be given in the same domain only.")
    store.assign(call.tx, grant.user_id, grant.scope, grant.scope_id, grant.role.id)
    call.cloud.identity.changed(call.tx)


def _revoke(call: Call[Grant, None]) -> None:
    grant = call.target
    grant.require(user=False)
    refuse_unless_administrator(call, REVOKE, administrators.is_one(call.tx, grant.user_id))
    if not call.tx.changed(_exactly(delete(store.assignments), grant)):
        raise NotFound(f"Could not find role assignment with role: {grant.role_id}, user: {grant.user_id}.")
    call.cloud.identity.changed(call.tx)


def _declare(place: str, rules: tuple[str, str, str, str]) -> None:
    """The four operations of grants at one kind of place; they differ in path and rules only."""
    roles, role = f"{place}/users/{{user_id}}/roles", f"{place}/users/{{user_id}}/roles/{{role_id}}"
    list_rule, check_rule, create_rule, revoke_rule = rules

    @IDENTITY.operation("GET", roles, rules=(Rule(list_rule),), target=grant_in_path, facts=grant_facts)
    def list_grants(call: Call[Grant, None]) -> dict[str, Any]:
        """List the roles a user was given here."""
        return _list(call)

    @IDENTITY.operation("GET", role, rules=(Rule(check_rule),), target=grant_in_path, facts=grant_facts, success=204)
    def check_grant(call: Call[Grant, None]) -> None:
        """Say whether a user was given a role here."""
        _check(call)

    @IDENTITY.operation(
        "PUT", role, rules=(Rule(create_rule),), target=grant_in_path, facts=grant_facts, body=Empty, success=204
    )
    def create_grant(call: Call[Grant, Empty]) -> None:
        """Give a user a role here."""
        _create(call)

    @IDENTITY.operation(
        "DELETE", role, rules=(Rule(revoke_rule),), target=grant_in_path, facts=grant_facts, success=204
    )
    def revoke_grant(call: Call[Grant, None]) -> None:
        """Take a role here from a user; tokens that rest on it lose it at once."""
        _revoke(call)


# -- /role_assignments


def own_domain_facts(call: Call[Any, Any]) -> Mapping[str, Any]:
    """A token for a domain is judged by that domain and shown nothing else; a subtree, by the domain of its project."""
    if is_true(call.query.get("include_subtree")) and (project_id := call.query.get("scope.project.id")):
        project = store.project_by_id(call.tx, project_id)
        return {"target.domain_id": project.domain_id} if project else {}
    return {"target.domain_id": call.caller.domain_id} if call.caller.domain_id else {}


class ListAssignments(Query):
    group: Annotated[AskedId | Unset, Key("group.id")] = UNSET
    role: Annotated[AskedId | Unset, Key("role.id")] = UNSET
    domain: Annotated[AskedId | Unset, Key("scope.domain.id")] = UNSET
    project: Annotated[AskedId | Unset, Key("scope.project.id")] = UNSET
    user: Annotated[str | Unset, Key("user.id")] = UNSET


@IDENTITY.operation(
    "GET", "/role_assignments", rules=(Rule(LIST_ASSIGNMENTS),), facts=own_domain_facts, query=ListAssignments
)
def list_role_assignments(call: Call[None, None]) -> dict[str, Any]:
    """List who has which role where; with `effective`, implied roles too; with `include_names`, names too."""
    _refuse_contradictions(call)
    if is_true(call.query.get("include_subtree")):
        call.require(LIST_ASSIGNMENTS_FOR_TREE)
        project_id = call.query.get("scope.project.id")
        if not project_id:
            raise BadRequest("scope.project.id must be specified if include_subtree is also specified")
        known(store.project_by_id(call.tx, project_id), "project", project_id)
    rows = call.tx.all(_wanted(call).limit(call.cloud.settings.largest_page))
    effective = _flag(call, "effective")
    asked_role = call.query.get("role.id")
    names = _Names(call.tx) if _flag(call, "include_names") else None
    found: list[dict[str, Any]] = []
    for row in rows:
        if not effective:
            if asked_role in (None, row.role_id):
                found.append(_assignment_view(call, row, row.role_id, names))
            continue
        for role_id in _effective(call.tx, row.role_id):
            if asked_role in (None, role_id):
                found.append(_assignment_view(call, row, role_id, names))
    # One that implies others is several: there may be more of them than rows.
    return collection(call, "role_assignments", "role_assignments", found[: call.cloud.settings.largest_page])


def _flag(call: Call[Any, Any], name: str) -> bool:
    """A parameter that counts by being there: ``?effective``."""
    return name in call.query and is_true(call.query.get(name) or "1")


def _refuse_contradictions(call: Call[Any, Any]) -> None:
    for one, other in (
        ("scope.domain.id", "scope.project.id"),
        ("scope.system", "scope.domain.id"),
        ("scope.system", "scope.project.id"),
        ("user.id", "group.id"),
    ):
        if call.query.get(one) and call.query.get(other):
            raise BadRequest(f"Specify {one} or {other}, not both")
    if _flag(call, "effective"):
        if call.query.get("group.id"):
            raise BadRequest("Combining effective and group filter will always result in an empty list.")
        if call.query.get("scope.domain.id") and "scope.OS-INHERIT:inherited_to" in call.query:
            raise BadRequest("Combining effective, domain and inherited filters will always result in an empty list.")


def _wanted(call: Call[Any, Any]) -> Select[Any]:
    a, p = store.assignments.c, store.projects.c
    statement = select(store.assignments).order_by(a.user_id, a.scope, a.scope_id, a.role_id)
    # There are no groups and no inherited roles yet, so these filters leave nothing.
    if call.query.get("group.id") or call.query.get("scope.OS-INHERIT:inherited_to") == "projects":
        return statement.where(a.user_id.is_(None))
    for parameter, scope in (("scope.project.id", "project"), ("scope.domain.id", "domain")):
        if identifier := call.query.get(parameter):
            statement = statement.where(a.scope == scope, a.scope_id == identifier)
    if call.query.get("scope.system"):
        statement = statement.where(a.scope == "system")
    if user_id := call.query.get("user.id"):
        statement = statement.where(a.user_id == user_id)
    if own := call.caller.domain_id:
        projects = select(p.id).where(p.domain_id == own)
        in_project = (a.scope == "project") & a.scope_id.in_(projects)
        statement = statement.where(in_project | ((a.scope == "domain") & (a.scope_id == own)))
    return statement


def _effective(tx: Tx, role_id: str) -> list[str]:
    """The role and those it implies, without roles of one domain: they are never in a token."""
    r = store.roles.c
    reached = store.with_implied(tx, [role_id])
    rows = tx.all(select(r.id).where(r.id.in_(reached), r.domain_id.is_(None)).order_by(r.name))
    return [row.id for row in rows]


class _Names:
    """Names of everything an assignment can mention, asked once per list."""

    def __init__(self, tx: Tx) -> None:
        self.domains = {d.id: d for d in store.many(tx, Domain, select(store.domains))}
        self.projects = {p.id: p for p in store.many(tx, Project, select(store.projects))}
        self.users = {u.id: u for u in store.many(tx, User, select(store.users))}
        self.roles = {r.id: r for r in store.many(tx, Role, select(store.roles))}

    def of(self, thing: User | Project | Role | Domain) -> dict[str, Any]:
        view: dict[str, Any] = {"id": thing.id, "name": thing.name}
        if not isinstance(thing, Domain) and thing.domain_id is not None:
            view["domain"] = {"id": thing.domain_id, "name": self.domains[thing.domain_id].name}
        return view


def _assignment_view(call: Call[Any, Any], row: Any, role_id: str, names: _Names | None) -> dict[str, Any]:
    """One assignment; where `role_id` is not the role given, it is one that role implies."""
    path = "/".join((*_path_of(row.scope, row.scope_id), "users", row.user_id, "roles", row.role_id))
    links = {"assignment": f"{call.service_url}/{path}"}
    if role_id != row.role_id:
        links["prior_role"] = f"{call.service_url}/prior_role/{row.role_id}/implies/{role_id}"
    scope: dict[str, Any]
    if row.scope == "system":
        scope = {"system": {"all": True}}
    elif names is None:
        scope = {row.scope: {"id": row.scope_id}}
    else:
        things: Mapping[str, Project | Domain] = names.projects if row.scope == "project" else names.domains
        scope = {row.scope: names.of(things[row.scope_id])}
    return {
        "role": {"id": role_id} if names is None else names.of(names.roles[role_id]),
        "user": {"id": row.user_id} if names is None else names.of(names.users[row.user_id]),
        "scope": scope,
        "links": links,
    }


_declare("/projects/{project_id}", (LIST, CHECK, CREATE, REVOKE))
_declare("/domains/{domain_id}", (LIST, CHECK, CREATE, REVOKE))
_declare("/system", (LIST_SYSTEM, CHECK_SYSTEM, CREATE_SYSTEM, REVOKE_SYSTEM))
