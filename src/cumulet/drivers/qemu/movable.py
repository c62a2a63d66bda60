"""What a running guest must be like before QEMU can save it, or send it to another host."""

from __future__ import annotations

import asyncio

from cumulet.drivers.qemu import hotplug
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import GuestRecord
from cumulet.host.driver import DriverError


async def make_movable(host: QemuHost, hypervisor: Hypervisor, record: GuestRecord) -> None:
    """Bring the guest to a state QEMU can save or send. Raises `DriverError` where it has none."""
    run_state = await hypervisor.run_state()
    if run_state == "postmigrate" and record.user_paused:
        # QEMU sends no guest twice unless it has run in between. Both commands go out together: it runs no longer.
        await asyncio.gather(hypervisor.cont(), hypervisor.stop())
    elif run_state not in ("running", "paused"):
        raise DriverError(f"NOT_MOVABLE: the guest is in state {run_state}")
    await hotplug.match(host, hypervisor, record)
