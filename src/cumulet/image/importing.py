"""An import as a long operation: staged or fetched data becomes an image's, or the image is queued again.

The request has set the image to `importing`, so that no upload can begin. `receive` writes the data to a file of its
own and then gives it the image's name, or to what it was converted to (`conversion.py`). The first final makes the
image active, with all that is known of its data, in one statement. A process that dies before leaves files; the next
attempt or the next start removes them, because the image's record says that it has no data.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed
from cumulet.db.engine import Tx
from cumulet.image import conversion, files, internet, store, tasks
from cumulet.image.files import CHUNK_BYTES, STAGE_FOLDER
from cumulet.image.qcow2 import Refused
from cumulet.image.store import images
from cumulet.image.uploads import AHEAD_BYTES, Receiver, Way, data_of
from cumulet.settings import Settings
from cumulet.space import Space

T = TypeVar("T")
IMPORT = Way(begins="importing", during="importing")
LONGEST_MESSAGE = 500


class Importing(msgspec.Struct, frozen=True, kw_only=True):
    """State of the saga. uri: where the data is fetched from; None: it is staged. The rest is known after `receive`."""

    image_id: str
    task_id: str
    uri: str | None = None
    upload_id: str | None = None
    size: int = 0
    virtual_size: int | None = None
    disk_format: str | None = None
    """What the data was converted to; None: it is as it came."""
    md5: str = ""
    sha512: str = ""


class _Records(msgspec.Struct, frozen=True):
    """`uploads.Records` of an operation. It writes only while this conductor has the operation."""

    context: Context

    async def write_async(self, fn: Callable[[Tx], T]) -> T:
        found: list[T] = []
        await self.context.record(lambda tx: found.append(fn(tx)))
        return found[-1]

    async def read_async(self, fn: Callable[[Tx], T]) -> T:
        return await self.context.read(fn)


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """`uploads.Place` of an operation."""

    settings: Settings
    db: _Records
    clock: Clock
    state_dir: Path
    space: Space


def _place(context: Context) -> _Place:
    return _Place(
        settings=context.settings,
        db=_Records(context),
        clock=context.clock,
        state_dir=context.settings.state_dir,
        space=context.space,
    )


def begin_import(tx: Tx, context: Context, state: Importing) -> Importing:
    tasks.change(tx, state.task_id, "processing", context.clock.now_us())
    return state


async def receive(context: Context, state: Importing) -> Importing:
    """Write the data; it gets the image's name when it is whole and checked. Removes what an earlier attempt left."""
    await remove_data(context, state)
    place, folder = _place(context), files.image_folder(context.settings.state_dir)
    declared: int | None = None
    if state.uri is None:
        staged = folder / STAGE_FOLDER / state.image_id
        try:
            declared = (await asyncio.to_thread(staged.stat)).st_size or None
        except FileNotFoundError:
            raise StepFailed("NOTHING_STAGED", "The data that was staged is gone.") from None
        pieces = _pieces(staged)
    else:
        pieces = internet.fetch(state.uri, internet.hosts_in(context.settings.web_download_hosts))
    ahead = declared or AHEAD_BYTES
    promise = place.space.promise(place.state_dir, ahead, floor_mib=place.settings.free_space_floor_mib)
    try:
        receiver = await Receiver.begin(place, state.image_id, promise, declared, _nobody_asks, IMPORT)
        output = conversion.wanted(context.settings, receiver.image)
        convert = None if output is None else partial(conversion.convert, place, receiver, output)
        async with contextlib.aclosing(pieces):
            written = await receiver.receive(pieces, convert)
    except Refused as refused:
        raise StepFailed("IMAGE_REFUSED", str(refused)) from None
    except conversion.NotConverted as error:
        raise StepFailed("NOT_CONVERTED", str(error)) from None
    except (internet.NotAllowed, internet.NotFetched) as error:
        raise StepFailed("NOT_FETCHED", str(error)) from None
    finally:
        promise.end()
    return msgspec.structs.replace(
        state,
        upload_id=receiver.upload_id,
        size=written.size,
        virtual_size=written.virtual_size,
        disk_format=output,
        md5=written.md5,
        sha512=written.sha512,
    )


async def _nobody_asks() -> None:
    """The right to import was checked with the request. An import goes on when its token ends."""


async def _pieces(path: Path) -> AsyncGenerator[bytes, None]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield piece


async def remove_data(context: Context, state: Importing) -> Importing:
    """Remove what attempts have written, unless it is the image's data by now."""
    image = await context.read(lambda tx: store.find(tx, state.image_id))
    folder = files.image_folder(context.settings.state_dir)
    await asyncio.to_thread(files.prepare, folder)
    if image is not None and image.upload_id is not None:
        await asyncio.to_thread(files.remove_upload, folder, image.upload_id)
    if image is None or image.size is None:
        await asyncio.to_thread(files.remove, folder, state.image_id)
    return state


def activate(tx: Tx, context: Context, state: Importing) -> Importing:
    """Make the image active with its data, in one statement; unless it was deleted meanwhile."""
    assert state.upload_id is not None
    known = data_of(files.Written(size=state.size, virtual_size=state.virtual_size, md5=state.md5, sha512=state.sha512))
    if state.disk_format is not None:
        known["disk_format"] = state.disk_format
    now_us = context.clock.now_us()
    ended = {"import_task_id": None, "import_failed": False}
    if store.end_upload(tx, state.image_id, state.upload_id, now_us, status="active", **known, **ended):
        tasks.change(tx, state.task_id, "success", now_us, result={"image_id": state.image_id})
    else:
        tasks.change(tx, state.task_id, "failure", now_us, message="The image was deleted while it was imported.")
    return state


async def remove_staged(context: Context, state: Importing) -> Importing:
    """Remove what was staged, and the data of an image that was deleted meanwhile."""
    folder = files.image_folder(context.settings.state_dir)
    await asyncio.to_thread(files.remove_staged, folder, state.image_id)
    return await remove_data(context, state)


def unwound(tx: Tx, context: Context, state: Importing, failure: Failure) -> None:
    """The image is queued again, if it is still this import's."""
    now_us, message = context.clock.now_us(), failure.public[:LONGEST_MESSAGE]
    ours = (images.c.id == state.image_id, images.c.import_task_id == state.task_id, images.c.status == "importing")
    back = {"status": "queued", "upload_id": None, "upload_bytes": None, "import_task_id": None, "import_failed": True}
    tx.execute(sa.update(images).where(*ours).values(**back, updated_at_us=now_us))
    tasks.change(tx, state.task_id, "failure", now_us, message=message)


IMAGE_IMPORT = Saga(
    name="image-import",
    kind="image",
    state=Importing,
    steps=(Step(begin_import, undo=remove_staged), Step(receive, undo=remove_data)),
    finals=(Final(activate), Final(remove_staged)),
    unwound=unwound,
)
