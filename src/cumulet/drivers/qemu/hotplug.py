"""NICs that are plugged and unplugged while a guest runs: one function makes the process match the record.

The record is written first, so that after a crash the next call can finish the work. A guest may refuse to release a
device, release it late, or eject one that nobody unplugged: a request to release one cannot be taken back. So its NICs
are compared with its record whenever it has let go of one, and when that may have been missed (`put_right`). They are
before it moves, because at the destination it gets what its record says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re

import msgspec

from cumulet.drivers.qemu.command_line import net_name, nic_device, nic_name
from cumulet.drivers.qemu.host import OVER, QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.life import living
from cumulet.drivers.qemu.record import GuestRecord, Intent, Role
from cumulet.host import nics
from cumulet.host.driver import DriverError, Guest, Nic

UNPLUG_SECONDS = 10.0
"""How long a guest may take to release a device."""
_ASKED_AGAIN_SECONDS = 2.0
"""How soon it is asked again: a guest that is just starting takes no request."""
_TASK = "nics"
_DEVICE = re.compile(r"nic(\d{1,2})")


async def plug(host: QemuHost, server_id: str, nic: Nic) -> None:
    async with host.lock(server_id):
        record = _resting(host, server_id)
        if nic.slot is None or nic.slot >= (most := nics.most(record.guest.devices)):
            raise DriverError(f"TOO_MANY_PORTS: such a guest has at most {most} ports")
        record, hypervisor = await living(host, record)
        if all(other.port_id != nic.port_id for other in record.guest.nics):
            if any(other.slot == nic.slot for other in nics.placed(record.guest)):
                raise DriverError(f"SLOT_TAKEN: the guest has another NIC in place {nic.slot}")
            if hypervisor is not None and nic.slot >= record.guest.nic_slots:
                raise DriverError(
                    "NOT_WHILE_IT_RUNS: this guest was made before NICs could be plugged in; stop it first"
                )
            record = msgspec.structs.replace(record, guest=nics.with_nic(record.guest, nic))
            host.folder(server_id).write(record)
        if hypervisor is not None:
            await match(host, hypervisor, record)
            await hypervisor.set_link(nic_name(nic), up=True)


async def unplug(host: QemuHost, server_id: str, port_id: str, *, insist: bool = True) -> None:
    async with host.lock(server_id):
        record = _resting(host, server_id)
        record, hypervisor = await living(host, record)
        nic = next((nic for nic in nics.placed(record.guest) if nic.port_id == port_id), None)
        if nic is not None:
            if hypervisor is not None and not record.guest.nic_slots:
                raise DriverError(
                    "NOT_WHILE_IT_RUNS: this guest was made before NICs could be pulled out; stop it first"
                )
            if insist and hypervisor is not None:
                await _refuse_standing_still(hypervisor)
            record = msgspec.structs.replace(record, guest=nics.without_nic(record.guest, port_id))
            host.folder(server_id).write(record)
            if host.network is not None:
                await host.network.tell(port_id, None)
            await host.tell_ports(record.guest)
        if hypervisor is not None:
            await match(host, hypervisor, record, insist=insist)


def _resting(host: QemuHost, server_id: str) -> GuestRecord:
    record = host.resting(server_id)
    if record.intent is Intent.SUSPENDED:
        raise DriverError("SUSPENDED: what it has is in its saved memory; resume it first")
    return record


async def _refuse_standing_still(hypervisor: Hypervisor) -> None:
    """Asked for a NIC, it would let go of it whenever it runs again, though its server has the NIC until then."""
    run_state = await hypervisor.run_state()
    if run_state != "running":
        raise DriverError(f"STANDS_STILL: the guest is {run_state}, and lets go of no NIC; let it run first")


def put_right(host: QemuHost, server_id: str) -> None:
    """Begin to make its NICs those of its record, if it may have let go of one."""
    if not host.has_task(server_id, _TASK):
        host.start_task(server_id, _TASK, _put_right(host, server_id))


async def _put_right(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        while True:
            record, hypervisor = host.folder(server_id).read(), host.hypervisor(server_id)
            if record is None or hypervisor is None or not _may_be_changed(record):
                return
            if not hypervisor.unsure and not hypervisor.let_go_of:
                return
            hypervisor.unsure, gone, hypervisor.let_go_of = False, hypervisor.let_go_of, set()
            try:
                for name in gone - await _present(hypervisor):
                    await _drop_net(hypervisor, name.replace("nic", "net"))
                await match(host, hypervisor, record, insist=False)
            except BaseException:
                hypervisor.unsure = True
                raise


def _may_be_changed(record: GuestRecord) -> bool:
    """Not a guest that is on its way: its process may hang until more of its memory has come."""
    moves = record.role is not Role.OWN or record.copy is not None or record.incoming is not None
    return bool(record.guest.nic_slots) and record.intent is not Intent.SUSPENDED and not moves


async def match(host: QemuHost, hypervisor: Hypervisor, record: GuestRecord, *, insist: bool = True) -> None:
    """Make the NICs of the guest's process those of its record. DriverError if it does not release one."""
    guest = record.guest
    if not guest.nic_slots:
        return  # All are on the root bus, where nothing can be plugged.
    if await hypervisor.run_state() in OVER:
        return  # The next process gets what its record says.
    wanted = {nic_name(nic): nic for nic in nics.placed(guest)}
    present = await _present(hypervisor)
    for name in sorted(present - wanted.keys()):
        await _pull_out(hypervisor, name, insist=insist)
    for name in sorted(wanted.keys() - present):
        await _plug_in(host, hypervisor, guest, wanted[name])


async def _present(hypervisor: Hypervisor) -> set[str]:
    """Names of the NICs that the process has."""
    return {name for name in await hypervisor.devices() if _DEVICE.fullmatch(name)}


async def _plug_in(host: QemuHost, hypervisor: Hypervisor, guest: Guest, nic: Nic) -> None:
    if host.network is None:
        raise DriverError("NO_NETWORKS: this host cannot wire guests")
    net = net_name(nic)
    await _drop_net(hypervisor, net)  # What an earlier try has left, or a device that went by itself.
    tap = await host.network.plug(nic.port_id)
    try:
        await hypervisor.getfd(net, tap)
    finally:
        os.close(tap)
    await host.tell_ports(guest)
    await hypervisor.netdev_add_tap(net, net)
    try:
        await hypervisor.device_add(nic_device(guest, nic))
    except DriverError:
        await _drop_net(hypervisor, net)
        raise


async def _drop_net(hypervisor: Hypervisor, net: str) -> None:
    """Its tap goes with it. One that is not there is refused by QEMU, which is as good."""
    with contextlib.suppress(DriverError):
        await hypervisor.netdev_del(net)


async def _pull_out(hypervisor: Hypervisor, name: str, *, insist: bool) -> None:
    """Nothing passes from here on; then the guest is asked, until it has let go."""
    await hypervisor.set_link(name, up=False)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(UNPLUG_SECONDS):
            while name in await _present(hypervisor):
                change = hypervisor.change()
                # Refused while an earlier request waits for the guest.
                with contextlib.suppress(DriverError):
                    await hypervisor.device_del(name)
                if name in await _present(hypervisor):
                    if not insist:
                        return
                    await hypervisor.wait_for_change(change, _ASKED_AGAIN_SECONDS)
    if name in await _present(hypervisor):
        raise DriverError(
            f"NOT_LET_GO: the guest has not let go of the NIC in {UNPLUG_SECONDS:g} s; should it do so later, and the "
            "NIC is still its server's, it is given it again"
        )
    await _drop_net(hypervisor, name.replace("nic", "net"))
