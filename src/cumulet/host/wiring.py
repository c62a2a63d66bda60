"""What a host's network must be, as one description: what the control plane sends whole, and a host makes true.

It is made from the records (`network.wiring`) and knows no back end. A host answers what is in force (`InForce`).
Addresses are text in canonical form, MAC addresses ``aa:bb:cc:dd:ee:ff``, ids the records' own.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv6Address

from cumulet.host.record import Record

METADATA_ADDRESS, METADATA_ADDRESS_6 = "169.254.169.254", "fe80::a9fe:a9fe"
"""Answered by every host for the guests on it; never cross from one host to another."""

BANDWIDTH_LIMITS, FLOATING_IP_LIMITS = "bandwidth-limits", "floating-ip-limits"
"""Of `HostFacts.features`: the host keeps the limits of ports, and those of floating IPs."""
DSCP_MARKS, GATEWAY_LIMITS = "dscp-marks", "gateway-limits"
"""Of `HostFacts.features`: the host marks what guests send, and keeps the limits of routers' gateways."""
METERING = "metering"
"""Of `HostFacts.features`: the host counts what its routers pass, by metering label."""
TRUNKS = "trunks"
"""Of `HostFacts.features`: the host carries the subports of trunks."""
PORT_NAMES = "port-names"
"""Of `HostFacts.features`: the host answers its guests' questions for the names of their network's ports."""
NO_PACKETS = "no-packets"
"""Of `HostFacts.features`: no packet goes through the host's networks, so it has networks of every kind. Only long
operations tell it its wiring."""


class Direction(StrEnum):
    """The direction of traffic, as seen from the guest's port."""

    IN = "ingress"
    OUT = "egress"


class Route(Record, frozen=True):
    """``destination`` (a prefix) is reached through ``nexthop``."""

    destination: str
    nexthop: str


class Subnet(Record, frozen=True):
    """A subnet, with what its guests are told about it."""

    id: str
    cidr: str
    gateway: str | None
    dhcp: bool
    ra_mode: str | None
    address_mode: str | None
    dns_servers: tuple[str, ...]
    routes: tuple[Route, ...]
    router_mac: str | None = None
    """The MAC address of the router that has the gateway's address, if it is a router of this cloud."""

    @property
    def version(self) -> int:
        return 6 if ":" in self.cidr else 4


class Remote(Record, frozen=True):
    """An address of the network that is reached through another host: `host_address` is that host's own."""

    mac: str
    host_address: str


class Name(Record, frozen=True):
    """A port of the network, wherever it is, as the network's guests find it: `dns_assignment` of its API."""

    hostname: str
    addresses: tuple[str, ...]


class Network(Record, frozen=True):
    """A network that has ports here. `kind` as Network's `provider:network_type`; `vni` for ``vxlan`` only."""

    id: str
    kind: str
    vni: int | None
    mtu: int
    dns_domain: str
    subnets: tuple[Subnet, ...]
    peers: tuple[str, ...]
    """Addresses of the other hosts that have ports of it: what is for everybody goes to each of them."""
    remotes: tuple[Remote, ...]
    physical: str | None = None
    """Of kind ``flat``: the physical network it is, which a host knows by the device that leads there."""
    names: tuple[Name, ...] = ()
    """Of all its ports. Only told to hosts that offer `PORT_NAMES`."""


class Pair(Record, frozen=True):
    """An address, or a prefix, that a port may use beside its own, with this MAC address."""

    mac: str
    prefix: str


class DhcpOption(Record, frozen=True):
    """A DHCP option that a port's guest is told in addition to the usual ones, or instead of one of them.

    `content`: its bytes in hexadecimal. With IPv4, code 0 is the next server in the header, and an option without
    content is not sent.
    """

    version: int
    code: int
    content: str


class Limit(Record, frozen=True):
    """What may pass in one direction: so many kilobits a second, and a burst of so many kilobits in addition.

    ``kilo`` is 1,000, as in Neutron's `max_kbps` and `max_burst_kbps`; a burst of 0 leaves its size to the host.
    """

    kbps: int
    burst_kbit: int = 0


class Carried(Record, frozen=True):
    """How a subport leads to its guest: its frames have this tag (IEEE 802.1Q) on the parent's NIC."""

    parent: str
    """The id of a port that the guest has a NIC for."""
    tag: int


class Port(Record, frozen=True):
    """A port that is plugged in here, or will be. Its rules are in force before its link goes up."""

    id: str
    network_id: str
    mac: str
    addresses: tuple[str, ...]
    up: bool
    """Its administrative state: nothing passes a port that is not up."""
    active: bool
    """False at the destination of a move until the commit: so long, the port is reached on the source."""
    secured: bool
    """Port security: without it neither sender addresses nor groups are looked at."""
    pairs: tuple[Pair, ...]
    groups: tuple[str, ...]
    hostname: str
    dhcp_options: tuple[DhcpOption, ...] = ()
    egress_limit: Limit | None = None
    """What its guest may send. Only told to hosts that offer `BANDWIDTH_LIMITS`."""
    ingress_limit: Limit | None = None
    """What its guest may be sent."""
    dscp_mark: int | None = None
    """The six bits (RFC 2474) that all IP packets of its guest get. Only told to hosts that offer `DSCP_MARKS`."""
    carried: Carried | None = None
    """Of a subport of a trunk: it has no NIC of its own. Only told to hosts that offer `TRUNKS`."""


class Rule(Record, frozen=True):
    """Lets traffic pass. What is None, or 0 for `protocol`, matches all.

    `protocol` is IP's number; the range is of ports, or an ICMP type and its code. `remote_group`: one of its members.
    """

    id: str
    direction: Direction
    version: int
    protocol: int | None
    range_min: int | None
    range_max: int | None
    remote_prefix: str | None
    remote_group: str | None


class Group(Record, frozen=True):
    """A security group: its rules where a port here is in it, its members' addresses where a rule here names it.

    An address group is one that no port is in.
    """

    id: str
    stateful: bool
    rules: tuple[Rule, ...]
    members: tuple[str, ...]
    """Addresses and prefixes of all its ports, wherever they are."""


class RouterPort(Record, frozen=True):
    """Where a router is on a network. `addresses` with the lengths of their prefixes: ``10.0.0.1/24``."""

    id: str
    network_id: str
    mac: str
    addresses: tuple[str, ...]


class FloatingIp(Record, frozen=True):
    """Packets for the address `outside` go to `inside`, and packets from `inside` leave with the source `outside`."""

    outside: str
    inside: str
    egress_limit: Limit | None = None
    """What leaves by it. Only told to hosts that offer `FLOATING_IP_LIMITS`."""
    ingress_limit: Limit | None = None
    """What arrives by it."""


class Forwarding(Record, frozen=True):
    """Ports of an outside address that lead to ports inside. `protocol` is IP's number. Both ranges have the same
    length, or the inner one is a single port, to which all lead."""

    outside: str
    protocol: int
    outside_ports: tuple[int, int]
    inside: str
    inside_ports: tuple[int, int]


class MeterRule(Record, frozen=True):
    """Which packets that go out of, or come in by, a router's gateway a metering label counts.

    Its addresses are those inside. `excluded`: such packets are not counted, and later rules of the label do not apply.
    """

    direction: Direction
    excluded: bool
    source: str | None
    destination: str | None


class Meter(Record, frozen=True):
    """A metering label. Its rules apply in this order, and a packet counts at most once."""

    label: str
    rules: tuple[MeterRule, ...]


class Router(Record, frozen=True):
    """A router that is on this host. What it routes to none of its ports goes to a next hop outside."""

    id: str
    interfaces: tuple[RouterPort, ...]
    gateway: RouterPort | None = None
    """Where it is on an external network."""
    next_hops: tuple[str, ...] = ()
    """Beyond the gateway, one of each version of IP."""
    on_link: tuple[str, ...] = ()
    """Further prefixes of the external network, in which the gateway has no address."""
    source_nat: bool = False
    """Connections from inside leave with the gateway's IPv4 address. From outside only floating IPs lead in."""
    routes: tuple[Route, ...] = ()
    floating_ips: tuple[FloatingIp, ...] = ()
    forwardings: tuple[Forwarding, ...] = ()
    egress_limit: Limit | None = None
    """What leaves with the gateway's own IPv4 address. Only told to hosts that offer `GATEWAY_LIMITS`."""
    ingress_limit: Limit | None = None
    """What arrives for that address."""
    meters: tuple[Meter, ...] = ()
    """Only told to hosts that offer `METERING`."""

    @property
    def ports(self) -> tuple[RouterPort, ...]:
        return self.interfaces if self.gateway is None else (*self.interfaces, self.gateway)


class Wiring(Record, frozen=True):
    """The whole description. A later revision replaces an earlier one, never the other way round."""

    host: str
    revision: int = 0
    networks: tuple[Network, ...] = ()
    ports: tuple[Port, ...] = ()
    groups: tuple[Group, ...] = ()
    routers: tuple[Router, ...] = ()


class NotDone(Record, frozen=True):
    """A part of a wiring that a host could not do. `subject`: the port, network or router; empty: the whole host."""

    subject: str
    reason: str


class InForce(Record, frozen=True):
    """A host's answer: the revision that is in force there, and what of it is not."""

    revision: int
    ports: tuple[str, ...] = ()
    """Whose rules are in force."""
    linked: tuple[str, ...] = ()
    """Whose links are up: a guest is plugged in."""
    not_done: tuple[NotDone, ...] = ()


def own_pairs(port: Port) -> tuple[Pair, ...]:
    """All addresses that a port may send from: its own, its link-local one, and its allowed address pairs."""
    own = (Pair(mac=port.mac, prefix=address) for address in (*port.addresses, link_local(port.mac)))
    return (*own, *port.pairs)


def link_local(mac: str) -> str:
    """The IPv6 link-local address that follows from a MAC address (RFC 4291, modified EUI-64)."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    octets[0] ^= 2
    high = [octets[0] << 8 | octets[1], octets[2] << 8 | 0xFF, 0xFE00 | octets[3], octets[4] << 8 | octets[5]]
    number = 0xFE80 << 112
    for place, word in enumerate(high):
        number |= word << (48 - 16 * place)
    return str(IPv6Address(number))
