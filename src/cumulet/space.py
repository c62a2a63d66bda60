"""Room on a file system: a floor that stays free for the cloud's own records, and what is promised to data to come.

Members' data (images; the hosts' caches and disks) leaves the floor free. A promise is made before the first byte of
data comes, and counts until the data is written or given up, so that what begins together cannot fill what is left.
"""

from __future__ import annotations

import os
from pathlib import Path

from cumulet.errors import InsufficientStorage

LARGEST_SHARE = 10
"""The floor is at most one in so many parts of the file system, however large the setting."""
NEARLY_FULL_SHARE = 4
"""Where less than one in so many parts of the floor is left, members may only delete: the rest is for deleting."""
MIB = 1 << 20


def floor_bytes(folder: Path, floor_mib: int) -> int:
    """What members' data has to leave free on the folder's file system."""
    found = os.statvfs(folder)
    return min(floor_mib * MIB, found.f_blocks * found.f_frsize // LARGEST_SHARE)


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Promise:
    """Room for data that is being written. `end` it in any case."""

    def __init__(self, space: Space, folder: Path, floor_mib: int) -> None:
        self._space = space
        self._folder = folder
        self._floor_mib = floor_mib
        self._left = 0

    def grow(self, size: int) -> None:
        """Promise `size` bytes more; 507 where there is no room for them."""
        room = free_bytes(self._folder) - floor_bytes(self._folder, self._floor_mib) - self._space.promised
        if size > room:
            raise InsufficientStorage(
                "The cloud's storage is full: there is no room for this data. Delete something first.",
                private=f"{size} bytes are asked for, {room} may be promised",
                reason="STORAGE_FULL",
            )
        self._left += size
        self._space.promised += size

    def written(self, size: int) -> None:
        """So much of it is on the disk now, and is seen there."""
        kept = min(size, self._left)
        self._left -= kept
        self._space.promised -= kept

    def end(self) -> None:
        self.written(self._left)


class Space:
    """The promises of one process. Lives on the event loop's thread."""

    def __init__(self, *, reserve_is_given: bool = False) -> None:
        self.promised = 0
        """Bytes."""
        self.reserve_is_given = reserve_is_given
        """Whether the room kept for deleting (`db.full_disk.Reserve`) was used, and waits to be taken back."""

    def promise(self, folder: Path, size: int, *, floor_mib: int) -> Promise:
        """Room for `size` bytes in `folder`; 507 where there is none."""
        promise = Promise(self, folder, floor_mib)
        promise.grow(size)
        return promise


def refuse_where_nearly_full(folder: Path, floor_mib: int) -> None:
    """507 where even the floor is being used up, by whatever does not keep to it."""
    if free_bytes(folder) * NEARLY_FULL_SHARE < floor_bytes(folder, floor_mib):
        raise InsufficientStorage(
            "The cloud's storage is full: nothing can be added or changed now, only deleted.", reason="STORAGE_FULL"
        )
