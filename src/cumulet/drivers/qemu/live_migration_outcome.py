"""How a copy ends, at the source: what the guest's record says of it, and what is removed."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from cumulet.drivers.qemu import disk_copies
from cumulet.drivers.qemu.answers import Migration
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import GuestRecord
from cumulet.host.driver import DriverError, Guest, MigrationPhase

MEMORY = "memory-connection"
"""QEMU's name for the connection that the memory is sent over."""


async def handed_over(hypervisor: Hypervisor) -> bool:
    """Whether `completed` means this copy: QEMU says it of the move by which the guest came here, too."""
    return await hypervisor.run_state() in ("finish-migrate", "postmigrate")


async def clean_up(host: QemuHost, hypervisor: Hypervisor, guest: Guest) -> None:
    """Remove mirrors, connections and credentials, as far as they exist."""
    await disk_copies.clean_up(hypervisor, guest)
    with contextlib.suppress(DriverError):  # Used, or never there.
        await hypervisor.closefd(MEMORY)
    await host.tls.withdraw(hypervisor)


async def conclude(host: QemuHost, hypervisor: Hypervisor, server_id: str, status: str, answer: Migration) -> None:
    if status == "completed":
        await settle(host, server_id, MigrationPhase.COMPLETED, None)
        return
    record = host.record(server_id)
    await clean_up(host, hypervisor, record.guest)
    copy = record.copy
    if copy is not None and copy.error is not None:
        await settle(host, server_id, MigrationPhase.FAILED, copy.error)
    elif status == "cancelled":
        await settle(host, server_id, MigrationPhase.CANCELLED, None)
    elif status == "failed":
        words = answer.error_desc or "the hypervisor gives no reason"
        await settle(host, server_id, MigrationPhase.FAILED, words)
    else:
        await settle(host, server_id, MigrationPhase.FAILED, "the copy was interrupted")


async def settle(host: QemuHost, server_id: str, outcome: MigrationPhase, error: str | None) -> None:
    """Note how the copy ended and wake its followers. It writes to the disk in a thread, because that is slow."""
    await asyncio.to_thread(note, host, server_id, outcome=outcome, error=error, authority=None)
    hypervisor = host.hypervisors.get(server_id)
    if hypervisor is not None:
        hypervisor.announce()


def note(host: QemuHost, server_id: str, **news: object) -> None:
    """Change the record of the copy that is under way. It is read anew: a verb may have changed it."""
    folder = host.folder(server_id)
    record = folder.read()
    if record is not None and record.copy is not None and record.copy.outcome is None:
        folder.write(msgspec.structs.replace(record, copy=msgspec.structs.replace(record.copy, **news)))


async def settled(host: QemuHost, server_id: str) -> GuestRecord:
    """The record, with the outcome of a copy that has just completed: the event comes before the record is written."""
    hypervisor = host.hypervisor(server_id)
    copy = host.record(server_id).copy
    if hypervisor is None or copy is None or copy.outcome is not None or not copy.memory:
        return host.record(server_id)
    if hypervisor.migration == "completed" and await handed_over(hypervisor):
        await settle(host, server_id, MigrationPhase.COMPLETED, None)
    return host.record(server_id)
