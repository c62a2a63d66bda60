"""Tags of namespaces: words to choose from."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.errors import BadRequest
from cumulet.image import metadef_service as service
from cumulet.image import metadef_store as store
from cumulet.image import metadef_views as views
from cumulet.image import paging
from cumulet.image.metadef_bodies import Tag, Tags, content, refuse_ours
from cumulet.image.metadef_service import PATH, facts_of_namespace, namespace_in_sight, require_unprotected
from cumulet.image.metadef_store import LONGEST_NAME, Content, Namespace
from cumulet.image.service import IMAGE
from cumulet.web.boolean_words import boolean
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.schema import Empty

ONE = f"{PATH}/tags/{{tag_name}}"
SORTS: dict[str, Callable[[tuple[int, Content]], tuple[int, int] | tuple[str, int]]] = {
    "created_at": lambda found: (found[0], 0),
    "id": lambda found: (found[0], 0),
    "name": lambda found: (found[1].name, found[0]),
    "updated_at": lambda found: (found[1].updated_at_us, found[0]),
}
"""What tags are sorted by: each with its place in the namespace, which is unique."""


@IMAGE.operation(
    "POST",
    f"{PATH}/tags",
    rules=(Rule(service.ADD_TAGS),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=Tags,
    success=201,
)
def create_metadef_tags(call: Call[Namespace, Tags]) -> dict[str, object]:
    """Replace a namespace's tags; with ``X-OpenStack-Append: True``, add to them."""
    for tag in call.body.tags:
        refuse_ours(tag)
    new = [content(tag) for tag in call.body.tags]
    if new:
        if not boolean(call.headers.get("x-openstack-append") or ""):
            store.drop(call.tx, call.target, "tag")
        store.put(call.tx, call.target, "tag", new, call.now_us)
    return {"tags": views.show_tags(new)}


@IMAGE.operation(
    "GET", f"{PATH}/tags", rules=(Rule(service.GET_TAGS),), target=namespace_in_sight, facts=facts_of_namespace
)
def list_metadef_tags(call: Call[Namespace, None]) -> dict[str, object]:
    """List a namespace's tags, newest first, in pages."""
    query = call.query
    key, descending = paging.sort_key(query, SORTS), paging.is_descending(query)
    service.require_valid_query(query)
    limit = paging.read_limit(query.get("limit") or None, store.MOST_OF_A_KIND, store.MOST_OF_A_KIND)
    numbered = sorted(enumerate(store.all_of(call.tx, call.target, "tag")), key=SORTS[key], reverse=descending)
    found = [tag for _, tag in numbered]
    if marker := query.get("marker"):
        last = store.get(call.tx, call.target, "tag", marker)
        found = found[[tag.name for tag in found].index(last.name) + 1 :]
    return {"tags": views.show_tags(found[:limit])}


@IMAGE.operation(
    "POST",
    ONE,
    rules=(Rule(service.ADD_TAG),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    body=Empty,
    success=201,
)
def create_metadef_tag(call: Call[Namespace, Empty]) -> Reply:
    """Add a tag to a namespace."""
    name = call.path["tag_name"]
    if len(name) > LONGEST_NAME or not is_one_line(name):
        raise BadRequest(f"A tag's name is one line of at most {LONGEST_NAME} characters.")
    (made,) = store.put(call.tx, call.target, "tag", [Content(name=name, value={})], call.now_us)
    return Reply(body=views.show_tag(made))


@IMAGE.operation("GET", ONE, rules=(Rule(service.GET_TAG),), target=namespace_in_sight, facts=facts_of_namespace)
def show_metadef_tag(call: Call[Namespace, None]) -> dict[str, object]:
    """Show a tag of a namespace."""
    return views.show_tag(store.get(call.tx, call.target, "tag", call.path["tag_name"]))


@IMAGE.operation(
    "PUT", ONE, rules=(Rule(service.MODIFY_TAG),), target=namespace_in_sight, facts=facts_of_namespace, body=Tag
)
def update_metadef_tag(call: Call[Namespace, Tag]) -> dict[str, object]:
    """Rename a tag of a namespace."""
    name = call.path["tag_name"]
    return views.show_tag(store.replace(call.tx, call.target, "tag", name, content(call.body), call.now_us))


@IMAGE.operation(
    "DELETE",
    ONE,
    rules=(Rule(service.DELETE_TAG),),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_metadef_tag(call: Call[Namespace, None]) -> None:
    """Delete a tag of a namespace."""
    name = store.get(call.tx, call.target, "tag", call.path["tag_name"]).name
    require_unprotected(call.target, f"tag {name}")
    store.drop(call.tx, call.target, "tag", name)


@IMAGE.operation(
    "DELETE",
    f"{PATH}/tags",
    rules=(Rule(service.DELETE_NAMESPACE), Rule(service.DELETE_TAGS)),
    target=namespace_in_sight,
    facts=facts_of_namespace,
    success=204,
)
def delete_metadef_tags(call: Call[Namespace, None]) -> None:
    """Delete all tags of a namespace."""
    require_unprotected(call.target, f"namespace {call.target.namespace}")
    store.drop(call.tx, call.target, "tag")
