"""What compute's long operations share: how one begins on a server, its events, hosts that may be down."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypedDict, TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import hosts as host_records
from cumulet.compute.model import PowerState, Server, VmState
from cumulet.compute.store import (
    get_server,
    instance_action_events,
    instance_actions,
    new_action,
    settle_server,
    update_server,
)
from cumulet.conductor import saga
from cumulet.conductor.saga import Context, Failure, Saga, StepFailed
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.wake import Wake
from cumulet.web.operation import Call

log = logging.getLogger(__name__)

SERVER = "server"
"""The kind of subject of compute's operations."""
S = TypeVar("S", bound=msgspec.Struct)
AnswerT = TypeVar("AnswerT")
OtherwiseT = TypeVar("OtherwiseT")


class OnHost(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an operation on a server that stays on its host."""

    server_id: str
    operation_id: str
    action_id: int
    generation: int
    host: str


class OnHostFields(TypedDict):
    """The fields of `OnHost`."""

    server_id: str
    operation_id: str
    action_id: int
    generation: int
    host: str


def on_host(server: Server, operation_id: str, action_id: int) -> OnHostFields:
    """The fields when the operation begins."""
    return {
        "server_id": server.id,
        "operation_id": operation_id,
        "action_id": action_id,
        "generation": server.generation,
        "host": server.host or "",
    }


def begin(
    call: Call[object, object],
    server: Server,
    operation: Saga[S],
    state: Callable[[Server, str, int], S],
    *,
    action: str,
    event: str | tuple[str, ...],
    task_state: str | None,
    queue: bool = False,
) -> str:
    """Start a long operation on a server, in the request's transaction; returns its id.

    The server's generation rises, so that every command of an earlier operation is refused by its hosts from now on.
    `state` makes the saga's first state from the server, the operation's id and the instance action's id.
    """
    if not queue and saga.running_operation(call.tx, server.id) is not None:
        raise Conflict(
            f"Cannot '{action}' instance {server.id} while another operation is running on it",
            reason="OPERATION_RUNNING",
        )
    asked = _Asked(call.request_id, call.caller.user_id, call.caller.project_id, action, event, call.now_us)
    return _begin(
        call.tx, call.cloud.wake, call.cloud.clock.uuid(), server, operation, state, asked, task_state, queue=queue
    )


def begin_unasked(
    tx: Tx,
    wake: Wake,
    clock: Clock,
    server: Server,
    operation: Saga[S],
    state: Callable[[Server, str, int], S],
    *,
    action: str,
    event: str | tuple[str, ...],
    task_state: str | None,
    in_name_of_owner: bool,
) -> str:
    """As `begin`, for an operation that no request asks for: in the name of the server's owner, or of nobody.

    The caller has checked that no other operation runs on the server.
    """
    operation_id, request_id = clock.uuid(), f"req-{clock.uuid()}"
    user_id, project_id = (server.user_id, server.project_id) if in_name_of_owner else (None, None)
    asked = _Asked(request_id, user_id, project_id, action, event, clock.now_us())
    return _begin(tx, wake, operation_id, server, operation, state, asked, task_state)


class _Asked(msgspec.Struct, frozen=True):
    """The user who asked, as the instance action shows it; both ids are None for nobody."""

    request_id: str
    user_id: str | None
    project_id: str | None
    action: str
    event: str | tuple[str, ...]
    now_us: int


def _begin(
    tx: Tx,
    wake: Wake,
    operation_id: str,
    server: Server,
    operation: Saga[S],
    state: Callable[[Server, str, int], S],
    asked: _Asked,
    task_state: str | None,
    *,
    queue: bool = False,
) -> str:
    now = asked.now_us
    generation = server.generation + (0 if queue else 1)
    server = update_server(tx, server, now_us=now, task_state=task_state, generation=generation)
    action_id = new_action(
        tx,
        server.id,
        asked.action,
        request_id=asked.request_id,
        user_id=asked.user_id,
        project_id=asked.project_id,
        now_us=now,
        operation_id=operation_id,
    )
    for event in (asked.event,) if isinstance(asked.event, str) else asked.event:
        _insert_event(tx, action_id, event, host=server.host, now_us=now)
    first = state(server, operation_id, action_id)
    return saga.begin(
        tx, wake, operation, operation_id=operation_id, subject=server.id, state=first, now_us=now, queue=queue
    )


def next_generation(tx: Tx, server: Server, now_us: int) -> Server:
    """For an operation that had to wait: take its generation when its turn comes."""
    return update_server(tx, server, now_us=now_us, generation=server.generation + 1)


def settle(tx: Tx, server_id: str, *, now_us: int, **changes: object) -> None:
    """Record the state in which an operation leaves its server. A delete that waits keeps its task state."""
    settle_server(tx, server_id, now_us=now_us, **changes)


def metadata_without(tx: Tx, server_id: str, *keys: str) -> dict[str, str]:
    """A server's system metadata without these."""
    metadata = get_server(tx, server_id, deleted=True).system_metadata
    return {key: value for key, value in metadata.items() if key not in keys}


NO_FAULT = dict.fromkeys(("fault_code", "fault_message", "fault_details", "fault_at_us"))
"""Columns of a server's record: it has no fault any more."""


def in_error(message: str, *, now_us: int, failure: Failure | None = None) -> dict[str, object]:
    """Columns of a server's record: no guest of it is known. `failure` is shown to administrators only."""
    return {
        "vm_state": VmState.ERROR,
        "power_state": PowerState.NOSTATE,
        "fault_code": 500,
        "fault_message": message[:255],
        "fault_details": _details(failure),
        "fault_at_us": now_us,
    }


def _details(failure: Failure | None) -> str | None:
    return None if failure is None else f"{failure.reason}: {failure.private or failure.public}"


# -- instance action events


_INSERT_EVENT = sa.insert(instance_action_events)
_EVENTS = sa.select(instance_action_events.c.event).where(
    instance_action_events.c.action_id == sa.bindparam("of_action")
)
_CHANGE_ACTION = sa.update(instance_actions).where(instance_actions.c.id == sa.bindparam("of_action"))
_FINISH_EVENTS = sa.update(instance_action_events).where(
    instance_action_events.c.action_id == sa.bindparam("of_action"), instance_action_events.c.finished_at_us.is_(None)
)


def next_events(tx: Tx, action_id: int, hosts: Mapping[str, str | None], *, now_us: int) -> None:
    """Start events, each with its host; those that are open end with success. Repeating does nothing.

    They are Nova's, with its names: tools wait for some of them.
    """
    known = {row.event for row in tx.all(_EVENTS, {"of_action": action_id})}
    new = {event: host for event, host in hosts.items() if event not in known}
    if new:
        tx.run(_FINISH_EVENTS, {"of_action": action_id, "finished_at_us": now_us, "result": "Success", "details": None})
    for event, host in new.items():
        start_event(tx, action_id, event, host=host, now_us=now_us)


def start_event(tx: Tx, action_id: int, event: str, *, host: str | None, now_us: int) -> None:
    _insert_event(tx, action_id, event, host=host, now_us=now_us)
    tx.run(_CHANGE_ACTION, {"of_action": action_id, "updated_at_us": now_us})


def start_events(tx: Tx, action_ids: Sequence[int], event: str, *, now_us: int) -> None:
    """The same event of many new actions, of servers without a host."""
    rows = [{"action_id": action_id, "event": event, "started_at_us": now_us} for action_id in action_ids]
    tx.execute(_INSERT_EVENT, rows)


def _insert_event(tx: Tx, action_id: int, event: str, *, host: str | None, now_us: int) -> None:
    tx.run(_INSERT_EVENT, {"action_id": action_id, "event": event, "host": host, "started_at_us": now_us})


def rename_events(tx: Tx, action_id: int, event: str) -> None:
    """The open events of an action are this one."""
    tx.run(_FINISH_EVENTS, {"of_action": action_id, "event": event})


def finish_events(tx: Tx, action_id: int, *, now_us: int, failure: Failure | None = None) -> None:
    """End the open events of an action: with success, or with the failure (details are for administrators)."""
    details = _details(failure)
    result = "Error" if failure else "Success"
    tx.run(_FINISH_EVENTS, {"of_action": action_id, "finished_at_us": now_us, "result": result, "details": details})
    values: dict[str, object] = {"of_action": action_id, "updated_at_us": now_us, "finished_at_us": now_us}
    if failure is not None:
        values["message"] = "Error"
    tx.run(_CHANGE_ACTION, values)


# -- commands to hosts, which may be down


class Commanding(Protocol):
    """The part of a saga's state that every command to a host carries."""

    @property
    def server_id(self) -> str: ...
    @property
    def operation_id(self) -> str: ...
    @property
    def generation(self) -> int: ...


class CommandFields(TypedDict):
    """The fields that every command has."""

    server_id: str
    operation_id: str
    generation: int
    step: int


def command(context: Context, state: Commanding) -> CommandFields:
    """The fields of a command to a host, by which it refuses those that come too late."""
    return {
        "server_id": state.server_id,
        "operation_id": state.operation_id,
        "generation": state.generation,
        "step": context.step,
    }


async def unless_down(
    context: Context, host: str | None, message: m.Message[AnswerT], *, otherwise: OtherwiseT | None = None
) -> AnswerT | OtherwiseT | None:
    """Send `message`; if `host` is recorded as down, answer `otherwise` and leave it to the reconciler."""
    if host is None:
        return None
    try:
        return await context.hosts.send(host, message)
    except m.HostUnreachable:
        if await context.read(lambda tx: host_records.is_up(tx, host)):
            raise
        log.info("%s is down: %s is left to the reconciler", host, type(message).__name__)
        return otherwise


async def ask_patiently(
    context: Context, ask: Callable[[], Awaitable[AnswerT]], *, until: float, reason: str, public: str
) -> AnswerT:
    """Send; ask a silent host again, because its agent may be restarting. It fails at `until`, monotonic."""
    while True:
        try:
            return await ask()
        except m.HostUnreachable as error:
            if context.clock.monotonic() > until:
                raise StepFailed(reason, public, str(error)) from error
            await context.wait_for_wish(0.2)


async def unless_gone(context: Context, host: str, command: m.Command[object]) -> None:
    """As `unless_down`. If the host does not have the guest any more, that is success."""
    try:
        await unless_down(context, host, command)
    except m.VerbFailed:
        if await observe(context, host, command.server_id) is not GuestState.ABSENT:
            raise


async def start(context: Context, host: str, command: CommandFields) -> GuestState:
    """Start a stopped guest; its state then. If it cannot be started, or its host is down, it stays stopped.

    A guest that an earlier move has left waiting can neither be stopped nor started; it runs on (`let_go_on`).
    """
    try:
        failed = await unless_down(context, host, m.Start(**command), otherwise=GuestState.STOPPED)
    except m.VerbFailed:
        seen = await observe(context, host, command["server_id"])
        if seen not in OBSERVED:
            await let_go_on(context, host, command)
            return GuestState.RUNNING
        return seen
    return failed or GuestState.RUNNING


async def let_go_on(context: Context, host: str, command: CommandFields) -> None:
    """On the host that owns a guest: let it run on that an earlier move has left waiting.

    The move could not, because the host was down, and the reconciler (`compute.drift`) leaves a server alone while an
    operation runs on it. VerbFailed if it cannot run on, for example because it is gone.
    """
    await unless_down(context, host, m.CancelCopy(**command))
    try:
        await unless_down(context, host, m.ResumeSource(**command))
    except m.VerbFailed:
        if await observe(context, host, command["server_id"]) is not GuestState.INCOMING:
            raise
        await unless_down(context, host, m.ResumeDestination(**command))


async def observe(context: Context, host: str, server_id: str) -> GuestState:
    """The guest's state, as the hypervisor says now."""
    return await context.hosts.send(host, m.Observe(server_id=server_id))


OBSERVED: dict[GuestState, tuple[VmState, PowerState]] = {
    GuestState.RUNNING: (VmState.ACTIVE, PowerState.RUNNING),
    GuestState.PAUSED: (VmState.PAUSED, PowerState.PAUSED),
    GuestState.SUSPENDED: (VmState.SUSPENDED, PowerState.SHUTDOWN),  # its memory is on disk, and no process runs it
    GuestState.STOPPED: (VmState.STOPPED, PowerState.SHUTDOWN),
    GuestState.CRASHED: (VmState.STOPPED, PowerState.CRASHED),
    GuestState.ABSENT: (VmState.ERROR, PowerState.NOSTATE),
}
"""The columns of a server's record for a guest in this state, if no operation runs."""


UNDECIDED = (VmState.RESIZED, VmState.RESCUED, VmState.SHELVED)
"""States that a server keeps until its user decides, whatever its guest does."""


def as_observed(seen: GuestState, stays: VmState | None = None) -> dict[str, object]:
    vm_state, power_state = OBSERVED[seen]
    return {"vm_state": stays or vm_state, "power_state": power_state}


def if_observed(seen: GuestState | None, stays: VmState | None = None) -> dict[str, object]:
    """The same, where the guest was seen in a state that says what the server's is; otherwise no change."""
    return as_observed(seen, stays) if seen in OBSERVED else {}
