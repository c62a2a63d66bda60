"""What a host can do with a guest's disk beside running it: protocols of `host.driver`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from cumulet.host.record import Record

if TYPE_CHECKING:
    from cumulet.host.driver import Guest


MOST_FURTHER_DISKS = 8
"""A guest has at most so many disks beside its first."""
SWAP = "swap"
FILE_SYSTEMS = ("ext2", "ext3", "ext4")
"""What an ephemeral disk can be made with."""


class Disk(Record, frozen=True):
    """A disk beside the first. `place`: where the guest sees it, from 1 on; `content`: a file system, or ``swap``."""

    place: int
    size_mib: int
    content: str
    label: str = ""
    """The file system's label; swap has none."""


class SnapshotPhase(StrEnum):
    """Where the making of an image is, on the host of its guest."""

    NONE = "none"
    """The host knows of none: it was never begun, or the agent that was making it has ended."""
    COPYING = "copying"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (SnapshotPhase.NONE, SnapshotPhase.DONE, SnapshotPhase.FAILED)


class SnapshotProgress(Record, frozen=True):
    """`bytes_done`: of the phase it is in."""

    phase: SnapshotPhase
    error: str | None = None
    bytes_done: int = 0


class Snapshots(Protocol):
    """A guest's disk as it is at one moment, brought to the Image service. The guest goes on meanwhile."""

    async def begin_snapshot(self, server_id: str, *, image_id: str, quiesce: bool = False) -> None:
        """Begin to copy the disk, and then to send it as the content of an image. Begun for this image, or done
        already, is success; what an earlier one has left is removed first. A guest in a move: DriverError.

        `quiesce`: one that runs is asked by its agent to write down what it holds, and to write nothing at the moment
        that the copy is of."""
        ...

    async def snapshot_progress(
        self, server_id: str, *, image_id: str, wait_seconds: float, seen: SnapshotPhase
    ) -> SnapshotProgress:
        """How far it is; waits up to `wait_seconds` for the phase to differ from `seen`."""
        ...

    async def end_snapshot(self, server_id: str) -> None:
        """Give up what is under way, and remove the copy. None there, or no such guest, is success."""
        ...


class Rescue(Protocol):
    """A guest that boots from another disk than its own."""

    async def rescue(self, guest: Guest) -> None:
        """End its process and start it with a disk from the image that `guest` names, its own disk second, and with
        `guest`'s config drive. Its own description stays. Running so already is success."""
        ...

    async def unrescue(self, server_id: str, *, run: bool) -> None:
        """Take that disk away: the guest is as before, stopped, or with `run` started from its own disk. One that is
        not rescued is left alone, but for one that is stopped and shall run."""
        ...

    async def rescued(self, server_id: str) -> bool: ...
