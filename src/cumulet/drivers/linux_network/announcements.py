"""Gratuitous ARP (RFC 5227, 3): neighbours learn at once which MAC address has an address now."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from cumulet.drivers.linux_network.packets import packed_mac

_EVERYBODY = b"\xff" * 6
_ARP = 0x0806


def announce(interface: str, mac: str, addresses: Iterable[str]) -> None:
    """Send one for each address, on an interface in the namespace of the calling thread."""
    own = packed_mac(mac)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as packets:
        packets.bind((interface, 0))
        for address in addresses:
            packed = socket.inet_aton(address)
            body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + packed + bytes(6) + packed
            packets.send(_EVERYBODY + own + struct.pack("!H", _ARP) + body)
