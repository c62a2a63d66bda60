"""The progress of a copy, from its source's QEMU and from the guest's record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from cumulet.drivers.qemu import disk_copies
from cumulet.drivers.qemu.answers import Job, Migration
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import GuestRecord
from cumulet.host.driver import DriverError, MigrationParameters, MigrationPhase, MigrationProgress

LOOK_SECONDS = 1.0
"""How long to rely on events alone before asking: an event can be lost with a connection."""

_PHASES = {
    "setup": MigrationPhase.SETUP,
    "wait-unplug": MigrationPhase.SETUP,
    "active": MigrationPhase.ACTIVE,
    "cancelling": MigrationPhase.ACTIVE,
    "pre-switchover": MigrationPhase.SWITCHOVER,
    "switchover": MigrationPhase.SWITCHOVER,
    "device": MigrationPhase.SWITCHOVER,
    "postcopy-active": MigrationPhase.POST_COPY,
    "postcopy-paused": MigrationPhase.POST_COPY,
    "postcopy-recover": MigrationPhase.POST_COPY,
    "completed": MigrationPhase.COMPLETED,
    "failed": MigrationPhase.FAILED,
    "cancelled": MigrationPhase.CANCELLED,
}


_LONGEST_DOWNTIME_MS = 2_000_000
_HALVINGS = 3
"""The first limit is the last one halved so often."""
_FIRST_ROUNDS = 3
"""How many rounds have the first limit: the one over all memory, before which QEMU counts one, and one after it."""


def downtime_limit_ms(parameters: MigrationParameters, *, rounds: int, at_once: bool, forced: bool = False) -> int:
    """How long the guest may stand still after so many rounds over its memory.

    QEMU stops a guest as soon as it takes what is left of its memory for sent within this limit, although the next
    round would leave less. So the limit is low at first. It is doubled with each round: memory that is changed almost
    as fast as it is sent also arrives, a few short rounds later.

    `at_once`: the whole limit from the first round on, for a guest that loses some of its memory with each further
    round (`QemuFacts.misses_even_memory`).
    """
    if forced:
        return _LONGEST_DOWNTIME_MS
    if at_once:
        return parameters.downtime_limit_ms
    doubled = min(max(0, rounds - _FIRST_ROUNDS), _HALVINGS)
    return max(1, parameters.downtime_limit_ms >> (_HALVINGS - doubled))


async def copy_progress(
    host: QemuHost, server_id: str, *, wait_seconds: float, seen: MigrationPhase
) -> MigrationProgress:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    while True:
        hypervisor = host.hypervisor(server_id)
        change = hypervisor.change() if hypervisor is not None else asyncio.Event()
        record = host.record(server_id)
        phase = phase_of(record, hypervisor)
        rest = deadline - loop.time()
        if phase is not seen or phase.ended or rest <= 0:
            return await progress_of(record, hypervisor, phase)
        if hypervisor is None:
            return _without_process(record)
        await hypervisor.wait_for_change(change, min(rest, LOOK_SECONDS))


def phase_of(record: GuestRecord, hypervisor: Hypervisor | None) -> MigrationPhase:
    """The phase without asking QEMU: from events, or from the record once it has ended."""
    copy = record.copy
    if copy is None:
        return MigrationPhase.NONE
    if copy.outcome is not None:
        return copy.outcome
    if not copy.memory or hypervisor is None:
        return MigrationPhase.DISK
    phase = _PHASES.get(hypervisor.migration, MigrationPhase.SETUP)
    if phase is MigrationPhase.SWITCHOVER and hypervisor.ready:
        return MigrationPhase.POST_COPY_READY
    if phase in (MigrationPhase.FAILED, MigrationPhase.CANCELLED):
        return MigrationPhase.ACTIVE  # Told after the cleaning up. `completed` cannot wait: no side runs.
    return phase


async def progress_of(record: GuestRecord, hypervisor: Hypervisor | None, phase: MigrationPhase) -> MigrationProgress:
    if hypervisor is None:
        return _without_process(record)
    error = record.copy.error if record.copy is not None else None
    if phase is MigrationPhase.NONE:
        return MigrationProgress(phase=phase)
    if phase in (MigrationPhase.SWITCHOVER, MigrationPhase.POST_COPY_READY):
        # The guest stands still: do not take its hypervisor's time for numbers.
        return msgspec.structs.replace(hypervisor.progress, phase=phase)
    try:
        memory = await hypervisor.migration_status() if record.copy is not None and record.copy.memory else Migration()
        jobs = await disk_copies.jobs(hypervisor, record.guest) if phase is not MigrationPhase.COMPLETED else []
    except DriverError:
        # The main loop is blocked. The numbers stay the same, which the caller's timer takes for no progress.
        return msgspec.structs.replace(hypervisor.progress, phase=phase, error=error)
    hypervisor.progress = _numbers(phase, error, memory, [job for job in jobs if job is not None], hypervisor.progress)
    return hypervisor.progress


def _without_process(record: GuestRecord) -> MigrationProgress:
    outcome = record.copy.outcome if record.copy is not None else None
    if outcome is None:
        return MigrationProgress(phase=MigrationPhase.FAILED, error="the source's process has ended")
    return MigrationProgress(phase=outcome, error=record.copy.error if record.copy is not None else None)


def _numbers(
    phase: MigrationPhase,
    error: str | None,
    migration: Migration,
    jobs: Sequence[Job],
    before: MigrationProgress,
) -> MigrationProgress:
    memory = migration.ram
    disk_total = sum(job.total_progress for job in jobs) if jobs else before.disk_total
    disk_done = sum(job.current_progress for job in jobs) if jobs else before.disk_total
    return MigrationProgress(
        phase=phase,
        error=error,
        memory_total=memory.total,
        memory_processed=memory.transferred,
        memory_remaining=memory.remaining,
        disk_total=disk_total,
        disk_processed=disk_done,
        disk_remaining=max(0, disk_total - disk_done),
        rate_bytes_s=memory.mbps * 125_000,
        dirty_rate_bytes_s=float(memory.dirty_pages_rate * memory.page_size),
        rounds=memory.dirty_sync_count,
        downtime_ms=migration.downtime,
        elapsed_ms=migration.total_time,
    )
