"""The interfaces of ours and their forwarding entries as the kernel has them, in the calling thread's namespace.

They are read at every change, and there may be ten thousand: `pyroute2`, which reads everything of each, takes thirty
times as long. See linux/rtnetlink.h, linux/if_link.h and linux/neighbour.h.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator

import msgspec

from cumulet.drivers.linux_network import names
from cumulet.drivers.linux_network.nfnetlink import attribute, attributes

BY_DEVICE, BY_BRIDGE = 2, 4
"""NTF_SELF, NTF_MASTER: the forwarding table of the device itself, and that of the bridge it is a port of."""
NOARP, PERMANENT = 0x40, 0x80
_GET_LINKS, _GET_ENTRIES = 18, 30
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_INTERFACE = struct.Struct("=BBHiII")
_ENTRY = struct.Struct("=BBHiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_UP = 0x1
_NAME, _MTU, _MASTER, _INFO, _WANTED = 3, 4, 10, 18, 29
_KIND, _DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL = 1, 4
_WITHOUT_COUNTERS = (8).to_bytes(4, sys.byteorder)
_DESTINATION, _MAC = 1, 2
_RECEIVE_BYTES = 1 << 20
_TRIES = 10


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


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A forwarding entry of an interface. `destination`: the other host, in the table of a VXLAN device."""

    mac: str
    destination: str | None
    by_device: bool
    static: bool


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
            data = attributes(info.get(_DATA, b"")) if kind == "vxlan" else {}
            found.append(
                Link(
                    index=index,
                    name=name,
                    kind=kind,
                    mtu=_number(parts.get(_MTU)) or 0,
                    master=_number(parts.get(_MASTER)),
                    up=bool(flags & _UP),
                    vni=_number(data.get(_VXLAN_ID)),
                    local=socket.inet_ntoa(data[_VXLAN_LOCAL]) if _VXLAN_LOCAL in data else None,
                )
            )
    return found


def entries() -> dict[int, list[Entry]]:
    """All forwarding entries, by the index of their interface."""
    found: dict[int, list[Entry]] = {}
    for message in _dumped(_GET_ENTRIES, _ENTRY.pack(socket.AF_BRIDGE, 0, 0, 0, 0, 0, 0)):
        _, _, _, index, state, flags, _ = _ENTRY.unpack_from(message)
        mac, destination, place = "", None, _ENTRY.size
        while place + 4 <= len(message):
            length, kind = _ATTRIBUTE.unpack_from(message, place)
            if kind == _MAC:
                mac = message[place + 4 : place + length].hex(":")
            elif kind == _DESTINATION:
                destination = _address(message[place + 4 : place + length])
            place += (length + 3) & ~3 or 4
        by_device, static = bool(flags & BY_DEVICE), bool(state & NOARP)
        found.setdefault(index, []).append(Entry(mac=mac, destination=destination, by_device=by_device, static=static))
    return found


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _number(content: bytes | None) -> int | None:
    return None if content is None else int.from_bytes(content, sys.byteorder)


def _dumped(message: int, asked: bytes) -> list[bytes]:
    """The answers without their headers. Where something has changed while the kernel listed it, it lists again: else
    an interface could be missing. OSError if it refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        for _ in range(_TRIES):
            netlink.send(_HEADER.pack(_HEADER.size + len(asked), message, _REQUEST | _DUMP, 0, 0) + asked)
            answers = list(_answers(netlink))
            if not any(flags & _INTERRUPTED for flags, _ in answers):
                break
        return [answer for _, answer in answers[:-1]]


def _answers(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The flags and the content of each message. The last one says that it is the last."""
    while True:
        received = netlink.recv(_RECEIVE_BYTES)
        place = 0
        while place + _HEADER.size <= len(received):
            length, kind, flags, _, _ = _HEADER.unpack_from(received, place)
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", received, place + _HEADER.size)
                raise OSError(-number, os.strerror(-number))
            yield flags, received[place + _HEADER.size : place + length]
            if kind == _DONE:
                return
            place += (length + 3) & ~3
