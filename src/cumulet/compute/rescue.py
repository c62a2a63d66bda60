"""Rescue: a server boots from another image with its own disk second, so that it can be mended; unrescue takes it back.

Theory of operation. The guest is stopped and started again on its host with one more disk, made from the rescue image,
from which it boots. Until it runs, everything can be undone: the disk is removed, and the guest is started again if it
ran. To unrescue, the guest is started without that disk. If a host's answer is lost, the host is asked again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from cumulet.compute import attribute_types as t
from cumulet.compute import boot, guest_metadata, image_devices, image_promises, looking, operations, promises
from cumulet.compute import hosts as host_records
from cumulet.compute.model import BASE_IMAGE, RESCUE_IMAGE, PowerState, Server, VmState
from cumulet.compute.operations import SERVER, OnHost, command
from cumulet.compute.power import STOP_GRACE_SECONDS
from cumulet.compute.promises import Promises
from cumulet.compute.rules import MEMBER
from cumulet.compute.server_actions import PATH
from cumulet.compute.server_creation import new_password, require_unencrypted
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import get_server, update_server
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.host import disk_messages as disk
from cumulet.host import messages as m
from cumulet.host.devices import USUAL, Devices
from cumulet.host.driver import Guest, GuestState
from cumulet.host.nics import placed
from cumulet.image.store import BootImage, boot_image, find_visible
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Anything, Body, Key, Unset

RESCUE_RULE = rule("os_compute_api:os-rescue", MEMBER)
UNRESCUE_RULE = rule("os_compute_api:os-unrescue", MEMBER)


class Rescue(Body, nullable=True):
    """Compute API, "Rescue Server (rescue Action)"."""

    admin_password: Annotated[str | Unset, Key("adminPass")] = UNSET
    rescue_image_ref: t.Uuid | Unset = UNSET


@COMPUTE.operation("POST", PATH, action="rescue", rules=(Rule(RESCUE_RULE),), target=server_in_sight, body=Rescue)
def rescue_server(call: Call[Server, Rescue | None]) -> dict[str, str]:
    """Boot a server from another image, its own disk second."""
    server, body = call.target, call.body
    given = UNSET if body is None else body.admin_password
    wanted = UNSET if body is None else body.rescue_image_ref
    require_state(server, "rescue", call.caller)
    own = server.system_metadata.get(BASE_IMAGE) or server.image_id or ""
    image = _rescue_image(call, own if isinstance(wanted, Unset) else wanted)
    devices = _devices(call, image)
    password = new_password(call) if isinstance(given, Unset) else given
    was = server.vm_state
    metadata = {**server.system_metadata, RESCUE_IMAGE: image.id}
    server = update_server(call.tx, server, now_us=call.now_us, system_metadata=metadata)
    operations.begin(
        call,
        server,
        RESCUE,
        lambda *begun: Rescuing(
            **operations.on_host(*begun),
            was_running=was is VmState.ACTIVE,
            image_id=image.id,
            devices=devices,
            password=password,
        ),
        action="rescue",
        event="compute_rescue_instance",
        task_state="rescuing",
    )
    return {"adminPass": password}


def _rescue_image(call: Call[Server, object], image_id: str) -> BootImage:
    """What may be booted from. Its disk has the size of the image, not of the flavor; the host guards the room."""
    if find_visible(call.tx, call.caller, image_id) is None:
        raise BadRequest(f"Requested rescue image '{image_id}' is not supported")
    image = boot_image(call.tx, call.caller, image_id)
    require_unencrypted(image)
    return image


def _devices(call: Call[Server, object], image: BootImage) -> Devices:
    """The guest's devices while it is rescued. BadRequest for what its host does not offer."""
    server = call.target
    own = msgspec.convert(server.guest, Guest, strict=False).devices if server.guest is not None else USUAL
    devices = image_devices.for_rescue(own, image_promises.stored(image.properties))
    asked = Promises(resources={}, devices=image_devices.needed(devices))
    promises.require_kept_by(call.tx, asked, server.host or "", server.id)
    return devices


@COMPUTE.operation(
    "POST", PATH, action="unrescue", rules=(Rule(UNRESCUE_RULE),), target=server_in_sight, body=Anything, success=202
)
def unrescue_server(call: Call[Server, Anything]) -> None:
    """Boot a rescued server from its own disk again."""
    require_state(call.target, "unrescue", call.caller)
    operations.begin(
        call,
        call.target,
        UNRESCUE,
        lambda *begun: Unrescuing(**operations.on_host(*begun)),
        action="unrescue",
        event="compute_unrescue_instance",
        task_state="unrescuing",
    )


# -- rescue


class Rescuing(OnHost, frozen=True, kw_only=True):
    """State of the saga. `password`: what the rescued system is told on its config drive."""

    was_running: bool
    image_id: str
    password: str
    devices: Devices = USUAL
    """The guest's, with those of the rescue."""
    observed: GuestState | None = None
    """What was found after a failure."""


async def stop_guest(context: Context, state: Rescuing) -> Rescuing:
    await context.hosts.send(state.host, m.Stop(**command(context, state), grace_seconds=STOP_GRACE_SECONDS))
    return state


async def start_again(context: Context, state: Rescuing) -> Rescuing:
    """The undo: start the guest again if it ran; then look what it is."""
    if state.was_running:
        await operations.start(context, state.host, command(context, state))
    observed = await looking.look(context, state)
    return msgspec.structs.replace(state, observed=observed)


async def rescue_guest(context: Context, state: Rescuing) -> Rescuing:
    guest: Guest = await context.read(lambda tx: _described(tx, context, state))
    await context.hosts.send(state.host, disk.Rescue(**command(context, state), guest=guest))
    return state


async def give_up_rescue(context: Context, state: Rescuing) -> Rescuing:
    await operations.unless_gone(context, state.host, disk.Unrescue(**command(context, state), run=False))
    return state


def _described(tx: Tx, context: Context, state: Rescuing) -> Guest:
    """The guest as it is, with the image it is rescued with, and a config drive that has the rescue's password."""
    server = get_server(tx, state.server_id, deleted=True)
    secrets = {**(server.guest_secrets or {}), "admin_password": state.password}
    told = msgspec.structs.replace(server, guest_secrets=secrets)
    guest = host_records.as_told(tx, state.host, msgspec.convert(server.guest, Guest, strict=False))
    facts = guest_metadata.facts_of(tx, context.settings, told, placed(guest), guest.devices, host=state.host)
    return msgspec.structs.replace(
        guest,
        image=boot.image_of(tx, state.image_id),
        devices=USUAL if state.devices == USUAL else state.devices,
        config_drive=guest_metadata.drive(facts) if server.config_drive else (),
    )


def record_rescued(tx: Tx, context: Context, state: Rescuing) -> Rescuing:
    now = context.clock.now_us()
    running = {"vm_state": VmState.RESCUED, "power_state": PowerState.RUNNING, "launched_at_us": now}
    operations.settle(tx, state.server_id, now_us=now, **running, task_state=None, **operations.NO_FAULT)
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def not_rescued(tx: Tx, context: Context, state: Rescuing, failure: Failure) -> None:
    now = context.clock.now_us()
    seen = operations.if_observed(state.observed)
    kept = operations.metadata_without(tx, state.server_id, RESCUE_IMAGE)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, system_metadata=kept, **seen)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


RESCUE = Saga(
    name="rescue",
    kind=SERVER,
    state=Rescuing,
    steps=(Step(stop_guest, undo=start_again), Step(rescue_guest, undo=give_up_rescue)),
    # It runs from the rescue image.
    finals=(Final(record_rescued),),
    unwound=not_rescued,
)


# -- unrescue


class Unrescuing(OnHost, frozen=True, kw_only=True):
    """State of the saga. `observed`, `rescued`: what was found after a failure, None where the host is down."""

    observed: GuestState | None = None
    rescued: bool | None = None


async def unrescue_guest(context: Context, state: Unrescuing) -> Unrescuing:
    await context.hosts.send(state.host, disk.Unrescue(**command(context, state), run=True))
    return state


async def look(context: Context, state: Unrescuing) -> Unrescuing:
    """The undo: the verb cannot be taken back, so look what the guest is."""
    observed = await looking.look(context, state)
    if observed in (None, GuestState.ABSENT):
        return msgspec.structs.replace(state, observed=observed)
    rescued = await operations.unless_down(context, state.host, disk.AskRescued(server_id=state.server_id))
    return msgspec.structs.replace(state, observed=observed, rescued=rescued)


def record_unrescued(tx: Tx, context: Context, state: Unrescuing) -> Unrescuing:
    now = context.clock.now_us()
    running = {"vm_state": VmState.ACTIVE, "power_state": PowerState.RUNNING}
    kept = operations.metadata_without(tx, state.server_id, RESCUE_IMAGE)
    operations.settle(
        tx, state.server_id, now_us=now, **running, task_state=None, system_metadata=kept, **operations.NO_FAULT
    )
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def not_unrescued(tx: Tx, context: Context, state: Unrescuing, failure: Failure) -> None:
    """It stays rescued, unless its host says otherwise now or once it is back (`compute.drift`). To ask again is never
    wrong."""
    now = context.clock.now_us()
    seen: dict[str, object] = {}
    if state.observed in operations.OBSERVED:
        seen = operations.as_observed(state.observed, VmState.RESCUED if state.rescued else None)
        if state.rescued is False:
            seen["system_metadata"] = operations.metadata_without(tx, state.server_id, RESCUE_IMAGE)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **seen)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


UNRESCUE = Saga(
    name="unrescue",
    kind=SERVER,
    state=Unrescuing,
    steps=(Step(unrescue_guest, undo=look),),
    # It runs from its own disk.
    finals=(Final(record_unrescued),),
    unwound=not_unrescued,
)
