"""Ethernet frames as guests send them, made and read byte by byte."""

from __future__ import annotations

import itertools
import socket
import struct
from ipaddress import ip_address

BROADCAST = "ff:ff:ff:ff:ff:ff"
ARP, IPV4, IPV6, RARP, VLAN, QINQ = 0x0806, 0x0800, 0x86DD, 0x8035, 0x8100, 0x88A8
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60
"""Extension headers of IPv6."""
ICMP, TCP, UDP, GRE, ICMP6 = 1, 6, 17, 47, 58
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
_markers = itertools.count(1)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    return mac(destination) + mac(source) + struct.pack("!H", kind) + payload


def arp(source: str, *, says: tuple[str, str], asks: str, destination: str = BROADCAST, operation: int = 1) -> bytes:
    """ARP from `source`. `says`: the sender's address and MAC address in it; `asks`: the target's address."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + mac(says[1]) + socket.inet_aton(says[0])
    return ethernet(source, destination, ARP, body + mac("00:00:00:00:00:00") + socket.inet_aton(asks))


def neighbour(source: str, destination: str, address: str, to: str) -> bytes:
    """A neighbour advertisement: `address` is at `source` (RFC 4861)."""
    target = ip_address(address).packed
    body = transport(ICMP6, address, to, 136, 0, head=0x60000000, data=target + b"\2\1" + mac(source))
    return ip(source, destination, address, to, ICMP6, body)


def marker(source: str, destination: str = BROADCAST) -> bytes:
    """A frame that passes every port that may send from this MAC address. No two are the same.

    When it has arrived, earlier frames on the same path have arrived or never will.
    """
    number = struct.pack("!I", next(_markers))
    return ethernet(source, destination, RARP, b"\0\1\x08\0\6\4\0\3" + mac(source) + number + mac(source) + number)


def ip(
    source: str,
    destination: str,
    from_address: str,
    to_address: str,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """An IP packet in its frame. `fragment`: the IPv4 field of flags and offset."""
    if ":" in from_address:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
        header += ip_address(from_address).packed + ip_address(to_address).packed
        return ethernet(source, destination, IPV6, header + payload)
    words = 5 + len(options) // 4
    header = struct.pack(
        "!BBHHHBBH4s4s", 4 << 4 | words, 0, words * 4 + len(payload), 1, fragment, 64, protocol, 0,
        socket.inet_aton(from_address), socket.inet_aton(to_address),
    ) + options  # fmt: skip
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return ethernet(source, destination, IPV4, header + payload)


def transport(
    protocol: int,
    from_address: str,
    to_address: str,
    first: int,
    second: int,
    *,
    flags: int = SYN,
    data: bytes = b"",
    head: int | None = None,
) -> bytes:
    """TCP, UDP, or ICMP (whose type and code are `first` and `second`), with a right checksum; else bare bytes.

    `head`: the four bytes of ICMP after the checksum; of an echo request its identifier and its number.
    """
    if protocol == TCP:
        body = struct.pack(
            "!HHIIBBHHH", first, second, 1001 if flags == ACK else 1000, 1001 if flags & ACK else 0, 5 << 4, flags,
            65_000, 0, 0,
        )  # fmt: skip
        return _summed(body + data, 16, protocol, from_address, to_address)
    if protocol == UDP:
        return _summed(
            struct.pack("!HHHH", first, second, 8 + len(data), 0) + data, 6, protocol, from_address, to_address
        )
    if protocol == ICMP:
        body = struct.pack("!BBHI", first, second, 0, 0x70001 if head is None else head) + data
        return body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    if protocol == ICMP6:
        return _summed(struct.pack("!BBHI", first, second, 0, head or 0) + data, 2, protocol, from_address, to_address)
    return struct.pack("!HH", first, second) + bytes(16)


def _summed(body: bytes, place: int, protocol: int, from_address: str, to_address: str) -> bytes:
    ends = ip_address(from_address).packed + ip_address(to_address).packed
    value = checksum(ends + struct.pack("!II", len(body), protocol) + body) or 0xFFFF
    return body[:place] + struct.pack("!H", value) + body[place + 2 :]


def checksum(content: bytes) -> int:
    content += b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
