"""/role_assignments: who has which role where, as it was given or with all its effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from sqlalchemy import ColumnElement, and_, or_, select

from cumulet.db.engine import Select, Tx
from cumulet.errors import BadRequest
from cumulet.identity import holding, store
from cumulet.identity.api import ADMIN, ANYWHERE, IDENTITY, SYSTEM_READER, collection, is_true, known
from cumulet.identity.listing import AskedId
from cumulet.identity.store import Domain, Group, Project, Role, User
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Key, Query, Unset

_LIST_ASSIGNMENTS = (
    f"({ADMIN}) or {SYSTEM_READER} or "
    "(role:reader and domain_id:%(target.domain_id)s and not None:%(target.domain_id)s)"
)
LIST_ASSIGNMENTS = rule("identity:list_role_assignments", _LIST_ASSIGNMENTS, scope=ANYWHERE)
LIST_ASSIGNMENTS_FOR_TREE = rule("identity:list_role_assignments_for_tree", _LIST_ASSIGNMENTS, scope=ANYWHERE)


def own_domain_facts(call: Call[object, object]) -> Mapping[str, object]:
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


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    user_id: str | None
    group_id: str | None
    scope: str
    scope_id: str
    role_id: str
    inherited: bool


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the answer: a row as it was given or, with `effective`, one role that it gives a user in a place."""

    given: Assignment
    user_id: str | None
    project_id: str | None
    """The project that inherits it."""
    role_id: str


@IDENTITY.operation(
    "GET", "/role_assignments", rules=(Rule(LIST_ASSIGNMENTS),), facts=own_domain_facts, query=ListAssignments
)
def list_role_assignments(call: Call[None, None]) -> dict[str, object]:
    """List who has which role where. With `effective`: the members of groups, the projects that inherit and the implied
    roles. With `include_names`: names, too."""
    _refuse_contradictions(call)
    projects = _projects_asked(call)
    effective = _flag(call, "effective")
    lines = _counting(call, projects) if effective else _given(call, projects)
    names = _Names(call.tx) if _flag(call, "include_names") else None
    found: list[dict[str, object]] = []
    for line in lines:
        if len(found) == call.cloud.settings.largest_page:
            break
        found.append(_view(call, line, names))
    return collection(call, "role_assignments", "role_assignments", found)


def _projects_asked(call: Call[object, object]) -> list[Project] | None:
    """The project asked for, with `include_subtree` those below it too; None: any."""
    project_id = call.query.get("scope.project.id")
    if is_true(call.query.get("include_subtree")):
        call.require(LIST_ASSIGNMENTS_FOR_TREE)
        if not project_id:
            raise BadRequest("scope.project.id must be specified if include_subtree is also specified")
        project = known(store.project_by_id(call.tx, project_id), "project", project_id)
        return [project, *holding.projects_below(call.tx, project.id)]
    if not project_id:
        return None
    found = store.project_by_id(call.tx, project_id)
    return [found] if found is not None else []


def _flag(call: Call[object, object], name: str) -> bool:
    """Whether a parameter without a value, such as ``?effective``, is given. It may have a value: true or false."""
    return name in call.query and is_true(call.query.get(name) or "1")


def _refuse_contradictions(call: Call[object, object]) -> None:
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
        if call.query.get("scope.domain.id") and _inherited(call):
            raise BadRequest("Combining effective, domain and inherited filters will always result in an empty list.")


def _inherited(call: Call[object, object]) -> bool | None:
    """Whether only assignments that are inherited are asked for, or only others; None: both."""
    asked = call.query.get("scope.OS-INHERIT:inherited_to")
    return None if asked is None else asked == "projects"


def _rows(call: Call[object, object], *conditions: ColumnElement[bool]) -> Iterator[Assignment]:
    """Rows of the places asked for; at most a page's worth."""
    a, p = store.assignments.c, store.projects.c
    statement: Select = select(store.assignments).where(*conditions)
    if (inherited := _inherited(call)) is not None:
        statement = statement.where(a.inherited.is_(inherited))
    if domain_id := call.query.get("scope.domain.id"):
        statement = statement.where(a.scope == "domain", a.scope_id == domain_id)
    if call.query.get("scope.system"):
        statement = statement.where(a.scope == "system")
    if own := call.caller.domain_id:
        in_project = (a.scope == "project") & a.scope_id.in_(select(p.id).where(p.domain_id == own))
        statement = statement.where(in_project | ((a.scope == "domain") & (a.scope_id == own)))
    order = (a.user_id, a.group_id, a.scope, a.scope_id, a.role_id, a.inherited)
    for row in call.tx.all(statement.order_by(*order).limit(call.cloud.settings.largest_page)):
        yield Assignment(**row._mapping)


def _given(call: Call[object, object], projects: list[Project] | None) -> Iterator[Shown]:
    a, conditions = store.assignments.c, list[ColumnElement[bool]]()
    for parameter, column in (("user.id", a.user_id), ("group.id", a.group_id), ("role.id", a.role_id)):
        if asked := call.query.get(parameter):
            conditions.append(column == asked)
    if projects is not None:
        conditions += [a.scope == "project", a.scope_id.in_([project.id for project in projects])]
    for row in _rows(call, *conditions):
        yield Shown(given=row, user_id=row.user_id, project_id=None, role_id=row.role_id)


def _counting(call: Call[object, object], projects: list[Project] | None) -> Iterator[Shown]:
    tx, a, conditions = call.tx, store.assignments.c, list[ColumnElement[bool]]()
    if user_id := call.query.get("user.id"):
        conditions.append(holding.held_by(user_id))
    if projects is not None:
        here = and_(a.scope == "project", a.scope_id.in_([p.id for p in projects]), ~a.inherited)
        conditions.append(or_(here, *(holding.inherited_by(tx, project) for project in projects)))
    if call.query.get("scope.domain.id"):
        conditions.append(~a.inherited)
    wanted = None if projects is None else {project.id for project in projects}
    if asked_role := call.query.get("role.id"):
        conditions.append(a.role_id.in_(holding.implying(tx, asked_role)))
    for row in _rows(call, *conditions):
        holders, heirs = _holders(tx, row, user_id), _heirs(tx, row, wanted)
        for role_id in _effective(tx, row.role_id):
            if asked_role in (None, role_id):
                for holder in holders:
                    for project_id in heirs:
                        yield Shown(given=row, user_id=holder, project_id=project_id, role_id=role_id)


def _holders(tx: Tx, row: Assignment, user_id: str | None) -> list[str]:
    if row.group_id is None:
        return [row.user_id or ""]
    m = store.memberships.c
    statement = select(m.user_id).where(m.group_id == row.group_id).order_by(m.user_id)
    return [one.user_id for one in tx.all(statement if user_id is None else statement.where(m.user_id == user_id))]


def _heirs(tx: Tx, row: Assignment, wanted: set[str] | None) -> list[str | None]:
    """The projects that inherit a row; only None for a row that is not inherited: it counts where it was given."""
    if not row.inherited:
        return [None]
    p = store.projects.c
    if row.scope == "domain":
        statement = select(p.id).where(p.domain_id == row.scope_id)
    else:
        statement = select(p.id).where(p.id.in_(holding.below(select(p.id).where(p.id == row.scope_id))))
    return [heir.id for heir in tx.all(statement.order_by(p.id)) if wanted is None or heir.id in wanted]


def _effective(tx: Tx, role_id: str) -> list[str]:
    """The role and those it implies, without roles of one domain: they are never in a token."""
    r = store.roles.c
    reached = holding.with_implied(tx, [role_id])
    rows = tx.all(select(r.id).where(r.id.in_(reached), r.domain_id.is_(None)).order_by(r.name))
    return [row.id for row in rows]


class _Names:
    """Names of everything an assignment can mention, asked once per list."""

    def __init__(self, tx: Tx) -> None:
        self.domains = {d.id: d for d in store.many(tx, Domain, select(store.domains))}
        self.projects = {p.id: p for p in store.many(tx, Project, select(store.projects))}
        self.users = {u.id: u for u in store.many(tx, User, select(store.users))}
        self.groups = {g.id: g for g in store.many(tx, Group, select(store.groups))}
        self.roles = {r.id: r for r in store.many(tx, Role, select(store.roles))}

    def of(self, thing: User | Group | Project | Role | Domain) -> dict[str, object]:
        view: dict[str, object] = {"id": thing.id, "name": thing.name}
        if not isinstance(thing, Domain) and thing.domain_id is not None:
            view["domain"] = {"id": thing.domain_id, "name": self.domains[thing.domain_id].name}
        return view


def _view(call: Call[object, object], line: Shown, names: _Names | None) -> dict[str, object]:
    """One assignment; where its role is not the role given, it is one that role implies."""
    row, url = line.given, call.service_url
    place = "/system" if row.scope == "system" else f"/{row.scope}s/{row.scope_id}"
    holder = f"/users/{row.user_id}" if row.group_id is None else f"/groups/{row.group_id}"
    before, after = ("/OS-INHERIT", "/inherited_to_projects") if row.inherited else ("", "")
    links = {"assignment": f"{url}{before}{place}{holder}/roles/{row.role_id}{after}"}
    if line.role_id != row.role_id:
        links["prior_role"] = f"{url}/prior_role/{row.role_id}/implies/{line.role_id}"
    if row.group_id is not None and line.user_id is not None:
        links["membership"] = f"{url}/groups/{row.group_id}/users/{line.user_id}"
    scope: dict[str, object]
    if row.scope == "system":
        scope = {"system": {"all": True}}
    else:
        kind, identifier = ("project", line.project_id) if line.project_id is not None else (row.scope, row.scope_id)
        things: Mapping[str, Project | Domain] = {}
        if names is not None:
            things = names.projects if kind == "project" else names.domains
        scope = {kind: names.of(things[identifier]) if names is not None else {"id": identifier}}
    if row.inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    view: dict[str, object] = {
        "role": {"id": line.role_id} if names is None else names.of(names.roles[line.role_id]),
        "scope": scope,
        "links": links,
    }
    if line.user_id is not None:
        view["user"] = {"id": line.user_id} if names is None else names.of(names.users[line.user_id])
    elif row.group_id is not None:
        view["group"] = {"id": row.group_id} if names is None else names.of(names.groups[row.group_id])
    return view
