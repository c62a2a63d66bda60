"""Resource classes over HTTP: the standard ones, and custom ones that come and go."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa

from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.placement import names
from cumulet.placement.rules import admin_or_service
from cumulet.placement.service import PLACEMENT
from cumulet.placement.store import allocations, inventories, resource_classes
from cumulet.placement.wire import fresh
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.schema import Anything, Body, Json

LIST = admin_or_service("resource_classes:list", "List resource classes.")
CREATE = admin_or_service("resource_classes:create", "Create a custom resource class.")
SHOW = admin_or_service("resource_classes:show", "Show a resource class.")
UPDATE = admin_or_service("resource_classes:update", "Create or rename a custom resource class.")
DELETE = admin_or_service("resource_classes:delete", "Delete a custom resource class.")


class ClassName(Body):
    """The name of a custom resource class."""

    name: Annotated[str, Json({"pattern": names.CUSTOM_PATTERN, "maxLength": 255})]


def view(name: str) -> dict[str, object]:
    return {"name": name, "links": [{"rel": "self", "href": f"{PLACEMENT.prefix}/resource_classes/{name}"}]}


def _class_in_path(call: Call[object, object]) -> str:
    name = call.path["name"]
    if not names.class_exists(call.tx, name):
        raise NotFound(f"No such resource class {name}.")
    return name


def _require_custom(name: str) -> None:
    """Check a name in a path as the schema checks bodies, but without a line break at the end."""
    if not names.is_custom(name):
        raise BadRequest(f"'{name[:64]}' does not match '{names.CUSTOM_PATTERN}'")


@PLACEMENT.operation("GET", "/resource_classes", rules=(Rule(LIST),), since="1.2")
def list_resource_classes(call: Call[None, None]) -> Reply:
    """List resource classes."""
    return fresh(call, {"resource_classes": [view(name) for name in names.known_classes(call.tx)]})


@PLACEMENT.operation("POST", "/resource_classes", rules=(Rule(CREATE),), since="1.2", body=ClassName, success=201)
def create_resource_class(call: Call[None, ClassName]) -> Reply:
    """Create a custom resource class."""
    name = call.body.name
    _require_custom(name)
    if names.class_exists(call.tx, name):
        raise Conflict(f"Conflicting resource class already exists: {name}")
    call.tx.execute(sa.insert(resource_classes).values(name=name))
    return Reply(headers={"Location": f"{call.service_url}/resource_classes/{name}"})


@PLACEMENT.operation("GET", "/resource_classes/{name}", rules=(Rule(SHOW),), since="1.2")
def show_resource_class(call: Call[None, None]) -> Reply:
    """Show a resource class."""
    return fresh(call, view(_class_in_path(call)))


@PLACEMENT.operation("PUT", "/resource_classes/{name}", rules=(Rule(UPDATE),), since="1.2", until="1.6", body=ClassName)
def rename_resource_class(call: Call[None, ClassName]) -> Reply:
    """Rename a custom resource class."""
    old, new = _class_in_path(call), call.body.name
    _require_custom(new)
    if old in names.STANDARD_CLASSES:
        raise BadRequest(f"Cannot update standard resource class {old}")
    if new != old and names.class_exists(call.tx, new):
        raise Conflict(f"Resource class already exists: {new}")
    call.tx.execute(sa.update(resource_classes).where(resource_classes.c.name == old).values(name=new))
    for table in (inventories, allocations):
        call.tx.execute(sa.update(table).where(table.c.resource_class == old).values(resource_class=new))
    return fresh(call, view(new))


@PLACEMENT.operation("PUT", "/resource_classes/{name}", rules=(Rule(UPDATE),), since="1.7", body=Anything, success=204)
def ensure_resource_class(call: Call[None, Anything]) -> Reply:
    """Create a custom resource class; there already is success."""
    name = call.path["name"]
    _require_custom(name)
    status = 204
    if not names.class_exists(call.tx, name):
        call.tx.execute(sa.insert(resource_classes).values(name=name))
        status = 201
    return Reply(status=status, headers={"Location": f"{call.service_url}/resource_classes/{name}"})


@PLACEMENT.operation("DELETE", "/resource_classes/{name}", rules=(Rule(DELETE),), since="1.2", success=204)
def delete_resource_class(call: Call[None, None]) -> None:
    """Delete a custom resource class that no provider has."""
    name = _class_in_path(call)
    if name in names.STANDARD_CLASSES:
        raise BadRequest(f"Error in delete resource class: Cannot delete standard resource class {name}.")
    for table in (inventories, allocations):
        if call.tx.first(sa.select(table.c.provider_id).where(table.c.resource_class == name)) is not None:
            raise Conflict(f"Error in delete resource class: {name} is in use.")
    call.tx.execute(sa.delete(resource_classes).where(resource_classes.c.name == name))
