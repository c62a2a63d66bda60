"""Associations of namespaces with types of resources; and the types that there are."""

from __future__ import annotations

from cumulet.errors import NotFound
from cumulet.image import metadef_service as service
from cumulet.image import metadef_store as store
from cumulet.image import metadef_views as views
from cumulet.image.metadef_bodies import Association, content
from cumulet.image.metadef_service import PATH, facts_of, facts_of_namespace, namespace_in_sight, require_unprotected
from cumulet.image.metadef_store import Namespace
from cumulet.image.service import IMAGE
from cumulet.web.operation import Call, Rule


@IMAGE.operation("GET", "/metadefs/resource_types", rules=(Rule(service.LIST_RESOURCE_TYPES),))
def list_resource_types(call: Call[None, None]) -> dict[str, object]:
    """List the types of resources that namespaces are or were associated with."""
    return {"resource_types": [views.show_association(each) for each in store.resource_types(call.tx)]}


@IMAGE.operation(
    "GET",
    f"{PATH}/resource_types",
    rules=(Rule(service.LIST_RESOURCE_TYPES),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
)
def list_associations(call: Call[Namespace, None]) -> dict[str, object]:
    """List the types of resources that a namespace is associated with."""
    found = store.all_of(call.tx, call.target, "resource_type")
    may = call.authorise(service.GET_RESOURCE_TYPE, facts_of(call.target))
    return {"resource_type_associations": [views.show_association(each) for each in found] if may else []}


@IMAGE.operation(
    "POST",
    f"{PATH}/resource_types",
    rules=(Rule(service.ADD_ASSOCIATION),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=Association,
    success=201,
)
def create_association(call: Call[Namespace, Association]) -> dict[str, object]:
    """Associate a namespace with a type of resource."""
    (made,) = store.put(call.tx, call.target, "resource_type", [content(call.body)], call.now_us)
    return views.show_association(made)


@IMAGE.operation(
    "DELETE",
    f"{PATH}/resource_types/{{resource_type}}",
    rules=(Rule(service.REMOVE_ASSOCIATION),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_association(call: Call[Namespace, None]) -> None:
    """End a namespace's association with a type of resource."""
    name = call.path["resource_type"]
    if name not in [each.name for each in store.all_of(call.tx, call.target, "resource_type")]:
        raise NotFound(f"Failed to find resource type {name} to delete")
    require_unprotected(call.target, f"resource-type-association {name}")
    store.drop(call.tx, call.target, "resource_type", name)
