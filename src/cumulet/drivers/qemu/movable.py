"""What a running guest must be like before QEMU can save it, or send it to another host."""

from __future__ import annotations

import asyncio

from cumulet.drivers.qemu import hotplug
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.live_migration_destination import withdraw
from cumulet.drivers.qemu.record import GuestRecord
from cumulet.host.driver import DriverError


async def make_movable(host: QemuHost, hypervisor: Hypervisor, record: GuestRecord) -> GuestRecord:
    """Bring the guest to a state QEMU can save or send; its record. Raises `DriverError` where it has none."""
    if record.incoming is not None:  # Of the move by which it came here.
        if not await withdraw(host, hypervisor, record.guest.server_id):
            raise DriverError("MOVING: some of the guest's memory has yet to come")
        record = host.record(record.guest.server_id)
    run_state = await hypervisor.run_state()
    if run_state == "postmigrate" and record.user_paused:
        # QEMU sends no guest twice unless it has run in between. Both commands go out together: it runs no longer.
        await asyncio.gather(hypervisor.cont(), hypervisor.stop())
    elif run_state == "postmigrate" and record.copy is None:  # Of a suspend that was interrupted.
        await hypervisor.cont()
    elif run_state not in ("running", "paused"):
        raise DriverError(f"NOT_MOVABLE: the guest is in state {run_state}")
    await hotplug.match(host, hypervisor, record)
    return record
