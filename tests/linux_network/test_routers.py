"""Routers: from network to network, out by source NAT, in by floating IPs, on whatever host they are."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from cumulet.agent import watchdog
from cumulet.drivers.linux_network import namespaces
from cumulet.drivers.linux_network.network import removed
from cumulet.host import wiring as w
from tests.agent.test_lease import give_lease, left
from tests.linux_network import frames as f
from tests.linux_network.lab import Lab, lab, needs_packets, reopened
from tests.linux_network.stacks import Outside, Stack, StackGuest, ip
from tests.linux_network.wirings import ALL_IN, ALL_OUT, NETWORK, group, network, port, revisions

pytestmark = needs_packets

ADDRESSES = {"host1": "192.0.2.1", "host2": "192.0.2.2"}
OTHER = NETWORK.replace("0", "1")
PUBLIC = NETWORK.replace("0", "2")
OPEN = group(*ALL_OUT, *ALL_IN)
ROUTER = "00000000-0000-4000-8000-0000000000aa"
GATEWAY = w.RouterPort(
    id="20000000-0000-4000-8000-000000000003", network_id=PUBLIC, mac="fa:16:3e:00:00:03",
    addresses=("172.24.4.10/24",),
)  # fmt: skip
ONE = w.RouterPort(
    id="10000000-0000-4000-8000-000000000001", network_id=NETWORK, mac="fa:16:3e:00:00:01",
    addresses=("10.0.0.254/24",),
)  # fmt: skip
TWO = w.RouterPort(
    id="10000000-1000-4000-8000-000000000002", network_id=OTHER, mac="fa:16:3e:00:00:02",
    addresses=("10.0.1.254/24",),
)  # fmt: skip
ROUTES = w.Router(
    id=ROUTER, interfaces=(ONE, TWO), gateway=GATEWAY, next_hops=(Outside.ADDRESS,), source_nat=True
)  # fmt: skip


@dataclass
class Site:
    """Two hosts, and what is on them."""

    place: Lab
    outside: Outside
    guests: list[StackGuest]

    async def wire(self, where: dict[str, list[w.Port]], routers: dict[str, list[w.Router]], mtu: int = 1450) -> None:
        """Each host gets its ports and routers and learns where the others are."""
        for host in where:
            elsewhere: dict[str, set[tuple[str, str]]] = {}
            for other in where.keys() - {host}:
                theirs = [(one.network_id, one.mac) for one in where[other]]
                theirs += [(one.network_id, one.mac) for router in routers.get(other, ()) for one in router.ports]
                for network_id, mac in theirs:
                    elsewhere.setdefault(network_id, set()).add((mac, ADDRESSES[other]))
            networks = []
            for vni, network_id in enumerate((NETWORK, OTHER), start=7):
                others = elsewhere.get(network_id, set())
                networks.append(
                    network(
                        network_id, vni, peers=tuple(sorted({address for _, address in others})),
                        remotes=tuple(w.Remote(mac=mac, host_address=address) for mac, address in sorted(others)),
                        mtu=mtu if network_id == OTHER else 1450,
                    )
                )  # fmt: skip
            networks.append(network(PUBLIC, None, kind="flat", physical="public", mtu=1500))
            answer = await self.place.networks[host].apply(
                w.Wiring(
                    host=host, revision=next(revisions), networks=tuple(networks), ports=tuple(where[host]),
                    groups=(OPEN,), routers=tuple(routers.get(host, ())),
                )
            )  # fmt: skip
            assert answer.not_done == ()

    async def guest(self, host: str, of: w.Port, router: str, mtu: int = 1450) -> StackGuest:
        made = StackGuest(await self.place.networks[host].plug(of.id), of, mtu=mtu, router=router)
        self.guests.append(made)
        return made


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    outside = Outside()
    guests: list[StackGuest] = []
    try:
        async with lab(["host1", "host2"], outside=outside) as place:
            try:
                yield Site(place, outside, guests)
            finally:
                for one in guests:
                    one.remove()
    finally:
        outside.remove()


async def test_guests_reach_other_networks_by_a_router_on_another_host_and_go_out_in_its_name() -> None:
    async with site() as at:
        a, b = port("10.0.0.1"), port("10.0.1.1", network=OTHER)
        where = {"host1": [a], "host2": [b]}
        await at.wire(where, {"host2": [ROUTES]})
        one, two = await at.guest("host1", a, "10.0.0.254"), await at.guest("host2", b, "10.0.1.254")
        assert one.pings("10.0.1.1")
        with two.serving("10.0.1.1", 80), at.outside.serving(Outside.ADDRESS, 80):
            assert one.asks("10.0.1.1", 80) == "10.0.0.1"
            assert one.asks(Outside.ADDRESS, 80) == two.asks(Outside.ADDRESS, 80) == "172.24.4.10"
            at.outside.ip("route", "add", "10.0.1.0/24", "via", "172.24.4.10")
            assert at.outside.pings("172.24.4.10")
            assert at.outside.asks("10.0.1.1", 80) is None
            await at.wire(where, {"host2": [replace(ROUTES, source_nat=False)]})
            assert at.outside.asks("10.0.1.1", 80) == Outside.ADDRESS
            assert one.asks(Outside.ADDRESS, 80) is None


def floating(inside: str, outside: str = "172.24.4.20") -> w.FloatingIp:
    return w.FloatingIp(outside=outside, inside=inside)


async def test_a_floating_ip_leads_in_and_out_and_taking_it_away_cuts_its_connections() -> None:
    async with site() as at:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        where = {"host1": [a, b], "host2": []}
        with_one = replace(ROUTES, floating_ips=(floating("10.0.0.1"),))
        await at.wire(where, {"host2": [with_one]})
        one, two = await at.guest("host1", a, "10.0.0.254"), await at.guest("host1", b, "10.0.0.254")
        with one.serving("10.0.0.1", 80), two.serving("10.0.0.2", 80), at.outside.serving(Outside.ADDRESS, 80):
            assert at.outside.asks("172.24.4.20", 80) == Outside.ADDRESS
            assert one.asks(Outside.ADDRESS, 80) == "172.24.4.20"
            assert two.asks(Outside.ADDRESS, 80) == "172.24.4.10"
            # From inside to a floating IP of the same router: the answers come back through it.
            assert two.asks("172.24.4.20", 80) == "172.24.4.10"
            connection = at.outside.connect("172.24.4.20", 80)
            assert connection.recv(100) == Outside.ADDRESS.encode()
            connection.sendall(b"still there")
            assert connection.recv(100) == b"still there"
            # Another change disturbs nothing.
            await at.wire(
                where,
                {
                    "host2": [
                        replace(with_one, floating_ips=(floating("10.0.0.1"), floating("10.0.0.2", "172.24.4.21")))
                    ]
                },
            )
            connection.sendall(b"still there")
            assert connection.recv(100) == b"still there"
            assert two.asks("172.24.4.20", 80) == "172.24.4.21"
            # It leads to another guest now: the old connection does not go on, new ones come to the other.
            await at.wire(where, {"host2": [replace(ROUTES, floating_ips=(floating("10.0.0.2"),))]})
            connection.settimeout(1.0)
            connection.sendall(b"and now?")
            assert not _says(connection)
            assert two.asks(Outside.ADDRESS, 80) == "172.24.4.20"
            await at.wire(where, {"host2": [ROUTES]})
            assert at.outside.asks("172.24.4.20", 80) is None
            assert two.asks(Outside.ADDRESS, 80) == "172.24.4.10"
            connection.close()


def _says(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(100))
    except OSError:
        return False


def forwarding(outside: tuple[int, int], inside: tuple[int, int], address: str = "10.0.0.1") -> w.Forwarding:
    return w.Forwarding(
        outside="172.24.4.30", protocol=f.TCP, outside_ports=outside, inside=address, inside_ports=inside
    )


async def test_ports_of_a_floating_ip_lead_to_ports_of_several_guests_and_no_others_lead_anywhere() -> None:
    async with site() as at:
        a, b = port("10.0.0.1"), port("10.0.0.2")
        where = {"host1": [a, b], "host2": []}
        forwardings = (
            forwarding((2201, 2201), (22, 22)),
            forwarding((2202, 2202), (22, 22), "10.0.0.2"),
            forwarding((8000, 8002), (90, 92)),
            forwarding((9000, 9009), (22, 22)),
        )
        await at.wire(where, {"host2": [replace(ROUTES, forwardings=forwardings)]})
        one, two = await at.guest("host1", a, "10.0.0.254"), await at.guest("host1", b, "10.0.0.254")
        with one.serving("10.0.0.1", 22) as first, two.serving("10.0.0.2", 22), one.serving("10.0.0.1", 92):
            first.says = b"first"
            assert at.outside.asks("172.24.4.30", 2201) == at.outside.asks("172.24.4.30", 9009) == "first"
            assert at.outside.asks("172.24.4.30", 2202) == Outside.ADDRESS
            assert at.outside.asks("172.24.4.30", 8002) == Outside.ADDRESS
            assert two.asks("172.24.4.30", 2201) == "first"
            for number in (22, 8000, 8003, 9010):
                assert at.outside.asks("172.24.4.30", number, seconds=0.5) is None
            kept, cut = at.outside.connect("172.24.4.30", 2202), at.outside.connect("172.24.4.30", 2201)
            await at.wire(where, {"host2": [replace(ROUTES, forwardings=forwardings[1:])]})
            for connection, goes_on in ((kept, True), (cut, False)):
                with connection:
                    connection.settimeout(1.0)
                    connection.recv(100)
                    connection.sendall(b"still?")
                    assert _says(connection) is goes_on


async def test_a_router_that_goes_to_another_host_has_the_same_addresses_there_at_once() -> None:
    async with site() as at:
        a = port("10.0.0.1")
        where = {"host1": [a], "host2": []}
        routed = replace(ROUTES, floating_ips=(floating("10.0.0.1"),))
        await at.wire(where, {"host2": [routed]})
        one = await at.guest("host1", a, "10.0.0.254")
        assert one.pings(Outside.ADDRESS)
        assert at.outside.pings("172.24.4.20")
        for place in ("host1", "host2"):
            await at.wire(where, {place: [routed]})
            # A late frame from its former place.
            at.outside.sends("public", f.marker(GATEWAY.mac))
            assert one.pings(Outside.ADDRESS)
            assert at.outside.pings("172.24.4.20")


async def test_large_packets_are_told_the_smallest_mtu_of_the_way_and_go_by_it() -> None:
    async with site() as at:
        a, b = port("10.0.0.1"), port("10.0.1.1", network=OTHER)
        await at.wire({"host1": [a], "host2": [b]}, {"host2": [ROUTES]}, mtu=1300)
        one, two = await at.guest("host1", a, "10.0.0.254"), await at.guest("host2", b, "10.0.1.254", mtu=1300)
        assert one.pings("10.0.1.1", data=1300 - 28, whole=True)
        assert one.gets_no_answer("10.0.1.1", data=1301 - 28 + 8, whole=True)
        with two.serving("10.0.1.1", 80), one.connect("10.0.1.1", 80) as connection:
            assert connection.recv(100) == b"10.0.0.1"
            connection.sendall(bytes(100_000))
            got = 0
            while got < 100_000:
                got += len(connection.recv(65_536))


async def test_extra_routes_lead_to_a_next_hop_and_go_when_they_are_taken_away() -> None:
    async with site() as at:
        a = port("10.0.0.1")
        b = port("10.0.1.1", network=OTHER, pairs=(w.Pair(mac="", prefix="198.51.100.0/24"),))
        b = replace(b, pairs=(w.Pair(mac=b.mac, prefix="198.51.100.0/24"),))
        where = {"host1": [a], "host2": [b]}
        extra = w.Route(destination="198.51.100.0/24", nexthop="10.0.1.1")
        nowhere = w.Route(destination="203.0.113.0/24", nexthop="10.0.77.1")
        connected = w.Route(destination="10.0.0.0/24", nexthop="10.0.1.1")
        await at.wire(where, {"host1": [replace(ROUTES, routes=(extra, nowhere, connected))]})
        one, two = await at.guest("host1", a, "10.0.0.254"), await at.guest("host2", b, "10.0.1.254")
        two.ip("address", "add", "198.51.100.1/32", "dev", "eth0")
        assert one.pings("198.51.100.1")
        await at.wire(where, {"host1": [ROUTES]})
        assert one.gets_no_answer("198.51.100.1")
        assert one.pings("10.0.1.1")
        at.outside.ip("address", "add", "203.0.113.1/32", "dev", "lo")
        assert one.pings("203.0.113.1")
        outward = w.Route(destination="0.0.0.0/0", nexthop="10.0.1.1")
        for _ in range(2):
            await at.wire(where, {"host1": [replace(ROUTES, routes=(outward,))]})
            assert one.pings("198.51.100.1")
            assert one.gets_no_answer("203.0.113.1")


async def test_ipv6_goes_from_network_to_network() -> None:
    async with site() as at:
        a, b = (
            port("10.0.0.1", addresses=("2001:db8:1::1",)),
            port("10.0.1.1", network=OTHER, addresses=("2001:db8:2::1",)),
        )
        ends = [
            replace(end, addresses=(*end.addresses, f"2001:db8:{n}::fe/64"))
            for n, end in enumerate((ONE, TWO), start=1)
        ]
        await at.wire({"host1": [a], "host2": [b]}, {"host1": [replace(ROUTES, interfaces=tuple(ends))]})
        one, two = await at.guest("host1", a, "2001:db8:1::fe"), await at.guest("host2", b, "2001:db8:2::fe")
        assert one.pings("2001:db8:2::1")
        assert two.pings("2001:db8:1::1")


async def test_an_agent_that_starts_again_disturbs_no_connection_and_puts_right_what_it_finds() -> None:
    async with site() as at:
        a = port("10.0.0.1")
        where = {"host1": [a], "host2": []}
        routed = replace(ROUTES, floating_ips=(floating("10.0.0.1"),))
        await at.wire(where, {"host1": [routed]})
        one = await at.guest("host1", a, "10.0.0.254")
        namespace = at.place.namespaces["host1"]
        with one.serving("10.0.0.1", 80), at.outside.connect("172.24.4.20", 80) as connection:
            assert connection.recv(100) == Outside.ADDRESS.encode()
            await at.place.networks["host1"].close()
            connection.sendall(b"while it is away")
            assert connection.recv(100) == b"while it is away"
            (router,) = routers_of(namespace)
            ip("-n", router, "address", "del", "10.0.0.254/24", "dev", "in100000000000")
            ip("-n", router, "address", "add", "198.51.100.9/24", "dev", "outside")
            ip("-n", router, "route", "del", "default")
            at.place.networks["host1"] = await reopened("192.0.2.1", namespace, public=True)
            await at.wire(where, {"host1": [routed]})
            connection.sendall(b"after it is back")
            assert connection.recv(100) == b"after it is back"
            assert one.pings(Outside.ADDRESS)
            at.outside.ip("address", "add", "198.51.100.1/24", "dev", "public")
            assert at.outside.gets_no_answer("198.51.100.9")


def routers_of(namespace: str) -> list[str]:
    """The namespaces of the routers of the host in a namespace."""
    inode = (namespaces.FOLDER / namespace).stat().st_ino
    return sorted(path.name for path in namespaces.FOLDER.glob(f"cmr-{inode}-*"))


async def test_routers_that_are_gone_leave_nothing_and_another_hosts_are_not_touched() -> None:
    async with site() as at:
        other = replace(
            ROUTES,
            id=ROUTER.replace("a", "b"),
            interfaces=(),
            gateway=replace(
                GATEWAY, id=GATEWAY.id.replace("3", "4"), mac="fa:16:3e:00:00:04", addresses=("172.24.4.11/24",)
            ),
        )
        await at.wire({"host1": [], "host2": []}, {"host1": [ROUTES], "host2": [other]})
        first, second = (at.place.namespaces[host] for host in ("host1", "host2"))
        assert (len(routers_of(first)), len(routers_of(second))) == (1, 1)
        await at.wire({"host1": [], "host2": []}, {"host2": [other]})
        assert (len(routers_of(first)), len(routers_of(second))) == (0, 1)
        await at.wire({"host1": [], "host2": []}, {"host1": [ROUTES], "host2": [other]})
        await at.place.networks["host1"].close()
        assert await removed(first) > 0
        assert (len(routers_of(first)), len(routers_of(second))) == (0, 1)
        assert at.outside.pings("172.24.4.11")
        assert at.outside.gets_no_answer("172.24.4.10")
        at.place.networks["host1"] = await reopened("192.0.2.1", first, public=True)


def watchdog_in(namespace: str, state: Path) -> subprocess.Popen[bytes]:
    """As the agent of the host in a namespace starts it."""
    enter = ["nsenter", f"--net={namespaces.FOLDER / namespace}"]
    return subprocess.Popen([*enter, sys.executable, "-m", "cumulet.agent.watchdog", str(state)])


async def test_the_routers_of_a_host_end_with_its_lease_and_the_next_agent_has_them_again(tmp_path: Path) -> None:
    async with site() as at:
        where: dict[str, list[w.Port]] = {"host1": [], "host2": []}
        await at.wire(where, {"host1": [ROUTES]})
        place = at.place.namespaces["host1"]
        with watchdog_in(place, tmp_path) as watched:
            assert watched.wait(20) == 0
        assert routers_of(place), "it has had no lease that could run out"
        give_lease(tmp_path, 60.0)
        with watchdog_in(place, tmp_path) as watched:
            at.outside.until(lambda: watchdog.is_watched(tmp_path), "a watchdog")
            assert at.outside.pings("172.24.4.10")
            give_lease(tmp_path, 1.0)  # Only now: a lease that had run out before the watchdog looks is none to it.
            assert watched.wait(20) == 0
        assert left(watchdog.lease_file(tmp_path)) <= 0, "not a moment before"
        assert routers_of(place) == []
        assert at.outside.gets_no_answer("172.24.4.10")
        await at.place.networks["host1"].close()
        at.place.networks["host1"] = await reopened(ADDRESSES["host1"], place, public=True)
        await at.wire(where, {"host1": [ROUTES]})
        assert at.outside.pings("172.24.4.10")


async def test_a_router_answers_nothing_but_pings_itself() -> None:
    async with site() as at:
        a = port("10.0.0.1")
        await at.wire({"host1": [a], "host2": []}, {"host1": [ROUTES]})
        one = await at.guest("host1", a, "10.0.0.254")
        (router,) = routers_of(at.place.namespaces["host1"])
        inside = Stack(router, there=True)
        try:
            with inside.serving("0.0.0.0", 80):
                assert one.pings("10.0.0.254")
                assert one.asks("10.0.0.254", 80) is None
                assert one.asks("172.24.4.10", 80) is None
                assert at.outside.asks("172.24.4.10", 80) is None
        finally:
            inside.remove()


async def test_a_router_whose_outside_this_host_does_not_reach_is_said() -> None:
    async with lab(["host1"]) as place:
        answer = await place.networks["host1"].apply(
            w.Wiring(
                host="host1", revision=next(revisions), routers=(ROUTES,),
                networks=(network(), network(OTHER, 8), network(PUBLIC, None, kind="flat", physical="public")),
            )
        )  # fmt: skip
        assert {entry.subject for entry in answer.not_done} == {PUBLIC, ROUTER}
        assert routers_of(place.namespaces["host1"]) == []
