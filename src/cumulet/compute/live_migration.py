"""Live migration: move a server, while it runs, to another host, on behalf of a caller who may.

Theory of operation. `servers.host` names the one owner. Until `record_host` it is the source, from then on the
destination, and that is one compare-and-swap in the transaction that also moves the operation's row across its point of
no return. Before it, the destination's guest was started paused and is never told to run, so unwinding may always let
the source run on, even one that had handed all its state over. After it, the source's guest is paused with its state
sent and is never told to run, so going on may always let the destination run. The operation's row decides which of the
two it is, and hosts refuse commands of earlier generations, so no late message can undo the decision. What became of a
call that failed is not inferred: hypervisors are asked. In post-copy the same line is crossed while some of the memory
is still at the source, and the source is kept until that has come. How a copy is followed is `compute.copying`, what
post-copy needs beside it `compute.post_copy`; what hypervisors do is `drivers.qemu.live_migration_*`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from cumulet.compute import boot, hosts_in_memory, moves, operations, post_copy, preconditions, scheduler, wiring
from cumulet.compute import hosts as host_records
from cumulet.compute.attribute_types import HostName
from cumulet.compute.copying import copy_parameters, follow_copy, prepare_copy, record_progress
from cumulet.compute.live_migration_state import LiveMigration
from cumulet.compute.model import PowerState, Server, VmState
from cumulet.compute.operations import SERVER, command
from cumulet.compute.preconditions import Verb
from cumulet.compute.rules import ADMIN, MANAGER
from cumulet.compute.scheduler import Reason
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import change_owner, get_server
from cumulet.compute.taking_back import take_back
from cumulet.compute.wiring import require_wired
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed, nothing
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.host import messages as m
from cumulet.host.driver import Guest, GuestState, MigrationPhase
from cumulet.network import bindings_for_compute as bindings
from cumulet.placement import allocations as placement
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json, LooseBool, Since, Until, Versions

MIGRATE_LIVE = rule("os_compute_api:os-migrate-server:migrate_live", MANAGER)
MIGRATE_LIVE_HOST = rule("os_compute_api:os-migrate-server:migrate_live:host", ADMIN)


class MigrateLive(Body):
    """Compute API, "Live-Migrate Server (os-migrateLive Action)".

    `block_migration` and `disk_over_commit` decide nothing: all disks are local, so they move with the guest, to a host
    that has room for what they may become. Upstream refuses `block_migration` false for local disks.
    """

    host: HostName | None
    block_migration: Annotated[
        bool | str, Versions(("2.1", LooseBool), ("2.25", LooseBool | Annotated[str, Json({"enum": ["auto"]})]))
    ]
    disk_over_commit: Annotated[LooseBool, Until("2.24", required=True)] = False
    force: Annotated[LooseBool, Since("2.30"), Until("2.67")] = False


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="os-migrateLive",
    rules=(Rule(MIGRATE_LIVE), Rule(MIGRATE_LIVE_HOST, when="host")),
    target=server_in_sight,
    body=MigrateLive,
    success=202,
)
def migrate_live(call: Call[Server, MigrateLive]) -> None:
    """Live-migrate a server to the host asked for, or to one the scheduler picks."""
    server, body = call.target, call.body
    if body.force and body.host is None:
        raise BadRequest("Can't force to a non-provided destination")
    require_state(server, "os-migrateLive", call.caller)
    host_records.require_known(call.tx, body.host)
    if not call.version.at_least("2.34"):
        # Up to 2.33 the caller is told at once; from 2.34 on the migration's record says it.
        _require_movable(call, server)
        _refuse_unfit_host(call.tx, server, body.host)
    operations.begin(
        call,
        server,
        LIVE_MIGRATION,
        lambda server, operation_id, action_id: _first_state(call, server, operation_id, action_id),
        action="live-migration",
        event="conductor_live_migrate_instance",
        task_state="migrating",
    )


def _require_movable(call: Call[Server, MigrateLive], server: Server) -> None:
    """As in the saga. Upstream's words name the server's host: they are for administrators."""
    try:
        preconditions.require(call.tx, server, Verb.LIVE, call.cloud.settings)
    except BadRequest as refused:
        if call.caller.is_admin:
            raise
        words = "Compute service of the server's host is unavailable at this time."
        raise BadRequest(words, reason=refused.reason, private=refused.private) from None


def _refuse_unfit_host(tx: Tx, server: Server, host: str | None) -> None:
    choice = hosts_in_memory.pick(tx, _need(tx, server, host))
    if choice.host is not None:
        return
    reason = choice.rejected.get(host) if host is not None else None
    if reason is Reason.SAME_HOST:
        raise BadRequest(f"Unable to migrate instance ({server.id}) to current host ({host}).", reason=reason)
    if reason is Reason.HOST_DOWN:
        raise BadRequest(f"Compute service of {host} is unavailable at this time.", reason=reason)
    raise BadRequest(boot.NO_VALID_HOST, reason=reason or "NO_VALID_HOST", private=scheduler.explain(choice))


def _need(tx: Tx, server: Server, named: str | None) -> scheduler.Need:
    guest = msgspec.convert(server.guest, Guest)
    return boot.need(
        tx,
        server,
        named=named,
        not_on=frozenset({server.host or ""}),
        comes_from=host_records.address_of(tx, server.host or ""),
        moved=guest,
    )


MEMORY_LOST = "The guest's memory was lost after it belonged to its destination; it was booted from its disk there:"
ARRIVAL_SECONDS = 10.0
"""How long a destination may take to confirm that everything has arrived."""


def _first_state(call: Call[Server, MigrateLive], server: Server, operation_id: str, action_id: int) -> LiveMigration:
    uuid = call.cloud.clock.uuid()
    migration_id = moves.new_record(
        call.tx,
        server,
        uuid=uuid,
        kind="live-migration",
        status="accepted",
        operation_id=operation_id,
        user_id=call.caller.user_id,
        project_id=call.caller.project_id or server.project_id,
        asked_for=call.body.host,
        now_us=call.now_us,
    )
    assert server.host is not None
    return LiveMigration(
        server_id=server.id,
        operation_id=operation_id,
        action_id=action_id,
        migration_id=migration_id,
        migration_uuid=uuid,
        generation=server.generation,
        source=server.host,
        asked_for=call.body.host,
    )


# -- steps, each beside its undo


def pick_destination(tx: Tx, context: Context, state: LiveMigration) -> LiveMigration:
    server = get_server(tx, state.server_id)
    preconditions.require(tx, server, Verb.LIVE, context.settings)
    need = _need(tx, server, state.asked_for)
    return msgspec.structs.replace(state, destination=moves.pick(tx, need, state.asked_for))


async def start_destination(context: Context, state: LiveMigration) -> LiveMigration:
    """Make a paused guest at the destination that listens for the source alone."""

    def look(tx: Tx) -> tuple[Server, bool]:
        both = all(host_records.offers(tx, host or "", "post-copy") for host in (state.source, state.destination))
        return get_server(tx, state.server_id, deleted=True), both

    server, post_copy = await context.read(look)
    await require_wired(context, moves.destination(state), state.server_id)
    parameters = copy_parameters(context, paused=server.vm_state is VmState.PAUSED, post_copy=post_copy)
    endpoint = await prepare_copy(context, state, server.guest, parameters)
    return msgspec.structs.replace(state, endpoint=endpoint, post_copy=post_copy)


async def destroy_destination(context: Context, state: LiveMigration) -> LiveMigration:
    await take_back(context, state.destination, m.Destroy(**command(context, state)))
    return msgspec.structs.replace(state, endpoint=None)


async def copy_memory(context: Context, state: LiveMigration) -> LiveMigration:
    """Copy disks and memory until the guest stands still and everything is at the destination. It runs on no side then.

    In post-copy the guest stands still, its disk is there, and the rest of its memory follows after the commit.
    """
    assert state.endpoint is not None
    parameters = copy_parameters(context, post_copy=state.post_copy)
    await context.hosts.send(
        state.source, m.StartCopy(**command(context, state), endpoint=state.endpoint, parameters=parameters)
    )
    progress = await follow_copy(context, state, live=True)
    follows = progress.phase is MigrationPhase.POST_COPY_READY
    await _require_arrived(context, state, all_of_it=not follows)
    return msgspec.structs.replace(state, progress=progress, rest_follows=follows)


async def _require_arrived(context: Context, state: LiveMigration, *, all_of_it: bool) -> None:
    """Wait until the destination, too, says that the guest has arrived: one side alone is not trusted.

    `all_of_it`: all state must have arrived; otherwise the guest only has to be there.
    """
    destination = state.destination or ""
    given_up_at = context.clock.monotonic() + ARRIVAL_SECONDS

    async def arrival() -> MigrationPhase:
        if not all_of_it:  # In post-copy QEMU may be slow to answer.
            return MigrationPhase.COMPLETED
        return await context.hosts.send(destination, m.AskArrival(server_id=state.server_id))

    # Both at once: the guest stands still.
    observing = operations.observe(context, destination, state.server_id)
    seen, arrived = await asyncio.gather(observing, arrival(), return_exceptions=True)
    if isinstance(seen, BaseException):
        raise seen
    if seen is not GuestState.INCOMING:
        raise StepFailed("DESTINATION_LOST", "The destination lost the guest.", f"{destination} says {seen}")
    while arrived is not MigrationPhase.COMPLETED:
        if isinstance(arrived, BaseException):
            raise arrived
        if arrived is not MigrationPhase.ACTIVE or context.clock.monotonic() > given_up_at:
            raise StepFailed("NOT_ARRIVED", "The guest has not arrived in full.", f"{destination} says {arrived}")
        await context.clock.sleep(0.01)
        arrived = await arrival()


async def cancel_copy(context: Context, state: LiveMigration) -> LiveMigration:
    """Let the guest run on at the source: ownership has not moved and cannot move any more."""
    try:
        await operations.let_go_on(context, state.source, command(context, state))
    except m.VerbFailed:
        seen = await operations.observe(context, state.source, state.server_id)
        if seen not in (GuestState.CRASHED, GuestState.STOPPED, GuestState.ABSENT):
            raise
        return msgspec.structs.replace(state, source_seen=seen)
    return state


# -- below the line


def record_host(tx: Tx, context: Context, state: LiveMigration) -> LiveMigration:
    """The commit: the one statement that moves ownership. Both ends are paused before and after it.

    The ports' bindings move in the same transaction, so that no host is told to send packets anywhere else.
    """
    now = context.clock.now_us()
    bindings.activate(tx, state.server_id, moves.destination(state))
    generation = change_owner(
        tx, state.server_id, old=state.source, new=state.destination, generation=state.generation, now_us=now
    )
    return msgspec.structs.replace(state, generation=generation)


async def switch_peers(context: Context, state: LiveMigration) -> LiveMigration:
    """From here on every host sends the guest's packets to the destination, and only that lets it send."""
    await wiring.switch_peers(context, moves.destination(state), state.server_id)
    return state


async def resume_guest(context: Context, state: LiveMigration) -> LiveMigration:
    """Let the guest run at the destination, which owns it now. If it has died there since, it is booted from its disk,
    and the migration's record says so."""
    if state.rest_follows:
        state = await post_copy.begin_post_copy(context, state)
    try:
        await operations.unless_down(context, state.destination, m.ResumeDestination(**command(context, state)))
    except m.VerbFailed as error:
        seen = await operations.observe(context, state.destination or "", state.server_id)
        if seen in (GuestState.CRASHED, GuestState.STOPPED):
            await context.hosts.send(moves.destination(state), m.Start(**command(context, state)))
            return msgspec.structs.replace(state, memory_lost=f"{state.destination} could not let it run ({error}).")
        if seen not in (GuestState.RUNNING, GuestState.PAUSED):
            raise
    context.hosts.standstill.end(context.operation_id)
    return state


async def discard_source(context: Context, state: LiveMigration) -> LiveMigration:
    """Last of all: until here the source's guest could be needed; in post-copy it also held memory not yet sent."""
    if state.rest_follows:
        try:
            state = await post_copy.receive_rest(context, state)
        except m.HostUnreachable:
            # A silent destination may be alive and still fetch memory, so the source stays until that host is fenced.
            if not await context.read(lambda tx: host_records.is_fenced(tx, state.destination or "", context.settings)):
                raise
    await operations.unless_down(context, state.source, m.Destroy(**command(context, state)))
    await wiring.learn_links(context, moves.destination(state), state.server_id)
    return state


def record_completed(tx: Tx, context: Context, state: LiveMigration) -> LiveMigration:
    now = context.clock.now_us()
    placement.release(tx, consumer=state.migration_uuid, now_us=now)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, progress=0)
    if state.progress is not None:
        record_progress(tx, context, state, state.progress)
    lost = {}
    if state.memory_lost is not None:
        lost = {"reason": "MEMORY_LOST", "reason_text": f"{MEMORY_LOST} {state.memory_lost}"}
    moves.update_record(tx, context, state, status="completed", ended_at_us=now, **lost)
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def unwound(tx: Tx, context: Context, state: LiveMigration, failure: Failure) -> None:
    """The server is where it was."""
    status = "cancelled" if failure.reason == "ABORTED" else "error"
    changes: dict[str, object] = {}
    if state.source_seen is not None:
        changes = {"vm_state": VmState.STOPPED, "power_state": PowerState.CRASHED}
    moves.record_unwound(tx, context, state, failure, status=status, progress=0, **changes)


CHECKS = ("compute_check_can_live_migrate_destination", "compute_check_can_live_migrate_source")
PREPARATION = ("compute_live_migration", "compute_pre_live_migration")

LIVE_MIGRATION = Saga(
    name="live-migration",
    kind=SERVER,
    state=LiveMigration,
    steps=(
        Step(pick_destination, undo=nothing, status="preparing"),
        Step(moves.claim_destination, undo=moves.release_destination, status="preparing"),
        Step(moves.bind_ports, undo=moves.unbind_ports, status="preparing", events=CHECKS),
        Step(start_destination, undo=destroy_destination, status="preparing", events=PREPARATION),
        Step(copy_memory, undo=cancel_copy, status="running"),
    ),
    # The guest is paused on both sides and the record now says: destination. From here on we only go forward.
    finals=(
        Final(record_host, status="post-migrating"),
        Final(switch_peers, status="post-migrating", saved=False),  # The guest stands still.
        Final(resume_guest, status="post-migrating"),
        Final(discard_source, status="post-migrating", events=("compute_post_live_migration_at_destination",)),
        Final(record_completed, status="post-migrating"),
    ),
    unwound=unwound,
    record_status=moves.record_status,
    record_events=moves.record_events,
)
