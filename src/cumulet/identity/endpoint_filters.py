"""/OS-EP-FILTER: which endpoints a project's catalog shows. They are given one by one, or by groups of endpoints.

A project that was given none is shown all endpoints, as upstream by default.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec.structs import asdict
from sqlalchemy import JSON, Column, ForeignKey, Table, Text, delete, insert, select, update

from cumulet.db.engine import Row, Select, Tx, metadata
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.identity import store
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    IDENTITY,
    NOT_DOMAIN,
    collection,
    known,
    member,
    new_id,
)
from cumulet.identity.listing import On, filtered
from cumulet.identity.projects import project_views
from cumulet.identity.store import Project
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Empty, Json, Query, Unset

endpoint_groups = Table(
    "identity_endpoint_groups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("filters", JSON, nullable=False),
)

endpoint_group_projects = Table(
    "identity_endpoint_group_projects",
    metadata,
    Column("endpoint_group_id", Text, ForeignKey(endpoint_groups.c.id, ondelete="CASCADE"), primary_key=True),
    Column("project_id", Text, ForeignKey(store.projects.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)

endpoint_projects = Table(
    "identity_endpoint_projects",
    metadata,
    Column("endpoint_id", Text, ForeignKey(store.endpoints.c.id, ondelete="CASCADE"), primary_key=True),
    Column("project_id", Text, ForeignKey(store.projects.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)


def reads(name: str) -> Rule:
    return Rule(rule(f"identity:{name}", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN))


def writes(name: str) -> Rule:
    return Rule(rule(f"identity:{name}", ADMIN, scope=NOT_DOMAIN))


class Filters(Body):
    interface: Literal["admin", "internal", "public"] | Unset = UNSET
    service_id: Annotated[str | Unset, Json({"maxLength": 64})] = UNSET
    region_id: Annotated[str | Unset, Json({"maxLength": 255})] = UNSET
    enabled: bool | Unset = UNSET


Name = Annotated[str, Json({"minLength": 1, "maxLength": 255})]
Description = Annotated[str | None, Json({"maxLength": 1024})]


class NewEndpointGroup(Body):
    name: Name
    description: Description = None
    filters: Filters


class EndpointGroupChanges(Body, min_properties=1):
    name: Name | Unset = UNSET
    description: Description | Unset = UNSET
    filters: Filters | Unset = UNSET


class EndpointGroup(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    description: str | None
    filters: dict[str, object]


def shown_to(tx: Tx, project_id: str) -> set[str] | None:
    """The ids of the endpoints that a project's catalog shows; None: all."""
    e, g = endpoint_projects.c, endpoint_group_projects.c
    named = {row.endpoint_id for row in tx.all(select(e.endpoint_id).where(e.project_id == project_id))}
    ids = [row.endpoint_group_id for row in tx.all(select(g.endpoint_group_id).where(g.project_id == project_id))]
    if not named and not ids:
        return None
    for group in store.many(tx, EndpointGroup, select(endpoint_groups).where(endpoint_groups.c.id.in_(ids))):
        named |= {row.id for row in _described(tx, group)}
    return named


def _described(tx: Tx, group: EndpointGroup) -> list[Row]:
    statement = select(store.endpoints).order_by(store.endpoints.c.id)
    for name, value in group.filters.items():
        statement = statement.where(store.endpoints.c[name] == value)
    return tx.all(statement)


GROUPS = "/OS-EP-FILTER/endpoint_groups"
GROUP = f"{GROUPS}/{{endpoint_group_id}}"
OF_GROUP = f"{GROUP}/projects/{{project_id}}"
OF_PROJECT = "/OS-EP-FILTER/projects/{project_id}"
ENDPOINT = f"{OF_PROJECT}/endpoints/{{endpoint_id}}"


def _view(call: Call[object, object], group: EndpointGroup) -> dict[str, object]:
    return {**asdict(group), "links": member(call, GROUPS[1:], group.id)}


def _group(call: Call[object, object]) -> EndpointGroup:
    identifier = call.path["endpoint_group_id"]
    found = store.one(call.tx, EndpointGroup, select(endpoint_groups).where(endpoint_groups.c.id == identifier))
    return known(found, "Endpoint Group", identifier)


def _project(call: Call[object, object]) -> Project:
    return known(store.project_by_id(call.tx, call.path["project_id"]), "project", call.path["project_id"])


def _endpoint(call: Call[object, object]) -> str:
    identifier = call.path["endpoint_id"]
    e = store.endpoints.c
    return str(known(call.tx.first(select(e.id).where(e.id == identifier)), "endpoint", identifier).id)


def _given(filters: Filters) -> dict[str, object]:
    names = ("interface", "service_id", "region_id", "enabled")
    found = {name: value for name in names if (value := getattr(filters, name)) is not UNSET}
    if not found:
        raise BadRequest("filters field is required and cannot be empty")
    return found


class ListGroups(Query):
    name: Annotated[str | Unset, On(endpoint_groups.c.name)] = UNSET


@IDENTITY.operation("GET", GROUPS, rules=(reads("list_endpoint_groups"),), query=ListGroups)
def list_endpoint_groups(call: Call[None, None]) -> dict[str, object]:
    """List groups of endpoints."""
    statement = filtered(call, select(endpoint_groups)).order_by(endpoint_groups.c.id)
    found = store.many(call.tx, EndpointGroup, statement.limit(call.cloud.settings.largest_page))
    return collection(call, GROUPS[1:], "endpoint_groups", [_view(call, group) for group in found])


@IDENTITY.operation(
    "POST",
    GROUPS,
    rules=(writes("create_endpoint_group"),),
    body=NewEndpointGroup,
    body_key="endpoint_group",
    success=201,
)
def create_endpoint_group(call: Call[None, NewEndpointGroup]) -> dict[str, object]:
    """Describe a group of endpoints."""
    body = call.body
    group = EndpointGroup(
        id=new_id(call.cloud.clock), name=body.name, description=body.description, filters=_given(body.filters)
    )
    call.tx.execute(insert(endpoint_groups).values(**asdict(group)))
    return {"endpoint_group": _view(call, group)}


@IDENTITY.operation("GET", GROUP, rules=(reads("get_endpoint_group"),))
def show_endpoint_group(call: Call[None, None]) -> dict[str, object]:
    """Show a group of endpoints."""
    return {"endpoint_group": _view(call, _group(call))}


@IDENTITY.operation(
    "PATCH", GROUP, rules=(writes("update_endpoint_group"),), body=EndpointGroupChanges, body_key="endpoint_group"
)
def update_endpoint_group(call: Call[None, EndpointGroupChanges]) -> dict[str, object]:
    """Change a group of endpoints."""
    group, body = _group(call), call.body
    values: dict[str, object] = {n: v for n in ("name", "description") if (v := getattr(body, n)) is not UNSET}
    if isinstance(body.filters, Filters):
        values["filters"] = _given(body.filters)
    call.tx.execute(update(endpoint_groups).where(endpoint_groups.c.id == group.id).values(**values))
    return {"endpoint_group": _view(call, _group(call))}


@IDENTITY.operation("DELETE", GROUP, rules=(writes("delete_endpoint_group"),), success=204)
def delete_endpoint_group(call: Call[None, None]) -> None:
    """Delete a group of endpoints."""
    call.tx.execute(delete(endpoint_groups).where(endpoint_groups.c.id == _group(call).id))


def absolute(url: str, base_url: str) -> str:
    """The whole URL of an endpoint, where clients reach this cloud at `base_url`."""
    return base_url + url if url.startswith("/") else url


def endpoint_view(call: Call[object, object], row: Row) -> dict[str, object]:
    return {
        **row.extra,
        "id": row.id,
        "service_id": row.service_id,
        "interface": row.interface,
        "region": row.region_id,
        "region_id": row.region_id,
        "url": absolute(row.url, call.base_url),
        "enabled": row.enabled,
        "links": member(call, "endpoints", row.id),
    }


@IDENTITY.operation("GET", f"{GROUP}/endpoints", rules=(reads("list_endpoints_associated_with_endpoint_group"),))
def list_endpoints_of_group(call: Call[None, None]) -> dict[str, object]:
    """List the endpoints that a group describes."""
    group = _group(call)
    views = [endpoint_view(call, row) for row in _described(call.tx, group)[: call.cloud.settings.largest_page]]
    return collection(call, f"{GROUPS[1:]}/{group.id}/endpoints", "endpoints", views)


def _projects(call: Call[object, object], path: str, ids: Select) -> dict[str, object]:
    p = store.projects.c
    statement = select(store.projects).where(p.id.in_(ids)).order_by(p.name).limit(call.cloud.settings.largest_page)
    return collection(call, path, "projects", project_views(call, store.many(call.tx, Project, statement)))


@IDENTITY.operation("GET", f"{GROUP}/projects", rules=(reads("list_projects_associated_with_endpoint_group"),))
def list_projects_of_group(call: Call[None, None]) -> dict[str, object]:
    """List the projects whose catalogs show a group's endpoints."""
    group, g = _group(call), endpoint_group_projects.c
    ids = select(g.project_id).where(g.endpoint_group_id == group.id)
    return _projects(call, f"{GROUPS[1:]}/{group.id}/projects", ids)


def _in_project(call: Call[object, object]) -> dict[str, str]:
    project, group = _project(call), _group(call)
    return {"endpoint_group_id": group.id, "project_id": project.id}


@IDENTITY.operation("GET", OF_GROUP, rules=(reads("get_endpoint_group_in_project"),))
def show_endpoint_group_in_project(call: Call[None, None]) -> dict[str, object]:
    """Show that a project's catalog shows a group's endpoints."""
    pair = _in_project(call)
    _require(call, endpoint_group_projects, pair)
    path = f"{GROUPS[1:]}/{pair['endpoint_group_id']}/projects"
    return {"project_endpoint_group": {**pair, "links": member(call, path, pair["project_id"])}}


@IDENTITY.operation("PUT", OF_GROUP, rules=(writes("add_endpoint_group_to_project"),), body=Empty, success=204)
def add_endpoint_group_to_project(call: Call[None, Empty]) -> None:
    """Let a project's catalog show a group's endpoints."""
    pair = _in_project(call)
    if _there(call, endpoint_group_projects, pair):
        raise Conflict("Conflict occurred attempting to store endpoint_group_to_project - Duplicate entry found.")
    call.tx.execute(insert(endpoint_group_projects).values(**pair))


@IDENTITY.operation("DELETE", OF_GROUP, rules=(writes("remove_endpoint_group_from_project"),), success=204)
def remove_endpoint_group_from_project(call: Call[None, None]) -> None:
    """Let a project's catalog no longer show a group's endpoints."""
    _remove(call, endpoint_group_projects, _in_project(call))


def _there(call: Call[object, object], table: Table, pair: dict[str, str]) -> bool:
    return call.tx.first(select(table).where(*(table.c[name] == value for name, value in pair.items()))) is not None


def _require(call: Call[object, object], table: Table, pair: dict[str, str]) -> None:
    if not _there(call, table, pair):
        raise NotFound(f"Could not find {' in project '.join(pair.values())}.")


def _remove(call: Call[object, object], table: Table, pair: dict[str, str]) -> None:
    _require(call, table, pair)
    call.tx.execute(delete(table).where(*(table.c[name] == value for name, value in pair.items())))


@IDENTITY.operation("GET", f"{OF_PROJECT}/endpoint_groups", rules=(reads("list_endpoint_groups_for_project"),))
def list_groups_of_project(call: Call[None, None]) -> dict[str, object]:
    """List the groups whose endpoints a project's catalog shows."""
    g, project_id = endpoint_group_projects.c, _project(call).id
    ids = select(g.endpoint_group_id).where(g.project_id == project_id)
    statement = select(endpoint_groups).where(endpoint_groups.c.id.in_(ids)).order_by(endpoint_groups.c.id)
    found = store.many(call.tx, EndpointGroup, statement.limit(call.cloud.settings.largest_page))
    views = [_view(call, group) for group in found]
    return collection(call, f"OS-EP-FILTER/projects/{project_id}/endpoint_groups", "endpoint_groups", views)


@IDENTITY.operation("GET", f"{OF_PROJECT}/endpoints", rules=(reads("list_endpoints_for_project"),))
def list_endpoints_of_project(call: Call[None, None]) -> dict[str, object]:
    """List the endpoints a project was given, by name or by groups."""
    project_id = _project(call).id
    ids = shown_to(call.tx, project_id) or set()
    statement = select(store.endpoints).where(store.endpoints.c.id.in_(ids)).order_by(store.endpoints.c.id)
    rows = call.tx.all(statement.limit(call.cloud.settings.largest_page))
    views = [endpoint_view(call, row) for row in rows]
    return collection(call, f"OS-EP-FILTER/projects/{project_id}/endpoints", "endpoints", views)


@IDENTITY.operation(
    "GET", "/OS-EP-FILTER/endpoints/{endpoint_id}/projects", rules=(reads("list_projects_for_endpoint"),)
)
def list_projects_of_endpoint(call: Call[None, None]) -> dict[str, object]:
    """List the projects that were given an endpoint by name."""
    e, endpoint_id = endpoint_projects.c, _endpoint(call)
    ids = select(e.project_id).where(e.endpoint_id == endpoint_id)
    return _projects(call, f"OS-EP-FILTER/endpoints/{endpoint_id}/projects", ids)


def _given_endpoint(call: Call[object, object]) -> dict[str, str]:
    return {"endpoint_id": _endpoint(call), "project_id": _project(call).id}


@IDENTITY.operation("GET", ENDPOINT, rules=(reads("check_endpoint_in_project"),), success=204)
def check_endpoint_in_project(call: Call[None, None]) -> None:
    """Say whether a project was given an endpoint by name."""
    _require(call, endpoint_projects, _given_endpoint(call))


@IDENTITY.operation("PUT", ENDPOINT, rules=(writes("add_endpoint_to_project"),), body=Empty, success=204)
def add_endpoint_to_project(call: Call[None, Empty]) -> None:
    """Let a project's catalog show an endpoint."""
    pair = _given_endpoint(call)
    if _there(call, endpoint_projects, pair):
        raise Conflict("Conflict occurred attempting to store project_endpoint - Duplicate entry found.")
    call.tx.execute(insert(endpoint_projects).values(**pair))


@IDENTITY.operation("DELETE", ENDPOINT, rules=(writes("remove_endpoint_from_project"),), success=204)
def remove_endpoint_from_project(call: Call[None, None]) -> None:
    """Let a project's catalog no longer show an endpoint."""
    _remove(call, endpoint_projects, _given_endpoint(call))
