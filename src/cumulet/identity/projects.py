"""/projects: what owns servers, networks and images, and what quotas count against; and their tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

from msgspec.structs import asdict
from sqlalchemy import Select, delete, func, insert, select, update

from cumulet.db.engine import Tx
from cumulet.errors import ApiError, BadRequest, Conflict, NotFound, NotYet
from cumulet.identity import administrators, store
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
from cumulet.identity.domains import Name, Tags
from cumulet.identity.immutable import Options, given_extra, refuse_delete_of_immutable, refuse_update_of_immutable
from cumulet.identity.listing import AskedId, Flag, On, ShortName, filtered, page
from cumulet.identity.store import Project
from cumulet.web.operation import Call, Caller, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Empty, Json, Query, Unset

_DOMAIN_READER = "(role:reader and domain_id:%(target.project.domain_id)s and not None:%(target.project.domain_id)s)"
_SEE = f"({ADMIN}) or {SYSTEM_READER} or {_DOMAIN_READER} or project_id:%(target.project.id)s"
_MANAGE = (
    f"({ADMIN}) or (role:manager and domain_id:%(target.project.domain_id)s and not None:%(target.project.domain_id)s)"
)

GET = rule("identity:get_project", _SEE, scope=ANYWHERE)
LIST = rule(
    "identity:list_projects",
    f"({ADMIN}) or {SYSTEM_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    scope=ANYWHERE,
)
CREATE = rule("identity:create_project", _MANAGE, scope=ANYWHERE)
UPDATE = rule("identity:update_project", _MANAGE, scope=ANYWHERE)
DELETE = rule("identity:delete_project", _MANAGE, scope=ANYWHERE)
LIST_TAGS = rule("identity:list_project_tags", _SEE, scope=ANYWHERE)
GET_TAG = rule("identity:get_project_tag", _SEE, scope=ANYWHERE)
UPDATE_TAGS = rule("identity:update_project_tags", _MANAGE, scope=ANYWHERE)
CREATE_TAG = rule("identity:create_project_tag", _MANAGE, scope=ANYWHERE)
DELETE_TAGS = rule("identity:delete_project_tags", _MANAGE, scope=ANYWHERE)
DELETE_TAG = rule("identity:delete_project_tag", _MANAGE, scope=ANYWHERE)

MOST_TAGS = 80
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


class NewTags(Body):
    tags: Tags


def project_views(call: Call[Any, Any], projects: Iterable[Project]) -> list[dict[str, Any]]:
    """What callers see of projects; all tags in one query."""
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


def project_in_path(call: Call[Any, Any]) -> Project | None:
    return store.project_by_id(call.tx, call.path["project_id"])


def project_facts(call: Call[Project | None, Any]) -> Mapping[str, Any]:
    target = call.target
    return {"target.project.id": target.id, "target.project.domain_id": target.domain_id} if target else {}


def new_project_facts(call: Call[None, NewProject]) -> Mapping[str, Any]:
    return {"target.project.domain_id": call.body.domain_id} if call.body.domain_id else {}


def own_domain_facts(call: Call[Any, Any]) -> Mapping[str, Any]:
    """For lists: a token for a domain is judged by that domain, and shown nothing else."""
    return {"target.domain_id": call.caller.domain_id} if call.caller.domain_id else {}


class ListProjects(Query):
    domain_id: Annotated[AskedId | Unset, On(store.projects.c.domain_id)] = UNSET
    parent_id: Annotated[str | Unset, On(store.projects.c.domain_id)] = UNSET
    """Every project stands directly in its domain."""
    name: Annotated[ShortName | Unset, On(store.projects.c.name)] = UNSET
    enabled: Annotated[Flag | Unset, On(store.projects.c.enabled)] = UNSET
    is_domain: Flag | Unset = UNSET


@IDENTITY.operation("GET", "/projects", rules=(Rule(LIST),), facts=own_domain_facts, query=ListProjects)
def list_projects(call: Call[None, None]) -> dict[str, Any]:
    """List projects."""
    if is_true(call.query.get("is_domain")):
        raise NotYet("Domains are not shown as projects yet; ask for /v3/domains.")
    p = store.projects.c
    statement = filtered(call, select(store.projects))
    if call.caller.domain_id:
        statement = statement.where(p.domain_id == call.caller.domain_id)
    rows, following = page(call, _tagged(call, statement), store.projects)
    views = project_views(call, (Project(**row._mapping) for row in rows))
    return collection(call, "projects", "projects", views, next_marker=following)


def _tagged(call: Call[Any, Any], statement: Select[Any]) -> Select[Any]:
    """Narrowed by tags (all of them), tags-any, not-tags and not-tags-any."""

    def having(tags: list[str]) -> Any:
        t = store.project_tags.c
        count = select(func.count()).select_from(store.project_tags)
        return count.where(t.project_id == store.projects.c.id, t.tag.in_(tags)).scalar_subquery()

    for name in ("tags", "tags-any", "not-tags", "not-tags-any"):
        asked = call.query.get(name)
        if asked:
            tags = sorted(set(asked.split(",")))
            wanted = len(tags) if name in ("tags", "not-tags") else 1
            enough = having(tags) >= wanted
            statement = statement.where(~enough if name.startswith("not") else enough)
    return statement


@IDENTITY.operation("GET", "/projects/{project_id}", rules=(Rule(GET),), target=project_in_path, facts=project_facts)
def show_project(call: Call[Project | None, None]) -> dict[str, Any]:
    """Show a project."""
    project = known(call.target, "project", call.path["project_id"])
    [view] = project_views(call, [project])
    asked = {name for name in call.query.names() if is_true(call.query.get(name)) or call.query.get(name) == ""}
    if {"parents_as_list", "parents_as_ids"} <= asked or {"subtree_as_list", "subtree_as_ids"} <= asked:
        raise BadRequest("Cannot use ..._as_list and ..._as_ids query params at the same time.")
    if "parents_as_list" in asked:
        raise NotYet("Domains are not shown as projects yet; use parents_as_ids.")
    if "parents_as_ids" in asked:
        view["parents"] = {project.domain_id: None}
    if "subtree_as_list" in asked:
        view["subtree"] = []
    if "subtree_as_ids" in asked:
        view["subtree"] = None
    return {"project": view}


@IDENTITY.operation(
    "POST",
    "/projects",
    rules=(Rule(CREATE),),
    facts=new_project_facts,
    body=NewProject,
    body_key="project",
    success=201,
)
def create_project(call: Call[None, NewProject]) -> dict[str, Any]:
    """Create a project."""
    body = call.body
    if body.is_domain:
        raise NotYet("Projects that act as domains are not available yet; create a domain.")
    if body.parent_id is not None and store.project_by_id(call.tx, body.parent_id) is not None:
        raise NotYet("Projects below projects are not available yet; parent_id must be the domain's id.")
    domain_id = domain_of_new(call.tx, call.caller, body.domain_id or body.parent_id, unknown=BadRequest)
    if body.parent_id not in (None, domain_id):
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
    )
    call.tx.execute(insert(store.projects).values(**asdict(project)))
    _set_tags(call.tx, project.id, [] if body.tags is UNSET else body.tags)
    call.cloud.identity.changed(call.tx)
    return {"project": project_views(call, [project])[0]}


def domain_of_new(tx: Tx, caller: Caller, asked: str | None, *, unknown: type[ApiError] = NotFound) -> str:
    """The domain of something new: the one asked for, else the caller's, else the default one.

    `unknown`: what it is to ask for one that is not there. For a user it is 404, for a project 400, as in Keystone.
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


def _set_tags(tx: Tx, project_id: str, tags: Iterable[str]) -> None:
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
def update_project(call: Call[Project | None, ProjectChanges]) -> dict[str, Any]:
    """Change a project. Disabling it ends the tokens for it at once."""
    project = known(call.target, "project", call.path["project_id"])
    body = call.body
    refuse_unless_administrator(call, UPDATE, administrators.works_in(call.tx, project.id))
    refuse_update_of_immutable(project.options, body.options, "project", project.id)
    for name, now in (("domain_id", project.domain_id), ("parent_id", project.domain_id), ("is_domain", False)):
        if getattr(body, name) is not UNSET and getattr(body, name) != now:
            raise BadRequest(f"Update of `{name}` is not allowed.")
    if isinstance(body.name, str) and body.name != project.name:
        _refuse_taken_name(call.tx, project.domain_id, body.name)
    values: dict[str, Any] = {
        name: value for name in ("name", "description", "enabled") if (value := getattr(body, name)) is not UNSET
    }
    if "description" in values:
        values["description"] = values["description"] or ""
    if body.options is not UNSET:
        values["options"] = {**project.options, **body.options}
    values["extra"] = {**project.extra, **given_extra(body)}
    call.tx.execute(update(store.projects).where(store.projects.c.id == project.id).values(**values))
    if body.tags is not UNSET:
        _set_tags(call.tx, project.id, body.tags)
    if values.get("enabled") is False:
        store.revoke_tokens(call.tx, store.projects, project.id, call.now_us)
    call.cloud.identity.changed(call.tx)
    return {"project": project_views(call, [known(project_in_path(call), "project", project.id)])[0]}


@IDENTITY.operation(
    "DELETE", "/projects/{project_id}", rules=(Rule(DELETE),), target=project_in_path, facts=project_facts, success=204
)
def delete_project(call: Call[Project | None, None]) -> None:
    """Delete a project and all roles in it. What other services keep for it stays, as upstream."""
    project = known(call.target, "project", call.path["project_id"])
    refuse_unless_administrator(call, DELETE, administrators.works_in(call.tx, project.id))
    refuse_delete_of_immutable(project.options, "project", project.id)
    a, u = store.assignments, store.users
    call.tx.execute(delete(a).where(a.c.scope == "project", a.c.scope_id == project.id))
    call.tx.execute(delete(credentials).where(credentials.c.project_id == project.id))
    call.tx.execute(update(u).where(u.c.default_project_id == project.id).values(default_project_id=None))
    call.tx.execute(delete(store.projects).where(store.projects.c.id == project.id))
    call.cloud.identity.changed(call.tx)


# -- tags

TAGS = "/projects/{project_id}/tags"
TAG = "/projects/{project_id}/tags/{tag}"


def _tags_view(call: Call[Project | None, Any]) -> dict[str, Any]:
    t = store.project_tags.c
    rows = call.tx.all(select(t.tag).where(t.project_id == call.path["project_id"]).order_by(t.tag))
    url = f"{call.service_url}/projects/{call.path['project_id']}/tags"
    return {"tags": [row.tag for row in rows], "links": {"self": url}}


@IDENTITY.operation("GET", TAGS, rules=(Rule(LIST_TAGS),), target=project_in_path, facts=project_facts)
def list_project_tags(call: Call[Project | None, None]) -> dict[str, Any]:
    """List a project's tags."""
    known(call.target, "project", call.path["project_id"])
    return _tags_view(call)


@IDENTITY.operation("PUT", TAGS, rules=(Rule(UPDATE_TAGS),), target=project_in_path, facts=project_facts, body=NewTags)
def replace_project_tags(call: Call[Project | None, NewTags]) -> dict[str, Any]:
    """Give a project exactly these tags."""
    project = known(call.target, "project", call.path["project_id"])
    _set_tags(call.tx, project.id, call.body.tags)
    call.cloud.identity.changed(call.tx)
    return _tags_view(call)


@IDENTITY.operation(
    "DELETE", TAGS, rules=(Rule(DELETE_TAGS),), target=project_in_path, facts=project_facts, success=204
)
def delete_project_tags(call: Call[Project | None, None]) -> None:
    """Take all tags off a project."""
    project = known(call.target, "project", call.path["project_id"])
    _set_tags(call.tx, project.id, [])
    call.cloud.identity.changed(call.tx)


@IDENTITY.operation("GET", TAG, rules=(Rule(GET_TAG),), target=project_in_path, facts=project_facts, success=204)
def check_project_tag(call: Call[Project | None, None]) -> None:
    """Say whether a project has a tag."""
    known(call.target, "project", call.path["project_id"])
    _require_tag(call)


@IDENTITY.operation(
    "PUT", TAG, rules=(Rule(CREATE_TAG),), target=project_in_path, facts=project_facts, body=Empty, success=201
)
def add_project_tag(call: Call[Project | None, Empty]) -> Reply:
    """Put one more tag on a project."""
    project = known(call.target, "project", call.path["project_id"])
    tag = call.path["tag"]
    if not 1 <= len(tag) <= 255 or "," in tag or "/" in tag:
        raise BadRequest("Invalid input for field tag: 1 to 255 characters without comma or slash.")
    tags = {*_tags_view(call)["tags"], tag}
    if len(tags) > MOST_TAGS:
        raise BadRequest(f"A project has at most {MOST_TAGS} tags.")
    _set_tags(call.tx, project.id, tags)
    call.cloud.identity.changed(call.tx)
    return Reply(
        status=201, headers={"Location": f"{call.service_url}/projects/{project.id}/tags/{quote(tag, safe='')}"}
    )


@IDENTITY.operation("DELETE", TAG, rules=(Rule(DELETE_TAG),), target=project_in_path, facts=project_facts, success=204)
def delete_project_tag(call: Call[Project | None, None]) -> None:
    """Take one tag off a project."""
    project = known(call.target, "project", call.path["project_id"])
    _require_tag(call)
    t = store.project_tags.c
    call.tx.execute(delete(store.project_tags).where(t.project_id == project.id, t.tag == call.path["tag"]))
    call.cloud.identity.changed(call.tx)


def _require_tag(call: Call[Any, Any]) -> None:
    t = store.project_tags.c
    statement = select(t.tag).where(t.project_id == call.path["project_id"], t.tag == call.path["tag"])
    if call.tx.first(statement) is None:
        raise NotFound(f"Could not find project tag: {call.path['tag']}.")
