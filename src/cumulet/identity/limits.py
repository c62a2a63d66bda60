"""/registered_limits and /limits: how much of something of a service a project or a domain may have.

Kept for services that ask for them (oslo.limit); Cumulet's own have quotas. The model is `flat`: projects count apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec.structs import asdict
from sqlalchemy import (
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from cumulet.db.engine import Tx, metadata
from cumulet.errors import BadRequest, Conflict, Forbidden
from cumulet.identity import store
from cumulet.identity.api import ADMIN, ANYWHERE, IDENTITY, NOT_DOMAIN, SYSTEM_READER, collection, known, member, new_id
from cumulet.identity.listing import On, filtered
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

registered_limits = Table(
    "identity_registered_limits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("service_id", Text, ForeignKey(store.services.c.id, ondelete="CASCADE"), nullable=False),
    Column("region_id", Text, ForeignKey(store.regions.c.id, ondelete="CASCADE"), index=True),
    Column("resource_name", Text, nullable=False),
    Column("default_limit", Integer, nullable=False),
    Column("description", Text),
)
Index(
    "uq_identity_registered_limits",
    registered_limits.c.service_id,
    text("coalesce(region_id, '')"),
    registered_limits.c.resource_name,
    unique=True,
)

limits = Table(
    "identity_limits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("registered_limit_id", Text, ForeignKey(registered_limits.c.id, ondelete="CASCADE"), nullable=False),
    Column("project_id", Text, ForeignKey(store.projects.c.id, ondelete="CASCADE"), index=True),
    Column("domain_id", Text, ForeignKey(store.domains.c.id, ondelete="CASCADE"), index=True),
    Column("resource_limit", Integer, nullable=False),
    Column("description", Text),
)
Index(
    "uq_identity_limits",
    limits.c.registered_limit_id,
    text("coalesce(project_id, '')"),
    text("coalesce(domain_id, '')"),
    unique=True,
)

LIST_REGISTERED = rule("identity:list_registered_limits", "", scope=ANYWHERE)
GET_REGISTERED = rule("identity:get_registered_limit", "", scope=ANYWHERE)
CREATE_REGISTERED = rule("identity:create_registered_limits", ADMIN, scope=NOT_DOMAIN)
UPDATE_REGISTERED = rule("identity:update_registered_limit", ADMIN, scope=NOT_DOMAIN)
DELETE_REGISTERED = rule("identity:delete_registered_limit", ADMIN, scope=NOT_DOMAIN)
LIST = rule("identity:list_limits", "", scope=ANYWHERE)
GET = rule(
    "identity:get_limit",
    f"{ADMIN} or {SYSTEM_READER} or "
    "(domain_id:%(target.limit.domain.id)s or domain_id:%(target.limit.project.domain_id)s) or "
    "(project_id:%(target.limit.project_id)s and not None:%(target.limit.project_id)s)",
    scope=ANYWHERE,
)
CREATE = rule("identity:create_limits", ADMIN, scope=NOT_DOMAIN)
UPDATE = rule("identity:update_limit", ADMIN, scope=NOT_DOMAIN)
DELETE = rule("identity:delete_limit", ADMIN, scope=NOT_DOMAIN)

Number = Annotated[int, Json({"minimum": -1, "maximum": 2**31 - 1})]
Name = Annotated[str, Json({"minLength": 1, "maxLength": 255})]
Id = Annotated[str, Json({"minLength": 1, "maxLength": 64})]
RegionId = Annotated[str | None, Json({"maxLength": 255})]
Description = Annotated[str | None, Json({"maxLength": 1024})]


class NewRegisteredLimit(Body):
    service_id: Id
    region_id: RegionId = None
    resource_name: Name
    default_limit: Number
    description: Description = None


class NewRegisteredLimits(Body):
    registered_limits: Annotated[list[NewRegisteredLimit], Json({"minItems": 1, "maxItems": 100})]


class RegisteredLimitChanges(Body):
    service_id: Id | Unset = UNSET
    region_id: RegionId | Unset = UNSET
    resource_name: Name | Unset = UNSET
    default_limit: Number | Unset = UNSET
    description: Description | Unset = UNSET


class NewLimit(Body):
    project_id: Id | Unset = UNSET
    domain_id: Id | Unset = UNSET
    service_id: Id
    region_id: RegionId = None
    resource_name: Name
    resource_limit: Number
    description: Description = None


class NewLimits(Body):
    limits: Annotated[list[NewLimit], Json({"minItems": 1, "maxItems": 100})]


class LimitChanges(Body):
    resource_limit: Number | Unset = UNSET
    description: Description | Unset = UNSET


class RegisteredLimit(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    service_id: str
    region_id: str | None
    resource_name: str
    default_limit: int
    description: str | None


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    registered_limit_id: str
    project_id: str | None
    domain_id: str | None
    resource_limit: int
    description: str | None


# -- registered limits


def _registered_view(call: Call[object, object], found: RegisteredLimit) -> dict[str, object]:
    return {**asdict(found), "links": member(call, "registered_limits", found.id)}


def _registered(tx: Tx, identifier: str) -> RegisteredLimit:
    statement = select(registered_limits).where(registered_limits.c.id == identifier)
    return known(store.one(tx, RegisteredLimit, statement), "registered limit", identifier)


def _same(service_id: str, region_id: str | None, resource_name: str) -> ColumnElement[bool]:
    r = registered_limits.c
    region = r.region_id.is_(None) if region_id is None else r.region_id == region_id
    return and_(r.service_id == service_id, region, r.resource_name == resource_name)


def _require_place(tx: Tx, service_id: str, region_id: str | None) -> None:
    if tx.first(select(store.services.c.id).where(store.services.c.id == service_id)) is None:
        raise BadRequest(f"Could not find service: {service_id}.")
    if region_id is not None and tx.first(select(store.regions.c.id).where(store.regions.c.id == region_id)) is None:
        raise BadRequest(f"Could not find region: {region_id}.")


class ListRegistered(Query):
    service_id: Annotated[str | Unset, On(registered_limits.c.service_id)] = UNSET
    region_id: Annotated[str | Unset, On(registered_limits.c.region_id)] = UNSET
    resource_name: Annotated[str | Unset, On(registered_limits.c.resource_name)] = UNSET


@IDENTITY.operation("GET", "/registered_limits", rules=(Rule(LIST_REGISTERED),), query=ListRegistered)
def list_registered_limits(call: Call[None, None]) -> dict[str, object]:
    """List what limits there are, with their defaults."""
    statement = filtered(call, select(registered_limits)).order_by(registered_limits.c.id)
    found = store.many(call.tx, RegisteredLimit, statement.limit(call.cloud.settings.largest_page))
    views = [_registered_view(call, one) for one in found]
    return collection(call, "registered_limits", "registered_limits", views)


@IDENTITY.operation("GET", "/registered_limits/{registered_limit_id}", rules=(Rule(GET_REGISTERED),))
def show_registered_limit(call: Call[None, None]) -> dict[str, object]:
    """Show a registered limit."""
    return {"registered_limit": _registered_view(call, _registered(call.tx, call.path["registered_limit_id"]))}


@IDENTITY.operation(
    "POST", "/registered_limits", rules=(Rule(CREATE_REGISTERED),), body=NewRegisteredLimits, success=201
)
def create_registered_limits(call: Call[None, NewRegisteredLimits]) -> dict[str, object]:
    """Register limits of services, with their defaults."""
    tx, views = call.tx, []
    for asked in call.body.registered_limits:
        _require_place(tx, asked.service_id, asked.region_id)
        if tx.first(select(registered_limits).where(_same(asked.service_id, asked.region_id, asked.resource_name))):
            raise Conflict("Conflict occurred attempting to store registered_limit - Duplicate entry found.")
        made = RegisteredLimit(
            id=new_id(call.cloud.clock),
            service_id=asked.service_id,
            region_id=asked.region_id,
            resource_name=asked.resource_name,
            default_limit=asked.default_limit,
            description=asked.description,
        )
        tx.execute(insert(registered_limits).values(**asdict(made)))
        views.append(_registered_view(call, made))
    return {"registered_limits": views}


def _refuse_in_use(tx: Tx, identifier: str, what: str) -> None:
    count = select(func.count()).select_from(limits).where(limits.c.registered_limit_id == identifier)
    if tx.scalar(count):
        raise Forbidden(
            f"Unable to {what} registered limit {identifier} because there are project limits associated with it."
        )


@IDENTITY.operation(
    "PATCH",
    "/registered_limits/{registered_limit_id}",
    rules=(Rule(UPDATE_REGISTERED),),
    body=RegisteredLimitChanges,
    body_key="registered_limit",
)
def update_registered_limit(call: Call[None, RegisteredLimitChanges]) -> dict[str, object]:
    """Change a registered limit that no project has a limit of."""
    tx, old = call.tx, _registered(call.tx, call.path["registered_limit_id"])
    values = {name: value for name, value in asdict(call.body).items() if value is not UNSET and name != "extra"}
    new = msgspec.structs.replace(old, **values)
    _require_place(tx, new.service_id, new.region_id)
    _refuse_in_use(tx, old.id, "update")
    same = _same(new.service_id, new.region_id, new.resource_name)
    if tx.first(select(registered_limits).where(same, registered_limits.c.id != old.id)) is not None:
        raise Conflict("Conflict occurred attempting to store registered_limit - Duplicate entry found.")
    if values:
        tx.execute(update(registered_limits).where(registered_limits.c.id == old.id).values(**values))
    return {"registered_limit": _registered_view(call, new)}


@IDENTITY.operation("DELETE", "/registered_limits/{registered_limit_id}", rules=(Rule(DELETE_REGISTERED),), success=204)
def delete_registered_limit(call: Call[None, None]) -> None:
    """Delete a registered limit that no project has a limit of."""
    found = _registered(call.tx, call.path["registered_limit_id"])
    _refuse_in_use(call.tx, found.id, "delete")
    call.tx.execute(delete(registered_limits).where(registered_limits.c.id == found.id))


# -- limits


def _views(call: Call[object, object], found: Iterable[Limit]) -> list[dict[str, object]]:
    shown = list(found)
    ids = {limit.registered_limit_id for limit in shown}
    statement = select(registered_limits).where(registered_limits.c.id.in_(ids))
    registered = {one.id: one for one in store.many(call.tx, RegisteredLimit, statement)}
    return [
        {
            "id": limit.id,
            "project_id": limit.project_id,
            "domain_id": limit.domain_id,
            "service_id": registered[limit.registered_limit_id].service_id,
            "region_id": registered[limit.registered_limit_id].region_id,
            "resource_name": registered[limit.registered_limit_id].resource_name,
            "resource_limit": limit.resource_limit,
            "description": limit.description,
            "links": member(call, "limits", limit.id),
        }
        for limit in shown
    ]


def found_limit(call: Call[object, object]) -> Limit:
    """For changes: as upstream, 404 comes before the rules."""
    return known(limit_in_path(call), "limit", call.path["limit_id"])


def limit_in_path(call: Call[object, object]) -> Limit | None:
    return store.one(call.tx, Limit, select(limits).where(limits.c.id == call.path["limit_id"]))


def limit_facts(call: Call[Limit | None, object]) -> Mapping[str, object]:
    limit = call.target
    if limit is None:
        return {}
    facts: dict[str, object] = {"target.limit.project_id": limit.project_id}
    if limit.domain_id is not None:
        facts["target.limit.domain.id"] = limit.domain_id
    project = store.project_by_id(call.tx, limit.project_id) if limit.project_id is not None else None
    if project is not None:
        facts["target.limit.project.domain_id"] = project.domain_id
    return facts


class ListLimits(Query):
    service_id: Annotated[str | Unset, On(registered_limits.c.service_id)] = UNSET
    region_id: Annotated[str | Unset, On(registered_limits.c.region_id)] = UNSET
    resource_name: Annotated[str | Unset, On(registered_limits.c.resource_name)] = UNSET
    project_id: Annotated[str | Unset, On(limits.c.project_id)] = UNSET
    domain_id: Annotated[str | Unset, On(limits.c.domain_id)] = UNSET


@IDENTITY.operation("GET", "/limits", rules=(Rule(LIST),), query=ListLimits)
def list_limits(call: Call[None, None]) -> dict[str, object]:
    """List limits: of one's own project or domain or, for administrators and services, all."""
    c, caller = limits.c, call.caller
    joined = select(limits).join(registered_limits, c.registered_limit_id == registered_limits.c.id)
    statement = filtered(call, joined).order_by(c.id).limit(call.cloud.settings.largest_page)
    if not (caller.system or caller.roles & {"admin", "service"}):
        inside = select(store.projects.c.id).where(store.projects.c.domain_id == caller.domain_id)
        own = or_(c.domain_id == caller.domain_id, c.project_id.in_(inside))
        statement = statement.where(own if caller.domain_id else c.project_id == (caller.project_id or ""))
    return collection(call, "limits", "limits", _views(call, store.many(call.tx, Limit, statement)))


@IDENTITY.operation("GET", "/limits/{limit_id}", rules=(Rule(GET),), target=limit_in_path, facts=limit_facts)
def show_limit(call: Call[Limit | None, None]) -> dict[str, object]:
    """Show a limit."""
    return {"limit": _views(call, [known(call.target, "limit", call.path["limit_id"])])[0]}


@IDENTITY.operation("POST", "/limits", rules=(Rule(CREATE),), body=NewLimits, success=201)
def create_limits(call: Call[None, NewLimits]) -> dict[str, object]:
    """Set limits of projects or domains, in place of the registered defaults."""
    made = [_new_limit(call, asked) for asked in call.body.limits]
    return {"limits": _views(call, made)}


def _new_limit(call: Call[None, NewLimits], asked: NewLimit) -> Limit:
    tx = call.tx
    project_id = asked.project_id if isinstance(asked.project_id, str) else None
    domain_id = asked.domain_id if isinstance(asked.domain_id, str) else None
    if (project_id is None) == (domain_id is None):
        raise BadRequest("Invalid input for field limits: either project_id or domain_id is needed.")
    if project_id is not None and store.project_by_id(tx, project_id) is None:
        raise BadRequest(f"Could not find project: {project_id}.")
    if domain_id is not None and store.domain_by_id(tx, domain_id) is None:
        raise BadRequest(f"Could not find domain: {domain_id}.")
    _require_place(tx, asked.service_id, asked.region_id)
    same = _same(asked.service_id, asked.region_id, asked.resource_name)
    registered = tx.first(select(registered_limits.c.id).where(same))
    if registered is None:
        raise Forbidden(f"Unable to create a limit that has no corresponding registered limit: {asked.resource_name}.")
    c = limits.c
    mine = c.project_id == project_id if project_id is not None else c.domain_id == domain_id
    if tx.first(select(limits).where(c.registered_limit_id == registered.id, mine)) is not None:
        raise Conflict("Conflict occurred attempting to store limit - Duplicate entry found.")
    limit = Limit(
        id=new_id(call.cloud.clock),
        registered_limit_id=registered.id,
        project_id=project_id,
        domain_id=domain_id,
        resource_limit=asked.resource_limit,
        description=asked.description,
    )
    tx.execute(insert(limits).values(**asdict(limit)))
    return limit


@IDENTITY.operation(
    "PATCH", "/limits/{limit_id}", rules=(Rule(UPDATE),), target=found_limit, body=LimitChanges, body_key="limit"
)
def update_limit(call: Call[Limit, LimitChanges]) -> dict[str, object]:
    """Change a limit."""
    limit = call.target
    values = {name: v for name in ("resource_limit", "description") if (v := getattr(call.body, name)) is not UNSET}
    if values:
        call.tx.execute(update(limits).where(limits.c.id == limit.id).values(**values))
    return {"limit": _views(call, [msgspec.structs.replace(limit, **values)])[0]}


@IDENTITY.operation("DELETE", "/limits/{limit_id}", rules=(Rule(DELETE),), target=found_limit, success=204)
def delete_limit(call: Call[Limit, None]) -> None:
    """Delete a limit: the registered limit's default applies again."""
    limit = call.target
    call.tx.execute(delete(limits).where(limits.c.id == limit.id))
