"""Which connections the kernel has to forget after a change, and that their number holds up nobody for long."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import pytest
from msgspec.structs import replace

from cumulet.drivers.linux_network import connections, forgetting, names
from cumulet.drivers.linux_network.connections import Connection
from cumulet.drivers.linux_network.forgetting import Forgetting
from cumulet.drivers.linux_network.routers import _Translation
from cumulet.host import wiring as w
from cumulet.host.verdict import Packet, Rules
from tests.host.test_prefixes import holds
from tests.linux_network.lab import lab, needs_packets
from tests.linux_network.test_same_verdict import addresses, random_wiring
from tests.linux_network.wirings import ALL_IN, ALL_OUT, NETWORK, group, network, port, revisions, rule, udp

ZONE = 5
ZONES = {names.bridge(NETWORK): ZONE}


def connection(
    source: str, destination: str, *, number: int = 80, own: int = 1000, protocol: int = 6, zone: int = ZONE
) -> Connection:
    return Connection(
        zone=zone,
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=own,
        destination_port=number,
        answered_by=destination,
        answered_to=source,
        answered_from_port=number,
        family=2,
        key=b"",
    )


class Kernel:
    """Tracks these connections, until they are ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tracked: Sequence[Connection]) -> None:
        self.tracked = list(tracked)
        monkeypatch.setattr(connections, "tracked", self._list)
        monkeypatch.setattr(connections, "end", lambda _, ended: self.tracked.remove(ended))

    def _list(self, _: object) -> Iterator[Connection]:
        return iter(list(self.tracked))


def simple(wiring: w.Wiring) -> Callable[[Connection], bool]:
    """Whether a connection would pass, the simple way: one prefix after another."""
    rules = Rules(wiring)
    pairs = [(pair.prefix, port) for port in wiring.ports for pair in w.own_pairs(port)]

    def owner(address: str) -> str | None:
        exact = [port.id for prefix, port in pairs if prefix == address]
        return exact[-1] if exact else next((port.id for prefix, port in pairs if holds(prefix, address)), None)

    def passes(one: Connection) -> bool:
        sender, receiver = owner(one.source), owner(one.destination)
        if sender is None and receiver is None:
            return False
        packet = Packet(
            mac="",
            source=one.source,
            destination=one.destination,
            protocol=one.protocol,
            source_port=one.source_port,
            destination_port=one.destination_port,
        )
        return rules.decide_by_groups(packet, sender=sender, receiver=receiver).passes

    return passes


def random_connections(chance: random.Random) -> list[Connection]:
    versions = [chance.choice((4, 4, 6)) for _ in range(150)]
    return [
        connection(addresses(chance, v), addresses(chance, v), number=chance.choice((22, 53, 80, 443)), own=own)
        for own, v in enumerate(versions)
    ]


def random_change(chance: random.Random, wiring: w.Wiring) -> w.Wiring:
    """One thing is otherwise: a port, a group, or one that is gone."""
    other, kind = random_wiring(chance), chance.randrange(4)
    place = chance.randrange(len(wiring.groups))
    if kind == 0:
        groups = [*wiring.groups]
        groups[place] = replace(other.groups[place], id=groups[place].id)
        return replace(wiring, groups=tuple(groups))
    if kind == 1 and wiring.ports:
        return replace(wiring, ports=wiring.ports[1:])
    if kind == 2:
        return replace(wiring, ports=(*wiring.ports, *other.ports[: chance.randrange(3)]))
    groups = [*wiring.groups]
    groups[place] = replace(groups[place], members=other.groups[place].members)
    return replace(wiring, groups=tuple(groups))


@pytest.mark.parametrize("seed", range(30))
def test_what_is_forgotten_is_what_would_not_pass_though_only_what_changed_is_judged(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    kernel = Kernel(monkeypatch, random_connections(chance))
    judging, before, wiring = Forgetting(), None, random_wiring(chance)
    for _ in range(8):
        expected = [one for one in kernel.tracked if simple(wiring)(one)]
        judging.change(before, wiring, ZONES, ZONES)
        assert not judging.under_way
        assert kernel.tracked == expected
        before, wiring = wiring, random_change(chance, wiring)


@pytest.mark.parametrize("seed", range(30))
def test_in_pieces_with_changes_between_them_nothing_stays_that_would_not_pass(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    begun = random_connections(chance)
    kernel = Kernel(monkeypatch, begun)
    monkeypatch.setattr(forgetting, "AT_ONCE_SECONDS", 0.0)
    judging, before, wiring = Forgetting(), None, random_wiring(chance)
    judges = []
    for _ in range(5):
        judges.append(simple(wiring))
        judging.change(before, wiring, ZONES, ZONES)
        for _ in range(chance.randrange(200)):
            judging.go_on(0.0)
        before, wiring = wiring, random_change(chance, wiring)
    pieces = 0
    while judging.go_on(0.0):
        pieces += 1
    assert pieces <= 2 * len(begun)
    assert not judging.under_way
    assert all(judges[-1](one) for one in kernel.tracked)
    for one in begun:
        assert one in kernel.tracked or not all(judge(one) for judge in judges)


def wiring_of_two() -> w.Wiring:
    """Two ports, each in a group of its own. The group of the first names a third as remote."""
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(3)]
    groups = (
        group(*ALL_OUT, rule("ingress", remote_group=ids[2]), group_id=ids[0]),
        group(*ALL_OUT, *ALL_IN, group_id=ids[1]),
        group(group_id=ids[2], members=("192.0.2.1",)),
    )
    ports = (port("10.0.0.1", groups=(ids[0],)), port("10.0.0.2", groups=(ids[1],)))
    return w.Wiring(host="host1", networks=(network(),), ports=ports, groups=groups)


def test_connections_of_ports_for_which_nothing_changed_are_not_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = wiring_of_two()
    first, second = before.ports
    kernel = Kernel(
        monkeypatch,
        [
            *(connection("192.0.2.1", "10.0.0.1", own=own) for own in range(3)),
            *(connection("192.0.2.9", "10.0.0.2", own=own) for own in range(20)),
        ],
    )
    one, two, three = before.groups
    changes = {
        "members": (replace(before, groups=(one, two, replace(three, members=("192.0.2.1", "192.0.2.2")))), 3),
        "rules": (replace(before, groups=(one, replace(two, rules=ALL_IN), three)), 20),
        "port": (replace(before, ports=(replace(first, addresses=("10.0.0.1",)), second)), 3),
        "name": (replace(before, ports=(replace(first, hostname="other", active=False), second)), 0),
        "unused": (replace(before, groups=(one, two, three, group(*ALL_IN, group_id="unused"))), 0),
    }
    for wiring, judged in changes.values():
        judging = Forgetting()
        with mock.patch.object(Rules, "decide_by_groups", autospec=True, side_effect=Rules.decide_by_groups) as decided:
            judging.change(before, wiring, ZONES, ZONES)
        assert decided.call_count == judged
    assert len(kernel.tracked) == 23


def test_after_a_failure_all_are_judged_and_a_network_that_is_gone_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wiring = wiring_of_two()
    kernel = Kernel(monkeypatch, [connection("192.0.2.1", "10.0.0.1"), connection("192.0.2.9", "10.0.0.1")])
    judging = Forgetting()
    with mock.patch.object(connections, "tracked", side_effect=OSError("busy")), pytest.raises(OSError, match="busy"):
        judging.change(None, wiring, {}, ZONES)
    assert judging.under_way
    judging.change(wiring, wiring, ZONES, ZONES)
    assert [one.source for one in kernel.tracked] == ["192.0.2.1"]
    judging.change(wiring, w.Wiring(host="host1"), ZONES, {})
    assert kernel.tracked == []
    judging.reset()
    assert not judging.go_on()


@needs_packets
async def test_many_connections_let_other_work_pass_and_are_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "AT_ONCE_SECONDS", 0.0)
    monkeypatch.setattr(forgetting, "PIECE_SECONDS", 0.0)
    monkeypatch.setattr(Forgetting.go_on, "__defaults__", (0.0,))
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        made = w.Wiring(host="host1", networks=(network(),), ports=(a, b), groups=(group(*ALL_OUT, *ALL_IN),))
        host = place.networks["host1"]
        await host.apply(replace(made, revision=next(revisions)))
        one, two = await place.plug("host1", a), await place.plug("host1", b)
        for number in range(5000, 5050):
            assert await two.gets(one, udp(a, b, number))
        ended = mock.Mock(side_effect=connections.end)
        monkeypatch.setattr(connections, "end", ended)
        await host.apply(replace(made, revision=next(revisions), groups=(group(*ALL_OUT),)))
        assert ended.call_count < 50
        assert host._forgetting.under_way
        await host.in_force()  # Comes in between.
        assert host._forgetting.under_way
        assert host._forgetting_rest is not None
        await host._forgetting_rest
        assert not host._forgetting.under_way
        assert ended.call_count == 50


def test_a_forwarding_among_many_is_found() -> None:
    forwardings = tuple(
        w.Forwarding(outside="192.0.2.5", protocol=6, outside_ports=ports, inside="10.0.0.1", inside_ports=inside)
        for ports, inside in (((80, 80), (8080, 8080)), ((1000, 1009), (2000, 2009)), ((20, 29), (22, 22)))
    )
    asked = _Translation(w.Router(id="r", interfaces=(), forwardings=forwardings))

    def lasts(number: int, inside: int, protocol: int = 6) -> bool:
        made = connection("198.51.100.1", "192.0.2.5", number=number, protocol=protocol)
        made = _answered(made, "10.0.0.1", inside)
        return asked.lasts(made)

    for number, inside in ((80, 8080), (1000, 2000), (1009, 2009), (20, 22), (29, 22)):
        assert lasts(number, inside)
        assert not lasts(number, inside + 1)
        assert not lasts(number, inside, protocol=17)
    for number in (19, 30, 79, 81, 999, 1010):
        assert not lasts(number, 22)


def _answered(made: Connection, by: str, port_number: int) -> Connection:
    values = {name: getattr(made, name) for name in Connection.__slots__}
    return Connection(**values | {"answered_by": by, "answered_from_port": port_number})
