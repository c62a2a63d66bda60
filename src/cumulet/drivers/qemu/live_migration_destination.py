"""The destination's side of a live migration: a guest that waits, takes its state from one source, and runs when told.

It listens only between `prepare_incoming` and the commit, only on the migration address, only for the named source,
with sockets that the agent made: QEMU has no network (`sockets`). It is lent credentials of this move alone, which last
minutes (`move_authority`).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Sequence
from functools import partial

import msgspec

from cumulet.drivers.qemu import config_drive, further_disks, guest_files, move_authority, sockets
from cumulet.drivers.qemu.command_line import CONFIG_DRIVE_NODE, disk_nodes
from cumulet.drivers.qemu.host import PASSING, QemuHost, refuse_while_moving
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.life import define, frozen
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Incoming, Intent, Role
from cumulet.drivers.qemu.tls import PEER
from cumulet.host.driver import DriverError, Guest, MigrationParameters, MigrationPhase
from cumulet.host.endpoint import Endpoint, Peer

_LOAD_SECONDS = 10.0
_BRIEF_SECONDS = 2.0
_DISK, _MEMORY = "disk-listener", "memory-listener"
_LIMIT, _RENEWAL = "listen-limit", "renew-tls"
_SPARE = [f"memory-listener-{number}" for number in range(16)]
"""Sockets for post-copy, handed over beforehand: QEMU needs another one after each broken connection, and can be handed
nothing while it waits for a page."""


def capabilities(parameters: MigrationParameters) -> tuple[str, ...]:
    """Those on, the same at both sides: a difference makes the destination fail in the middle of the stream."""
    always = ("events", "return-path", "late-block-activate", "pause-before-switchover")
    return (*always, "postcopy-ram") if parameters.post_copy else always


_RECEIVING = ("active", "device", "postcopy-active", "postcopy-paused", "postcopy-recover")
"""Statuses of an incoming migration (query-migrate) in which state of the guest is here or on its way."""


async def prepare_incoming(host: QemuHost, guest: Guest, *, source: Peer, parameters: MigrationParameters) -> Endpoint:
    if not parameters.copy_disk:
        raise DriverError("SHARED_STORAGE_NOT_YET: disks are local to a host and must be copied")
    server_id = guest.server_id
    async with host.lock(server_id):
        listening = await _still_listening(host, server_id, source)
        if listening is not None:
            return listening
        await host.remove(server_id)
        folder, record = define(host, frozen(host, guest), role=Role.INCOMING)
        try:
            endpoint = await _listen(host, folder, record, source, parameters)
        except BaseException:
            await host.remove(server_id)
            raise
        watch(host, server_id, renew_now=False)
        return endpoint


def watch(host: QemuHost, server_id: str, *, renew_now: bool) -> None:
    """Of a destination that waits: renew its credentials, and end it if no source comes."""
    host.start_lasting_task(server_id, _LIMIT, partial(end_unless_used, host, server_id))
    host.start_lasting_task(server_id, _RENEWAL, partial(_renew_while_it_listens, host, server_id, now=renew_now))


async def _still_listening(host: QemuHost, server_id: str, source: Peer) -> Endpoint | None:
    """The endpoint of an earlier, equal request, or None. DriverError if this may be the only copy of a guest."""
    record = host.folder(server_id).read()
    if record is None:
        return None
    if record.role is Role.OWN:
        raise DriverError("ALREADY_HERE: the guest lives on this host")
    hypervisor = host.hypervisor(server_id)
    if hypervisor is None:
        return None
    run_state = await hypervisor.run_state()
    status = (await hypervisor.migration_status()).status
    if run_state != "inmigrate" or status == "completed":
        raise DriverError("HOLDS_STATE: this destination has taken a guest's state; resume or destroy it")
    if status in _RECEIVING:
        raise DriverError("RECEIVING: a copy comes into this destination; cancel it, or destroy it")
    incoming = record.incoming
    waits = incoming is not None and incoming.source == source and status in ("none", "setup")
    return incoming.endpoint if incoming is not None and waits else None


async def _listen(
    host: QemuHost, folder: GuestFolder, record: GuestRecord, source: Peer, parameters: MigrationParameters
) -> Endpoint:
    await host.disks.make_empty_disk(record.guest, folder, record.uid)
    await further_disks.make_empty(host.disks, record.guest, folder, record.uid)
    config_drive.write(record.guest, folder, record.uid)
    hypervisor = await host.launch(folder, record, incoming=True)
    authority = move_authority.new_authority("destination", source.move)
    incoming = Incoming(source=source, parameters=parameters, authority=authority)
    credentials = await _lend(host, hypervisor, record, incoming, move_authority.LENT)
    await hypervisor.migrate_set_capabilities(capabilities(parameters))
    has_drive = guest_files.look(folder, guest_files.CONFIG_DRIVE) is not None
    read_only = [CONFIG_DRIVE_NODE] if has_drive else []
    nbd_port = await _export_disks(hypervisor, disk_nodes(record.guest), read_only, host.address, credentials)
    with sockets.listener(host.address) as listening:
        for name in (_MEMORY, *(_SPARE if parameters.post_copy else [])):
            await hypervisor.getfd(name, listening.fileno())
        port = sockets.port_of(listening)
    await hypervisor.migrate_incoming(f"tcp:fd:{_MEMORY}")
    endpoint = Endpoint(
        address=host.address, port=port, nbd_port=nbd_port, peer=move_authority.peer(authority, host.name)
    )
    incoming = msgspec.structs.replace(incoming, endpoint=endpoint)
    folder.write(msgspec.structs.replace(record, intent=Intent.RUNNING, incoming=incoming))
    return endpoint


async def _lend(
    host: QemuHost,
    hypervisor: Hypervisor,
    record: GuestRecord,
    incoming: Incoming,
    lifetime: datetime.timedelta,
) -> str:
    folder = host.folder(record.guest.server_id)
    return await host.tls.lend(
        hypervisor, folder, record.uid, "destination", incoming.authority, incoming.source, lifetime
    )


async def _renew_while_it_listens(host: QemuHost, server_id: str, *, now: bool) -> None:
    """Renew until the memory begins to come: its connection may be made long after the disk's."""
    while True:
        if not now:
            await asyncio.sleep(move_authority.LENT.total_seconds() / 3)
        now = False
        async with host.lock(server_id):
            record, hypervisor = host.folder(server_id).read(), host.hypervisor(server_id)
            if record is None or record.role is not Role.INCOMING or record.incoming is None or hypervisor is None:
                return
            if hypervisor.migration not in ("none", "setup"):
                return
            # It hangs because of a connection that sends nothing, or the disk is full: two more looks are in time.
            with contextlib.suppress(*PASSING):
                await _lend(host, hypervisor, record, record.incoming, move_authority.LENT)


async def _export_disks(
    hypervisor: Hypervisor, nodes: Sequence[str], read_only: Sequence[str], address: str, credentials: str
) -> int:
    """Export all disks at one port, each under its own name for its own connection; the port.

    Nobody reads what is `read_only` here. An export makes QEMU use its node, and a guest that arrives paused has
    nothing else that does: at its next move QEMU 7.2 would not survive a node that it does not use (an assertion).
    """
    with sockets.listener(address) as listening:
        await hypervisor.getfd(_DISK, listening.fileno())
        port = sockets.port_of(listening)
    await hypervisor.nbd_server_start(_DISK, tls_creds=credentials, tls_authz=PEER, most_connections=3 + len(nodes))
    for node in nodes:
        await hypervisor.block_export_add(f"{node}-export", node=node, writable=True)
    for node in read_only:
        await hypervisor.block_export_add(f"{node}-export", node=node, writable=False)
    return port


async def end_unless_used(host: QemuHost, server_id: str) -> None:
    """End a destination that nobody uses. Disk writes and a stream are use, a connection alone is not."""
    folder = host.folder(server_id)
    last_write = None
    while True:
        hypervisor = host.hypervisor(server_id)
        record = folder.read()
        if hypervisor is None or record is None or record.role is not Role.INCOMING:
            return
        if last_write is None:
            last_write = _written_at(folder, record)
        change = hypervisor.change()
        if hypervisor.migration not in ("none", "setup"):
            return  # From the first byte of state on, the control plane decides.
        await hypervisor.wait_for_change(change, host.listen_seconds)
        if change.is_set():
            continue
        written = _written_at(folder, record)
        if written != last_write:
            last_write = written
            continue
        async with host.lock(server_id):
            try:
                status = (await hypervisor.migration_status()).status
            except DriverError:
                # A stranger who connects and sends nothing blocks its main loop. The source would have caused events.
                status = hypervisor.migration
            if status in ("none", "setup"):
                await hypervisor.kill()
        return


def _written_at(folder: GuestFolder, record: GuestRecord) -> int:
    """When one of its disks was written last; ns."""
    names = (guest_files.DISK, *(guest_files.further_disk(disk.place) for disk in record.guest.disks))
    seen = [present for name in names if (present := guest_files.look(folder, name)) is not None]
    return max((present.st_mtime_ns for present in seen), default=0)


_ENOUGH = ("completed", "postcopy-active", "postcopy-paused", "postcopy-recover")
"""Statuses in which the destination can run the guest: in post-copy QEMU fetches pages that the guest lacks."""


async def _wait_until_whole(hypervisor: Hypervisor) -> None:
    """Wait until the guest can run here. The source has said so, but one side alone is not trusted."""
    if hypervisor.migration == "completed":  # An event has told it, when the guest was paused: no question costs time.
        return
    seen = "no answer"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOAD_SECONDS):
            while True:
                change = hypervisor.change()
                run_state, migration = await asyncio.gather(hypervisor.run_state(), hypervisor.migration_status())
                seen = f"{run_state}, {migration.status}"
                if run_state == "running" or (run_state == "paused" and migration.status in _ENOUGH):
                    return
                await hypervisor.wait_for_change(change, _LOAD_SECONDS)
    raise DriverError(f"INCOMPLETE: the guest's state has not arrived in full ({seen})")


async def _stop_export(hypervisor: Hypervisor) -> None:
    try:
        await hypervisor.nbd_server_stop()
    except DriverError:
        if await hypervisor.block_exports():  # Without exports the server has stopped already.
            raise


async def finish_incoming(hypervisor: Hypervisor) -> None:
    """Wait until all has arrived and stop the disk's export. The guest does not run yet."""
    await _wait_until_whole(hypervisor)
    await _stop_export(hypervisor)


async def resume_destination(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.record(server_id)
        hypervisor = host.hypervisor(server_id)
        if hypervisor is None:
            if record.role is Role.INCOMING:  # It died after the commit. Its disk is here, and the guest is ours now.
                host.folder(server_id).write(msgspec.structs.replace(record, role=Role.OWN, incoming=None))
            ended = host.hypervisors.get(server_id)
            words = "" if ended is None else ended.last_words()
            raise DriverError(f"NOT_RUNNING: the destination's process has ended{words}")
        stays_paused = record.incoming is not None and record.incoming.parameters.paused
        if record.role is Role.INCOMING:
            await _wait_until_whole(hypervisor)
            # Sent together, done in this order: the source cannot write to the disk any more when the guest begins to.
            await asyncio.gather(_stop_export(hypervisor), *([] if stays_paused else [hypervisor.cont()]))
        else:
            refuse_while_moving(record)  # It may be the source of another move.
            if not record.user_paused:
                await hypervisor.cont()
        for kind in (_LIMIT, _RENEWAL):
            await host.stop_task(server_id, kind)
        if record.role is Role.INCOMING:
            # Written after `cont`, so that the guest does not wait for the disk. After a crash the run state tells.
            settled = msgspec.structs.replace(record, role=Role.OWN, user_paused=stays_paused)
            await asyncio.to_thread(host.folder(server_id).write, settled)
        withdraw_later(host, server_id)


def withdraw_later(host: QemuHost, server_id: str) -> None:
    host.start_lasting_task(server_id, "withdraw-tls", partial(withdraw_when_whole, host, server_id))


async def withdraw_when_whole(host: QemuHost, server_id: str) -> None:
    """In post-copy the credentials are needed until the last page has come: connections may be made again."""
    renewed = False
    while (hypervisor := host.hypervisor(server_id)) is not None:
        change = hypervisor.change()
        record = host.folder(server_id).read()
        if record is None or record.incoming is None:
            return
        with contextlib.suppress(*PASSING):  # It hangs while it waits for a page, or the disk is full.
            if hypervisor.migration in ("completed", "none"):  # The event may come after an answer that says the same.
                async with host.lock(server_id):
                    if await withdraw(host, hypervisor, server_id):
                        return
            elif hypervisor.migration == "postcopy-active" and not renewed:
                await _lend(host, hypervisor, record, record.incoming, move_authority.LENT_IN_POST_COPY)
                renewed = True
        await hypervisor.wait_for_change(change, _LOAD_SECONDS)


async def withdraw(host: QemuHost, hypervisor: Hypervisor, server_id: str) -> bool:
    """Take the credentials back and forget the move; False if a part of the memory has yet to come."""
    hypervisor.migration = (await hypervisor.migration_status()).status
    if hypervisor.migration not in ("completed", "none"):
        return False
    record = host.record(server_id)
    await host.tls.withdraw(hypervisor)
    if record.incoming is not None and record.incoming.parameters.post_copy:
        for name in _SPARE:
            with contextlib.suppress(DriverError):  # Used.
                await hypervisor.closefd(name)
    await asyncio.to_thread(host.folder(server_id).write, msgspec.structs.replace(record, incoming=None))
    return True


_ARRIVALS = {
    "none": MigrationPhase.NONE,
    "completed": MigrationPhase.COMPLETED,
    "postcopy-active": MigrationPhase.POST_COPY,
    "postcopy-paused": MigrationPhase.FAILED,
    "postcopy-recover": MigrationPhase.POST_COPY,
    "failed": MigrationPhase.FAILED,
}


async def arrival(host: QemuHost, server_id: str) -> MigrationPhase:
    """From QEMU's events, or by asking. A process that was started to boot has received nothing.

    In post-copy a device that needs a page blocks QEMU's main loop, and with it every answer, until the page comes.
    """
    host.record(server_id)
    hypervisor = host.hypervisor(server_id)
    if hypervisor is None:
        return MigrationPhase.NONE
    status = hypervisor.migration
    if not status.startswith("postcopy") and status != "completed":
        status = (await hypervisor.migration_status(timeout_s=_BRIEF_SECONDS)).status
    return _ARRIVALS.get(status, MigrationPhase.ACTIVE)


async def recover_incoming(host: QemuHost, server_id: str) -> Endpoint:
    """QMP `migrate-recover`, for the same peer with the same TLS.

    All of it is out of band (see `arrival`), so it uses a socket that QEMU was handed beforehand, or else a new one.
    A connection that is just taking over is not cut, however slow it is: QEMU 7.2 does not survive that.
    """
    async with host.lock(server_id):
        incoming = host.record(server_id).incoming
        hypervisor = host.running_hypervisor(server_id)
        if incoming is None or incoming.endpoint is None:
            raise DriverError("NOT_ARRIVING: this guest waits for no memory")
        endpoint = incoming.endpoint
        deadline = asyncio.get_running_loop().time() + _LOAD_SECONDS
        while True:
            change = hypervisor.change()
            if hypervisor.migration == "postcopy-recover":
                raise DriverError("RECOVERING: another connection is just taking over")
            try:
                await hypervisor.yank_migration()
            except DriverError:
                # It knows no migration: that has ended, and the event was lost. Ask how.
                hypervisor.migration = (await hypervisor.migration_status()).status
                raise
            try:
                return msgspec.structs.replace(endpoint, nbd_port=None, port=await _listen_again(hypervisor, endpoint))
            except DriverError:  # It does not know yet that the connection is cut.
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await hypervisor.wait_for_change(change, _BRIEF_SECONDS / 10)


async def _listen_again(hypervisor: Hypervisor, endpoint: Endpoint) -> int:
    """The port. A name that QEMU does not know was used before; after a restart the agent does not know which were."""
    for name in _SPARE:
        try:
            await hypervisor.migrate_recover(f"tcp:fd:{name}")
            return endpoint.port
        except DriverError as refused:
            if "has not been found" not in str(refused):
                raise
    with sockets.listener(endpoint.address) as listening:
        await hypervisor.getfd(_MEMORY, listening.fileno())
        port = sockets.port_of(listening)
    await hypervisor.migrate_recover(f"tcp:fd:{_MEMORY}")
    return port


async def give_up_memory(host: QemuHost, server_id: str) -> None:
    """The process ends before the record changes: while that says `incoming`, all of this may be repeated."""
    async with host.lock(server_id):
        record = host.record(server_id)
        try:
            arrived = await arrival(host, server_id)
        except DriverError:  # It hangs: a device waits for a page.
            arrived = MigrationPhase.FAILED
        hypervisor = host.hypervisor(server_id)
        if arrived is MigrationPhase.COMPLETED or (record.role is Role.OWN and arrived is MigrationPhase.NONE):
            return
        host.stop_tasks(server_id)
        if hypervisor is not None:
            await hypervisor.kill()
        host.folder(server_id).write(
            msgspec.structs.replace(record, role=Role.OWN, intent=Intent.STOPPED, incoming=None, user_paused=False)
        )
