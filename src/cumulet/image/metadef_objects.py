"""Objects of namespaces: properties that belong together."""

from __future__ import annotations

from cumulet.image import metadef_service as service
from cumulet.image import metadef_store as store
from cumulet.image import metadef_views as views
from cumulet.image.metadef_bodies import Object, content
from cumulet.image.metadef_service import PATH, facts_of_namespace, namespace_in_sight, require_unprotected
from cumulet.image.metadef_store import Namespace
from cumulet.image.service import IMAGE
from cumulet.web.operation import Call, Rule

ONE = f"{PATH}/objects/{{object_name}}"


@IMAGE.operation(
    "POST",
    f"{PATH}/objects",
    rules=(Rule(service.ADD_OBJECT),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=Object,
    success=201,
)
def create_metadef_object(call: Call[Namespace, Object]) -> dict[str, object]:
    """Create an object in a namespace."""
    (made,) = store.put(call.tx, call.target, "object", [content(call.body)], call.now_us)
    return views.show_object(call.target, made)


@IMAGE.operation(
    "GET", f"{PATH}/objects", rules=(Rule(service.GET_OBJECTS),), target=namespace_in_sight, facts=facts_of_namespace
)
def list_metadef_objects(call: Call[Namespace, None]) -> dict[str, object]:
    """List a namespace's objects: all of them, in one answer."""
    service.require_valid_query(call.query, least_limit=1)
    found = store.all_of(call.tx, call.target, "object")
    return {
        "objects": [views.show_object(call.target, each) for each in found],
        "schema": "v2/schemas/metadefs/objects",
    }


@IMAGE.operation("GET", ONE, rules=(Rule(service.GET_OBJECT),), target=namespace_in_sight, facts=facts_of_namespace)
def show_metadef_object(call: Call[Namespace, None]) -> dict[str, object]:
    """Show an object of a namespace."""
    return views.show_object(call.target, store.get(call.tx, call.target, "object", call.path["object_name"]))


@IMAGE.operation(
    "PUT",
    ONE,
    rules=(Rule(service.MODIFY_OBJECT),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=Object,
)
def update_metadef_object(call: Call[Namespace, Object]) -> dict[str, object]:
    """Give an object another name, description or properties."""
    name = call.path["object_name"]
    return views.show_object(
        call.target, store.replace(call.tx, call.target, "object", name, content(call.body), call.now_us)
    )


@IMAGE.operation(
    "DELETE",
    ONE,
    rules=(Rule(service.DELETE_OBJECT),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_metadef_object(call: Call[Namespace, None]) -> None:
    """Delete an object of a namespace."""
    name = store.get(call.tx, call.target, "object", call.path["object_name"]).name
    require_unprotected(call.target, f"object {name}")
    store.drop(call.tx, call.target, "object", name)


@IMAGE.operation(
    "DELETE",
    f"{PATH}/objects",
    rules=(Rule(service.DELETE_NAMESPACE),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_metadef_objects(call: Call[Namespace, None]) -> None:
    """Delete all objects of a namespace."""
    require_unprotected(call.target, f"namespace {call.target.namespace}")
    store.drop(call.tx, call.target, "object")
