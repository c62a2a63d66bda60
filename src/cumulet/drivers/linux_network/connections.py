"""Connections that the kernel tracks, listed and ended by ctnetlink. `forgetting` says which end."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cumulet.drivers.linux_network import netlink, nfnetlink
from cumulet.host.verdict import ICMP, ICMP6

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


def forget(ends: Callable[[Connection], bool]) -> None:
    """Forget all connections of the calling thread's namespace of which this is true."""
    with nfnetlink.opened() as asked:
        for connection in tracked(asked):
            if ends(connection):
                end(asked, connection)


def end(asked: socket.socket, connection: Connection) -> None:
    """Forget this one, which may have ended by itself."""
    nfnetlink.command(asked, _DELETE, connection.family, connection.key)


# -- ctnetlink


def tracked(asked: socket.socket) -> Iterator[Connection]:
    """All connections, of IPv4 and IPv6 in one request: the kernel walks its whole table for each request.

    They have been listed when this returns, and each is made of what was read when it is asked for.
    """
    listed: list[tuple[int, bytes]] = []
    with contextlib.suppress(OSError):  # A kernel that lists none.
        listed = list(nfnetlink.dumped(asked, _GET, socket.AF_UNSPEC, b""))
    return _made(listed)


def _made(listed: list[tuple[int, bytes]]) -> Iterator[Connection]:
    for family, content in listed:
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
