"""Port forwardings: ``/floatingips/{id}/port_forwardings``. Ports of one floating IP lead to several guests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Select, Tx
from cumulet.errors import Conflict, NotYet
from cumulet.network import addresses, bodies, filtering, floating_ips, policy, refusals, resource
from cumulet.network.bodies import either, text
from cumulet.network.floating_ips import FLOATING_IPS, router_between
from cumulet.network.forwarding_records import PortForwarding, port_forwardings, ports_view
from cumulet.network.ports import PORTS
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import (
    FloatingIp,
    Port,
    change,
    delete,
    find_by,
    insert,
    must_get,
    revise,
)
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

MOST_PORTS = 4096
"""Of all forwardings of one floating IP together, ports outside."""
MOST_OF_ONE = 512
"""Forwardings of one floating IP, and to one port, each a port or a range of ports. Whoever shows or changes either of
the two reads all of them."""
PROTOCOLS = ("tcp", "udp")
_UPSTREAM_PROTOCOLS = ("dccp", "icmp", "ipv6-icmp", "sctp", *PROTOCOLS)

CREATE = rule("create_floatingip_port_forwarding", policy.ADMIN_OR_PARENT_OWNER_MEMBER, description="Forward a port")
SHOW = rule("get_floatingip_port_forwarding", policy.ADMIN_OR_PARENT_OWNER_READER, description="See a port forwarding")
UPDATE = rule(
    "update_floatingip_port_forwarding", policy.ADMIN_OR_PARENT_OWNER_MEMBER, description="Forward a port elsewhere"
)
DELETE = rule(
    "delete_floatingip_port_forwarding", policy.ADMIN_OR_PARENT_OWNER_MEMBER, description="Delete a port forwarding"
)


def _views(_tx: Tx, records: Sequence[PortForwarding]) -> list[View]:
    return [
        {
            "id": record.id,
            "description": record.description,
            "protocol": record.protocol,
            "internal_port_id": record.internal_port_id,
            "internal_ip_address": record.internal_ip_address,
        }
        | ports_view(record.external_first, record.external_last, record.internal_first, record.internal_last)
        | {
            "external_port_range": f"{record.external_first}:{record.external_last}",
            "internal_port_range": f"{record.internal_first}:{record.internal_last}",
        }
        for record in records
    ]


def _parents(_tx: Tx, records: Sequence[PortForwarding]) -> list[View]:
    return [{"ext_parent:project_id": record.project_id} for record in records]


_columns = port_forwardings.c
_PORT = sa.case((_columns.external_first == _columns.external_last, _columns.external_first), else_=-1)
_RANGE = sa.cast(_columns.external_first, sa.String) + ":" + sa.cast(_columns.external_last, sa.String)
_SORTS: dict[str, filtering.Column] = {
    "id": _columns.id,
    "protocol": _columns.protocol,
    "internal_port_id": _columns.internal_port_id,
    "external_port": _PORT,
    "external_port_range": _RANGE,
}

FORWARDINGS = Kind(
    record=PortForwarding,
    singular="port_forwarding",
    plural="port_forwardings",
    title="Port Forwarding",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, port_forwardings),
    filters=filtering.by_columns(_SORTS | {"description": _columns.description}),
    sorts=_SORTS,
    views=_views,
    hidden={},
    parents=_parents,
)


def _of(floating: FloatingIp) -> Kind[PortForwarding]:
    """The port forwardings of one floating IP."""
    return msgspec.structs.replace(
        FORWARDINGS,
        sight=lambda caller: sa.and_(
            own_in_sight(caller, port_forwardings), port_forwardings.c.floating_ip_id == floating.id
        ),
        place=f"floatingips/{floating.id}/port_forwardings",
    )


def _floating(call: Call[object, object]) -> FloatingIp:
    return resource.find_in_sight(call, FLOATING_IPS, call.path["floatingip_id"])


def _target(call: Call[object, object]) -> PortForwarding:
    return resource.find_in_sight(call, _of(_floating(call)), call.path["port_forwarding_id"])


def _facts(call: Call[object, object]) -> View:
    return {"ext_parent:project_id": _floating(call).project_id}


def _range(value: object) -> str:
    """``80`` or ``80:90``, as text."""
    spelled = str(value)
    parts = spelled.split(":")
    if isinstance(value, bool) or len(parts) > 2 or not all(re.fullmatch("[0-9]{1,5}", part) for part in parts):
        raise ValueError(f"'{value}' is not a port, or two of them with a colon between")
    first, last = int(parts[0]), int(parts[-1])
    if not 1 <= first <= last <= 65_535:
        raise ValueError(f"Invalid port range '{value}': ports are from 1 to 65535, the lower one first")
    return f"{first}:{last}"


def _protocol(value: str) -> str:
    if value.lower() not in _UPSTREAM_PROTOCOLS:
        raise ValueError(f"'{value}' is not in {sorted(_UPSTREAM_PROTOCOLS)}")
    return value.lower()


PortNumber = Annotated[str, Json({"type": ["integer", "string", "null"], "maxLength": 5}), Convert(_range)]
PortRange = Annotated[str, Json({"type": ["integer", "string", "null"], "maxLength": 11}), Convert(_range)]
Protocol = Annotated[str, Json({"maxLength": 10}), Convert(_protocol)]


class ForwardingChange(Body):
    """``PUT .../port_forwardings/{id}``."""

    description: bodies.Name | Unset = UNSET
    protocol: Protocol | Unset = UNSET
    internal_port_id: bodies.Id | Unset = UNSET
    internal_ip_address: bodies.IpAddress | Unset = UNSET
    internal_port: PortNumber | Unset | None = UNSET
    internal_port_range: PortRange | Unset | None = UNSET
    external_port: PortNumber | Unset | None = UNSET
    external_port_range: PortRange | Unset | None = UNSET


class NewForwarding(ForwardingChange):
    """``POST .../port_forwardings``. It needs a port or a range on each side."""

    project_id: bodies.ProjectId | Unset = UNSET
    tenant_id: bodies.ProjectId | Unset = UNSET
    protocol: Protocol
    internal_port_id: bodies.Id


class CreateForwardings(Body):
    port_forwarding: NewForwarding | Unset = UNSET
    port_forwardings: list[NewForwarding] | Unset = UNSET


@NETWORK.operation(
    "GET", "/floatingips/{floatingip_id}/port_forwardings", rules=(), target=resource.target(FLOATING_IPS)
)
def list_port_forwardings(call: Call[FloatingIp, None]) -> View:
    """List the port forwardings of a floating IP."""
    return resource.listed(call, _of(call.target))


@NETWORK.operation(
    "POST",
    "/floatingips/{floatingip_id}/port_forwardings",
    rules=(Rule(CREATE),),
    target=resource.target(FLOATING_IPS),
    facts=_facts,
    body=CreateForwardings,
    success=201,
)
def create_port_forwardings(call: Call[FloatingIp, CreateForwardings]) -> View:
    """Forward a port of a floating IP, or several."""
    found: dict[str, Port] = {}
    return resource.created(call, _of(call.target), lambda new: _create(call, new, found))


def _create(call: Call[FloatingIp, object], new: NewForwarding, found: dict[str, Port]) -> PortForwarding:
    """`found`: ports that the request has found in sight before. Forwarding to them does not change them."""
    floating = must_get(call.tx, FloatingIp, call.target.id)
    if floating.qos_policy_id is not None:
        raise NotYet("Cumulet does not limit the bandwidth of forwarded ports yet: this floating IP has a QoS policy.")
    port = found.get(new.internal_port_id) or resource.find_in_sight(call, PORTS, new.internal_port_id)
    found[port.id] = port
    wanted = _checked(call, floating, port, new, None)
    made = insert(
        call.tx,
        PortForwarding,
        call.cloud.clock,
        project_id=floating.project_id,
        description=text(new.description),
        floating_ip_id=floating.id,
        **wanted,
    )
    revise(call.tx, FloatingIp, floating.id, call.now_us)
    return made


def _ports(given: Body, name: str, present: PortForwarding | None) -> tuple[int, int]:
    """First and last port on one side: the wanted ones, else the present ones."""
    named = {getattr(given, key) for key in (f"{name}_port", f"{name}_port_range")} - {UNSET, None}
    if len(named) > 1:
        raise refusals.bad("port_forwarding", f"{name}_port and {name}_port_range do not say the same.")
    if named:
        first, last = map(int, named.pop().split(":"))
        return first, last
    if present is None:
        raise refusals.bad("port_forwarding", f"Either {name}_port or {name}_port_range must be specified.")
    return getattr(present, f"{name}_first"), getattr(present, f"{name}_last")


def _checked(
    call: Call[object, object],
    floating: FloatingIp,
    port: Port,
    given: ForwardingChange,
    present: PortForwarding | None,
) -> dict[str, object]:
    """The columns of a valid forwarding. The floating IP is put on the router that reaches the port."""
    tx = call.tx
    external = _ports(given, "external", present)
    internal = _ports(given, "internal", present)
    if internal[1] > internal[0] and internal[1] - internal[0] != external[1] - external[0]:
        raise refusals.bad(
            "port_forwarding",
            "Invalid ranges of internal and/or external ports. The relation between internal and external ports must "
            "be N-N or 1-N",
        )
    protocol = either(given.protocol, present.protocol if present else None)
    if protocol not in PROTOCOLS:
        raise NotYet(f"Cumulet forwards {' and '.join(PROTOCOLS)} only, not {protocol}.")
    same_port = present is not None and present.internal_port_id == port.id
    kept = present.internal_ip_address if present is not None and same_port else None
    inside, subnet_id = _inside(tx, port, either(given.internal_ip_address, kept))
    _refuse_bound(tx, floating, port, inside)
    router = router_between(tx, subnet_id, floating.floating_network_id)
    if router is None:
        raise refusals.bad(
            "port_forwarding",
            f"External network {floating.floating_network_id} is not reachable from subnet {subnet_id}. Cannot set "
            f"Port forwarding for port {port.id} with Floating IP {floating.id}",
        )
    if floating.router_id not in (None, router.id):
        raise refusals.bad(
            "port_forwarding",
            f"The Floating IP {floating.id} had been set on router {floating.router_id}, the internal Neutron port "
            f"{port.id} can not reach it",
        )
    but = present.id if present is not None else ""
    _refuse_collision(tx, _SAME_OUTSIDE, "external", external, of=floating.id, protocol=protocol, but=but)
    _refuse_collision(tx, _SAME_INSIDE, "internal", internal, of=port.id, protocol=protocol, but=but, inside=inside)
    _refuse_too_many(tx, floating, port, external, but)
    change(tx, FloatingIp, floating.id, call.now_us, router_id=router.id)
    return {
        "protocol": protocol,
        "internal_port_id": port.id,
        "internal_ip_address": inside,
        "internal_first": internal[0],
        "internal_last": internal[1],
        "external_first": external[0],
        "external_last": external[1],
    }


def _inside(tx: Tx, port: Port, wanted: str | None) -> tuple[str, str]:
    """The address of the port that is forwarded to, and its subnet."""
    held = addresses.of_port(tx, port.id)
    of_four = addresses.of_version(held, 4)
    if not of_four:
        raise refusals.bad(
            "port_forwarding", f"Requested internal port {port.id} must allocate an IPv4 address at least."
        )
    found = of_four[0] if wanted is None else next((fixed for fixed in of_four if fixed.address == wanted), None)
    if found is None:
        raise refusals.bad(
            "port_forwarding",
            f"Requested internal IP address {wanted} is not suitable for internal neutron port {port.id}, as its "
            f"fixed_ips are {[fixed.address for fixed in of_four]}",
        )
    return found.address or "", found.subnet_id or ""


def _refuse_bound(tx: Tx, floating: FloatingIp, port: Port, inside: str) -> None:
    """409 where a floating IP would both lead to a port and forward ports, or a port would have both kinds."""
    bound = find_by(tx, FloatingIp, port_id=port.id)
    if bound:
        raise Conflict(
            f"Cannot create port forwarding to floating IP {bound[0].floating_ip_address} ({bound[0].id}) with port "
            f"{port.id} using fixed IP {inside}, as that port already has a binding floating IP.",
            reason="PortHasBindingFloatingIP",
        )
    if floating.port_id is not None:
        raise floating_ips.already_associated(floating, port, inside)


_OTHERS_OUTSIDE = sa.and_(_columns.floating_ip_id == sa.bindparam("of"), _columns.id != sa.bindparam("but"))
_OTHERS_INSIDE = sa.and_(_columns.internal_port_id == sa.bindparam("of"), _columns.id != sa.bindparam("but"))


def _colliding(side: str, *others: sa.ColumnElement[bool]) -> Select:
    """One of these forwardings that has a port on this side in common with those from `first` to `last`."""
    lowest, highest = _columns[f"{side}_first"], _columns[f"{side}_last"]
    same = _columns.protocol == sa.bindparam("protocol")
    meets = sa.and_(lowest <= sa.bindparam("last"), highest >= sa.bindparam("first"))
    return sa.select(lowest, highest).where(*others, same, meets).limit(1)


_SAME_OUTSIDE = _colliding("external", _OTHERS_OUTSIDE)
_SAME_INSIDE = _colliding("internal", _OTHERS_INSIDE, _columns.internal_ip_address == sa.bindparam("inside"))


def _refuse_collision(tx: Tx, same: Select, side: str, wanted: tuple[int, int], **which: object) -> None:
    row = tx.first(same, {"first": wanted[0], "last": wanted[1], **which})
    if row is not None:
        raise refusals.bad(
            "port_forwarding",
            f"There is a port collision with the {side}_port_range. The following ranges collide: {row[0]}:{row[1]} "
            f"and {wanted[0]}:{wanted[1]}",
        )


_COUNT_OUTSIDE = sa.select(
    sa.func.count(), sa.func.coalesce(sa.func.sum(_columns.external_last - _columns.external_first + 1), 0)
).where(_OTHERS_OUTSIDE)
_COUNT_INSIDE = sa.select(sa.func.count()).select_from(port_forwardings).where(_OTHERS_INSIDE)


def _refuse_too_many(tx: Tx, floating: FloatingIp, port: Port, external: tuple[int, int], but: str) -> None:
    """400 for one more, of these ports outside, than a floating IP or a port has room for beside all but `but`."""
    number, forwarded = tx.all(_COUNT_OUTSIDE, {"of": floating.id, "but": but})[0]
    if forwarded + external[1] - external[0] >= MOST_PORTS:
        raise refusals.bad("port_forwarding", f"A floating IP forwards {MOST_PORTS} ports at most.")
    if number >= MOST_OF_ONE or tx.scalar(_COUNT_INSIDE, {"of": port.id, "but": but}) >= MOST_OF_ONE:
        raise refusals.bad(
            "port_forwarding",
            f"A floating IP has {MOST_OF_ONE} port forwardings at most, and so many lead to one port. One of them can "
            "forward a range of ports.",
        )


_ANY = sa.select(_columns.id).where(_columns.floating_ip_id == sa.bindparam("of")).limit(1)
ONE = "/floatingips/{floatingip_id}/port_forwardings/{port_forwarding_id}"


@NETWORK.operation("GET", ONE, rules=(), target=_target)
def show_port_forwarding(call: Call[PortForwarding, None]) -> View:
    """Show a port forwarding."""
    return resource.shown(call, FORWARDINGS, call.target)


@NETWORK.operation(
    "PUT", ONE, rules=(Rule(UPDATE),), target=_target, facts=_facts, body=ForwardingChange, body_key="port_forwarding"
)
def update_port_forwarding(call: Call[PortForwarding, ForwardingChange]) -> View:
    """Change what is forwarded, or where it goes."""
    present, given = call.target, call.body
    values: dict[str, object] = {}
    if set(resource.given(given)) - {"description"}:
        floating = must_get(call.tx, FloatingIp, present.floating_ip_id)
        if isinstance(given.internal_port_id, str):
            port = resource.find_in_sight(call, PORTS, given.internal_port_id)
        else:
            port = must_get(call.tx, Port, present.internal_port_id)
        values = _checked(call, floating, port, given, present)
    if given.description is not UNSET:
        values["description"] = given.description
    change(call.tx, PortForwarding, present.id, call.now_us, **values)
    return resource.shown(call, FORWARDINGS, must_get(call.tx, PortForwarding, present.id))


@NETWORK.operation("DELETE", ONE, rules=(Rule(DELETE),), target=_target, facts=_facts, success=204)
def delete_port_forwarding(call: Call[PortForwarding, None]) -> None:
    """Delete a port forwarding."""
    delete(call.tx, PortForwarding, call.target.id)
    floating = call.target.floating_ip_id
    if call.tx.first(_ANY, {"of": floating}) is None:
        change(call.tx, FloatingIp, floating, call.now_us, router_id=None)
