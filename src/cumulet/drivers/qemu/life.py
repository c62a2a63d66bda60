"""A guest's life on one host: create, destroy, start, stop, reboot, pause, and what it prints."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from cumulet.drivers.qemu import config_drive, further_disks, guest_files
from cumulet.drivers.qemu.host import NEVER_RUN, OVER, QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor, append_bounded, tail
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from cumulet.host import nics
from cumulet.host.devices import MOST_ON_SATA, NO_SCREEN, SATA
from cumulet.host.disks import MOST_FURTHER_DISKS
from cumulet.host.driver import DriverError, Guest

_SOFT_REBOOT_SECONDS = 30.0


def frozen(host: QemuHost, guest: Guest) -> Guest:
    """The description with what the host decides filled in. Raises `DriverError` for what it cannot offer."""
    if guest.nics and host.network is None:
        raise DriverError("NO_NETWORKS: this host cannot wire guests; boot with networks 'none'")
    if len(guest.nics) > (most_nics := nics.most(guest.devices)):
        raise DriverError(f"TOO_MANY_PORTS: such a guest has at most {most_nics} ports")
    host.require_devices(guest.devices)
    if [disk.place for disk in guest.disks] != list(range(1, len(guest.disks) + 1)):
        raise DriverError("DISKS: their places are not 1, 2, 3 and so on")
    most_disks = MOST_ON_SATA if guest.devices.disk_bus == SATA else MOST_FURTHER_DISKS
    if len(guest.disks) > most_disks:
        raise DriverError(f"TOO_MANY_DISKS: such a guest has at most {most_disks} beside its first")
    return msgspec.structs.replace(
        guest,
        machine_type=guest.machine_type or host.facts.machine_type,
        cpu_model=guest.cpu_model or host.facts.cpu_model,
        nic_slots=guest.nic_slots if guest.machine_type else nics.most(guest.devices),
        uneven_memory=guest.uneven_memory if guest.machine_type else host.facts.misses_even_memory,
        screen=guest.screen or (not guest.machine_type and guest.devices.video_model != NO_SCREEN),
    )


def define(host: QemuHost, guest: Guest, *, role: Role) -> tuple[GuestFolder, GuestRecord]:
    """Folder, user id and first record of a new guest; half-made ones of an earlier attempt are taken over."""
    folder = host.folder(guest.server_id)
    host.guests.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.path.mkdir(mode=0o700, exist_ok=True)
    uid = host.sandbox.take_uid(folder.path)
    folder.make()
    guest_files.hand_over(folder, uid)
    record = GuestRecord(guest=guest, uid=uid, role=role, intent=Intent.CREATING)
    folder.write(record)
    return folder, record


async def create(host: QemuHost, guest: Guest, *, run: bool = True) -> Guest:
    async with host.lock(guest.server_id):
        record = host.folder(guest.server_id).read()
        if record is not None and record.role is Role.INCOMING:  # Left by an earlier move that nobody committed.
            await host.remove(guest.server_id)
            record = None
        if record is None:
            _, record = define(host, frozen(host, guest), role=Role.OWN)
        if record.intent is Intent.CREATING:
            folder = host.folder(guest.server_id)
            if host.hypervisor(guest.server_id) is None:
                await host.disks.make_disk(record.guest, folder, record.uid)
                await further_disks.make(host.disks, record.guest, folder, record.uid)
                config_drive.write(record.guest, folder, record.uid)
            if run:
                await run_guest(host, folder, record)
            else:
                folder.write(msgspec.structs.replace(record, intent=Intent.STOPPED))
        return record.guest


async def destroy(host: QemuHost, server_id: str) -> None:
    host.stop_tasks(server_id)
    hypervisor = host.hypervisor(server_id)
    if hypervisor is not None:
        await hypervisor.kill()  # Before the lock: whoever holds it may be waiting for this very process.
    async with host.lock(server_id):
        await host.remove(server_id)


async def start(host: QemuHost, server_id: str, *, drop_saved: bool = False) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        folder = host.folder(server_id)
        if record.intent is Intent.SUSPENDED:
            if not drop_saved:
                raise DriverError("SUSPENDED: resume it instead")
            await _boot_suspended(host, folder, record)
        else:
            await run_guest(host, folder, record)


async def _boot_suspended(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    """Boot a suspended guest. Its saved memory goes once its process is there; until then it can be resumed.

    The order is for crashes: no file stays that no record knows of.
    """
    hypervisor = host.hypervisor(record.guest.server_id)
    if hypervisor is not None:
        await hypervisor.kill()  # Left by an interrupted suspend or resume.
    record = msgspec.structs.replace(record, intent=Intent.STOPPED, user_paused=False, copy=None, incoming=None)
    hypervisor = await host.launch(folder, record, incoming=False)
    try:
        await asyncio.to_thread(folder.memory.unlink, missing_ok=True)  # To free a large file takes a while.
        folder.write(record)
        await hypervisor.cont()
    except BaseException:
        await hypervisor.kill()
        raise
    folder.write(msgspec.structs.replace(record, intent=Intent.RUNNING))


async def run_guest(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    record, hypervisor = await living(host, record)
    if hypervisor is not None and record.standing_by:
        await end_process(hypervisor, folder)
        hypervisor = None
    if hypervisor is None:
        record = msgspec.structs.replace(record, user_paused=False, copy=None, incoming=None)
        hypervisor = await host.launch(folder, record, incoming=False)
    if not record.user_paused:
        await hypervisor.cont()
    folder.write(msgspec.structs.replace(record, intent=Intent.RUNNING))


async def stop(host: QemuHost, server_id: str, *, grace_seconds: float) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        folder = host.folder(server_id)
        if record.intent is Intent.SUSPENDED:
            raise DriverError("SUSPENDED: resume it first")
        hypervisor = host.hypervisor(server_id)
        if hypervisor is not None:
            with contextlib.suppress(DriverError):  # It may hang or end while we ask; then it is killed all the same.
                if await hypervisor.run_state() == "running":
                    await power_button(hypervisor, grace_seconds)
        # Not before: an agent that dies while the guest takes its time leaves a guest that runs, and should.
        folder.write(msgspec.structs.replace(record, intent=Intent.STOPPED, user_paused=False))
        if hypervisor is not None:
            await end_process(hypervisor, folder)


async def power_button(hypervisor: Hypervisor, grace_seconds: float) -> bool:
    """Press it; True once the guest has powered itself off, False where it has not within the time."""
    await hypervisor.system_powerdown()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_seconds):
            while True:
                change = hypervisor.change()
                if await hypervisor.run_state() == "shutdown":
                    return True
                await hypervisor.wait_for_change(change, grace_seconds)
    return False


async def reboot(host: QemuHost, server_id: str, *, hard: bool) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        folder = host.folder(server_id)
        if record.intent is Intent.SUSPENDED:
            if not hard:
                raise DriverError("SUSPENDED: resume it first")
            await _boot_suspended(host, folder, record)
            return
        hypervisor = host.hypervisor(server_id)
        if hypervisor is not None and not hard and await hypervisor.run_state() == "running":
            await power_button(hypervisor, _SOFT_REBOOT_SECONDS)
            await hypervisor.system_reset()
            await hypervisor.cont()
            return
        if hypervisor is not None:
            await end_process(hypervisor, folder)
        await run_guest(host, folder, msgspec.structs.replace(record, user_paused=False))


async def pause(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        await (await host.living_hypervisor(server_id)).stop()
        host.folder(server_id).write(msgspec.structs.replace(record, user_paused=True))


async def unpause(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        await (await host.living_hypervisor(server_id)).cont()
        host.folder(server_id).write(msgspec.structs.replace(record, user_paused=False))


async def inject_nmi(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        if record.standing_by:
            raise DriverError("MOVING: the guest stands by for a move")
        await (await host.living_hypervisor(server_id)).inject_nmi()


async def console_output(host: QemuHost, server_id: str, *, max_bytes: int) -> bytes:
    folder = host.folder(server_id)
    if folder.read() is None:
        raise DriverError("ABSENT: this host has no such guest")
    hypervisor = host.hypervisor(server_id)
    if hypervisor is not None:
        with contextlib.suppress(DriverError):  # What was kept so far is still an answer.
            await hypervisor.drain_console(folder.console)
    return tail(folder.console, max_bytes)


async def living(host: QemuHost, record: GuestRecord) -> tuple[GuestRecord, Hypervisor | None]:
    """The guest's process, if it runs the guest or may go on with it. Others are ended here: that of a guest that is
    over, which QEMU keeps, and one that has never run its guest, and may lack limits: its agent died before that.

    A guest that has powered itself off is a stopped one, by its record, too. Hold its lock.
    """
    hypervisor = host.hypervisor(record.guest.server_id)
    if hypervisor is None or (run_state := await hypervisor.run_state()) not in (*OVER, NEVER_RUN):
        return record, hypervisor
    folder = host.folder(record.guest.server_id)
    if run_state == "shutdown" or (run_state == NEVER_RUN and record.intent is Intent.RUNNING):
        record = msgspec.structs.replace(record, intent=Intent.STOPPED, user_paused=False)
        folder.write(record)
    await end_process(hypervisor, folder)
    return record, None


async def end_process(hypervisor: Hypervisor, folder: GuestFolder) -> None:
    """Keep what it printed, then end the process."""
    try:
        await hypervisor.drain_console(folder.console)
    except DriverError:
        append_bounded(folder.console, b"\n[the newest output was lost: the hypervisor did not answer]\n")
        await hypervisor.kill()
        return
    await hypervisor.quit()
