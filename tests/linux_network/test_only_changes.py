"""A change costs a host what it changes: the rest of its network is neither read nor compared nor made again."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from unittest import mock

import pytest
from msgspec.structs import replace
from pyroute2 import IPRoute

from cumulet.drivers.linux_network import connections, dhcp, links, names, rtnetlink
from cumulet.drivers.linux_network.responding import Responding
from cumulet.drivers.linux_network.ruleset import collapsed
from cumulet.host import wiring as w
from cumulet.host.driver import DriverError
from tests.linux_network.lab import Lab, lab, needs_packets
from tests.linux_network.wirings import ALL_IN, ALL_OUT, NETWORK, group, network, port, revisions

FAR, OTHER_FAR = (w.Remote(mac=f"02:00:00:00:ff:0{number}", host_address=f"192.0.2.{number + 1}") for number in (1, 2))
PORT = port("10.0.0.1")


class Counted:
    """How often a host has read its kernel's tables, and made and said what guests are answered."""

    def __init__(self, stack: ExitStack) -> None:
        self.calls: Counter[str] = Counter()
        for what, name in (
            (rtnetlink, "entries"),
            (dhcp, "leases"),
            (Responding, "_say"),
            (links.Links, "_network"),
            (connections, "tracked"),
        ):
            stack.enter_context(mock.patch.object(what, name, self._counting(name, getattr(what, name))))

    def _counting(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def counting(*given: object, **named: object) -> object:
            self.calls[name] += 1
            return real(*given, **named)

        return counting

    def taken(self) -> dict[str, int]:
        calls, self.calls = dict(self.calls), Counter()
        return calls


def wiring(*groups: w.Group, **more: object) -> w.Wiring:
    made = network(peers=(FAR.host_address,), remotes=(FAR,), dns_domain="openstacklocal.")
    return w.Wiring(host="host1", networks=(replace(made, **more),), ports=(PORT,), groups=groups or (group(*ALL_OUT),))


async def told(place: Lab, wanted: w.Wiring) -> tuple[w.NotDone, ...]:
    return (await place.networks["host1"].apply(replace(wanted, revision=next(revisions)))).not_done


def reached(place: Lab) -> dict[str, str]:
    """By MAC address, the host where the VXLAN device sends frames; empty where only the bridge knows the address."""
    command = ["ip", "netns", "exec", place.namespaces["host1"], "bridge", "-j", "fdb", "show"]
    listed = json.loads(subprocess.run([*command, "dev", names.vxlan(NETWORK)], check=True, capture_output=True).stdout)
    through = {one["mac"] for one in listed if "master" in one and one["state"] == "static"}
    sent = {one["mac"]: one["dst"] for one in listed if "dst" in one and one["mac"] != links.EVERYBODY}
    assert sent.keys() <= through
    return dict.fromkeys(through, "") | sent


@needs_packets
async def test_a_change_of_a_group_is_a_change_of_rules_alone() -> None:
    async with lab(["host1"]) as place:
        await told(place, wiring(group(*ALL_OUT)))
        with ExitStack() as stack:
            counted = Counted(stack)
            await told(place, wiring(group(*ALL_OUT, *ALL_IN)))
            assert counted.taken() == {"tracked": 1}
            await told(place, wiring(group(*ALL_OUT, *ALL_IN), names=(w.Name(hostname="a", addresses=("10.0.0.1",)),)))
            assert counted.taken() == {"leases": 1, "_say": 1}


@needs_packets
async def test_where_other_ports_are_is_changed_without_reading_where_they_were() -> None:
    async with lab(["host1"]) as place:
        await told(place, wiring())
        moved = w.Remote(mac=FAR.mac, host_address=OTHER_FAR.host_address)
        peers = (FAR.host_address, OTHER_FAR.host_address)
        with ExitStack() as stack:
            counted = Counted(stack)
            for remotes in ((FAR, OTHER_FAR), (OTHER_FAR,), (FAR, OTHER_FAR), (moved, OTHER_FAR), ()):
                assert await told(place, wiring(remotes=remotes, peers=peers)) == ()
                assert reached(place) == {one.mac: one.host_address for one in remotes}
            assert counted.taken() == {"_network": 5}


@needs_packets
async def test_many_ports_of_other_hosts_are_changed_at_once_and_a_change_that_is_refused_is_said() -> None:
    many = [w.Remote(mac=f"02:00:00:01:{number:02x}:00", host_address="192.0.2.2") for number in range(250)]
    async with lab(["host1"]) as place:
        for remotes in (many, many[120:], many):
            assert await told(place, wiring(remotes=tuple(remotes))) == ()
            assert reached(place) == {one.mac: one.host_address for one in remotes}
        networks = place.networks["host1"]
        index = (await networks._run(networks._links.present))[names.vxlan(NETWORK)].index
        absent = [rtnetlink.Change(mac="02:00:00:02:00:00", by_device=table, remove=True) for table in (True, False)]
        await networks._run(lambda: rtnetlink.change(index, absent))
        no_host = rtnetlink.Change(mac="02:00:00:02:00:00", by_device=True, destination="192.0.2.2", beside=True)
        with pytest.raises(DriverError, match="No such device"):
            await networks._run(lambda: rtnetlink.change(1 << 20, [no_host]))


@needs_packets
async def test_what_somebody_has_changed_is_put_right_when_the_same_is_told_and_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with lab(["host1"]) as place:

        def spoil() -> None:
            command = ["bridge", "fdb", "del", FAR.mac, "dev", names.vxlan(NETWORK), "dst", FAR.host_address]
            subprocess.run(["ip", "netns", "exec", place.namespaces["host1"], *command], check=True)
            assert reached(place) == {FAR.mac: ""}

        await told(place, wiring())
        spoil()
        await told(place, wiring())
        assert reached(place) == {FAR.mac: FAR.host_address}
        spoil()
        await told(place, wiring(group(*ALL_OUT, *ALL_IN)))
        assert reached(place) == {FAR.mac: ""}, "what was done is taken for what is there"
        monkeypatch.setattr(links, "SECONDS_UNTIL_COMPARED", 0.0)
        await told(place, wiring(group(*ALL_IN)))
        assert reached(place) == {FAR.mac: FAR.host_address}


@needs_packets
async def test_after_a_part_that_failed_all_is_compared_with_what_is_there() -> None:
    async with lab(["host1"]) as place:
        await told(place, wiring())
        broken = wiring(kind="vlan", vni=None)
        assert [entry.subject for entry in await told(place, broken)] == [NETWORK]
        with ExitStack() as stack:
            counted = Counted(stack)
            assert await told(place, wiring()) == ()
            assert counted.taken()["entries"] == 1
        assert reached(place) == {FAR.mac: FAR.host_address}


@needs_packets
async def test_the_kernel_is_read_as_pyroute2_reads_it() -> None:
    async with lab(["host1"]) as place:
        await told(place, wiring(group(*ALL_OUT)))
        await place.plug("host1", PORT)
        found, expected, entries, expected_entries = await place.networks["host1"]._run(_read_twice)
        made = {names.bridge(NETWORK): "bridge", names.vxlan(NETWORK): "vxlan", names.tap(PORT.id): "tun"}
        assert {name: link.kind for name, link in found.items()} == made
        assert {name: (one.index, one.mtu, one.master, one.up) for name, one in found.items()} == expected
        vxlan = found[names.vxlan(NETWORK)]
        assert (vxlan.vni, vxlan.local) == (7, "192.0.2.1")
        assert entries == expected_entries
        assert FAR.mac in {entry[1] for entry in entries}


def _read_twice() -> tuple[dict[str, rtnetlink.Link], Mapping[str, object], list[_Entry], list[_Entry]]:
    """Links and entries, each as we read them and as `pyroute2` does."""
    with IPRoute() as route:
        entries = [
            (index, entry.mac, entry.destination, entry.by_device, entry.static)
            for index, of_one in rtnetlink.entries().items()
            for entry in of_one
        ]
        expected_entries = [
            (one["ifindex"], one.get("lladdr"), one.get("dst"), bool(one["flags"] & 2), bool(one["state"] & 64))
            for one in route.fdb("dump")
        ]
        found = {link.name: link for link in rtnetlink.links()}
        expected = {
            link.get("ifname"): (link["index"], link.get("mtu"), link.get("master"), link.get("state") == "up")
            for link in route.get_links()
            if link.get("ifname") in found
        }
        return found, expected, entries, expected_entries


_Entry = tuple[int, str, str | None, bool, bool]


@pytest.mark.parametrize("bits", [32, 128])
def test_members_are_as_few_addresses_and_prefixes_as_ipaddress_makes_of_them(bits: int) -> None:
    chance = random.Random(bits)
    for base in (0, 10 << 24 if bits == 32 else 0x20010DB8 << 96, (1 << bits) - 64):
        for _ in range(200):
            members = [
                ip_network(
                    (base + chance.randrange(64), chance.choice([bits] * 5 + [bits - 1, bits - 3])), strict=False
                )
                for _ in range(chance.randrange(40))
            ]
            expected = map(_short, collapse_addresses(members))  # type: ignore[type-var]
            assert collapsed(map(_short, members)) == list(expected)
    everything = "0.0.0.0/0" if bits == 32 else "::/0"
    assert collapsed([everything, everything.replace("/0", "")]) == [everything]


def _short(prefix: IPv4Network | IPv6Network) -> str:
    return str(prefix.network_address if prefix.num_addresses == 1 else prefix)
