"""Random clouds and packets: real hosts do with a packet what `reachable` says.

The records are made through the API of a simulated cloud. Real hosts in network namespaces get the wirings of its
hosts. Each packet is sent there as a guest would send it. Where it arrives, and how it looks then, is compared.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

import cumulet.testing
from cumulet.compute import hosts as host_records
from cumulet.compute.packet_path import At, Path, follow
from cumulet.db.engine import Tx
from cumulet.drivers.linux_network import taps
from cumulet.host.verdict import Packet
from cumulet.host.wiring import Carried, Wiring
from cumulet.network import addresses
from cumulet.network.store import FloatingIp, Network, Port, Router, Subnet, find
from cumulet.testing import TestCloud
from tests.linux_network import frames as f
from tests.linux_network.lab import Lab, lab, needs_packets
from tests.linux_network.random_cloud import OUTSIDE, OUTSIDE_MAC, known, packet_of, populate
from tests.linux_network.stacks import Outside
from tests.linux_network.wirings import revisions
from tests.network.one_wiring import wiring

pytestmark = needs_packets

SEED = int(os.environ.get("CUMULET_PACKETS_SEED", "1"))
"""The seed of the random choices. Ids, MAC addresses and servers' hosts differ each time."""
CLOUDS = int(os.environ.get("CUMULET_PATHS_CLOUDS", "3"))
PACKETS_EACH = 200
AT_ONCE = 50
ARRIVE_SECONDS, SETTLE_SECONDS = 10.0, 0.2
HOST_ADDRESSES = {"host1": "192.0.2.1", "host2": "192.0.2.2"}
MARK = b"cumulet!"
DATA_AT = {f.TCP: 20, f.UDP: 8, f.ICMP: 8, f.ICMP6: 8}
BEYOND = "outside"

Probe = tuple[str | None, Packet, str, Path]
"""Sender, packet, the MAC address that it is sent to, and the expected path."""


class Ends:
    """Guests' taps, and one outside. They answer requests for their addresses, and record packets that arrive."""

    def __init__(
        self,
        fds: Mapping[str, int],
        macs: Mapping[str, str],
        held: Mapping[str, list[str]],
        carried: Mapping[str, Carried],
    ) -> None:
        self._fds = dict(fds)
        self._carried = dict(carried)
        """By subport: whose frames are tagged on its parent's tap."""
        self._subports = {(one.parent, one.tag): port_id for port_id, one in carried.items()}
        self._macs = macs
        self._held = held
        self._came: dict[int, list[tuple[str, Packet]]] = {}
        self._stop, self._end = os.pipe()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def send(self, end: str, frame: bytes) -> None:
        if end in self._carried:
            end, tag = self._carried[end].parent, self._carried[end].tag
            frame = frame[:12] + struct.pack("!HH", f.VLAN, tag) + frame[12:]
        os.write(self._fds[end], bytes(taps.HEADER_BYTES) + frame)

    def came(self, number: int) -> list[tuple[str, Packet]]:
        """Where this packet has arrived, and how it looked."""
        return self._came.get(number, [])

    def wait_for(self, expected: Sequence[int]) -> None:
        deadline = time.monotonic() + ARRIVE_SECONDS
        while any(not self.came(number) for number in expected) and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        os.close(self._stop)
        os.close(self._end)

    def _listen(self) -> None:
        names = {fd: name for name, fd in self._fds.items()}
        while True:
            ready, _, _ = select.select([*names, self._stop], [], [])
            if self._stop in ready:
                return
            for fd in ready:
                self._take(names[fd], os.read(fd, 70_000)[taps.HEADER_BYTES :])

    def _take(self, end: str, frame: bytes) -> None:
        kind, tag = struct.unpack_from("!HH", frame, 12)
        if kind == f.VLAN:
            end, frame = self._subports[end, tag], frame[:12] + frame[16:]
        answer = self._answer(end, frame)
        if answer is not None:
            self.send(end, answer)
        found = probe_in(frame)
        if found is not None and frame[:6] == f.mac(self._macs[end]):
            self._came.setdefault(found[0], []).append((end, found[1]))

    def _answer(self, end: str, frame: bytes) -> bytes | None:
        """To ARP and neighbour solicitations."""
        mac, asker = self._macs[end], frame[6:12].hex(":")
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == f.ARP and frame[20:22] == b"\0\1":
            asked, by = socket.inet_ntoa(frame[38:42]), socket.inet_ntoa(frame[28:32])
            if asked in self._held[end] and by != asked:
                return f.arp(mac, says=(asked, mac), asks=by, destination=asker, operation=2)
        if kind == f.IPV6 and frame[20] == f.ICMP6 and frame[54] == 135:
            asked, by = (socket.inet_ntop(socket.AF_INET6, part) for part in (frame[62:78], frame[22:38]))
            if asked in self._held[end] and by != "::":
                return f.neighbour(mac, asker, asked, by)
        return None


def probe_in(frame: bytes) -> tuple[int, Packet] | None:
    """The number of a packet of ours, and the packet as it looks now; None for other frames."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == f.IPV4:
        start, protocol = 14 + (frame[14] & 15) * 4, frame[23]
        source, destination = (socket.inet_ntoa(frame[place : place + 4]) for place in (26, 30))
    elif kind == f.IPV6:
        start, protocol = 54, frame[20]
        source, destination = (socket.inet_ntop(socket.AF_INET6, frame[place : place + 16]) for place in (22, 38))
    else:
        return None
    data = start + DATA_AT.get(protocol, 0)
    if frame[data : data + len(MARK)] != MARK:
        return None
    first, second = struct.unpack_from("!BB" if protocol in (f.ICMP, f.ICMP6) else "!HH", frame, start)
    (number,) = struct.unpack_from("!I", frame, data + len(MARK))
    packet = Packet(
        mac=frame[6:12].hex(":"),
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=first,
        destination_port=second,
    )
    return number, packet


def frame_of(packet: Packet, to: str, number: int) -> bytes:
    data = MARK + struct.pack("!I", number)
    first, second = packet.source_port or 0, packet.destination_port or 0
    body = f.transport(
        packet.protocol, packet.source, packet.destination, first, second, data=data, head=number << 16 | 1
    )
    return f.ip(packet.mac, to, packet.source, packet.destination, packet.protocol, body)


def answers(came: Packet, packet: Packet) -> bool:
    """Whether a packet is a router's answer to a ping: an echo with the same content."""
    echo = {(f.ICMP, 8): 0, (f.ICMP6, 128): 129}.get((packet.protocol, packet.source_port or 0))
    return echo is not None and came.source_port == echo


class Neighbours:
    """Which MAC address answers for an address on a network, from the records of ports and subnets alone."""

    def __init__(self, tx: Tx) -> None:
        self._subnets = {subnet.id: subnet for subnet in find(tx, Subnet)}
        everybody = {port.id: port for port in find(tx, Port)}
        self._held = addresses.held_by(tx, list(everybody))
        gateways = {
            router.id: everybody[router.gateway_port_id] for router in find(tx, Router) if router.gateway_port_id
        }
        floating = {one.floating_port_id: gateways.get(one.router_id or "") for one in find(tx, FloatingIp)}
        self._by_address: dict[tuple[str, str], Port | None] = {}
        for port in everybody.values():
            for one in self._held.get(port.id, ()):
                self._by_address[port.network_id, one.address or ""] = floating.get(port.id, port)
        self._public = next(network.id for network in find(tx, Network) if network.external)

    def asked(self, sender: Port | None, packet: Packet) -> str | None:
        """The MAC address that a guest, or somebody outside, sends a packet to; None where nobody answers."""
        wanted = packet.destination
        if sender is not None:
            subnets = [self._subnets[one.subnet_id] for one in self._held.get(sender.id, ()) if one.subnet_id]
            subnets = [subnet for subnet in subnets if subnet.ip_version == packet.version]
            if not subnets:
                return None
            if all(ip_address(wanted) not in ip_network(subnet.cidr) for subnet in subnets):
                wanted = subnets[0].gateway_ip or ""
        here = self._public if sender is None else sender.network_id
        found = self._by_address.get((here, wanted))
        return None if found is None or (sender is not None and found.id == sender.id) else found.mac_address


def told(host: str, tx: Tx) -> Wiring:
    """As `compute.wiring` reads it, with the addresses that hosts have here."""
    return wiring(tx, host, lambda _hosts: HOST_ADDRESSES, lambda: host_records.all_hosts(tx).for_routers)


def probes(tx: Tx, chance: random.Random) -> list[Probe]:
    at, router_hosts, neighbours = known(tx), host_records.all_hosts(tx).for_routers, Neighbours(tx)
    found: list[Probe] = []
    while len(found) < PACKETS_EACH:
        sender = None if chance.random() < 0.25 else chance.choice(list(at.ports.values()))
        packet = packet_of(chance, at, sender)
        to = neighbours.asked(sender, packet)
        said = follow(tx, router_hosts, sender, packet)
        if to is None:
            assert not said, f"{packet} can be given to nobody, and is said to arrive: {said}"
        found.append((None if sender is None else sender.id, packet, to or "", said))
    return found


def said(path: Path) -> list[tuple[str, Packet]]:
    """Where a packet has to arrive, and how it has to look."""
    last = path.hops[-1]
    if not path or last.at is At.ROUTER:
        return []
    return [(BEYOND if last.at is At.OUTSIDE else last.id, replace(last.packet, mac=""))]


@contextmanager
def all_ends(
    outside: Outside,
    fds: dict[str, int],
    guests: Mapping[str, Port],
    held: dict[str, list[str]],
    carried: Mapping[str, Carried],
) -> Iterator[Ends]:
    card = outside.plug()
    macs = {port.id: port.mac_address for port in guests.values()} | {BEYOND: OUTSIDE_MAC}
    ends = Ends(fds | {BEYOND: card}, macs, held | {BEYOND: list(OUTSIDE)}, carried)
    try:
        yield ends
    finally:
        ends.close()
        os.close(card)


async def compare(cloud: TestCloud, place: Lab, outside: Outside, seed: int) -> tuple[int, int, int, int]:
    """How many packets arrived, went through a router, were dropped, and arrived from or at subports."""
    chance = random.Random(seed)
    populate(cloud, chance)
    db = cloud.embedded.db
    at = db.read(known)
    asked = db.read(lambda tx: probes(tx, chance))
    fds: dict[str, int] = {}
    carried: dict[str, Carried] = {}
    for host, network in place.networks.items():
        made = db.read(partial(told, host))
        answer = await network.apply(replace(made, revision=next(revisions)))
        assert answer.not_done == ()
        for port in made.ports:
            if port.carried is None:
                fds[port.id] = (await place.plug(host, port)).fd
            else:
                carried[port.id] = port.carried
        assert set((await network.in_force()).linked) == {port.id for port in made.ports}
    assert fds.keys() | carried.keys() == at.ports.keys()
    counted = [0, 0, 0, 0]
    with all_ends(outside, fds, at.ports, at.addresses, carried) as ends:
        for first in range(0, len(asked), AT_ONCE):
            part = list(enumerate(asked))[first : first + AT_ONCE]
            for number, (sender, packet, to, _) in part:
                if to:
                    ends.send(sender or BEYOND, frame_of(packet, to, number))
            waiting = [number for number, (_, _, _, path) in part if said(path)]
            await asyncio.to_thread(ends.wait_for, waiting)
        await asyncio.sleep(SETTLE_SECONDS)  # For packets that nobody expects.
        for number, (sender, packet, _, path) in enumerate(asked):
            came = [(end, replace(one, mac="")) for end, one in ends.came(number) if not answers(one, packet)]
            assert came == said(path), f"seed {seed}, packet {number} from {sender or 'outside'}: {packet}: {path}"
            counted[0] += bool(came)
            counted[1] += bool(came) and any(hop.at is At.ROUTER for hop in path.hops)
            counted[2] += not came
            counted[3] += bool(came) and not carried.keys().isdisjoint((sender, came[0][0]))
    return counted[0], counted[1], counted[2], counted[3]


async def test_what_is_said_of_a_packet_is_what_becomes_of_it_on_real_hosts() -> None:
    arrived = routed = dropped = tagged = 0
    with cumulet.testing.cloud(hosts=2) as cloud:
        for seed in range(SEED, SEED + CLOUDS):
            outside = Outside()
            outside.ip("address", "flush", "dev", "public")
            try:
                async with lab(["host1", "host2"], outside=outside) as place:
                    counted = await compare(cloud, place, outside, seed)
            finally:
                outside.remove()
            cloud.reset()
            arrived, routed, dropped = arrived + counted[0], routed + counted[1], dropped + counted[2]
            tagged += counted[3]
    print(f"{arrived} packets arrived, {routed} of them through a router, {tagged} of subports; {dropped} did not")
    assert arrived > 2 * CLOUDS
    assert routed > 0
    assert tagged > 0
    assert dropped > 10 * CLOUDS
