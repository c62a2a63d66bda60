"""Roles given on projects, domains and the system, to users and to groups, here or (OS-INHERIT) to all below."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import ColumnElement, and_, delete, select

from cumulet.errors import Forbidden, NotFound
from cumulet.identity import administrators, holding, store
from cumulet.identity.administrators import refuse_unless_administrator
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    ANYWHERE,
    IDENTITY,
    NOT_DOMAIN,
    SYSTEM_READER,
    collection,
    known,
)
from cumulet.identity.delegations import application_credentials
from cumulet.identity.roles import role_view
from cumulet.identity.service import Identity
from cumulet.identity.store import Domain, Group, Project, Role, User
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Empty


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
LIST_SYSTEM_GROUP = rule("identity:list_system_grants_for_group", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CHECK_SYSTEM_GROUP = rule("identity:check_system_grant_for_group", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CREATE_SYSTEM_GROUP = rule("identity:create_system_grant_for_group", ADMIN, scope=NOT_DOMAIN)
REVOKE_SYSTEM_GROUP = rule("identity:revoke_system_grant_for_group", ADMIN, scope=NOT_DOMAIN)


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What the path of a grant names. What does not exist is None until the rules are checked."""

    scope: str
    scope_id: str
    user_id: str | None
    group_id: str | None
    role_id: str | None
    inherited: bool
    user: User | None
    group: Group | None
    role: Role | None
    project: Project | None = None
    domain: Domain | None = None

    def require(self, *, holder: bool = True) -> None:
        """404 for anything that does not exist. holder: also for the user or group; a deleted one may lose a role."""
        if holder and self.user_id is not None:
            known(self.user, "user", self.user_id)
        elif holder and self.group_id is not None:
            known(self.group, "group", self.group_id)
        if self.role_id is not None:
            known(self.role, "role", self.role_id)
        if self.scope == "project":
            known(self.project, "project", self.scope_id)
        elif self.scope == "domain":
            known(self.domain, "domain", self.scope_id)

    @property
    def holder(self) -> str:
        """For messages."""
        return f"user: {self.user_id}" if self.user_id is not None else f"group: {self.group_id}"

    @property
    def rows(self) -> ColumnElement[bool]:
        """The condition for its assignments: of one role where the path names one, otherwise of all."""
        a = store.assignments.c
        holds = a.user_id == self.user_id if self.user_id is not None else a.group_id == self.group_id
        place = and_(holds, a.scope == self.scope, a.scope_id == self.scope_id, a.inherited.is_(self.inherited))
        return place if self.role_id is None else and_(place, a.role_id == self.role_id)


def grant_in_path(call: Call[object, object]) -> Grant:
    tx, path = call.tx, call.path
    user_id, group_id, role_id = path.get("user_id"), path.get("group_id"), path.get("role_id")
    scope = "project" if "project_id" in path else "domain" if "domain_id" in path else "system"
    scope_id = path.get("project_id") or path.get("domain_id") or "all"
    return Grant(
        scope=scope,
        scope_id=scope_id,
        user_id=user_id,
        group_id=group_id,
        role_id=role_id,
        inherited=False,
        user=store.user_by_id(tx, user_id) if user_id is not None else None,
        group=store.group_by_id(tx, group_id) if group_id is not None else None,
        role=store.role_by_id(tx, role_id) if role_id is not None else None,
        project=store.project_by_id(tx, scope_id) if scope == "project" else None,
        domain=store.domain_by_id(tx, scope_id) if scope == "domain" else None,
    )


def inherited_grant_in_path(call: Call[object, object]) -> Grant:
    return msgspec.structs.replace(grant_in_path(call), inherited=True)


def grant_facts(call: Call[Grant, object]) -> Mapping[str, object]:
    grant = call.target
    facts: dict[str, object] = {}
    if grant.user:
        facts |= {"target.user.id": grant.user.id, "target.user.domain_id": grant.user.domain_id}
    if grant.group:
        facts |= {"target.group.id": grant.group.id, "target.group.domain_id": grant.group.domain_id}
    if grant.role:
        facts |= {"target.role.name": grant.role.name, "target.role.domain_id": grant.role.domain_id}
    if grant.project:
        facts |= {"target.project.id": grant.project.id, "target.project.domain_id": grant.project.domain_id}
    if grant.domain:
        facts["target.domain.id"] = grant.domain.id
    return facts


def _list(call: Call[Grant, None], path: str) -> dict[str, object]:
    grant = call.target
    grant.require()
    statement = select(store.roles).join(store.assignments, store.assignments.c.role_id == store.roles.c.id)
    roles = store.many(call.tx, Role, statement.where(grant.rows).order_by(store.roles.c.name))
    for name, value in call.path.items():
        path = path.replace(f"{{{name}}}", value)
    return collection(call, path.removeprefix("/"), "roles", [role_view(call, role) for role in roles])


def _check(call: Call[Grant, object]) -> None:
    call.target.require()
    if call.tx.first(select(store.assignments.c.role_id).where(call.target.rows)) is None:
        raise _not_given(call.target)


def _not_given(grant: Grant) -> NotFound:
    return NotFound(f"Could not find role assignment with role: {grant.role_id}, {grant.holder}.")


def _concerns_administrator(call: Call[Grant, object]) -> bool:
    grant = call.target
    if grant.user_id is not None:
        return administrators.is_one(call.tx, grant.user_id)
    return grant.group_id is not None and administrators.group_makes(call.tx, grant.group_id)


def _create(call: Call[Grant, Empty], rule_name: str) -> None:
    grant = call.target
    grant.require()
    refuse_unless_administrator(call, rule_name, _concerns_administrator(call))
    assert grant.role is not None
    own = grant.role.domain_id
    # As upstream, it can be given on another domain: there it gives the roles that it implies.
    if own is not None and grant.domain is None and (grant.project is None or grant.project.domain_id != own):
        raise Forbidden("A role of one domain can be given in the same domain only.")
    holding.assign(
        call.tx,
        grant.user_id,
        grant.scope,
        grant.scope_id,
        grant.role.id,
        group_id=grant.group_id,
        inherited=grant.inherited,
    )
    Identity.of(call).changed(call.tx)


def _revoke(call: Call[Grant, None], rule_name: str) -> None:
    grant = call.target
    grant.require(holder=False)
    refuse_unless_administrator(call, rule_name, _concerns_administrator(call))
    if not call.tx.changed(delete(store.assignments).where(grant.rows)):
        raise _not_given(grant)
    if grant.user_id is not None and grant.project is not None:
        # As upstream: the user's application credentials there do not come back with the role.
        c = application_credentials.c
        mine = delete(application_credentials).where(c.user_id == grant.user_id, c.project_id == grant.project.id)
        call.tx.execute(mine)
    Identity.of(call).changed(call.tx)


def _declare(
    place: str, holder: str, rules: tuple[str, str, str, str], *, inherited: bool = False, listed: bool = True
) -> None:
    """The four operations of grants to one kind of holder at one kind of place; they differ in path and rules only."""
    prefix, suffix = ("/OS-INHERIT", "/inherited_to_projects") if inherited else ("", "")
    below = f"{prefix}{place}/{holder}s/{{{holder}_id}}/roles"
    roles, role = f"{below}{suffix}", f"{below}/{{role_id}}{suffix}"
    list_rule, check_rule, create_rule, revoke_rule = rules
    target = inherited_grant_in_path if inherited else grant_in_path

    if listed:

        @IDENTITY.operation("GET", roles, rules=(Rule(list_rule),), target=target, facts=grant_facts)
        def list_grants(call: Call[Grant, None]) -> dict[str, object]:
            """List the roles a user or a group was given here."""
            return _list(call, roles)

    @IDENTITY.operation("GET", role, rules=(Rule(check_rule),), target=target, facts=grant_facts, success=204)
    def check_grant(call: Call[Grant, None]) -> None:
        """Say whether a user or a group was given a role here."""
        _check(call)

    @IDENTITY.operation(
        "PUT", role, rules=(Rule(create_rule),), target=target, facts=grant_facts, body=Empty, success=204
    )
    def create_grant(call: Call[Grant, Empty]) -> None:
        """Give a user or a group a role here."""
        _create(call, create_rule)

    @IDENTITY.operation("DELETE", role, rules=(Rule(revoke_rule),), target=target, facts=grant_facts, success=204)
    def revoke_grant(call: Call[Grant, None]) -> None:
        """Take a role here from a user or a group; tokens that rest on it lose it at once."""
        _revoke(call, revoke_rule)


_GRANTS = (LIST, CHECK, CREATE, REVOKE)
for _holder in ("user", "group"):
    _declare("/projects/{project_id}", _holder, _GRANTS)
    _declare("/domains/{domain_id}", _holder, _GRANTS)
    _declare("/domains/{domain_id}", _holder, _GRANTS, inherited=True)
    _declare("/projects/{project_id}", _holder, _GRANTS, inherited=True, listed=False)
_declare("/system", "user", (LIST_SYSTEM, CHECK_SYSTEM, CREATE_SYSTEM, REVOKE_SYSTEM))
_declare("/system", "group", (LIST_SYSTEM_GROUP, CHECK_SYSTEM_GROUP, CREATE_SYSTEM_GROUP, REVOKE_SYSTEM_GROUP))
