"""What becomes of a packet, hop by hop, for `cumulet explain-path`: our own. A project asks about its own ports."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import Annotated, TypedDict

import msgspec

from cumulet.compute import hosts_in_memory
from cumulet.compute.attribute_types import PortNumber
from cumulet.compute.packet_path import BEYOND_SIGHT, Hop, Path, path
from cumulet.compute.rules import READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import project_in_sight
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.host.verdict import ICMP, ICMP6, TCP, UDP, Packet
from cumulet.network.group_records import SecurityGroupRule
from cumulet.network.store import FloatingIp, Port, find_by, get
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Json, Query, Single

EXPLAIN = rule("cumulet:paths:show", READER, description="See what becomes of a packet between two ports")

PROTOCOL_NAMES = {ICMP: "icmp", ICMP6: "icmpv6", TCP: "tcp", UDP: "udp"}

WORDS = {
    "rule": "a security group's rule lets it pass",
    "no-port-security": "the port has no port security: nothing is looked at",
    "needed-by-every-port": "every port may, whatever its groups say",
    "no port decides": "nothing stops it",
    "no-rule-egress": "no rule of the port's security groups lets it out",
    "no-rule-ingress": "no rule of the port's security groups lets it in",
    "port-down": "the port is administratively down",
    "spoofed-mac": "it has a MAC address that the port may not use",
    "spoofed-address": "it has a source address that the port may not use",
    "dhcp-server": "a guest may not answer DHCP",
    "router-advertisement": "a guest may not advertise routers",
    "host-services-stay-on-their-host": "it is for a service of the host, and does not leave it",
    "plugged-in-nowhere": "the port is plugged into no server on a host",
    "not-plugged": "the host has not said that a guest is plugged in: its server is off, starting or moving",
    "no-gateway": "the destination is on another network, and the sender's subnet has no gateway",
    "its-own-address": "the sender has the address itself: the packet does not leave the guest",
    "no-common-ip-version": "the two ends have no address of the same IP version",
    "no-floating-ip": "from outside it needs a floating IP or a port forwarding, and the port has none for this",
    "no-way-in": "the address is on no external network: nobody outside is told a way to it",
    "from-outside": "it comes from outside the cloud",
    "address-of-nobody": "nobody on this network has the address",
    "address-of-another-port": "another port has this address on the network it comes to",
    "given-to-a-guest-to-route": "it is given to a guest as the next hop; what the guest does with it is not known",
    "floating-ip-leads-nowhere": "the floating IP is not associated",
    "router-down": "the router, or its port, is administratively down",
    "no-host-for-routers": "no host in service can have routers",
    "goes-round-in-circles": "it goes from router to router without end",
    "no-route": "the router has no route to the destination",
    "link-local-is-not-routed": "link-local addresses are not routed",
    "begins-no-connection": "it belongs to no connection that the router knows, and begins none",
    "nothing-leads-in": "from outside, packets come in only to floating IPs and forwarded ports",
    "the-router-itself": "the router answers it itself",
    "router-answers-pings-only": "it is for the router itself, which answers pings only",
    "translated": "the router translates it and sends it on",
    "routed": "the router sends it on",
    "metadata-service": "the metadata service of the host answers it",
    "host-answers-metadata-only": "under this address the host answers HTTP on port 80 only",
    "outside": "it leaves the cloud; what becomes of it there is not known",
    "elsewhere": "it goes to another place than the port that was named",
    BEYOND_SIGHT: "it goes on to another project's network or port; what becomes of it there is not told",
}
"""What is said of each reason of a hop."""


class PathQuery(Query, closed_since="2.1"):
    protocol: Annotated[str, Single(), Json({"enum": ["icmp", "tcp", "udp"]})] = "icmp"
    port: Annotated[PortNumber | None, Single()] = None
    ip_version: Annotated[str | None, Single(), Json({"enum": ["4", "6"]})] = None


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Two ports, or addresses, of the project `project_id`."""

    project_id: str | None
    sender: Port | str
    receiver: Port | str


class PacketView(TypedDict):
    """`type`: the type of ICMP; None for other protocols."""

    source: str
    destination: str
    protocol: str
    destination_port: int | None
    type: int | None


class RuleView(TypedDict):
    id: str
    security_group_id: str
    description: str
    direction: str


class HopView(TypedDict):
    """`host` is told to administrators only. `leaves`: the packet as a router has translated it."""

    at: str
    id: str
    host: str | None
    passes: bool
    reason: str
    text: str
    rule: RuleView | None
    packet: PacketView
    leaves: PacketView | None


class PathView(TypedDict):
    """`arrives` is None where the caller may not know."""

    arrives: bool | None
    reason: str
    text: str
    hops: list[HopView]


def _ends(call: Call[object, object]) -> Ends:
    """Both ends within the caller's sight: NotFound for another project's as for what never was."""
    project = project_in_sight(call)
    sender, receiver = (_end(call.tx, call.path[name], project) for name in ("sender", "receiver"))
    owner = next((end.project_id for end in (sender, receiver) if isinstance(end, Port)), None)
    if isinstance(sender, str) and isinstance(receiver, str):
        floating = find_by(call.tx, FloatingIp, floating_ip_address=receiver)
        owner = next((one.project_id for one in floating if project in (None, one.project_id)), None)
        if owner is None:
            raise NotFound(f"Floating IP {receiver} could not be found.")
    return Ends(project_id=owner, sender=sender, receiver=receiver)


def _end(tx: Tx, named: str, project: str | None) -> Port | str:
    with contextlib.suppress(ValueError):
        if "%" not in named:
            return str(ip_address(named))
    found = get(tx, Port, named)
    if found is None or project not in (None, found.project_id):
        raise NotFound(f"Port {named} could not be found.")
    return found


@COMPUTE.operation("GET", "/cumulet/paths/{sender}/{receiver}", rules=(Rule(EXPLAIN),), target=_ends, query=PathQuery)
def explain_path(call: Call[Ends, None]) -> dict[str, PathView]:
    """Say hop by hop what becomes of a packet from a port, or an address outside, to another, and which rule decides.

    An end is a port, or an address: of a sender one outside the cloud.
    """
    asked = call.asked(PathQuery)
    if asked.protocol != "icmp" and asked.port is None:
        raise BadRequest(f"Invalid input for query parameters port. {asked.protocol} needs a port.")
    project = project_in_sight(call)
    found = path(
        call.tx,
        hosts_in_memory.for_routers(call.tx),
        call.target.sender,
        call.target.receiver,
        asked.protocol,
        asked.port,
        version=None if asked.ip_version is None else int(asked.ip_version),
        project=project,
    )
    return {"path": _view(call.tx, found, hosts=project is None)}


def _view(tx: Tx, found: Path, *, hosts: bool) -> PathView:
    return {
        "arrives": None if found.reason == BEYOND_SIGHT else bool(found),
        "reason": found.reason,
        "text": WORDS[found.reason],
        "hops": [_hop(tx, hop, hosts=hosts) for hop in found.hops],
    }


def _hop(tx: Tx, hop: Hop, *, hosts: bool) -> HopView:
    return {
        "at": hop.at,
        "id": hop.id,
        "host": hop.host or None if hosts else None,
        "passes": hop.verdict.passes,
        "reason": hop.verdict.reason,
        "text": WORDS[hop.verdict.reason],
        "rule": _rule(tx, hop.verdict.rule),
        "packet": _packet(hop.packet),
        "leaves": None if hop.leaves is None else _packet(hop.leaves),
    }


def _rule(tx: Tx, rule_id: str | None) -> RuleView | None:
    found = get(tx, SecurityGroupRule, rule_id)
    if found is None:
        return None
    return {
        "id": found.id,
        "security_group_id": found.security_group_id,
        "description": found.description,
        "direction": found.direction,
    }


def _packet(packet: Packet) -> PacketView:
    echo = packet.protocol in (ICMP, ICMP6)
    return {
        "source": packet.source,
        "destination": packet.destination,
        "protocol": PROTOCOL_NAMES[packet.protocol],
        "destination_port": None if echo else packet.destination_port,
        "type": packet.source_port if echo else None,
    }
