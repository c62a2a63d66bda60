"""What a router does with a packet, decided from its description alone: what the rules of every back end have to do.

A pure function beside `host.verdict`, and like it about the first packet of a connection. It says where the packet goes
on and as what, or why it ends here.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from msgspec.structs import replace

from cumulet.host.record import Record
from cumulet.host.verdict import ICMP, ICMP6, TCP, UDP, Packet
from cumulet.host.wiring import Forwarding, Router, RouterPort

Prefix: TypeAlias = IPv4Network | IPv6Network

_LINK_LOCAL = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))
_QUESTIONS = (8, 13, 15, 17)
"""ICMP types that begin something: echo, timestamp, information, address mask. Others answer a packet."""
_CONNECTED, _STATIC = 1, 0
"""Of two ways to the same prefix, the larger one counts."""


class Routed(Record, frozen=True):
    """`packet` as it leaves by the port `out`, for `next_hop`. If it does not pass: as it was when it was stopped.

    A packet for the router itself leaves by no port: `out` is None, and it passes if the router answers it.
    """

    passes: bool
    reason: str
    packet: Packet
    out: RouterPort | None = None
    next_hop: str = ""


def route(router: Router, packet: Packet, *, by: str) -> Routed:
    """What becomes of a packet that comes in by the router's port `by` (its id)."""
    inside = router.gateway is None or by != router.gateway.id
    begins = packet.protocol != ICMP or packet.source_port in _QUESTIONS
    led = _led_in(router, packet) if begins else packet
    translated = led != packet
    if led.destination in _own_addresses(router):
        answers = led.protocol in (ICMP, ICMP6)
        return Routed(
            passes=answers, reason="the-router-itself" if answers else "router-answers-pings-only", packet=led
        )
    way = _way(router, led.destination)
    if way is None:
        return Routed(passes=False, reason="no-route", packet=led)
    if any(ip_address(end) in prefix for end in (led.source, led.destination) for prefix in _LINK_LOCAL):
        return Routed(passes=False, reason="link-local-is-not-routed", packet=led)
    if not inside and router.source_nat and packet.version == 4 and begins and not translated:
        return Routed(passes=False, reason="nothing-leads-in", packet=led)
    out, next_hop = way
    outward = out == router.gateway
    if router.source_nat and packet.version == 4 and not begins and (outward or not inside):
        return Routed(passes=False, reason="begins-no-connection", packet=led)
    source = led.source
    if begins:
        source = _seen_as(router, led.source, inside=inside, outward=outward, translated=translated)
    changed = translated or source != led.source
    return Routed(
        passes=True,
        reason="translated" if changed else "routed",
        packet=replace(led, mac=out.mac, source=source),
        out=out,
        next_hop=next_hop or led.destination,
    )


def _led_in(router: Router, packet: Packet) -> Packet:
    """The packet, with the inside destination where a floating IP, or a forwarding of its ports, leads to one."""
    for floating in router.floating_ips:
        if floating.outside == packet.destination:
            return replace(packet, destination=floating.inside)
    if packet.protocol in (TCP, UDP) and packet.destination_port is not None:
        for forwarding in router.forwardings:
            if (forwarding.outside, forwarding.protocol) == (packet.destination, packet.protocol):
                port = inside_port(forwarding, packet.destination_port)
                if port is not None:
                    return replace(packet, destination=forwarding.inside, destination_port=port)
    return packet


def inside_port(forwarding: Forwarding, outside_port: int) -> int | None:
    """The inside port that a forwarded outside port leads to; None: it is not forwarded."""
    first, last = forwarding.outside_ports
    if not first <= outside_port <= last:
        return None
    one = forwarding.inside_ports[0] == forwarding.inside_ports[1]
    return forwarding.inside_ports[0] + (0 if one else outside_port - first)


def _own_addresses(router: Router) -> set[str]:
    """The addresses of the router itself. A floating IP that leads to a guest was translated before."""
    own = {address.partition("/")[0] for port in router.ports for address in port.addresses}
    if router.gateway is not None:
        own |= {floating.outside for floating in router.floating_ips}
        own |= {forwarding.outside for forwarding in router.forwardings}
    return own


def _way(router: Router, destination: str) -> tuple[RouterPort, str] | None:
    """The port and the next hop (empty: the destination itself) of the longest prefix that holds the destination."""
    wanted = ip_address(destination)
    on_link: list[tuple[Prefix, RouterPort]] = [
        (ip_network(address, strict=False), port) for port in router.ports for address in port.addresses
    ]
    if router.gateway is not None:
        on_link += [(ip_network(cidr), router.gateway) for cidr in router.on_link]
    found = [(prefix.prefixlen, _CONNECTED, "", port) for prefix, port in on_link if wanted in prefix]
    for prefix, next_hop in _routes(router):
        if wanted in prefix:
            reached = (port for of_port, port in on_link if ip_address(next_hop) in of_port)
            found += [(prefix.prefixlen, _STATIC, next_hop, port) for port in reached]
    if not found:
        return None
    _, _, next_hop, port = max(found, key=lambda way: way[:3])
    return port, next_hop


def _routes(router: Router) -> list[tuple[Prefix, str]]:
    """Its own routes, and the default routes of its gateway unless it has one of its own."""
    own = {route.destination for route in router.routes}
    ways_out = ((("::/0" if ":" in hop else "0.0.0.0/0"), hop) for hop in router.next_hops)
    found = [(route.destination, route.nexthop) for route in router.routes]
    found += [way for way in ways_out if way[0] not in own]
    return [(ip_network(destination), hop) for destination, hop in found]


def _seen_as(router: Router, source: str, *, inside: bool, outward: bool, translated: bool) -> str:
    """The source that a packet leaves with: see the rules of `drivers.linux_network.router_rules`."""
    if not inside or (not outward and not translated):
        return source
    for floating in router.floating_ips:
        if floating.inside == source:
            return floating.outside
    own = _own_outside(router)
    return own if own is not None and (translated or (outward and router.source_nat)) and ":" not in source else source


def _own_outside(router: Router) -> str | None:
    """The gateway's IPv4 address."""
    if router.gateway is None:
        return None
    addresses = (address.partition("/")[0] for address in router.gateway.addresses)
    return next((address for address in addresses if ":" not in address), None)
