"""Single tags of an image."""

from __future__ import annotations

from msgspec.structs import replace

from cumulet.errors import NotFound
from cumulet.image import attributes, store
from cumulet.image.service import IMAGE, MODIFY_IMAGE, facts_of_call, image_in_sight
from cumulet.image.store import Image
from cumulet.web.operation import Call, Rule
from cumulet.web.schema import Empty


@IMAGE.operation(
    "PUT",
    "/images/{image_id}/tags/{tag}",
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    body=Empty,
    success=204,
)
def add_tag(call: Call[Image, Empty]) -> None:
    """Add a tag to an image."""
    before, tag = call.target, call.path["tag"]
    attributes.check_tags([tag])
    tags = tuple(sorted({*before.tags, tag}))
    attributes.check_amounts(before.properties, tags)
    store.save(call.tx, before, replace(before, tags=tags, updated_at_us=call.now_us))


@IMAGE.operation(
    "DELETE",
    "/images/{image_id}/tags/{tag}",
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    success=204,
)
def delete_tag(call: Call[Image, None]) -> None:
    """Remove a tag from an image."""
    before, tag = call.target, call.path["tag"]
    if tag not in before.tags:
        raise NotFound("The resource could not be found.")
    tags = tuple(other for other in before.tags if other != tag)
    store.save(call.tx, before, replace(before, tags=tags, updated_at_us=call.now_us))
