"""Images of servers' disks: recorded before their content comes, given up without it; and the rotation of backups."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.db.engine import Tx
from cumulet.errors import Forbidden, OverQuota
from cumulet.image import attributes, store
from cumulet.image.images import ADD_IMAGE
from cumulet.image.images import add as add_image
from cumulet.image.service import image_facts
from cumulet.image.store import Image, Member, images
from cumulet.web.operation import Call

GIB = 1 << 30
DISK_FORMAT, CONTAINER_FORMAT = "qcow2", "bare"
"""What hosts send."""


def add(
    call: Call[object, object],
    *,
    name: str,
    properties: Mapping[str, str],
    min_disk_gib: int,
    min_ram_mib: int,
    shared_with: str | None,
) -> str:
    """Record an image without data, of the caller's project; its id.

    `shared_with`: another project, whose server it is an image of. OverQuota: one image, or one byte, is too many.
    """
    image = Image(
        id=call.cloud.clock.uuid(),
        name=name,
        owner=call.caller.project_id,
        status="queued",
        visibility="private" if shared_with is None else "shared",
        disk_format=DISK_FORMAT,
        container_format=CONTAINER_FORMAT,
        min_disk=min_disk_gib,
        min_ram=min_ram_mib,
        protected=False,
        os_hidden=False,
        created_at_us=call.now_us,
        updated_at_us=call.now_us,
        properties=properties,
    )
    for key in properties:
        if key in attributes.KINDS or key in ("locations", "tags"):
            raise Forbidden(f"Attribute '{key}' is no property of an image.")
        attributes.check_writable(key)
    call.require(ADD_IMAGE, image_facts(image, call.caller))
    attributes.check_amounts(properties, ())
    if store.stored_bytes(call.tx, image.owner) >= call.cloud.settings.image_project_quota_gib * GIB:
        raise OverQuota("The project's images would exceed its storage quota.")
    add_image(call, image)
    if shared_with is not None:
        member = Member(
            image_id=image.id,
            member_id=shared_with,
            status="pending",
            created_at_us=call.now_us,
            updated_at_us=call.now_us,
        )
        store.add_member(call.tx, member)
    return image.id


def give_up(tx: Tx, image_id: str, now_us: int) -> None:
    """Delete an image that never got its content. Nothing happens to one that has it, is protected, or was deleted."""
    found = store.find(tx, image_id)
    if found is not None and found.size is None:
        store.delete(tx, image_id, now_us)


def rotate(tx: Tx, image_id: str, *, server_id: str, backup_type: str, keep: int, now_us: int) -> list[str]:
    """Delete all but the newest `keep` backups of a server's of one type, of the owner of `image_id`; their ids."""
    newest = store.find(tx, image_id)
    if newest is None:
        return []
    wanted = {"image_type": "backup", "backup_type": backup_type, "instance_uuid": server_id}
    conditions = [store.has_property(key, value) for key, value in wanted.items()]
    found = store.load(
        tx, images.c.owner == newest.owner, *conditions, order=(images.c.created_at_us.desc(), images.c.id.desc())
    )
    old = [image.id for image in found[keep:] if not image.protected]
    return [gone for gone in old if store.delete(tx, gone, now_us)]
