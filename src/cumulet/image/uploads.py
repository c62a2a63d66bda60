"""Receiving an image's data. Room is reserved before data comes. It ends when its image or its sender's right ends.

An upload reserves what its client says it will send, or `AHEAD_BYTES` at a time: of its project's quota in the database
and of the disk in `Space`. Blocks are hashed and written on threads while the next ones are received.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import (
    BadRequest,
    Conflict,
    Gone,
    InsufficientStorage,
    NotFound,
    OverQuota,
    TooLarge,
    Unauthorized,
)
from cumulet.image import attributes, files, store
from cumulet.image.files import BLOCK_BYTES, Upload, Written
from cumulet.image.inspection import OpaqueContent, inspection_of
from cumulet.image.sending import Body
from cumulet.image.store import Image
from cumulet.settings import Settings
from cumulet.space import Promise, Space
from cumulet.web.operation import Call

GIB = 1 << 30
AHEAD_BYTES = 64 << 20
"""What is reserved at a time for an upload that does not say how long it is."""
CHECK_SECONDS = 5.0
"""How often an upload checks that its image and its token still exist."""

T = TypeVar("T")
Require = Callable[[], Awaitable[None]]
"""Raises as soon as the sender has lost the right to send."""
Convert = Callable[[Path, Written], Awaitable[Written]]


class Records(Protocol):
    """The database, or what a long operation may do with it."""

    async def write_async(self, fn: Callable[[Tx], T]) -> T: ...
    async def read_async(self, fn: Callable[[Tx], T]) -> T: ...


class Place(Protocol):
    """Of a cloud: where image data goes."""

    @property
    def settings(self) -> Settings: ...
    @property
    def db(self) -> Records: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def state_dir(self) -> Path: ...
    @property
    def space(self) -> Space: ...


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """The statuses of an image before, during and after its data comes.

    staged: the data is kept to be imported, and is not the image's yet.
    """

    begins: str = "queued"
    during: str = "saving"
    ends: str = "active"
    staged: bool = False


UPLOAD = Way()
STAGE = Way(during="uploading", ends="uploading", staged=True)


async def upload(call: Call[Image, None], body: Body, declared: int | None, way: Way) -> None:
    """From queued to active, or back to queued with nothing left behind."""
    cloud, token = call.cloud, call.headers.token
    last = "stage" if way.staged else "file"
    request = {"service": "image", "method": call.method, "path": f"/image/v2/images/{call.target.id}/{last}"}

    async def require_token() -> None:
        if await cloud.identity.authenticate(token, **request) is None:
            raise Unauthorized("The request you have made requires authentication.", private="the token ended")

    pieces = body.pieces() if declared is None else _as_declared(body.pieces(), declared)
    await receive_data(cloud, call.target.id, pieces, declared, require_token, way)


async def _as_declared(pieces: AsyncIterator[bytes], declared: int) -> AsyncIterator[bytes]:
    """BadRequest as soon as there is more than its sender said, and at the end of what is less."""
    received = 0
    async for piece in pieces:
        received += len(piece)
        if received > declared:
            raise BadRequest(f"The data is longer than its sender said: {declared} bytes.", reason="IMAGE_SIZE")
        yield piece
    if received < declared:
        words = f"The data has {received} bytes; its sender said {declared} bytes."
        raise BadRequest(words, reason="IMAGE_SIZE")


async def receive_data(
    cloud: Place,
    image_id: str,
    pieces: AsyncIterator[bytes],
    declared: int | None,
    require: Require,
    way: Way = UPLOAD,
) -> None:
    """As `upload`, for any sender. `require` is called every `CHECK_SECONDS`; it raises when the right is lost."""
    folder = files.image_folder(cloud.state_dir)
    if (declared or 0) > cloud.settings.image_size_limit_gib * GIB:
        raise TooLarge("The incoming image is too large.")
    first = declared or AHEAD_BYTES
    promise = cloud.space.promise(cloud.state_dir, first, floor_mib=cloud.settings.free_space_floor_mib)
    try:
        receiver = await Receiver.begin(cloud, image_id, promise, declared, require, way)
        written: Written | None = None
        active = False
        try:
            written = await receiver.receive(pieces)
            await cloud.db.write_async(receiver.finisher(written))
            active = True
        finally:
            if not active and await cloud.db.write_async(receiver.give_up) and written is not None:
                remove = files.remove_staged if way.staged else files.remove
                await asyncio.to_thread(remove, folder, receiver.image.id)
    finally:
        promise.end()


class Receiver:
    """One upload under way. `reserved`: bytes of its project's quota and of the disk."""

    def __init__(
        self,
        cloud: Place,
        image: Image,
        promise: Promise,
        upload_id: str,
        reserved: int,
        require: Require,
        way: Way = UPLOAD,
    ) -> None:
        self.image = image
        self.upload_id = upload_id
        self._way = way
        self._cloud = cloud
        self._require = require
        self._folder = files.image_folder(cloud.state_dir)
        self._promise = promise
        self._reserved = reserved
        self._received = 0
        self._checked = cloud.clock.monotonic()

    @classmethod
    async def begin(
        cls,
        cloud: Place,
        image_id: str,
        promise: Promise,
        declared: int | None,
        require: Require,
        way: Way = UPLOAD,
    ) -> Receiver:
        upload_id, settings, now_us = cloud.clock.uuid(), cloud.settings, cloud.clock.now_us()

        def begun(tx: Tx) -> tuple[Image, int]:
            return take(tx, image_id, upload_id, declared, now_us, settings, way)

        image, reserved = await cloud.db.write_async(begun)
        return cls(cloud, image, promise, upload_id, reserved, require, way)

    async def receive(self, pieces: AsyncIterator[bytes], convert: Convert | None = None) -> Written:
        """Read the content into the store. Leaves no file behind when it fails.

        convert: makes the image's data of the file of what has come, which is removed afterwards.
        """
        with files.threads:
            return await self._receive(pieces, convert)

    async def _receive(self, pieces: AsyncIterator[bytes], convert: Convert | None) -> Written:
        limit = self._cloud.settings.image_virtual_size_limit_gib * GIB
        formats = (self.image.disk_format or "", self.image.container_format or "")
        inspection = (
            OpaqueContent(size_limit=limit) if self._way.staged else inspection_of(*formats, virtual_size_limit=limit)
        )
        file: Upload | None = None
        try:
            file = await self._on_thread(Upload, self._folder, self.upload_id, inspection)
            await self._clear_place()
            await self._write_all(pieces, file)
            if convert is not None:
                return await convert(file.path, await self._on_thread(file.whole))
            written: Written = await self._on_thread(partial(file.place, staged=self._way.staged), self.image.id)
            return written
        except FileNotFoundError:
            # Its image was deleted, or it was taken for one of a dead process. Otherwise the store has lost a file.
            await self.require_ours()
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise InsufficientStorage("Image storage media is full.", private=str(error)) from None
            raise
        finally:
            if file is not None:
                await self._on_thread(file.discard)

    async def _clear_place(self) -> None:
        """Remove what a dead upload of this image has left there. Our own file is open, so nobody takes us for dead."""
        place = files.place_of(self._folder, self.image.id, staged=self._way.staged)
        if await self._on_thread(place.exists):
            await self.require_ours()
            await self._on_thread(partial(place.unlink, missing_ok=True))

    async def _write_all(self, pieces: AsyncIterator[bytes], file: Upload) -> None:
        """Each block is written while the next is received: into memory of its own, which is aligned and used again."""
        writing: asyncio.Future[None] | None = None
        block, other = memoryview(mmap.mmap(-1, BLOCK_BYTES)), memoryview(mmap.mmap(-1, BLOCK_BYTES))
        size = 0
        try:
            async for piece in pieces:
                await self._allow(len(piece))
                left = memoryview(piece)
                while left:
                    taken = min(len(left), BLOCK_BYTES - size)
                    block[size : size + taken] = left[:taken]
                    size, left = size + taken, left[taken:]
                    if size == BLOCK_BYTES:
                        if writing is not None:
                            await writing
                        writing = self._write(file, block)
                        block, other, size = other, block, 0
            if writing is not None:
                await writing
            writing = self._write(file, block[:size])
        finally:
            if writing is not None:
                await writing

    def _write(self, file: Upload, block: memoryview) -> asyncio.Future[None]:
        writing = self._on_thread(file.write, block)
        writing.add_done_callback(lambda _: self._promise.written(len(block)))
        return writing

    async def _allow(self, size: int) -> None:
        """Count what has come, and reserve more. Raises if that is not possible, or the image or the right is gone."""
        self._received += size
        if self._received > self._reserved:
            more = max(AHEAD_BYTES, self._received - self._reserved)
            self._reserved = await self._cloud.db.write_async(lambda tx: self._extend(tx, self._reserved + more))
            self._promise.grow(more)
        elif self._cloud.clock.monotonic() < self._checked + CHECK_SECONDS:
            return
        else:
            await self._cloud.db.read_async(self._require_ours)
        self._checked = self._cloud.clock.monotonic()
        await self._require()

    async def reserve(self, size: int) -> int:
        """Reserve `size` bytes for what this becomes, or as much as there is. Returns how many are reserved."""
        self._reserved = await self._cloud.db.write_async(lambda tx: self._extend(tx, max(size, self._received)))
        return self._reserved

    def _extend(self, tx: Tx, wanted: int) -> int:
        """Reserve up to `wanted` bytes; returns how many are reserved. TooLarge if less than has been received."""
        others = store.stored_bytes(tx, self.image.owner) - self._reserved
        wanted = min(wanted, _most(self._cloud.settings, others))
        if wanted < self._received:
            raise TooLarge("The incoming image is too large, or its project's images exceed their storage quota.")
        if not store.extend_upload(tx, self.image.id, self.upload_id, wanted):
            raise self._gone()
        return wanted

    async def require_ours(self) -> None:
        """Raises `Gone` if the image was deleted, or another upload has it."""
        await self._cloud.db.read_async(self._require_ours)

    def _require_ours(self, tx: Tx) -> None:
        image = store.find(tx, self.image.id)
        if image is None or image.upload_id != self.upload_id:
            raise self._gone()

    def finisher(self, written: Written) -> Callable[[Tx], None]:
        """The transaction that makes the image active, with all that is known of its data, which is in place."""

        def finish(tx: Tx) -> None:
            known: dict[str, object] = {"upload_bytes": written.size} if self._way.staged else data_of(written)
            now_us = self._cloud.clock.now_us()
            if not store.end_upload(tx, self.image.id, self.upload_id, now_us, status=self._way.ends, **known):
                raise self._gone()

        return finish

    def give_up(self, tx: Tx) -> bool:
        """Set the image back to its status before. Returns whether what came can be removed: a commit that seemed to
        fail may have succeeded, and of an image that is another upload's by now this one knows nothing."""
        now_us = self._cloud.clock.now_us()
        ours = store.end_upload(tx, self.image.id, self.upload_id, now_us, status=self._way.begins)
        return ours or store.find(tx, self.image.id) is None

    def _gone(self) -> Gone:
        return Gone(
            f"Image {self.image.id} could not be found after upload. It was deleted, or this upload was taken for one "
            "of a dead process, and ended."
        )

    def _on_thread(self, work: Any, *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(files.threads.writers, work, *arguments)


def data_of(written: Written) -> dict[str, object]:
    """The attributes of an image's record that describe its data."""
    return {
        "size": written.size,
        "virtual_size": written.virtual_size,
        "checksum": written.md5,
        "os_hash_value": written.sha512,
    }


def _most(settings: Settings, others: int) -> int:
    """How many bytes one image may have, where the other images of its project have `others`."""
    return min(settings.image_project_quota_gib * GIB - others, settings.image_size_limit_gib * GIB)


def take(
    tx: Tx,
    image_id: str,
    upload_id: str,
    declared: int | None,
    now_us: int,
    settings: Settings,
    way: Way = UPLOAD,
) -> tuple[Image, int]:
    """Take the image for this upload: queued to saving. Returns it, and how many bytes are reserved."""
    image = store.find(tx, image_id)
    if image is None:
        raise NotFound(f"Failed to find image {image_id}")
    attributes.refuse_signed(image.properties)
    # What is staged for it is reserved already.
    stored = store.stored_bytes(tx, image.owner) - (image.upload_bytes or 0)
    if settings.image_project_quota_gib * GIB - stored < (declared or 1):
        raise OverQuota("The project's images would exceed its storage quota.")
    missing = [name for name in ("disk_format", "container_format") if not getattr(image, name)]
    if image.status == way.begins and missing and not way.staged:
        raise BadRequest(f"Properties {', '.join(missing)} must be set prior to saving data.")
    reserved = declared or min(AHEAD_BYTES, _most(settings, stored))
    if not store.begin_upload(tx, image_id, upload_id, reserved, now_us, expected=way.begins, to=way.during):
        raise Conflict(f"Image status transition from {image.status} to {way.during} is not allowed")
    return image, reserved
