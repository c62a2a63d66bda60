"""The rules of metadata definitions, and the namespace a request is about."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.errors import BadRequest, Forbidden, NotFound
from cumulet.image import metadef_store as store
from cumulet.image import paging
from cumulet.image.metadef_bodies import refuse_ours
from cumulet.image.metadef_store import Namespace
from cumulet.image.service import ADMIN, READER_OF_PROJECT
from cumulet.web.operation import Call, Query
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import Body

base_rule("metadef_default", "")
base_rule("metadef_admin", ADMIN)

PATH = "/metadefs/namespaces/{namespace}"
METADEF_ADMIN = "rule:metadef_admin"
SEES = f"{ADMIN} or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"

GET_NAMESPACE = rule("get_metadef_namespace", SEES, description="Show a namespace of metadata definitions.")
GET_NAMESPACES = rule("get_metadef_namespaces", f"{ADMIN} or {READER_OF_PROJECT}", description="List namespaces.")
ADD_NAMESPACE = rule("add_metadef_namespace", METADEF_ADMIN, description="Create a namespace.")
MODIFY_NAMESPACE = rule("modify_metadef_namespace", METADEF_ADMIN, description="Change a namespace.")
DELETE_NAMESPACE = rule("delete_metadef_namespace", METADEF_ADMIN, description="Delete a namespace or what it holds.")
GET_OBJECT = rule("get_metadef_object", SEES, description="Show an object of a namespace.")
GET_OBJECTS = rule("get_metadef_objects", SEES, description="List a namespace's objects.")
ADD_OBJECT = rule("add_metadef_object", METADEF_ADMIN, description="Create an object in a namespace.")
MODIFY_OBJECT = rule("modify_metadef_object", METADEF_ADMIN, description="Change an object of a namespace.")
DELETE_OBJECT = rule("delete_metadef_object", METADEF_ADMIN, description="Delete an object of a namespace.")
LIST_RESOURCE_TYPES = rule("list_metadef_resource_types", SEES, description="List types of resources.")
GET_RESOURCE_TYPE = rule("get_metadef_resource_type", SEES, description="List a namespace's associations.")
ADD_ASSOCIATION = rule(
    "add_metadef_resource_type_association", METADEF_ADMIN, description="Associate a namespace with a type of resource."
)
REMOVE_ASSOCIATION = rule(
    "remove_metadef_resource_type_association", METADEF_ADMIN, description="End a namespace's association."
)
GET_PROPERTY = rule("get_metadef_property", SEES, description="Show a property of a namespace.")
GET_PROPERTIES = rule("get_metadef_properties", SEES, description="List a namespace's properties.")
ADD_PROPERTY = rule("add_metadef_property", METADEF_ADMIN, description="Create a property in a namespace.")
MODIFY_PROPERTY = rule("modify_metadef_property", METADEF_ADMIN, description="Change a property of a namespace.")
REMOVE_PROPERTY = rule("remove_metadef_property", METADEF_ADMIN, description="Delete a property of a namespace.")
GET_TAG = rule("get_metadef_tag", SEES, description="Show a tag of a namespace.")
GET_TAGS = rule("get_metadef_tags", SEES, description="List a namespace's tags.")
ADD_TAG = rule("add_metadef_tag", METADEF_ADMIN, description="Create a tag in a namespace.")
ADD_TAGS = rule("add_metadef_tags", METADEF_ADMIN, description="Give a namespace its tags.")
MODIFY_TAG = rule("modify_metadef_tag", METADEF_ADMIN, description="Rename a tag of a namespace.")
DELETE_TAG = rule("delete_metadef_tag", METADEF_ADMIN, description="Delete a tag of a namespace.")
DELETE_TAGS = rule("delete_metadef_tags", METADEF_ADMIN, description="Delete a namespace's tags.")


def facts_of(namespace: Namespace) -> dict[str, object]:
    return {"project_id": namespace.owner, "visibility": namespace.visibility}


def facts_of_namespace(call: Call[Namespace, object]) -> Mapping[str, object]:
    return facts_of(call.target)


def namespace_in_sight(call: Call[object, object]) -> Namespace:
    """The namespace the path names; 404, the same for one that is not there and one the caller may not know of."""
    if isinstance(call.body, Body):
        refuse_ours(call.body)
    name = call.path["namespace"]
    found = store.find_visible(call.tx, call.caller, name)
    if found is None or not call.authorise(GET_NAMESPACE, facts_of(found)):
        raise NotFound(f"Metadata definition namespace={name} was not found.")
    return found


def require_valid_query(query: Query, *, least_limit: int = 0) -> None:
    """400 for values of query parameters that Glance refuses in lists of what a namespace holds."""
    limit = query.get("limit")
    if limit and paging.read_limit(limit, least_limit) < least_limit:
        raise BadRequest("limit param must be positive")
    paging.is_descending(query)
    if (visibility := query.get("visibility")) and visibility not in ("public", "private", "shared"):
        raise BadRequest(f"Invalid visibility value: {visibility}")


def require_unprotected(namespace: Namespace, what: str) -> None:
    """What a protected namespace holds cannot be deleted either."""
    if namespace.protected:
        raise Forbidden(f"Metadata definition {what} is protected and cannot be deleted.")
