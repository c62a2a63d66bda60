"""Gratuitous ARP (RFC 5227, 3): neighbours learn at once which MAC address has an address now."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

_EVERYBODY = b"\xff" * 6
_ARP = 0x0806


def announce(interface: str, mac: str, addresses: Iterable[str]) -> None:
    """On an interface of the calling thread's namespace."""
    own = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as packets:
        packets.bind((interface, 0))
        for address in addresses:
            packed = socket.inet_aton(address)
            body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + packed + bytes(6) + packed
            packets.send(_EVERYBODY + own + struct.pack("!H", _ARP) + body)
