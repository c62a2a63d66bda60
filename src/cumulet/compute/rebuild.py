"""Rebuild: a server keeps its id, host, ports and size, and gets a new disk, made from the same image or another.

Theory of operation. Its guest is destroyed on its host and made again there from the new image, once it is known that
the image is there and that the host can wire the guest. What its disk held is gone with the first of these, so a
failure after it leaves a server in ERROR, without a guest, that can be rebuilt again; before it, one that is as it was.
Which of the two it is says the hypervisor; of a host that is down nothing is known, and what is found there when it is
back decides (`compute.drift`). A new guest that nobody has heard of is removed then: nobody knows how its host has
frozen it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from cumulet.compute import attribute_types as t
from cumulet.compute import (
    believed,
    boot,
    drift,
    image_devices,
    image_promises,
    looking,
    operations,
    promises,
    shelved,
    snapshot,
)
from cumulet.compute.half_made import REBUILT_BY_HALF, is_half_made
from cumulet.compute.keypairs import public_key_of
from cumulet.compute.links import self_link
from cumulet.compute.model import BASE_IMAGE, Server, VmState
from cumulet.compute.operations import SERVER, OnHost, command
from cumulet.compute.promises import Promises
from cumulet.compute.quotas import limits_of, require_limit
from cumulet.compute.rules import MEMBER
from cumulet.compute.server_actions import PATH
from cumulet.compute.server_creation import new_password, require_fit
from cumulet.compute.server_creation_body import PersonalityFile
from cumulet.compute.server_views import shown, view_server
from cumulet.compute.servers import ServerHostname
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import get_server, update_server
from cumulet.compute.wiring import learn_links, require_wired
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step, nothing
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotYet
from cumulet.host import messages as m
from cumulet.host.driver import Guest, GuestState
from cumulet.image.store import boot_image, find_visible
from cumulet.network import wiring as network
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Key, LooseBool, Since, Unset, Until

REBUILD_RULE = rule("os_compute_api:servers:rebuild", MEMBER)
TRUSTED_CERTS = rule("os_compute_api:servers:rebuild:trusted_certs", MEMBER)


class Rebuild(Body):
    """Compute API, "Rebuild Server (rebuild Action)"."""

    image_ref: Annotated[t.Uuid, Key("imageRef")]
    name: t.Name | Unset = UNSET
    admin_password: Annotated[str | Unset, Key("adminPass")] = UNSET
    metadata: t.Metadata | Unset = UNSET
    preserve_ephemeral: LooseBool = False
    disk_config: Annotated[t.DiskConfig | Unset, Key("OS-DCF:diskConfig")] = UNSET
    access_ipv4: Annotated[t.IpV4 | Unset, Key("accessIPv4")] = UNSET
    access_ipv6: Annotated[t.IpV6 | Unset, Key("accessIPv6")] = UNSET
    personality: Annotated[list[PersonalityFile] | None, Json({"type": "array"}), Until("2.56")] = None
    description: Annotated[t.Description | Unset, Since("2.19")] = UNSET
    key_name: Annotated[t.Name | Unset | None, Json({"type": ["string", "null"]}), Since("2.54")] = UNSET
    user_data: Annotated[t.UserData | Unset | None, Json({"type": ["string", "null"]}), Since("2.57")] = UNSET
    trusted_image_certificates: Annotated[
        list[Annotated[str, Json({"minLength": 1})]] | Unset | None,
        Json({"minItems": 1, "maxItems": 50, "uniqueItems": True}),
        Since("2.63"),
    ] = UNSET
    hostname: ServerHostname = UNSET


@COMPUTE.operation(
    "POST",
    PATH,
    action="rebuild",
    rules=(Rule(REBUILD_RULE),),
    target=server_in_sight,
    body=Rebuild,
    success=202,
)
def rebuild_server(call: Call[Server, Rebuild]) -> Reply:
    """Give a server a new disk, made from an image; it keeps id, host, ports and flavor."""
    server, body = call.target, call.body
    if not isinstance(body.trusted_image_certificates, Unset):
        call.require(TRUSTED_CERTS)
    require_state(server, "rebuild", call.caller)
    _require_implemented(body)
    changes, secrets = _changes(call)
    if server.vm_state is not VmState.ERROR:
        changes |= operations.NO_FAULT
    before = {name: getattr(server, name) for name in ("image_id", "image_properties", "system_metadata")}
    server = update_server(call.tx, server, now_us=call.now_us, **changes)
    operations.begin(
        call,
        server,
        REBUILDING,
        lambda *begun: Rebuilding(
            **operations.on_host(*begun),
            run=server.vm_state is not VmState.STOPPED,
            before=before,
        ),
        action="rebuild",
        event=("rebuild_server", "compute_rebuild_instance"),
        task_state="rebuilding",
    )
    full = call.version.at_least("2.75")
    view = view_server(call, server.id, shown(call, full=full, groups=True))
    view.pop("OS-EXT-SRV-ATTR:user_data", None)  # It has its own name here, for everybody, from 2.57 on.
    view["adminPass"] = secrets["admin_password"]
    if call.version.at_least("2.54"):
        view["key_name"] = server.key_name
    if call.version.at_least("2.57"):
        view["user_data"] = server.user_data
    return Reply(status=202, body={"server": view}, headers={"Location": self_link(call, "servers", server.id)["href"]})


def _require_implemented(body: Rebuild) -> None:
    if body.preserve_ephemeral:
        raise BadRequest("The current driver does not support preserving ephemeral partitions.")
    if body.personality:
        raise NotYet("Injecting files (personality) is not implemented; use user_data.")
    if not isinstance(body.trusted_image_certificates, Unset) and body.trusted_image_certificates:
        raise NotYet("Validating image certificates is not implemented.")


def _require_kept(tx: Tx, server: Server, properties: Mapping[str, str]) -> None:
    """BadRequest for what the image asks of the server's host and it does not keep."""
    unkept = image_promises.unkept(properties, server.flavor)
    if unkept is not None:
        raise BadRequest(f"The image's property {unkept} asks for what no host has.")
    image_devices.require_places(properties, len(network.ports_of_server(tx, server.id)))
    devices = image_devices.needed(image_devices.of(properties))
    asked = Promises(resources={}, required=image_promises.traits(properties), devices=devices)
    promises.require_kept_by(tx, asked, server.host or "", server.id)


def _changes(call: Call[Server, Rebuild]) -> tuple[dict[str, object], dict[str, str]]:
    """Changes of the server's record, after all checks, and the guest's secrets, which are among them."""
    server, body = call.target, call.body
    changes: dict[str, object] = {
        name: value
        for name in (
            *("name", "metadata", "disk_config", "access_ipv4", "access_ipv6"),
            *("description", "key_name", "user_data", "hostname"),
        )
        if (value := getattr(body, name)) is not UNSET
    }
    if not isinstance(body.key_name, Unset):
        name = body.key_name
        key = public_key_of(call.tx, call.caller.user_id, name) if name is not None else (None, None)
        changes["public_key"], changes["key_type"] = key
    if find_visible(call.tx, call.caller, body.image_ref) is None:
        raise BadRequest("Cannot find image for rebuild")
    image = boot_image(call.tx, call.caller, body.image_ref)
    require_fit(call, server.flavor, image)
    properties = image_promises.stored(image.properties)
    _require_kept(call.tx, server, properties)
    if not isinstance(body.metadata, Unset):
        limits = limits_of(call.tx, server.project_id)
        words = "Maximum number of metadata items exceeds {allowed}"
        require_limit(limits, "metadata_items", len(body.metadata), words=words)
    kept = {key: value for key, value in server.system_metadata.items() if key != BASE_IMAGE}
    kept |= image_promises.minimums(image)
    changes |= {"image_id": image.id, "image_properties": properties, "progress": 0, "system_metadata": kept}
    password = new_password(call) if isinstance(body.admin_password, Unset) else body.admin_password
    secrets = {**(server.guest_secrets or {}), "admin_password": password}
    return changes | {"guest_secrets": secrets}, secrets


OF_IMAGE = (BASE_IMAGE, image_promises.MIN_RAM, image_promises.MIN_DISK)
"""Keys of a server's system metadata that a rebuild changes."""


class Rebuilding(OnHost, frozen=True, kw_only=True):
    """State of the saga. `run`: whether the server is to run afterwards. `before`: columns to restore in the undo."""

    run: bool
    before: Mapping[str, object]
    destroyed: bool = False
    """Its old guest is certainly gone: a guest that is found on its host from then on is the new one, made by half."""
    guest: Guest | None = None
    """The new description, as its host has frozen it."""
    observed: GuestState | None = None
    """The guest's state after a failure; None: its host is down."""
    image_id: str | None = None
    """Of a server that could not be unshelved: the image that it was shelved to, which is removed at the end."""


# -- steps


async def describe_guest(context: Context, state: Rebuilding) -> Guest:
    """The new guest, whose ports' rules are in force on its host. StepFailed if it cannot be made."""

    def described(tx: Tx) -> Guest:
        return boot.describe(tx, context, get_server(tx, state.server_id, deleted=True), state.host)

    guest: Guest = await context.read(described)
    await require_wired(context, state.host, state.server_id)
    return guest


async def destroy_guest(context: Context, state: Rebuilding) -> Rebuilding:
    """Not before it is known that there is something to make the new one from, and that it will have its network."""
    await describe_guest(context, state)
    await context.hosts.send(state.host, m.Destroy(**command(context, state)))
    return msgspec.structs.replace(state, destroyed=True)


async def look(context: Context, state: Rebuilding) -> Rebuilding:
    """The undo: what was destroyed is lost, so look what is there. That is no new guest, unless the host is down."""
    observed = None
    if state.destroyed:
        await destroy_half(context, state)
    else:
        observed = await looking.look(context, state)
    await learn_links(context, state.host, state.server_id)
    return msgspec.structs.replace(state, observed=observed)


def show_spawning(tx: Tx, context: Context, state: Rebuilding) -> Rebuilding:
    operations.settle(tx, state.server_id, now_us=context.clock.now_us(), task_state="rebuild_spawning")
    return state


async def make_guest(context: Context, state: Rebuilding) -> Rebuilding:
    guest = await describe_guest(context, state)
    frozen = await context.hosts.send(state.host, m.Create(**command(context, state), guest=guest, run=state.run))
    return msgspec.structs.replace(state, guest=believed.made(guest, frozen))


async def destroy_half(context: Context, state: Rebuilding) -> Rebuilding:
    await operations.unless_down(context, state.host, m.Destroy(**command(context, state)))
    return state


def record_rebuilt(tx: Tx, context: Context, state: Rebuilding) -> Rebuilding:
    now = context.clock.now_us()
    seen = operations.as_observed(GuestState.RUNNING if state.run else GuestState.STOPPED)
    operations.settle(
        tx,
        state.server_id,
        now_us=now,
        **seen,
        task_state=None,
        launched_at_us=now,
        guest=msgspec.to_builtins(state.guest),
        **operations.NO_FAULT,
    )
    image_id = shelved.let_image_go(tx, state.server_id, now)
    operations.finish_events(tx, state.action_id, now_us=now)
    return msgspec.structs.replace(state, image_id=image_id)


def _as_before(tx: Tx, state: Rebuilding) -> dict[str, object]:
    """What the request has changed. The rest may have changed since: an owner has cleared the guest's password."""
    before = msgspec.convert(state.before["system_metadata"], dict[str, str])
    now = operations.metadata_without(tx, state.server_id, *OF_IMAGE)
    return {**state.before, "system_metadata": now | {key: before[key] for key in OF_IMAGE if key in before}}


def unwound(tx: Tx, context: Context, state: Rebuilding, failure: Failure) -> None:
    """If the old guest is still there, the server is as it was; otherwise it is in ERROR.

    Of a host that is down nothing is known: unless the old guest was seen to go, it may be found there later. What an
    earlier rebuild or unshelve has left there is still no guest of it, so then its fault stays.
    """
    now = context.clock.now_us()
    if state.destroyed:
        changes = operations.in_error(REBUILT_BY_HALF, now_us=now, failure=failure)
    elif is_half_made(get_server(tx, state.server_id, deleted=True)):
        changes = _as_before(tx, state)
    elif state.observed in operations.OBSERVED and state.observed is not GuestState.ABSENT:
        changes = {**operations.as_observed(state.observed), **_as_before(tx, state)}
    else:
        changes = operations.in_error(drift.NOT_REBUILT, now_us=now, failure=failure)
        changes |= _as_before(tx, state) if state.observed is None else {}
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **changes)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


REBUILDING = Saga(
    name="rebuild",
    kind=SERVER,
    state=Rebuilding,
    steps=(
        Step(destroy_guest, undo=look),
        Step(show_spawning, undo=nothing),
        Step(make_guest, undo=destroy_half),
    ),
    # The new guest is there.
    finals=(Final(record_rebuilt),),
    unwound=unwound,
    afterwards=snapshot.remove_image,
)
