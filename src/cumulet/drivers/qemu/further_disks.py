"""Ephemeral and swap disks: each a qcow2 file of its own, made with what is to be on it.

The machine's own programs make it, as the guest's user in the jail, in a sparse file that becomes the disk when it is
whole. A crash leaves that file, or a disk that the next attempt replaces.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from cumulet.drivers.qemu import guest_files
from cumulet.drivers.qemu.disks import Disks
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.host.disks import FILE_SYSTEMS, SWAP, Disk
from cumulet.host.driver import DriverError, Guest

_PROGRAMS = {SWAP: "mkswap", **{name: f"mkfs.{name}" for name in FILE_SYSTEMS}}
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
# The guest's kernel writes the rest at the first mount, so that an empty disk takes up almost nothing.
_OPTIONS = ("-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")


def lacking() -> list[str]:
    """The programs for such disks that this machine does not have."""
    return sorted(program for program in _PROGRAMS.values() if shutil.which(program, path=_PATH) is None)


async def make(disks: Disks, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
    """Make all that the description has. What an earlier attempt left is replaced."""
    for disk in guest.disks:
        await _make_one(disks, disk, folder, uid)


async def make_empty(disks: Disks, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
    """Disks of the same sizes for a migration to fill."""
    for disk in guest.disks:
        name = guest_files.further_disk(disk.place)
        guest_files.remove(folder, name)
        await disks.make_empty_file(folder, name, disk.size_mib << 20, uid)


async def follow(disks: Disks, before: Guest, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
    """Make the disks of a stopped guest those of its new description `guest`. Disks with data are kept and may grow.

    All others are made anew or removed. It may be repeated. The tool refuses to make a disk smaller.
    """
    held = {disk.place: disk for disk in before.disks}
    for disk in guest.disks:
        old = held.pop(disk.place, None)
        if old is None or SWAP in (old.content, disk.content):
            await _make_one(disks, disk, folder, uid)
        elif disk.size_mib != old.size_mib:
            await disks.resize_file(folder, guest_files.further_disk(disk.place), disk.size_mib << 20, uid)
    for place in held:
        guest_files.remove(folder, guest_files.further_disk(place))


async def _make_one(disks: Disks, disk: Disk, folder: GuestFolder, uid: int | None) -> None:
    if disk.content not in _PROGRAMS:
        raise DriverError(f"FILE_SYSTEM: {disk.content} is not one of {', '.join(_PROGRAMS)}")
    program = shutil.which(_PROGRAMS[disk.content], path=_PATH)
    if program is None:
        raise DriverError(f"FILE_SYSTEM: this machine has no {_PROGRAMS[disk.content]}")
    size = disk.size_mib << 20
    name = guest_files.further_disk(disk.place)
    for left in (guest_files.RAW, name):
        guest_files.remove(folder, left)
    raw, target = disks.inside(folder, guest_files.RAW), disks.inside(folder, name)
    label = ("-L", disk.label) if disk.label else ()
    options: Sequence[str] = label if disk.content == SWAP else (*_OPTIONS, *label)
    await disks.run([disks.qemu_img, "create", "-q", "-f", "raw", raw, str(size)], folder, uid, size)
    await disks.run([program, *options, raw], folder, uid, size)
    await disks.run([disks.qemu_img, "convert", "-q", "-f", "raw", "-O", "qcow2", raw, target], folder, uid, size)
    guest_files.remove(folder, guest_files.RAW)
