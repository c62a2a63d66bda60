"""The quick search in addresses and prefixes answers as a look at each of them in turn does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from unittest import mock

import pytest

from cumulet.host import prefixes
from cumulet.host.prefixes import Holders, Prefixes
from cumulet.host.verdict import TCP, Packet, Rules
from cumulet.host.wiring import Direction, Group, Rule, Wiring
from tests.host.test_verdict import port, rule


def holds(prefix: str, address: str) -> bool:
    """The simple way."""
    return ip_address(address) in ip_network(prefix) if "/" in prefix else prefix == address


def holder(held: Sequence[tuple[str, int]], address: str) -> int | None:
    """The simple way: of those with exactly this address the last, else of those with a prefix the first."""
    exact = [who for prefix, who in held if prefix == address]
    within = [who for prefix, who in held if "/" in prefix and holds(prefix, address)]
    return exact[-1] if exact else next(iter(within), None)


def some_address(chance: random.Random, version: int) -> str:
    """Near the lowest, the highest, or one between: so that prefixes meet, overlap and hold each other."""
    bits = 32 if version == 4 else 128
    base = chance.choice((0, 0x0A000000 << (bits - 32), (1 << bits) - 256))
    number = base + chance.choice((chance.randrange(256), chance.randrange(16)))
    # As a number, one of IPv6 that is low would be of IPv4.
    return str(ip_address(number.to_bytes(bits // 8, "big")))


def some_prefix(chance: random.Random) -> str:
    version = chance.choice((4, 6))
    address, bits = some_address(chance, version), 32 if version == 4 else 128
    if chance.random() < 0.3:
        return address
    length = chance.choice((0, 1, 8, bits - 8, bits - 4, bits - 3, bits - 2, bits - 1, bits))
    if length == 0 and chance.random() < 0.9:
        length = bits - 2  # What holds everything hides all others.
    return str(ip_network(f"{address}/{length}", strict=False))


@pytest.mark.parametrize("seed", range(20))
def test_they_hold_what_one_of_them_holds(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        held = [some_prefix(chance) for _ in range(chance.randrange(25))]
        found = Prefixes(held)
        for _ in range(40):
            address = some_address(chance, chance.choice((4, 6)))
            assert found.hold(address) == any(holds(prefix, address) for prefix in held), (held, address)


@pytest.mark.parametrize("seed", range(20))
def test_of_several_holders_it_is_the_same_one(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        held = [(some_prefix(chance), who) for who in range(chance.randrange(25))]
        found = Holders(held)
        for _ in range(40):
            address = some_address(chance, chance.choice((4, 6)))
            assert found.of(address) == holder(held, address), (held, address)


def test_what_is_no_prefix_is_refused() -> None:
    for wrong in ("10.0.0.0/x", "10.0.0/24", "2001:db8:::/64"):
        with pytest.raises((OSError, ValueError)):
            Prefixes([wrong])
        with pytest.raises((OSError, ValueError)):
            Holders([(wrong, 1)])


def test_a_wiring_s_prefixes_are_read_once_however_many_packets_are_decided() -> None:
    members = tuple(f"10.{number >> 8}.{number & 255}.0/25" for number in range(1000))
    rules: tuple[Rule, ...] = tuple(
        rule(f"r{number}", direction=Direction.IN, protocol=TCP, range_min=number, remote_group="listed")
        for number in range(1, 51)
    )
    groups = (
        Group(id="g", stateful=True, rules=rules, members=()),
        Group(id="listed", stateful=True, rules=(), members=members),
    )
    judge = Rules(Wiring(host="h", ports=(port(),), groups=groups))

    def packet(number: int) -> Packet:
        source = f"10.0.{number}.200"  # In none of them.
        return Packet(mac="", source=source, destination="10.0.0.5", protocol=TCP, source_port=1, destination_port=50)

    with mock.patch.object(prefixes, "_number", wraps=prefixes._number) as read:
        for number in range(200):
            assert not judge.decide_by_groups(packet(number), sender=None, receiver="p").passes
    assert read.call_count == 1000 + 200 * 50
