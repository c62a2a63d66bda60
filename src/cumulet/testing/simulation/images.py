"""The Image service of a run, where hosts bring images of their guests' disks: records without files and threads."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.clock import Clock
from cumulet.compute import boot, evacuation
from cumulet.compute.images_of_hosts import require_wanted
from cumulet.compute.store import instance_action_events, instance_actions, servers
from cumulet.db.engine import Database, Tx
from cumulet.drivers.simulated.snapshots import NOTE_AT
from cumulet.errors import ApiError
from cumulet.host.driver import DriverError, Guest
from cumulet.image import store, uploads
from cumulet.settings import Settings

UNSHELVED = "compute_unshelve_instance"
_MAKING = (boot.EVENT, UNSHELVED, *evacuation.EVENTS)
_MADE = (
    sa.select(instance_actions.c.server_id, instance_action_events.c.event)
    .join(instance_actions, instance_actions.c.id == instance_action_events.c.action_id)
    .where(instance_action_events.c.event.in_(_MAKING), instance_action_events.c.result == "Success")
    .order_by(instance_action_events.c.id)
)
_UNSHELVED_BY_HALF = (
    sa.select(instance_actions.c.server_id)
    .join(instance_action_events, instance_actions.c.id == instance_action_events.c.action_id)
    .where(instance_action_events.c.event == UNSHELVED, instance_action_events.c.result == "Error")
    .distinct()
)
_PLACES = sa.select(servers.c.id, servers.c.host, servers.c.image_id).where(
    servers.c.deleted_at_us.is_(None), servers.c.host.is_not(None)
)


class Images:
    """A `drivers.simulated.snapshots.Take`. It notes for each image whose disk it holds."""

    def __init__(self, db: Database, clock: Clock, settings: Settings) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._disks: dict[str, str] = {}

    async def take(self, host: str, image_id: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        content = b"".join([piece async for piece in pieces])
        upload_id, now_us = self._clock.uuid(), self._clock.now_us()

        def begin(tx: Tx) -> None:
            require_wanted(tx, host, image_id)
            uploads.take(tx, image_id, upload_id, size, now_us, self._settings)

        def finish(tx: Tx) -> bool:
            return store.end_upload(
                tx,
                image_id,
                upload_id,
                self._clock.now_us(),
                status="active",
                size=size,
                virtual_size=int.from_bytes(content[24:32], "big"),
                checksum=hashlib.md5(content, usedforsecurity=False).hexdigest(),
                os_hash_value=hashlib.sha512(content).hexdigest(),
            )

        try:
            await self._db.write_async(begin)
            await self._clock.sleep(0.1)
            # Before the commit, of which nobody may hear.
            self._disks[image_id] = content[NOTE_AT:].partition(b"\0")[0].decode().partition(" ")[0]
            if not await self._db.write_async(finish):
                raise DriverError("the image is gone")
        except ApiError as refused:
            raise DriverError(f"the image was not taken: {refused}") from refused
        except DBAPIError as problem:
            raise DriverError("the Image service does not know whether it has the image") from problem

    def delete(self, image_id: str) -> None:
        """Delete an image as its owner would."""
        with contextlib.suppress(DBAPIError):
            self._db.write(lambda tx: store.delete(tx, image_id, self._clock.now_us()))

    def of_others(self, tx: Tx) -> Iterator[str]:
        """Images that hold the disk of another server than their record says."""
        for image_id, server_id in self._disks.items():
            image = store.find(tx, image_id)
            if image is not None and image.properties.get("instance_uuid") != server_id:
                yield f"image {image_id[:8]} holds the disk of {server_id[:8]}"

    def wrong_disks(self, tx: Tx, guests: Mapping[str, Mapping[str, Guest]]) -> Iterator[str]:
        """Guests, by host and server, whose disk was made of another image than that of whatever made them last.

        A server that an unshelve left in ERROR may be evacuated: that, too, makes it of the image it was shelved to.
        """
        made_by = {row.server_id: row.event for row in tx.all(_MADE, {})}
        by_half = {row.server_id for row in tx.all(_UNSHELVED_BY_HALF, {})}
        for row in tx.all(_PLACES, {}):
            guest = guests.get(row.host, {}).get(row.id)
            if guest is None or guest.image is None or row.id not in made_by:
                continue
            by = made_by[row.id]
            if self._disks.get(guest.image.id) == row.id:
                right = by == UNSHELVED or (by in evacuation.EVENTS and row.id in by_half)
            else:
                right = by != UNSHELVED and guest.image.id == row.image_id
            if not right:
                yield f"server {row.id[:8]} came by {by}, and its disk from image {guest.image.id[:8]}"
