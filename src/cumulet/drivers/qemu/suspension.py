"""Suspend and resume: a guest's memory goes to a file beside its disk and comes back from it.

QEMU writes the file itself, through a descriptor that the agent passes: its sandbox forbids helpers, and a dead agent
does not interrupt it.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from cumulet.drivers.qemu.host import QemuHost, refuse_while_moving
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.movable import make_movable
from cumulet.drivers.qemu.record import GuestFolder, Intent
from cumulet.host.driver import DriverError

_SAVE_SECONDS = 600.0
_STATE = "memory-state"
"""The file's descriptor, as QEMU knows it."""
_UNLIMITED_BYTES_S = 1 << 40
_OFF = ("return-path", "pause-before-switchover")
_ON = ("events", "late-block-activate")


async def suspend(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.record(server_id)
        refuse_while_moving(record)
        if record.intent is Intent.SUSPENDED and host.hypervisor(server_id) is None:
            return
        folder = host.folder(server_id)
        hypervisor = host.running_hypervisor(server_id)
        run_state = await hypervisor.run_state()
        if run_state not in ("running", "paused", "postmigrate"):
            raise DriverError(f"NOT_RUNNING: the guest is in state {run_state}")
        # A suspend that a crash of the agent interrupted leaves `postmigrate` and a whole file behind.
        if run_state != "postmigrate" or not folder.memory.exists():
            await make_movable(host, hypervisor, record)
            await hypervisor.stop()
            await _save(hypervisor, folder)
        await hypervisor.drain_console(folder.console)
        _make_durable(folder)
        folder.write(msgspec.structs.replace(record, intent=Intent.SUSPENDED, copy=None))
        await hypervisor.quit()


async def _save(hypervisor: Hypervisor, folder: GuestFolder) -> None:
    await _set_up(hypervisor)
    await hypervisor.migrate_set_parameters(max_bandwidth=_UNLIMITED_BYTES_S)
    state = os.open(folder.memory, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        await hypervisor.getfd(_STATE, state)
    finally:
        os.close(state)
    await hypervisor.migrate(f"fd:{_STATE}")
    try:
        await _wait_for_end(hypervisor)
    except BaseException:
        folder.memory.unlink(missing_ok=True)
        await hypervisor.cont()
        raise


async def resume(host: QemuHost, server_id: str) -> None:
    async with host.lock(server_id):
        record = host.record(server_id)
        refuse_while_moving(record)
        folder = host.folder(server_id)
        hypervisor = host.hypervisor(server_id)
        if record.intent is not Intent.SUSPENDED:
            if hypervisor is None:
                raise DriverError("NOT_SUSPENDED: the guest has no saved memory")
            if await hypervisor.run_state() == "postmigrate":
                await hypervisor.cont()  # A suspend was interrupted before its record.
            return
        if hypervisor is not None:
            await hypervisor.kill()  # Left by an interrupted suspend or resume; the file has everything.
        hypervisor = await host.launch(folder, record, incoming=True)
        try:
            await _load(hypervisor, folder)
        except BaseException:
            await hypervisor.kill()
            raise
        # The file is used up the moment the guest runs on: its disk changes from then on.
        folder.write(msgspec.structs.replace(record, intent=Intent.RUNNING, user_paused=False))
        await hypervisor.cont()
        await asyncio.to_thread(folder.memory.unlink, missing_ok=True)  # To free a large file takes a while.


async def _load(hypervisor: Hypervisor, folder: GuestFolder) -> None:
    await _set_up(hypervisor)
    state = os.open(folder.memory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await hypervisor.getfd(_STATE, state)
    finally:
        os.close(state)
    await hypervisor.migrate_incoming(f"fd:{_STATE}")
    await _wait_for_end(hypervisor)


async def _set_up(hypervisor: Hypervisor) -> None:
    await hypervisor.migrate_set_capabilities(dict.fromkeys(_OFF, False) | dict.fromkeys(_ON, True))


async def _wait_for_end(hypervisor: Hypervisor) -> None:
    try:
        async with asyncio.timeout(_SAVE_SECONDS):
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
