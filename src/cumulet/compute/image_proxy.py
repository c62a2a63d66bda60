"""Images under Compute's own path (up to 2.35): read-only, for clients that still look there."""

from __future__ import annotations

from typing import Any

from cumulet.clock import iso_z
from cumulet.compute.links import links, next_links, page
from cumulet.compute.service import COMPUTE
from cumulet.errors import BadRequest, NotFound
from cumulet.image.store import Image, find_visible, images, load, visible_to
from cumulet.web.operation import Call

LAST = "2.35"
_STATUS = {"active": "ACTIVE", "queued": "SAVING", "saving": "SAVING", "importing": "SAVING", "killed": "ERROR",
           "deleted": "DELETED", "pending_delete": "DELETED"}  # fmt: skip
_PROGRESS = {"active": 100, "queued": 25, "saving": 50}


@COMPUTE.operation("GET", "/images", rules=(), until=LAST)
def list_images(call: Call[None, None]) -> dict[str, Any]:
    """List images: id, name and links."""
    return _listed(call, "images", detailed=False)


@COMPUTE.operation("GET", "/images/detail", rules=(), until=LAST)
def list_images_in_detail(call: Call[None, None]) -> dict[str, Any]:
    """List images with all their old API shows."""
    return _listed(call, "images/detail", detailed=True)


@COMPUTE.operation("GET", "/images/{image_id}", rules=(), until=LAST)
def show_image(call: Call[None, None]) -> dict[str, Any]:
    """Show an image."""
    return {"image": _view(call, _found(call), detailed=True)}


@COMPUTE.operation("GET", "/images/{image_id}/metadata", rules=(), until="2.38")
def list_image_metadata(call: Call[None, None]) -> dict[str, Any]:
    """Show an image's properties."""
    return {"metadata": dict(_found(call).properties)}


@COMPUTE.operation("GET", "/images/{image_id}/metadata/{key}", rules=(), until="2.38")
def show_image_metadata_item(call: Call[None, None]) -> dict[str, Any]:
    """Show one property of an image."""
    key, properties = call.path["key"], _found(call).properties
    if key not in properties:
        raise NotFound("Metadata item was not found")
    return {"meta": {key: properties[key]}}


def _found(call: Call[None, None]) -> Image:
    image = find_visible(call.tx, call.caller, call.path["image_id"])
    if image is None:
        raise NotFound("Image not found.")
    return image


def _listed(call: Call[None, None], path: str, *, detailed: bool) -> dict[str, Any]:
    if not (call.query.get("limit") or "0").isdigit():
        raise BadRequest("limit must be an integer")
    asked = page(call)
    conditions = [visible_to(call.caller)]
    for name, column in (("name", images.c.name), ("status", images.c.status)):
        if (value := call.query.get(name)) is not None:
            conditions.append(column == (value.lower() if name == "status" else value))
    if asked.marker is not None:
        at = find_visible(call.tx, call.caller, asked.marker)
        if at is None:
            raise BadRequest(f"marker [{asked.marker}] not found")
        conditions.append(images.c.id > at.id)
    found = load(call.tx, *conditions, order=[images.c.id], limit=asked.limit)
    answer: dict[str, Any] = {"images": [_view(call, image, detailed=detailed) for image in found]}
    if following := next_links(call, path, asked, len(found), found[-1].id if found else ""):
        answer["images_links"] = following
    return answer


def _view(call: Call[None, None], image: Image, *, detailed: bool) -> dict[str, Any]:
    alternate = {
        "rel": "alternate",
        "type": "application/vnd.openstack.image",
        "href": f"{call.base_url}/image/images/{image.id}",
    }
    view: dict[str, Any] = {
        "id": image.id,
        "name": image.name,
        "links": [*links(call, "images", image.id), alternate],
    }
    if not detailed:
        return view
    view |= {
        "minRam": image.min_ram, "minDisk": image.min_disk, "metadata": dict(image.properties),
        "created": iso_z(image.created_at_us), "updated": iso_z(image.updated_at_us),
        "status": _STATUS.get(image.status, "UNKNOWN"), "progress": _PROGRESS.get(image.status, 0),
        "OS-EXT-IMG-SIZE:size": image.size,
    }  # fmt: skip
    disk_config = image.properties.get("auto_disk_config")
    if disk_config is not None:
        view["OS-DCF:diskConfig"] = "AUTO" if disk_config.lower() in ("1", "true", "yes", "on", "t", "y") else "MANUAL"
    return view
