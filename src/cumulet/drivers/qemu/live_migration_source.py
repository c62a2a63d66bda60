"""The source's side of a live migration: disks, then memory, then the hand-over; or back to where it was.

Theory of operation. The copy is carried by one task per guest that knows no history: it looks at what QEMU says (block
job and migration status), does the one thing that follows from it, and waits for the next event. So a restarted agent
carries on by starting the same task, wherever the old one died - also in the switchover, where the guest stands still
and only a `migrate-continue` frees it. The task ends with an outcome in the guest's record. It never lets the guest run
on after `completed`: that takes `resume_source`, a decision of the control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

import msgspec

from cumulet.drivers.qemu import disk_copies, move_authority, sockets
from cumulet.drivers.qemu.host import OVER, PASSING, QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.live_migration_destination import capabilities
from cumulet.drivers.qemu.live_migration_outcome import MEMORY, clean_up, conclude, handed_over, note, settle, settled
from cumulet.drivers.qemu.live_migration_progress import LOOK_SECONDS, downtime_limit_ms, phase_of, progress_of
from cumulet.drivers.qemu.movable import make_movable
from cumulet.drivers.qemu.record import Authority, Copy, GuestRecord, Intent, Role
from cumulet.host.driver import DriverError, Guest, MigrationParameters, MigrationPhase, MigrationProgress
from cumulet.host.endpoint import Endpoint, Peer

_CANCEL_SECONDS = 20.0
_HANG_SECONDS = 1.0


async def prepare_outgoing(host: QemuHost, server_id: str, *, move: str) -> Peer:
    async with host.lock(server_id):
        record = host.folder(server_id).read()
        begun = record.copy.authority if record is not None and record.copy is not None else None
        if begun is not None and begun.move == move:
            return move_authority.peer(begun, host.name)
        offered = host.offered.get(server_id)
        if offered is None or offered.move != move:
            offered = host.offered[server_id] = move_authority.new_authority("source", move)
            limit_s = move_authority.LENT.total_seconds()
            asyncio.get_running_loop().call_later(limit_s, _forget_offer, host, server_id, offered)
        return move_authority.peer(offered, host.name)


def _forget_offer(host: QemuHost, server_id: str, offered: Authority) -> None:
    if host.offered.get(server_id) is offered:
        del host.offered[server_id]


async def start_copy(host: QemuHost, server_id: str, endpoint: Endpoint, parameters: MigrationParameters) -> None:
    if endpoint.nbd_port is None or not parameters.copy_disk:
        raise DriverError("SHARED_STORAGE_NOT_YET: disks are local to a host and must be copied")
    async with host.lock(server_id):
        record = host.record(server_id)
        if record.role is not Role.OWN:
            raise DriverError("MOVING: this host is the destination of a move of this guest")
        if record.copy is not None and record.copy.outcome in (None, MigrationPhase.COMPLETED):
            if record.copy.endpoint == endpoint:
                return
            raise DriverError("MOVING: a copy to another place is under way")
        hypervisor = host.running_hypervisor(server_id)
        authority = host.offered.get(server_id)
        if authority is None or authority.move != endpoint.peer.move:
            raise DriverError("NOT_PREPARED: this host was not told of this move, or has been restarted since")
        record = await make_movable(host, hypervisor, record)
        host.folder(server_id).memory.unlink(missing_ok=True)  # Of an earlier resume that was interrupted late.
        if record.copy is not None:
            await clean_up(host, hypervisor, record.guest)
        copy = Copy(endpoint=endpoint, authority=authority, parameters=parameters)
        record = msgspec.structs.replace(record, copy=copy)
        host.folder(server_id).write(record)
        _forget_offer(host, server_id, authority)
        try:
            await _begin(host, hypervisor, record, endpoint, parameters)
        except BaseException as problem:
            await clean_up(host, hypervisor, record.guest)
            await settle(host, server_id, MigrationPhase.FAILED, str(problem))
            raise
        carry_on(host, server_id)


async def _begin(
    host: QemuHost, hypervisor: Hypervisor, record: GuestRecord, endpoint: Endpoint, parameters: MigrationParameters
) -> None:
    credentials = await _lend(host, hypervisor, record)
    await asyncio.gather(
        hypervisor.migrate_set_capabilities(capabilities(parameters)),
        hypervisor.migrate_set_parameters(
            max_bandwidth=parameters.bandwidth_mib_s << 20,
            max_postcopy_bandwidth=parameters.bandwidth_mib_s << 20,
        ),
    )
    await _limit_downtime(host, hypervisor, record.guest, parameters, rounds=0)
    hypervisor.progress = MigrationProgress(phase=MigrationPhase.NONE)
    hypervisor.ready = False
    hostname = move_authority.name_of("destination", endpoint.peer.move)
    await disk_copies.begin(hypervisor, record.guest, endpoint, tls_creds=credentials, tls_hostname=hostname)


async def _lend(host: QemuHost, hypervisor: Hypervisor, record: GuestRecord) -> str:
    """Lend new credentials for the next connection: the last ones may have expired."""
    assert record.copy is not None
    if record.copy.authority is None:
        raise DriverError("NOT_COPYING: the copy has ended")
    folder, peer = host.folder(record.guest.server_id), record.copy.endpoint.peer
    return await host.tls.lend(
        hypervisor, folder, record.uid, "source", record.copy.authority, peer, move_authority.LENT
    )


# -- carrying the copy


def carry_on(host: QemuHost, server_id: str) -> None:
    host.start_lasting_task(server_id, "copy", partial(carry, host, server_id))


async def carry(host: QemuHost, server_id: str) -> None:
    """Do what follows from what is seen, until the copy has ended."""
    standing_still = False  # While the guest does, we rely on events: each question to its hypervisor costs it time.
    while True:
        record = host.folder(server_id).read()
        hypervisor = host.hypervisor(server_id)
        if record is None or record.copy is None or record.copy.outcome is not None or hypervisor is None:
            return  # Another verb has ended it, or the process is gone; the destination knows whether it had completed.
        change = hypervisor.change()
        try:
            look = not standing_still or hypervisor.migration not in ("switchover", "device")
            if look and await _step(host, hypervisor, record, record.copy):
                return
            standing_still = hypervisor.migration in ("switchover", "device")
        except PASSING:
            # It hangs or has gone on meanwhile, or the disk is full. The control plane sets time limits; we look again.
            await asyncio.sleep(0.1)
        await hypervisor.wait_for_change(change, LOOK_SECONDS)
        if not change.is_set():
            standing_still = False


async def _step(host: QemuHost, hypervisor: Hypervisor, record: GuestRecord, copy: Copy) -> bool:
    """One look and one act; True when the copy has ended."""
    server_id = record.guest.server_id
    names = disk_copies.names(record.guest)
    failed = any(hypervisor.jobs.get(name) == "failed" for name in names)
    if copy.memory and hypervisor.migration == "pre-switchover" and not failed:
        await _switch_over(hypervisor, copy, names)
        return False
    if not copy.memory:
        jobs = await disk_copies.jobs(hypervisor, record.guest)
        ended = [job for job in jobs if job is None or job.status in ("concluded", "aborting")]
        if ended:
            async with host.lock(server_id):
                await clean_up(host, hypervisor, record.guest)
                await settle(host, server_id, MigrationPhase.FAILED, disk_copies.why(ended))
            return True
        if all(job is not None and job.status == "ready" for job in jobs):
            await _begin_memory(host, hypervisor, record, copy)
        return False
    # Asked at once: if the guest is just being stopped, both are answered when it stands still.
    jobs, answer = await asyncio.gather(disk_copies.jobs(hypervisor, record.guest), hypervisor.migration_status())
    status = answer.status
    if status == "completed" and not await handed_over(hypervisor):
        status = "none"
    if status in ("completed", "failed", "cancelled", "none"):
        async with host.lock(server_id):
            await conclude(host, hypervisor, server_id, status, answer)
        return True
    broken = [job for job in jobs if job is None or (job.status == "concluded" and job.error is not None)]
    if broken:
        # Without its disks the guest cannot move. The record has the error, so the cancellation counts as a failure.
        note(host, server_id, error=disk_copies.why(broken))
        await hypervisor.migrate_cancel()
    elif status == "pre-switchover":
        for job in jobs:
            if job is not None:
                hypervisor.jobs[job.id] = job.status  # The events went to an agent that is gone.
        await _switch_over(hypervisor, copy, names)
    elif status == "active" and copy.to_post_copy:
        await hypervisor.migrate_start_postcopy()  # It stands still as soon as it can, at `pre-switchover` first.
    elif status == "active":
        rounds = answer.ram.dirty_sync_count
        await _limit_downtime(host, hypervisor, record.guest, copy.parameters, rounds=rounds, forced=copy.forced)
    return False


async def _limit_downtime(
    host: QemuHost,
    hypervisor: Hypervisor,
    guest: Guest,
    parameters: MigrationParameters,
    *,
    rounds: int,
    forced: bool = False,
) -> None:
    misses = host.facts.misses_even_memory and not guest.uneven_memory
    limit_ms = downtime_limit_ms(parameters, rounds=rounds, at_once=misses, forced=forced)
    if hypervisor.downtime_limit_ms != limit_ms:
        await hypervisor.migrate_set_parameters(downtime_limit_ms=limit_ms)
        hypervisor.downtime_limit_ms = limit_ms


async def _begin_memory(host: QemuHost, hypervisor: Hypervisor, record: GuestRecord, copy: Copy) -> None:
    """If the connection cannot be made, the record gets the reason, and the next look finds no migration."""
    error = None
    try:
        await _lend(host, hypervisor, record)
        await sockets.hand_over(hypervisor, MEMORY, copy.endpoint.address, copy.endpoint.port)
    except DriverError as problem:
        error = str(problem)
    note(host, record.guest.server_id, memory=True, error=error)
    hypervisor.migration = "none"
    if error is None:
        await hypervisor.migrate(f"fd:{MEMORY}")


async def _switch_over(hypervisor: Hypervisor, copy: Copy, names: Sequence[str]) -> None:
    """The guest stands still, so rely on events: every question costs it time. If an event is missing, look.

    On the way to post-copy it goes on standing still: only the control plane knows whether the commit was made.
    """
    hypervisor.migration = "switchover"
    going = [name for name in names if hypervisor.jobs.get(name) not in ("waiting", "pending", "concluded")]
    # In this state "cancel" means: finish, and do not switch the guest over to the copy.
    await asyncio.gather(*(hypervisor.block_job_cancel(name, force=False) for name in going))
    async with asyncio.timeout(LOOK_SECONDS):
        while True:
            change = hypervisor.change()
            seen = {hypervisor.jobs.get(name) for name in names}
            if seen <= {"concluded", "failed"}:
                break
            await change.wait()
    if seen == {"concluded"} and copy.to_post_copy:
        hypervisor.ready = True
        hypervisor.announce()
    elif seen == {"concluded"}:
        await hypervisor.migrate_continue()


# -- changing its course


async def force_complete(host: QemuHost, server_id: str) -> None:
    """Go to post-copy if both sides are prepared for it. Else lift the limit of the downtime: once the disk is copied,
    the guest stands still until the rest of its memory is sent."""
    async with host.lock(server_id):
        record = host.record(server_id)
        if record.copy is not None and record.copy.outcome is MigrationPhase.COMPLETED:
            return
        if record.copy is None or record.copy.outcome is not None:
            raise DriverError("NOT_COPYING: no copy is under way")
        hypervisor = host.running_hypervisor(server_id)
        to_post_copy = record.copy.parameters.post_copy
        note(host, server_id, to_post_copy=to_post_copy, forced=not to_post_copy)
        hypervisor.announce()  # `carry` does the rest.


async def begin_post_copy(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = await settled(host, server_id)
        if record.copy is None:
            raise DriverError("NOT_COPYING: no copy is under way")
        if record.copy.outcome is MigrationPhase.COMPLETED:
            return
        if not record.copy.memory:  # Until it is sent, QEMU reports the migration by which the guest came here.
            raise DriverError("NOT_READY: the copy has not come to the memory")
        hypervisor = host.running_hypervisor(server_id)
        asked = False
        async with asyncio.timeout(_CANCEL_SECONDS):
            while True:
                change = hypervisor.change()
                status = (await hypervisor.migration_status()).status
                if status in ("postcopy-active", "postcopy-paused", "completed"):
                    return
                if status not in ("pre-switchover", "device", "switchover"):
                    raise DriverError(f"NOT_READY: the copy is {status}")
                if status == "pre-switchover" and not asked:
                    await hypervisor.migrate_continue()
                    asked = True
                    continue
                await hypervisor.wait_for_change(change, LOOK_SECONDS)


async def recover_copy(host: QemuHost, server_id: str, endpoint: Endpoint) -> None:
    """QMP `migrate` with `resume`. The guest runs at its destination already and waits for pages."""
    async with host.lock(server_id):
        record = await settled(host, server_id)
        if record.copy is not None and record.copy.outcome is MigrationPhase.COMPLETED:
            return
        if record.copy is None or not record.copy.to_post_copy:
            raise DriverError("NOT_COPYING: no copy in post-copy mode is under way")
        hypervisor = host.running_hypervisor(server_id)
        async with asyncio.timeout(_CANCEL_SECONDS):
            while True:
                change = hypervisor.change()
                status = (await hypervisor.migration_status()).status
                if status not in ("postcopy-active", "postcopy-recover"):
                    break
                await hypervisor.yank_migration()
                await hypervisor.wait_for_change(change, LOOK_SECONDS)
        if status == "postcopy-paused":
            await _lend(host, hypervisor, record)
            await sockets.hand_over(hypervisor, MEMORY, endpoint.address, endpoint.port)
            await hypervisor.migrate(f"fd:{MEMORY}", resume=True)


async def cancel_copy(host: QemuHost, server_id: str) -> MigrationProgress:
    async with host.lock(server_id):
        record = await settled(host, server_id)
        hypervisor = host.hypervisor(server_id)
        if record.copy is None or record.copy.outcome is not None:
            return await progress_of(record, hypervisor, phase_of(record, hypervisor))
        await host.stop_task(server_id, "copy")
        if hypervisor is None:
            await settle(host, server_id, MigrationPhase.FAILED, "the source's process has ended")
        elif record.copy.memory:
            if hypervisor.migration.startswith("postcopy"):
                carry_on(host, server_id)
                raise DriverError("TOO_LATE: the guest runs at its destination")
            await _cancel_memory(hypervisor, record.guest)
            answer = await hypervisor.migration_status()
            completed = answer.status == "completed" and await handed_over(hypervisor)
            ended = "completed" if completed else "cancelled"
            await conclude(host, hypervisor, server_id, ended, answer)
        else:
            await clean_up(host, hypervisor, record.guest)
            await settle(host, server_id, MigrationPhase.CANCELLED, None)
        record = host.record(server_id)
        return await progress_of(record, hypervisor, phase_of(record, hypervisor))


async def _cancel_memory(hypervisor: Hypervisor, guest: Guest) -> None:
    """Until the migration has ended, one way or the other.

    Cancelling drains all block devices. Where the destination hangs or the network is cut, a disk write to it never
    returns and QEMU's main loop would wait for it, guest and all: so the disk's connection is cut first, out of band.
    """
    await disk_copies.cut(hypervisor, guest)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _CANCEL_SECONDS
    asked = False
    while loop.time() < deadline:
        change = hypervisor.change()
        try:
            if not asked:
                await hypervisor.migrate_cancel(timeout_s=_HANG_SECONDS)
                asked = True
            status = (await hypervisor.migration_status(timeout_s=_HANG_SECONDS)).status
            if status in ("completed", "failed", "cancelled", "none"):
                return
            await hypervisor.wait_for_change(change, _HANG_SECONDS)
            blocked = not change.is_set()
        except DriverError:
            if not hypervisor.alive:
                raise
            blocked = True
        if blocked:  # It waits in a write to the migration's connection, in the switchover.
            with contextlib.suppress(DriverError):
                await hypervisor.yank_migration()
    raise DriverError("CANCEL_TIMEOUT: the copy does not end")


async def resume_source(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = await settled(host, server_id)
        if record.role is not Role.OWN:
            raise DriverError("MOVING: this host is the destination of a move of this guest")
        if record.copy is not None and record.copy.outcome is None:
            raise DriverError("MOVING: the copy has not ended; cancel it first")
        hypervisor, over = host.hypervisor(server_id), False
        if hypervisor is not None:
            run_state = await hypervisor.run_state()
            over = run_state in OVER
            if run_state != "running" and not over and not record.user_paused and record.intent is Intent.RUNNING:
                await hypervisor.cont()
            if record.copy is not None:
                await clean_up(host, hypervisor, record.guest)
        if record.copy is not None:
            host.folder(server_id).write(msgspec.structs.replace(record, copy=None))
        host.running_hypervisor(server_id)  # Without a process it may be started again, but the caller must know.
        if over:
            raise DriverError("NOT_RUNNING: the guest has powered itself off, or its machine has failed")
