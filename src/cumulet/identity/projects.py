"""/projects: they own servers, networks and images, and have quotas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update

from cumulet.db.engine import Select, Tx
from cumulet.db.one_of import how_many
from cumulet.errors import ApiError, BadRequest, Conflict, Forbidden, NotFound
from cumulet.identity import administrators, domains, holding, store
from cumulet.identity.administrators import refuse_unless_administrator
from cumulet.identity.api import (
    ADMIN,
    ANYWHERE,
    DEFAULT_DOMAIN_ID,
    IDENTITY,
    SYSTEM_READER,
    collection,
    is_true,
    known,
    member,
    new_id,
)
from cumulet.identity.credential_store import credentials
from cumulet.identity.domains import Name, Tags, change_domain, domain_view, drop_domain, make_domain
from cumulet.identity.immutable import Options, given_extra, refuse_delete_of_immutable, refuse_update_of_immutable
from cumulet.identity.listing import AskedId, Flag, On, ShortName, filtered, page
from cumulet.identity.service import Identity
from cumulet.identity.store import Domain, Project
from cumulet.web.operation import Call, Caller, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset
from cumulet.web.value_lists import values_in

_DOMAIN_READER = "(role:reader and domain_id:%(target.project.domain_id)s and not None:%(target.project.domain_id)s)"
SEE = f"({ADMIN}) or {SYSTEM_READER} or {_DOMAIN_READER} or project_id:%(target.project.id)s"
MANAGE = (
    f"({ADMIN}) or (role:manager and domain_id:%(target.project.domain_id)s and not None:%(target.project.domain_id)s)"
)

GET = rule("identity:get_project", SEE, scope=ANYWHERE)
LIST = rule(
    "identity:list_projects",
    f"({ADMIN}) or {SYSTEM_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    scope=ANYWHERE,
)
CREATE = rule("identity:create_project", MANAGE, scope=ANYWHERE)
UPDATE = rule("identity:update_project", MANAGE, scope=ANYWHERE)
DELETE = rule("identity:delete_project", MANAGE, scope=ANYWHERE)
Id = Annotated[str | None, Json({"minLength": 1, "maxLength": 64, "pattern": r"^[a-zA-Z0-9-]+$"})]


class NewProject(Body, extra="allow"):
    name: Name
    description: str | None = None
    domain_id: Id = None
    parent_id: Id = None
    enabled: bool = True
    is_domain: bool = False
    tags: Tags | Unset = UNSET
    options: Options | Unset = UNSET


class ProjectChanges(Body, extra="allow"):
    name: Name | Unset = UNSET
    description: str | Unset | None = UNSET
    domain_id: Id | Unset = UNSET
    parent_id: Id | Unset = UNSET
    is_domain: bool | Unset = UNSET
    enabled: bool | Unset = UNSET
    tags: Tags | Unset = UNSET
    options: Options | Unset = UNSET


def project_views(call: Call[object, object], projects: Iterable[Project]) -> list[dict[str, object]]:
    """Projects as callers see them. One query gets the tags of all."""
    shown = list(projects)
    tags: dict[str, list[str]] = {project.id: [] for project in shown}
    t = store.project_tags.c
    for row in call.tx.all(select(store.project_tags).where(t.project_id.in_(list(tags))).order_by(t.tag)):
        tags[row.project_id].append(row.tag)
    return [
        {
            **project.extra,
            "id": project.id,
            "name": project.name,
            "domain_id": project.domain_id,
            "description": project.description,
            "enabled": project.enabled,
            "parent_id": project.parent_id or project.domain_id,
            "is_domain": False,
            "tags": tags[project.id],
            "options": project.options,
            "links": member(call, "projects", project.id),
        }
        for project in shown
    ]


def project_in_path(call: Call[object, object]) -> Project | None:
    return store.project_by_id(call.tx, call.path["project_id"])


def project_facts(call: Call[Project | None, object]) -> Mapping[str, object]:
    target = call.target
    return {"target.project.id": target.id, "target.project.domain_id": target.domain_id} if target else {}


def new_project_facts(call: Call[None, NewProject]) -> Mapping[str, object]:
    return {"target.project.domain_id": call.body.domain_id} if call.body.domain_id else {}


def own_domain_facts(call: Call[object, object]) -> Mapping[str, object]:
    """For lists: with a token for a domain, the rules look at that domain, and nothing else is shown."""
    return {"target.domain_id": call.caller.domain_id} if call.caller.domain_id else {}


class ListProjects(Query):
    domain_id: Annotated[AskedId | Unset, On(store.projects.c.domain_id)] = UNSET
    parent_id: Annotated[str | Unset, On(func.coalesce(store.projects.c.parent_id, store.projects.c.domain_id))] = UNSET
    name: Annotated[ShortName | Unset, On(store.projects.c.name)] = UNSET
    enabled: Annotated[Flag | Unset, On(store.projects.c.enabled)] = UNSET
    is_domain: Flag | Unset = UNSET


@IDENTITY.operation("GET", "/projects", rules=(Rule(LIST),), facts=own_domain_facts, query=ListProjects)
def list_projects(call: Call[None, None]) -> dict[str, object]:
    """List projects."""
    if is_true(call.query.get("is_domain")):
        return _list_domains(call)
    p = store.projects.c
    statement = filtered(call, select(store.projects))
    if call.caller.domain_id:
        statement = statement.where(p.domain_id == call.caller.domain_id)
    rows, following = page(call, _tagged(call, statement), store.projects)
    views = project_views(call, (Project(**row._mapping) for row in rows))
    return collection(call, "projects", "projects", views, next_marker=following)


def _tagged(call: Call[object, object], statement: Select) -> Select:
    """Narrowed by tags (all of them), tags-any, not-tags and not-tags-any."""

    t = store.project_tags.c
    for name in ("tags", "tags-any", "not-tags", "not-tags-any"):
        asked = call.query.get(name)
        if asked:
            tags = sorted(set(values_in(asked, name)))
            held = how_many(t.tag, tags, t.project_id == store.projects.c.id)
            enough = len(tags) if name in ("tags", "not-tags") else 1
            statement = statement.where(held < enough if name.startswith("not") else held >= enough)
    return statement


def _list_domains(call: Call[None, None]) -> dict[str, object]:
    """Domains, as the projects that upstream takes them for."""
    d = store.domains.c
    statement = select(store.domains)
    if call.caller.domain_id:
        statement = statement.where(d.id == call.caller.domain_id)
    if name := call.query.get("name"):
        statement = statement.where(d.name == name)
    if "enabled" in call.query:
        statement = statement.where(d.enabled.is_(is_true(call.query.get("enabled"))))
    rows, following = page(call, statement, store.domains)
    views = (domain_as_project(call, Domain(**row._mapping)) for row in rows)
    return collection(call, "projects", "projects", views, next_marker=following)


def domain_as_project(call: Call[object, object], domain: Domain) -> dict[str, object]:
    links = member(call, "projects", domain.id)
    return {**domain_view(call, domain), "domain_id": None, "parent_id": None, "is_domain": True, "links": links}


@IDENTITY.operation("GET", "/projects/{project_id}", rules=(Rule(GET),), target=project_in_path, facts=project_facts)
def show_project(call: Call[Project | None, None]) -> dict[str, object]:
    """Show a project, with those above and below it if asked."""
    if (domain := _domain_meant(call)) is not None:
        return {"project": domain_as_project(call, domain)}
    project = known(call.target, "project", call.path["project_id"])
    [view] = project_views(call, [project])
    asked = {name for name in call.query.names() if is_true(call.query.get(name)) or call.query.get(name) == ""}
    if {"parents_as_list", "parents_as_ids"} <= asked or {"subtree_as_list", "subtree_as_ids"} <= asked:
        raise BadRequest("Cannot use ..._as_list and ..._as_ids query params at the same time.")
    if "parents_as_list" in asked:
        view["parents"] = _of_caller(call, holding.above(call.tx, project))
    if "parents_as_ids" in asked:
        above = [parent.id for parent in holding.above(call.tx, project)]
        parents: dict[str, object] | None = None
        for identifier in (project.domain_id, *reversed(above)):
            parents = {identifier: parents}
        view["parents"] = parents
    if "subtree_as_list" in asked:
        view["subtree"] = _of_caller(call, holding.projects_below(call.tx, project.id))
    if "subtree_as_ids" in asked:
        view["subtree"] = _subtree(project.id, holding.projects_below(call.tx, project.id))
    return {"project": view}


def _of_caller(call: Call[object, object], projects: list[Project]) -> list[dict[str, object]]:
    """Those of some projects where the caller holds a role, as upstream."""
    p = store.projects.c
    ids = [project.id for project in projects]
    rows = call.tx.all(select(p.id).where(p.id.in_(ids), holding.projects_of(call.caller.user_id)))
    held = {row.id for row in rows}
    return [{"project": view} for view in project_views(call, (p for p in projects if p.id in held))]


def _subtree(project_id: str, below: list[Project]) -> dict[str, object] | None:
    """The ids below a project, those of each below it; None where there is none."""
    return {child.id: _subtree(child.id, below) for child in below if child.parent_id == project_id} or None


def _domain_meant(call: Call[object, object]) -> Domain | None:
    """The domain whose id the path names as a project's."""
    return store.domain_by_id(call.tx, call.path["project_id"]) if call.target is None else None


@IDENTITY.operation(
    "POST",
    "/projects",
    rules=(Rule(CREATE),),
    facts=new_project_facts,
    body=NewProject,
    body_key="project",
    success=201,
)
def create_project(call: Call[None, NewProject]) -> dict[str, object]:
    """Create a project, in its domain or below another project."""
    body = call.body
    if body.is_domain:
        return _create_domain(call)
    parent = store.project_by_id(call.tx, body.parent_id) if body.parent_id is not None else None
    asked = parent.domain_id if parent is not None and body.domain_id is None else body.domain_id or body.parent_id
    domain_id = domain_of_new(call.tx, call.caller, asked, unknown=BadRequest)
    if parent is not None:
        _refuse_place(call.tx, parent, domain_id)
    elif body.parent_id not in (None, domain_id):
        raise BadRequest(f"Could not find project: {body.parent_id}.")
    _refuse_taken_name(call.tx, domain_id, body.name)
    project = Project(
        id=new_id(call.cloud.clock),
        domain_id=domain_id,
        name=body.name,
        description=body.description or "",
        enabled=body.enabled,
        options={} if body.options is UNSET else body.options,
        extra=given_extra(body),
        tokens_not_before_us=0,
        parent_id=parent.id if parent is not None else None,
    )
    call.tx.execute(insert(store.projects).values(**asdict(project)))
    set_tags(call.tx, project.id, [] if body.tags is UNSET else body.tags)
    return {"project": project_views(call, [project])[0]}


def _create_domain(call: Call[None, NewProject]) -> dict[str, object]:
    """Create a domain: upstream calls it a project that acts as one."""
    if call.body.parent_id is not None or call.body.domain_id is not None:
        raise BadRequest("Only root projects are allowed to act as domains.")
    call.require(domains.CREATE)
    made = make_domain(call, call.body, new_id(call.cloud.clock))
    return {"project": domain_as_project(call, made)}


def _refuse_place(tx: Tx, parent: Project, domain_id: str) -> None:
    """Refuse a new project below `parent` in another domain, in a disabled branch or too far down."""
    if parent.domain_id != domain_id:  # Whose managers learn of other domains neither this nor whether it exists.
        raise BadRequest(f"Could not find project: {parent.id}.")
    branch = [parent, *holding.above(tx, parent)]
    if disabled := next((project for project in branch if not project.enabled), None):
        raise Forbidden(f"Cannot create project in a branch containing a disabled project: {disabled.id}.")
    if len(branch) >= holding.DEEPEST_TREE:
        raise Forbidden(f"Max hierarchy depth reached for {parent.id} branch.")


def domain_of_new(tx: Tx, caller: Caller, asked: str | None, *, unknown: type[ApiError] = NotFound) -> str:
    """The domain of something new: the one asked for, else the caller's, else the default one.

    `unknown`: the error for a domain that does not exist. For a new user it is 404, for a project 400, as in Keystone.
    """
    domain_id = asked or caller.domain_id or caller.project_domain_id or DEFAULT_DOMAIN_ID
    if store.domain_by_id(tx, domain_id) is None:
        raise unknown(f"Could not find domain: {domain_id}.")
    return domain_id


def _refuse_taken_name(tx: Tx, domain_id: str, name: str) -> None:
    if store.project_by_name(tx, domain_id, name) is not None:
        raise Conflict(
            "Conflict occurred attempting to store project - it is not permitted to have two projects "
            f"with the same name in the same domain: {name}."
        )


def set_tags(tx: Tx, project_id: str, tags: Iterable[str]) -> None:
    tx.execute(delete(store.project_tags).where(store.project_tags.c.project_id == project_id))
    rows = [{"project_id": project_id, "tag": tag} for tag in tags]
    if rows:
        tx.execute(insert(store.project_tags), rows)


@IDENTITY.operation(
    "PATCH",
    "/projects/{project_id}",
    rules=(Rule(UPDATE),),
    target=project_in_path,
    facts=project_facts,
    body=ProjectChanges,
    body_key="project",
)
def update_project(call: Call[Project | None, ProjectChanges]) -> dict[str, object]:
    """Change a project. Disabling it ends the tokens for it at once."""
    if (domain := _domain_meant(call)) is not None:
        call.require(domains.UPDATE)
        return {"project": domain_as_project(call, change_domain(call, domain, call.body))}
    project = known(call.target, "project", call.path["project_id"])
    body = call.body
    refuse_unless_administrator(call, UPDATE, administrators.works_in(call.tx, project.id))
    refuse_update_of_immutable(project.options, body.options, "project", project.id)
    above = project.parent_id or project.domain_id
    for name, now in (("domain_id", project.domain_id), ("parent_id", above), ("is_domain", False)):
        if getattr(body, name) is not UNSET and getattr(body, name) != now:
            raise BadRequest(f"Update of `{name}` is not allowed.")
    if isinstance(body.name, str) and body.name != project.name:
        _refuse_taken_name(call.tx, project.domain_id, body.name)
    if body.enabled is not UNSET and body.enabled != project.enabled:
        _refuse_branch(call.tx, project, enabled=body.enabled)
    values: dict[str, object] = {
        name: value for name in ("name", "description", "enabled") if (value := getattr(body, name)) is not UNSET
    }
    if "description" in values:
        values["description"] = values["description"] or ""
    if body.options is not UNSET:
        values["options"] = {**project.options, **body.options}
    values["extra"] = {**project.extra, **given_extra(body)}
    call.tx.execute(update(store.projects).where(store.projects.c.id == project.id).values(**values))
    if body.tags is not UNSET:
        set_tags(call.tx, project.id, body.tags)
    if values.get("enabled") is False:
        store.revoke_tokens(call.tx, store.projects, project.id, call.now_us)
    Identity.of(call).changed(call.tx)
    return {"project": project_views(call, [known(project_in_path(call), "project", project.id)])[0]}


def _refuse_branch(tx: Tx, project: Project, *, enabled: bool) -> None:
    """403 where an enabled project would be below a disabled one."""
    if enabled and any(not parent.enabled for parent in holding.above(tx, project)):
        raise Forbidden(f"Cannot enable project {project.id} since it has disabled parents")
    if not enabled and any(below.enabled for below in holding.projects_below(tx, project.id)):
        raise Forbidden(f"Cannot disable project {project.id} since its subtree contains enabled projects.")


@IDENTITY.operation(
    "DELETE", "/projects/{project_id}", rules=(Rule(DELETE),), target=project_in_path, facts=project_facts, success=204
)
def delete_project(call: Call[Project | None, None]) -> None:
    """Delete a project and all roles in it. What other services keep for it stays, as upstream."""
    if (domain := _domain_meant(call)) is not None:
        call.require(domains.DELETE)
        drop_domain(call, domain)
        return
    project = known(call.target, "project", call.path["project_id"])
    refuse_unless_administrator(call, DELETE, administrators.works_in(call.tx, project.id))
    refuse_delete_of_immutable(project.options, "project", project.id)
    if call.tx.first(select(store.projects.c.id).where(store.projects.c.parent_id == project.id)) is not None:
        raise Forbidden(f"Cannot delete the project {project.id} since it is not a leaf in the hierarchy.")
    a, u = store.assignments, store.users
    call.tx.execute(delete(a).where(a.c.scope == "project", a.c.scope_id == project.id))
    call.tx.execute(delete(credentials).where(credentials.c.project_id == project.id))
    call.tx.execute(update(u).where(u.c.default_project_id == project.id).values(default_project_id=None))
    call.tx.execute(delete(store.projects).where(store.projects.c.id == project.id))
    Identity.of(call).changed(call.tx)
