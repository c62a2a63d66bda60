"""Images of guests' disks: a copy as the disk is at one moment, made beside it, and then sent to the Image service.

For a guest with a process QEMU itself makes the copy, by a backup job: it copies what the guest is about to overwrite
first. So the guest runs on, and the copy is of the moment in which the job began. For a guest without a process
`qemu-img` makes it. The copy is removed once it was sent or has failed. A snapshot ends with the agent that makes it;
the next agent removes what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial

from cumulet.drivers.qemu import guest_agent, guest_files, room
from cumulet.drivers.qemu.command_line import DISK_NODE
from cumulet.drivers.qemu.host import PASSING, QemuHost, Snapshot
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord
from cumulet.drivers.qemu.room import disk_bytes
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import DriverError

JOB = "snapshot0"
"""The name of the job, and of the block device it copies to."""
_TASK = "snapshot"
_PIECE_BYTES = 1 << 20


async def begin(host: QemuHost, server_id: str, *, image_id: str, quiesce: bool = False) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        if record.standing_by:
            raise DriverError("MOVING: the guest stands by for a move")
        known = host.snapshots.get(server_id)
        if known is not None and known.image_id == image_id:
            return
        await clear(host, server_id)
        snapshot = host.snapshots[server_id] = Snapshot(image_id=image_id, quiesce=quiesce)
        host.start_task(server_id, _TASK, _make(host, server_id, record, snapshot))


async def progress(
    host: QemuHost, server_id: str, *, image_id: str, wait_seconds: float, seen: SnapshotPhase
) -> SnapshotProgress:
    snapshot = host.snapshots.get(server_id)
    if snapshot is None or snapshot.image_id != image_id:
        return SnapshotProgress(phase=SnapshotPhase.NONE)
    changed = snapshot.changed
    if snapshot.progress.phase is seen and not seen.ended:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                await changed.wait()
    return snapshot.progress


async def end(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        await clear(host, server_id)


async def clear(host: QemuHost, server_id: str) -> None:
    """Remove all of a snapshot: its task, its job, its copy. The caller holds the guest's lock."""
    host.snapshots.pop(server_id, None)
    await host.stop_task(server_id, _TASK)
    folder = host.folder(server_id)
    if folder.read() is None:
        return
    await _remove_copy(host, folder)


async def _remove_copy(host: QemuHost, folder: GuestFolder) -> None:
    hypervisor = host.hypervisor(folder.server_id)
    if hypervisor is not None:
        await _forget_job(hypervisor)
    await asyncio.to_thread(guest_files.remove, folder, guest_files.SNAPSHOT)


async def _make(host: QemuHost, server_id: str, record: GuestRecord, snapshot: Snapshot) -> None:
    folder = host.folder(server_id)
    phase, error = SnapshotPhase.DONE, ""
    try:
        await _copy(host, folder, record, snapshot)
        await _send(host, folder, snapshot)
    except PASSING as problem:
        phase, error = SnapshotPhase.FAILED, str(problem)
    with contextlib.suppress(*PASSING):  # Its process hangs or has ended: `end` is asked for next.
        await _remove_copy(host, folder)
    snapshot.become(phase, error=error or None)


async def _copy(host: QemuHost, folder: GuestFolder, record: GuestRecord, snapshot: Snapshot) -> None:
    hypervisor = host.hypervisor(folder.server_id)
    disk = guest_files.look(folder, guest_files.DISK)
    written = disk.st_blocks * 512 if disk is not None else 0
    await host.disks.images.require_room(written, besides="")
    if hypervisor is None:
        await host.disks.copy(record.guest, folder, record.uid, moved=partial(_tell, folder, snapshot))
        return
    await host.disks.make_copy_target(record.guest, folder, record.uid)
    path = str(host.sandbox.folder_inside(folder) / guest_files.SNAPSHOT)
    await hypervisor.blockdev_add_copy(JOB, path)
    async with _at_rest(host, hypervisor, snapshot, folder.server_id):
        await hypervisor.copy_disk(JOB, device=DISK_NODE, target=JOB, as_it_is_now=True)
    await _follow(hypervisor, snapshot)
    await _forget_job(hypervisor)


def _tell(folder: GuestFolder, snapshot: Snapshot, moved: int) -> None:
    """How far a tool is: by what it says, or by the copy's size, whichever has grown further. It never shrinks."""
    done = max(snapshot.progress.bytes_done, moved, room.written_bytes(folder, guest_files.SNAPSHOT))
    snapshot.become(SnapshotPhase.COPYING, bytes_done=done)


@contextlib.asynccontextmanager
async def _at_rest(host: QemuHost, hypervisor: Hypervisor, snapshot: Snapshot, server_id: str) -> AsyncIterator[None]:
    """Within this the guest writes nothing, if the snapshot asks for it. A guest that does not run never writes."""
    if not snapshot.quiesce or await hypervisor.run_state() != "running":
        yield
        return
    await guest_agent.freeze(host, server_id)
    try:
        yield
    finally:
        await guest_agent.thaw(host, server_id)


async def _follow(hypervisor: Hypervisor, snapshot: Snapshot) -> None:
    while True:
        change = hypervisor.change()
        job = await hypervisor.job(JOB)
        if job is None or job.error is not None:
            raise DriverError(f"COPY_FAILED: {'the job is gone' if job is None else job.error}")
        if job.status == "concluded":
            return
        snapshot.become(SnapshotPhase.COPYING, bytes_done=job.current_progress)
        await hypervisor.wait_for_change(change, 1.0)


async def _forget_job(hypervisor: Hypervisor) -> None:
    """End the job and close the copy's file. It is no error if either is not there."""
    job = await hypervisor.job(JOB)
    if job is not None and job.status != "concluded":
        with contextlib.suppress(DriverError):  # It has concluded meanwhile.
            await hypervisor.block_job_cancel(JOB, force=True)
        while (job := await hypervisor.job(JOB)) is not None and job.status != "concluded":
            await hypervisor.wait_for_change(hypervisor.change(), 0.1)
    if job is not None:
        await hypervisor.job_dismiss(JOB)
    if JOB in await hypervisor.block_nodes():
        await hypervisor.blockdev_del(JOB)


async def _send(host: QemuHost, folder: GuestFolder, snapshot: Snapshot) -> None:
    if host.sink is None:
        raise DriverError("NO_IMAGE_SERVICE: this host was not told where images go")
    with guest_files.opened(folder, guest_files.SNAPSHOT) as file:
        size = os.fstat(file).st_size
        if size > room.file_bytes(disk_bytes(host.record(folder.server_id).guest)):
            raise DriverError("TOO_LARGE: the copy is larger than its disk can be")
        snapshot.become(SnapshotPhase.SENDING)
        await host.sink.send(snapshot.image_id, size, _pieces(file, size, snapshot))


async def _pieces(file: int, size: int, snapshot: Snapshot) -> AsyncIterator[bytes]:
    sent = 0
    while sent < size:
        piece = await asyncio.to_thread(os.pread, file, min(_PIECE_BYTES, size - sent), sent)
        if not piece:
            raise DriverError("CUT_SHORT: the copy became shorter while it was sent")
        yield piece
        sent += len(piece)
        snapshot.become(SnapshotPhase.SENDING, bytes_done=sent)
