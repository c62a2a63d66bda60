"""Images: create, list, show, delete, deactivate and reactivate."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, Forbidden, NotFound, OverQuota
from cumulet.image import attributes, files, listing, store, stores, views
from cumulet.image.service import (
    ADMIN,
    ADMIN_OR_MEMBER,
    ADMIN_OR_READER,
    GET_IMAGE,
    IMAGE,
    facts_of_call,
    image_facts,
    image_in_sight,
    require_visibility,
)
from cumulet.image.store import Image
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Empty, Json, Key, Unset

MEMBER_OF_OWNER = "(role:member and project_id:%(project_id)s and project_id:%(owner)s)"
ADD_IMAGE = rule("add_image", f"{ADMIN} or {MEMBER_OF_OWNER}", description="Create an image.")
GET_IMAGES = rule("get_images", ADMIN_OR_READER, description="List images.")
DELETE_IMAGE = rule("delete_image", ADMIN_OR_MEMBER, description="Delete an image.")
DEACTIVATE = rule("deactivate", ADMIN_OR_MEMBER, description="Make an image's data unavailable.")
REACTIVATE = rule("reactivate", ADMIN_OR_MEMBER, description="Make an image's data available again.")

_Text255 = Json({"maxLength": 255})
_Minimum = Json({"minimum": 0, "maximum": attributes.LARGEST_MINIMUM})


class CreateImage(Body, extra="allow"):
    """A new image; attributes beyond these are its properties."""

    image_id: Annotated[str | Unset, Key("id"), Json({"pattern": attributes.UUID_PATTERN})] = UNSET
    name: Annotated[str | None, _Text255] = None
    owner: Annotated[str | Unset | None, _Text255] = UNSET
    disk_format: Annotated[str | None, Json({"enum": list(attributes.DISK_FORMATS)})] = None
    container_format: Annotated[str | None, Json({"enum": list(attributes.CONTAINER_FORMATS)})] = None
    visibility: Literal["community", "public", "private", "shared"] = "shared"
    min_disk: Annotated[int, _Minimum] = 0
    min_ram: Annotated[int, _Minimum] = 0
    protected: bool = False
    os_hidden: bool = False
    tags: list[Annotated[str, Json({"maxLength": 255, "format": "one line"})]] = msgspec.field(default_factory=list)


def proposed_image(call: Call[object, CreateImage]) -> Image:
    return proposed(call, call.body)


def proposed(call: Call[object, object], body: CreateImage) -> Image:
    """The image that a body describes. Attributes that clients may not set are refused before rules are checked."""
    properties: dict[str, str] = {}
    for name, value in body.extra.items():
        attributes.check_writable(name)
        if name == "locations":
            raise Forbidden("Attribute 'locations' is reserved.")
        attributes.check_value(name, value)
        properties[name] = value
    attributes.check_amounts(properties, body.tags)
    attributes.check_formats(body.disk_format, body.container_format)
    return Image(
        id=call.cloud.clock.uuid() if body.image_id is UNSET else body.image_id.lower(),
        name=body.name,
        owner=call.caller.project_id if body.owner is UNSET else body.owner,
        status="queued",
        visibility=body.visibility,
        disk_format=body.disk_format,
        container_format=body.container_format,
        min_disk=body.min_disk,
        min_ram=body.min_ram,
        protected=body.protected,
        os_hidden=body.os_hidden,
        created_at_us=call.now_us,
        updated_at_us=call.now_us,
        properties=properties,
        tags=tuple(sorted(set(body.tags))),
    )


@IMAGE.operation(
    "POST",
    "/images",
    rules=(Rule(ADD_IMAGE),),
    target=proposed_image,
    facts=facts_of_call,
    body=CreateImage,
    success=201,
)
def create_image(call: Call[Image, CreateImage]) -> Reply:
    """Create an image without data: it is queued until its data is uploaded."""
    image = call.target
    make(call, image)
    headers = {"Location": f"{call.service_url}/images/{image.id}", **stores.of_new_images(call.cloud.settings)}
    return Reply(body=views.show(image), headers=headers)


def make(call: Call[object, object], image: Image) -> None:
    """Record an image that the caller may create; 403 where they may not give it its visibility."""
    require_visibility(call, image.visibility, image_facts(image, call.caller))
    if store.id_was_used(call.tx, image.id):
        raise Conflict(f"Image ID {image.id} already exists!")
    add(call, image)


def add(call: Call[object, object], image: Image) -> None:
    """Record an image without data. OverQuota: its project has as many images as it may."""
    limit = call.cloud.settings.images_per_project
    if store.count_of(call.tx, image.owner) >= limit:
        raise OverQuota(f"The project's limit of {limit} images is reached.")
    store.add(call.tx, image)


@IMAGE.operation("GET", "/images", rules=(Rule(GET_IMAGES),))
def list_images(call: Call[None, None]) -> dict[str, object]:
    """List the images the caller may see, newest first."""
    page = listing.read(call.query, call.cloud.settings.largest_page)
    found = listing.find(call.tx, call.caller, page)
    shown = [image for image in found if call.authorise(GET_IMAGE, image_facts(image, call.caller))]
    reply: dict[str, object] = {
        "images": [views.show(image) for image in shown],
        "first": page.link(marker=None),
        "schema": "/v2/schemas/images",
    }
    if shown and len(found) == page.limit:
        reply["next"] = page.link(marker=shown[-1].id)
    return reply


@IMAGE.operation(
    "GET", "/images/{image_id}", rules=(Rule(GET_IMAGE),), target=image_in_sight, facts=facts_of_call, lookup=True
)
def show_image(call: Call[Image, None]) -> dict[str, object]:
    """Show an image."""
    return views.show(call.target)


@IMAGE.operation(
    "DELETE",
    "/images/{image_id}",
    rules=(Rule(DELETE_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    success=204,
)
async def delete_image(call: Call[Image, None]) -> None:
    """Delete an image and its data. Servers made from it keep running; nobody gets its id while its record is kept."""
    cloud, image_id = call.cloud, call.target.id

    def delete(tx: Tx) -> None:
        call.tx = tx
        image = image_in_sight(call)
        call.require(DELETE_IMAGE, image_facts(image, call.caller))
        if image.protected:
            raise Forbidden(f"Image {image.id} is protected and cannot be deleted.")
        if not store.delete(tx, image.id, call.now_us):
            raise NotFound(f"Failed to find image {image.id}")

    await cloud.db.write_async(delete)
    # Not in the database's thread: removing a large file takes a while.
    for remove in (files.remove, files.remove_staged):
        await asyncio.to_thread(remove, files.image_folder(cloud.state_dir), image_id)


@IMAGE.operation(
    "POST",
    "/images/{image_id}/actions/deactivate",
    rules=(Rule(DEACTIVATE),),
    target=image_in_sight,
    facts=facts_of_call,
    body=Empty,
    success=204,
)
def deactivate_image(call: Call[Image, Empty]) -> None:
    """Make an image's data unavailable to all but administrators; no server can be made from it."""
    _switch(call, away_from="active", to="deactivated", verb="deactivate")


@IMAGE.operation(
    "POST",
    "/images/{image_id}/actions/reactivate",
    rules=(Rule(REACTIVATE),),
    target=image_in_sight,
    facts=facts_of_call,
    body=Empty,
    success=204,
)
def reactivate_image(call: Call[Image, Empty]) -> None:
    """Make a deactivated image's data available again."""
    _switch(call, away_from="deactivated", to="active", verb="reactivate")


def _switch(call: Call[Image, Empty], *, away_from: str, to: str, verb: str) -> None:
    image = call.target
    if image.status == to:
        return
    if image.status != away_from:
        raise Forbidden(f"Not allowed to {verb} image in status '{image.status}'")
    if not store.change_status(call.tx, image.id, expected=away_from, to=to, now_us=call.now_us):
        raise Conflict(f"Image {image.id} was changed at the same time.")
