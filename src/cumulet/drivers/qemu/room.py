"""Room on a host's file system: guests' disks and the image cache leave a part of it free.

Disks grow as guests write. So the promise of a disk (what its guest may still write) counts as taken, for all hosts
whose state folders lie side by side on one machine. A guest can always fill its disk, and cannot fill the machine.
That holds for all that grows: its disks, that of a rescue, an image that is made of it, its memory while it is saved.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cumulet.drivers.qemu import chosen_devices, guest_files
from cumulet.drivers.qemu.record import GuestFolder, Intent, folders
from cumulet.host.driver import DriverError, Guest
from cumulet.host.limits import HostLimits
from cumulet.space import floor_bytes, free_bytes


def disk_bytes(guest: Guest) -> int:
    """The size of a guest's disk as the guest sees it."""
    if guest.disk_gib > 0:
        size = guest.disk_gib << 30
    elif guest.image is not None:
        size = -(-guest.image.virtual_size_bytes // 512) * 512
    else:
        raise DriverError("NO_DISK: neither a disk size nor an image")
    if guest.image is not None and guest.image.virtual_size_bytes > size:
        raise DriverError("DISK_TOO_SMALL: the image is larger than the flavor's disk")
    return size


def all_disks_bytes(guest: Guest) -> int:
    """The sizes of all its disks together."""
    return disk_bytes(guest) + sum(disk.size_mib << 20 for disk in guest.disks)


def rescue_bytes(guest: Guest) -> int:
    """The size of a disk to rescue a guest with, made from the image of this description."""
    if guest.image is None:
        raise DriverError("NO_IMAGE: there is nothing to rescue it with")
    return disk_bytes(msgspec.structs.replace(guest, disk_gib=0))


def saved_bytes(guest: Guest) -> int:
    """The largest file with a guest's saved memory."""
    screen = chosen_devices.screen_bytes(guest.devices) if guest.screen else 0
    return file_bytes((guest.memory_mib << 20) + screen)


def file_bytes(size: int) -> int:
    """The largest file for a disk, or for memory, of `size` bytes: with its tables."""
    return size + (size >> 6) + (64 << 20)


def require(state: Path, size: int, limits: HostLimits, *, besides: str) -> None:
    """DISK_FULL unless `size` bytes can be promised. What the guest `besides` has already is not counted."""
    room = free_bytes(state) - floor_bytes(state, limits.free_space_floor_mib) - _promised(state, besides)
    if size > room:
        raise DriverError(
            f"DISK_FULL: {size >> 20} MiB are needed, and {max(0, room) >> 20} MiB are left to give on this host"
        )


def written_bytes(folder: GuestFolder, name: str) -> int:
    """Bytes that a file in a guest's folder takes up; 0 where there is none."""
    present = guest_files.look(folder, name)
    return present.st_blocks * 512 if present is not None else 0


def saved_so_far(folder: GuestFolder) -> int | None:
    """Bytes that the file of a guest's saved memory takes up; None where there is none."""
    try:
        return folder.memory.stat().st_blocks * 512
    except FileNotFoundError:
        return None


def _promised(state: Path, besides: str) -> int:
    """Bytes of all promises."""
    places = {state, *state.parent.parent.glob(f"*/{state.name}")}
    total = 0
    for guests in (place / "guests" for place in places):
        for folder in folders(guests):
            record = folder.read()
            if record is None or folder.server_id == besides:
                continue
            written = written_bytes(folder, guest_files.DISK)
            further = sum(written_bytes(folder, guest_files.further_disk(disk.place)) for disk in record.guest.disks)
            total += max(0, all_disks_bytes(record.guest) - written - further)
            copy = guest_files.look(folder, guest_files.SNAPSHOT)
            if copy is not None:  # It becomes as large as what the disk holds.
                total += max(0, written - copy.st_blocks * 512)
            if record.rescue_bytes:
                total += max(0, record.rescue_bytes - written_bytes(folder, guest_files.RESCUE))
            saved = saved_so_far(folder)
            if saved is not None and record.intent is not Intent.SUSPENDED:
                total += max(0, saved_bytes(record.guest) - saved)
    return total
