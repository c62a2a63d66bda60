"""Images of servers' disks: the record of an image that waits for its content, and how the content comes.

Theory of operation. The image is recorded, queued, in the request's transaction. The server's host copies the disk as
it is at one moment and brings the copy to the Image service with its certificate; the service takes it from that host
only, and only while this operation waits for it. Whether it has come is read from the image's record, never from what
the host says: once it is active, the snapshot is done, and what the host keeps is removed. An image that is deleted
meanwhile ends the operation; one that cannot be made is deleted.

A host that stands still is given up. It does not while its image waits for a place among those that travel: until it
has one, its image is queued.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from typing import Protocol, TypeVar

import msgspec

from cumulet.compute import guest_agent, image_promises, operations
from cumulet.compute.image_promises import MIN_DISK, MIN_RAM
from cumulet.compute.model import BASE_IMAGE, Server
from cumulet.compute.operations import SERVER, Commanding, OnHost, command
from cumulet.compute.store import get_server
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed
from cumulet.db.engine import Tx
from cumulet.host import disk_messages as disk
from cumulet.host import messages as m
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import Guest
from cumulet.host.images import WAIT_SECONDS as PLACE_SECONDS
from cumulet.host.patience import WORK_SECONDS, seconds_for
from cumulet.image import files, snapshots
from cumulet.image import store as image_store
from cumulet.web.operation import Call

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.5
"""How long a host keeps a question about a snapshot before it answers that there is nothing new."""
BEGUN, PENDING, UPLOADING = "image_snapshot", "image_pending_upload", "image_uploading"
"""Task states, as in Nova: copying, and sending."""


class Waiting(Commanding, Protocol):
    """The part of a saga's state that says which image waits for which host."""

    @property
    def host(self) -> str: ...
    @property
    def image_id(self) -> str: ...


WaitingT = TypeVar("WaitingT", bound=Waiting)


class Snapshot(OnHost, frozen=True, kw_only=True):
    """State of the saga. With a `backup_type` it is a backup: the newest `rotation` of that type are kept."""

    image_id: str
    backup_type: str | None = None
    rotation: int = 0


def base_of(server: Server) -> dict[str, str]:
    """The image that a server's disk goes back to, as a property of images of it; `{}`: it has none."""
    base = server.system_metadata.get(BASE_IMAGE) or server.image_id
    return {BASE_IMAGE: base} if base else {}


def new_image(
    call: Call[object, object], server: Server, *, name: str, image_type: str, properties: Mapping[str, str]
) -> str:
    """Record the image of a server's disk, queued; its id. OverQuota: the project may not have another."""
    own = call.caller.project_id == server.project_id
    given = {
        "instance_uuid": server.id,
        "user_id": call.caller.user_id,
        "image_type": image_type,
        "image_location": "snapshot",
        "image_state": "available",
        "owner_id": server.project_id,
        **base_of(server),
        **({} if own else {"instance_owner": server.project_id}),
        **properties,
    }
    min_ram, min_disk = _minimums(call.tx, server)
    return snapshots.add(
        call,
        name=name,
        properties={**image_promises.inherited(server.image_properties, given), **given},
        min_disk_gib=server.flavor.disk_gib or min_disk,
        min_ram_mib=min_ram,
        shared_with=None if own else server.project_id,
    )


def _minimums(tx: Tx, server: Server) -> tuple[int, int]:
    """What the server's image asked of flavors when it was made. Of an older server: what that image asks today."""
    if MIN_RAM in server.system_metadata:
        return int(server.system_metadata[MIN_RAM]), int(server.system_metadata[MIN_DISK])
    base = image_store.find(tx, server.image_id) if server.image_id else None
    return (base.min_ram, base.min_disk) if base is not None else (0, 0)


# -- steps


async def make_image(context: Context, state: Snapshot) -> Snapshot:
    if state.backup_type is None:
        await context.record(lambda tx: _show(tx, context, state, BEGUN))
    await bring_image(context, state, PENDING, UPLOADING)
    return state


async def bring_image(context: Context, state: Waiting, copying: str, sending: str) -> None:
    """Have the host copy the disk and bring it; returns once the image is active. Task states for both are given."""
    status = await _status(context, state)
    disk_seconds = WORK_SECONDS
    if status != "active":
        server: Server = await context.read(lambda tx: get_server(tx, state.server_id, deleted=True))
        disk_seconds = _disk_seconds(server)
        quiesce = guest_agent.has_to_quiesce(server.image_properties)
        begun = disk.BeginSnapshot(**command(context, state), image_id=state.image_id, quiesce=quiesce)
        await context.hosts.send(state.host, begun)
    patience = context.settings.migration_progress_timeout_seconds
    until = context.clock.monotonic() + patience
    seen = SnapshotProgress(phase=SnapshotPhase.NONE)
    seen_status = status
    shown = ""
    while status != "active":
        progress = await operations.ask_patiently(
            context,
            functools.partial(_ask, context, state, seen.phase),
            until=context.clock.monotonic() + patience,
            reason="HOST_SILENT",
            public="The server's host does not answer.",
        )
        now = context.clock.monotonic()
        if (progress, status) != (seen, seen_status):
            seen, seen_status = progress, status
            until = now + max(patience, _longer(progress, status, disk_seconds))
        elif now > until:
            raise StepFailed("NO_PROGRESS", "The making of the image made no progress.", f"at {seen.bytes_done} bytes")
        sends = progress.phase is SnapshotPhase.SENDING or progress.phase.ended
        task_state = sending if sends or shown == sending else copying
        if task_state != shown:
            await context.record(lambda tx, to=task_state: _show(tx, context, state, to))  # type: ignore[misc]
            shown = task_state
        if (await context.record(lambda tx: None)).abort:
            raise StepFailed("ABORTED", "The operation was aborted by a user.")
        status = await _status(context, state)
        if status is None:
            raise StepFailed("IMAGE_DELETED", "The image was deleted before it was made.")
        if progress.phase.ended and status != "active":
            raise StepFailed(
                "SNAPSHOT_FAILED", "The image of the server could not be made.", progress.error or progress.phase.value
            )


def _disk_seconds(server: Server) -> float:
    """How long the server's host gives a tool to copy its disk."""
    if server.guest is None:
        return WORK_SECONDS
    guest = msgspec.convert(server.guest, Guest)
    image_bytes = 0 if guest.image is None else guest.image.virtual_size_bytes
    return seconds_for(guest.disk_gib << 30 or image_bytes)


def _longer(progress: SnapshotProgress, status: str | None, disk_seconds: float) -> float:
    """How long a host may say the same where that does not mean that it stands still; else 0.

    Its image waits for a place while it is queued. An agent of an older version says nothing while a tool copies.
    """
    if progress.phase is SnapshotPhase.SENDING and status == "queued":
        return PLACE_SECONDS
    return disk_seconds if progress.phase is SnapshotPhase.COPYING and not progress.bytes_done else 0.0


async def _status(context: Context, state: Waiting) -> str | None:
    """The image's status; None: it is gone."""
    found = await context.read(lambda tx: image_store.data_of(tx, state.image_id))
    return None if found is None else str(found.status)


def _show(tx: Tx, context: Context, state: Waiting, task_state: str) -> None:
    operations.settle(tx, state.server_id, now_us=context.clock.now_us(), task_state=task_state)


async def _ask(context: Context, state: Waiting, seen: SnapshotPhase) -> SnapshotProgress:
    """The snapshot's progress, once its phase differs from `seen`, or after a while."""
    question = disk.AskSnapshot(
        server_id=state.server_id, image_id=state.image_id, wait_seconds=WAIT_SECONDS, seen=seen
    )
    return await context.hosts.send(state.host, question, seconds=WAIT_SECONDS + 10.0)


async def end_snapshot(context: Context, state: WaitingT) -> WaitingT:
    """Remove all of it on the host, whether it succeeded, failed, or was never begun.

    What a guest's process holds that does not answer goes with that process, or with the next snapshot.
    """
    try:
        await operations.unless_down(context, state.host, disk.EndSnapshot(**command(context, state)))
    except m.VerbFailed as error:
        if not error.hangs:
            raise
        log.warning("the snapshot of %s on %s: %s", state.server_id, state.host, error)
    return state


async def remove_outdated(context: Context, state: Snapshot) -> Snapshot:
    """Remove backups that are too old. What a crash leaves of their data, `image.left_data` removes."""
    if state.backup_type is None:
        return state
    outdated: list[str] = []
    rotate = functools.partial(
        snapshots.rotate,
        image_id=state.image_id,
        server_id=state.server_id,
        backup_type=state.backup_type,
        keep=state.rotation,
        now_us=context.clock.now_us(),
    )

    def work(tx: Tx) -> None:
        outdated[:] = rotate(tx)  # It may run more than once: what an earlier try deleted is there again.

    await context.record(work)
    for image_id in outdated:
        await _remove_data(context, image_id)
    return state


class OfImage(Protocol):
    """The state of an operation that deletes an image, if there is one."""

    @property
    def image_id(self) -> str | None: ...


async def remove_image(context: Context, state: OfImage) -> None:
    """Remove the data of an image whose record is deleted. What a crash leaves, `image.left_data` removes.

    An image that has its record still is protected, and keeps its data.
    """
    image_id = state.image_id
    if image_id is not None and await context.read(lambda tx: image_store.data_of(tx, image_id)) is None:
        await _remove_data(context, image_id)


async def _remove_data(context: Context, image_id: str) -> None:
    """Not in the event loop's thread: removing a large file takes a while."""
    await asyncio.to_thread(files.remove, files.image_folder(context.settings.state_dir), image_id)


def record_image(tx: Tx, context: Context, state: Snapshot) -> Snapshot:
    now = context.clock.now_us()
    operations.settle(tx, state.server_id, now_us=now, task_state=None)
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def unwound(tx: Tx, context: Context, state: Snapshot, failure: Failure) -> None:
    """The server is as it was; an image that was not made is deleted, as Nova does."""
    now = context.clock.now_us()
    snapshots.give_up(tx, state.image_id, now)
    operations.settle(tx, state.server_id, now_us=now, task_state=None)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


SNAPSHOT = Saga(
    name="snapshot",
    kind=SERVER,
    state=Snapshot,
    steps=(Step(make_image, undo=end_snapshot),),
    # The image is active: its owner keeps it, whatever happens now.
    finals=(Final(end_snapshot), Final(remove_outdated), Final(record_image)),
    unwound=unwound,
)
