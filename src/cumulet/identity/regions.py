"""/regions: the places a catalog's endpoints are in, one within another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from sqlalchemy import delete, func, insert, select, update

from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest, Conflict, Forbidden
from cumulet.identity import store
from cumulet.identity.api import ADMIN, ANYWHERE, IDENTITY, NOT_DOMAIN, collection, known, member, new_id
from cumulet.identity.immutable import given_extra
from cumulet.identity.listing import On, filtered
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

GET = rule("identity:get_region", "", scope=ANYWHERE)
LIST = rule("identity:list_regions", "", scope=ANYWHERE)
CREATE = rule("identity:create_region", ADMIN, scope=NOT_DOMAIN)
UPDATE = rule("identity:update_region", ADMIN, scope=NOT_DOMAIN)
DELETE = rule("identity:delete_region", ADMIN, scope=NOT_DOMAIN)


class NewRegion(Body, extra="allow"):
    id: Annotated[str | None, Json({"maxLength": 255, "format": "one line"})] = None
    description: str | None = None
    parent_region_id: Annotated[str | None, Json({"minLength": 1, "maxLength": 255})] = None


class RegionChanges(Body, extra="allow", min_properties=1):
    description: str | Unset | None = UNSET
    parent_region_id: Annotated[str | None, Json({"minLength": 1, "maxLength": 255})] | Unset = UNSET


def _region_view(call: Call[object, object], row: Row) -> dict[str, object]:
    own = {"id": row.id, "description": row.description, "parent_region_id": row.parent_region_id}
    return {**row.extra, **own, "links": member(call, "regions", row.id)}


def region_by_id(tx: Tx, region_id: str) -> Row | None:
    return tx.first(select(store.regions).where(store.regions.c.id == region_id))


def require_region(tx: Tx, region_id: str | Unset | None) -> None:
    if isinstance(region_id, str) and region_by_id(tx, region_id) is None:
        raise BadRequest(f"Could not find region: {region_id}.")


AskedRegion = Annotated[str, Json({"minLength": 1, "maxLength": 255})]


class ListRegions(Query, closed_since="3.0"):
    parent_region_id: Annotated[AskedRegion | Unset, On(store.regions.c.parent_region_id)] = UNSET


@IDENTITY.operation("GET", "/regions", rules=(Rule(LIST),), query=ListRegions)
def list_regions(call: Call[None, None]) -> dict[str, object]:
    """List regions."""
    r = store.regions.c
    statement = filtered(call, select(store.regions)).order_by(r.id).limit(call.cloud.settings.largest_page)
    return collection(call, "regions", "regions", [_region_view(call, row) for row in call.tx.all(statement)])


@IDENTITY.operation("GET", "/regions/{region_id}", rules=(Rule(GET),))
def show_region(call: Call[None, None]) -> dict[str, object]:
    """Show a region."""
    return {"region": _region_view(call, _region_in_path(call))}


def _region_in_path(call: Call[object, object]) -> Row:
    return known(region_by_id(call.tx, call.path["region_id"]), "region", call.path["region_id"])


@IDENTITY.operation("POST", "/regions", rules=(Rule(CREATE),), body=NewRegion, body_key="region", success=201)
def create_region(call: Call[None, NewRegion]) -> dict[str, object]:
    """Create a region."""
    return _create_region(call, call.body.id or new_id(call.cloud.clock))


@IDENTITY.operation(
    "PUT", "/regions/{region_id}", rules=(Rule(CREATE),), body=NewRegion, body_key="region", success=201
)
def create_region_named(call: Call[None, NewRegion]) -> dict[str, object]:
    """Create a region under an id of one's choice."""
    region_id = call.path["region_id"]
    if call.body.id not in (None, region_id):
        raise BadRequest("Conflicting region IDs specified in the URL and in the body.")
    if len(region_id) > 255 or not is_one_line(region_id):
        raise BadRequest("A region's id is one line of at most 255 characters.")
    return _create_region(call, region_id)


def _create_region(call: Call[None, NewRegion], region_id: str) -> dict[str, object]:
    body = call.body
    if region_by_id(call.tx, region_id) is not None:
        raise Conflict(f"Conflict occurred attempting to store region - Duplicate ID, {region_id}.")
    require_region(call.tx, body.parent_region_id)
    insert_region(call.tx, region_id, body.description or "", body.parent_region_id, given_extra(body))
    return {"region": _region_view(call, known(region_by_id(call.tx, region_id), "region", region_id))}


def insert_region(
    tx: Tx, region_id: str, description: str = "", parent: str | None = None, extra: Mapping[str, object] | None = None
) -> None:
    values = {"id": region_id, "description": description, "parent_region_id": parent, "extra": dict(extra or {})}
    tx.execute(insert(store.regions).values(**values))


@IDENTITY.operation("PATCH", "/regions/{region_id}", rules=(Rule(UPDATE),), body=RegionChanges, body_key="region")
def update_region(call: Call[None, RegionChanges]) -> dict[str, object]:
    """Change a region."""
    row, body = _region_in_path(call), call.body
    require_region(call.tx, body.parent_region_id)
    if isinstance(body.parent_region_id, str) and body.parent_region_id in _with_children(call.tx, row.id):
        raise BadRequest("A region cannot be below itself.")
    values: dict[str, object] = {"extra": {**row.extra, **given_extra(body)}}
    if body.description is not UNSET:
        values["description"] = body.description or ""
    if body.parent_region_id is not UNSET:
        values["parent_region_id"] = body.parent_region_id
    call.tx.execute(update(store.regions).where(store.regions.c.id == row.id).values(**values))
    return {"region": _region_view(call, _region_in_path(call))}


@IDENTITY.operation("DELETE", "/regions/{region_id}", rules=(Rule(DELETE),), success=204)
def delete_region(call: Call[None, None]) -> None:
    """Delete a region and those below it, unless one of them has endpoints."""
    row = _region_in_path(call)
    doomed = _with_children(call.tx, row.id)
    used = select(func.count()).select_from(store.endpoints).where(store.endpoints.c.region_id.in_(doomed))
    if call.tx.scalar(used):
        raise Forbidden(f"Unable to delete region {row.id} because it or its child regions have associated endpoints.")
    for region_id in reversed(doomed):
        call.tx.execute(delete(store.regions).where(store.regions.c.id == region_id))


def _with_children(tx: Tx, region_id: str) -> list[str]:
    """The region and all below it, parents before children."""
    found = [region_id]
    for parent in found:
        found.extend(
            row.id for row in tx.all(select(store.regions.c.id).where(store.regions.c.parent_region_id == parent))
        )
    return found
