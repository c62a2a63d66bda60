"""Booting: a server of a create request gets a host, a share of it, its ports plugged, and a running guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from cumulet.compute import (
    affinity,
    believed,
    block_devices,
    guest_agent,
    guest_metadata,
    hosts_in_memory,
    image_devices,
    image_promises,
    operations,
    promises,
    scheduler,
    untold,
)
from cumulet.compute import hosts as host_records
from cumulet.compute.model import PowerState, Server, VmState
from cumulet.compute.operations import SERVER, command
from cumulet.compute.store import begin_scheduling, change_owner, get_server
from cumulet.compute.taking_back import take_back
from cumulet.compute.wiring import require_wired
from cumulet.conductor import saga
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, StepFailed, nothing
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.driver import Guest, Image, Nic
from cumulet.image import store as image_store
from cumulet.network import bindings_for_compute as bindings
from cumulet.network import for_compute as network
from cumulet.network import port_life, port_status, qos, trunk_ports
from cumulet.network.bindings import NORMAL
from cumulet.placement import allocations as placement
from cumulet.web.operation import Call

MAX_ATTEMPTS = 3
EVENT, UNSCHEDULED = "compute__do_build_and_run_instance", "conductor_schedule_and_build_instances"
"""The event of a boot, and of one that no host was found for."""
NO_VALID_HOST = "No valid host was found. There are not enough hosts available."


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """State of the saga. `failures`: by host that was tried before, the reason; each attempt is a saga of its own."""

    server_id: str
    operation_id: str
    action_id: int
    generation: int
    host: str | None = None
    failures: dict[str, str] = msgspec.field(default_factory=dict)
    abandoned: bool = False
    """Whether `host` is down with a guest that could not be removed: then no other host may run the server."""
    guest: Guest | None = None
    """Its description, as its first host has frozen it."""
    plugged: tuple[str, ...] = ()
    """Ids of the ports that are plugged, as its host says."""


B = TypeVar("B", bound=Boot)


def begin_boot(call: Call[object, object], created: Sequence[Server]) -> None:
    """Begin to boot all servers that a request has just inserted: `operations.begin` for many at once."""
    operation_ids = [call.cloud.clock.uuid() for _ in created]
    action_ids = begin_scheduling(
        call.tx,
        [server.id for server in created],
        operation_ids,
        request_id=call.request_id,
        user_id=call.caller.user_id,
        project_id=call.caller.project_id,
        now_us=call.now_us,
    )
    operations.start_events(call.tx, action_ids, EVENT, now_us=call.now_us)
    states = [
        Boot(server_id=server.id, operation_id=operation_id, action_id=action_id, generation=server.generation + 1)
        for server, operation_id, action_id in zip(created, operation_ids, action_ids, strict=True)
    ]
    begun = [(state.operation_id, state.server_id, state) for state in states]
    saga.begin_many(call.tx, call.cloud.wake, BOOT, begun, now_us=call.now_us)


def resources(server: Server) -> dict[str, int]:
    """What a server uses of its host."""
    return dict(promises.of(server.flavor).resources)


def need(tx: Tx, server: Server, *, moved: Guest | None = None, **narrower: Any) -> scheduler.Need:
    """What the scheduler must find for a server. `moved`: its guest, which moves as it is; without one, it will be made
    as its image says. `narrower`: further fields of `Need`."""
    promised = promises.of(server.flavor)
    devices = image_devices.of(server.image_properties) if moved is None else moved.devices
    promised = msgspec.structs.replace(
        promised,
        required=promised.required | image_promises.traits(server.image_properties),
        devices=image_devices.needed(devices),
    )
    wanted = promised.resources
    beside = affinity.wanted(tx, server)
    vnic_types = network.vnic_types(tx, server.id)
    return scheduler.Need(
        vcpus=wanted[placement.VCPU],
        memory_mib=wanted[placement.MEMORY_MB],
        disk_gib=wanted[placement.DISK_GB],
        zone=server.requested_zone,
        affinity=beside.together,
        anti_affinity=beside.apart,
        liked=beside.liked,
        unkept=_unkept(server, promised.unkept, vnic_types),
        unfit=promises.unfit_hosts(tx, promised, server.id),
        networks=bool(vnic_types),
        qos=qos.features_needed(tx, server.id),
        trunks=trunk_ports.has_subports(tx, server.id),
        cpu_model=moved.cpu_model if moved is not None else None,
        machine_type=moved.machine_type if moved is not None else None,
        guest_agent=moved is not None and moved.agent,
        uneven_memory=moved is not None and moved.uneven_memory,
        **narrower,
    )


def _unkept(server: Server, spec: str | None, vnic_types: frozenset[str]) -> scheduler.Unfit | None:
    """`spec`: of its flavor. A guest that was made has its hardware, and moves with it, whatever else asks for more."""
    if spec is not None:
        return scheduler.Unfit(scheduler.Reason.EXTRA_SPEC_NOT_KEPT, spec)
    if server.launched_at_us is not None:
        return None
    if other := vnic_types - {NORMAL}:
        return scheduler.Unfit(scheduler.Reason.VNIC_TYPE_NOT_KEPT, min(other))
    of_image = image_promises.unkept(server.image_properties, server.flavor)
    return scheduler.Unfit(scheduler.Reason.IMAGE_PROPERTY_NOT_KEPT, of_image) if of_image is not None else None


# -- steps


def pick_host(tx: Tx, context: Context, state: Boot) -> Boot:
    server = get_server(tx, state.server_id)
    choice = hosts_in_memory.pick(tx, need(tx, server, named=server.pinned_host, tried=state.failures))
    if choice.host is None:
        raise StepFailed("NO_VALID_HOST", NO_VALID_HOST, scheduler.explain(choice))
    return msgspec.structs.replace(state, host=choice.host)


def claim_host(tx: Tx, context: Context, state: B) -> B:
    """Take the share of the host, the server's ownership and the ports' bindings in one transaction."""
    assert state.host is not None
    now = context.clock.now_us()
    server = get_server(tx, state.server_id)
    placement.claim(
        tx,
        consumer=server.id,
        provider=state.host,
        resources=resources(server),
        project_id=server.project_id,
        user_id=server.user_id,
        now_us=now,
    )
    bindings.bind(tx, server.id, state.host)
    generation = change_owner(tx, server.id, old=None, new=state.host, generation=state.generation, now_us=now)
    if server.launched_at_us is not None:  # It is unshelved, and may have posted a password.
        untold.note(tx, server.id, now_us=now)
    # Every guest of a host that makes config drives has one: without networks there is no metadata service.
    on_drive = server.config_drive or host_records.offers(tx, state.host, "config-drive")
    operations.settle(tx, server.id, now_us=now, task_state="spawning", launched_on=state.host, config_drive=on_drive)
    return msgspec.structs.replace(state, generation=generation)


def release_host(tx: Tx, context: Context, state: B) -> B:
    if state.abandoned:
        return state
    now = context.clock.now_us()
    server = get_server(tx, state.server_id, deleted=True)
    placement.release(tx, consumer=server.id, now_us=now)
    if server.host is None:
        return state
    port_life.unbind_server(tx, server.id)
    generation = change_owner(tx, server.id, old=server.host, new=None, generation=server.generation, now_us=now)
    return msgspec.structs.replace(state, generation=generation)


async def create_guest(context: Context, state: Boot) -> Boot:
    return await create_described(context, state)


async def create_described(context: Context, state: B, *, image_id: str | None = None) -> B:
    """Make the guest on the claimed host and let it run. `image_id`: as for `describe`."""

    def described(tx: Tx) -> Guest:
        return describe(tx, context, get_server(tx, state.server_id), state.host, image_id=image_id)

    guest: Guest = await context.read(described)
    assert state.host is not None
    port_ids = await require_wired(context, state.host, state.server_id)
    frozen = await context.hosts.send(state.host, m.Create(**command(context, state), guest=guest))
    linked = (await context.hosts.in_force(state.host)).linked if port_ids else ()
    plugged = tuple(port_id for port_id in linked if port_id in port_ids)
    return msgspec.structs.replace(state, guest=believed.made(guest, frozen), plugged=plugged)


async def destroy_guest(context: Context, state: B) -> B:
    """The undo. A host that is down may run the guest; then the server stays on it."""
    gone = await take_back(context, state.host, m.Destroy(**command(context, state)), otherwise=False)
    return msgspec.structs.replace(state, abandoned=gone is False)


def record_active(tx: Tx, context: Context, state: B) -> B:
    now = context.clock.now_us()
    operations.settle(
        tx,
        state.server_id,
        now_us=now,
        vm_state=VmState.ACTIVE,
        power_state=PowerState.RUNNING,
        task_state=None,
        launched_at_us=now,
        guest=msgspec.to_builtins(state.guest),
    )
    if state.plugged:
        port_status.record_links(tx, state.host or "", state.plugged, [state.server_id])
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def unwound(tx: Tx, context: Context, state: Boot, failure: Failure) -> None:
    """After a host's failure try another host; otherwise the server is in ERROR with a fault.

    It will never run, so its ports are given back, as in Nova. A host that may still run its guest keeps them.
    """
    now = context.clock.now_us()
    server = get_server(tx, state.server_id, deleted=True)
    host_failed = failure.reason not in ("NO_VALID_HOST", "ABORTED") and state.host is not None
    if (
        host_failed
        and not state.abandoned
        and len(state.failures) + 1 < MAX_ATTEMPTS
        and server.task_state != "deleting"
    ):
        server = operations.next_generation(tx, server, now)
        again = Boot(
            server_id=server.id,
            operation_id=context.clock.uuid(),
            action_id=state.action_id,
            generation=server.generation,
            failures={**state.failures, state.host or "": f"{failure.reason}: {failure.private or failure.public}"},
        )
        operations.settle(tx, server.id, now_us=now, task_state="scheduling")
        saga.begin(
            tx,
            context.wake,
            BOOT,
            operation_id=again.operation_id,
            subject=server.id,
            state=again,
            now_us=now,
            queue=True,
        )
        return
    fault = operations.in_error(failure.public, now_us=now, failure=failure)
    operations.settle(tx, server.id, now_us=now, task_state=None, **fault)
    if server.host is None:
        network.release(tx, server.id)
    if not state.failures and failure.reason == "NO_VALID_HOST":
        operations.rename_events(tx, state.action_id, UNSCHEDULED)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


def describe(tx: Tx, context: Context, server: Server, host: str | None, *, image_id: str | None = None) -> Guest:
    """The guest's description for `host`. The first host freezes machine type and CPU model into it.

    `image_id`: the image for its disk, if that is not the server's.
    """
    image_id = image_id or server.image_id
    nics = tuple(nic_of(port, slot) for slot, port in enumerate(network.ports_of(tx, [server.id]).get(server.id, [])))
    devices = image_devices.of(server.image_properties)
    return Guest(
        server_id=server.id,
        name=server.name,
        vcpus=server.flavor.vcpus,
        memory_mib=server.flavor.memory_mib,
        disk_gib=server.flavor.disk_gib,
        image=None if image_id is None else image_of(tx, image_id),
        nics=nics,
        config_drive=(
            guest_metadata.drive(guest_metadata.facts_of(tx, context.settings, server, nics, devices, host=host))
            if server.config_drive
            else ()
        ),
        extra_specs=server.flavor.extra_specs,
        disks=block_devices.of(server),
        devices=devices,
        agent=guest_agent.is_in(server.image_properties)
        and (host is None or host_records.offers(tx, host, guest_agent.FEATURE)),
    )


def image_of(tx: Tx, image_id: str) -> Image:
    """The image for a guest's disk. StepFailed if it has gone meanwhile."""
    image = image_store.data_of(tx, image_id)
    if image is None or image.status != "active":
        raise StepFailed("IMAGE_GONE", f"Image {image_id} could not be found.")
    return Image(
        id=image.id,
        disk_format=image.disk_format or "",
        size_bytes=image.size or 0,
        virtual_size_bytes=image.virtual_size or 0,
        sha512=image.os_hash_value or "",
    )


def nic_of(port: network.PortView, slot: int) -> Nic:
    """The NIC for a port, in this slot."""
    return Nic(
        port_id=port.id,
        network_id=port.network_id,
        mac=port.mac,
        addresses=tuple(address.with_prefix for address in port.addresses),
        slot=slot,
    )


BOOT = Saga(
    name="boot",
    kind=SERVER,
    state=Boot,
    steps=(
        Step(pick_host, undo=nothing),
        Step(claim_host, undo=release_host),
        Step(create_guest, undo=destroy_guest),
    ),
    # The guest runs. From here on we only go forward.
    finals=(Final(record_active),),
    unwound=unwound,
)
