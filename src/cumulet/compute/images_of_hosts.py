"""Which images a host may fetch (those of its servers), and which it may send (those that snapshots wait for)."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.compute.model import RESCUE_IMAGE, SHELVED_IMAGE
from cumulet.compute.store import servers
from cumulet.conductor.saga import Status, operations
from cumulet.db.engine import Tx
from cumulet.errors import NotFound
from cumulet.image import store as image_store
from cumulet.placement.store import allocations, resource_providers

_IMAGES_OF = (
    sa.select(
        servers.c.image_id,
        *(servers.c.system_metadata[key].as_string().label(key) for key in (SHELVED_IMAGE, RESCUE_IMAGE)),
    )
    .join(allocations, allocations.c.consumer_uuid == servers.c.id)
    .join(resource_providers, resource_providers.c.id == allocations.c.provider_id)
    .where(
        resource_providers.c.name == sa.bindparam("of_host"),
        servers.c.deleted_at_us.is_(None),
    )
    .distinct()
)


def image_for(tx: Tx, host: str, sha512: str) -> str | None:
    """The id of an image with this content from which a server with a share of `host` is made; else None."""
    for image_id in {one for row in tx.all(_IMAGES_OF, {"of_host": host}) for one in row if one is not None}:
        image = image_store.data_of(tx, image_id)
        if image is not None and image.status == "active" and image.os_hash_value == sha512:
            return str(image.id)
    return None


_WAITS = sa.select(operations.c.id).where(
    operations.c.status == Status.FORWARD,
    operations.c.saga.in_(("snapshot", "shelve")),
    operations.c.state["image_id"].as_string() == sa.bindparam("of_image"),
    operations.c.state["host"].as_string() == sa.bindparam("of_host"),
)


def require_wanted(tx: Tx, host: str, image_id: str) -> None:
    """NotFound unless a running operation waits for this image's content from `host`."""
    if tx.first(_WAITS, {"of_host": host, "of_image": image_id}) is None:
        raise NotFound(f"Failed to find image {image_id}", private=f"nobody waits for it from {host}")
