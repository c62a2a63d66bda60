"""Whether a packet may pass, decided from a wiring alone: what the rules of every back end have to do.

A pure function, shared by simulated hosts, by explanations, and by the tests that send real packets. It is about the
first packet of a connection. Where a port's groups are stateful, the further packets of that connection pass too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cumulet.host.prefixes import Prefixes
from cumulet.host.record import Record
from cumulet.host.wiring import METADATA_ADDRESS, METADATA_ADDRESS_6, Direction, Group, Port, Rule, Wiring, own_pairs

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
NEIGHBOUR_TYPES_OUT = (130, 131, 132, 133, 135, 136, 143)
"""ICMPv6 that a port needs to be on a network at all (RFC 4890): groups do not decide about it."""
NEIGHBOUR_TYPES_IN = (130, 131, 132, 134, 135, 136, 143)
ROUTERS_OWN_TYPES = (134, 137)
"""Router advertisements and redirects: never from a port with port security."""


class Packet(Record, frozen=True):
    """An IP packet on a network. `source_port` and `destination_port` are None for protocols that have none;
    of ICMP they are type and code."""

    mac: str
    source: str
    destination: str
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None

    @property
    def version(self) -> int:
        return 6 if ":" in self.source else 4


class Verdict(Record, frozen=True):
    """`rule`: the id of the security group's rule that let the packet pass, if one did. `reason`: what decided."""

    passes: bool
    reason: str
    rule: str | None = None


def decide(wiring: Wiring, packet: Packet, *, sender: str | None, receiver: str | None) -> Verdict:
    """What becomes of a packet from one port to another on its network. `sender`, `receiver`: ids of ports of this
    host; None for everything else. The sender's host decides what leaves a port, the receiver's what comes in."""
    return Rules(wiring).decide(packet, sender=sender, receiver=receiver)


class _Groups:
    """The groups of a wiring. Their prefixes are read once, when a packet comes to them first."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = {group.id: group for group in groups}
        self._members: dict[str, Prefixes] = {}
        self._prefixes: dict[str, Prefixes] = {}

    def rules(self, group_id: str) -> tuple[Rule, ...]:
        return self._groups[group_id].rules

    def has_member(self, group_id: str, address: str) -> bool:
        if group_id not in self._members:
            self._members[group_id] = Prefixes(self._groups[group_id].members)
        return self._members[group_id].hold(address)

    def holds(self, prefix: str, address: str) -> bool:
        """Whether the prefix of a rule holds an address."""
        if prefix not in self._prefixes:
            self._prefixes[prefix] = Prefixes((prefix,))
        return self._prefixes[prefix].hold(address)


class Rules:
    """A wiring, indexed so that many packets can be decided quickly."""

    def __init__(self, wiring: Wiring) -> None:
        self._ports = {port.id: port for port in wiring.ports}
        self._groups = _Groups(wiring.groups)

    def decide(self, packet: Packet, *, sender: str | None, receiver: str | None) -> Verdict:
        """See `decide`."""
        if sender is not None:
            port = self._ports.get(sender)
            reason = _spoofed(port, packet) if port is not None and port.up and port.secured else None
            if reason is not None:
                return Verdict(passes=False, reason=reason)
        if receiver is not None and is_service(packet):
            return Verdict(passes=False, reason="host-services-stay-on-their-host")
        return self.decide_by_groups(packet, sender=sender, receiver=receiver)

    def decide_by_groups(self, packet: Packet, *, sender: str | None, receiver: str | None) -> Verdict:
        """As `decide`, without the rules against false senders and for services of hosts."""
        let = Verdict(passes=True, reason="no port decides")
        if sender is not None:
            let = _sent(self._ports.get(sender), self._groups, packet)
        if receiver is not None and let.passes:
            let = _received(self._ports.get(receiver), self._groups, packet)
        return let


def _sent(port: Port | None, groups: _Groups, packet: Packet) -> Verdict:
    if port is None or not port.up:
        return Verdict(passes=False, reason="port-down")
    if not port.secured:
        return Verdict(passes=True, reason="no-port-security")
    if _asks_for_address(packet) or _is_icmp6(packet, NEIGHBOUR_TYPES_OUT):
        return Verdict(passes=True, reason="needed-by-every-port")
    return _by_groups(port, groups, packet, Direction.OUT)


def _received(port: Port | None, groups: _Groups, packet: Packet) -> Verdict:
    if port is None or not port.up:
        return Verdict(passes=False, reason="port-down")
    if not port.secured:
        return Verdict(passes=True, reason="no-port-security")
    if _is_icmp6(packet, NEIGHBOUR_TYPES_IN):
        return Verdict(passes=True, reason="needed-by-every-port")
    return _by_groups(port, groups, packet, Direction.IN)


def _spoofed(port: Port, packet: Packet) -> str | None:
    """Which rule against false senders a packet breaks; None: no rule."""
    pairs = own_pairs(port)
    if all(packet.mac != pair.mac for pair in pairs):
        return "spoofed-mac"
    if packet.protocol == UDP and packet.source_port == (67 if packet.version == 4 else 547):
        return "dhcp-server"
    if _is_icmp6(packet, ROUTERS_OWN_TYPES):
        return "router-advertisement"
    if Prefixes(pair.prefix for pair in pairs if pair.mac == packet.mac).hold(packet.source):
        return None
    if _asks_for_address(packet) and packet.source == "0.0.0.0":  # noqa: S104 - compared, not bound
        return None
    if packet.source == "::" and _is_icmp6(packet, (131, 132, 133, 135, 143)):
        return None
    return "spoofed-address"


def _is_icmp6(packet: Packet, types: Sequence[int]) -> bool:
    return packet.version == 6 and packet.protocol == ICMP6 and packet.source_port in types


def _asks_for_address(packet: Packet) -> bool:
    """DHCP from a client to servers."""
    ports = (68, 67) if packet.version == 4 else (546, 547)
    return packet.protocol == UDP and (packet.source_port, packet.destination_port) == ports


def is_service(packet: Packet) -> bool:
    """Whether it is for a service that every host provides to its own guests only."""
    return (
        packet.destination in (METADATA_ADDRESS, METADATA_ADDRESS_6)
        or _asks_for_address(packet)
        or _is_icmp6(packet, (133,))
    )


def _by_groups(port: Port, groups: _Groups, packet: Packet, direction: Direction) -> Verdict:
    for group_id in port.groups:
        for rule in groups.rules(group_id):
            if rule.direction is direction and _matches(rule, packet, groups):
                return Verdict(passes=True, reason="rule", rule=rule.id)
    return Verdict(passes=False, reason=f"no-rule-{direction}")


def _matches(rule: Rule, packet: Packet, groups: _Groups) -> bool:
    """Whether a rule applies to a packet. The remote side: the sender of what comes in, the receiver of what leaves."""
    if rule.version != packet.version or (rule.protocol and rule.protocol != packet.protocol):
        return False
    remote = packet.source if rule.direction is Direction.IN else packet.destination
    if rule.remote_prefix is not None and not groups.holds(rule.remote_prefix, remote):
        return False
    if rule.remote_group is not None and not groups.has_member(rule.remote_group, remote):
        return False
    if rule.range_min is None:
        return True
    if rule.protocol in (ICMP, ICMP6):
        return packet.source_port == rule.range_min and rule.range_max in (None, packet.destination_port)
    number = packet.destination_port
    return number is not None and rule.range_min <= number <= (
        rule.range_min if rule.range_max is None else rule.range_max
    )
