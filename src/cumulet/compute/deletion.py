"""Deleting a server, at any moment: a running operation is asked to stop. The guest goes, then its share and ports."""

from __future__ import annotations

import msgspec

from cumulet.compute import consoles, operations, resized, shelved, snapshot
from cumulet.compute.model import PowerState, Server, VmState
from cumulet.compute.operations import SERVER, command
from cumulet.compute.store import get_server, update_server
from cumulet.conductor.saga import Context, Failure, Final, Saga
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.network import for_compute as network
from cumulet.placement import allocations as placement
from cumulet.web.operation import Call


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """State of the saga. `host` and `generation` are set when its turn comes: the server may have moved before."""

    server_id: str
    operation_id: str
    action_id: int
    host: str | None = None
    generation: int = 0
    image_id: str | None = None
    """Of a shelved server: the image that it would have been unshelved from."""


def begin_delete(call: Call[object, object], server: Server) -> None:
    """Delete `server`; a delete that is under way already is success."""
    if server.task_state == "deleting":
        return
    operations.begin(
        call,
        server,
        DELETION,
        lambda server, operation_id, action_id: Deletion(
            server_id=server.id, operation_id=operation_id, action_id=action_id
        ),
        action="delete",
        event="compute_terminate_instance",
        task_state="deleting",
        queue=True,
    )


def take_over(tx: Tx, context: Context, state: Deletion) -> Deletion:
    """The operation before has ended: from here on its commands are out of date."""
    server = operations.next_generation(tx, get_server(tx, state.server_id), context.clock.now_us())
    return msgspec.structs.replace(state, host=server.host, generation=server.generation)


async def destroy_guest(context: Context, state: Deletion) -> Deletion:
    await operations.unless_down(context, state.host, m.Destroy(**command(context, state)))
    return state


async def destroy_kept(context: Context, state: Deletion) -> Deletion:
    """Remove what a resized server keeps on the host that it came from."""
    kept: resized.Kept | None = await context.read(lambda tx: resized.kept_of(tx, state.server_id))
    if kept is not None:
        await operations.unless_down(context, kept.host, m.Destroy(**command(context, state)))
    return state


def forget(tx: Tx, context: Context, state: Deletion) -> Deletion:
    """The guest is gone: give back ports and share, record the last state.

    The row stays, for lists, without what its user wrote at any length: deleted servers count in no quota.
    """
    now = context.clock.now_us()
    network.release(tx, state.server_id)
    placement.release(tx, consumer=state.server_id, now_us=now)
    consoles.forget(tx, state.server_id)
    kept = resized.kept_of(tx, state.server_id)
    if kept is not None:
        resized.let_go(tx, kept, status="confirmed", now_us=now)
    image_id = shelved.let_image_go(tx, state.server_id, now)
    update_server(
        tx,
        get_server(tx, state.server_id),
        now_us=now,
        vm_state=VmState.DELETED,
        task_state=None,
        power_state=PowerState.NOSTATE,
        terminated_at_us=now,
        deleted_at_us=now,
        guest=None,
        guest_secrets=None,
        image_properties={},
        public_key=None,
        user_data=None,
        metadata={},
        scheduler_hints={},
    )
    operations.finish_events(tx, state.action_id, now_us=now)
    return msgspec.structs.replace(state, image_id=image_id)


def unwound(tx: Tx, context: Context, state: Deletion, failure: Failure) -> None:
    raise AssertionError("a deletion has no step that is undone")


DELETION = Saga(
    name="deletion",
    kind=SERVER,
    state=Deletion,
    steps=(),
    # A delete was acknowledged: from the first moment we only go forward.
    finals=(Final(take_over), Final(destroy_guest), Final(destroy_kept), Final(forget)),
    unwound=unwound,
    afterwards=snapshot.remove_image,
)
