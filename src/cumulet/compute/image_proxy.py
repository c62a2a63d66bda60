"""Images under Compute's own path (up to 2.35, their metadata up to 2.38), for clients that still look there."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.clock import iso_z
from cumulet.compute.links import links, next_links, page
from cumulet.compute.quotas import limits_of, require_limit
from cumulet.compute.server_metadata import ManyItems, OneItem
from cumulet.compute.service import COMPUTE
from cumulet.errors import BadRequest, NotFound
from cumulet.image import images
from cumulet.image.service import GET_IMAGE, MODIFY_IMAGE, facts_of_call, image_facts, image_in_sight
from cumulet.image.store import Image, find_visible, has_property, load, visible_to
from cumulet.image.store import images as image_rows
from cumulet.image.update import set_properties
from cumulet.web.boolean_words import TRUE
from cumulet.web.operation import Call, Rule

LAST = "2.35"
LAST_METADATA = "2.38"
METADATA = "/images/{image_id}/metadata"
_STATUS = {
    "active": "ACTIVE",
    "queued": "SAVING",
    "saving": "SAVING",
    "importing": "SAVING",
    "killed": "ERROR",
    "deleted": "DELETED",
    "pending_delete": "DELETED",
}
_PROGRESS = {"active": 100, "queued": 25, "saving": 50}


def _image_to_show(call: Call[object, object]) -> Image:
    """As `image_in_sight`, in the words that Compute has where an image is only shown."""
    image = find_visible(call.tx, call.caller, call.path["image_id"])
    if image is None or not call.authorise(GET_IMAGE, image_facts(image, call.caller)):
        raise NotFound("Image not found.")
    return image


@COMPUTE.operation("GET", "/images", rules=(Rule(images.GET_IMAGES),), until=LAST)
def list_images(call: Call[None, None]) -> dict[str, object]:
    """List images: id, name and links."""
    return _listed(call, "images", detailed=False)


@COMPUTE.operation("GET", "/images/detail", rules=(Rule(images.GET_IMAGES),), until=LAST)
def list_images_in_detail(call: Call[None, None]) -> dict[str, object]:
    """List images with all their old API shows."""
    return _listed(call, "images/detail", detailed=True)


@COMPUTE.operation(
    "GET", "/images/{image_id}", rules=(Rule(GET_IMAGE),), target=_image_to_show, facts=facts_of_call, until=LAST
)
def show_image(call: Call[Image, None]) -> dict[str, object]:
    """Show an image."""
    return {"image": _view(call, call.target, detailed=True)}


@COMPUTE.operation(
    "DELETE",
    "/images/{image_id}",
    rules=(Rule(images.DELETE_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    until=LAST,
    success=204,
)
async def delete_image(call: Call[Image, None]) -> None:
    """Delete an image and its data."""
    await images.delete_image(call)


@COMPUTE.operation(
    "GET", METADATA, rules=(Rule(GET_IMAGE),), target=_image_to_show, facts=facts_of_call, until=LAST_METADATA
)
def list_image_metadata(call: Call[Image, None]) -> dict[str, object]:
    """Show an image's properties."""
    return {"metadata": dict(call.target.properties)}


@COMPUTE.operation(
    "GET",
    METADATA + "/{key}",
    rules=(Rule(GET_IMAGE),),
    target=_image_to_show,
    facts=facts_of_call,
    until=LAST_METADATA,
)
def show_image_metadata_item(call: Call[Image, None]) -> dict[str, object]:
    """Show one property of an image."""
    key, properties = call.path["key"], call.target.properties
    if key not in properties:
        raise NotFound("Metadata item was not found")
    return {"meta": {key: properties[key]}}


@COMPUTE.operation(
    "POST",
    METADATA,
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    body=ManyItems,
    until=LAST_METADATA,
)
def add_image_metadata(call: Call[Image, ManyItems]) -> dict[str, object]:
    """Add properties, over those the image has."""
    return _set(call, {**call.target.properties, **call.body.metadata})


@COMPUTE.operation(
    "PUT",
    METADATA,
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    body=ManyItems,
    until=LAST_METADATA,
)
def replace_image_metadata(call: Call[Image, ManyItems]) -> dict[str, object]:
    """Replace all properties."""
    return _set(call, call.body.metadata)


def _image_of_item(call: Call[None, OneItem]) -> Image:
    """The image in sight; before that, what path and body name is the same item."""
    if call.path["key"] not in call.body.meta:
        raise BadRequest("Request body and URI mismatch")
    return image_in_sight(call)


@COMPUTE.operation(
    "PUT",
    METADATA + "/{key}",
    rules=(Rule(MODIFY_IMAGE),),
    target=_image_of_item,
    facts=facts_of_call,
    body=OneItem,
    until=LAST_METADATA,
)
def set_image_metadata_item(call: Call[Image, OneItem]) -> dict[str, object]:
    """Set one property."""
    _set(call, {**call.target.properties, **call.body.meta})
    return {"meta": call.body.meta}


@COMPUTE.operation(
    "DELETE",
    METADATA + "/{key}",
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    until=LAST_METADATA,
    success=204,
)
def delete_image_metadata_item(call: Call[Image, None]) -> None:
    """Remove one property."""
    key, left = call.path["key"], dict(call.target.properties)
    if left.pop(key, None) is None:
        raise NotFound("Invalid metadata key")
    set_properties(call, left)


def _set(call: Call[Image, object], properties: Mapping[str, str]) -> dict[str, object]:
    limits = limits_of(call.tx, call.caller.project_id or "")
    require_limit(limits, "metadata_items", len(properties), words="Image metadata limit exceeded")
    set_properties(call, properties)
    return {"metadata": dict(properties)}


def _listed(call: Call[None, None], path: str, *, detailed: bool) -> dict[str, object]:
    limit = call.query.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) <= 20):
        raise BadRequest("limit must be an integer")
    asked = page(call)
    conditions = [visible_to(call.caller)]
    for name, column in (("name", image_rows.c.name), ("status", image_rows.c.status)):
        if (value := call.query.get(name)) is not None:
            conditions.append(column == (value.lower() if name == "status" else value))
    for name, key in (("server", "instance_uuid"), ("type", "image_type")):
        if (value := call.query.get(name)) is not None:
            conditions.append(has_property(key, value.rpartition("/")[2]))
    if asked.marker is not None:
        at = find_visible(call.tx, call.caller, asked.marker)
        if at is None:
            raise BadRequest(f"marker [{asked.marker}] not found")
        conditions.append(image_rows.c.id > at.id)
    found = load(call.tx, *conditions, order=[image_rows.c.id], limit=asked.limit)
    shown = [image for image in found if call.authorise(GET_IMAGE, image_facts(image, call.caller))]
    answer: dict[str, object] = {"images": [_view(call, image, detailed=detailed) for image in shown]}
    if following := next_links(call, path, asked, len(found), found[-1].id if found else ""):
        answer["images_links"] = following
    return answer


def _view(call: Call[object, object], image: Image, *, detailed: bool) -> dict[str, object]:
    alternate = {
        "rel": "alternate",
        "type": "application/vnd.openstack.image",
        "href": f"{call.base_url}/image/images/{image.id}",
    }
    view: dict[str, object] = {
        "id": image.id,
        "name": image.name,
        "links": [*links(call, "images", image.id), alternate],
    }
    if not detailed:
        return view
    view |= {
        "minRam": image.min_ram,
        "minDisk": image.min_disk,
        "metadata": dict(image.properties),
        "created": iso_z(image.created_at_us),
        "updated": iso_z(image.updated_at_us),
        "status": _STATUS.get(image.status, "UNKNOWN"),
        "progress": _PROGRESS.get(image.status, 0),
        "OS-EXT-IMG-SIZE:size": image.size,
    }
    server_id = image.properties.get("instance_uuid")
    if server_id is not None:
        view["server"] = {"id": server_id, "links": links(call, "servers", server_id)}
    disk_config = image.properties.get("auto_disk_config")
    if disk_config is not None:
        view["OS-DCF:diskConfig"] = "AUTO" if disk_config.lower() in TRUE else "MANUAL"
    return view
