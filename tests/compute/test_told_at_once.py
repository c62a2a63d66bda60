"""A change of a group reaches the hosts of all its ports at its commit: in these tests no timer fires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, cast
from unittest import mock

import pytest
import sqlalchemy as sa
from sqlalchemy.sql import visitors

import cumulet.testing
from cumulet.compute import descriptions, hosts_in_memory, wiring
from cumulet.compute.store import hosts as host_table
from cumulet.compute.wiring import Wirings
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.link import Link
from cumulet.host.wiring import Wiring
from cumulet.network import wiring as network
from cumulet.testing import TestCloud
from tests.api.test_metering import label as metering_label
from tests.api.test_metering import rule as metering_rule
from tests.api.test_qos import qos_policy
from tests.links import Way, instead
from tests.testing.test_reachability import made, port_of

HOSTS = 10
NEVER = 1e6
"""Seconds until the timer fires: longer than a test."""


class Heard(Way):
    """Counts how often its host is told, and notes when it is told the wiring that the test waits for."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.told = 0
        self.last: Wiring | None = None
        self.news = asyncio.Event()

    async def send(self, message: m.Message[object]) -> object:
        answer = await super().send(message)
        if isinstance(message, m.ApplyWiring):
            self.told += 1
            self.last = message.wiring
            self.news.set()
        return answer

    async def until(self, holds: Callable[[Wiring], bool]) -> None:
        while self.last is None or not holds(self.last):
            self.news.clear()
            await self.news.wait()


class Fleet:
    """Ten hosts with a port each, all in one group; another group and an address group that its rules may name."""

    def __init__(self, cloud: TestCloud, ways: dict[str, Heard]) -> None:
        self.cloud = cloud
        self.member = cloud.persona("admin")
        self.ways = ways
        self.network = made(self.member, "network", name="n")
        made(self.member, "subnet", network_id=self.network, cidr="10.8.0.0/24", ip_version=4)
        self.group = made(self.member, "security_group", name="web")
        self.other = made(self.member, "security_group", name="other")
        self.listed = made(self.member, "address_group", name="listed", addresses=["192.0.2.1/32"])
        for named in ({"remote_group_id": self.other}, {"remote_address_group_id": self.listed}):
            self.rule(ethertype="IPv4", **named)
        groups = [{"name": "web"}]
        self.ports = [
            port_of(self.member, self.network, security_groups=groups, availability_zone=f"nova:{host}")
            for host in cloud.hosts
        ]

    def rule(self, **attributes: object) -> str:
        return made(self.member, "security_group_rule", security_group_id=self.group, direction="ingress", **attributes)

    def a_port_is_renamed(self) -> None:
        answer = self.member.request("PUT", f"/network/v2.0/ports/{self.ports[0]}", {"port": {"dns_name": "renamed"}})
        assert answer.status == 200, answer.text

    def all_hear(self, holds: Callable[[Wiring], bool]) -> None:
        async def heard() -> None:
            async with asyncio.timeout(60):
                await asyncio.gather(*(way.until(holds) for way in self.ways.values()))

        self.cloud.await_(heard())

    def members(self, told: Wiring, group: str) -> tuple[str, ...]:
        return next((one.members for one in told.groups if one.id == group), ())

    def rules(self, told: Wiring) -> set[str]:
        return {rule.id for group in told.groups if group.id == self.group for rule in group.rules}


def a_rule_is_made(fleet: Fleet) -> Callable[[Wiring], bool]:
    rule = fleet.rule(protocol="tcp", port_range_min=22, port_range_max=22)
    return lambda told: rule in fleet.rules(told)


def a_rule_goes(fleet: Fleet) -> Callable[[Wiring], bool]:
    rule = fleet.rule(protocol="tcp", port_range_min=23, port_range_max=23)
    assert fleet.member.request("DELETE", f"/network/v2.0/security-group-rules/{rule}").status == 204
    return lambda told: rule not in fleet.rules(told)


def an_address_group_grows(fleet: Fleet) -> Callable[[Wiring], bool]:
    body = {"addresses": ["192.0.2.2/32"]}
    answer = fleet.member.request("PUT", f"/network/v2.0/address-groups/{fleet.listed}/add_addresses", body)
    assert answer.status == 200, answer.text
    return lambda told: "192.0.2.2" in fleet.members(told, fleet.listed)


def a_port_joins_the_remote_group(fleet: Fleet) -> Callable[[Wiring], bool]:
    body = {"port": {"security_groups": [fleet.group, fleet.other]}}
    answer = fleet.member.request("PUT", f"/network/v2.0/ports/{fleet.ports[0]}", body)
    assert answer.status == 200, answer.text
    (address,) = (fixed["ip_address"] for fixed in answer["port"]["fixed_ips"])
    return lambda told: address in fleet.members(told, fleet.other)


def a_server_joins_the_remote_group(fleet: Fleet) -> Callable[[Wiring], bool]:
    port = fleet.member.request("GET", f"/network/v2.0/ports/{fleet.ports[1]}")["port"]
    answer = fleet.member.action(port["device_id"], {"addSecurityGroup": {"name": "other"}})
    assert answer.status == 202, answer.text
    return lambda told: port["fixed_ips"][0]["ip_address"] in fleet.members(told, fleet.other)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with cumulet.testing.cloud(hosts=HOSTS) as cloud, ExitStack() as ways:
        # Simulated hosts have no packets, so only sagas would tell them.
        ways.enter_context(mock.patch.object(hosts_in_memory, "with_packets", return_value=list(cloud.hosts)))
        told = {host: ways.enter_context(instead(cloud, host, Heard)) for host in cloud.hosts}
        wirings = cloud.embedded.conductor.reconciler(Wirings)
        cloud.await_(wirings.stop())
        wirings.seconds = NEVER
        cloud.await_(wirings.start())
        yield Fleet(cloud, told)


@pytest.mark.parametrize(
    "change",
    [
        a_rule_is_made,
        a_rule_goes,
        an_address_group_grows,
        a_port_joins_the_remote_group,
        a_server_joins_the_remote_group,
    ],
    ids=lambda change: str(change.__name__),
)
def test_all_hosts_of_a_groups_ports_are_told_at_its_commit(
    fleet: Fleet, change: Callable[[Fleet], Callable[[Wiring], bool]]
) -> None:
    fleet.all_hear(change(fleet))


def test_a_change_of_nothing_that_they_know_tells_them_nothing(fleet: Fleet) -> None:
    # Who has heard of this has heard of all that earlier tests changed.
    first = fleet.rule(protocol="udp", port_range_min=52, port_range_max=52)
    fleet.all_hear(lambda told: first in fleet.rules(told))
    before = {host: way.told for host, way in fleet.ways.items()}
    made(fleet.member, "network", name="nobody is there")
    rule = fleet.rule(protocol="udp", port_range_min=53, port_range_max=53)
    fleet.all_hear(lambda told: rule in fleet.rules(told))
    told = {host: way.told - before[host] for host, way in fleet.ways.items()}
    assert told == dict.fromkeys(fleet.ways, 1), "of the rule, and not of the network"


def test_the_tables_that_are_watched_are_those_that_wirings_are_read_from(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = fleet.member
    public = member.request("GET", "/network/v2.0/networks?name=public")["networks"][0]["id"]
    router = made(member, "router", name="r", external_gateway_info={"network_id": public})
    port = member.request("GET", f"/network/v2.0/ports/{fleet.ports[0]}")["port"]
    subnet = port["fixed_ips"][0]["subnet_id"]
    path = f"/network/v2.0/routers/{router}/add_router_interface"
    assert member.request("PUT", path, {"subnet_id": subnet}).status == 200
    made(member, "floatingip", floating_network_id=public, port_id=fleet.ports[1])
    policy = qos_policy(fleet.cloud.persona("admin"), ("egress", 1000, 0), project_id=member.project_id)
    limited = {"port": {"qos_policy_id": policy}}
    assert member.request("PUT", f"/network/v2.0/ports/{fleet.ports[0]}", limited).status == 200
    label = metering_label(fleet.cloud.persona("admin"), project_id=member.project_id)
    metering_rule(fleet.cloud.persona("admin"), label, direction="egress", source_ip_prefix="10.0.0.0/8")
    read: set[str] = set()
    ours: list[Tx] = []
    """Others read meanwhile."""

    def noting(real: Callable[..., object]) -> Callable[..., Any]:
        def note(tx: Tx, statement: sa.Select[object], *values: object) -> Any:
            if tx in ours:
                read.update(element.name for element in visitors.iterate(statement) if isinstance(element, sa.Table))
            return real(tx, statement, *values)

        return note

    for name in ("all", "first"):
        monkeypatch.setattr(Tx, name, noting(getattr(Tx, name)))

    def described(tx: Tx) -> None:
        ours.append(tx)
        descriptions.descriptions(tx, fleet.cloud.hosts)

    fleet.cloud.embedded.db.read(described)
    assert read == wiring.WATCHED | {"hosts"}


def test_a_heartbeat_of_a_host_begins_no_round(fleet: Fleet) -> None:
    """A heartbeat writes the host's row, every few seconds for each host with guests."""
    db = fleet.cloud.embedded.db
    woken: list[str] = []
    watch = db.watch(wiring.WATCHED, lambda: woken.append("a commit"))
    try:
        db.write(lambda tx: tx.execute(sa.update(host_table).values(seen_at_us=host_table.c.seen_at_us + 1)))
        assert woken == []
        fleet.rule(remote_group_id=fleet.group)
        assert woken
    finally:
        db.unwatch(watch)


def read_wirings(fleet: Fleet, hosts: Collection[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[Wiring], int]:
    """The wirings of these hosts, and how many rows were read for them."""
    rows, ours = 0, cast("Tx | None", None)
    real = cast("Callable[..., list[object]]", Tx.all)

    def count(tx: Tx, *given: object) -> list[object]:
        nonlocal rows
        found = real(tx, *given)
        rows += len(found) if tx is ours else 0
        return found

    def read(tx: Tx) -> list[Wiring]:
        nonlocal ours
        ours = tx
        return list(descriptions.descriptions(tx, hosts).values())

    with monkeypatch.context() as patched:
        patched.setattr(Tx, "all", count)
        return fleet.cloud.embedded.db.read(read), rows


def test_what_is_the_same_for_all_hosts_is_read_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    together, rows = read_wirings(fleet, fleet.cloud.hosts, monkeypatch)
    alone = [read_wirings(fleet, [host], monkeypatch) for host in fleet.cloud.hosts]
    assert together == [wiring for (wiring,), _ in alone]
    assert rows < 2.5 * min(of_one for _, of_one in alone), "the rest is of the hosts' own ports"


def test_what_has_not_changed_is_the_same_object_when_it_is_read_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two threads that make the same thing at once, this one and the cloud's own, have one each: one of them is kept.
    read_wirings(fleet, fleet.cloud.hosts, monkeypatch)
    (before, *_), _ = read_wirings(fleet, fleet.cloud.hosts, monkeypatch)
    fleet.rule(protocol="tcp", port_range_min=24, port_range_max=24)
    (after, *_), _ = read_wirings(fleet, fleet.cloud.hosts, monkeypatch)
    assert before != after
    assert [id(port) for port in before.ports] == [id(port) for port in after.ports]
    for one, again in zip(before.networks, after.networks, strict=True):
        assert one.names or one.kind == "flat"
        assert one.remotes or one.id != fleet.network, "a router that is on this host is alone on its network"
        assert [id(part) for part in (*one.names, *one.remotes)] == [
            id(part) for part in (*again.names, *again.remotes)
        ]


def test_the_timer_reads_no_wiring_where_nothing_can_be_new(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = descriptions.Reading.of

    async def reading(of: descriptions.Reading, host: str) -> Wiring:
        read.append(host)
        return await real(of, host)

    monkeypatch.setattr(descriptions.Reading, "of", reading)
    wirings = fleet.cloud.embedded.conductor.reconciler(Wirings)

    def round_reads() -> list[str]:
        read.clear()
        fleet.cloud.await_(wirings.round())
        return sorted(set(read))

    rule = fleet.rule(protocol="udp", port_range_min=24, port_range_max=24)
    fleet.all_hear(lambda told: rule in fleet.rules(told))
    round_reads()
    assert round_reads() == []
    fleet.cloud.embedded.hosts.has_started("host3")
    assert round_reads() == ["host3"], "an agent that has started anew knows nothing"
    moved = hosts_in_memory.as_wired(fleet.cloud.embedded.db.read(lambda tx: tx)), "an address of a host"
    with mock.patch.object(hosts_in_memory, "as_wired", return_value=moved):
        assert round_reads() == sorted(fleet.cloud.hosts)
        assert round_reads() == []
    assert round_reads() == sorted(fleet.cloud.hosts)
    with mock.patch.object(hosts_in_memory, "as_wired", return_value=None):
        assert round_reads() == sorted(fleet.cloud.hosts), "other processes write, too"


@pytest.mark.parametrize("meanwhile", [False, True])
def test_after_a_change_of_a_group_only_groups_are_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    """Unless something else is committed while they are: then all is read again."""
    wirings = fleet.cloud.embedded.conductor.reconciler(Wirings)
    rule = fleet.rule(protocol="udp", port_range_min=26 + meanwhile, port_range_max=26 + meanwhile)
    fleet.all_hear(lambda told: rule in fleet.rules(told))
    fleet.cloud.await_(wirings.round())
    read: list[str] = []
    whole = descriptions._without_groups
    groups = network.with_groups

    def reading(tx: Tx, hosts: Collection[str]) -> dict[str, network.WithoutGroups]:
        read.extend(hosts)
        return whole(tx, hosts)

    def changing(tx: Tx, of: Mapping[str, network.WithoutGroups]) -> dict[str, Wiring]:
        if meanwhile:
            wirings._hear_beside_groups()
        return groups(tx, of)

    monkeypatch.setattr(descriptions, "_without_groups", reading)
    monkeypatch.setattr(network, "with_groups", changing)
    rule = fleet.rule(protocol="udp", port_range_min=36 + meanwhile, port_range_max=36 + meanwhile)
    fleet.all_hear(lambda told: rule in fleet.rules(told))
    assert set(read) == (set(fleet.cloud.hosts) if meanwhile else set())
    fleet.a_port_is_renamed()
    fleet.all_hear(lambda told: any(name.hostname == "renamed" for of in told.networks for name in of.names))
    assert set(read) == set(fleet.cloud.hosts)


def test_what_was_written_while_nobody_watched_is_told_after_the_start(fleet: Fleet) -> None:
    wirings = fleet.cloud.embedded.conductor.reconciler(Wirings)
    fleet.cloud.await_(wirings.stop())
    rule = fleet.rule(protocol="udp", port_range_min=25, port_range_max=25)
    fleet.cloud.await_(wirings.start())
    fleet.cloud.await_(wirings.round())
    fleet.all_hear(lambda told: rule in fleet.rules(told))


class Together(Way):
    """Once it is told that a port has moved, it answers when the other host is told that, too."""

    def __init__(self, link: Link, both: asyncio.Barrier, has_moved: Callable[[Wiring], bool]) -> None:
        super().__init__(link)
        self._both, self._has_moved = both, has_moved
        self.together = False

    async def send(self, message: m.Message[Any]) -> Any:
        answer = await super().send(message)
        if isinstance(message, m.ApplyWiring) and not self.together and self._has_moved(message.wiring):
            async with asyncio.timeout(10):
                await self._both.wait()
            self.together = True
        return answer


def test_both_hosts_are_told_of_the_end_of_a_move_at_once() -> None:
    """The guest stands still until they have answered. Simulated hosts are told by the move alone."""
    with cumulet.testing.cloud(hosts=2) as cloud:
        admin = cloud.persona("admin")
        network = made(admin, "network", name="n")
        made(admin, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
        port, *_ = (port_of(admin, network, availability_zone=f"nova:{host}") for host in ("host1", *cloud.hosts))
        server = admin.request("GET", f"/network/v2.0/ports/{port}")["port"]["device_id"]
        both = asyncio.Barrier(2)

        def source(link: Link) -> Together:
            return Together(link, both, lambda told: port not in {one.id for one in told.ports})

        def destination(link: Link) -> Together:
            return Together(link, both, lambda told: port in {one.id for one in told.ports if one.active})

        with instead(cloud, "host1", source) as left, instead(cloud, "host2", destination) as reached:
            assert admin.action(server, {"os-migrateLive": {"block_migration": "auto", "host": "host2"}}).status == 202
            cloud.idle()
            assert (left.together, reached.together) == (True, True)
        assert admin.server(server)["OS-EXT-SRV-ATTR:host"] == "host2"
