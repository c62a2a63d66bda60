"""DHCP for IPv4 (RFC 2131): how a host answers its guests. Answers follow from the wiring; no lease is stored.

Every host answers under the same server address, so a guest that has moved renews its lease on its new host.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network

from cumulet.drivers.linux_network import dns
from cumulet.drivers.linux_network.packets import checksum, ipv4_header, packed_mac
from cumulet.host import wiring as w
from cumulet.host.record import Record

SERVER = w.METADATA_ADDRESS
LEASE_SECONDS = 86_400
LARGEST_FRAME_BYTES = 1600
_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK, _INFORM = 1, 2, 3, 5, 6, 8
_HEADER = struct.Struct("!4B I 2H 4s4s4s4s 16s 64s 128s")


class Lease(Record, frozen=True):
    """What DHCP tells a guest on one of its ports."""

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
    """The port's own options, by code. They replace the usual options of the same code."""
    next_server: str = SERVER


def leases(ports: Iterable[w.Port], network: w.Network) -> tuple[Lease, ...]:
    """A lease for each of a network's ports on this host: its first IPv4 address in a subnet with DHCP."""
    found = []
    for port in ports:
        if port.up:
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
    """The routes of option 121. Clients obey them instead of the router option, so the default route is among them."""
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
    """The frame that answers a guest's frame; None for no answer. Never raises."""
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
        return None  # The client has chosen another server.
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
        kind=parsed[53][0],
        transaction=transaction,
        flags=flags,
        client_address=client,
        hardware_address=hardware[:6],
        options=parsed,
    )


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
        2,
        1,
        6,
        0,
        request.transaction,
        0,
        request.flags,
        request.client_address if kind != _NAK else bytes(4),
        given,
        socket.inet_aton(lease.next_server),
        bytes(4),
        request.hardware_address,
        b"",
        b"",
    )
    message = header + _COOKIE + b"".join(_option(code, content) for code, content in options) + b"\xff"
    # The client may not have its address yet: the frame goes to its MAC address, the IP packet to everybody.
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
    """RFC 3442: for each route the prefix length, the bytes of the destination that it covers, and the router."""
    content = b""
    for destination, router in routes:
        prefix = ip_network(destination, strict=False)
        content += bytes([prefix.prefixlen]) + prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
        content += socket.inet_aton(router)
    return content


def _option(code: int, content: bytes) -> bytes:
    """An option. Content longer than 255 bytes continues in further options of the same code (RFC 3396)."""
    parts: Sequence[bytes] = [content[start : start + 255] for start in range(0, len(content), 255)]
    return b"".join(bytes([code, len(part)]) + part for part in parts)


def _frame(to_mac: bytes, own_mac: str, to_address: bytes, message: bytes) -> bytes:
    source = socket.inet_aton(SERVER)
    length = 8 + len(message)
    pseudo = source + to_address + struct.pack("!HH", socket.IPPROTO_UDP, length)
    udp = struct.pack("!HHHH", 67, 68, length, 0)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + message) or 0xFFFF) + message
    header = ipv4_header(source, to_address, socket.IPPROTO_UDP, len(udp), service=0xC0)
    return to_mac + packed_mac(own_mac) + b"\x08\0" + header + udp
