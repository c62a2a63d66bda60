"""What becomes of a packet, hop by hop, by the same rules that hosts enforce: from a port or from outside, through
routers, to a port or out again.

It is about the first packet of a connection. Each hop is one decision: the sender's host says whether the packet may
leave, a router where it goes and as what, the receiver's host whether it may come in. Guests are taken to use the
routes that DHCP tells them.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from ipaddress import ip_address, ip_network

import sqlalchemy as sa
from msgspec.structs import replace

from cumulet.db.engine import Tx
from cumulet.host.record import Record
from cumulet.host.routing import route
from cumulet.host.verdict import ICMP, ICMP6, TCP, UDP, Packet, Verdict, decide, is_service
from cumulet.host.wiring import METADATA_ADDRESS, METADATA_ADDRESS_6
from cumulet.network import addresses, router_wiring
from cumulet.network.device_owners import FLOATING_IP, OF_ROUTERS
from cumulet.network.forwarding_records import PortForwarding
from cumulet.network.router_hosts import host_of
from cumulet.network.store import (
    FloatingIp,
    Network,
    Port,
    Router,
    Subnet,
    find,
    find_by,
    get,
    must_get,
    networks,
    port_addresses,
    ports,
)
from cumulet.network.wiring import of_port

PROTOCOLS = {"icmp": ICMP, "tcp": TCP, "udp": UDP}
CLIENT_PORT = 40_000
ECHO_REQUEST = {4: 8, 6: 128}
MOST_ROUTERS = 16
"""Through which a packet is followed."""
HTTP = 80
_SERVICES = (METADATA_ADDRESS, METADATA_ADDRESS_6)


class At(StrEnum):
    """What kind of place a hop is."""

    SENDER = "sender"
    ROUTER = "router"
    RECEIVER = "receiver"
    OUTSIDE = "outside"
    """Outside the cloud, or of another project than the one who asks."""


class Hop(Record, frozen=True):
    """What is decided at one place.

    `id`: of the port or the router; outside, the address. `host`: the host that decides; empty where none does.
    `packet`: as it arrives here; `leaves`: as it goes on, where a router has changed it.
    """

    at: At
    id: str
    host: str
    packet: Packet
    verdict: Verdict
    leaves: Packet | None = None


class Path(Record, frozen=True):
    """True if the packet arrives. `reason` and `rule` are those of its last hop, which stopped it or let it in."""

    hops: tuple[Hop, ...]

    def __bool__(self) -> bool:
        return self.hops[-1].verdict.passes

    @property
    def reason(self) -> str:
        return self.hops[-1].verdict.reason

    @property
    def rule(self) -> str | None:
        """The security group's rule that let it in."""
        return self.hops[-1].verdict.rule


BEYOND_SIGHT = "beyond-sight"
"""The reason where a path leads to something that the caller may not see. Whether the packet arrives is not told."""


def path(
    tx: Tx,
    router_hosts: Collection[str],
    sender: Port | str,
    receiver: Port | str,
    protocol: str,
    port: int | None,
    *,
    version: int | None = None,
    project: str | None = None,
) -> Path:
    """The path from one end to another: ports, or addresses. `protocol`: ``tcp``, ``udp`` or ``icmp`` (an echo
    request). `port`: the receiver's, for tcp and udp. `version`: of IP; None: 4 where both ends have it, else 6.

    `project`: only this project's ports and routers are looked at; None: everybody's. KeyError for an unknown
    protocol; ValueError where tcp or udp has no port.
    """
    number = PROTOCOLS[protocol]
    if number != ICMP and port is None:
        raise ValueError(f"{protocol} needs a port")
    walk = _Walk(tx, router_hosts, project, receiver if isinstance(receiver, Port) else None)
    if isinstance(sender, str):
        return walk.from_outside(sender, receiver, number, port)
    versions = (version,) if version is not None else (4, 6)
    targets = _addresses(tx, receiver) if isinstance(receiver, Port) else [receiver]
    for of_version in versions:
        for source in _addresses(tx, sender):
            for destination in targets:
                if ip_address(source).version == ip_address(destination).version == of_version:
                    return walk.from_port(sender, _packet(sender.mac_address, source, destination, number, port))
    return walk.nowhere(sender, number)


def follow(tx: Tx, router_hosts: Collection[str], sender: Port | None, packet: Packet) -> Path:
    """What becomes of this packet of a port, or (None) of somebody outside."""
    walk = _Walk(tx, router_hosts, None, None)
    return walk.comes_in(packet) if sender is None else walk.from_port(sender, packet)


def _addresses(tx: Tx, port: Port) -> list[str]:
    return [fixed.address for fixed in addresses.of_port(tx, port.id) if fixed.address is not None]


def _packet(mac: str, source: str, destination: str, protocol: int, port: int | None) -> Packet:
    version = ip_address(destination).version
    echo = protocol == ICMP
    return Packet(
        mac=mac,
        source=source,
        destination=destination,
        protocol=ICMP6 if echo and version == 6 else protocol,
        source_port=ECHO_REQUEST[version] if echo else CLIENT_PORT,
        destination_port=0 if echo else port,
    )


class _Walk:
    def __init__(self, tx: Tx, router_hosts: Collection[str], project: str | None, receiver: Port | None) -> None:
        self._tx = tx
        self._router_hosts = router_hosts
        self._project = project
        self._receiver = receiver
        self._hops: list[Hop] = []

    # -- where it begins

    def from_port(self, sender: Port, packet: Packet) -> Path:
        wiring = of_port(self._tx, sender.id)
        if wiring is None:
            return self._ends(At.SENDER, sender.id, packet, "plugged-in-nowhere")
        verdict = _linked(sender, decide(wiring, packet, sender=sender.id, receiver=None))
        if not self._add(At.SENDER, sender.id, packet, verdict, host=wiring.host):
            return self._path()
        if packet.destination in _SERVICES:
            return self._service(wiring.host, packet)
        next_hop = self._way_of_guest(sender, packet)
        own = next_hop in _addresses(self._tx, sender)
        if next_hop is None or own:
            return self._instead("its-own-address" if own else "no-gateway")
        return self._across(sender.network_id, next_hop, packet)

    def from_outside(self, source: str, receiver: Port | str, protocol: int, port: int | None) -> Path:
        version = ip_address(source).version
        destination = self._led_to(receiver, version, protocol, port) if isinstance(receiver, Port) else receiver
        if destination is not None and ip_address(destination).version == version:
            return self.comes_in(_packet("", source, destination, protocol, port))
        reason = "no-common-ip-version" if destination or version == 6 else "no-floating-ip"
        packet = Packet(mac="", source=source, destination=destination or "", protocol=protocol, destination_port=port)
        return self._ends(At.OUTSIDE, source, packet, reason)

    def comes_in(self, packet: Packet) -> Path:
        self._add(At.OUTSIDE, packet.source, packet, Verdict(passes=True, reason="from-outside"))
        held = sa.select(port_addresses.c.network_id, networks.c.external).join(
            networks, networks.c.id == port_addresses.c.network_id
        )
        found = self._tx.all(held.where(port_addresses.c.address == packet.destination))
        for row in found:
            if row.external:
                return self._across(row.network_id, packet.destination, packet)
        return self._ends(At.OUTSIDE, packet.destination, packet, "no-way-in" if found else "address-of-nobody")

    def nowhere(self, sender: Port, protocol: int) -> Path:
        """There is no packet to follow."""
        packet = Packet(mac=sender.mac_address, source="", destination="", protocol=protocol)
        return self._ends(At.SENDER, sender.id, packet, "no-common-ip-version")

    def _led_to(self, receiver: Port, version: int, protocol: int, port: int | None) -> str | None:
        """The address at which a port is reached from outside; None if there is none."""
        if version == 6 or must_get(self._tx, Network, receiver.network_id).external:
            held = _addresses(self._tx, receiver)
            return next((address for address in held if ip_address(address).version == version), None)
        for floating in find_by(self._tx, FloatingIp, port_id=receiver.id):
            return floating.floating_ip_address
        for forwarding in find_by(self._tx, PortForwarding, internal_port_id=receiver.id):
            outside = range(forwarding.external_first, forwarding.external_last + 1)
            if PROTOCOLS[forwarding.protocol] == protocol and port in outside:
                return must_get(self._tx, FloatingIp, forwarding.floating_ip_id).floating_ip_address
        return None

    # -- across networks

    def _across(self, network_id: str, address: str, packet: Packet) -> Path:
        """Follow the packet to the port that has `address` on a network: the destination's address, or a next hop's."""
        for _ in range(MOST_ROUTERS):
            holder = self._holder(network_id, address)
            if holder is None or not self._is_seen(holder):
                return self._nobody(must_get(self._tx, Network, network_id), address, packet)
            if is_service(packet):
                return self._instead("host-services-stay-on-their-host")
            entry = self._entry(holder)
            if entry is None:
                return self._received(holder, packet)
            on = self._routed(entry, packet)
            if on is None:
                return self._path()
            network_id, address, packet = on
        return self._ends(At.ROUTER, self._hops[-1].id, packet, "goes-round-in-circles")

    def _holder(self, network_id: str, address: str) -> Port | None:
        held = sa.select(port_addresses.c.port_id).where(
            port_addresses.c.network_id == network_id, port_addresses.c.address == address
        )
        found = find(self._tx, Port, ports.c.id.in_(held))
        return found[0] if found else None

    def _is_seen(self, holder: Port) -> bool:
        if self._project is None:
            return True
        floating = find_by(self._tx, FloatingIp, floating_port_id=holder.id)
        router = get(self._tx, Router, holder.device_id) if holder.device_owner in OF_ROUTERS else None
        behind = floating[0] if floating else router or holder
        return behind.project_id == self._project

    def _entry(self, holder: Port) -> str | None:
        """The port by which a packet enters a router; None if `holder` belongs to no router.

        It is `holder` itself, or the gateway port if `holder` keeps the address of a floating IP.
        """
        if holder.device_owner in OF_ROUTERS:
            return holder.id
        floating = find_by(self._tx, FloatingIp, floating_port_id=holder.id)
        router = get(self._tx, Router, floating[0].router_id) if floating else None
        return None if router is None else router.gateway_port_id

    def _nobody(self, network: Network, address: str, packet: Packet) -> Path:
        if network.external:
            self._add(At.OUTSIDE, address, packet, Verdict(passes=True, reason="outside"))
            return self._path()
        if self._project not in (None, network.project_id) or self._holder(network.id, address) is not None:
            self._add(At.OUTSIDE, address, packet, Verdict(passes=True, reason=BEYOND_SIGHT))
            return self._path()
        return self._ends(At.RECEIVER, address, packet, "address-of-nobody")

    def _routed(self, entry: str, packet: Packet) -> tuple[str, str, Packet] | None:
        """Through the router of this port: the next network, the next hop's address there, and the packet as it leaves.

        None: the packet ends here.
        """
        port = must_get(self._tx, Port, entry)
        found = router_wiring.of_ids(self._tx, [port.device_id])
        if not found or all(entry != one.id for one in found[0].ports):
            self._ends(At.ROUTER, port.device_id, packet, "router-down")
            return None
        host = host_of(port.device_id, tuple(self._router_hosts))
        if host is None:
            self._ends(At.ROUTER, port.device_id, packet, "no-host-for-routers")
            return None
        routed = route(found[0], packet, by=entry)
        verdict = Verdict(passes=routed.passes, reason=routed.reason)
        leaves = routed.packet if routed.packet != packet else None
        if not self._add(At.ROUTER, port.device_id, packet, verdict, host=host, leaves=leaves) or routed.out is None:
            return None
        return routed.out.network_id, routed.next_hop, routed.packet

    def _received(self, holder: Port, packet: Packet) -> Path:
        wiring = of_port(self._tx, holder.id)
        if wiring is None:
            floating = holder.device_owner == FLOATING_IP
            reason = "floating-ip-leads-nowhere" if floating else "plugged-in-nowhere"
            return self._ends(At.RECEIVER, holder.id, packet, reason)
        verdict = _linked(holder, decide(wiring, packet, sender=None, receiver=holder.id))
        if verdict.passes and self._receiver is not None and self._receiver.id != holder.id:
            verdict = Verdict(passes=False, reason="address-of-another-port")
        elif verdict.passes and packet.destination not in _addresses(self._tx, holder):
            verdict = Verdict(passes=False, reason="given-to-a-guest-to-route")
        self._add(At.RECEIVER, holder.id, packet, verdict, host=wiring.host)
        return self._path()

    def _service(self, host: str, packet: Packet) -> Path:
        served = packet.protocol == TCP and packet.destination_port == HTTP
        verdict = Verdict(passes=served, reason="metadata-service" if served else "host-answers-metadata-only")
        self._add(At.OUTSIDE, packet.destination, packet, verdict, host=host)
        return self._path()

    def _way_of_guest(self, sender: Port, packet: Packet) -> str | None:
        """The address of the guest's next hop: the destination itself on its own subnet, else a router that DHCP tells.

        None: the subnet has no gateway.
        """
        wanted, six = ip_address(packet.destination), packet.version == 6
        held = addresses.of_port(self._tx, sender.id)
        subnets = [must_get(self._tx, Subnet, fixed.subnet_id) for fixed in held if fixed.subnet_id is not None]
        own = [subnet for subnet in subnets if subnet.ip_version == packet.version]
        if any(wanted in ip_network(subnet.cidr) for subnet in own):
            return packet.destination
        of_source = [fixed.subnet_id for fixed in held if fixed.address == packet.source]
        subnet = next((one for one in own if one.id in of_source), own[0] if own else None)
        if subnet is None:
            return None
        routes = [] if six else [(ip_network(one["destination"]), one["nexthop"]) for one in subnet.host_routes]
        leading = [(prefix.prefixlen, next_hop) for prefix, next_hop in routes if wanted in prefix]
        return max(leading)[1] if leading else subnet.gateway_ip

    # -- the hops

    def _add(
        self, at: At, where: str, packet: Packet, verdict: Verdict, *, host: str = "", leaves: Packet | None = None
    ) -> bool:
        self._hops.append(Hop(at=at, id=where, host=host, packet=packet, verdict=verdict, leaves=leaves))
        return verdict.passes

    def _ends(self, at: At, where: str, packet: Packet, reason: str, *, host: str = "") -> Path:
        self._add(at, where, packet, Verdict(passes=False, reason=reason), host=host)
        return self._path()

    def _instead(self, reason: str) -> Path:
        """The packet ends at the last hop, although it was let pass there."""
        self._hops[-1] = replace(self._hops[-1], verdict=Verdict(passes=False, reason=reason))
        return self._path()

    def _path(self) -> Path:
        """The hops so far. A packet that ends at another place than the port it was meant for has not arrived."""
        last = self._hops[-1]
        elsewhere = self._receiver is not None and last.at is not At.RECEIVER and last.verdict.reason != BEYOND_SIGHT
        if elsewhere and last.verdict.passes:
            return self._instead("elsewhere")
        return Path(hops=tuple(self._hops))


def _linked(port: Port, verdict: Verdict) -> Verdict:
    """The verdict, but a packet passes only if a guest is plugged in."""
    return verdict if not verdict.passes or port.status == "ACTIVE" else Verdict(passes=False, reason="not-plugged")
