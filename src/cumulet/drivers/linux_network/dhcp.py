"""DHCP for IPv4 (RFC 2131): what a host answers its guests, from what the records say. No lease is kept anywhere.

Every host gives the same answers in the name of the same server, so a guest that has moved renews where it is now.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network

from cumulet.drivers.linux_network import dns
from cumulet.host import wiring as w
from cumulet.host.record import Record

SERVER = w.METADATA_ADDRESS
LEASE_SECONDS = 86_400
LARGEST_FRAME_BYTES = 1600
_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK, _INFORM = 1, 2, 3, 5, 6, 8
_HEADER = struct.Struct("!4B I 2H 4s4s4s4s 16s 64s 128s")


class Lease(Record, frozen=True):
    """What a guest is told on one of its ports."""

    mac: str
    address: str
    prefix_length: int
    router: str | None
    mtu: int
    dns_servers: tuple[str, ...]
    domain: str
    hostname: str
    routes: tuple[tuple[str, str], ...]
    """Destination and next hop, ``0.0.0.0`` for what is on the link."""
    options: tuple[tuple[int, bytes], ...] = ()
    """Of the port alone; they replace others of the same code."""
    next_server: str = SERVER


def leases(wiring: w.Wiring, network: w.Network) -> tuple[Lease, ...]:
    """Of the ports of a network that are here: the first of their addresses in a subnet that has DHCP."""
    found = []
    for port in wiring.ports:
        if port.network_id == network.id and port.up:
            lease = _lease(port, network)
            if lease is not None:
                found.append(lease)
    return tuple(found)


def _lease(port: w.Port, network: w.Network) -> Lease | None:
    for address in port.addresses:
        for subnet in network.subnets:
            if subnet.dhcp and subnet.version == 4 and ":" not in address and _in(address, subnet.cidr):
                return Lease(
                    mac=port.mac,
                    address=address,
                    prefix_length=int(subnet.cidr.rpartition("/")[2]),
                    router=subnet.gateway,
                    mtu=network.mtu,
                    dns_servers=dns.servers(network, [subnet], 4),
                    domain=dns.domain(network),
                    hostname=port.hostname.rstrip("."),
                    routes=_routes(subnet),
                    options=tuple(
                        (one.code, bytes.fromhex(one.content))
                        for one in port.dhcp_options
                        if one.version == 4 and one.code
                    ),
                    next_server=next(
                        (
                            socket.inet_ntoa(bytes.fromhex(one.content))
                            for one in port.dhcp_options
                            if (one.version, one.code) == (4, 0)
                        ),
                        SERVER,
                    ),
                )
    return None


def _routes(subnet: w.Subnet) -> tuple[tuple[str, str], ...]:
    """Clients obey these instead of the router, so the way out is among them."""
    own = [(route.destination, route.nexthop) for route in subnet.routes if ":" not in route.destination]
    if all(destination != f"{SERVER}/32" for destination, _ in own):
        own.append((f"{SERVER}/32", "0.0.0.0"))  # noqa: S104 - "on the link", in this option's words
    if subnet.gateway is not None:
        own.append(("0.0.0.0/0", subnet.gateway))
    return tuple(own)


def _in(address: str, cidr: str) -> bool:
    return ip_address(address) in ip_network(cidr)


# -- the protocol


def answer(frame: bytes, known: Mapping[str, Lease], own_mac: str) -> bytes | None:
    """The frame that answers a guest's frame, None where there is nothing to say. Never raises."""
    try:
        return _answer(frame, known, own_mac)
    except (struct.error, ValueError, IndexError):
        return None


def _answer(frame: bytes, known: Mapping[str, Lease], own_mac: str) -> bytes | None:
    sender, request = frame[6:12], _request(frame)
    if request is None:
        return None
    lease = known.get(sender.hex(":"))
    kind, options = request.kind, request.options
    if lease is None or request.hardware_address != sender:
        return None
    if options.get(54, socket.inet_aton(SERVER)) != socket.inet_aton(SERVER):
        return None  # It has chosen another server.
    offered = socket.inet_aton(lease.address)
    if kind == _DISCOVER:
        return _reply(_OFFER, request, lease, own_mac, offered)
    if kind == _INFORM:
        return _reply(_ACK, request, lease, own_mac, bytes(4))
    if kind != _REQUEST:
        return None
    if options.get(50, request.client_address) != offered:
        return _reply(_NAK, request, lease, own_mac, bytes(4))
    return _reply(_ACK, request, lease, own_mac, offered)


class _Request(Record, frozen=True):
    kind: int
    transaction: int
    flags: int
    client_address: bytes
    hardware_address: bytes
    options: dict[int, bytes]


def _request(frame: bytes) -> _Request | None:
    """A client's message in a frame; None for anything else."""
    if frame[12:14] != b"\x08\0" or frame[14] >> 4 != 4 or frame[23] != socket.IPPROTO_UDP:
        return None
    udp = 14 + (frame[14] & 15) * 4
    if struct.unpack_from("!H", frame, udp + 2)[0] != 67:
        return None
    start = udp + 8
    operation, kind, length, _, transaction, _, flags, client, _, _, _, hardware, _, _ = _HEADER.unpack_from(
        frame, start
    )
    options = start + _HEADER.size
    if (operation, kind, length) != (1, 1, 6) or frame[options : options + 4] != _COOKIE:
        return None
    parsed = _options(frame[options + 4 :])
    if len(parsed.get(53, b"")) != 1:
        return None
    return _Request(
        kind=parsed[53][0], transaction=transaction, flags=flags, client_address=client,
        hardware_address=hardware[:6], options=parsed,
    )  # fmt: skip


def _options(content: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    place = 0
    while place < len(content) and content[place] != 255:
        if content[place] == 0:
            place += 1
            continue
        code, length = content[place], content[place + 1]
        found[code] = found.get(code, b"") + content[place + 2 : place + 2 + length]
        place += 2 + length
    return found


def _reply(kind: int, request: _Request, lease: Lease, own_mac: str, given: bytes) -> bytes:
    options = [(53, bytes([kind])), (54, socket.inet_aton(SERVER))]
    if kind != _NAK:
        options += _told(lease, leased=given != bytes(4))
    header = _HEADER.pack(
        2, 1, 6, 0, request.transaction, 0, request.flags, request.client_address if kind != _NAK else bytes(4), given,
        socket.inet_aton(lease.next_server), bytes(4), request.hardware_address, b"", b"",
    )  # fmt: skip
    message = header + _COOKIE + b"".join(_option(code, content) for code, content in options) + b"\xff"
    # Its address may not be its own yet, so it goes to the hardware address, and to everybody as far as IP knows.
    target = request.client_address if kind == _ACK and request.client_address != bytes(4) else b"\xff" * 4
    return _frame(request.hardware_address, own_mac, target, message)


def _told(lease: Lease, *, leased: bool) -> list[tuple[int, bytes]]:
    network = ip_network(f"{lease.address}/{lease.prefix_length}", strict=False)
    options = [(1, network.netmask.packed), (28, network.broadcast_address.packed), (26, struct.pack("!H", lease.mtu))]
    if leased:
        options += [
            (51, struct.pack("!I", LEASE_SECONDS)),
            (58, struct.pack("!I", LEASE_SECONDS // 2)),
            (59, struct.pack("!I", LEASE_SECONDS * 7 // 8)),
        ]
    if lease.router is not None:
        options.append((3, socket.inet_aton(lease.router)))
    if lease.dns_servers:
        options.append((6, b"".join(map(socket.inet_aton, lease.dns_servers))))
    if lease.hostname:
        options.append((12, lease.hostname.encode("ascii", "ignore")))
    if lease.domain:
        options.append((15, lease.domain.encode("ascii", "ignore")))
    options.append((121, _classless(lease.routes)))
    own = dict(lease.options)
    return [option for option in {**dict(options), **own}.items() if option[1] or option[0] not in own]


def _classless(routes: Iterable[tuple[str, str]]) -> bytes:
    """RFC 3442: the destination's length and as much of it as that needs, then the router."""
    content = b""
    for destination, router in routes:
        prefix = ip_network(destination, strict=False)
        content += bytes([prefix.prefixlen]) + prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
        content += socket.inet_aton(router)
    return content


def _option(code: int, content: bytes) -> bytes:
    """What is longer than an option can be follows in another one of the same code (RFC 3396)."""
    parts: Sequence[bytes] = [content[start : start + 255] for start in range(0, len(content), 255)]
    return b"".join(bytes([code, len(part)]) + part for part in parts)


def _frame(to_mac: bytes, own_mac: str, to_address: bytes, message: bytes) -> bytes:
    source = socket.inet_aton(SERVER)
    length = 8 + len(message)
    pseudo = source + to_address + struct.pack("!HH", socket.IPPROTO_UDP, length)
    udp = struct.pack("!HHHH", 67, 68, length, 0)
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp + message) or 0xFFFF) + message
    header = struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + source + to_address
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return to_mac + bytes.fromhex(own_mac.replace(":", "")) + b"\x08\0" + header + udp


def _checksum(content: bytes) -> int:
    content += b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
