"""Images the cloud itself brings along: registered at first start, from a local file or as a placeholder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cumulet.clock import Clock
from cumulet.db.engine import Database
from cumulet.image import files, store
from cumulet.image.files import CHUNK_BYTES, Upload
from cumulet.image.inspection import Inspection
from cumulet.image.store import Image
from cumulet.image.uploads import data_of

# A raw disk of 1 MiB that no machine boots: what simulated hosts "run" where the real image cannot be built.
PLACEHOLDER = b"cumulet placeholder image: simulated hosts only\n".ljust(1 << 20, b"\0")
VIRTUAL_SIZE_LIMIT = 1 << 40


class _OfPlaceholder(Inspection):
    """No inspection: the placeholder is our own. To load the inspectors would take a sixth of a first start."""

    def __init__(self) -> None:
        self.qcow2 = None

    def feed(self, chunk: bytes | memoryview) -> None:
        pass

    def finish(self) -> int:
        return len(PLACEHOLDER)


def add_builtin_image(
    database: Database,
    clock: Clock,
    state_dir: Path,
    *,
    name: str,
    owner: str | None,
    source: Path | None,
    disk_format: str = "qcow2",
) -> str:
    """Register `source` (None: a placeholder) as an active public image, inspected like any upload. Returns its id.

    Blocks on the disk and the database. An image of this name the cloud has already is left as it is.
    """
    known = database.read(lambda tx: store.load(tx, store.images.c.name == name, store.images.c.visibility == "public"))
    for image in known:
        if image.status == "active" and image.owner == owner:
            return image.id
        if image.status in ("queued", "saving") and image.owner == owner:  # A start was killed meanwhile.
            database.write(partial(store.delete, image_id=image.id, now_us=clock.now_us()))
    image_id, upload_id, now_us = clock.uuid(), clock.uuid(), clock.now_us()
    format_of_data = disk_format if source is not None else "raw"
    folder = files.image_folder(state_dir)
    image = Image(
        id=image_id,
        name=name,
        owner=owner,
        status="saving",
        upload_id=upload_id,
        visibility="public",
        disk_format=format_of_data,
        container_format="bare",
        min_disk=0,
        min_ram=0,
        protected=False,
        os_hidden=False,
        created_at_us=now_us,
        updated_at_us=now_us,
    )
    database.write(lambda tx: store.add(tx, image))  # A record comes before its files (`left_data`).
    upload = Upload(folder, upload_id, _inspection(source, format_of_data))
    try:
        with files.threads:
            _copy(source, upload)
        written = upload.place(image_id)
    except BaseException:
        database.write(lambda tx: store.delete(tx, image_id, now_us))
        raise
    finally:
        upload.discard()
    database.write(lambda tx: store.end_upload(tx, image_id, upload_id, now_us, status="active", **data_of(written)))
    return image_id


def _inspection(source: Path | None, disk_format: str) -> Inspection:
    return _OfPlaceholder() if source is None else Inspection(disk_format, virtual_size_limit=VIRTUAL_SIZE_LIMIT)


def _copy(source: Path | None, upload: Upload) -> None:
    if source is None:
        upload.write(PLACEHOLDER)
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            upload.write(chunk)
