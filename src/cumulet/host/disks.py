"""What a host can do with a guest's disk beside running it: protocols of `host.driver`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from cumulet.host.record import Record

if TYPE_CHECKING:
    from cumulet.host.driver import Guest


MOST_FURTHER_DISKS = 8
"""How many disks a guest may have beside its first."""
SWAP = "swap"
FILE_SYSTEMS = ("ext2", "ext3", "ext4")
"""The file systems that an ephemeral disk can have."""


class Disk(Record, frozen=True):
    """A disk beside the first. `place`: where the guest sees it, from 1 on; `content`: a file system, or ``swap``."""

    place: int
    size_mib: int
    content: str
    label: str = ""
    """The file system's label; swap has none."""


class SnapshotPhase(StrEnum):
    """The phase of a snapshot, on the host of its guest."""

    NONE = "none"
    """The host has none: it was never begun, or the agent that made it has ended."""
    COPYING = "copying"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (SnapshotPhase.NONE, SnapshotPhase.DONE, SnapshotPhase.FAILED)


class SnapshotProgress(Record, frozen=True):
    """`bytes_done`: of the phase it is in; it grows as long as that moves. Where a tool copies the disk, it counts what
    is read and what is written. Agents of older versions leave it at 0 then."""

    phase: SnapshotPhase
    error: str | None = None
    bytes_done: int = 0


class Snapshots(Protocol):
    """A guest's disk as it is at one moment, sent to the Image service while the guest runs on."""

    async def begin_snapshot(self, server_id: str, *, image_id: str, quiesce: bool = False) -> None:
        """Begin to copy the disk and to send the copy as the content of an image. What an earlier snapshot has left is
        removed first. If it was begun for this image already, or is done, that is success. DriverError during a move.

        `quiesce`: a running guest's agent is asked to write its caches to disk, and then nothing at the moment of the
        copy."""
        ...

    async def snapshot_progress(
        self, server_id: str, *, image_id: str, wait_seconds: float, seen: SnapshotPhase
    ) -> SnapshotProgress:
        """Its progress. It waits up to `wait_seconds` for the phase to differ from `seen`."""
        ...

    async def end_snapshot(self, server_id: str) -> None:
        """Abort the snapshot and remove the copy. If there is none, or no such guest, that is success."""
        ...


class Rescue(Protocol):
    """A guest that boots from another disk than its own."""

    async def rescue(self, guest: Guest) -> None:
        """End the guest's process. Start it from a disk made of the image of `guest`, with its own disk second and with
        the config drive of `guest`. Its own description stays. If it is rescued already, that is success."""
        ...

    async def unrescue(self, server_id: str, *, run: bool) -> None:
        """End the rescue: the guest is stopped, or with `run` started from its own disk. A guest that is not rescued is
        left alone, except that a stopped one is started with `run`."""
        ...

    async def rescued(self, server_id: str) -> bool: ...
