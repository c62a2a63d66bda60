"""Properties of namespaces: names by which things are described, with the values that they may have."""

from __future__ import annotations

from cumulet.errors import NotFound
from cumulet.image import metadef_service as service
from cumulet.image import metadef_store as store
from cumulet.image import metadef_views as views
from cumulet.image.metadef_bodies import NamedProperty, content
from cumulet.image.metadef_service import PATH, facts_of, facts_of_namespace, namespace_in_sight, require_unprotected
from cumulet.image.metadef_store import Namespace
from cumulet.image.service import IMAGE
from cumulet.web.operation import Call, Rule

ONE = f"{PATH}/properties/{{property_name}}"


@IMAGE.operation(
    "POST",
    f"{PATH}/properties",
    rules=(Rule(service.ADD_PROPERTY),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=NamedProperty,
    success=201,
)
def create_metadef_property(call: Call[Namespace, NamedProperty]) -> dict[str, object]:
    """Create a property in a namespace."""
    (made,) = store.put(call.tx, call.target, "property", [content(call.body)], call.now_us)
    return views.show_property(made)


@IMAGE.operation(
    "GET",
    f"{PATH}/properties",
    rules=(Rule(service.GET_PROPERTIES),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
)
def list_metadef_properties(call: Call[Namespace, None]) -> dict[str, object]:
    """List a namespace's properties, by their names."""
    return {"properties": views.show_properties(store.all_of(call.tx, call.target, "property"))}


@IMAGE.operation("GET", ONE, rules=(Rule(service.GET_PROPERTY),), target=namespace_in_sight, facts=facts_of_namespace)
def show_metadef_property(call: Call[Namespace, None]) -> dict[str, object]:
    """Show a property of a namespace; with `resource_type`, its name has the prefix of that association."""
    name = call.path["property_name"]
    if resource_type := call.query.get("resource_type"):
        call.require(service.GET_RESOURCE_TYPE, facts_of(call.target))
        prefix = store.get(call.tx, call.target, "resource_type", resource_type).value.get("prefix")
        if not isinstance(prefix, str) or not prefix or not name.startswith(prefix):
            raise NotFound(
                f"Property {name} does not start with the expected resource type association prefix of '{prefix}'."
            )
        name = name.removeprefix(prefix)
    return views.show_property(store.get(call.tx, call.target, "property", name))


@IMAGE.operation(
    "PUT",
    ONE,
    rules=(Rule(service.MODIFY_PROPERTY),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=NamedProperty,
)
def update_metadef_property(call: Call[Namespace, NamedProperty]) -> dict[str, object]:
    """Replace what a property is, and perhaps its name."""
    name = call.path["property_name"]
    return views.show_property(store.replace(call.tx, call.target, "property", name, content(call.body), call.now_us))


@IMAGE.operation(
    "DELETE",
    ONE,
    rules=(Rule(service.REMOVE_PROPERTY),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_metadef_property(call: Call[Namespace, None]) -> None:
    """Delete a property of a namespace."""
    name = store.get(call.tx, call.target, "property", call.path["property_name"]).name
    require_unprotected(call.target, f"property {name}")
    store.drop(call.tx, call.target, "property", name)


@IMAGE.operation(
    "DELETE",
    f"{PATH}/properties",
    rules=(Rule(service.DELETE_NAMESPACE),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_metadef_properties(call: Call[Namespace, None]) -> None:
    """Delete all properties of a namespace."""
    require_unprotected(call.target, f"namespace {call.target.namespace}")
    store.drop(call.tx, call.target, "property")
