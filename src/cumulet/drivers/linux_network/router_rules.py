"""The rules of a router for nftables: a text that is the same for every router, and the content of its maps.

The router's interface on its external network is called `outside`. Packets that came in there carry mark 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from cumulet.drivers.linux_network.limits import NamedLimit, named_limit
from cumulet.drivers.linux_network.names import OUTSIDE, TABLE
from cumulet.drivers.linux_network.ruleset import Json
from cumulet.host import wiring as w

VERSION = "version_5"
"""The name of a chain in the table. A table without it is of another version, and is replaced."""
MAPS = ("floating", "fixed", "forwarded", "source", "own", "leaving", "arriving")
SETS = ("closed",)
COUNTERS = (
    "router_link_local",
    "router_invalid",
    "router_not_asked_for",
    "router_itself",
    "router_over_limit_out",
    "router_over_limit_in",
)
"""Of packets dropped, by cause."""

TEXT = f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
{"".join(f"  counter {name} {{ }}{chr(10)}" for name in COUNTERS)}\
  map floating {{ type ipv4_addr : ipv4_addr; }}
  map fixed {{ type ipv4_addr : ipv4_addr; }}
  map forwarded {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;
    flags interval;
  }}
  map source {{ type ifname : ipv4_addr; }}
  map own {{ type mark : ipv4_addr; }}
  map leaving {{ type ipv4_addr : limit; }}
  map arriving {{ type ipv4_addr : limit; }}
  set closed {{ type ifname; }}
  chain {VERSION} {{ }}
  chain arriving {{
    type filter hook prerouting priority -150; policy accept;
    meta mark set 0
    iifname "{OUTSIDE}" meta mark set 1
  }}
  chain limits_in {{
    type filter hook prerouting priority -140; policy accept;
    iifname "{OUTSIDE}" limit name ip daddr map @arriving counter name router_over_limit_in drop
  }}
  chain destinations {{
    type nat hook prerouting priority -100; policy accept;
    dnat ip to ip daddr map @floating
    meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @forwarded
  }}
  chain through {{
    type filter hook forward priority 0; policy accept;
    ip daddr 169.254.0.0/16 counter name router_link_local drop
    ip saddr 169.254.0.0/16 counter name router_link_local drop
    iifname @closed meta nfproto ipv4 ct state invalid counter name router_invalid drop
    oifname @closed meta nfproto ipv4 ct state invalid counter name router_invalid drop
    iifname @closed meta nfproto ipv4 ct state new ct status & dnat != dnat counter name router_not_asked_for drop
  }}
  chain metered {{
    type filter hook forward priority 10; policy accept;
  }}
  chain for_itself {{
    type filter hook input priority 0; policy accept;
    iifname "lo" accept
    meta l4proto {{ icmp, icmpv6 }} accept
    counter name router_itself drop
  }}
  chain sources {{
    type nat hook postrouting priority 100; policy accept;
    oifname != "{OUTSIDE}" ct status & dnat != dnat accept
    meta mark 0 snat ip to ip saddr map @fixed
    oifname "{OUTSIDE}" meta mark 0 snat ip to oifname map @source
    ct status dnat snat ip to meta mark map @own
  }}
  chain limits_out {{
    type filter hook postrouting priority 110; policy accept;
    oifname "{OUTSIDE}" limit name ip saddr map @leaving counter name router_over_limit_out drop
  }}
}}
"""
"""A guest with a floating IP is seen under that address, also by guests of the same router that it reaches by their
floating IPs. A guest without one that asks for a floating IP of its own router is seen as the router, so that the
answer comes back through it. A packet that belongs to no connection and begins none (`invalid`) would not be
translated, so it passes neither way."""


def content(router: w.Router) -> dict[str, list[Json]]:
    """The elements of each of `MAPS` and `SETS`."""
    found: dict[str, list[Json]] = {name: [] for name in (*MAPS, *SETS)}
    for floating in router.floating_ips:
        found["floating"].append([floating.outside, floating.inside])
        found["fixed"].append([floating.inside, floating.outside])
    for name, outside, limit in _limits(router):
        found[name].append([outside, limit.name])
    for forwarding in router.forwardings:
        for ports, inside_port in port_pairs(forwarding):
            key: list[Json] = [forwarding.outside, forwarding.protocol, ports]
            found["forwarded"].append([{"concat": key}, {"concat": [forwarding.inside, inside_port]}])
    own = own_address(router)
    if own is not None:
        found["own"].append([0, own])
        if router.source_nat:
            found["source"].append([OUTSIDE, own])
    if router.source_nat:
        found["closed"].append(OUTSIDE)
    return found


def limits(router: w.Router) -> dict[str, NamedLimit]:
    """The limits of its gateway and its floating IPs, by name."""
    return {limit.name: limit for _, _, limit in _limits(router)}


def _limits(router: w.Router) -> Iterator[tuple[str, str, NamedLimit]]:
    """Map, address outside and limit."""
    own = own_address(router)
    limited: list[tuple[str, w.FloatingIp | w.Router]] = [(one.outside, one) for one in router.floating_ips]
    limited += [] if own is None else [(own, router)]
    for outside, it in limited:
        for name, limit in (("leaving", it.egress_limit), ("arriving", it.ingress_limit)):
            if limit is not None and (made := named_limit(name, outside, limit)) is not None:
                yield name, outside, made


def port_pairs(forwarding: w.Forwarding) -> list[tuple[Json, int]]:
    """Ports outside, each one or a range, and the port inside that they lead to."""
    first, last = forwarding.outside_ports
    inside, inside_last = forwarding.inside_ports
    if inside == inside_last:
        return [(first if first == last else {"range": [first, last]}, inside)]
    return [(first + place, inside + place) for place in range(last - first + 1)]


def outside_addresses(router: w.Router) -> list[str]:
    """The gateway's own addresses."""
    return [] if router.gateway is None else [address.partition("/")[0] for address in router.gateway.addresses]


def own_address(router: w.Router) -> str | None:
    """The gateway's IPv4 address, as which guests without a floating IP are seen."""
    return next((address for address in outside_addresses(router) if ":" not in address), None)
