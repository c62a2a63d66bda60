"""The interfaces of ours and their forwarding entries as the kernel has them, in the calling thread's namespace.

There may be ten thousand: `pyroute2`, which reads everything of each, and asks for each change by itself, takes thirty
times as long. See linux/rtnetlink.h, linux/if_link.h and linux/neighbour.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence

import msgspec
from pyroute2.netlink.exceptions import NetlinkError

from cumulet.drivers.linux_network import names, netlink
from cumulet.drivers.linux_network.netlink import attribute, attributes

BY_DEVICE, BY_BRIDGE = 2, 4
"""NTF_SELF, NTF_MASTER: the forwarding table of the device itself, and that of the bridge it is a port of."""
NOARP, PERMANENT = 0x40, 0x80
_SET_LINK, _GET_LINKS, _SET_ENTRY, _REMOVE_ENTRY, _GET_ENTRIES = 16, 18, 28, 29, 30
_REPLACE, _CREATE, _APPEND = 0x100, 0x400, 0x800
_INTERFACE = struct.Struct("=BBHiII")
_ENTRY = struct.Struct("=BBHiHBB")
_UP = 0x1
_NAME, _MTU, _MASTER, _INFO, _WANTED = 3, 4, 10, 18, 29
_KIND, _DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL = 1, 4
_MOST_LEARNED = 49
"""IFLA_BR_FDB_MAX_LEARNED."""
_WITHOUT_COUNTERS = (8).to_bytes(4, sys.byteorder)
_DESTINATION, _MAC = 1, 2
_CHANGES_AT_ONCE = 100
"""So many acknowledgements fit into a socket's buffer."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of ours as it is."""

    index: int
    name: str
    kind: str
    """`tun` for a tap, `ifb` for a subport's device, `bridge`, `vxlan`, `veth`."""
    mtu: int
    master: int | None
    up: bool
    vni: int | None
    local: str | None
    most_learned: int | None = None
    """How many forwarding entries a bridge may learn from what is sent through it; 0: any number. None also where the
    kernel does not bound them (before Linux 6.7)."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A forwarding entry of an interface. `destination`: the other host, in the table of a VXLAN device."""

    mac: str
    destination: str | None
    by_device: bool
    static: bool


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Of a forwarding entry, in the table of the device or in that of its bridge."""

    mac: str
    by_device: bool
    destination: str | None = None
    remove: bool = False
    """An entry that is not there is removed already."""
    beside: bool = False
    """Another entry for this address stays."""


def change(index: int, changes: Sequence[Change]) -> None:
    """Change entries of an interface, one after the other. The first that is refused raises NetlinkError."""
    with netlink.opened(socket.NETLINK_ROUTE) as asked:
        for first in range(0, len(changes), _CHANGES_AT_ONCE):
            part = changes[first : first + _CHANGES_AT_ONCE]
            asked.send(b"".join(_changing(index, one) for one in part))
            answered = 0
            while answered < len(part):
                for number in netlink.acknowledged(asked):
                    gone = part[answered].remove and number in (errno.ENOENT, errno.ENODEV)
                    answered += 1
                    if number and not gone:
                        raise NetlinkError(number, os.strerror(number))


def _changing(index: int, one: Change) -> bytes:
    flags = netlink.REQUEST | netlink.ACK | (0 if one.remove else _CREATE | (_APPEND if one.beside else _REPLACE))
    state, table = (NOARP | PERMANENT, BY_DEVICE) if one.by_device else (NOARP, BY_BRIDGE)
    content = _ENTRY.pack(socket.AF_BRIDGE, 0, 0, index, state, table, 0)
    content += attribute(_MAC, bytes.fromhex(one.mac.replace(":", "")))
    if one.destination is not None:
        family = socket.AF_INET6 if ":" in one.destination else socket.AF_INET
        content += attribute(_DESTINATION, socket.inet_pton(family, one.destination))
    kind = _REMOVE_ENTRY if one.remove else _SET_ENTRY
    return netlink.message(kind, flags, content)


def bound_learned(bridge: int, most: int) -> None:
    """A bridge learns no more forwarding entries than these. A kernel that cannot do that does nothing. NetlinkError if
    it refuses."""
    data = attribute(_MOST_LEARNED, most.to_bytes(4, sys.byteorder))
    info = attribute(_KIND, b"bridge") + attribute(_DATA, data, nested=True)
    content = _INTERFACE.pack(0, 0, 0, bridge, 0, 0) + attribute(_INFO, info, nested=True)
    with netlink.opened(socket.NETLINK_ROUTE) as asked:
        asked.send(netlink.message(_SET_LINK, netlink.REQUEST | netlink.ACK, content))
        for number in netlink.acknowledged(asked):
            if number:
                raise NetlinkError(number, os.strerror(number))


def links() -> list[Link]:
    """The interfaces whose names are ours."""
    wanted = _INTERFACE.pack(0, 0, 0, 0, 0, 0) + attribute(_WANTED, _WITHOUT_COUNTERS)
    found = []
    for message in _dumped(_GET_LINKS, wanted):
        _, _, _, index, flags, _ = _INTERFACE.unpack_from(message)
        parts = attributes(message[_INTERFACE.size :])
        name = parts[_NAME].rstrip(b"\0").decode()
        if name.startswith(names.OURS):
            info = attributes(parts.get(_INFO, b""))
            kind = info.get(_KIND, b"").rstrip(b"\0").decode()
            data = attributes(info.get(_DATA, b"")) if kind in ("vxlan", "bridge") else {}
            found.append(
                Link(
                    index=index,
                    name=name,
                    kind=kind,
                    mtu=_number(parts.get(_MTU)) or 0,
                    master=_number(parts.get(_MASTER)),
                    up=bool(flags & _UP),
                    vni=_number(data.get(_VXLAN_ID)) if kind == "vxlan" else None,
                    local=socket.inet_ntoa(data[_VXLAN_LOCAL]) if kind == "vxlan" and _VXLAN_LOCAL in data else None,
                    most_learned=_number(data.get(_MOST_LEARNED)) if kind == "bridge" else None,
                )
            )
    return found


def entries() -> dict[int, list[Entry]]:
    """All forwarding entries, by the index of their interface."""
    found: dict[int, list[Entry]] = {}
    for message in _dumped(_GET_ENTRIES, _ENTRY.pack(socket.AF_BRIDGE, 0, 0, 0, 0, 0, 0)):
        _, _, _, index, state, flags, _ = _ENTRY.unpack_from(message)
        parts = attributes(message[_ENTRY.size :])
        mac = parts.get(_MAC, b"").hex(":")
        destination = _address(parts[_DESTINATION]) if _DESTINATION in parts else None
        by_device, static = bool(flags & BY_DEVICE), bool(state & NOARP)
        found.setdefault(index, []).append(Entry(mac=mac, destination=destination, by_device=by_device, static=static))
    return found


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _number(content: bytes | None) -> int | None:
    return None if content is None else int.from_bytes(content, sys.byteorder)


def _dumped(kind: int, content: bytes) -> list[bytes]:
    with netlink.opened(socket.NETLINK_ROUTE) as asked:
        return netlink.dumped(asked, kind, content)
