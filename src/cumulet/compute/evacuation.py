"""Evacuation: start a server of a dead host on another one, from its image, for an administrator.

Theory of operation. The server may only run elsewhere once it cannot run where it was: an administrator has said that
the host is fenced (`force-down`), or its lease has run out and its watchdog has stopped its guests (`agent.watchdog`).
Silence alone is neither, and is refused. The destination's guest is made but not started above the line; the line is
the one statement that moves ownership; only below it the guest is told to run. What is left on the source belongs to
another host from then on, and is destroyed when that host is back, before anything else (`compute.drift`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from cumulet.compute import believed, boot, moves, operations, preconditions, resized, shelved, snapshot
from cumulet.compute import hosts as host_records
from cumulet.compute.attribute_types import HostName
from cumulet.compute.half_made import NOT_UNSHELVED
from cumulet.compute.model import SHELVED_IMAGE, Server, VmState
from cumulet.compute.operations import SERVER, command
from cumulet.compute.preconditions import Verb
from cumulet.compute.rules import ADMIN
from cumulet.compute.server_creation import new_password
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import change_owner, get_server, update_server
from cumulet.compute.taking_back import take_back
from cumulet.compute.wiring import learn_links, require_wired
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed, nothing
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotFound, NotYet
from cumulet.host import messages as m
from cumulet.host.driver import Guest, GuestState
from cumulet.network import bindings_for_compute as bindings
from cumulet.placement import allocations as placement
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Key, LooseBool, Since, Unset, Until

EVACUATE = rule("os_compute_api:os-evacuate", ADMIN)

STOP_SECONDS = 5.0
"""How long the dead host may take to answer after all."""


class Evacuate(Body):
    """Compute API, "Evacuate Server (evacuate Action)"."""

    host: HostName | Unset = UNSET
    on_shared_storage: Annotated[LooseBool, Key("onSharedStorage"), Until("2.13", required=True)] = False
    admin_password: Annotated[str | Unset, Key("adminPass")] = UNSET
    force: Annotated[LooseBool, Since("2.29"), Until("2.67")] = False


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="evacuate",
    rules=(Rule(EVACUATE),),
    target=server_in_sight,
    body=Evacuate,
)
def evacuate_server(call: Call[Server, Evacuate]) -> dict[str, str] | None:
    """Start a server of a host that is down elsewhere, from its image. What its local disk held stays behind."""
    server, body = call.target, call.body
    host = None if isinstance(body.host, Unset) else body.host
    if body.on_shared_storage and not isinstance(body.admin_password, Unset):
        raise BadRequest("admin password can't be changed on existing disk")
    if body.force and host is None:
        raise BadRequest("Can't force to a non-provided destination")
    if host is not None and not host_records.is_known(call.tx, host):
        raise NotFound(f"Compute host {host} not found.")
    if host is not None and host == server.host:
        raise BadRequest("The target host can't be the same one.")
    require_state(server, "evacuate", call.caller)
    preconditions.require(call.tx, server, Verb.EVACUATE, call.cloud.settings)
    if body.on_shared_storage:
        raise NotYet("Evacuating to shared storage is not implemented: disks are local to a host.")
    given = body.admin_password
    password = new_password(call) if isinstance(given, Unset) else given
    server = update_server(
        call.tx, server, now_us=call.now_us, guest_secrets={**(server.guest_secrets or {}), "admin_password": password}
    )
    stays_stopped = server.vm_state is VmState.STOPPED or call.version.at_least("2.95")
    operations.begin(
        call,
        server,
        EVACUATION,
        lambda server, operation_id, action_id: first_state(
            call.tx,
            server,
            operation_id,
            action_id,
            uuid=call.cloud.clock.uuid(),
            host=host,
            run=not stays_stopped,
            user_id=call.caller.user_id,
            project_id=call.caller.project_id or server.project_id,
            now_us=call.now_us,
        ),
        action="evacuate",
        event=EVENTS,
        task_state="rebuilding",
    )
    if call.version.at_least("2.14"):
        return None
    return {"adminPass": password}


EVENTS = ("rebuild_server", "compute_rebuild_instance")


class Evacuation(moves.Moving, frozen=True, kw_only=True):
    """State of the saga. `run`: whether the server shall run at the destination."""

    run: bool
    guest: Guest | None = None
    """As the destination has frozen it."""
    image_id: str | None = None
    """Of a server that could not be unshelved: the image that it was shelved to, which is removed at the end."""


def first_state(
    tx: Tx,
    server: Server,
    operation_id: str,
    action_id: int,
    *,
    uuid: str,
    host: str | None,
    run: bool,
    user_id: str,
    project_id: str,
    now_us: int,
) -> Evacuation:
    """The state of an operation that begins in this transaction; records its migration. `host`: the one asked for."""
    assert server.host is not None
    migration_id = moves.new_record(
        tx,
        server,
        uuid=uuid,
        kind="evacuation",
        status="accepted",
        operation_id=operation_id,
        user_id=user_id,
        project_id=project_id,
        asked_for=host,
        now_us=now_us,
    )
    return Evacuation(
        server_id=server.id,
        operation_id=operation_id,
        action_id=action_id,
        migration_id=migration_id,
        migration_uuid=uuid,
        generation=server.generation,
        source=server.host,
        asked_for=host,
        run=run,
    )


# -- steps, each beside its undo


def pick_destination(tx: Tx, context: Context, state: Evacuation) -> Evacuation:
    """Choose the destination. Every check applies, also to a host that is forced."""
    server = get_server(tx, state.server_id)
    preconditions.require(tx, server, Verb.EVACUATE, context.settings)
    kept = resized.kept_of(tx, server.id)
    not_on = frozenset({state.source} if kept is None else {state.source, kept.host})
    need = boot.need(tx, server, named=state.asked_for, not_on=not_on)
    return msgspec.structs.replace(state, destination=moves.pick(tx, need, state.asked_for))


async def stop_source(context: Context, state: Evacuation) -> Evacuation:
    """If the host answers after all, it must stop the guest; if it cannot, the server is not evacuated."""
    try:
        await context.hosts.send(
            state.source, m.Stop(**command(context, state), grace_seconds=0.0), seconds=STOP_SECONDS
        )
    except m.BusLost:
        raise  # It was not asked: it may be there, and would have stopped the guest.
    except m.HostUnreachable:
        return state  # As expected: the host is fenced.
    except m.VerbFailed as error:
        seen = await operations.observe(context, state.source, state.server_id)
        if seen in (GuestState.RUNNING, GuestState.PAUSED):
            raise StepFailed("SOURCE_STILL_RUNS", "The server still runs on its host.", str(error)) from error
    return state


async def make_guest(context: Context, state: Evacuation) -> Evacuation:
    """Make the guest at the destination with a fresh disk, not running.

    A server whose host was lost while it was unshelved is made from its shelved image.
    """

    def described(tx: Tx) -> Guest:
        server = get_server(tx, state.server_id, deleted=True)
        lost = server.vm_state is VmState.ERROR and server.fault_message == NOT_UNSHELVED
        image_id = server.system_metadata.get(SHELVED_IMAGE) if lost else None
        return boot.describe(tx, context, server, state.destination, image_id=image_id)

    guest: Guest = await context.read(described)
    await require_wired(context, moves.destination(state), state.server_id)
    frozen = await context.hosts.send(
        moves.destination(state), m.Create(**command(context, state), guest=guest, run=False)
    )
    return msgspec.structs.replace(state, guest=believed.made(guest, frozen))


async def destroy_guest(context: Context, state: Evacuation) -> Evacuation:
    await take_back(context, state.destination, m.Destroy(**command(context, state)))
    return state


# -- below the line


def record_host(tx: Tx, context: Context, state: Evacuation) -> Evacuation:
    """The commit: the one statement that moves ownership. The server runs nowhere before and after it."""
    now = context.clock.now_us()
    bindings.activate(tx, state.server_id, moves.destination(state))
    generation = change_owner(
        tx, state.server_id, old=state.source, new=state.destination, generation=state.generation, now_us=now
    )
    operations.settle(
        tx, state.server_id, now_us=now, guest=msgspec.to_builtins(state.guest), task_state="rebuild_spawning"
    )
    return msgspec.structs.replace(state, generation=generation)


async def start_guest(context: Context, state: Evacuation) -> Evacuation:
    """Let the guest run at the destination, which owns it now, if it is to run."""
    if state.run:
        assert state.destination is not None
        seen = await operations.start(context, state.destination, command(context, state))
        await learn_links(context, state.destination, state.server_id)
        state = msgspec.structs.replace(state, run=seen is GuestState.RUNNING)
    return state


def record_done(tx: Tx, context: Context, state: Evacuation) -> Evacuation:
    now = context.clock.now_us()
    placement.release(tx, consumer=state.migration_uuid, now_us=now)
    vm_state, power_state = operations.OBSERVED[GuestState.RUNNING if state.run else GuestState.STOPPED]
    operations.settle(
        tx,
        state.server_id,
        now_us=now,
        vm_state=vm_state,
        power_state=power_state,
        task_state=None,
        progress=0,
        launched_at_us=now,
        **operations.NO_FAULT,
    )
    image_id = shelved.let_image_go(tx, state.server_id, now)
    moves.update_record(tx, context, state, status="done", ended_at_us=now)
    operations.finish_events(tx, state.action_id, now_us=now)
    return msgspec.structs.replace(state, image_id=image_id)


def unwound(tx: Tx, context: Context, state: Evacuation, failure: Failure) -> None:
    """The server belongs to its dead host as before."""
    moves.record_unwound(tx, context, state, failure)


EVACUATION = Saga(
    name="evacuation",
    kind=SERVER,
    state=Evacuation,
    steps=(
        Step(pick_destination, undo=nothing, status="accepted"),
        Step(moves.claim_destination, undo=moves.release_destination, status="pre-migrating"),
        Step(moves.bind_ports, undo=moves.unbind_ports, status="pre-migrating"),
        Step(stop_source, undo=nothing, status="pre-migrating"),
        Step(make_guest, undo=destroy_guest, status="pre-migrating"),
    ),
    # The guest runs nowhere, and the record now says: destination. From here on we only go forward.
    finals=(
        Final(record_host, status="post-migrating"),
        Final(start_guest, status="post-migrating"),
        Final(record_done, status="post-migrating"),
    ),
    unwound=unwound,
    record_status=moves.record_status,
    afterwards=snapshot.remove_image,
)
