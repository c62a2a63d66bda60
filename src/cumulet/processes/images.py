"""Which images hosts may fetch from the image store and bring to it, for `fleet.image_door`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from cumulet.clock import Clock
from cumulet.db.engine import Database
from cumulet.errors import UnsupportedMediaType
from cumulet.fleet.image_door import Receive
from cumulet.settings import Settings
from cumulet.space import Space


def images_of(db: Database, settings: Settings) -> Callable[[str, str], Awaitable[Path | None]]:
    """The `Find` of `fleet.image_door`: the file of an image that a host may have."""
    from cumulet.compute.images_of_hosts import image_for
    from cumulet.image.files import image_folder

    async def find(host: str, sha512: str) -> Path | None:
        image_id = await db.read_async(lambda tx: image_for(tx, host, sha512))
        return None if image_id is None else image_folder(settings.state_dir) / image_id

    return find


class _ImagePlace(msgspec.Struct, frozen=True):
    """An `image.uploads.Place` for a process that has no `web.context.Cloud` yet."""

    settings: Settings
    db: Database
    clock: Clock
    space: Space

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir


def images_into(db: Database, settings: Settings, clock: Clock, space: Space) -> Receive:
    """The `Receive` of `fleet.image_door`: stores an image of a guest's disk that a host brings."""
    from cumulet.compute.images_of_hosts import require_wanted
    from cumulet.image.qcow2 import Refused
    from cumulet.image.uploads import receive_data

    place = _ImagePlace(settings, db, clock, space)

    async def receive(host: str, image_id: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        async def require() -> None:
            await db.read_async(lambda tx: require_wanted(tx, host, image_id))

        await require()
        try:
            await receive_data(place, image_id, pieces, size, require)
        except Refused as refused:
            raise UnsupportedMediaType(str(refused), reason="IMAGE_REFUSED") from None

    return receive
