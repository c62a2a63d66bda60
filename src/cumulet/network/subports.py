"""Subports of trunks: which ports may be one, and how they come and go. Statuses and words are Neutron's."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, NamedTuple

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import in_parts
from cumulet.errors import Conflict, NotFound
from cumulet.network import bindings, bodies, hosts, qos, refusals, resource, trunk_details, trunk_ports
from cumulet.network.device_owners import OF_NETWORK, OF_TRUNKS
from cumulet.network.hosts import TRUNKS
from cumulet.network.many import change_many, find_many
from cumulet.network.ports import PORTS
from cumulet.network.sight import sees_all
from cumulet.network.store import Binding, Network, Port, inserting, must_get, revise
from cumulet.network.trunk_records import VLAN, Trunk, trunk_subports
from cumulet.web.operation import Call
from cumulet.web.schema import UNSET, Body, Json, Unset

MOST_AT_ONCE = 128
"""Subports that one request names. A trunk may have 4,094, of several requests."""
FIRST_TAG, LAST_TAG = 1, 4094
INHERIT = "inherit"
"""As `segmentation_type`: the type and number of the subport's own network."""


class NamedSubport(Body):
    port_id: bodies.Id
    segmentation_type: Annotated[str, Json({"maxLength": 32})] | Unset = UNSET
    segmentation_id: bodies.Number | Unset = UNSET


Subports = Annotated[list[NamedSubport], Json({"maxItems": MOST_AT_ONCE})]


class SomeSubports(Body):
    sub_ports: Subports


def parent_of(tx: Tx, trunk: Trunk) -> Port:
    return must_get(tx, Port, trunk.port_id)


# -- what may be


def refuse_disabled(trunk: Trunk) -> None:
    """409 for a change of subports of a trunk that is administratively down."""
    if not trunk.admin_state_up:
        raise Conflict(f"Trunk {trunk.id} is currently disabled.", reason="TrunkDisabled")


def refuse_repeated(wanted: Sequence[NamedSubport], *, operation: bool = False) -> None:
    """400 for a port, or a tag, that a request names twice. `operation`: Neutron's words for changes of a trunk."""
    seen_ports: set[str] = set()
    seen_tags: set[tuple[object, int]] = set()
    for one in wanted:
        text = None
        if one.port_id in seen_ports:
            text = f"Non unique UUID for subport: '{one.port_id}'"
        elif isinstance(one.segmentation_id, int) and one.segmentation_type != INHERIT:
            if (one.segmentation_type, one.segmentation_id) in seen_tags:
                text = f"Segmentation ID '{one.segmentation_id}' for '{one.port_id}' is not unique"
            seen_tags.add((one.segmentation_type, one.segmentation_id))
        seen_ports.add(one.port_id)
        if text is not None:
            raise refusals.invalid(f"{text}.") if operation else refusals.bad("trunk", text)


def require_parent(call: Call[object, object], project_id: str, port_id: str) -> Port:
    """The port, if it may be a trunk's parent. One that a guest has already may be one, too."""
    port = _port(call, project_id, port_id, resource.found_in_sight(call, PORTS, [port_id]))
    _Trunked.among(call.tx, [port_id]).refuse(port)
    if port.device_owner.startswith(OF_NETWORK):
        raise _in_use_as_other(port)
    return port


def _port(call: Call[object, object], project_id: str, port_id: str, in_sight: Mapping[str, Port]) -> Port:
    """A port within the caller's sight, and of this project unless the caller works for all projects. NotFound."""
    port = in_sight.get(port_id)
    if port is None or (port.project_id != project_id and not sees_all(call.caller)):
        raise resource.unknown(PORTS, port_id)
    return port


def _in_use_as_other(port: Port) -> Conflict:
    return Conflict(
        f"Port {port.id} is currently in use and is not eligible for use as a parent port.", reason="ParentPortInUse"
    )


class _Trunked(NamedTuple):
    """Which of some ports are in a trunk."""

    subports: Collection[str]
    parents: Collection[str]

    @classmethod
    def among(cls, tx: Tx, port_ids: Sequence[str]) -> _Trunked:
        parents = {trunk.port_id for trunk in find_many(tx, Trunk, "port_id", port_ids)}
        return cls(subports=trunk_ports.carriers(tx, port_ids), parents=parents)

    def refuse(self, port: Port) -> None:
        if port.id in self.subports:
            raise Conflict(f"Port {port.id} is in use by another trunk.", reason="TrunkPortInUse")
        if port.id in self.parents:
            raise _in_use_as_other(port)


def checked(
    call: Call[object, object], project_id: str, parent: Port, wanted: Sequence[NamedSubport]
) -> list[tuple[Port, int]]:
    """The ports that a request names, each with its tag. Refused if one of them may not be a subport of `parent`."""
    tx, port_ids = call.tx, [one.port_id for one in wanted]
    in_sight = resource.found_in_sight(call, PORTS, port_ids)
    network_ids = {parent.network_id, *(port.network_id for port in in_sight.values())}
    networks = {network.id: network for network in find_many(tx, Network, "id", network_ids)}
    trunked, bound = _Trunked.among(tx, port_ids), bindings.of_ports(tx, port_ids)
    mtu = networks[parent.network_id].mtu
    found: list[tuple[Port, int]] = []
    for one in wanted:
        if one.port_id == parent.id:
            raise _in_use_as_other(parent)
        port = _port(call, project_id, one.port_id, in_sight)
        network = networks[port.network_id]
        if network.mtu > mtu:
            raise Conflict(
                f"MTU {network.mtu} of subport {port.id} cannot be greater than MTU {mtu} of trunk {parent.id}.",
                reason="SubPortMtuGreaterThanTrunkPortMtu",
            )
        tag = _tag(one, network)
        trunked.refuse(port)
        _refuse_in_use(port, bound[port.id][0])
        found.append((port, tag))
    return found


def _tag(wanted: NamedSubport, network: Network) -> int:
    kind, number = wanted.segmentation_type, wanted.segmentation_id
    if kind == INHERIT:
        kind, number = network.network_type, network.segmentation_id or 0
    if not isinstance(kind, str) or not isinstance(number, int):
        raise refusals.invalid(
            f"Invalid subport details '{wanted.port_id}': missing segmentation information. Must specify both "
            "segmentation_id and segmentation_type."
        )
    if kind != VLAN:
        raise refusals.invalid(f"Unknown segmentation_type '{kind}'.")
    if not FIRST_TAG <= number <= LAST_TAG:
        raise refusals.invalid(f"Segmentation ID '{number}' is not in range.")
    return number


def _refuse_in_use(port: Port, binding: Binding) -> None:
    """409 for a port that a device has, or that is bound to a host: a subport is where its parent is."""
    if port.device_id or port.server_id or binding.host != bindings.UNBOUND or port.device_owner.startswith(OF_NETWORK):
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. "
            f"Port already has an attached device {port.device_id}.",
            reason="PortInUse",
        )


# -- how they come and go


def add(call: Call[object, object], trunk: Trunk, parent: Port, added: Sequence[tuple[Port, int]]) -> None:
    """Make these ports, which `checked` has let pass, subports. NotYet (501) where hosts carry none."""
    if not added:
        return
    tx, taken = call.tx, {one.segmentation_id for one in trunk_details.of(call.tx, trunk.id)}
    for _, tag in added:
        if tag in taken:
            raise Conflict(
                f"segmentation_type {VLAN} and segmentation_id {tag} already in use on trunk {trunk.id}.",
                reason="DuplicateSubPort",
            )
        taken.add(tag)
    _require_carried(tx, parent, [port for port, _ in added])
    rows = [{"port_id": port.id, "trunk_id": trunk.id, "segmentation_id": tag} for port, tag in added]
    tx.execute(inserting(trunk_subports), rows)
    change_many(tx, Port, [port.id for port, _ in added], device_owner=OF_TRUNKS)
    revise(tx, Trunk, trunk.id, call.now_us)


def _require_carried(tx: Tx, parent: Port, added: Sequence[Port]) -> None:
    """NotYet (501) where a host of the parent, also the destination of a move, cannot carry subports or not keep their
    QoS policies. For a guest that is not placed yet the scheduler sees to the policies."""
    found = [binding.host for binding in bindings.of_ports(tx, [parent.id])[parent.id]]
    bound = [host for host in found if host != bindings.UNBOUND]
    if not bound:
        hosts.require(tx, TRUNKS)
    for host, feature in itertools.product(bound, sorted({TRUNKS} | qos.features_of_ports(tx, added))):
        hosts.require(tx, feature, host)


def remove(call: Call[object, object], trunk: Trunk, port_ids: Sequence[str]) -> None:
    """Take these subports from their trunk. NotFound for one that it has not."""
    tx, present = call.tx, {one.port_id for one in trunk_details.of(call.tx, trunk.id)}
    for port_id in port_ids:
        if port_id not in present:
            raise NotFound(f"SubPort {port_id} on trunk {trunk.id} could not be found.", reason="SubPortNotFound")
    for part in in_parts(port_ids):
        tx.changed(sa.delete(trunk_subports).where(trunk_subports.c.port_id.in_(part)))
    change_many(tx, Port, port_ids, device_owner="", status="DOWN")
    if port_ids:
        revise(tx, Trunk, trunk.id, call.now_us)
