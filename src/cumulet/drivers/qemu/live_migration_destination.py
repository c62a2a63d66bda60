"""The destination's side of a live migration: a guest that waits, takes its state from one source, and runs when told.

It listens only between `prepare_incoming` and the commit, only on the migration address, only for the source named.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import msgspec

from cumulet.drivers.qemu import config_drive, guest_files
from cumulet.drivers.qemu.command_line import DISK_NODE
from cumulet.drivers.qemu.host import QemuHost, refuse_while_moving
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.life import define, frozen
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Incoming, Intent, Role
from cumulet.drivers.qemu.tls import CREDENTIALS, PEER
from cumulet.host.driver import DriverError, Endpoint, Guest, MigrationParameters, MigrationPhase

_LOAD_SECONDS = 10.0
_BRIEF_SECONDS = 2.0
EXPORT = "disk0-export"
_LISTENER = "nbd-listener"


def capabilities(parameters: MigrationParameters) -> dict[str, bool]:
    """The same on both sides: one that differs kills the destination in the middle of the stream."""
    always = ("events", "return-path", "late-block-activate", "pause-before-switchover")
    return dict.fromkeys(always, True) | {"postcopy-ram": parameters.post_copy}


_RECEIVING = ("active", "device", "postcopy-active", "postcopy-paused", "postcopy-recover")
"""Statuses of an incoming migration (query-migrate) in which guest state is here, or on its way."""


async def prepare_incoming(
    host: QemuHost, guest: Guest, *, source_host: str, parameters: MigrationParameters
) -> Endpoint:
    if not parameters.copy_disk:
        raise DriverError("SHARED_STORAGE_NOT_YET: disks are local to a host and must be copied")
    server_id = guest.server_id
    async with host.lock(server_id):
        listening = await _still_listening(host, server_id, source_host)
        if listening is not None:
            return listening
        await host.remove(server_id)
        folder, record = define(host, frozen(host, guest), role=Role.INCOMING)
        try:
            endpoint = await _listen(host, folder, record, source_host, parameters)
        except BaseException:
            await host.remove(server_id)
            raise
        host.start_task(server_id, "listen-limit", end_unless_used(host, server_id))
        return endpoint


async def _still_listening(host: QemuHost, server_id: str, source_host: str) -> Endpoint | None:
    """The endpoint of an earlier, equal request. Refuses to destroy what may be the only copy of a guest."""
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
    waits = incoming is not None and incoming.source_host == source_host and status in ("none", "setup")
    return incoming.endpoint if incoming is not None and waits else None


async def _listen(
    host: QemuHost, folder: GuestFolder, record: GuestRecord, source_host: str, parameters: MigrationParameters
) -> Endpoint:
    await host.disks.make_empty_disk(record.guest, folder, record.uid)
    config_drive.write(record.guest, folder, record.uid)
    hypervisor = await host.launch(folder, record, incoming=True)
    await host.tls.lend(hypervisor, folder, record.uid, "server")
    await host.tls.accept_only(hypervisor, source_host)
    await hypervisor.migrate_set_capabilities(capabilities(parameters))
    await hypervisor.migrate_set_parameters(tls_creds=CREDENTIALS, tls_authz=PEER)
    nbd_port = await _export_disk(hypervisor, host.address)
    await hypervisor.migrate_incoming(f"tcp:{_in_uri(host.address)}:0")
    endpoint = Endpoint(
        address=host.address, port=await _bound_port(hypervisor), nbd_port=nbd_port, tls_hostname=host.name
    )
    incoming = Incoming(source_host=source_host, parameters=parameters, endpoint=endpoint)
    folder.write(msgspec.structs.replace(record, intent=Intent.RUNNING, incoming=incoming))
    return endpoint


async def _export_disk(hypervisor: Hypervisor, address: str) -> int:
    """QEMU cannot be asked which port its NBD server got, so it inherits a socket that is bound already."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen(4)
        port = int(listener.getsockname()[1])
        await hypervisor.getfd(_LISTENER, listener.fileno())
    await hypervisor.nbd_server_start(_LISTENER, tls_creds=CREDENTIALS, tls_authz=PEER, most_connections=4)
    await hypervisor.block_export_add(EXPORT, node=DISK_NODE)
    return port


async def _bound_port(hypervisor: Hypervisor) -> int:
    addresses = (await hypervisor.migration_status()).socket_address
    if not addresses or not addresses[0].port.isdecimal():
        raise DriverError("NOT_LISTENING: QEMU does not say where it listens")
    return int(addresses[0].port)


def _in_uri(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def end_unless_used(host: QemuHost, server_id: str) -> None:
    """End a destination that nobody uses. Disk writes and a stream count as use, a connection alone does not."""
    folder = host.folder(server_id)
    last_write = -1
    while True:
        hypervisor = host.hypervisor(server_id)
        record = folder.read()
        if hypervisor is None or record is None or record.role is not Role.INCOMING:
            return
        change = hypervisor.change()
        if hypervisor.migration not in ("none", "setup"):
            return  # From the first byte of state on, only the control plane decides.
        await hypervisor.wait_for_change(change, host.listen_seconds)
        if change.is_set():
            continue
        disk = guest_files.look(folder, guest_files.DISK)
        written = disk.st_mtime_ns if disk is not None else 0
        if written != last_write and last_write >= 0:
            last_write = written
            continue
        async with host.lock(server_id):
            try:
                status = (await hypervisor.migration_status()).status
            except DriverError:
                # A stranger who connects and says nothing blocks its main loop. The source would have been heard of.
                status = hypervisor.migration
            if status in ("none", "setup"):
                await hypervisor.kill()
        return


_ENOUGH = ("completed", "postcopy-active", "postcopy-paused", "postcopy-recover")
"""What the destination says when it could run the guest: in post-copy, QEMU fetches what a running guest lacks."""


async def _wait_until_whole(hypervisor: Hypervisor) -> None:
    """Until it could run. With a return path it can when the source says so, but never trust one side."""
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
        if await hypervisor.block_exports():  # Asked twice, it has stopped already.
            raise


async def finish_incoming(hypervisor: Hypervisor) -> None:
    """All has arrived, and nobody else writes to the disk any more; the guest is not let run."""
    await _wait_until_whole(hypervisor)
    await _stop_export(hypervisor)


async def resume_destination(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.record(server_id)
        hypervisor = host.hypervisor(server_id)
        if hypervisor is None:
            if record.role is Role.INCOMING:  # It died in between. What it was sent is on its disk, and it is ours now.
                host.folder(server_id).write(msgspec.structs.replace(record, role=Role.OWN, incoming=None))
            raise DriverError("NOT_RUNNING: the destination's process has ended")
        stays_paused = record.incoming is not None and record.incoming.parameters.paused
        if record.role is Role.INCOMING:
            await _wait_until_whole(hypervisor)
            # Sent together, done in this order: nobody else writes to the disk when the guest begins to.
            await asyncio.gather(_stop_export(hypervisor), *([] if stays_paused else [hypervisor.cont()]))
        else:
            refuse_while_moving(record)  # This is the source of a move: nobody but it decides whether it runs on.
            if not record.user_paused:
                await hypervisor.cont()
        host.stop_tasks(server_id)
        if record.role is Role.INCOMING:
            # After `cont`, to spare the guest the wait for the disk: a crash in between is mended by the run state.
            settled = msgspec.structs.replace(record, role=Role.OWN, incoming=None, user_paused=stays_paused)
            await asyncio.to_thread(host.folder(server_id).write, settled)
        host.start_task(server_id, "withdraw-tls", withdraw_when_whole(host, hypervisor))


async def withdraw_when_whole(host: QemuHost, hypervisor: Hypervisor) -> None:
    """In post-copy the credentials are needed until the last page has come, over one connection or another."""
    while hypervisor.alive:
        change = hypervisor.change()
        if hypervisor.migration in ("completed", "none"):  # The event may come after an answer that says the same.
            await host.tls.withdraw(hypervisor)
            return
        await hypervisor.wait_for_change(change, _LOAD_SECONDS)


_ARRIVALS = {
    "none": MigrationPhase.NONE,
    "completed": MigrationPhase.COMPLETED,
    "postcopy-active": MigrationPhase.POST_COPY,
    "postcopy-paused": MigrationPhase.FAILED,
    "postcopy-recover": MigrationPhase.POST_COPY,
    "failed": MigrationPhase.FAILED,
}


async def arrival(host: QemuHost, server_id: str) -> MigrationPhase:
    """By what QEMU's events told, or asking it. A process that was started to boot has received nothing.

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
    """QMP `migrate-recover`. Asked again, it listens at yet another port, for the same peer with the same TLS.

    All of it out of band, see `arrival`; so QEMU cannot be asked which port it took, and is given one that is free.
    A connection that is just taking over is let alone, however slow it is: QEMU 7.2 does not survive its end.
    """
    async with host.lock(server_id):
        host.record(server_id)
        hypervisor = host.running_hypervisor(server_id)
        deadline = asyncio.get_running_loop().time() + _LOAD_SECONDS
        while True:
            change = hypervisor.change()
            if hypervisor.migration == "postcopy-recover":
                raise DriverError("RECOVERING: another connection is just taking over")
            try:
                await hypervisor.yank_migration()
            except DriverError:
                # It knows of no migration: that has ended, and we were not told. See what has become of it.
                hypervisor.migration = (await hypervisor.migration_status()).status
                raise
            port = _free_port(host.address)
            try:
                await hypervisor.migrate_recover(f"tcp:{_in_uri(host.address)}:{port}")
            except DriverError:  # It has not noticed yet that the connection is cut.
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await hypervisor.wait_for_change(change, _BRIEF_SECONDS / 10)
            else:
                return Endpoint(address=host.address, port=port, nbd_port=None, tls_hostname=host.name)


def _free_port(address: str) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.bind((address, 0))
        return int(attempt.getsockname()[1])


async def give_up_memory(host: QemuHost, server_id: str) -> None:
    """The process goes before the record: as long as that says `incoming`, all of this may be done again."""
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
