"""The catalog: services and endpoints as administrators keep them, and as tokens show them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from sqlalchemy import delete, insert, select, update

from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest
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
from cumulet.identity.endpoint_filters import absolute, endpoint_view, shown_to
from cumulet.identity.immutable import given_extra
from cumulet.identity.listing import On, filtered
from cumulet.identity.regions import insert_region, region_by_id, require_region
from cumulet.identity.tokens import LiveToken
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

GET_SERVICE = rule("identity:get_service", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
LIST_SERVICES = rule("identity:list_services", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CREATE_SERVICE = rule("identity:create_service", ADMIN, scope=NOT_DOMAIN)
UPDATE_SERVICE = rule("identity:update_service", ADMIN, scope=NOT_DOMAIN)
DELETE_SERVICE = rule("identity:delete_service", ADMIN, scope=NOT_DOMAIN)
GET_ENDPOINT = rule("identity:get_endpoint", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
LIST_ENDPOINTS = rule("identity:list_endpoints", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CREATE_ENDPOINT = rule("identity:create_endpoint", ADMIN, scope=NOT_DOMAIN)
UPDATE_ENDPOINT = rule("identity:update_endpoint", ADMIN, scope=NOT_DOMAIN)
DELETE_ENDPOINT = rule("identity:delete_endpoint", ADMIN, scope=NOT_DOMAIN)

_SUBSTITUTION = re.compile(r"[$%]\(([^)]*)\)s")
_SUBSTITUTIONS = frozenset({"project_id", "tenant_id", "user_id"})


def catalog_view(tx: Tx, base_url: str, live: LiveToken) -> list[dict[str, object]]:
    """The enabled services and endpoints, with URLs for the bearer of a token who reached us at `base_url`."""
    values = {"user_id": live.user.id}
    if live.project is not None:
        values |= {"project_id": live.project.id, "tenant_id": live.project.id}
    s, e = store.services, store.endpoints
    shown = shown_to(tx, live.project.id) if live.project is not None else None
    found: dict[str, list[dict[str, object]]] = {}
    for row in tx.all(select(e).where(e.c.enabled).order_by(e.c.interface, e.c.id)):
        url = _url_for(row.url, base_url, values)
        if url is not None and (shown is None or row.id in shown):
            view = {"id": row.id, "interface": row.interface, "region": row.region_id, "region_id": row.region_id}
            found.setdefault(row.service_id, []).append({**view, "url": url})
    return [
        {"id": row.id, "type": row.type, "name": row.name or "", "endpoints": found.get(row.id, [])}
        for row in tx.all(select(s).where(s.c.enabled).order_by(s.c.type, s.c.id))
    ]


def _url_for(url: str, base_url: str, values: dict[str, str]) -> str | None:
    """`url` with the token's ids filled in; None where it needs a project and the token has none."""
    if any(name not in values for name in _SUBSTITUTION.findall(url)):
        return None
    return absolute(_SUBSTITUTION.sub(lambda match: values[match[1]], url), base_url)


# -- services

ServiceName = Annotated[str, Json({"minLength": 1, "maxLength": 255, "format": "one line"})]


class NewService(Body, extra="allow"):
    type: ServiceName
    name: ServiceName | Unset = UNSET
    description: str | Unset | None = UNSET
    enabled: bool = True


class ServiceChanges(Body, extra="allow", min_properties=1):
    type: ServiceName | Unset = UNSET
    name: ServiceName | Unset = UNSET
    description: str | Unset | None = UNSET
    enabled: bool | Unset = UNSET


def _service_view(call: Call[object, object], row: Row) -> dict[str, object]:
    view = {**row.extra, "id": row.id, "type": row.type, "enabled": row.enabled}
    view |= {"name": row.name or "", "links": member(call, "services", row.id)}
    if row.description is not None:
        view["description"] = row.description
    return view


def _service_in_path(call: Call[object, object]) -> Row:
    service_id = call.path["service_id"]
    return known(call.tx.first(select(store.services).where(store.services.c.id == service_id)), "service", service_id)


class ListServices(Query):
    type: Annotated[str | Unset, On(store.services.c.type)] = UNSET
    name: Annotated[str | Unset, On(store.services.c.name)] = UNSET


@IDENTITY.operation("GET", "/services", rules=(Rule(LIST_SERVICES),), query=ListServices)
def list_services(call: Call[None, None]) -> dict[str, object]:
    """List services."""
    s = store.services.c
    statement = filtered(call, select(store.services)).order_by(s.type, s.id).limit(call.cloud.settings.largest_page)
    return collection(call, "services", "services", [_service_view(call, row) for row in call.tx.all(statement)])


@IDENTITY.operation("GET", "/services/{service_id}", rules=(Rule(GET_SERVICE),))
def show_service(call: Call[None, None]) -> dict[str, object]:
    """Show a service."""
    return {"service": _service_view(call, _service_in_path(call))}


@IDENTITY.operation(
    "POST", "/services", rules=(Rule(CREATE_SERVICE),), body=NewService, body_key="service", success=201
)
def create_service(call: Call[None, NewService]) -> dict[str, object]:
    """Create a service."""
    body = call.body
    service_id = new_id(call.cloud.clock)
    name = None if body.name is UNSET else body.name
    description = None if body.description is UNSET else body.description
    values = {"id": service_id, "type": body.type, "name": name, "description": description, "enabled": body.enabled}
    call.tx.execute(insert(store.services).values(**values, extra=given_extra(body)))
    row = call.tx.first(select(store.services).where(store.services.c.id == service_id))
    return {"service": _service_view(call, known(row, "service", service_id))}


@IDENTITY.operation(
    "PATCH", "/services/{service_id}", rules=(Rule(UPDATE_SERVICE),), body=ServiceChanges, body_key="service"
)
def update_service(call: Call[None, ServiceChanges]) -> dict[str, object]:
    """Change a service."""
    row, body = _service_in_path(call), call.body
    values = _given(body, "type", "name", "description", "enabled")
    values["extra"] = {**row.extra, **given_extra(body)}
    call.tx.execute(update(store.services).where(store.services.c.id == row.id).values(**values))
    return {"service": _service_view(call, _service_in_path(call))}


def _given(body: Body, *names: str) -> dict[str, object]:
    return {name: value for name in names if (value := getattr(body, name)) is not UNSET}


@IDENTITY.operation("DELETE", "/services/{service_id}", rules=(Rule(DELETE_SERVICE),), success=204)
def delete_service(call: Call[None, None]) -> None:
    """Delete a service and its endpoints."""
    row = _service_in_path(call)
    call.tx.execute(delete(store.services).where(store.services.c.id == row.id))


# -- endpoints

Interface = Literal["admin", "internal", "public"]
EndpointUrl = Annotated[str, Json({"maxLength": 225, "pattern": r"^[a-zA-Z0-9+.-]+:.+"})]
RegionId = Annotated[str | None, Json({"minLength": 1, "maxLength": 255})]


class NewEndpoint(Body, extra="allow"):
    service_id: str
    interface: Interface
    url: EndpointUrl
    region_id: RegionId = None
    region: RegionId = None
    enabled: bool = True


class EndpointChanges(Body, extra="allow", min_properties=1):
    service_id: str | Unset = UNSET
    interface: Interface | Unset = UNSET
    url: EndpointUrl | Unset = UNSET
    region_id: RegionId | Unset = UNSET
    region: RegionId | Unset = UNSET
    enabled: bool | Unset = UNSET


def _endpoint_in_path(call: Call[object, object]) -> Row:
    endpoint_id = call.path["endpoint_id"]
    statement = select(store.endpoints).where(store.endpoints.c.id == endpoint_id)
    return known(call.tx.first(statement), "endpoint", endpoint_id)


def _checked_endpoint(call: Call[None, NewEndpoint] | Call[None, EndpointChanges]) -> str | Unset | None:
    """The region of an endpoint; 400 if it refers to something that does not exist. A region that is named by the old
    attribute `region` is created where it is missing."""
    body, tx = call.body, call.tx
    if isinstance(body.url, str) and not set(_SUBSTITUTION.findall(body.url)) <= _SUBSTITUTIONS:
        raise BadRequest("Cannot create an endpoint with an invalid URL: it refers to what a token does not say.")
    if isinstance(body.service_id, str):
        there = select(store.services.c.id).where(store.services.c.id == body.service_id)
        if tx.first(there) is None:
            raise BadRequest(f"Could not find service: {body.service_id}.")
    if not isinstance(body.region_id, str) and isinstance(body.region, str):
        if region_by_id(tx, body.region) is None:
            insert_region(tx, body.region)
        return body.region
    require_region(tx, body.region_id)
    return body.region_id


class ListEndpoints(Query):
    interface: Annotated[Literal["admin", "internal", "public"] | Unset, On(store.endpoints.c.interface)] = UNSET
    service_id: Annotated[str | Unset, On(store.endpoints.c.service_id)] = UNSET
    region_id: Annotated[str | Unset, On(store.endpoints.c.region_id)] = UNSET


@IDENTITY.operation("GET", "/endpoints", rules=(Rule(LIST_ENDPOINTS),), query=ListEndpoints)
def list_endpoints(call: Call[None, None]) -> dict[str, object]:
    """List endpoints."""
    e = store.endpoints.c
    statement = (
        filtered(call, select(store.endpoints))
        .order_by(e.service_id, e.interface, e.id)
        .limit(call.cloud.settings.largest_page)
    )
    return collection(call, "endpoints", "endpoints", [endpoint_view(call, row) for row in call.tx.all(statement)])


@IDENTITY.operation("GET", "/endpoints/{endpoint_id}", rules=(Rule(GET_ENDPOINT),))
def show_endpoint(call: Call[None, None]) -> dict[str, object]:
    """Show an endpoint."""
    return {"endpoint": endpoint_view(call, _endpoint_in_path(call))}


@IDENTITY.operation(
    "POST", "/endpoints", rules=(Rule(CREATE_ENDPOINT),), body=NewEndpoint, body_key="endpoint", success=201
)
def create_endpoint(call: Call[None, NewEndpoint]) -> dict[str, object]:
    """Create an endpoint."""
    body = call.body
    endpoint_id = new_id(call.cloud.clock)
    values = _given(body, "service_id", "interface", "url", "enabled")
    values |= {"id": endpoint_id, "region_id": _checked_endpoint(call), "extra": given_extra(body)}
    call.tx.execute(insert(store.endpoints).values(**values))
    row = call.tx.first(select(store.endpoints).where(store.endpoints.c.id == endpoint_id))
    return {"endpoint": endpoint_view(call, known(row, "endpoint", endpoint_id))}


@IDENTITY.operation(
    "PATCH", "/endpoints/{endpoint_id}", rules=(Rule(UPDATE_ENDPOINT),), body=EndpointChanges, body_key="endpoint"
)
def update_endpoint(call: Call[None, EndpointChanges]) -> dict[str, object]:
    """Change an endpoint."""
    row, body = _endpoint_in_path(call), call.body
    values = _given(body, "service_id", "interface", "url", "enabled")
    if (region_id := _checked_endpoint(call)) is not UNSET:
        values["region_id"] = region_id
    values["extra"] = {**row.extra, **given_extra(body)}
    call.tx.execute(update(store.endpoints).where(store.endpoints.c.id == row.id).values(**values))
    return {"endpoint": endpoint_view(call, _endpoint_in_path(call))}


@IDENTITY.operation("DELETE", "/endpoints/{endpoint_id}", rules=(Rule(DELETE_ENDPOINT),), success=204)
def delete_endpoint(call: Call[None, None]) -> None:
    """Delete an endpoint."""
    row = _endpoint_in_path(call)
    call.tx.execute(delete(store.endpoints).where(store.endpoints.c.id == row.id))
