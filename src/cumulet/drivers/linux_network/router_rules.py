"""What a router does with packets beside routing them, as nftables reads it: a text that is the same for every router,
and the content of its maps.

A router's external end is called `outside`. What came in there carries mark 1.
"""

from __future__ import annotations

from cumulet.drivers.linux_network.names import OUTSIDE, TABLE
from cumulet.drivers.linux_network.ruleset import Json
from cumulet.host import wiring as w

VERSION = "version_3"
"""A chain of this name is in the table: another version's rules are replaced whole."""
MAPS = ("floating", "fixed", "forwarded", "source", "own")
SETS = ("closed",)

TEXT = f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  map floating {{ type ipv4_addr : ipv4_addr; }}
  map fixed {{ type ipv4_addr : ipv4_addr; }}
  map forwarded {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;
    flags interval;
  }}
  map source {{ type ifname : ipv4_addr; }}
  map own {{ type mark : ipv4_addr; }}
  set closed {{ type ifname; }}
  chain {VERSION} {{ }}
  chain arriving {{
    type filter hook prerouting priority -150; policy accept;
    meta mark set 0
    iifname "{OUTSIDE}" meta mark set 1
  }}
  chain destinations {{
    type nat hook prerouting priority -100; policy accept;
    dnat ip to ip daddr map @floating
    meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @forwarded
  }}
  chain through {{
    type filter hook forward priority 0; policy accept;
    ip daddr 169.254.0.0/16 drop
    ip saddr 169.254.0.0/16 drop
    iifname @closed meta nfproto ipv4 ct state invalid drop
    oifname @closed meta nfproto ipv4 ct state invalid drop
    iifname @closed meta nfproto ipv4 ct state new ct status & dnat != dnat drop
  }}
  chain for_itself {{
    type filter hook input priority 0; policy accept;
    iifname "lo" accept
    meta l4proto {{ icmp, icmpv6 }} accept
    drop
  }}
  chain sources {{
    type nat hook postrouting priority 100; policy accept;
    oifname != "{OUTSIDE}" ct status & dnat != dnat accept
    meta mark 0 snat ip to ip saddr map @fixed
    oifname "{OUTSIDE}" meta mark 0 snat ip to oifname map @source
    ct status dnat snat ip to meta mark map @own
  }}
}}
"""
"""Who is inside and has a floating IP is seen under it, also by those inside that ask for another floating IP. Anybody
else inside who asks for one is seen as the router, so that the answer comes back through it. What belongs to no
connection and begins none (`invalid`) would not be translated: it neither comes in nor goes out."""


def content(router: w.Router) -> dict[str, list[Json]]:
    """The elements of each of `MAPS` and `SETS`."""
    found: dict[str, list[Json]] = {name: [] for name in (*MAPS, *SETS)}
    for floating in router.floating_ips:
        found["floating"].append([floating.outside, floating.inside])
        found["fixed"].append([floating.inside, floating.outside])
    for forwarding in router.forwardings:
        for ports, inside_port in port_pairs(forwarding):
            key: list[Json] = [forwarding.outside, forwarding.protocol, ports]
            found["forwarded"].append([{"concat": key}, {"concat": [forwarding.inside, inside_port]}])
    own = next((address for address in outside_addresses(router) if ":" not in address), None)
    if own is not None:
        found["own"].append([0, own])
        if router.source_nat:
            found["source"].append([OUTSIDE, own])
    if router.source_nat:
        found["closed"].append(OUTSIDE)
    return found


def port_pairs(forwarding: w.Forwarding) -> list[tuple[Json, int]]:
    """Ports outside, one or a range, with the port inside that they lead to."""
    first, last = forwarding.outside_ports
    inside, inside_last = forwarding.inside_ports
    if inside == inside_last:
        return [(first if first == last else {"range": [first, last]}, inside)]
    return [(first + place, inside + place) for place in range(last - first + 1)]


def outside_addresses(router: w.Router) -> list[str]:
    """The gateway's own."""
    return [] if router.gateway is None else [address.partition("/")[0] for address in router.gateway.addresses]
