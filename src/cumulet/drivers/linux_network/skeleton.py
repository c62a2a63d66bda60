"""The rules of nftables that are the same on every host and for every wiring. Their sets are filled by `nft`.

There are two tables. `bridge cumulet` sees frames as guests send them: it checks sender addresses, and drops what must
not leave a host. It knows ports by their taps and marks each packet with the number of its port. The other table tracks
connections: by that number it finds a port's chain, first for the port that a packet comes from, then for the one that
it goes to. That table is in the family `inet`, which sees bridged packets by br_netfilter, or in the family `bridge`
where the kernel can track connections there.

`host.verdict` says the same as a pure function; a test compares the two with real packets.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv6Address

from cumulet.drivers.linux_network.names import BRIDGE, ROUTER, TABLE, TAP, VXLAN
from cumulet.host.wiring import METADATA_ADDRESS, METADATA_ADDRESS_6

VERSION = "version_9"
"""The name of a chain in each table. Tables without it are of another version, and are replaced."""


class Tracking(StrEnum):
    """How a kernel tracks bridged connections. The value is the family of the table that does."""

    BR_NETFILTER = "inet"
    BRIDGE = "bridge"


def state_table(tracking: Tracking) -> str:
    return TABLE if tracking is Tracking.BR_NETFILTER else f"{TABLE}_connections"


SPOOF_COUNTERS = (
    "not_wired", "ethertype", "spoofed_mac", "spoofed_arp", "spoofed_ipv4", "spoofed_ipv6", "spoofed_neighbour",
    "source_route", "router_advertisement", "dhcp_server", "to_host", "host_service",
    "over_limit_out", "over_limit_in",
)  # fmt: skip
GROUP_COUNTERS = ("denied_in", "denied_out")
_SERVICE_TARGET = hex(int(IPv6Address(METADATA_ADDRESS_6)))
"""The metadata service's address as the target of a neighbour solicitation or advertisement."""
_LINK_LOCAL_ETHERTYPES = "{ arp, ip, ip6, 0x8035 }"
"""IP, its address resolution, and RARP, with which QEMU announces a guest that has moved."""


def dscp_chain(mark: int) -> str:
    """The chain that gives packets this mark."""
    return f"dscp_{mark}"


def _dscp_chains() -> str:
    return "\n".join(
        f"""  chain {dscp_chain(mark)} {{
    ip dscp set {mark}
    ip6 dscp set {mark}
  }}"""
        for mark in range(64)
    )


def _counters(names: tuple[str, ...]) -> str:
    return "\n".join(f"  counter {name} {{ }}" for name in names)


def text(tracking: Tracking) -> str:
    """Both tables with empty sets: in this state nothing passes a tap."""
    return _spoofing() + _groups(tracking)


def _spoofing() -> str:
    return f"""
add table bridge {TABLE}
delete table bridge {TABLE}
table bridge {TABLE} {{
{_counters(SPOOF_COUNTERS)}
  map ports {{ type ifname : mark; }}
  set open {{ type ifname; }}
  set trunks {{ type ifname; }}
  set macs {{ type ifname . ether_addr; }}
  set ipv4 {{ type ifname . ether_addr . ipv4_addr; flags interval; }}
  set ipv6 {{ type ifname . ether_addr . ipv6_addr; flags interval; }}
  set targets {{ typeof iifname . @th,64,128; flags interval; }}
  map egress {{ type ifname : limit; }}
  map ingress {{ type ifname : limit; }}
  map marks {{ type ifname : verdict; }}
  chain {VERSION} {{ }}
  chain from_guest_arp {{
    iifname . arp saddr ether . arp saddr ip @ipv4 accept
    iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 accept
    counter name spoofed_arp drop
  }}
  chain from_guest_ipv4 {{
    ip option lsrr exists counter name source_route drop
    ip option ssrr exists counter name source_route drop
    udp sport 67 counter name dhcp_server drop
    iifname . ether saddr . ip saddr @ipv4 accept
    ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
    counter name spoofed_ipv4 drop
  }}
  chain from_guest_ipv6 {{
    rt type 0 counter name source_route drop
    icmpv6 type {{ 134, 137 }} counter name router_advertisement drop
    ip6 saddr fe80::/10 exthdr frag exists counter name router_advertisement drop
    udp sport 547 counter name dhcp_server drop
    icmpv6 type 136 iifname . @th,64,128 != @targets counter name spoofed_neighbour drop
    iifname . ether saddr . ip6 saddr @ipv6 accept
    ip6 saddr :: icmpv6 type {{ 131, 132, 133, 135, 143 }} accept
    counter name spoofed_ipv6 drop
  }}
  chain host_services {{
    arp daddr ip {METADATA_ADDRESS} counter name host_service drop
    arp saddr ip {METADATA_ADDRESS} counter name host_service drop
    ip daddr {METADATA_ADDRESS} counter name host_service drop
    ip saddr {METADATA_ADDRESS} counter name host_service drop
    ip6 daddr {METADATA_ADDRESS_6} counter name host_service drop
    ip6 saddr {METADATA_ADDRESS_6} counter name host_service drop
    icmpv6 type {{ 135, 136 }} @th,64,128 {_SERVICE_TARGET} counter name host_service drop
    meta protocol ip udp sport 68 udp dport 67 counter name host_service drop
    meta protocol ip6 udp sport 546 udp dport 547 counter name host_service drop
    meta protocol ip6 icmpv6 type 133 counter name host_service drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname "{VXLAN}*" goto host_services
    iifname != "{TAP}*" accept
    meta mark set iifname map @ports
    meta mark 0 counter name not_wired drop
    iifname @trunks ether type {{ 8021q, 8021ad }} counter name ethertype drop
    iifname @open accept
    ether type != {_LINK_LOCAL_ETHERTYPES} counter name ethertype drop
    iifname . ether saddr != @macs counter name spoofed_mac drop
    ether type arp goto from_guest_arp
    ether type ip goto from_guest_ipv4
    ether type ip6 goto from_guest_ipv6
  }}
  chain limits_from_guests {{
    type filter hook prerouting priority -290; policy accept;
    iifname "{TAP}*" limit name iifname map @egress counter name over_limit_out drop
  }}
{_dscp_chains()}
  chain marks_of_guests {{
    type filter hook prerouting priority -280; policy accept;
    iifname "{TAP}*" iifname vmap @marks
  }}
  chain limits_to_guests {{
    type filter hook postrouting priority 0; policy accept;
    oifname "{TAP}*" limit name oifname map @ingress counter name over_limit_in drop
  }}
  chain input {{
    type filter hook input priority -300; policy accept;
    iifname "{VXLAN}*" counter name to_host drop
    iifname != "{TAP}*" accept
    arp daddr ip {METADATA_ADDRESS} accept
    ip daddr {METADATA_ADDRESS} tcp dport 80 accept
    ip daddr {METADATA_ADDRESS} udp dport 53 accept
    ip6 daddr {METADATA_ADDRESS_6} tcp dport 80 accept
    ip6 daddr {METADATA_ADDRESS_6} udp dport 53 accept
    icmpv6 type 135 @th,64,128 {_SERVICE_TARGET} accept
    icmpv6 type 136 accept
    meta protocol ip udp sport 68 udp dport 67 accept
    meta protocol ip6 udp sport 546 udp dport 547 accept
    meta protocol ip6 icmpv6 type 133 accept
    counter name to_host drop
  }}
  chain forward {{
    type filter hook forward priority -200; policy accept;
    oifname != {{ "{TAP}*", "{VXLAN}*", "{ROUTER}*" }} accept
    jump host_services
    meta mark set 0
    oifname != "{TAP}*" accept
    meta mark set oifname map @ports
    meta mark 0 counter name not_wired drop
  }}
  chain output {{
    type filter hook output priority -200; policy accept;
    oifname {{ "{VXLAN}*", "{ROUTER}*" }} drop
    icmpv6 type {{ 131, 132, 133, 143 }} drop
  }}
}}
"""


def _groups(tracking: Tracking) -> str:
    family, table = tracking.value, state_table(tracking)
    through = "iifname" if tracking is Tracking.BR_NETFILTER else "meta ibrname"
    more = "" if tracking is Tracking.BRIDGE else _host_itself()
    return f"""
add table {family} {table}
delete table {family} {table}
table {family} {table} {{
{_counters(GROUP_COUNTERS)}
  map zones {{ typeof {through} : ct zone; }}
  map from {{ type mark : verdict; }}
  map to {{ type mark : verdict; }}
  chain {VERSION} {{ }}
  chain zone {{
    type filter hook prerouting priority -300; policy accept;
    ct zone set {through} map @zones
  }}
  chain prerouting {{
    type filter hook prerouting priority -150; policy accept;
    {through} != "{BRIDGE}*" accept
    meta protocol ip6 icmpv6 type {{ 130, 131, 132, 133, 135, 136, 143 }} accept
    meta protocol ip udp sport 68 udp dport 67 accept
    meta protocol ip6 udp sport 546 udp dport 547 accept
    meta mark vmap @from
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    {through} != "{BRIDGE}*" accept
    meta protocol ip6 icmpv6 type {{ 130, 131, 132, 134, 135, 136, 143 }} accept
    meta mark vmap @to
  }}
{more}}}
"""


def _host_itself() -> str:
    """Chains for the host's own end of a bridge: it answers metadata and DNS, in the conntrack zone of the network."""
    return f"""  chain answers {{
    type filter hook output priority -300; policy accept;
    ct zone set oifname map @zones
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname != "{BRIDGE}*" accept
    ip daddr {METADATA_ADDRESS} tcp dport 80 accept
    ip daddr {METADATA_ADDRESS} udp dport 53 accept
    ip6 daddr {METADATA_ADDRESS_6} tcp dport 80 accept
    ip6 daddr {METADATA_ADDRESS_6} udp dport 53 accept
    icmpv6 type {{ 135, 136 }} accept
    drop
  }}
"""
