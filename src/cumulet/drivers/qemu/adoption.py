"""After a restart of the agent: find the guests that ran on without it, and go on with what it had begun."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from cumulet.drivers.qemu import consoles, guest_agent, guest_files, hotplug, snapshots, suspension, tls
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.live_migration_destination import watch, withdraw_later
from cumulet.drivers.qemu.live_migration_source import carry_on
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role, folders
from cumulet.host.driver import DriverError, GuestReport, GuestState

_REPORT_SECONDS = 3.0


async def adopt_all(host: QemuHost) -> None:
    """Connect to every living guest and start its background work again. Decides nothing."""
    await asyncio.gather(*(_adopt(host, folder) for folder in folders(host.guests)))


async def _adopt(host: QemuHost, folder: GuestFolder) -> None:
    record = folder.read()
    if record is None:
        return
    host.sandbox.keep_uid(record.uid, folder.path)
    guest_files.remove_folder(folder, tls.LENT)  # The last agent may have died while QEMU read it.
    hypervisor = host.hypervisor(folder.server_id)
    if guest_files.look(folder, guest_files.SNAPSHOT) is not None:
        # Where its process hangs, the next snapshot, or the end of the guest, removes it.
        with contextlib.suppress(DriverError):
            await snapshots.end(host, folder.server_id)
    if hypervisor is None:
        return
    await host.tell_ports(record.guest)
    if folder.frozen.exists():
        guest_agent.thaw_later(host, folder.server_id)
    with contextlib.suppress(DriverError):  # It hangs, which `observe` reports.
        run_state = await hypervisor.run_state()
        await consoles.restore(hypervisor)
        await hypervisor.learn_migration()
        sent = run_state in ("finish-migrate", "postmigrate")
        if record.role is Role.OWN and hypervisor.migration == "completed" and not sent:
            hypervisor.migration = "none"  # This was the move by which it came here.
        record = _mended(folder, record, run_state)
        if (sent or run_state == "paused") and suspension.should_run(record):
            suspension.put_right_later(host, folder.server_id)
    if record.copy is not None and record.copy.outcome is None:
        carry_on(host, folder.server_id)
    if record.role is Role.OWN and record.incoming is not None:
        withdraw_later(host, folder.server_id)
    if record.role is Role.INCOMING:
        watch(host, folder.server_id, renew_now=True)


def _mended(folder: GuestFolder, record: GuestRecord, run_state: str) -> GuestRecord:
    """A guest that runs was told to run. After a crash its record may not say so yet; then it is corrected."""
    if run_state != "running":
        return record
    mended = record
    if record.role is Role.INCOMING:
        mended = msgspec.structs.replace(mended, role=Role.OWN)
    mended = msgspec.structs.replace(mended, intent=Intent.RUNNING, user_paused=False)
    if mended != record:
        folder.write(mended)
    return mended


async def reports(host: QemuHost) -> list[GuestReport]:
    """Every guest with a folder here, in bounded time: one that hangs must not make the host seem silent."""
    return await asyncio.gather(*(_report(host, folder) for folder in folders(host.guests)))


async def _report(host: QemuHost, folder: GuestFolder) -> GuestReport:
    """If its hypervisor hangs, the report says that its process exists."""
    record = folder.read()
    if record is None:
        return GuestReport(server_id=folder.server_id, state=GuestState.CRASHED, generation=0)
    hypervisor = host.hypervisor(folder.server_id)
    try:
        if hypervisor is not None and hypervisor.behind:
            raise TimeoutError  # Questions must not pile up before the commands that matter.
        async with asyncio.timeout(_REPORT_SECONDS):
            state = await host.observe(folder.server_id)
        if hypervisor is not None and hypervisor.unsure:
            hotplug.put_right(host, folder.server_id)
    except (DriverError, TimeoutError):
        state = GuestState.PAUSED if record.user_paused else GuestState.RUNNING
        if record.role is Role.INCOMING:
            state = GuestState.INCOMING
    return GuestReport(
        server_id=folder.server_id,
        state=state,
        generation=0,
        ports=tuple(nic.port_id for nic in record.guest.nics),
        rescued=record.rescued,
        copied=record.copy is not None and record.copy.outcome is None,
        posted=posted.id if (posted := folder.read_posted()) is not None else "",
    )
