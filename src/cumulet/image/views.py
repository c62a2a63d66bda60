"""How images and members look to clients. Links are relative to the service's root, as Glance writes them."""

from __future__ import annotations

from cumulet.clock import iso_z
from cumulet.image.store import HASH_ALGORITHM, STORE, Image, Member


def _of_import(image: Image) -> dict[str, object]:
    """The store of its data; and the import that is under way, or how the last one ended."""
    if image.import_task_id is not None:
        return {"os_glance_import_task": image.import_task_id, "os_glance_importing_to_stores": STORE}
    of_last: dict[str, object] = {}
    if image.import_failed is not None:
        failed = STORE if image.import_failed else ""
        of_last = {"os_glance_importing_to_stores": "", "os_glance_failed_import": failed}
    return of_last if image.size is None else {"stores": STORE, **of_last}


def show(image: Image) -> dict[str, object]:
    """An image, its properties beside its own attributes. Data that is only staged has a size too."""
    link = f"/v2/images/{image.id}"
    staged = image.upload_bytes if image.status == "uploading" and image.upload_id is None else None
    return {
        **image.properties,
        **_of_import(image),
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "owner": image.owner,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "size": image.size if staged is None else staged,
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
