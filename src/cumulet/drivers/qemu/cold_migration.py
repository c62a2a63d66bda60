"""Cold migration: a stopped guest stands by in a paused process, and is copied as a running one would be.

So its disk is copied in the same confined way, over the same mutual TLS. The memory that comes with it is of a machine
that was switched on and off at once; the destination throws it away (`take_in`).
"""

from __future__ import annotations

import asyncio

import msgspec

from cumulet.drivers.qemu import further_disks
from cumulet.drivers.qemu.host import NEVER_RUN, QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.life import living
from cumulet.drivers.qemu.live_migration_destination import finish_incoming
from cumulet.drivers.qemu.record import GuestRecord, Intent, Role
from cumulet.host.driver import DriverError, Guest


async def stand_by(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.record(server_id)
        hypervisor = host.hypervisor(server_id)
        if record.standing_by and hypervisor is not None and await hypervisor.run_state() != NEVER_RUN:
            return
        record, hypervisor = await living(host, host.resting(server_id))
        if not _is_off(record, hypervisor):
            raise DriverError("NOT_STOPPED: only a stopped guest, or one that has crashed, stands by")
        if hypervisor is not None:
            await hypervisor.quit()
        folder = host.folder(server_id)
        record = msgspec.structs.replace(record, intent=Intent.STOPPED, user_paused=True, copy=None, incoming=None)
        folder.write(record)
        hypervisor = await host.launch(folder, record, incoming=False)
        # QEMU copies no machine that was never switched on. Both commands go out together: no guest code matters here.
        await asyncio.gather(hypervisor.cont(), hypervisor.stop())


def _is_off(record: GuestRecord, hypervisor: Hypervisor | None) -> bool:
    """Stopped, or crashed: its disk is all that there is of it. `hypervisor`: a process that may run it (`living`)."""
    return record.intent is Intent.STOPPED or (record.intent is Intent.RUNNING and hypervisor is None)


async def stand_down(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.record(server_id)
        if not record.standing_by:
            return
        host.stop_tasks(server_id)
        hypervisor = host.hypervisor(server_id)
        if hypervisor is not None:
            await hypervisor.quit()
        host.folder(server_id).write(msgspec.structs.replace(record, user_paused=False, copy=None))


async def take_in(host: QemuHost, guest: Guest) -> None:
    """The record is written last: while it says `incoming`, all of this may be repeated after a crash."""
    async with host.lock(guest.server_id):
        record = host.record(guest.server_id)
        folder = host.folder(guest.server_id)
        hypervisor = host.hypervisor(guest.server_id)
        if record.role is Role.OWN:
            record, hypervisor = await living(host, record)
        if record.role is Role.OWN and (not _is_off(record, hypervisor) or record.standing_by):
            raise DriverError("NOT_STOPPED: the guest lives on this host")
        if record.role is Role.INCOMING and hypervisor is not None:
            await finish_incoming(hypervisor)
            host.stop_tasks(guest.server_id)
            await hypervisor.quit()
        await host.disks.grow(guest, folder, record.uid)
        await further_disks.follow(host.disks, record.guest, guest, folder, record.uid)
        folder.write(GuestRecord(guest=guest, uid=record.uid, role=Role.OWN, intent=Intent.STOPPED))
