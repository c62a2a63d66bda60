"""Connections that the kernel tracks (ctnetlink), and those it has to forget when rules or ports have changed.

A packet of a tracked connection passes because the first packet of the connection passed. So when rules or ports
change, each connection is judged again by its first packet. A connection that would not pass now is forgotten, and its
next packet is judged by the rules. Connections of a port that has left are forgotten too: the port may come back.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from cumulet.drivers.linux_network import names, netlink, nfnetlink
from cumulet.host.verdict import ICMP, ICMP6, Packet, Rules
from cumulet.host.wiring import Port, Wiring, own_pairs

_GET, _DELETE = 0x101, 0x102
"""Messages of the subsystem CTNETLINK (1): IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE."""
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID, _ZONE = 1, 2, 12, 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A tracked connection, described by its first packet: addresses, protocol, and ports (for ICMP: type and code)."""

    zone: int
    source: str
    destination: str
    protocol: int
    source_port: int | None
    destination_port: int | None
    answered_by: str
    answered_to: str
    """Where its answers come from and go to. Without translation these are its destination and its source."""
    answered_from_port: int | None
    family: int
    key: bytes
    """The attributes that identify it, as the kernel has sent them."""


def forget_connections(
    before: Wiring | None, wiring: Wiring, former_zones: Mapping[str, int], zones: Mapping[str, int]
) -> None:
    """Forget what no longer passes. `zones` and `former_zones`: by bridge, after and before the change.

    Whether a port is active decides nothing here, so the end of a move asks nothing of the kernel.
    """
    if before is not None and before.groups == wiring.groups and _judged_by(before) == _judged_by(wiring):
        return
    ours = {*former_zones.values(), *zones.values()}
    if not ours:
        return
    judge = _Judge(wiring, zones)
    forget(lambda connection: connection.zone in ours and not judge.passes(connection))


def forget(ends: Callable[[Connection], bool]) -> None:
    """Forget all connections of the calling thread's namespace of which this is true."""
    with nfnetlink.opened() as asked:
        for connection in [one for one in _tracked(asked) if ends(one)]:
            nfnetlink.command(asked, _DELETE, connection.family, connection.key)  # It may have ended by itself.


def _judged_by(wiring: Wiring) -> list[Port]:
    return [replace(port, active=True) for port in wiring.ports]


class _Judge:
    """Whether the first packet of a connection would pass now."""

    def __init__(self, wiring: Wiring, zones: Mapping[str, int]) -> None:
        self._wiring = wiring
        self._zones = zones

    @cached_property
    def _rules(self) -> Rules:
        return Rules(self._wiring)

    @cached_property
    def _ports(self) -> tuple[dict[tuple[int, str], Port], dict[int, list[tuple[str, Port]]]]:
        """Ports by zone and address, and those that may use whole prefixes by zone. Made for the first connection."""
        exact: dict[tuple[int, str], Port] = {}
        prefixes: dict[int, list[tuple[str, Port]]] = {}
        for port in self._wiring.ports:
            zone = self._zones[names.bridge(port.network_id)]
            for pair in own_pairs(port):
                if "/" in pair.prefix:
                    prefixes.setdefault(zone, []).append((pair.prefix, port))
                else:
                    exact[zone, pair.prefix] = port
        return exact, prefixes

    def passes(self, connection: Connection) -> bool:
        sender = self._port(connection.zone, connection.source)
        receiver = self._port(connection.zone, connection.destination)
        if sender is None and receiver is None:
            return False
        packet = Packet(
            mac=sender.mac if sender is not None else "",
            source=connection.source,
            destination=connection.destination,
            protocol=connection.protocol,
            source_port=connection.source_port,
            destination_port=connection.destination_port,
        )
        return self._rules.decide_by_groups(
            packet,
            sender=None if sender is None else sender.id,
            receiver=None if receiver is None else receiver.id,
        ).passes

    def _port(self, zone: int, address: str) -> Port | None:
        exact, prefixes = self._ports
        port = exact.get((zone, address))
        if port is not None or zone not in prefixes:
            return port
        parsed = ip_address(address)
        return next((port for prefix, port in prefixes[zone] if parsed in ip_network(prefix)), None)


# -- ctnetlink


def _tracked(asked: socket.socket) -> Iterator[Connection]:
    """All connections, of IPv4 and IPv6 in one request: the kernel walks its whole table for each request."""
    with contextlib.suppress(OSError):  # A kernel that lists none.
        for family, content in nfnetlink.dumped(asked, _GET, socket.AF_UNSPEC, b""):
            if family in (socket.AF_INET, socket.AF_INET6):
                connection = _parsed(content, family)
                if connection is not None:
                    yield connection


def _parsed(content: bytes, family: int) -> Connection | None:
    """See linux/netfilter/nfnetlink_conntrack.h."""
    attributes = netlink.attributes(content)
    tuple_original = attributes.get(_TUPLE_ORIGINAL)
    if tuple_original is None:
        return None
    parts = netlink.attributes(tuple_original)
    ends, transport = _ends(parts, family), netlink.attributes(parts.get(2, b""))
    reply = netlink.attributes(attributes.get(_TUPLE_REPLY, b""))
    answers, answered = _ends(reply, family), netlink.attributes(reply.get(2, b""))
    if ends is None or answers is None or 1 not in transport:
        return None
    zone = attributes.get(_ZONE, b"\0\0")
    protocol = transport[1][0]
    if protocol in (ICMP, ICMP6):
        kind, code = (5, 6) if protocol == ICMP else (8, 9)
        ports: tuple[int | None, int | None] = (
            transport[kind][0] if kind in transport else None,
            transport[code][0] if code in transport else None,
        )
    else:
        ports = (_number(transport.get(2)), _number(transport.get(3)))
    key = netlink.attribute(_TUPLE_ORIGINAL, tuple_original, nested=True) + netlink.attribute(_ZONE, zone)
    if _ID in attributes:
        key += netlink.attribute(_ID, attributes[_ID])
    return Connection(
        zone=struct.unpack("!H", zone)[0],
        source=ends[0],
        destination=ends[1],
        answered_by=answers[0],
        answered_to=answers[1],
        # An answer of ICMP has another type and code than its request. Those of the request stand here.
        answered_from_port=ports[1] if protocol in (ICMP, ICMP6) else _number(answered.get(2)),
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
        family=family,
        key=key,
    )


def _ends(parts: Mapping[int, bytes], family: int) -> tuple[str, str] | None:
    """Source and destination of one direction."""
    addresses = netlink.attributes(parts.get(1, b""))
    source, destination = (addresses.get(kind) for kind in ((1, 2) if family == socket.AF_INET else (3, 4)))
    if source is None or destination is None:
        return None
    return socket.inet_ntop(family, source), socket.inet_ntop(family, destination)


def _number(content: bytes | None) -> int | None:
    return None if content is None else int(struct.unpack("!H", content)[0])
