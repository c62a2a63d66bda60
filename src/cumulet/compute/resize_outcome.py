"""What follows a resize or cold migration: its user confirms it, reverts it, or does not answer in time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import hosts as host_records
from cumulet.compute import operations, preconditions, resized, wiring
from cumulet.compute.model import PowerState, Server, VmState
from cumulet.compute.operations import SERVER, command
from cumulet.compute.per_server import PerServer
from cumulet.compute.power import STOP_GRACE_SECONDS
from cumulet.compute.preconditions import Verb
from cumulet.compute.rules import MEMBER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import change_owner, get_server, migrations, servers
from cumulet.conductor import findings, saga
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed, nothing
from cumulet.db.engine import Database, Tx
from cumulet.errors import BadRequest
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.network import bindings_for_compute as bindings
from cumulet.placement import allocations as placement
from cumulet.settings import Settings
from cumulet.wake import Wake
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Anything

CONFIRM = rule("os_compute_api:servers:confirm_resize", MEMBER)
REVERT = rule("os_compute_api:servers:revert_resize", MEMBER)

PATH = "/servers/{server_id}/action"


@COMPUTE.operation(
    "POST", PATH, action="confirmResize", rules=(Rule(CONFIRM),), target=server_in_sight, body=Anything, success=204
)
def confirm_resize(call: Call[Server, Anything]) -> None:
    """Keep a server as it was resized, and remove what it kept where it came from."""
    server = call.target
    require_state(_as_it_waits(call.tx, server), "confirmResize", call.caller)
    kept = _kept(call.tx, server)
    preconditions.require(call.tx, server, Verb.CONFIRM, call.cloud.settings)
    _set_status(call.tx, kept, "confirming", call.now_us)
    operations.begin(
        call,
        server,
        RESIZE_CONFIRMATION,
        lambda *ids: _first_state(kept, *ids),
        action="confirmResize",
        event="compute_confirm_resize",
        task_state=None,
    )


@COMPUTE.operation(
    "POST", PATH, action="revertResize", rules=(Rule(REVERT),), target=server_in_sight, body=Anything, success=202
)
def revert_resize(call: Call[Server, Anything]) -> None:
    """Bring a resized server back to where it came from, with its old flavor and the disk it had then."""
    server = call.target
    require_state(_as_it_waits(call.tx, server), "revertResize", call.caller)
    kept = _kept(call.tx, server)
    preconditions.require(call.tx, server, Verb.REVERT, call.cloud.settings)
    _set_status(call.tx, kept, "reverting", call.now_us)
    operations.begin(
        call,
        server,
        RESIZE_REVERSION,
        lambda *ids: _first_state(kept, *ids),
        action="revertResize",
        event="compute_revert_resize",
        task_state="resize_reverting",
    )


def _as_it_waits(tx: Tx, server: Server) -> Server:
    """The server as `confirmResize` and `revertResize` take it. If its state was reset, it waits all the same: it keeps
    its old disk and share, and does not move, until it is answered."""
    was_reset = server.vm_state in (VmState.ACTIVE, VmState.STOPPED, VmState.ERROR)
    if was_reset and resized.kept_of(tx, server.id) is not None:
        return msgspec.structs.replace(server, vm_state=VmState.RESIZED)
    return server


def _kept(tx: Tx, server: Server) -> resized.Kept:
    kept = resized.kept_of(tx, server.id)
    if kept is None:
        raise BadRequest("Instance has not been resized.")
    return kept


def _set_status(tx: Tx, kept: resized.Kept, status: str, now_us: int) -> None:
    tx.execute(
        sa.update(migrations).where(migrations.c.id == kept.migration_id).values(status=status, updated_at_us=now_us)
    )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """State of both sagas. `source` is where the server came from, `destination` where it is."""

    server_id: str
    operation_id: str
    action_id: int
    generation: int
    source: str
    destination: str
    runs: bool
    """Whether its guest ran when this began."""
    seen: GuestState | None = None
    """The guest's state, if it should have been started and could not be."""


def _first_state(kept: resized.Kept, server: Server, operation_id: str, action_id: int) -> Outcome:
    assert server.host is not None
    return Outcome(
        server_id=server.id,
        operation_id=operation_id,
        action_id=action_id,
        generation=server.generation,
        source=kept.host,
        destination=server.host,
        runs=server.power_state is PowerState.RUNNING,
    )


# -- confirming: only forward


async def discard_source(context: Context, state: Outcome) -> Outcome:
    await operations.unless_down(context, state.source, m.Destroy(**command(context, state)))
    return state


def record_confirmed(tx: Tx, context: Context, state: Outcome) -> Outcome:
    now = context.clock.now_us()
    kept = resized.kept_of(tx, state.server_id)
    if kept is not None:
        resized.let_go(tx, kept, status="confirmed", now_us=now)
    server = get_server(tx, state.server_id, deleted=True)
    stopped = server.power_state in (PowerState.SHUTDOWN, PowerState.CRASHED)
    vm_state = VmState.STOPPED if stopped else VmState.ACTIVE
    operations.settle(tx, state.server_id, now_us=now, vm_state=vm_state, task_state=None)
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def never_unwound(tx: Tx, context: Context, state: Outcome, failure: Failure) -> None:
    raise AssertionError("a confirmation has no step that is undone")


# -- reverting


async def stop_destination(context: Context, state: Outcome) -> Outcome:
    """Stop the guest at the destination. If that has lost the guest, or certainly runs none, the revert goes on.

    What a dead host has left is destroyed when it is back, as after an evacuation (`compute.drift`).
    """
    try:
        await context.hosts.send(state.destination, m.Stop(**command(context, state), grace_seconds=STOP_GRACE_SECONDS))
    except m.VerbFailed:
        if await operations.observe(context, state.destination, state.server_id) is not GuestState.ABSENT:
            raise
    except m.HostUnreachable:
        if not await context.read(lambda tx: host_records.is_fenced(tx, state.destination, context.settings)):
            raise
    return state


async def restart_destination(context: Context, state: Outcome) -> Outcome:
    """The undo: it stays resized and is started again if it ran. If it cannot be started, its state is recorded."""
    if not state.runs:
        return state
    try:
        await operations.unless_down(context, state.destination, m.Start(**command(context, state)))
    except m.VerbFailed:
        seen = await operations.observe(context, state.destination, state.server_id)
        if seen not in (GuestState.STOPPED, GuestState.CRASHED, GuestState.ABSENT):
            raise
        return msgspec.structs.replace(state, seen=seen)
    return state


async def look_at_source(context: Context, state: Outcome) -> Outcome:
    """Before anything is given up, check that the guest to return to is still there."""
    with contextlib.suppress(m.VerbFailed):
        await context.hosts.send(state.source, m.StandDown(**command(context, state)))
    seen = await operations.observe(context, state.source, state.server_id)
    if seen is not GuestState.STOPPED:
        raise StepFailed("SOURCE_LOST", "The host the server came from has lost it.", f"{state.source} says {seen}")
    return state


def record_source(tx: Tx, context: Context, state: Outcome) -> Outcome:
    """The commit: ownership, flavor and description are the old ones again. It is stopped on both sides."""
    now = context.clock.now_us()
    kept = resized.kept_of(tx, state.server_id)
    assert kept is not None
    generation = change_owner(
        tx, state.server_id, old=state.destination, new=state.source, generation=state.generation, now_us=now
    )
    bindings.bind(tx, state.server_id, state.source)
    operations.settle(tx, state.server_id, now_us=now, guest=kept.guest, flavor=msgspec.structs.asdict(kept.flavor))
    return msgspec.structs.replace(state, generation=generation)


async def start_source(context: Context, state: Outcome) -> Outcome:
    """Start it again if it ran before the resize. If it cannot be started it stays stopped."""
    kept: resized.Kept | None = await context.read(lambda tx: resized.kept_of(tx, state.server_id))
    if kept is None or not kept.was_running:
        return msgspec.structs.replace(state, seen=GuestState.STOPPED)
    await wiring.tell_again(context, state.source, state.server_id)
    seen = await operations.start(context, state.source, command(context, state))
    await wiring.learn_links(context, state.source, state.server_id)
    return msgspec.structs.replace(state, seen=seen)


async def discard_destination(context: Context, state: Outcome) -> Outcome:
    await operations.unless_down(context, state.destination, m.Destroy(**command(context, state)))
    return state


def record_reverted(tx: Tx, context: Context, state: Outcome) -> Outcome:
    now = context.clock.now_us()
    placement.release(tx, consumer=state.server_id, now_us=now)
    kept = resized.kept_of(tx, state.server_id)
    if kept is not None:
        placement.hand_over(
            tx,
            source=kept.migration_uuid,
            target=state.server_id,
            provider=state.source,
            now_us=now,
            target_type="INSTANCE",
        )
        resized.let_go(tx, kept, status="reverted", now_us=now)
    vm_state, power_state = operations.OBSERVED[state.seen or GuestState.STOPPED]
    operations.settle(
        tx,
        state.server_id,
        now_us=now,
        vm_state=vm_state,
        power_state=power_state,
        task_state=None,
        launched_at_us=now,
    )
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def not_reverted(tx: Tx, context: Context, state: Outcome, failure: Failure) -> None:
    """It stays resized, and can be confirmed or reverted."""
    now = context.clock.now_us()
    kept = resized.kept_of(tx, state.server_id)
    if kept is not None:
        _set_status(tx, kept, "finished", now)
    changes: dict[str, object] = {}
    if state.seen is not None:
        changes = {"power_state": operations.OBSERVED[state.seen][1]}
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **changes)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


def _record_events(tx: Tx, context: Context, state: Outcome, events: Sequence[str]) -> None:
    """All are where the server came from."""
    hosts = dict.fromkeys(events, state.source)
    operations.next_events(tx, state.action_id, hosts, now_us=context.clock.now_us())


RESIZE_CONFIRMATION = Saga(
    name="resize-confirmation",
    kind=SERVER,
    state=Outcome,
    steps=(),
    # Confirmed is confirmed: from the first moment we only go forward.
    finals=(Final(discard_source), Final(record_confirmed)),
    unwound=never_unwound,
)

RESIZE_REVERSION = Saga(
    name="resize-reversion",
    kind=SERVER,
    state=Outcome,
    steps=(Step(stop_destination, undo=restart_destination), Step(look_at_source, undo=nothing)),
    # The guest is stopped on both sides and the record now says: where it came from. From here on we only go forward.
    finals=(
        Final(record_source, events=("compute_finish_revert_resize",)),
        Final(start_source),
        Final(discard_destination),
        Final(record_reverted),
    ),
    unwound=not_reverted,
    record_events=_record_events,
)


# -- automatic confirmation


class AutomaticConfirmation(PerServer):
    """Confirms resizes that nobody has confirmed or reverted for `resize_confirm_seconds`."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, wake: Wake) -> None:
        after = settings.resize_confirm_seconds
        super().__init__(
            db=db, name="automatic-confirmation", clock=clock, seconds=min(60.0, after / 2) if after > 0 else None
        )
        self._settings = settings
        self._wake = wake

    def find(self, tx: Tx) -> Sequence[str]:
        return resized.kept_since(tx, self._since_us())

    def _since_us(self) -> int:
        return self._clock.now_us() - self._settings.resize_confirm_seconds * 1_000_000

    def see_to(self, tx: Tx, server_id: str) -> None:
        """Confirm as the owner would. An operation that the owner has begun meanwhile goes first.

        Where its new host is down, or has lost the guest, the disk that is kept may be the last one: only its owner
        gives that up.
        """
        now_us = self._clock.now_us()
        kept = resized.kept_of(tx, server_id)
        columns = (servers.c.vm_state, servers.c.task_state, servers.c.power_state, servers.c.host)
        row = tx.first(sa.select(*columns).where(servers.c.id == server_id))
        if kept is None or kept.finished_at_us >= self._since_us():
            return
        if row is None or row.vm_state != VmState.RESIZED or row.task_state is not None:
            return
        if saga.running_operation(tx, server_id) is not None or not host_records.is_up(tx, kept.host):
            return
        if row.power_state == PowerState.NOSTATE or not host_records.is_up(tx, row.host):
            return
        _set_status(tx, kept, "confirming", now_us)
        operations.begin_unasked(
            tx,
            self._wake,
            self._clock,
            get_server(tx, server_id),
            RESIZE_CONFIRMATION,
            lambda *begun: _first_state(kept, *begun),
            action="confirmResize",
            event="compute_confirm_resize",
            task_state=None,
            in_name_of_owner=True,
        )
        findings.note(
            tx,
            "automatic-confirmation",
            "resize-unconfirmed",
            "confirmed",
            now_us=now_us,
            host=kept.host,
            subject=server_id,
        )
