"""Post-copy: below the line of a live migration, the guest runs at its destination before all of its memory has come.

Until then the source is needed. A connection that breaks is made anew. If the rest will never come, the guest is booted
from its disk, which is whole at the destination. QMP: `migrate-start-postcopy`, `migrate-recover`.
"""

from __future__ import annotations

import msgspec

from cumulet.compute import believed, moves, operations
from cumulet.compute import hosts as host_records
from cumulet.compute.copying import COPY_WAIT_SECONDS, ask_progress, note_progress
from cumulet.compute.live_migration_state import LiveMigration
from cumulet.compute.operations import command
from cumulet.conductor.saga import Context
from cumulet.host import messages as m
from cumulet.host.driver import GuestState, MigrationPhase, MigrationProgress


async def begin_post_copy(context: Context, state: LiveMigration) -> LiveMigration:
    """Let the source send the state that the guest needs to run. If that is lost, the guest boots from its disk.

    The guest boots only once it is certainly gone from the source: when a copy fails, a hypervisor may let it run on.
    """
    try:
        await context.hosts.send(state.source, m.BeginPostCopy(**command(context, state)))
        return state
    except m.HostUnreachable:
        if not await context.read(lambda tx: host_records.is_fenced(tx, state.source, context.settings)):
            raise
        why = f"{state.source} is down."
    except (m.VerbFailed, m.StaleGeneration):  # Stale: an earlier try has already destroyed it.
        progress = await _ask_source(context, state, MigrationPhase.POST_COPY_READY)
        if progress is None or not progress.phase.failed:
            raise
        await context.hosts.send(state.source, m.Destroy(**command(context, state)))
        why = _ended(state, progress)
    return await boot_from_disk(context, state, why)


async def receive_rest(context: Context, state: LiveMigration) -> LiveMigration:
    """Wait until the destination has all of the guest's memory, or the rest of it is lost."""
    patience = context.settings.migration_progress_timeout_seconds
    seen, sent, moved_at = MigrationPhase.POST_COPY_READY, -1, context.clock.monotonic()
    while True:
        progress = await _ask_source(context, state, seen)
        if progress is not None:
            await note_progress(context, state, progress)
            if progress.memory_processed > sent:
                sent, moved_at = progress.memory_processed, context.clock.monotonic()
            seen = progress.phase
        arrived = await _ask_destination(context, state)
        if arrived is MigrationPhase.COMPLETED:
            return msgspec.structs.replace(state, progress=progress or state.progress)
        if progress is not None and progress.phase.failed:
            return await boot_from_disk(context, state, _ended(state, progress))
        if arrived is MigrationPhase.NONE:
            return await boot_from_disk(context, state, f"its process at {state.destination} has ended.")
        stands_still = context.clock.monotonic() - moved_at > patience
        if progress is None:
            # Its agent is silent, but its hypervisor may go on sending as long as the host may be alive.
            up = await context.read(lambda tx: host_records.is_up(tx, state.source))
            if not up and (stands_still or arrived is MigrationPhase.FAILED):
                return await boot_from_disk(context, state, f"{state.source} is down.")
            await context.wait_for_wish(COPY_WAIT_SECONDS)
        elif arrived is MigrationPhase.FAILED or stands_still:
            await recover_connection(context, state)
            moved_at = context.clock.monotonic()


async def recover_connection(context: Context, state: LiveMigration) -> None:
    """The connection of the hosts was lost. Both sides still have all they had, so another connection mends it."""
    destination = moves.destination(state)
    try:
        answer = await context.hosts.send(destination, m.RecoverIncoming(**command(context, state)))
    except m.VerbFailed:
        return  # For example, it is taking over another connection just now. The next look tells the result.
    address: str = await context.read(lambda tx: host_records.address_of(tx, destination))
    endpoint = believed.endpoint(destination, address, state.migration_uuid, answer)
    await context.hosts.send(state.source, m.RecoverCopy(**command(context, state), endpoint=endpoint))


def _ended(state: LiveMigration, progress: MigrationProgress) -> str:
    return f"the copy from {state.source} has ended, {progress.phase} ({progress.error or 'no reason given'})."


async def boot_from_disk(context: Context, state: LiveMigration, why: str) -> LiveMigration:
    """Boot the guest from its disk, which is whole at the destination. May be repeated: a running one is left alone."""
    await context.hosts.send(moves.destination(state), m.GiveUpMemory(**command(context, state)))
    seen = await operations.observe(context, moves.destination(state), state.server_id)
    if seen in (GuestState.CRASHED, GuestState.STOPPED):
        await context.hosts.send(moves.destination(state), m.Start(**command(context, state)))
    return msgspec.structs.replace(state, rest_follows=False, memory_lost=why)


async def _ask_destination(context: Context, state: LiveMigration) -> MigrationPhase:
    """How much has arrived. No answer counts as FAILED: a hypervisor that waits for a lost page does not answer."""
    try:
        answer = await context.hosts.send(moves.destination(state), m.AskArrival(server_id=state.server_id))
    except m.VerbFailed:
        return MigrationPhase.FAILED
    return answer


async def _ask_source(context: Context, state: LiveMigration, seen: MigrationPhase) -> MigrationProgress | None:
    """The phase of the copy; None if the source does not answer."""
    try:
        return await ask_progress(context, state, seen)
    except m.HostUnreachable:
        return None
    except (m.VerbFailed, m.StaleGeneration) as error:  # Stale: an earlier try has already discarded the guest there.
        return MigrationProgress(phase=MigrationPhase.NONE, error=str(error))
