"""Images of simulated guests' disks: they hold nothing, so an image is an empty qcow2 of the disk's size.

Copying takes as long as the disk is large. The first cluster, which readers of qcow2 skip, says whose disk it was
and at which tick, so that a test can tell one from another.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from cumulet.clock import Clock, sleep_unless_set
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import DriverError, Guest
from cumulet.settings import Settings

if TYPE_CHECKING:
    from cumulet.drivers.simulated.driver import World

Take = Callable[[str, str, int, AsyncIterator[bytes]], Awaitable[None]]
"""Called with the host's name, an image's id, the size in bytes and the content. DriverError: it is refused."""
COPY_MIB_S = 2048.0
"""In a second of virtual time."""
CLUSTER = 1 << 16
NOTE_AT = 1024
"""Where in the file the note is that says whose disk it was."""


class Snapshot:
    """A snapshot that is under way, or has ended."""

    def __init__(self, image_id: str, begun_us: int) -> None:
        self.image_id = image_id
        self.begun_us = begun_us
        self.progress = SnapshotProgress(phase=SnapshotPhase.COPYING)
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def become(self, phase: SnapshotPhase, error: str | None = None) -> None:
        self.progress = SnapshotProgress(phase=phase, error=error)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class SimulatedSnapshots:
    """Part of `SimulatedDriver`. Snapshots end with the process, as with an agent of a real host."""

    name: str
    _world: World
    _clock: Clock
    _settings: Settings
    _own: Callable[[str], SimulatedGuest]
    freeze_and_thaw: Callable[[str], None]

    def __init__(self) -> None:
        self._snapshots: dict[str, Snapshot] = {}

    async def begin_snapshot(self, server_id: str, *, image_id: str, quiesce: bool = False) -> None:
        found = self._own(server_id)
        if found.standing_by:
            raise DriverError(f"guest {server_id} stands by for a move")
        known = self._snapshots.get(server_id)
        if known is not None and known.image_id == image_id:
            return
        await self.end_snapshot(server_id)
        if quiesce:
            self.freeze_and_thaw(server_id)
        ran_us = found.ran_until(self._clock.now_us())
        snapshot = self._snapshots[server_id] = Snapshot(image_id, self._clock.now_us())
        snapshot.task = asyncio.create_task(self._take(found.guest, ran_us, snapshot), name=f"snapshot-{server_id}")

    async def _take(self, guest: Guest, ran_us: int, snapshot: Snapshot) -> None:
        virtual_seconds = disk_bytes(guest) / (COPY_MIB_S * (1 << 20))
        await self._clock.sleep(virtual_seconds / self._settings.simulated_speed)
        snapshot.become(SnapshotPhase.SENDING)
        try:
            content = empty_disk(disk_bytes(guest), f"{guest.server_id} {ran_us}")
            if self._world.take is None:
                raise DriverError("there is no Image service")
            await self._world.take(self.name, snapshot.image_id, len(content), _whole(content))
        except DriverError as error:
            snapshot.become(SnapshotPhase.FAILED, str(error))
        else:
            snapshot.become(SnapshotPhase.DONE)

    async def snapshot_progress(
        self, server_id: str, *, image_id: str, wait_seconds: float, seen: SnapshotPhase
    ) -> SnapshotProgress:
        snapshot = self._snapshots.get(server_id)
        if snapshot is None or snapshot.image_id != image_id:
            return SnapshotProgress(phase=SnapshotPhase.NONE)
        if snapshot.progress.phase is seen and not seen.ended:
            await sleep_unless_set(self._clock, wait_seconds, snapshot.changed)
        if snapshot.progress.phase is SnapshotPhase.COPYING:
            virtual_us = (self._clock.now_us() - snapshot.begun_us) * self._settings.simulated_speed
            return SnapshotProgress(
                phase=SnapshotPhase.COPYING, bytes_done=int(virtual_us * COPY_MIB_S * (1 << 20) / 1_000_000)
            )
        return snapshot.progress

    async def end_snapshot(self, server_id: str) -> None:
        snapshot = self._snapshots.pop(server_id, None)
        if snapshot is not None and snapshot.task is not None:
            snapshot.task.cancel()

    def fail_snapshot(self, server_id: str, error: str) -> None:
        """The guest that it is of has ended."""
        snapshot = self._snapshots.get(server_id)
        if snapshot is not None and not snapshot.progress.phase.ended:
            assert snapshot.task is not None
            snapshot.task.cancel()
            snapshot.become(SnapshotPhase.FAILED, error)

    def copies_of_disks(self) -> list[str]:
        """Ids of the guests whose disk is being copied or sent. A snapshot that has ended keeps no copy."""
        return [server_id for server_id, one in self._snapshots.items() if not one.progress.phase.ended]

    def snapshot_tasks(self) -> list[asyncio.Task[None]]:
        return [snapshot.task for snapshot in self._snapshots.values() if snapshot.task is not None]


def disk_bytes(guest: Guest) -> int:
    if guest.disk_gib or guest.image is None:
        return guest.disk_gib << 30
    return -(-guest.image.virtual_size_bytes // 512) * 512


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content


def empty_disk(size: int, note: str) -> bytes:
    """A qcow2 file of four clusters: header, table and block of reference counts, the table of what is allocated."""
    entries = max(1, -(-size // (CLUSTER * (CLUSTER // 8))))
    if entries * 8 > CLUSTER:
        raise DriverError(f"a disk of {size} bytes is larger than a simulated host can describe")
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb",
        3,
        0,
        0,
        16,
        size,
        0,
        entries,
        3 * CLUSTER,
        CLUSTER,
        1,
        0,
        0,
        0,
        0,
        0,
        4,
        104,
    )
    first = header.ljust(NOTE_AT, b"\0") + note.encode()
    counts = struct.pack(">Q", 2 * CLUSTER), struct.pack(">4H", 1, 1, 1, 1)
    return b"".join(part.ljust(CLUSTER, b"\0") for part in (first, *counts, b""))
