"""IPv6 for guests: router advertisements (RFC 4861) in the name of the network's router, and DHCPv6 (RFC 8415).

Pure functions of the wiring: no lease is stored, and every host gives the same answers.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network

from cumulet.drivers.linux_network import dns
from cumulet.drivers.linux_network.names import BRIDGE_MAC
from cumulet.drivers.linux_network.packets import checksum, packed_mac
from cumulet.host import wiring as w
from cumulet.host.record import Record
from cumulet.host.verdict import ICMP6, UDP

ADVERTISE_SECONDS = 200.0
"""How often a router is advertised to all guests: a third of the longest interval of RFC 4861."""
ROUTER_SECONDS = 1800
PREFIX_SECONDS, PREFERRED_SECONDS = 86_400, 14_400
LEASE_SECONDS = 86_400
SERVER_DUID = b"\0\x03\0\x01" + packed_mac(BRIDGE_MAC)
SERVER_ADDRESS = w.link_local(BRIDGE_MAC)
ALL_NODES, ALL_NODES_MAC = "ff02::1", bytes.fromhex("333300000001")
_SOLICITATION, _ADVERTISEMENT = 133, 134
_SOLICIT, _ADVERTISE, _REQUEST, _CONFIRM, _RENEW, _REBIND, _REPLY, _RELEASE, _DECLINE = range(1, 10)
_INFORMATION = 11
_TO_ONE_SERVER = (_REQUEST, _RENEW, _RELEASE, _DECLINE)
_CLIENT, _SERVER, _IA_NA, _ADDRESS, _STATUS, _RAPID, _DNS, _DOMAINS = 1, 2, 3, 5, 13, 14, 23, 24
_SUCCESS, _NO_ADDRESS, _NOT_ON_LINK = 0, 2, 4


class Advertised(Record, frozen=True):
    """What a network's router advertises. `prefixes`: each with whether guests make their own addresses in it."""

    mac: str
    mtu: int
    managed: bool
    other: bool
    prefixes: tuple[tuple[str, bool], ...]
    dns_servers: tuple[str, ...]


class Lease(Record, frozen=True):
    """What DHCPv6 tells a guest on one of its ports. Without `addresses` the guest makes its own."""

    mac: str
    addresses: tuple[str, ...]
    dns_servers: tuple[str, ...]
    domain: str
    options: tuple[tuple[int, bytes], ...] = ()


def advertised(network: w.Network) -> tuple[Advertised, ...]:
    """What each router of a network advertises. A subnet without `ra_mode`, or without a router, is in none."""
    of_router: dict[str, list[w.Subnet]] = {}
    for subnet in network.subnets:
        if subnet.version == 6 and subnet.ra_mode is not None and subnet.router_mac is not None:
            of_router.setdefault(subnet.router_mac, []).append(subnet)
    return tuple(
        Advertised(
            mac=mac,
            mtu=network.mtu,
            managed=any(subnet.ra_mode == "dhcpv6-stateful" for subnet in subnets),
            other=any(subnet.ra_mode != "slaac" for subnet in subnets),
            prefixes=tuple((subnet.cidr, subnet.ra_mode != "dhcpv6-stateful") for subnet in subnets),
            dns_servers=_advertised_servers(network, [subnet for subnet in subnets if subnet.ra_mode == "slaac"]),
        )
        for mac, subnets in sorted(of_router.items())
    )


def _advertised_servers(network: w.Network, told: list[w.Subnet]) -> tuple[str, ...]:
    """Guests on other subnets are told theirs by DHCPv6."""
    return dns.servers(network, told, 6) if told else ()


def leases(ports: Iterable[w.Port], network: w.Network) -> tuple[Lease, ...]:
    """A lease for each of a network's ports on this host, where guests of one of its subnets ask by DHCPv6."""
    asked = [subnet for subnet in network.subnets if subnet.version == 6 and subnet.dhcp]
    stateful = [subnet for subnet in asked if subnet.address_mode == "dhcpv6-stateful"]
    if not stateful and all(subnet.address_mode != "dhcpv6-stateless" for subnet in asked):
        return ()
    return tuple(
        Lease(
            mac=port.mac,
            addresses=tuple(
                address
                for address in port.addresses
                if ":" in address and any(ip_address(address) in ip_network(subnet.cidr) for subnet in stateful)
            ),
            dns_servers=dns.servers(network, asked, 6),
            domain=dns.domain(network),
            options=tuple((one.code, bytes.fromhex(one.content)) for one in port.dhcp_options if one.version == 6),
        )
        for port in ports
        if port.up
    )


# -- router advertisements


def advertisement(
    router: Advertised, *, to_mac: bytes = ALL_NODES_MAC, to: str = ALL_NODES, gone: bool = False
) -> bytes:
    """The frame of an advertisement. `gone`: its lifetime is 0, so that guests use the router no longer."""
    own = packed_mac(router.mac)
    flags = (0x80 if router.managed else 0) | (0x40 if router.other else 0)
    body = struct.pack("!BBHBBHII", _ADVERTISEMENT, 0, 0, 64, flags, 0 if gone else ROUTER_SECONDS, 0, 0)
    body += b"\x01\x01" + own + struct.pack("!BBHI", 5, 1, 0, router.mtu)
    for cidr, autonomous in router.prefixes:
        prefix = ip_network(cidr)
        bits = 0x80 | (0x40 if autonomous else 0)
        body += struct.pack("!BBBBIII", 3, 4, prefix.prefixlen, bits, PREFIX_SECONDS, PREFERRED_SECONDS, 0)
        body += prefix.network_address.packed
    if router.dns_servers:
        body += struct.pack("!BBHI", 25, 1 + 2 * len(router.dns_servers), 0, 0 if gone else ROUTER_SECONDS)
        body += b"".join(_packed(server) for server in router.dns_servers)
    return _frame(to_mac, own, w.link_local(router.mac), to, ICMP6, body, checksum_at=2, hops=255)


# -- what guests ask


def answers(frame: bytes, routers: Iterable[Advertised], known: Mapping[str, Lease]) -> list[bytes]:
    """The frames that answer a guest's frame; an empty list for no answer. Never raises."""
    try:
        if frame[12:14] != b"\x86\xdd":
            return []
        if frame[20] == ICMP6 and frame[54] == _SOLICITATION:
            source = socket.inet_ntop(socket.AF_INET6, frame[22:38])
            to = ALL_NODES if source == "::" else source
            return [advertisement(router, to_mac=frame[6:12], to=to) for router in routers]
        if frame[20] == UDP and struct.unpack_from("!H", frame, 56)[0] == 547:
            reply = _dhcp(frame[62:], known.get(frame[6:12].hex(":")))
            if reply is not None:
                source = socket.inet_ntop(socket.AF_INET6, frame[22:38])
                udp = struct.pack("!HHHH", 547, 546, 8 + len(reply), 0) + reply
                own = packed_mac(BRIDGE_MAC)
                return [_frame(frame[6:12], own, SERVER_ADDRESS, source, UDP, udp, checksum_at=6, hops=64)]
    except (struct.error, ValueError, IndexError, OSError):
        pass
    return []


def _dhcp(message: bytes, lease: Lease | None) -> bytes | None:
    kind, transaction = message[0], message[1:4]
    options = list(_options(message[4:]))
    first = dict(reversed(options))
    if lease is None or (_CLIENT not in first and kind != _INFORMATION):
        return None
    chosen = first.get(_SERVER)
    if chosen != SERVER_DUID if kind in _TO_ONE_SERVER else chosen not in (None, SERVER_DUID):
        return None
    said = [(_SERVER, SERVER_DUID)]
    if _CLIENT in first:
        said.append((_CLIENT, first[_CLIENT]))
    asked = [content for code, content in options if code == _IA_NA]
    answer = _REPLY
    if kind in (_SOLICIT, _REQUEST, _RENEW, _REBIND):
        if not asked:
            return None
        if kind == _SOLICIT and _RAPID in first:
            said.append((_RAPID, b""))
        elif kind == _SOLICIT:
            answer = _ADVERTISE
        said += [(_IA_NA, _association(content, lease if place == 0 else None)) for place, content in enumerate(asked)]
    elif kind == _CONFIRM:
        named = {address for content in asked for address in _addresses(content)}
        good = bool(named) and named <= set(lease.addresses)
        said.append((_STATUS, struct.pack("!H", _SUCCESS if good else _NOT_ON_LINK)))
    elif kind in (_RELEASE, _DECLINE):
        said.append((_STATUS, struct.pack("!H", _SUCCESS)))
    elif kind != _INFORMATION:
        return None
    more: dict[int, bytes] = {}
    if lease.dns_servers:
        more[_DNS] = b"".join(map(_packed, lease.dns_servers))
    if lease.domain:
        more[_DOMAINS] = _name(lease.domain)
    said += (more | dict(lease.options)).items()
    return bytes([answer]) + transaction + b"".join(map(_option, said))


def _association(content: bytes, lease: Lease | None) -> bytes:
    """IA_NA: the port's addresses with their lifetimes. An address that the guest names and does not have gets 0."""
    given = () if lease is None else lease.addresses
    times = struct.pack("!II", LEASE_SECONDS // 2, LEASE_SECONDS * 4 // 5) if given else bytes(8)
    body = content[:4] + times
    if len(content) < 12:
        raise ValueError("an association without times")
    for address in given:
        body += _option((_ADDRESS, _packed(address) + struct.pack("!II", LEASE_SECONDS, LEASE_SECONDS)))
    for address in sorted(set(_addresses(content)) - set(given)):
        body += _option((_ADDRESS, _packed(address) + bytes(8)))
    return body if given else body + _option((_STATUS, struct.pack("!H", _NO_ADDRESS)))


def _addresses(association: bytes) -> list[str]:
    return [
        socket.inet_ntop(socket.AF_INET6, content[:16])
        for code, content in _options(association[12:])
        if code == _ADDRESS
    ]


def _options(content: bytes) -> Iterator[tuple[int, bytes]]:
    while len(content) >= 4:
        code, length = struct.unpack_from("!HH", content)
        if len(content) < 4 + length:
            raise ValueError("an option that is cut off")
        yield code, content[4 : 4 + length]
        content = content[4 + length :]


def _option(option: tuple[int, bytes]) -> bytes:
    code, content = option
    return struct.pack("!HH", code, len(content)) + content


def _name(domain: str) -> bytes:
    """A domain name as DNS encodes it: each label after its length."""
    labels = domain.encode("ascii", "ignore").split(b".")
    return b"".join(bytes([len(label[:63])]) + label[:63] for label in labels if label) + b"\0"


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def _frame(
    to_mac: bytes, own_mac: bytes, source: str, to: str, protocol: int, body: bytes, *, checksum_at: int, hops: int
) -> bytes:
    ends = _packed(source) + _packed(to)
    value = checksum(ends + struct.pack("!II", len(body), protocol) + body) or 0xFFFF
    body = body[:checksum_at] + struct.pack("!H", value) + body[checksum_at + 2 :]
    header = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops)
    return to_mac + own_mac + b"\x86\xdd" + header + ends + body
