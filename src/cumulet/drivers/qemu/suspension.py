"""Suspend and resume: a guest's memory goes to a file beside its disk and comes back from it.

QEMU writes the file itself, through a descriptor that the agent passes: its sandbox forbids helpers, and a dead agent
does not interrupt it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial

import msgspec

from cumulet.drivers.qemu import room
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.movable import make_movable
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from cumulet.host.driver import DriverError
from cumulet.host.patience import seconds_for

_CANCEL_SECONDS = 20.0
_MOMENT_SECONDS = 0.1
_STATE = "memory-state"
"""The file's descriptor, as QEMU knows it."""
_UNLIMITED_BYTES_S = 1 << 40
_CAPABILITIES = ("events", "late-block-activate")
_UNDER_WAY = ("setup", "active", "device", "cancelling")
"""Statuses in which QEMU writes the file. A guest in no move has nothing else that it could be sending."""
_PUT_RIGHT = "put-right"


async def suspend(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        if record.intent is Intent.SUSPENDED and host.hypervisor(server_id) is None:
            return
        folder = host.folder(server_id)
        hypervisor = host.running_hypervisor(server_id)
        run_state = await hypervisor.run_state()
        if run_state not in ("running", "paused", "finish-migrate", "postmigrate"):
            raise DriverError(f"NOT_RUNNING: the guest is in state {run_state}")
        try:
            if not await _saved_or_being_saved(hypervisor, folder):
                record = await make_movable(host, hypervisor, record)
                await hypervisor.stop()
                await _begin_save(host, hypervisor, folder, record)
            await _wait_for_end(hypervisor, record)
            await hypervisor.drain_console(folder.console)
            _make_durable(folder)
        except asyncio.CancelledError:  # The agent ends, perhaps. QEMU goes on writing, for whoever asks next.
            put_right_later(host, server_id)
            raise
        except BaseException:
            with contextlib.suppress(DriverError, TimeoutError):  # It hangs, or has ended.
                await _run_on(hypervisor, folder, record)
            raise
        folder.write(msgspec.structs.replace(record, intent=Intent.SUSPENDED, copy=None))
        await hypervisor.quit()


async def _saved_or_being_saved(hypervisor: Hypervisor, folder: GuestFolder) -> bool:
    """Whether a suspend that a crash of the agent interrupted has left a file that is whole, or will be."""
    status = (await hypervisor.migration_status()).status
    if status in _UNDER_WAY:
        if status != "cancelling" and folder.memory.exists():
            return True
        await _cancel(hypervisor)
    return status == "completed" and await _run_state_at_rest(hypervisor) == "postmigrate" and folder.memory.exists()


async def _begin_save(host: QemuHost, hypervisor: Hypervisor, folder: GuestFolder, record: GuestRecord) -> None:
    await _set_up(hypervisor)
    state = await _new_file(host, folder, record)
    try:
        await hypervisor.getfd(_STATE, state)
    finally:
        os.close(state)
    await hypervisor.migrate(f"fd:{_STATE}")


async def _new_file(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> int:
    """An empty file for the guest's memory, which counts as taken from here on. DISK_FULL without room for it."""
    await asyncio.to_thread(folder.memory.unlink, missing_ok=True)  # To free a large file takes a while.
    await host.disks.images.require_room(room.saved_bytes(record.guest), besides="")
    return os.open(folder.memory, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


async def _run_on(hypervisor: Hypervisor, folder: GuestFolder, record: GuestRecord) -> None:
    """Drop what was saved. A guest that nobody has paused runs on."""
    if (await hypervisor.migration_status()).status in _UNDER_WAY:
        await _cancel(hypervisor)
    await asyncio.to_thread(folder.memory.unlink, missing_ok=True)  # To free a large file takes a while.
    if not record.user_paused and await _run_state_at_rest(hypervisor) in ("paused", "postmigrate"):
        await hypervisor.cont()


async def _run_state_at_rest(hypervisor: Hypervisor) -> str:
    """Once a save that has ended has left it: QEMU says that the save is `completed` a moment before."""
    async with asyncio.timeout(_CANCEL_SECONDS):
        while True:
            change = hypervisor.change()
            if (run_state := await hypervisor.run_state()) != "finish-migrate":
                return run_state
            await hypervisor.wait_for_change(change, _MOMENT_SECONDS)


async def _cancel(hypervisor: Hypervisor) -> None:
    await hypervisor.migrate_cancel()
    async with asyncio.timeout(_CANCEL_SECONDS):
        while True:
            change = hypervisor.change()
            if (await hypervisor.migration_status()).status not in _UNDER_WAY:
                return
            await hypervisor.wait_for_change(change, 1.0)


def put_right_later(host: QemuHost, server_id: str) -> None:
    host.start_lasting_task(server_id, _PUT_RIGHT, partial(put_right, host, server_id))


async def put_right(host: QemuHost, server_id: str) -> None:
    """Of a guest that was found: let it run if it stands still though nobody has paused it.

    An agent has died in a suspend, a resume or a pause, and nobody may ask for that again. Whoever does while QEMU
    still writes the file comes first.
    """
    while (hypervisor := host.hypervisor(server_id)) is not None:
        change = hypervisor.change()
        if (await hypervisor.migration_status()).status not in _UNDER_WAY:
            break
        await hypervisor.wait_for_change(change, 1.0)
    async with host.lock(server_id):
        record, hypervisor = host.folder(server_id).read(), host.hypervisor(server_id)
        if record is not None and hypervisor is not None and should_run(record):
            await _run_on(hypervisor, host.folder(server_id), record)


def should_run(record: GuestRecord) -> bool:
    at_home = record.role is Role.OWN and record.copy is None
    return at_home and record.intent is Intent.RUNNING and not record.user_paused


async def resume(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.resting(server_id)
        folder = host.folder(server_id)
        hypervisor = host.hypervisor(server_id)
        if record.intent is not Intent.SUSPENDED:
            if hypervisor is None:
                raise DriverError("NOT_SUSPENDED: the guest has no saved memory")
            await host.living_hypervisor(server_id)
            if should_run(record):  # A suspend was interrupted before its record, or a resume after it.
                await _run_on(hypervisor, folder, record)
            return
        if hypervisor is not None:
            await hypervisor.kill()  # Left by an interrupted suspend or resume; the file has everything.
        hypervisor = await host.launch(folder, record, incoming=True)
        try:
            await _load(hypervisor, folder, record)
        except BaseException:
            await hypervisor.kill()
            raise
        # The file is used up the moment the guest runs on: its disk changes from then on.
        folder.write(msgspec.structs.replace(record, intent=Intent.RUNNING, user_paused=False))
        await hypervisor.cont()
        await asyncio.to_thread(folder.memory.unlink, missing_ok=True)  # To free a large file takes a while.


async def _load(hypervisor: Hypervisor, folder: GuestFolder, record: GuestRecord) -> None:
    await _set_up(hypervisor)
    state = os.open(folder.memory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await hypervisor.getfd(_STATE, state)
    finally:
        os.close(state)
    await hypervisor.migrate_incoming(f"fd:{_STATE}")
    await _wait_for_end(hypervisor, record)


async def _set_up(hypervisor: Hypervisor) -> None:
    """All that a move by which the guest came here, or one that has failed, may have set otherwise."""
    await hypervisor.migrate_set_capabilities(_CAPABILITIES)
    await hypervisor.migrate_set_parameters(
        max_bandwidth=_UNLIMITED_BYTES_S, tls_creds="", tls_hostname="", tls_authz=""
    )


async def _wait_for_end(hypervisor: Hypervisor, record: GuestRecord) -> None:
    try:
        async with asyncio.timeout(seconds_for(record.guest.memory_mib << 20)):
            while True:
                change = hypervisor.change()
                answer = await hypervisor.migration_status()
                if answer.status == "completed" and await hypervisor.run_state() in ("postmigrate", "paused"):
                    return
                if answer.status in ("failed", "cancelled"):
                    raise DriverError(f"SAVE_FAILED: {answer.error_desc or 'the hypervisor gives no reason'}")
                await hypervisor.wait_for_change(change, 1.0)
    except TimeoutError as late:
        raise DriverError("SAVE_FAILED: not done in time") from late


def _make_durable(folder: GuestFolder) -> None:
    state = os.open(folder.memory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(state)
    finally:
        os.close(state)
