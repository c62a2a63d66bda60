"""Namespaces of metadata definitions: create, list, show, change, delete."""

from __future__ import annotations

from urllib.parse import quote

import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.db.one_of import one_of
from cumulet.errors import BadRequest, NotFound
from cumulet.image import metadef_service as service
from cumulet.image import metadef_store as store
from cumulet.image import metadef_views as views
from cumulet.image import paging
from cumulet.image.metadef_bodies import NamespaceBody, NewNamespace, as_json, content, properties, refuse_ours
from cumulet.image.metadef_service import PATH, facts_of, facts_of_namespace, namespace_in_sight, require_unprotected
from cumulet.image.metadef_store import Namespace, namespaces
from cumulet.image.service import IMAGE
from cumulet.web.operation import Call, Query, Reply, Rule
from cumulet.web.schema import UNSET
from cumulet.web.value_lists import values_in

SORT_KEYS = ("created_at", "updated_at", "id", "namespace", "display_name", "visibility", "protected", "owner")
_RULES = {
    "resource_type": service.ADD_ASSOCIATION,
    "object": service.ADD_OBJECT,
    "tag": service.ADD_TAG,
    "property": service.ADD_PROPERTY,
}
_HELD = ("resource_type_associations", "properties", "objects", "tags")


def _proposed(call: Call[object, NamespaceBody]) -> None:
    refuse_ours(call.body)


@IMAGE.operation(
    "POST",
    "/metadefs/namespaces",
    rules=(Rule(service.ADD_NAMESPACE),),
    target=_proposed,
    facts=lambda call: {"project_id": call.caller.project_id},
    body=NewNamespace,
    success=201,
)
def create_namespace(call: Call[None, NewNamespace]) -> Reply:
    """Create a namespace, with the objects, properties, tags and associations that are given."""
    body = call.body
    held = {
        "resource_type": [content(each) for each in body.resource_type_associations],
        "object": [content(each) for each in body.objects],
        "tag": [content(each) for each in body.tags],
        "property": properties(body.properties),
    }
    for kind, rule in _RULES.items():
        if held[kind]:
            call.require(rule, {"project_id": call.caller.project_id})
    namespace = Namespace(
        id=call.cloud.clock.uuid(),
        namespace=body.namespace,
        display_name=None if body.display_name is UNSET else body.display_name,
        description=None if body.description is UNSET else body.description,
        visibility=body.visibility,
        protected=body.protected,
        owner=call.caller.project_id if body.owner is UNSET else body.owner,
        created_at_us=call.now_us,
        updated_at_us=call.now_us,
    )
    store.add(call.tx, namespace)
    for kind, given in held.items():
        store.put(call.tx, namespace, kind, given, call.now_us)  # type: ignore[arg-type]
    said = as_json(body)
    shown = views.show_namespace(namespace) | {name: said[name] for name in _HELD if said.get(name)}
    return Reply(body=shown, headers={"Location": f"{call.service_url}/metadefs/namespaces/{quote(body.namespace)}"})


@IMAGE.operation("GET", "/metadefs/namespaces", rules=(Rule(service.GET_NAMESPACES), Rule(service.LIST_RESOURCE_TYPES)))
def list_namespaces(call: Call[None, None]) -> dict[str, object]:
    """List the namespaces the caller may see, newest first."""
    page = paging.read(call.query, SORT_KEYS, call.cloud.settings.largest_page)
    conditions = [store.visible_to(call.caller), *_filters(call.query)]
    columns = _columns(page.key)
    if page.marker is not None:
        last = call.tx.first(
            sa.select(*columns).where(namespaces.c.namespace == page.marker, store.visible_to(call.caller))
        )
        if last is None:
            raise NotFound(f"Metadata definition namespace={page.marker} was not found.")
        conditions.append(page.beyond(columns, last))
    rows = call.tx.all(sa.select(namespaces).where(*conditions).order_by(*page.order(columns)).limit(page.limit))
    found = [Namespace(**row._mapping) for row in rows]
    shown = [each for each in found if call.authorise(service.GET_NAMESPACE, facts_of(each))]
    associations = store.associations_of(call.tx, shown)
    views_of: list[dict[str, object]] = []
    for each in shown:
        view = views.show_namespace(each)
        if held := associations[each.id]:
            view["resource_type_associations"] = [views.show_association(one) for one in held]
        views_of.append(view)
    following = shown[-1].namespace if shown and len(found) == page.limit else None
    return page.reply(views.ROOT, "namespaces", views_of, following=following)


def _filters(query: Query) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if visibility := query.get("visibility"):
        if visibility not in ("public", "private"):
            raise BadRequest(f"Invalid visibility value: {visibility}")
        conditions.append(namespaces.c.visibility == visibility)
    if (types := query.get("resource_types")) is not None:
        held = store.contents
        of_type = sa.select(held.c.namespace_id).where(
            held.c.kind == "resource_type", one_of(held.c.name, values_in(types, "resource_types"))
        )
        conditions.append(namespaces.c.id.in_(of_type))
    return conditions


def _columns(key: str) -> list[sa.ColumnElement[object]]:
    """The columns to sort by; the last is unique. Null counts as empty text, false as 0."""
    columns: list[sa.ColumnElement[object]] = []
    for name in dict.fromkeys((key, "created_at", "id")):
        column: sa.ColumnElement[object] = namespaces.c[f"{name}_us" if name.endswith("_at") else name]
        if name in ("display_name", "owner"):
            column = sa.func.coalesce(column, "")
        elif name == "protected":
            column = sa.cast(column, sa.Integer)
        columns.append(column)
    return columns


@IMAGE.operation(
    "GET",
    PATH,
    rules=(
        Rule(service.GET_NAMESPACE),
        Rule(service.LIST_RESOURCE_TYPES),
        Rule(service.GET_OBJECTS),
        Rule(service.GET_PROPERTIES),
        Rule(service.GET_TAGS),
    ),
    target=namespace_in_sight,
    facts=facts_of_namespace,
)
def show_namespace(call: Call[Namespace, None]) -> dict[str, object]:
    """Show a namespace with all it holds; with `resource_type`, names of properties have its prefix."""
    tx, namespace = call.tx, call.target
    associations = store.all_of(tx, namespace, "resource_type")
    wanted = call.query.get("resource_type")
    prefix = next((str(each.value.get("prefix", "")) for each in associations if each.name == wanted), "")
    held: dict[str, object] = {
        "resource_type_associations": [views.show_association(each) for each in associations],
        "properties": views.show_properties(store.all_of(tx, namespace, "property"), prefix),
        "objects": [views.show_object(namespace, each, prefix) for each in store.all_of(tx, namespace, "object")],
        "tags": views.show_tags(store.all_of(tx, namespace, "tag")[::-1]),
    }
    return views.show_namespace(namespace) | {name: value for name, value in held.items() if value}


@IMAGE.operation(
    "PUT",
    PATH,
    rules=(Rule(service.MODIFY_NAMESPACE),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=NamespaceBody,
)
def update_namespace(call: Call[Namespace, NamespaceBody]) -> dict[str, object]:
    """Change a namespace, not what it holds. Attributes that are not given get the defaults of a new one."""
    before, body = call.target, call.body
    after = replace(
        before,
        namespace=body.namespace,
        display_name=None if body.display_name is UNSET else body.display_name,
        description=None if body.description is UNSET else body.description,
        visibility=body.visibility,
        protected=body.protected,
        owner=call.caller.project_id if body.owner is UNSET else body.owner,
        updated_at_us=call.now_us,
    )
    store.save(call.tx, before, after)
    return views.show_namespace(after)


@IMAGE.operation(
    "DELETE",
    PATH,
    rules=(Rule(service.DELETE_NAMESPACE),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_namespace(call: Call[Namespace, None]) -> None:
    """Delete a namespace and all it holds."""
    require_unprotected(call.target, f"namespace {call.target.namespace}")
    store.remove(call.tx, call.target)
