"""Attaching a port to a server, and detaching one: one step on the host each, with the rules in force before the link.

The answer comes when the port is the server's in the records; its `port_state` is ACTIVE once the host says so. The
guest's description changes in the saga's last transaction, so that a move brings the NICs that are plugged then.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

import msgspec

from cumulet.compute import attribute_types as t
from cumulet.compute import hosts as host_records
from cumulet.compute import operations
from cumulet.compute.boot import nic_of
from cumulet.compute.guest_metadata import tagged_addresses
from cumulet.compute.hosts import DEFAULT_ZONE
from cumulet.compute.model import Server
from cumulet.compute.operations import SERVER, OnHost, command
from cumulet.compute.rules import MEMBER
from cumulet.compute.server_addresses import interface_view
from cumulet.compute.server_creation import EXTERNAL_NETWORK
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import get_server
from cumulet.compute.wiring import require_wired, require_wiring_hosts
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.host import messages as m
from cumulet.host import pci
from cumulet.host.driver import Guest, Nic
from cumulet.host.nics import DEVICE_TAGS, most, placed, with_nic, without_nic
from cumulet.network import attaching, bindings, hosts, port_status, qos, trunk_ports
from cumulet.network import for_compute as network
from cumulet.network.for_compute import RequestedNetwork
from cumulet.network.hosts import TRUNKS
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Key, Since, Unset

ATTACH = rule("os_compute_api:os-attach-interfaces:create", MEMBER)
DETACH = rule("os_compute_api:os-attach-interfaces:delete", MEMBER)


class FixedIp(Body):
    ip_address: t.IpAddress


class InterfaceAttachment(Body):
    net_id: t.Uuid | Unset = UNSET
    port_id: t.Uuid | Unset = UNSET
    fixed_ips: Annotated[list[FixedIp] | Unset, Json({"minItems": 1, "maxItems": 1})] = UNSET
    tag: Annotated[t.Tag | Unset, Since("2.49")] = UNSET


class AttachInterface(Body):
    interface_attachment: Annotated[InterfaceAttachment | Unset, Key("interfaceAttachment")] = UNSET


class PortChange(OnHost, frozen=True, kw_only=True):
    """State of both sagas."""

    nic: Nic
    plugged: bool = False
    """Whether the host says that the port is plugged; it is not if the guest is stopped."""


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/os-interface",
    rules=(Rule(ATTACH),),
    target=server_in_sight,
    body=AttachInterface,
)
def attach_interface(call: Call[Server, AttachInterface]) -> dict[str, object]:
    """Give a server one more port: one that exists, or a new one on a network."""
    server = call.target
    wanted = _wanted(call.body.interface_attachment)
    require_state(server, "attach_interface", call.caller)
    require_wiring_hosts(call.tx)
    guest = _guest(server)
    free = _free_slots(guest)
    port = attaching.attach(
        call.tx,
        clock=call.cloud.clock,
        project_id=server.project_id,
        is_admin=call.authorise(EXTERNAL_NETWORK, None),
        server_id=server.id,
        server_hostname=server.hostname,
        availability_zone=server.availability_zone or DEFAULT_ZONE,
        wanted=wanted,
        wire_mtu=call.cloud.settings.global_physnet_mtu,
    )
    for feature in sorted(qos.features_of_port(call.tx, port.id)):
        hosts.require(call.tx, feature, server.host)
    if trunk_ports.subports_of(call.tx, [port.id]):
        hosts.require(call.tx, TRUNKS, server.host)
    nic = nic_of(port, _slot(guest, free, port.mac))
    if port.tag and host_records.offers(call.tx, server.host or "", DEVICE_TAGS):
        nic = msgspec.structs.replace(nic, tag=port.tag)
    _begin(call, ATTACHMENT, nic, "attach_interface")
    return {"interfaceAttachment": interface_view(call, port)}


def _wanted(asked: InterfaceAttachment | Unset) -> RequestedNetwork:
    """The network or port asked for; with neither, the project's network is chosen later."""
    if isinstance(asked, Unset):
        return RequestedNetwork()
    network_id = None if isinstance(asked.net_id, Unset) else asked.net_id
    port_id = None if isinstance(asked.port_id, Unset) else asked.port_id
    fixed_ip = None if isinstance(asked.fixed_ips, Unset) else asked.fixed_ips[0].ip_address
    if network_id and port_id:
        raise BadRequest("Must not input both network_id and port_id")
    if fixed_ip and not network_id:
        raise BadRequest("Must input network_id when request IP address")
    tag = None if isinstance(asked.tag, Unset) else asked.tag
    return RequestedNetwork(network_id=network_id, port_id=port_id, fixed_ip=fixed_ip, tag=tag)


@COMPUTE.operation(
    "DELETE",
    "/servers/{server_id}/os-interface/{port_id}",
    rules=(Rule(DETACH),),
    target=server_in_sight,
    success=202,
)
def detach_interface(call: Call[Server, None]) -> None:
    """Take a port away from a server: its guest releases the device, then the port is unbound, or deleted.

    As in Nova this may be asked of a paused server, whose guest cannot release anything: its host refuses at once, the
    action tells so, and the server keeps the port.
    """
    server, port_id = call.target, call.path["port_id"]
    require_state(server, "detach_interface", call.caller)
    held = network.ports_of(call.tx, [server.id]).get(server.id, [])
    if all(port.id != port_id for port in held):
        raise NotFound(f"Port id {port_id} could not be found.")
    guest = host_records.as_told(call.tx, server.host or "", _guest(server))
    nic = next((nic for nic in placed(guest) if nic.port_id == port_id), None)
    if nic is None:  # It is on record only: there is nothing to unplug.
        nic = nic_of(next(port for port in held if port.id == port_id), 0)
    _begin(call, DETACHMENT, nic, "detach_interface")


def _guest(server: Server) -> Guest:
    return msgspec.convert(server.guest, Guest)


def _free_slots(guest: Guest) -> list[int]:
    taken = {nic.slot for nic in placed(guest)}
    free = [slot for slot in range(most(guest.devices)) if slot not in taken]
    if not free:
        raise BadRequest(f"A server has at most {most(guest.devices)} ports.", reason="TOO_MANY_PORTS")
    return free


def _slot(guest: Guest, free: list[int], mac: str) -> int:
    """The first free slot but, while there are others, not the one at which the guest's drive tells a tag of this port.

    The drive stays as it is: a port that was detached and attached without its tag would have the tag there.
    """
    tagged = tagged_addresses(guest, mac)
    model = guest.devices.nic_model
    return next((slot for slot in free if pci.nic_address(slot, model) not in tagged), free[0])


def _begin(call: Call[Server, object], saga: Saga[PortChange], nic: Nic, action: str) -> None:
    operations.begin(
        call,
        call.target,
        saga,
        lambda *begun: PortChange(**operations.on_host(*begun), nic=nic),
        action=action,
        event=f"compute_{action}",
        task_state=None,
    )


# -- steps


def bind_port(tx: Tx, context: Context, state: PortChange) -> PortChange:
    bindings.bind(tx, bindings.Which.PORT, state.nic.port_id, state.host)
    return state


def give_port_back(tx: Tx, context: Context, state: PortChange) -> PortChange:
    attaching.detach(tx, state.server_id, state.nic.port_id)
    return state


async def plug_in(context: Context, state: PortChange) -> PortChange:
    await require_wired(context, state.host, state.server_id)
    await context.hosts.send(state.host, m.Plug(**command(context, state), nic=state.nic))
    in_force = await context.hosts.in_force(state.host)
    return msgspec.structs.replace(state, plugged=state.nic.port_id in in_force.linked)


async def take_back(context: Context, state: PortChange) -> PortChange:
    """The undo. A guest that does not release the device keeps it, with its link down, until it moves or stops."""
    await _if_it_can(context, state, m.Unplug(**command(context, state), port_id=state.nic.port_id, insist=False))
    return state


async def pull_out(context: Context, state: PortChange) -> PortChange:
    await context.hosts.send(state.host, m.Unplug(**command(context, state), port_id=state.nic.port_id))
    return state


async def put_back(context: Context, state: PortChange) -> PortChange:
    """The undo: the port is the server's as before, also if the guest had released it already."""
    await _if_it_can(context, state, m.Plug(**command(context, state), nic=state.nic))
    return state


async def _if_it_can(context: Context, state: PortChange, change: m.Command[None]) -> None:
    """Send `change`. If the guest cannot be changed now, `compute.drift` gives it the ports on record later.

    That skips servers with a running operation, so this operation must end: it does not insist.
    """
    with contextlib.suppress(m.VerbFailed):
        await operations.unless_down(context, state.host, change)


def record_attached(tx: Tx, context: Context, state: PortChange) -> PortChange:
    if state.plugged:
        port_status.record_plugged(tx, state.nic.port_id)
    return _record(tx, context, state, with_nic(_guest(get_server(tx, state.server_id)), state.nic))


def record_detached(tx: Tx, context: Context, state: PortChange) -> PortChange:
    attaching.detach(tx, state.server_id, state.nic.port_id)
    return _record(tx, context, state, without_nic(_guest(get_server(tx, state.server_id)), state.nic.port_id))


def _record(tx: Tx, context: Context, state: PortChange, guest: Guest) -> PortChange:
    now = context.clock.now_us()
    operations.settle(tx, state.server_id, now_us=now, guest=msgspec.to_builtins(guest))
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def unwound(tx: Tx, context: Context, state: PortChange, failure: Failure) -> None:
    operations.finish_events(tx, state.action_id, now_us=context.clock.now_us(), failure=failure)


ATTACHMENT = Saga(
    name="interface-attachment",
    kind=SERVER,
    state=PortChange,
    steps=(Step(bind_port, undo=give_port_back), Step(plug_in, undo=take_back)),
    finals=(Final(record_attached),),
    unwound=unwound,
)
DETACHMENT = Saga(
    name="interface-detachment",
    kind=SERVER,
    state=PortChange,
    steps=(Step(pull_out, undo=put_back),),
    finals=(Final(record_detached),),
    unwound=unwound,
)
