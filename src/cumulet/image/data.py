"""Image data: upload once, inspected on the way; download; and what is left to do after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cumulet.db.engine import Database, Tx
from cumulet.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    OverQuota,
    TooLarge,
    UnsupportedMediaType,
)
from cumulet.image import files, store
from cumulet.image.files import CHUNK_BYTES, Upload, Written
from cumulet.image.inspection import Inspection
from cumulet.image.qcow2 import Refused
from cumulet.image.service import ADMIN_OR_MEMBER, ADMIN_OR_MEMBER_WHO_SEES, IMAGE, facts_of_call, image_in_sight
from cumulet.image.store import Image
from cumulet.settings import Settings
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule

if TYPE_CHECKING:
    from starlette.requests import Request

UPLOAD_IMAGE = rule("upload_image", ADMIN_OR_MEMBER, description="Upload an image's data.")
DOWNLOAD_IMAGE = rule("download_image", ADMIN_OR_MEMBER_WHO_SEES, description="Download an image's data.")

GIB = 1 << 30
# How much of a refused upload is read and thrown away, so that clients which only read after writing see the answer.
DRAIN_LIMIT_BYTES = 256 << 20
# An upload may take long, but not by saying nothing.
IDLE_SECONDS = 60.0


class Gone(ApiError):
    status = 410
    title = "Gone"


class RangeNotSatisfiable(ApiError):
    status = 416
    title = "Range Not Satisfiable"


@IMAGE.operation(
    "PUT",
    "/images/{image_id}/file",
    rules=(Rule(UPLOAD_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    success=204,
    raw_body=True,
)
async def upload_image_data(call: Call[Image, None]) -> None:
    """Upload an image's data, once: it is inspected while it streams and cannot be changed afterwards."""
    from starlette.requests import ClientDisconnect

    assert call.request is not None
    body = _Body(call.request)
    stored = False
    try:
        await _upload(call, body)
        stored = True
    except Refused as refused:
        raise UnsupportedMediaType(str(refused), reason="IMAGE_REFUSED") from None
    except (ClientDisconnect, TimeoutError):
        raise BadRequest("The upload ended early.") from None
    finally:
        if not stored:
            await body.drain()


async def _upload(call: Call[Image, None], body: _Body) -> None:
    media = (call.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media != "application/octet-stream":
        raise UnsupportedMediaType("Image data is sent as application/octet-stream.")
    declared = _declared_size(call)
    cloud, image_id, upload_id = call.cloud, call.target.id, call.cloud.clock.uuid()
    settings, folder = cloud.settings, files.image_folder(cloud.state_dir)
    image, allowed = await cloud.db.write_async(
        lambda tx: _begin(tx, image_id, upload_id, declared, call.now_us, settings)
    )
    written: Written | None = None
    active = False
    try:
        written = placed = await _receive(body, folder, image, upload_id, allowed, settings)
        quota = settings.image_project_quota_gib * GIB
        await cloud.db.write_async(lambda tx: _finish(tx, image, upload_id, placed, cloud.clock.now_us(), quota))
        active = True
    finally:
        if not active:
            dataless = await cloud.db.write_async(lambda tx: _give_up(tx, image_id, upload_id, cloud.clock.now_us()))
            if written is not None and dataless:
                await asyncio.to_thread(files.remove, folder, image_id)


def _declared_size(call: Call[Image, None]) -> int | None:
    text = call.headers.get("x-openstack-image-size") or call.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text) or None


def _begin(
    tx: Tx, image_id: str, upload_id: str, declared: int | None, now_us: int, settings: Settings
) -> tuple[Image, int]:
    """Take the image for this upload: queued to saving. Returns it, and how many bytes it may have."""
    image = store.find(tx, image_id)
    if image is None:
        raise NotFound(f"Failed to find image {image_id}")
    free = max(0, settings.image_project_quota_gib * GIB - store.stored_bytes(tx, image.owner))
    if free < (declared or 1):
        raise OverQuota("The project's images would exceed its storage quota.")
    allowed = min(free, settings.image_size_limit_gib * GIB)
    if (declared or 0) > allowed:
        raise TooLarge("The incoming image is too large.")
    missing = [name for name in ("disk_format", "container_format") if not getattr(image, name)]
    if image.status == "queued" and missing:
        raise BadRequest(f"Properties {', '.join(missing)} must be set prior to saving data.")
    if not store.begin_upload(tx, image_id, upload_id, now_us):
        raise Conflict(f"Image status transition from {image.status} to saving is not allowed")
    return image, allowed


async def _receive(
    body: _Body, folder: Path, image: Image, upload_id: str, allowed: int, settings: Settings
) -> Written:
    """Read the body into the store. Leaves no file behind when it fails."""
    assert image.disk_format is not None
    inspection = Inspection(image.disk_format, virtual_size_limit=settings.image_virtual_size_limit_gib * GIB)
    upload: Upload | None = None
    try:
        upload = await asyncio.to_thread(Upload, folder, upload_id, inspection)
        received = 0
        async for chunk in body.chunks():
            received += len(chunk)
            if received > allowed:
                raise TooLarge("The incoming image is too large.")
            await asyncio.to_thread(upload.write, chunk)
        if received == 0:
            raise Refused("The upload is empty.")
        return await asyncio.to_thread(upload.place, image.id)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TooLarge("Image storage media is full.", private=str(error)) from None
        raise
    finally:
        if upload is not None:
            await asyncio.to_thread(upload.discard)


def _finish(tx: Tx, image: Image, upload_id: str, written: Written, now_us: int, quota: int) -> None:
    """The data is in place: make the image active, in one statement with all that is known of its data."""
    if store.stored_bytes(tx, image.owner) + written.size > quota:
        raise OverQuota("The project's images would exceed its storage quota.")
    became_active = store.end_upload(
        tx,
        image.id,
        upload_id,
        now_us,
        status="active",
        size=written.size,
        virtual_size=written.virtual_size,
        checksum=written.md5,
        os_hash_value=written.sha512,
    )
    if not became_active:
        raise Gone(f"Image {image.id} could not be found after upload. It may have been deleted during the upload.")


def _give_up(tx: Tx, image_id: str, upload_id: str, now_us: int) -> bool:
    """Saving back to queued. Returns whether the image has no data: a commit that seemed to fail may have held."""
    store.end_upload(tx, image_id, upload_id, now_us, status="queued")
    image = store.find(tx, image_id)
    return image is None or image.size is None


class _Body:
    """The request's body in chunks worth a thread's while, and what is left of it after a refusal."""

    def __init__(self, request: Request) -> None:
        self._pieces = aiter(request.stream())

    async def _next(self) -> bytes | None:
        """The next piece, None at the end; TimeoutError for a client that has stopped sending."""
        async with asyncio.timeout(IDLE_SECONDS):
            return await anext(self._pieces, None)

    async def chunks(self) -> AsyncIterator[bytes]:
        pending = bytearray()
        while (piece := await self._next()) is not None:
            pending += piece
            if len(pending) >= CHUNK_BYTES:
                yield bytes(pending)
                pending.clear()
        if pending:
            yield bytes(pending)

    async def drain(self) -> None:
        from starlette.requests import ClientDisconnect

        left = DRAIN_LIMIT_BYTES
        with contextlib.suppress(ClientDisconnect, TimeoutError):
            while left > 0 and (piece := await self._next()) is not None:
                left -= len(piece)


# -- download


@IMAGE.operation(
    "GET", "/images/{image_id}/file", rules=(Rule(DOWNLOAD_IMAGE),), target=image_in_sight, facts=facts_of_call
)
async def download_image_data(call: Call[Image, None]) -> Reply:
    """Download an image's data, whole or a range of it; 204 while it has none."""
    image = call.target
    if image.status == "deactivated" and not call.caller.is_admin:
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    if image.status not in ("active", "deactivated") or not image.size:
        return Reply(status=204)
    start, length = 0, image.size
    headers = {"Content-Type": "application/octet-stream", "Content-MD5": image.checksum or ""}
    status = 200
    if (wanted := call.headers.get("range")) is not None:
        start, length = _range(wanted, image.size)
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{image.size}"
        status = 206
    headers["Content-Length"] = str(length)
    if call.method == "HEAD":
        return Reply(status=status, headers=headers, body=b"")
    path = files.image_folder(call.cloud.state_dir) / image.id
    try:
        file = await asyncio.to_thread(_open_at, path, start)
    except FileNotFoundError:
        raise NotFound(f"Failed to find image {image.id}", private="its data is missing") from None
    return Reply(status=status, headers=headers, body=_pieces(file, length))


_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def _range(text: str, size: int) -> tuple[int, int]:
    """(offset, length) of the one range asked for."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[0] == "bytes=-":
        raise RangeNotSatisfiable("Invalid range.", headers={"Content-Range": f"bytes */{size}"})
    if not match[1]:
        length = min(int(match[2]), size)
        start = size - length
    else:
        start = int(match[1])
        end = min(int(match[2]), size - 1) if match[2] else size - 1
        length = end - start + 1
    if length <= 0 or start >= size:
        raise RangeNotSatisfiable("Invalid range.", headers={"Content-Range": f"bytes */{size}"})
    return start, length


def _open_at(path: Path, start: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(start)
    return file


async def _pieces(file: BinaryIO, length: int) -> AsyncIterator[bytes]:
    with file:
        while length > 0 and (piece := await asyncio.to_thread(file.read, min(CHUNK_BYTES, length))):
            length -= len(piece)
            yield piece


# -- after a crash


def reconcile(database: Database, state_dir: Path, now_us: int) -> int:
    """Put images that were being uploaded back to queued and remove files nobody owns; returns how many files went.

    At start only, before uploads are served: an upload that is running elsewhere would be taken for a dead one.
    """
    known = database.write(lambda tx: store.abandon_uploads(tx, now_us))
    return files.remove_leftovers(files.image_folder(state_dir), known)
