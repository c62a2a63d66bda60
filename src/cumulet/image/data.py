"""Image data: upload once, inspected on the way; download."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from cumulet.errors import ApiError, BadRequest, Forbidden, NotFound, UnsupportedMediaType
from cumulet.image import files
from cumulet.image.files import CHUNK_BYTES
from cumulet.image.qcow2 import Refused
from cumulet.image.sending import Body, places_of
from cumulet.image.service import ADMIN_OR_MEMBER, ADMIN_OR_MEMBER_WHO_SEES, IMAGE, facts_of_call, image_in_sight
from cumulet.image.store import Image
from cumulet.image.stores import store_in_header
from cumulet.image.uploads import UPLOAD, Way, upload
from cumulet.web.bodies import streaming
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule

UPLOAD_IMAGE = rule("upload_image", ADMIN_OR_MEMBER, description="Upload an image's data.")
DOWNLOAD_IMAGE = rule("download_image", ADMIN_OR_MEMBER_WHO_SEES, description="Download an image's data.")


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
    await take_body(call, UPLOAD)


async def take_body(call: Call[Image, None], way: Way) -> None:
    """Store what the request sends. After a refusal the rest is read for a while, so that clients see the answer."""
    assert call.request is not None
    body = Body(call.request, call.cloud.settings.upload_least_kib_per_second << 10)
    with contextlib.ExitStack() as places:
        await _take(call, way, body, places)


async def _take(call: Call[Image, None], way: Way, body: Body, places: contextlib.ExitStack) -> None:
    """An upload has its place until the rest was read: an error may hold its memory until then."""
    from starlette.requests import ClientDisconnect

    stored = False
    try:
        media = (call.headers.get("content-type") or "").partition(";")[0].strip().lower()
        if media != "application/octet-stream":
            raise UnsupportedMediaType("Image data is sent as application/octet-stream.")
        store_in_header(call.headers)
        declared = _declared_size(call)
        places.enter_context(places_of(call.cloud.space).taken(call.caller))
        with streaming(call):
            await upload(call, body, declared, way)
        stored = True
    except Refused as refused:
        raise UnsupportedMediaType(str(refused), reason="IMAGE_REFUSED") from None
    except (ClientDisconnect, TimeoutError):
        raise BadRequest("The upload ended early, or its data came too slowly.") from None
    finally:
        if not stored:
            await body.drain()


def _declared_size(call: Call[Image, None]) -> int | None:
    text = call.headers.get("x-openstack-image-size") or call.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text) or None


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
    path = files.image_folder(call.cloud.state_dir) / image.id
    try:
        file = await asyncio.to_thread(_open_at, path, start)
    except FileNotFoundError:
        raise NotFound(f"Failed to find image {image.id}", private="its data is missing") from None
    return Reply(status=status, headers=headers, body=_pieces(file, length))


_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def _range(text: str, size: int) -> tuple[int, int]:
    """(offset, length) of the one range asked for."""
    if "," in text:
        raise BadRequest("Requests with multiple ranges are not supported.")
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
