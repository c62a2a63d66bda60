"""Several hosts, and a host whose agent starts again: packets between them, moves, and what is left behind."""

from __future__ import annotations

import json
import subprocess
from unittest import mock

import pytest
from msgspec.structs import replace

from cumulet.drivers.linux_network.links import NoDevice
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.linux_network.skeleton import Tracking
from cumulet.host import wiring as w
from cumulet.host.driver import DriverError
from tests.linux_network import frames as f
from tests.linux_network.lab import Lab, lab, needs_packets
from tests.linux_network.wirings import ALL_IN, ALL_OUT, group, network, port, revisions, rule, tcp, udp

pytestmark = needs_packets

ADDRESSES = {"host1": "192.0.2.1", "host2": "192.0.2.2", "host3": "192.0.2.3"}
OPEN = group(*ALL_OUT, *ALL_IN)


async def wire(place: Lab, where: dict[str, list[w.Port]], *groups: w.Group) -> None:
    """Each host gets its ports and learns where the others are. A port that is not active is a move's destination."""
    for host in where:
        others = [(ADDRESSES[other], port) for other, ports in where.items() if other != host for port in ports]
        of_network = network(
            peers=tuple(sorted({address for address, _ in others})),
            remotes=tuple(w.Remote(mac=port.mac, host_address=address) for address, port in others if port.active),
        )
        answer = await place.networks[host].apply(
            w.Wiring(
                host=host, revision=next(revisions), networks=(of_network,), ports=tuple(where[host]), groups=groups
            )
        )
        assert answer.not_done == ()


async def test_guests_of_two_hosts_reach_each_other_and_the_receivers_rules_hold() -> None:
    async with lab(["host1", "host2"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        web = rule("ingress", protocol=6, range_min=80, range_max=80)
        await wire(place, {"host1": [a], "host2": [b]}, group(*ALL_OUT, web))
        one, two = await place.plug("host1", a), await place.plug("host2", b)
        assert await two.gets(one, f.arp(a.mac, says=("10.0.0.1", a.mac), asks="10.0.0.2"))
        assert not await two.gets(one, tcp(a, b, 22))
        assert await two.gets(one, tcp(a, b, 80))
        assert await one.gets(two, tcp(b, a, 80, flags=f.SYN_ACK, reply=True))
        assert not await one.gets(two, udp(b, a))


async def test_what_hosts_answer_themselves_never_crosses_to_another_host() -> None:
    async with lab(["host1", "host2"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        await wire(place, {"host1": [a], "host2": [b]}, OPEN)
        one, two = await place.plug("host1", a), await place.plug("host2", b)
        asks = f.transport(f.UDP, "0.0.0.0", "255.255.255.255", 68, 67, data=bytes(240))
        solicits = f.transport(f.ICMP6, w.link_local(a.mac), "ff02::2", 133, 0)
        to_metadata = f.transport(f.TCP, "10.0.0.1", w.METADATA_ADDRESS, 40_000, 80)
        for frame in (
            f.ip(a.mac, f.BROADCAST, "0.0.0.0", "255.255.255.255", f.UDP, asks),
            f.ip(a.mac, "33:33:00:00:00:02", w.link_local(a.mac), "ff02::2", f.ICMP6, solicits),
            f.arp(a.mac, says=("10.0.0.1", a.mac), asks=w.METADATA_ADDRESS),
            f.ip(a.mac, b.mac, "10.0.0.1", w.METADATA_ADDRESS, f.TCP, to_metadata),
        ):
            assert not await two.gets(one, frame)


async def test_a_move_is_seen_by_every_host_as_soon_as_they_are_told_though_the_guest_has_said_nothing() -> None:
    async with lab(["host1", "host2", "host3"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        coming = replace(a, active=False)
        await wire(place, {"host1": [a], "host3": [b]}, OPEN)
        source, observer = await place.plug("host1", a), await place.plug("host3", b)
        assert await source.gets(observer, udp(b, a))
        await wire(place, {"host1": [a], "host2": [coming], "host3": [b]}, OPEN)
        destination = await place.plug("host2", coming)
        assert await source.gets(observer, udp(b, a))
        await wire(place, {"host1": [replace(a, active=False)], "host2": [a], "host3": [b]}, OPEN)
        assert await destination.gets(observer, udp(b, a))
        assert await observer.gets(destination, udp(a, b))


async def test_a_connection_outlives_the_agent_and_what_it_does_not_know_of_is_put_right() -> None:
    async with lab(["host1"]) as place:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        web = rule("ingress", protocol=6, range_min=80, range_max=80)
        groups = (group(*ALL_OUT, web),)
        await wire(place, {"host1": [a, b]}, *groups)
        one, two = await place.plug("host1", a), await place.plug("host1", b)
        assert await two.gets(one, tcp(a, b, 80))
        await place.networks["host1"].close()
        _inside(place.namespaces["host1"], "nft", "flush map inet cumulet to")
        assert await two.gets(one, tcp(a, b, 22)), "the test has not taken the rules away"
        place.networks["host1"] = await LinuxNetwork.open(
            local_address="192.0.2.1", tracking=Tracking.BR_NETFILTER, namespace=place.namespaces["host1"]
        )
        assert await one.gets(two, tcp(b, a, 80, flags=f.SYN_ACK, reply=True))
        await wire(place, {"host1": [a, b]}, *groups)
        assert await two.gets(one, tcp(a, b, 80, flags=f.ACK))
        assert not await two.gets(one, tcp(a, b, 22, flags=f.ACK))


async def test_a_change_that_fails_halfway_cuts_the_connections_and_forgets_the_ports_that_it_takes_away() -> None:
    async with lab(["host1"]) as place:
        a, b, c = port("10.0.0.1"), port("10.0.0.2"), port("10.0.0.3")
        web = rule("ingress", protocol=6, range_min=80, range_max=80)
        await wire(place, {"host1": [a, b, c]}, group(*ALL_OUT, web))
        one, two = await place.plug("host1", a), await place.plug("host1", b)
        network = place.networks["host1"]
        await network.tell(c.id, {"user_data": b"of the port that goes"})
        for sender, receiver, flags in ((one, two, f.SYN), (two, one, f.SYN_ACK), (one, two, f.ACK)):
            frame = tcp(sender.port, receiver.port, 80, flags=flags, reply=sender is two)
            assert await receiver.gets(sender, frame)
        busy = mock.patch.object(network._links, "apply", side_effect=OSError("the kernel is busy"))
        with busy, pytest.raises(DriverError, match="busy"):
            await wire(place, {"host1": [a, b]}, group(*ALL_OUT))
        assert not await two.gets(one, tcp(a, b, 80, flags=f.ACK))
        assert network._responding._told == {}
        await wire(place, {"host1": [a, b]}, group(*ALL_OUT))
        assert not await two.gets(one, tcp(a, b, 80, flags=f.ACK))


async def test_a_port_that_could_not_be_plugged_in_can_be_plugged_in_later() -> None:
    async with lab(["host1"]) as place:
        await wire(place, {"host1": [a := port("10.0.0.1")]}, OPEN)
        network = place.networks["host1"]
        refused = mock.patch.object(network._links, "attach", side_effect=NoDevice("not yet"))
        with refused, pytest.raises(DriverError, match="not yet"):
            await network.plug(a.id)
        await place.plug("host1", a)


def _inside(namespace: str, *command: str) -> bytes:
    return subprocess.run(["ip", "netns", "exec", namespace, *command], check=True, capture_output=True).stdout


def _seen(namespace: str) -> tuple[set[str], set[str]]:
    """Interfaces and tables in a namespace."""
    links = json.loads(_inside(namespace, "ip", "-j", "link"))
    tables = json.loads(_inside(namespace, "nft", "-j", "list", "tables"))
    return {link["ifname"] for link in links}, {
        f"{entry['table']['family']} {entry['table']['name']}" for entry in tables["nftables"] if "table" in entry
    }


async def test_what_is_not_ours_is_left_alone_and_what_is_ours_goes_without_a_trace() -> None:
    async with lab(["host1"]) as place:
        namespace = place.namespaces["host1"]
        for command in (
            ["ip", "link", "add", "theirs", "type", "bridge"],
            ["ip", "link", "add", "cm", "type", "bridge"],
            ["nft", "add table inet theirs"],
        ):
            _inside(namespace, *command)
        await place.networks["host1"].remove()
        before = _seen(namespace)
        await place.networks["host1"].close()
        place.networks["host1"] = again = await LinuxNetwork.open(
            local_address="192.0.2.1", tracking=Tracking.BR_NETFILTER, namespace=namespace
        )
        a = port("10.0.0.1")
        await wire(place, {"host1": [a]}, OPEN)
        await place.plug("host1", a)
        links, tables = _seen(namespace)
        assert len(links - before[0]) == 3
        assert tables - before[1] == {"bridge cumulet", "inet cumulet"}
        await wire(place, {"host1": []}, OPEN)
        await again.remove()
        assert _seen(namespace) == before


async def test_a_network_that_a_host_cannot_connect_is_said_and_its_ports_are_refused() -> None:
    async with lab(["host1"]) as place:
        a = port("10.0.0.1")
        answer = await place.networks["host1"].apply(
            w.Wiring(
                host="host1",
                revision=next(revisions),
                networks=(network(kind="vlan", vni=None),),
                ports=(a,),
                groups=(OPEN,),
            )
        )
        assert answer.ports == ()
        assert [(entry.subject, "vlan" in entry.reason) for entry in answer.not_done] == [(a.network_id, True)]
