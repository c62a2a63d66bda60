"""Following a copy between two hosts, of a running or a stopped guest: progress, abort, force-complete, time limits.

The sagas do what comes before and after: `compute.live_migration` and `compute.resize`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import msgspec

from cumulet.compute import believed, moves, operations
from cumulet.compute import hosts as host_records
from cumulet.compute.moves import Recorded
from cumulet.compute.operations import Commanding, command
from cumulet.conductor.saga import Context, StepFailed, Wishes
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.driver import Guest, MigrationParameters, MigrationPhase, MigrationProgress
from cumulet.host.endpoint import Endpoint

COPY_WAIT_SECONDS = 0.5
"""How long a host keeps a question about a copy before it answers that there is nothing new."""


def copy_parameters(context: Context, *, paused: bool = False, post_copy: bool = False) -> MigrationParameters:
    return MigrationParameters(
        bandwidth_mib_s=context.settings.migration_bandwidth_mib_s,
        downtime_limit_ms=context.settings.migration_downtime_limit_ms,
        copy_disk=True,
        post_copy=post_copy,
        paused=paused,
    )


async def prepare_copy(
    context: Context, state: moves.Moving, guest: dict[str, object] | None, parameters: MigrationParameters
) -> Endpoint:
    """Make a paused guest at the destination that is like the source's and listens for the source alone.

    Both ends make keys for this move, and each is told the other's certificate: they trust nobody else in the move.
    """
    move = state.migration_uuid
    offered = await context.hosts.send(state.source, m.PrepareOutgoing(**command(context, state), move=move))
    source = believed.peer(state.source, move, offered)
    destination, described = moves.destination(state), msgspec.convert(guest, Guest)

    def look(tx: Tx) -> tuple[Guest, str]:
        return host_records.as_told(tx, destination, described), host_records.address_of(tx, destination)

    told, address = await context.read(look)
    answer = await context.hosts.send(
        destination,
        m.PrepareIncoming(
            **command(context, state),
            guest=told,
            source=source,
            parameters=parameters,
        ),
    )
    return believed.endpoint(destination, address, move, answer)


@dataclass(slots=True, kw_only=True)
class Patience:
    """How long a copy may make no progress."""

    stalled_at: float
    most_processed: int


class Copied(Commanding, Recorded, Protocol):
    """What following a copy needs of a saga's state."""

    @property
    def source(self) -> str: ...


async def follow_copy(context: Context, state: Copied, *, live: bool = False) -> MigrationProgress:
    """Follow the copy until it has completed: record progress, do what users ask, and fail after bounded time.

    `live`: the guest runs until the end is near; from then on it stands still.
    """
    settings = context.settings
    now = context.clock.monotonic()
    patience = Patience(stalled_at=now + settings.migration_progress_timeout_seconds, most_processed=-1)
    started = now
    seen = MigrationPhase.NONE
    by_force = settings.migration_timeout_action == "force_complete"
    forced = False
    times = 1
    while True:
        progress = await operations.ask_patiently(
            context,
            functools.partial(ask_progress, context, state, seen),
            until=patience.stalled_at,
            reason="SOURCE_SILENT",
            public="The source host does not answer.",
        )
        if progress.phase in (MigrationPhase.COMPLETED, MigrationPhase.POST_COPY_READY):
            return progress
        if progress.phase.ended:
            raise StepFailed(
                "COPY_FAILED", "The copy of the guest's memory failed.", progress.error or progress.phase.value
            )
        now = context.clock.monotonic()
        # The time allowed in all grows with memory and disk, as Nova's completion timeout.
        gib = max(1.0, (progress.memory_total + progress.disk_total) / 2**30)
        late = now > started + settings.migration_timeout_seconds_per_gib * gib * times
        processed = progress.memory_processed + progress.disk_processed
        if processed > patience.most_processed:
            patience.most_processed = processed
            patience.stalled_at = now + settings.migration_progress_timeout_seconds
        elif now > patience.stalled_at:
            raise StepFailed("NO_PROGRESS", "The copy of the guest's memory made no progress.", f"at {processed} bytes")
        if progress.phase is not MigrationPhase.SWITCHOVER:
            # The guest still runs, so there is time to write.
            wishes = await note_progress(context, state, progress)
            if wishes.abort:
                raise StepFailed("ABORTED", "The operation was aborted by a user.")
            if (wishes.force or (late and by_force)) and not forced:
                await context.hosts.send(state.source, m.ForceComplete(**command(context, state)))
                forced = True
                times, late = (2, False) if late else (times, late)  # Once it is forced it has the same time again.
        elif live:
            context.hosts.standstill.begin(context.operation_id)
        if late:
            raise StepFailed("TIMED_OUT", "The copy took too long.", f"{now - started:.0f} s")
        seen = progress.phase


async def ask_progress(context: Context, state: Copied, seen: MigrationPhase) -> MigrationProgress:
    """The copy's progress, once its phase differs from `seen`, or after a while."""
    question = m.CopyProgress(**command(context, state), wait_seconds=COPY_WAIT_SECONDS, seen=seen)
    return await context.hosts.send(state.source, question, seconds=COPY_WAIT_SECONDS + 10.0)


async def note_progress(context: Context, state: Copied, progress: MigrationProgress) -> Wishes:
    """Record the progress for the API. Returns what users have asked for."""
    return await context.record(lambda tx: record_progress(tx, context, state, progress))


def record_progress(tx: Tx, context: Context, state: Copied, progress: MigrationProgress) -> None:
    moves.update_record(
        tx,
        context,
        state,
        phase=progress.phase.value,
        memory_total_bytes=progress.memory_total,
        memory_processed_bytes=progress.memory_processed,
        memory_remaining_bytes=progress.memory_remaining,
        disk_total_bytes=progress.disk_total,
        disk_processed_bytes=progress.disk_processed,
        disk_remaining_bytes=progress.disk_remaining,
        rate_bytes_s=progress.rate_bytes_s,
        dirty_rate_bytes_s=progress.dirty_rate_bytes_s,
        downtime_ms=progress.downtime_ms,
    )
