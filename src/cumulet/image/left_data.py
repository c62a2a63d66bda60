"""What dead processes have left of image data: uploads that nobody goes on with, and files that no image has.

Theory of operation. An upload holds a lock on its file while it writes (`files.Upload`), and the system lets go of it
when the process ends, however it ends. One look is not enough: an upload has its record a moment before its file, and
for a moment after it. So it is ended if nobody has been at it in two looks, between which its file has not changed:
versions before, and file systems without locks, have no other sign of life. Its sender then finds that the image is no
longer its own. Files are listed before the records are read, and a record comes before its files: what no image has
then, none will have, for an id is not used again while it is remembered. A file in the place of data that an image
still waits for is left to the next upload of that image (`uploads.Receiver`), which no other one can be in the way of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cumulet.clock import Clock
from cumulet.conductor import findings
from cumulet.db.engine import Database, Tx
from cumulet.image import files, store
from cumulet.image.store import DataOf
from cumulet.periodic import Periodic
from cumulet.settings import Settings

log = logging.getLogger(__name__)

RECONCILER = "left-image-data"
ENDED = "upload-without-process"
REMOVED = "file-without-image"


class Coming(NamedTuple):
    """An upload under way, by its record."""

    image_id: str
    upload_id: str


Seen = tuple[int, int] | None
"""Size and time of the last change of an upload's file; None: there is none."""


def clear_alone(database: Database, state_dir: Path, now_us: int) -> int:
    """At the start of the only process that a cloud has: whatever was under way is a dead one's. Imports go on, and
    remove what they leave themselves. How many files were removed."""
    folder = files.image_folder(state_dir)
    listed = files.stored(folder)

    def work(tx: Tx) -> list[DataOf]:
        for one in _coming(store.data_of_all(tx)):
            store.end_upload(tx, one.image_id, one.upload_id, now_us, status="queued")
        return store.data_of_all(tx)

    left = listed - _files_of(database.write(work))
    _remove(folder, left)
    return len(left)


class LeftData(Periodic):
    """Ends uploads whose process is dead, and removes files that no image has."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings) -> None:
        super().__init__(name=RECONCILER, clock=clock, seconds=settings.lease_seconds * 6)
        self._db = db
        self._folder = files.image_folder(settings.state_dir)
        self._silent: dict[Coming, Seen] = {}
        """Uploads that nobody was at in the last look, and their files then."""

    async def round(self) -> None:
        listed = await asyncio.to_thread(files.stored, self._folder)
        images = await self._db.read_async(store.data_of_all)
        silent = await asyncio.to_thread(self._silent_of, list(_coming(images)))
        for one in sorted(one for one, seen in silent.items() if self._silent.get(one, ()) == seen):
            await self._db.write_async(partial(self._end, one))
        self._silent = silent
        left = await asyncio.to_thread(self._unlocked, listed - _files_of(images) - _places_of(images))
        if left:
            await asyncio.to_thread(_remove, self._folder, left)
            await self._db.write_async(lambda tx: self._note(tx, REMOVED, f"removed {len(left)}"))

    def _silent_of(self, coming: Sequence[Coming]) -> dict[Coming, Seen]:
        return {
            one: files.last_change(self._folder, one.upload_id)
            for one in coming
            if not files.is_under_way(self._folder, one.upload_id)
        }

    def _unlocked(self, left: Collection[str]) -> list[str]:
        """Those that nobody writes: an image that comes with the cloud has no record before it is whole."""
        uploads = f"{files.UPLOAD_FOLDER}/"
        return [
            path
            for path in sorted(left)
            if not (path.startswith(uploads) and files.is_under_way(self._folder, path.removeprefix(uploads)))
        ]

    def _end(self, one: Coming, tx: Tx) -> None:
        now_us = self._clock.now_us()
        if store.end_upload(tx, one.image_id, one.upload_id, now_us, status="queued"):
            self._note(tx, ENDED, "ended: its image waits for data again", subject=one.image_id)

    def _note(self, tx: Tx, finding: str, done: str, *, subject: str = "") -> None:
        findings.note(tx, RECONCILER, finding, done, now_us=self._clock.now_us(), subject=subject)


def _coming(images: Iterable[DataOf]) -> Iterator[Coming]:
    """Of imports it is their operation that goes on with them."""
    for image in images:
        if image.upload_id is not None and image.status != "importing":
            yield Coming(image.id, image.upload_id)


def _files_of(images: Iterable[DataOf]) -> set[str]:
    """The files that images have or get, by their paths below the store."""
    found = set()
    for image in images:
        if image.size is not None or image.status in ("saving", "importing"):
            found.add(image.id)
        if image.status in ("uploading", "importing"):
            found.add(f"{files.STAGE_FOLDER}/{image.id}")
        if image.upload_id is not None:
            found |= {f"{files.UPLOAD_FOLDER}/{image.upload_id}", f"{files.CONVERT_FOLDER}/{image.upload_id}"}
    return found


def _places_of(images: Iterable[DataOf]) -> set[str]:
    """Where the data of images is, or would be."""
    return {path for image in images for path in (image.id, f"{files.STAGE_FOLDER}/{image.id}")}


def _remove(folder: Path, left: Collection[str]) -> None:
    for path in left:
        files.remove_at(folder / path)
