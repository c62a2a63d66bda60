"""Which images a host may fetch: those that its servers are made from, and no other."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.compute.store import servers
from cumulet.db.engine import Tx
from cumulet.image import store as image_store
from cumulet.placement.store import allocations, resource_providers

_IMAGES_OF = (
    sa.select(servers.c.image_id)
    .join(allocations, allocations.c.consumer_uuid == servers.c.id)
    .join(resource_providers, resource_providers.c.id == allocations.c.provider_id)
    .where(
        resource_providers.c.name == sa.bindparam("of_host"),
        servers.c.image_id.is_not(None),
        servers.c.deleted_at_us.is_(None),
    )
    .distinct()
)


def image_for(tx: Tx, host: str, sha512: str) -> str | None:
    """The id of an image with this content from which a server is made that has a share of `host`; else None."""
    for row in tx.all(_IMAGES_OF, {"of_host": host}):
        image = image_store.data_of(tx, row.image_id)
        if image is not None and image.status == "active" and image.os_hash_value == sha512:
            return str(image.id)
    return None
