"""Cold migration and resize: a server is stopped, its disk copied to another host, and started there.

Theory of operation. As in a live migration, everything above the line happens with the source as owner, and the
destination's guest is not told to run; the line is the one statement that moves ownership. What differs: the source
keeps its disk, its share (held by the migration) and its description below the line too (`compute.resized`), stopped,
until the user confirms or reverts (`compute.resize_outcome`). As with Nova's defaults, none ends on its own host.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from cumulet.compute import block_devices, boot, moves, operations, preconditions, resized
from cumulet.compute import hosts as host_records
from cumulet.compute.attribute_types import DiskConfig, FlavorRef, HostName
from cumulet.compute.copying import copy_parameters, follow_copy, prepare_copy
from cumulet.compute.flavors import find_flavor
from cumulet.compute.model import Flavor, PowerState, Server, VmState
from cumulet.compute.operations import SERVER, command
from cumulet.compute.power import STOP_GRACE_SECONDS
from cumulet.compute.preconditions import Verb
from cumulet.compute.quotas import limits_of, usage_of
from cumulet.compute.rules import ADMIN, MANAGER, MEMBER
from cumulet.compute.scheduler import Reason
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import change_owner, get_server, update_server
from cumulet.compute.taking_back import take_back
from cumulet.compute.wiring import learn_links, require_wired
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed, nothing
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, OverQuota
from cumulet.host import messages as m
from cumulet.host.driver import Guest, GuestState
from cumulet.host.endpoint import Endpoint
from cumulet.image import store as image_store
from cumulet.network import bindings_for_compute as bindings
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Anything, Body, Key

MIGRATE = rule("os_compute_api:os-migrate-server:migrate", MANAGER)
MIGRATE_HOST = rule("os_compute_api:os-migrate-server:migrate:host", ADMIN)
RESIZE_RULE = rule("os_compute_api:servers:resize", MEMBER)

PATH = "/servers/{server_id}/action"
GIB = 1024**3


class Migrate(Body, nullable=True):
    """Compute API, "Migrate Server (migrate Action)", from 2.56."""

    host: HostName | None = None


class Resize(Body):
    """Compute API, "Resize Server (resize Action)"."""

    flavor_ref: Annotated[FlavorRef, Key("flavorRef")]
    disk_config: Annotated[DiskConfig, Key("OS-DCF:diskConfig")] = "MANUAL"


@COMPUTE.operation(
    "POST", PATH, action="migrate", rules=(Rule(MIGRATE),), target=server_in_sight, body=Anything, success=202,
    until="2.55",
)  # fmt: skip
def migrate_server(call: Call[Server, Anything]) -> None:
    """Cold-migrate a server to a host the scheduler picks."""
    _migrate(call, None)


@COMPUTE.operation(
    "POST", PATH, action="migrate", rules=(Rule(MIGRATE), Rule(MIGRATE_HOST, when="host")), target=server_in_sight,
    body=Migrate, success=202, since="2.56",
)  # fmt: skip
def migrate_server_to_host(call: Call[Server, Migrate]) -> None:
    """Cold-migrate a server to the host asked for, or to one the scheduler picks."""
    _migrate(call, call.body.host)


def _migrate(call: Call[Server, object], host: str | None) -> None:
    server = call.target
    require_state(server, "migrate", call.caller)
    preconditions.require(call.tx, server, Verb.COLD, call.cloud.settings)
    if host is not None and host == server.host:
        raise BadRequest("Cannot migrate to the host where the server exists.", reason=Reason.SAME_HOST)
    host_records.require_known(call.tx, host)
    _begin(call, server.flavor, host=host, action="migrate", kind="migration", disk_config="MANUAL")


@COMPUTE.operation(
    "POST", PATH, action="resize", rules=(Rule(RESIZE_RULE),), target=server_in_sight, body=Resize, success=202
)
def resize_server(call: Call[Server, Resize]) -> None:
    """Give a server another flavor, on another host."""
    server, wanted = call.target, call.body.flavor_ref
    require_state(server, "resize", call.caller)
    preconditions.require(call.tx, server, Verb.RESIZE, call.cloud.settings)
    flavor = find_flavor(call.tx, call.caller, wanted)
    if flavor is None:
        raise BadRequest(f"Flavor {wanted} could not be found.")
    if flavor.disk_gib == 0 and server.flavor.disk_gib != 0:
        raise BadRequest("Server disk was unable to be resized because: Resize to zero disk flavor is not allowed.")
    if flavor.flavor_id == server.flavor.flavor_id:
        raise BadRequest("When resizing, instances must change flavor!")
    if flavor.disabled:
        raise BadRequest(f"Flavor {wanted} could not be found.")
    _require_quota(call.tx, server, flavor)
    _require_fit(call.tx, server, flavor)
    _begin(call, flavor, host=None, action="resize", kind="resize", disk_config=call.body.disk_config)


def _require_quota(tx: Tx, server: Server, flavor: Flavor) -> None:
    """Check the increase against the limits of the project and, if they are set, of its user."""
    old = server.flavor
    more = {"cores": flavor.vcpus - old.vcpus, "ram": flavor.memory_mib - old.memory_mib}
    for user_id in ("", server.user_id):
        limits = limits_of(tx, server.project_id, user_id)
        limited = [what for what, extra in more.items() if extra > 0 and limits[what] >= 0]
        if not limited:
            continue
        used = usage_of(tx, server.project_id, user_id or None)
        overs = [what for what in limited if limits[what] < used[what] + more[what]]
        if overs:
            raise OverQuota(
                f"Quota exceeded for {', '.join(overs)}: Requested {', '.join(str(more[o]) for o in overs)}, but "
                f"already used {', '.join(str(used[o]) for o in overs)} of "
                f"{', '.join(str(limits[o]) for o in overs)} {', '.join(overs)}"
            )


def _require_fit(tx: Tx, server: Server, flavor: Flavor) -> None:
    """As on create. An image that was deleted since then demands nothing."""
    image = image_store.find(tx, server.image_id) if server.image_id is not None else None
    if image is None:
        return
    if flavor.memory_mib < image.min_ram:
        raise BadRequest("Flavor's memory is too small for requested image.")
    disk, size = flavor.disk_gib * GIB, max(image.size or 0, image.virtual_size or 0)
    if disk and size > disk:
        raise BadRequest(
            f"Flavor's disk is too small for requested image. Flavor disk is {disk} bytes, image is {size} bytes."
        )
    if disk and image.min_disk * GIB > disk:
        raise BadRequest(
            f"Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {disk} "
            f"bytes, minimum size is {image.min_disk * GIB} bytes."
        )


class Resizing(moves.Moving, frozen=True, kw_only=True):
    """State of the saga. `flavor` is the new one; of a cold migration, the server's own."""

    flavor: Flavor
    was_running: bool
    endpoint: Endpoint | None = None
    guest: Guest | None = None
    """Its description at the destination."""
    seen: GuestState | None = None
    """The guest's state, if it should have been started and could not be."""


EVENTS = ("conductor_migrate_server", "cold_migrate")
"""With which it begins, as Nova's do."""


def _begin(
    call: Call[Server, object], flavor: Flavor, *, host: str | None, action: str, kind: str, disk_config: str
) -> None:
    def first_state(server: Server, operation_id: str, action_id: int) -> Resizing:
        uuid = call.cloud.clock.uuid()
        migration_id = moves.new_record(
            call.tx, server, uuid=uuid, kind=kind, status="pre-migrating", operation_id=operation_id,
            user_id=call.caller.user_id, project_id=call.caller.project_id or server.project_id, asked_for=host,
            flavor=flavor, now_us=call.now_us,
        )  # fmt: skip
        assert server.host is not None
        return Resizing(
            server_id=server.id, operation_id=operation_id, action_id=action_id,
            migration_id=migration_id, migration_uuid=uuid, generation=server.generation,
            source=server.host, asked_for=host, flavor=flavor, was_running=server.vm_state is VmState.ACTIVE,
        )  # fmt: skip

    server = update_server(call.tx, call.target, now_us=call.now_us, disk_config=disk_config)
    operations.begin(call, server, RESIZE, first_state, action=action, event=EVENTS, task_state="resize_prep")


# -- steps, each beside its undo


def pick_destination(tx: Tx, context: Context, state: Resizing) -> Resizing:
    """Choose another host that can run the guest, with room for its old and for its new flavor."""
    server = get_server(tx, state.server_id)
    preconditions.require(tx, server, Verb.RESIZE, context.settings)
    before, after = block_devices.of(server), block_devices.of(server, state.flavor)
    kept, room = block_devices.ephemeral_mib(before), state.flavor.ephemeral_gib * 1024
    shrinks = block_devices.ephemeral_mib(after) < kept or kept > room
    if state.flavor.disk_gib < server.flavor.disk_gib or shrinks:
        raise StepFailed("DISK_SHRINKS", "Unable to resize disk down.")
    guest = msgspec.convert(server.guest, Guest)
    need = boot.need(
        tx, msgspec.structs.replace(server, flavor=state.flavor), named=state.asked_for,
        not_on=frozenset({state.source}), comes_from=host_records.address_of(tx, state.source), moved=guest,
    )  # fmt: skip
    need = moves.with_room_to_arrive(need, server, state.flavor)
    return msgspec.structs.replace(state, destination=moves.pick(tx, need, state.asked_for))


def claim_destination(tx: Tx, context: Context, state: Resizing) -> Resizing:
    state = moves.claim_destination(tx, context, state, flavor=state.flavor)
    operations.settle(tx, state.server_id, now_us=context.clock.now_us(), task_state="resize_migrating")
    return state


async def stop_guest(context: Context, state: Resizing) -> Resizing:
    if state.was_running:
        await context.hosts.send(state.source, m.Stop(**command(context, state), grace_seconds=STOP_GRACE_SECONDS))
    return state


async def restart_guest(context: Context, state: Resizing) -> Resizing:
    """The undo: start the guest again if it ran. If it cannot be started, its state is recorded.

    The host may have been down when the guest should have been stopped, and be back now. Or an earlier move has left
    the guest waiting there, so that it could not be stopped.
    """
    state = await stand_down(context, state)
    if not state.was_running:
        return state
    try:
        await operations.unless_down(context, state.source, m.Start(**command(context, state)))
    except m.VerbFailed:
        seen = await operations.observe(context, state.source, state.server_id)
        if seen in (GuestState.STOPPED, GuestState.CRASHED, GuestState.ABSENT):
            return msgspec.structs.replace(state, seen=seen)
        await operations.let_go_on(context, state.source, command(context, state))
    return state


async def stand_by(context: Context, state: Resizing) -> Resizing:
    """At the source: prepare the stopped guest to be copied, without running it."""
    await context.hosts.send(state.source, m.StandBy(**command(context, state)))
    return state


async def stand_down(context: Context, state: Resizing) -> Resizing:
    await operations.unless_gone(context, state.source, m.StandDown(**command(context, state)))
    return state


async def start_destination(context: Context, state: Resizing) -> Resizing:
    """Make a guest at the destination that listens for the source alone, for its disk. It is never told to run."""
    server: Server = await context.read(lambda tx: get_server(tx, state.server_id, deleted=True))
    await require_wired(context, moves.destination(state), state.server_id)
    endpoint = await prepare_copy(context, state, server.guest, copy_parameters(context, paused=True))
    return msgspec.structs.replace(state, endpoint=endpoint)


async def destroy_destination(context: Context, state: Resizing) -> Resizing:
    await take_back(context, state.destination, m.Destroy(**command(context, state)))
    return msgspec.structs.replace(state, endpoint=None)


async def copy_disk(context: Context, state: Resizing) -> Resizing:
    assert state.endpoint is not None
    parameters = copy_parameters(context, paused=True)
    await context.hosts.send(
        state.source, m.StartCopy(**command(context, state), endpoint=state.endpoint, parameters=parameters)
    )
    await follow_copy(context, state)
    seen = await operations.observe(context, state.destination or "", state.server_id)
    if seen is not GuestState.INCOMING:
        raise StepFailed("DESTINATION_LOST", "The destination lost the guest.", f"{state.destination} says {seen}")
    return state


async def cancel_copy(context: Context, state: Resizing) -> Resizing:
    await operations.unless_gone(context, state.source, m.CancelCopy(**command(context, state)))
    return state


async def take_in(context: Context, state: Resizing) -> Resizing:
    """At the destination: make it a stopped guest of the new flavor."""
    server: Server = await context.read(lambda tx: get_server(tx, state.server_id, deleted=True))
    flavor = state.flavor
    guest = msgspec.structs.replace(
        msgspec.convert(server.guest, Guest), vcpus=flavor.vcpus, memory_mib=flavor.memory_mib,
        disk_gib=flavor.disk_gib, extra_specs=flavor.extra_specs, disks=block_devices.of(server, flavor),
    )  # fmt: skip
    destination = moves.destination(state)
    told: Guest = await context.read(lambda tx: host_records.as_told(tx, destination, guest))
    await context.hosts.send(destination, m.TakeIn(**command(context, state), guest=told))
    return msgspec.structs.replace(state, guest=guest)


async def let_source_rest(context: Context, state: Resizing) -> Resizing:
    """At the source: stop the guest and keep its disk, as long as the user may revert."""
    await context.hosts.send(state.source, m.StandDown(**command(context, state)))
    return state


# -- below the line


def record_host(tx: Tx, context: Context, state: Resizing) -> Resizing:
    """The commit: the one statement that moves ownership. The server is stopped on both sides before and after it."""
    now = context.clock.now_us()
    bindings.activate(tx, state.server_id, moves.destination(state))
    server = get_server(tx, state.server_id, deleted=True)
    resized.keep(
        tx,
        resized.Kept(
            server_id=server.id, migration_id=state.migration_id, migration_uuid=state.migration_uuid,
            host=state.source, flavor=server.flavor, guest=server.guest or {}, was_running=state.was_running,
            finished_at_us=now,
        ),
    )  # fmt: skip
    moves.lessen_share(tx, context, state, state.flavor)
    generation = change_owner(
        tx, server.id, old=state.source, new=state.destination, generation=state.generation, now_us=now
    )
    operations.settle(
        tx, server.id, now_us=now, task_state="resize_finish", guest=msgspec.to_builtins(state.guest),
        flavor=msgspec.structs.asdict(state.flavor),
    )  # fmt: skip
    return msgspec.structs.replace(state, generation=generation)


async def start_guest(context: Context, state: Resizing) -> Resizing:
    """Start it again if it ran. If it cannot be started it stays stopped, so that its user can revert."""
    if not state.was_running:
        return msgspec.structs.replace(state, seen=GuestState.STOPPED)
    destination = moves.destination(state)
    seen = await operations.start(context, destination, command(context, state))
    await learn_links(context, destination, state.server_id)
    return msgspec.structs.replace(state, seen=seen)


async def seal_source(context: Context, state: Resizing) -> Resizing:
    """The source learns the new generation, so that no late or repeated command starts the guest that it keeps."""
    return await stand_down(context, state)


def record_resized(tx: Tx, context: Context, state: Resizing) -> Resizing:
    now = context.clock.now_us()
    power_state = operations.OBSERVED[state.seen or GuestState.STOPPED][1]
    operations.settle(
        tx, state.server_id, now_us=now, vm_state=VmState.RESIZED, power_state=power_state, task_state=None,
        progress=0, launched_at_us=now,
    )  # fmt: skip
    moves.update_record(tx, context, state, status="finished")
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def unwound(tx: Tx, context: Context, state: Resizing, failure: Failure) -> None:
    """The server is as it was."""
    changes: dict[str, object] = {}
    if state.seen is not None:
        changes = {"vm_state": VmState.STOPPED, "power_state": PowerState.CRASHED}
    moves.record_unwound(tx, context, state, failure, status="error", progress=0, **changes)


RESIZE = Saga(
    name="resize",
    kind=SERVER,
    state=Resizing,
    steps=(
        Step(pick_destination, undo=nothing, status="pre-migrating"),
        Step(claim_destination, undo=moves.release_destination, status="pre-migrating"),
        Step(moves.bind_ports, undo=moves.unbind_ports, status="pre-migrating", events=("compute_prep_resize",)),
        Step(stop_guest, undo=restart_guest, status="migrating", events=("compute_resize_instance",)),
        Step(stand_by, undo=stand_down, status="migrating"),
        Step(start_destination, undo=destroy_destination, status="migrating"),
        Step(copy_disk, undo=cancel_copy, status="migrating"),
        Step(take_in, undo=nothing, status="migrating"),
        Step(let_source_rest, undo=nothing, status="migrating"),
    ),
    # The guest is stopped on both sides and the record now says: destination. From here on we only go forward.
    finals=(
        Final(record_host, status="post-migrating", events=("compute_finish_resize",)),
        Final(start_guest, status="post-migrating"),
        Final(seal_source, status="post-migrating"),
        Final(record_resized, status="post-migrating"),
    ),
    unwound=unwound,
    record_status=moves.record_status,
    record_events=moves.record_events,
)
