"""Random ports, groups, rules and packets: the kernel lets pass exactly what `host.verdict` says."""

from __future__ import annotations

import itertools
import os
import random

from cumulet.host import wiring as w
from cumulet.host.verdict import Packet, Rules
from tests.linux_network import frames as f
from tests.linux_network.lab import lab, needs_packets
from tests.linux_network.wirings import group, network, port, revisions, rule

pytestmark = needs_packets

SEED = int(os.environ.get("CUMULET_PACKETS_SEED", "1"))
TOPOLOGIES = int(os.environ.get("CUMULET_PACKETS_TOPOLOGIES", "12"))
PACKETS_EACH = 60
_own_numbers = itertools.cycle(range(10_000, 60_000))
PROTOCOLS = (f.ICMP, f.TCP, f.UDP, f.ICMP6, f.GRE, 132)
NUMBERS = (22, 53, 67, 68, 80, 443, 546, 547)


def addresses(chance: random.Random, version: int) -> str:
    return (
        f"10.0.{chance.randrange(2)}.{chance.randrange(1, 6)}"
        if version == 4
        else f"2001:db8::{chance.randrange(1, 6)}"
    )


def random_rule(chance: random.Random, groups: list[str]) -> w.Rule:
    version = chance.choice((4, 4, 6))
    protocol = chance.choice((None, None, f.TCP, f.UDP, f.ICMP if version == 4 else f.ICMP6, f.GRE))
    low = high = None
    if protocol in (f.TCP, f.UDP) and chance.random() < 0.7:
        low, high = sorted(chance.choices(NUMBERS, k=2))
    elif protocol in (f.ICMP, f.ICMP6) and chance.random() < 0.7:
        low, high = chance.choice((8, 128, 3)), chance.choice((None, 0, 1))
    remote = chance.random()
    prefix = {4: ("10.0.0.0/24", "10.0.0.3", "10.0.1.0/30"), 6: ("2001:db8::/126", "2001:db8::5")}[version]
    return rule(
        chance.choice(("ingress", "egress")),
        version,
        protocol=protocol,
        range_min=low,
        range_max=high,
        remote_prefix=chance.choice(prefix) if remote < 0.3 else None,
        remote_group=chance.choice(groups) if remote > 0.7 else None,
    )


def random_wiring(chance: random.Random) -> w.Wiring:
    names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(1, 5)]
    ports = []
    for number in range(1, 5):
        made = port(f"10.0.0.{number}", groups=tuple(chance.sample(names, chance.randrange(3))))
        more: dict[str, object] = {"addresses": (f"10.0.0.{number}", f"2001:db8::{number}")}
        if chance.random() < 0.3:
            mac = made.mac if chance.random() < 0.5 else "02:00:00:ee:ee:ee"
            more["pairs"] = (w.Pair(mac=mac, prefix=chance.choice(("10.0.1.0/30", "10.0.0.5", "2001:db8::4/126"))),)
        if chance.random() < 0.15:
            more |= {"secured": False, "groups": ()}
        ports.append(w.Port(**{name: getattr(made, name) for name in made.__struct_fields__} | more))
    groups = [
        group(
            *(random_rule(chance, names) for _ in range(chance.randrange(5))),
            group_id=name,
            stateful=chance.random() < 0.7,
            members=tuple({addresses(chance, v) for v in (4, 4, 6)}),
        )
        for name in names
    ]
    return w.Wiring(
        host="host1", revision=next(revisions), networks=(network(),), ports=tuple(ports), groups=tuple(groups)
    )


def random_packet(chance: random.Random, sender: w.Port) -> Packet:
    version = chance.choice((4, 4, 6))
    protocol = chance.choice(PROTOCOLS)
    own = sender.addresses[0 if version == 4 else 1]
    source = own if chance.random() < 0.75 else addresses(chance, version)
    mac = sender.mac if chance.random() < 0.9 else "02:00:00:ee:ee:ee"
    if protocol in (f.ICMP, f.ICMP6):
        # Without neighbours' packets: `Packet` does not hold what they claim.
        first, second = chance.choice((3, 8, 128, 130, 133, 134, 137, 143)), chance.choice((0, 0, 1))
    elif protocol == f.UDP and chance.random() < 0.3:
        first, second = chance.choice(((68, 67), (67, 68), (546, 547), (547, 546)))
    else:
        # No two packets have the same number, so that none is an answer to another.
        first, second = next(_own_numbers), chance.choice(NUMBERS)
    return Packet(
        mac=mac,
        source=source,
        destination=addresses(chance, version),
        protocol=protocol,
        source_port=first if protocol != f.GRE else None,
        destination_port=second if protocol != f.GRE else None,
    )


def frame_of(packet: Packet, to: w.Port, number: int) -> bytes:
    """The frame of a packet, with a payload that no other packet has."""
    first, second = packet.source_port or 0, packet.destination_port or 0
    data = f.transport(
        packet.protocol, packet.source, packet.destination, first, second, data=number.to_bytes(4, "big") * 6
    )
    return f.ip(packet.mac, to.mac, packet.source, packet.destination, packet.protocol, data)


async def test_the_kernel_and_the_pure_function_say_the_same_of_every_packet() -> None:
    chance = random.Random(SEED)
    passed = dropped = 0
    for topology in range(TOPOLOGIES):
        made = random_wiring(chance)
        rules = Rules(made)
        async with lab(["host1"]) as place:
            assert (await place.networks["host1"].apply(made)).not_done == ()
            tunnels: set[tuple[str, str]] = set()
            guests = [await place.plug("host1", one) for one in made.ports]
            for number in range(PACKETS_EACH):
                sender, receiver = chance.sample(guests, 2)
                packet = random_packet(chance, sender.port)
                said = rules.decide(packet, sender=sender.port.id, receiver=receiver.port.id)
                if packet.protocol == f.GRE and (packet.destination, packet.source) in tunnels:
                    continue  # It would be an answer.
                tunnels.add((packet.source, packet.destination))
                got = await receiver.gets(sender, frame_of(packet, receiver.port, number))
                ends = f"from {sender.port} to {receiver.port}"
                assert got == said.passes, f"seed {SEED}, {topology}, {number}: {packet}: {said}, {ends}"
                passed, dropped = passed + got, dropped + (not got)
    assert passed > 50
    assert dropped > 50
