"""Connections that the kernel tracks (ctnetlink), and those it has to forget when rules or ports have changed.

A packet of a tracked connection passes because the first packet of the connection passed. So when rules or ports
change, each connection is judged again by its first packet. A connection that would not pass now is forgotten, and its
next packet is judged by the rules. Connections of a port that has left are forgotten too: the port may come back.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from cumulet.drivers.linux_network import names
from cumulet.host.verdict import ICMP, ICMP6, Packet, Rules
from cumulet.host.wiring import Port, Wiring, own_pairs

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
"""Messages of the subsystem CTNETLINK (1): IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE."""
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID, _ZONE = 1, 2, 12, 18
_RECEIVE_BYTES = 1 << 20


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
    if before is not None and (_judged_by(before), before.groups) == (_judged_by(wiring), wiring.groups):
        return
    ours = {*former_zones.values(), *zones.values()}
    if not ours:
        return
    judge = _Judge(wiring, zones)
    forget(lambda connection: connection.zone in ours and not judge.passes(connection))


def forget(ends: Callable[[Connection], bool]) -> None:
    """Forget all connections of the calling thread's namespace of which this is true."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        for connection in [one for one in _tracked(netlink) if ends(one)]:
            _ask(netlink, _DELETE, _REQUEST | _ACK, connection.family, connection.key)
            netlink.recv(_RECEIVE_BYTES)  # An error says that it has ended by itself.


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


def _tracked(netlink: socket.socket) -> Iterator[Connection]:
    """All connections, of IPv4 and IPv6 in one request: the kernel walks its whole table for each request."""
    _ask(netlink, _GET, _REQUEST | _DUMP, socket.AF_UNSPEC, b"")
    while True:
        received = netlink.recv(_RECEIVE_BYTES)
        while len(received) >= 16:
            length, kind = struct.unpack_from("=IH", received)
            if kind in (_DONE, _ERROR):
                return
            if received[16] in (socket.AF_INET, socket.AF_INET6):
                connection = _parsed(received[16:length], received[16])
                if connection is not None:
                    yield connection
            received = received[(length + 3) & ~3 :]


def _ask(netlink: socket.socket, message: int, flags: int, family: int, attributes: bytes) -> None:
    body = struct.pack("=BBH", family, 0, 0) + attributes
    header = struct.pack("=IHHII", 16 + len(body), message, flags, os.getpid() & 0xFFFF, 0)
    netlink.send(header + body)


def _attributes(content: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(content) >= 4:
        length, kind = struct.unpack_from("=HH", content)
        if length < 4:
            break
        found[kind & 0x3FFF] = content[4:length]
        content = content[(length + 3) & ~3 :]
    return found


def _attribute(kind: int, content: bytes, *, nested: bool = False) -> bytes:
    padding = b"\0" * (-len(content) % 4)
    return struct.pack("=HH", 4 + len(content), kind | (0x8000 if nested else 0)) + content + padding


def _parsed(message: bytes, family: int) -> Connection | None:
    """See linux/netfilter/nfnetlink_conntrack.h."""
    attributes = _attributes(message[4:])
    tuple_original = attributes.get(_TUPLE_ORIGINAL)
    if tuple_original is None:
        return None
    parts = _attributes(tuple_original)
    ends, transport = _ends(parts, family), _attributes(parts.get(2, b""))
    reply = _attributes(attributes.get(_TUPLE_REPLY, b""))
    answers = _ends(reply, family)
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
    key = _attribute(_TUPLE_ORIGINAL, tuple_original, nested=True) + _attribute(_ZONE, zone)
    if _ID in attributes:
        key += _attribute(_ID, attributes[_ID])
    return Connection(
        zone=struct.unpack("!H", zone)[0],
        source=ends[0],
        destination=ends[1],
        answered_by=answers[0],
        answered_to=answers[1],
        # An answer of ICMP has another type and code than its request. Those of the request stand here.
        answered_from_port=ports[1] if protocol in (ICMP, ICMP6) else _number(_attributes(reply.get(2, b"")).get(2)),
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
        family=family,
        key=key,
    )


def _ends(parts: Mapping[int, bytes], family: int) -> tuple[str, str] | None:
    """Source and destination of one direction."""
    addresses = _attributes(parts.get(1, b""))
    source, destination = (addresses.get(kind) for kind in ((1, 2) if family == socket.AF_INET else (3, 4)))
    if source is None or destination is None:
        return None
    return socket.inet_ntop(family, source), socket.inet_ntop(family, destination)


def _number(content: bytes | None) -> int | None:
    return None if content is None else int(struct.unpack("!H", content)[0])
