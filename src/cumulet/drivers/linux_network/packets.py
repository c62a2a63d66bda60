"""Parts of packets that several answers to guests are made of."""

from __future__ import annotations

import struct


def packed_mac(mac: str) -> bytes:
    """``aa:bb:cc:dd:ee:ff`` as six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def checksum(content: bytes) -> int:
    """The checksum of IP, TCP and UDP (RFC 1071) of any number of bytes."""
    content += b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4_header(source: bytes, destination: bytes, protocol: int, body_bytes: int, *, service: int = 0) -> bytes:
    """A header without options. `service`: the field of the type of service."""
    fields = (0x45, service, 20 + body_bytes, 0, 0, 64, protocol, 0)
    header = struct.pack("!BBHHHBBH", *fields) + source + destination
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:]
