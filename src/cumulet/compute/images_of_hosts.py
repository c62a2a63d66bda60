"""Which images a host may fetch (those of its servers), and which it may send (those that snapshots wait for)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute.model import RESCUE_IMAGE, SHELVED_IMAGE
from cumulet.compute.store import servers
from cumulet.conductor.saga import Status, operations
from cumulet.db.engine import Database, Tx
from cumulet.errors import NotFound, UnsupportedMediaType
from cumulet.host.images import Find, Receive
from cumulet.image import store as image_store
from cumulet.image.files import image_folder
from cumulet.image.qcow2 import Refused
from cumulet.image.uploads import receive_data
from cumulet.placement.store import allocations, resource_providers
from cumulet.settings import Settings
from cumulet.space import Space

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


class _Place(msgspec.Struct, frozen=True):
    """An `image.uploads.Place` for a process that has no `web.context.Cloud` yet."""

    settings: Settings
    db: Database
    clock: Clock
    space: Space

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir


def images_for_hosts(settings: Settings, db: Database, clock: Clock, space: Space) -> tuple[Find, Receive]:
    """What finds the images that hosts fetch, and what stores those of guests' disks that they bring."""
    place = _Place(settings, db, clock, space)

    async def find(host: str, sha512: str) -> Path | None:
        image_id = await db.read_async(lambda tx: image_for(tx, host, sha512))
        return None if image_id is None else image_folder(settings.state_dir) / image_id

    async def receive(host: str, image_id: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        async def require() -> None:
            await db.read_async(lambda tx: require_wanted(tx, host, image_id))

        await require()
        try:
            await receive_data(place, image_id, pieces, size, require)
        except Refused as refused:
            raise UnsupportedMediaType(str(refused), reason="IMAGE_REFUSED") from None

    return find, receive
