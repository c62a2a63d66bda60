"""How images and members look to clients. Links are relative to the service's root, as Glance writes them."""

from __future__ import annotations

from cumulet.clock import iso_z
from cumulet.image.store import HASH_ALGORITHM, Image, Member


def show(image: Image) -> dict[str, object]:
    """An image, its properties beside its own attributes."""
    link = f"/v2/images/{image.id}"
    return {
        **image.properties,
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "owner": image.owner,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "checksum": image.checksum,
        "os_hash_algo": HASH_ALGORITHM if image.os_hash_value else None,
        "os_hash_value": image.os_hash_value,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "os_hidden": image.os_hidden,
        "tags": list(image.tags),
        "created_at": iso_z(image.created_at_us),
        "updated_at": iso_z(image.updated_at_us),
        "self": link,
        "file": f"{link}/file",
        "schema": "/v2/schemas/image",
    }


def show_member(member: Member) -> dict[str, object]:
    return {
        "member_id": member.member_id,
        "image_id": member.image_id,
        "status": member.status,
        "created_at": iso_z(member.created_at_us),
        "updated_at": iso_z(member.updated_at_us),
        "schema": "/v2/schemas/member",
    }
