"""Real guests on a network without a cloud: two hosts that are told by hand, and moves by raw QMP."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from msgspec.structs import replace

from benchmarks import qemu_migration
from cumulet.cli.demo.network import Pings
from cumulet.drivers.linux_network import names, namespaces, nft, skeleton
from cumulet.drivers.linux_network.names import TABLE
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.linux_network.probe import probe
from cumulet.drivers.linux_network.skeleton import Tracking
from cumulet.drivers.qemu import facts as qemu
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.fleet.local_networks import LocalNetworks
from cumulet.host import wiring as w
from cumulet.host.driver import Guest, Nic
from cumulet.image import tiny
from cumulet.settings import HostNetwork
from cumulet.testing.image_files import ImageFiles

_NETWORK, _GROUP, _ROUTER, _INSIDE = (str(uuid.UUID(int=number << 96)) for number in (1, 2, 3, 4))
_GATEWAY = "10.99.0.1"
_HOSTS = ("host1", "host2")
_MEMORY_MIB = 128
"""As m1.nano's."""
SETTINGS = b"tick_ms=10\nfill_mib=40\nserve_tcp=1\n"


POURS, POUR_SECONDS = 5, 2.0


class Hand:
    """Two hosts and a router; guests at 10.99.0.2 and 10.99.0.3."""

    def __init__(
        self,
        runner: asyncio.Runner,
        places: dict[str, qemu_migration.Place],
        networks: dict[str, LinuxNetwork],
        where: dict[str, HostNetwork],
        tracking: Tracking,
    ) -> None:
        self._runner = runner
        self._places = places
        self._networks = networks
        self._where = where
        self._tracking = tracking
        self._revision = 0
        self._moving: Guest | None = None
        self._at, self._to = _HOSTS

    async def wire(self, *, here: dict[str, str], coming: str | None = None, first: str = "host1") -> None:
        """`here`: the host of each guest, by the last part of its address; `coming`: where the first is to be."""
        for host in sorted(_HOSTS, key=lambda host: host != first):
            self._revision += 1
            ports = [_port(last, active=True) for last, at in here.items() if at == host]
            if coming == host:
                ports.append(_port("2", active=False))
            elsewhere = [_mac(last) for last, at in here.items() if at != host] + [_mac("1")] * (host != "host1")
            peer = next(self._where[other].address for other in _HOSTS if other != host)
            subnet = w.Subnet(
                id=_NETWORK,
                cidr="10.99.0.0/24",
                gateway=_GATEWAY,
                dhcp=True,
                ra_mode=None,
                address_mode=None,
                dns_servers=(),
                routes=(),
            )
            network = w.Network(
                id=_NETWORK,
                kind="vxlan",
                vni=99,
                mtu=1450,
                dns_domain="",
                subnets=(subnet,),
                peers=(peer,),
                remotes=tuple(w.Remote(mac=mac, host_address=peer) for mac in elsewhere),
            )
            inside = w.RouterPort(id=_INSIDE, network_id=_NETWORK, mac=_mac("1"), addresses=(f"{_GATEWAY}/24",))
            router = w.Router(id=_ROUTER, interfaces=(inside,), gateway=None, next_hops=(), source_nat=False)
            answer = await self._networks[host].apply(
                w.Wiring(
                    host=host,
                    revision=self._revision,
                    networks=(network,),
                    ports=tuple(ports),
                    groups=(_open_group(),),
                    routers=(router,) if host == "host1" else (),
                )
            )
            assert answer.not_done == ()

    async def _boot(self, last: str, host: str, settings: bytes) -> Guest:
        nic = Nic(port_id=_port_id(last), network_id=_NETWORK, mac=_mac(last), addresses=(f"10.99.0.{last}/24",))
        guest = replace(qemu_migration.tiny_guest(_MEMORY_MIB, settings), nics=(nic,))
        return await self._places[host].driver.create(guest)

    def bandwidth(self) -> tuple[float, float]:
        """Mbit/s from one guest to another, with rules and without: medians."""
        return self._runner.run(self._bandwidth())

    async def _bandwidth(self) -> tuple[float, float]:
        await self.wire(here={"2": "host1", "3": "host2"})
        guests = {
            "host2": await self._boot("3", "host2", b"tick_ms=0\nserve_tcp=1\n"),
            "host1": await self._boot("2", "host1", b"tick_ms=0\npour_to=3\n"),
        }
        found: dict[bool, list[float]] = {True: [], False: []}
        try:
            while await self._rate() < 1:  # Each one takes long.
                pass
            for _ in range(POURS):
                for rules in (True, False):
                    for host in _HOSTS:
                        await asyncio.to_thread(self._set_rules, host, rules)
                    found[rules].append(await self._rate())
        finally:
            for host in _HOSTS:
                await asyncio.to_thread(self._set_rules, host, True)
                await self._places[host].driver.destroy(guests[host].server_id)
        return statistics.median(found[True]), statistics.median(found[False])

    async def _rate(self) -> float:
        async def received() -> int:
            port = _port_id("3")
            return (await self._networks["host2"].traffic([port])).ports[port].rx_bytes

        before, began = await received(), time.monotonic()
        await asyncio.sleep(POUR_SECONDS)
        return (await received() - before) * 8e-6 / (time.monotonic() - began)

    def _set_rules(self, host: str, on: bool) -> None:
        """A dormant table has no effect and keeps its content."""
        with namespaces.inside(self._where[host].namespace or ""):
            for family, table in (("bridge", TABLE), (self._tracking.value, skeleton.state_table(self._tracking))):
                nft.run_text(f"table {family} {table} {{ {'' if on else 'flags dormant;'} }}")

    # -- the hole

    def hole_ms(self) -> float:
        return self._runner.run(self._hole())

    async def _hole(self) -> float:
        if self._moving is None:
            await self.wire(here={"2": self._at})
            self._moving = await self._boot("2", self._at, SETTINGS)
        guest, source, destination = self._moving, self._at, self._to
        router = names.namespace((namespaces.FOLDER / (self._where["host1"].namespace or "")).stat().st_ino, _ROUTER)
        async with pings_of(router, "10.99.0.2") as pings:
            await self.wire(here={"2": source}, coming=destination, first=destination)

            async def switch() -> None:
                await self.wire(here={"2": destination}, first=destination)

            await qemu_migration.move_by_qmp(guest, self._places[source], self._places[destination], switch=switch)
            assert await asyncio.to_thread(pings.wait_for_more, 20)
        self._at, self._to = destination, source
        return pings.longest_hole_ms

    async def close(self) -> None:
        for host, place in self._places.items():
            if self._moving is not None:
                await place.driver.destroy(self._moving.server_id)
            await self._networks[host].remove()
            await place.driver.close()


@contextlib.contextmanager
def hand_made(folder: Path) -> Iterator[Hand]:
    wires = LocalNetworks(folder, _HOSTS)
    where = wires.make()
    try:
        with asyncio.Runner() as runner:
            hand = runner.run(_opened(runner, folder, where))
            try:
                yield hand
            finally:
                runner.run(hand.close())
    finally:
        wires.remove()


async def _opened(runner: asyncio.Runner, folder: Path, where: dict[str, HostNetwork]) -> Hand:
    found, tracking = await qemu.probe(), probe().tracking
    assert tracking is not None
    networks, places = {}, {}
    for host in _HOSTS:
        networks[host] = await LinuxNetwork.open(
            local_address=where[host].address, tracking=tracking, namespace=where[host].namespace
        )
        driver = await QemuDriver.open(
            name=host, state=folder / host, images=ImageFiles(tiny.build()), facts=found, network=networks[host]
        )
        places[host] = qemu_migration.Place(host, folder / host, driver)
    return Hand(runner, places, networks, where, tracking)


def _mac(last: str) -> str:
    return f"fa:16:3e:99:00:{int(last):02x}"


def _port_id(last: str) -> str:
    return str(uuid.UUID(int=(16 + int(last)) << 96))


def _port(last: str, *, active: bool) -> w.Port:
    return w.Port(
        id=_port_id(last),
        network_id=_NETWORK,
        mac=_mac(last),
        addresses=(f"10.99.0.{last}",),
        up=True,
        active=active,
        secured=True,
        pairs=(),
        groups=(_GROUP,),
        hostname="",
    )


def _open_group() -> w.Group:
    rules = tuple(
        w.Rule(
            id=f"{way}-{version}",
            direction=way,
            version=version,
            protocol=None,
            range_min=None,
            range_max=None,
            remote_prefix=None,
            remote_group=None,
        )
        for way in w.Direction
        for version in (4, 6)
    )
    return w.Group(id=_GROUP, stateful=True, rules=rules, members=())


@contextlib.asynccontextmanager
async def pings_of(namespace: str, address: str) -> AsyncIterator[Pings]:
    """To a guest, from its router's namespace; they have begun to be answered."""
    pings = Pings(address)

    def begin() -> None:
        with namespaces.inside(namespace):  # A thread stays in the namespace in which it begins.
            pings.__enter__()

    await asyncio.to_thread(begin)
    try:
        async with asyncio.timeout(120):
            while not await asyncio.to_thread(pings.wait_for_more, 20):
                pass
        pings.answered.clear()
        yield pings
    finally:
        await asyncio.to_thread(pings.__exit__)
