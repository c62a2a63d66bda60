"""Rescue: a guest is started from a disk of another image, at a place before its own, which it has as the second.

If the image says which device it is to be (`Devices.rescue_device`), it is behind all others, whose places stay.
"""

from __future__ import annotations

import asyncio

import msgspec

from cumulet.drivers.qemu import config_drive, guest_files, room
from cumulet.drivers.qemu.host import NEVER_RUN, QemuHost
from cumulet.drivers.qemu.life import end_process, living, run_guest
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from cumulet.host.driver import DriverError, Guest


async def rescue(host: QemuHost, guest: Guest) -> None:
    """The order is for crashes: the record says that it is rescued before a process is.

    What was made before that, `unrescue` takes back.
    """
    async with host.lock(guest.server_id):
        record = host.resting(guest.server_id)
        if record.standing_by:
            raise DriverError("MOVING: the guest stands by for a move")
        if record.intent is Intent.SUSPENDED:
            raise DriverError("SUSPENDED: resume it first")
        folder = host.folder(guest.server_id)
        hypervisor = host.hypervisor(guest.server_id)
        if record.rescued and hypervisor is not None:
            if await hypervisor.run_state() == NEVER_RUN:
                await run_guest(host, folder, record)
            return
        host.require_devices(guest.devices)
        record = await _promise_disk(host, guest, folder, record)
        if hypervisor is not None:
            await end_process(hypervisor, folder)
        await host.disks.make_rescue_disk(guest, folder, record.uid)
        config_drive.write(guest, folder, record.uid)
        bus, device = guest.devices.rescue_bus, guest.devices.rescue_device
        record = msgspec.structs.replace(
            record, rescued=True, rescue_bus=bus, rescue_device=device, intent=Intent.STOPPED, user_paused=False
        )
        folder.write(record)
        await run_guest(host, folder, record)


async def _promise_disk(host: QemuHost, guest: Guest, folder: GuestFolder, record: GuestRecord) -> GuestRecord:
    """The disk counts as taken before it is made. DISK_FULL where there is no room for it."""
    size = room.rescue_bytes(guest)
    assert guest.image is not None
    guest_files.remove(folder, guest_files.RESCUE)  # What an earlier attempt left; nobody uses it.
    with host.disks.images.kept(guest.image):
        await host.disks.images.require_room(size - record.rescue_bytes, besides="")
    record = msgspec.structs.replace(record, rescue_bytes=size)
    folder.write(record)
    return record


async def unrescue(host: QemuHost, server_id: str, *, run: bool) -> None:
    async with host.lock(server_id):
        record = host.record(server_id)
        folder = host.folder(server_id)
        if record.rescued:
            hypervisor = host.hypervisor(server_id)
            if hypervisor is not None:
                await end_process(hypervisor, folder)
            await asyncio.to_thread(guest_files.remove, folder, guest_files.RESCUE)
            config_drive.write(record.guest, folder, record.uid)
            own = msgspec.structs.replace(record, rescued=False, rescue_bus="", rescue_device="", rescue_bytes=0)
            record = msgspec.structs.replace(own, intent=Intent.STOPPED, user_paused=False)
            folder.write(record)
            if run:
                await run_guest(host, folder, record)
            return
        # A rescue that has failed or was cut short. Or an unrescue, before the guest was started.
        await asyncio.to_thread(guest_files.remove, folder, guest_files.RESCUE)
        if record.rescue_bytes:
            record = msgspec.structs.replace(record, rescue_bytes=0)
            folder.write(record)
        hypervisor = host.hypervisor(server_id)
        if record.role is Role.OWN and record.copy is None:
            record, hypervisor = await living(host, record)
        if hypervisor is None:
            config_drive.write(record.guest, folder, record.uid)
            if run and record.intent is Intent.STOPPED:
                await run_guest(host, folder, record)
