"""Shelving: a server's disk becomes an image, and the server leaves its host, with its share of it; it keeps its ports.

Theory of operation. The guest is stopped and an image made of its disk (`compute.snapshot`); until that image is whole,
everything can be undone, though a guest that was paused or suspended stays stopped. Then the server is offloaded at
once, as upstream's default says: its guest is removed, its claim and its ports' bindings are given back, and it has no
host. Unshelving boots it from the image wherever the scheduler finds room, and removes the image, unless somebody
has protected it: that image is its owner's from then on. With
`shelved_offload_time` it rests on its host first (`compute.shelved`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute import boot, hosts_in_memory, looking, operations, preconditions, scheduler, shelved, snapshot
from cumulet.compute.boot import Boot
from cumulet.compute.half_made import NOT_UNSHELVED
from cumulet.compute.model import SHELVED_IMAGE, PowerState, Server, VmState
from cumulet.compute.operations import SERVER, OnHost, command
from cumulet.compute.power import STOP_GRACE_SECONDS
from cumulet.compute.rules import ADMIN, MEMBER
from cumulet.compute.server_actions import PATH
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import get_server, hosts, update_server
from cumulet.compute.wiring import learn_links
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed, nothing
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.image import snapshots
from cumulet.image import store as image_store
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Anything, Body, Json, Unset

SHELVE_RULE = rule("os_compute_api:os-shelve:shelve", MEMBER)
OFFLOAD_RULE = rule("os_compute_api:os-shelve:shelve_offload", ADMIN)
UNSHELVE_RULE = rule("os_compute_api:os-shelve:unshelve", MEMBER)
UNSHELVE_TO_HOST = rule("os_compute_api:os-shelve:unshelve_to_host", ADMIN)

COPYING, SENDING = "shelving_image_pending_upload", "shelving_image_uploading"


class UnshelveInZone(Body, nullable=True):
    """Compute API, "Unshelve (Restore) Shelved Server (unshelve Action)", from 2.77 on: null, or a zone."""

    availability_zone: t.Name | Unset
    """UNSET where null was sent."""


class Unshelve(Body, nullable=True):
    """From 2.91 on. A zone of null unpins the server."""

    availability_zone: Annotated[str | Unset | None, Json({"type": ["string", "null"]})] = UNSET
    host: str | Unset = UNSET


@COMPUTE.operation(
    "POST", PATH, action="shelve", rules=(Rule(SHELVE_RULE),), target=server_in_sight, body=Anything, success=202
)
def shelve_server(call: Call[Server, Anything]) -> None:
    """Shelve a server: its disk becomes an image, and it leaves its host."""
    server = call.target
    require_state(server, "shelve", call.caller)
    preconditions.require_not_resized(call.tx, server, "shelve")
    image_id = snapshot.new_image(
        call, server, name=f"{server.name}-shelved"[:255], image_type="snapshot", properties={}
    )
    operations.begin(
        call,
        server,
        SHELVE,
        lambda *begun: Shelving(
            **operations.on_host(*begun),
            image_id=image_id,
            vm_state=server.vm_state,
            stays=call.cloud.settings.shelved_offload_time != 0,
        ),
        action="shelve",
        event="compute_shelve_instance",
        task_state="shelving",
    )


@COMPUTE.operation(
    "POST",
    PATH,
    action="shelveOffload",
    rules=(Rule(OFFLOAD_RULE),),
    target=server_in_sight,
    body=Anything,
    success=202,
)
def offload_shelved_server(call: Call[Server, Anything]) -> None:
    """Take a shelved server off the host on which it rests."""
    require_state(call.target, "shelveOffload", call.caller)
    if not shelved.has_image(call.tx, call.target):
        raise Conflict(
            f"Cannot 'shelveOffload' instance {call.target.id}: the image that it was shelved to cannot be used, and "
            "its disk is all that there is of it. It can be unshelved where it is.",
            reason="IMAGE_GONE",
        )
    operations.begin(
        call,
        call.target,
        shelved.OFFLOADING,
        lambda *begun: shelved.Resting(**operations.on_host(*begun)),
        action="shelveOffload",
        event="compute_shelve_offload_instance",
        task_state="shelving_offloading",
    )


@COMPUTE.operation(
    "POST",
    PATH,
    action="unshelve",
    rules=(Rule(UNSHELVE_RULE),),
    target=server_in_sight,
    body=Anything,
    success=202,
    until="2.76",
)
def unshelve_server(call: Call[Server, Anything]) -> None:
    """Unshelve a server where the scheduler finds room for it."""
    _unshelve(call, UNSET, None)


@COMPUTE.operation(
    "POST",
    PATH,
    action="unshelve",
    rules=(Rule(UNSHELVE_RULE),),
    target=server_in_sight,
    body=UnshelveInZone,
    success=202,
    since="2.77",
    until="2.90",
)
def unshelve_server_in_zone(call: Call[Server, UnshelveInZone]) -> None:
    """Unshelve a server, in a zone that it is pinned to from now on."""
    _unshelve(call, call.body.availability_zone, None)


@COMPUTE.operation(
    "POST",
    PATH,
    action="unshelve",
    rules=(Rule(UNSHELVE_RULE), Rule(UNSHELVE_TO_HOST, when="host")),
    target=server_in_sight,
    body=Unshelve,
    success=202,
    since="2.91",
)
def unshelve_server_somewhere(call: Call[Server, Unshelve]) -> None:
    """Unshelve a server: anywhere, in a zone, or on a host that an administrator names."""
    body = call.body
    _unshelve(call, body.availability_zone, None if isinstance(body.host, Unset) else body.host)


def _unshelve(call: Call[Server, object], zone: str | Unset | None, host: str | None) -> None:
    server = call.target
    require_state(server, "unshelve", call.caller)
    if server.vm_state is VmState.SHELVED:
        if host is not None or not isinstance(zone, Unset):
            raise Conflict(
                f'Specifying an availability zone or a host when unshelving server "{server.id}" with status "SHELVED" '
                "is not supported. The server status must be SHELVED_OFFLOADED."
            )
        _start_again(call)
        return
    if not shelved.has_image(call.tx, server):
        raise Conflict(
            f"Cannot 'unshelve' instance {server.id}: the image that it was shelved to cannot be used: it is not "
            "active, or was deleted.",
            reason="IMAGE_GONE",
        )
    if isinstance(zone, str) and zone:
        known = sa.select(hosts.c.id).where(hosts.c.zone == zone, hosts.c.disabled.is_(False), hosts.c.up)
        if call.tx.first(known) is None:
            raise BadRequest("The requested availability zone is not available")
    pinned = server.requested_zone if isinstance(zone, Unset) else zone or None
    if host is not None:
        found = call.tx.first(sa.select(hosts.c.zone).where(hosts.c.name == host))
        if found is None:
            raise BadRequest(f"Compute host {host} could not be found.")
        if pinned is not None and found.zone != pinned:
            raise Conflict(f'Host "{host}" is not in the availability zone "{pinned}".')
    server = update_server(call.tx, server, now_us=call.now_us, requested_zone=pinned)
    operations.begin(
        call,
        server,
        UNSHELVE,
        lambda server, operation_id, action_id: Unshelving(
            server_id=server.id,
            operation_id=operation_id,
            action_id=action_id,
            generation=server.generation,
            image_id=server.system_metadata[SHELVED_IMAGE],
            named=host,
        ),
        action="unshelve",
        event="get_image_info",
        task_state="unshelving",
    )


def _start_again(call: Call[Server, object]) -> None:
    """For a server that still is on its host."""
    operations.begin(
        call,
        call.target,
        shelved.STARTING,
        lambda *begun: shelved.Resting(**operations.on_host(*begun)),
        action="unshelve",
        event="compute_start_instance",
        task_state="powering-on",
    )


# -- shelving


class Shelving(OnHost, frozen=True, kw_only=True):
    """State of the saga. `vm_state`: the server's before. `stays`: it rests on its host. `observed`: the guest after a
    failure."""

    image_id: str
    vm_state: VmState
    stays: bool = False
    observed: GuestState | None = None


async def stop_guest(context: Context, state: Shelving) -> Shelving:
    """A suspended guest has no process. Its saved memory goes when it is removed or started again."""
    if state.vm_state is not VmState.SUSPENDED:
        await context.hosts.send(state.host, m.Stop(**command(context, state), grace_seconds=STOP_GRACE_SECONDS))
    return state


async def start_again(context: Context, state: Shelving) -> Shelving:
    """The undo: start the guest again if it ran; then look what it is."""
    if state.vm_state is VmState.ACTIVE:
        await operations.start(context, state.host, command(context, state))
    observed = await looking.look(context, state)
    return msgspec.structs.replace(state, observed=observed)


async def make_image(context: Context, state: Shelving) -> Shelving:
    await snapshot.bring_image(context, state, COPYING, SENDING)
    return state


async def drop_image(context: Context, state: Shelving) -> Shelving:
    """The undo: remove the image, also a whole one, unless it is protected. Its record goes before its data."""
    await snapshot.end_snapshot(context, state)
    now = context.clock.now_us()

    def deleted(tx: Tx) -> None:
        image_store.delete(tx, state.image_id, now)

    await context.record(deleted)
    await snapshot.remove_image(context, state)
    return state


async def remove_guest(context: Context, state: Shelving) -> Shelving:
    """If the host is down, its guest is removed when the host is back (`compute.drift`)."""
    if state.stays:
        await learn_links(context, state.host, state.server_id)
        return state
    await operations.unless_down(context, state.host, m.Destroy(**command(context, state)))
    return state


def record_shelved(tx: Tx, context: Context, state: Shelving) -> Shelving:
    """A server that rests keeps host, claim and bindings. Others give them back in this transaction."""
    now = context.clock.now_us()
    server = get_server(tx, state.server_id, deleted=True)
    metadata = {**server.system_metadata, SHELVED_IMAGE: state.image_id}
    if state.stays:
        metadata[shelved.SINCE_US] = str(now)
        rests = {"vm_state": VmState.SHELVED, "power_state": PowerState.SHUTDOWN, "system_metadata": metadata}
        operations.settle(tx, server.id, now_us=now, task_state=None, **rests, **operations.NO_FAULT)
        operations.finish_events(tx, state.action_id, now_us=now)
        return state
    generation = shelved.offload(
        tx, server.id, old=state.host, generation=state.generation, now_us=now, system_metadata=metadata
    )
    operations.finish_events(tx, state.action_id, now_us=now)
    return msgspec.structs.replace(state, generation=generation)


def unwound(tx: Tx, context: Context, state: Shelving, failure: Failure) -> None:
    now = context.clock.now_us()
    snapshots.give_up(tx, state.image_id, now)
    seen = operations.if_observed(state.observed)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **seen)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


SHELVE = Saga(
    name="shelve",
    kind=SERVER,
    state=Shelving,
    steps=(Step(stop_guest, undo=start_again), Step(make_image, undo=drop_image)),
    # The image is whole: from here on the server can be made from it.
    finals=(Final(snapshot.end_snapshot), Final(remove_guest), Final(record_shelved)),
    unwound=unwound,
)


# -- unshelving


class Unshelving(Boot, frozen=True, kw_only=True):
    """State of the saga: that of a boot, from `image_id`, on the host `named` if one was asked for."""

    image_id: str
    named: str | None


def pick_host(tx: Tx, context: Context, state: Unshelving) -> Unshelving:
    server = get_server(tx, state.server_id)
    choice = hosts_in_memory.pick(tx, boot.need(tx, server, named=state.named))
    if choice.host is None:
        raise StepFailed("NO_VALID_HOST", boot.NO_VALID_HOST, scheduler.explain(choice))
    return msgspec.structs.replace(state, host=choice.host)


async def make_guest(context: Context, state: Unshelving) -> Unshelving:
    return await boot.create_described(context, state, image_id=state.image_id)


def record_unshelved(tx: Tx, context: Context, state: Unshelving) -> Unshelving:
    shelved.let_image_go(tx, state.server_id, context.clock.now_us())
    boot.record_active(tx, context, state)
    operations.settle(tx, state.server_id, now_us=context.clock.now_us(), **operations.NO_FAULT)
    return state


def still_shelved(tx: Tx, context: Context, state: Unshelving, failure: Failure) -> None:
    """The server has no host, as before, and says why. If its host went down with its guest, it stays there in ERROR
    until the host is back (`compute.drift`)."""
    now = context.clock.now_us()
    changes = shelved.why(failure, now_us=now)
    if state.abandoned:
        changes = operations.in_error(NOT_UNSHELVED, now_us=now, failure=failure)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **changes)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


def _record_events(tx: Tx, context: Context, state: Unshelving, events: Sequence[str]) -> None:
    hosts = dict.fromkeys(events, state.host)
    operations.next_events(tx, state.action_id, hosts, now_us=context.clock.now_us())


UNSHELVE = Saga(
    name="unshelve",
    kind=SERVER,
    state=Unshelving,
    steps=(
        Step(pick_host, undo=nothing, events=("schedule_instances",)),
        Step(boot.claim_host, undo=boot.release_host, events=("compute_unshelve_instance",)),
        Step(make_guest, undo=boot.destroy_guest),
    ),
    # The guest runs. From here on we only go forward.
    finals=(Final(record_unshelved),),
    unwound=still_shelved,
    record_events=_record_events,
    afterwards=snapshot.remove_image,
)
