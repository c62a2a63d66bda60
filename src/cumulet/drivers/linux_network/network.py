"""A host's network on Linux: an idempotent `apply` of a wiring, taps for guests, and the removal of all of it.

All work is done by one thread, which may live in a network namespace of its own. Nothing is kept on disk: a new process
finds in the kernel what an earlier one made, and packets go on passing while it takes over.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2.netlink.exceptions import NetlinkError

from cumulet.drivers.linux_network import names, namespaces
from cumulet.drivers.linux_network.alone import OWN, alone
from cumulet.drivers.linux_network.carrying import Carrying
from cumulet.drivers.linux_network.forgetting import Forgetting
from cumulet.drivers.linux_network.links import Links, NoDevice
from cumulet.drivers.linux_network.nft import Nft, NftFailed
from cumulet.drivers.linux_network.posts import Posts
from cumulet.drivers.linux_network.responding import Responding
from cumulet.drivers.linux_network.routers import Routers
from cumulet.drivers.linux_network.ruleset import Numbers, NumbersExhausted, numbered, ruleset
from cumulet.drivers.linux_network.skeleton import Tracking
from cumulet.drivers.linux_network.taps import open_tap
from cumulet.host.driver import DriverError
from cumulet.host.traffic import Traffic
from cumulet.host.wiring import InForce, NotDone, Port, Wiring

log = logging.getLogger(__name__)
T = TypeVar("T")


class LinuxNetwork:
    """Made by `open`. A network namespace has at most one."""

    def __init__(self, executor: ThreadPoolExecutor, links: Links, nft: Nft) -> None:
        self._executor = executor
        self._links = links
        self.leads_to = frozenset(links.physical)
        """Names of physical networks."""
        self._nft = nft
        self._numbers = Numbers(ports=nft.ports(), zones=nft.zones())
        self._responding = Responding()
        self._routers = Routers(links)
        self._carrying = Carrying(links)
        self.carries_not = self._carrying.problem()
        """Why this host cannot carry subports of trunks; None where it can."""
        self._told: dict[str, dict[str, bytes]] = {}
        """What guests are told about themselves, by tap."""
        self._told_by_parent: dict[str, dict[str, bytes]] = {}
        """The same, by the device of a subport: as its guest is told on the parent."""
        self.posts: Posts | None = None
        """Where guests' passwords come from, while it is open."""
        self._forgetting = Forgetting()
        self._forgetting_rest: asyncio.Task[None] | None = None
        self._wiring: Wiring | None = None
        self._not_done: tuple[NotDone, ...] = ()

    @classmethod
    async def open(
        cls,
        *,
        local_address: str,
        tracking: Tracking,
        namespace: str | None = None,
        physical: Mapping[str, str] | None = None,
    ) -> LinuxNetwork:
        """Take over what an earlier process made. Raises `DriverError`.

        `local_address`: where other hosts reach this one. `physical`: the device that leads to each physical network.
        """
        executor = ThreadPoolExecutor(1, "network", initializer=_enter, initargs=(namespace,))

        def begin() -> LinuxNetwork:
            nft = Nft(tracking)
            nft.prepare()
            opened = cls(executor, Links(local_address, physical), nft)
            opened._responding.start()
            _hear_guests()
            return opened

        try:
            opened = await asyncio.get_running_loop().run_in_executor(executor, begin)
        except (OSError, NftFailed, NetlinkError) as problem:
            executor.shutdown(wait=False)
            raise DriverError(f"NETWORK: {problem}") from problem
        opened.posts = Posts(opened._responding.posts, opened._responding.server_on)
        return opened

    async def close(self) -> None:
        """End the thread and the responder. The rules and links stay in force."""
        if self._forgetting_rest is not None:
            self._forgetting_rest.cancel()
            await asyncio.gather(self._forgetting_rest, return_exceptions=True)
        if self.posts is not None:
            await self.posts.close()
        await self._run(self._responding.end)
        await self._run(self._links.close)
        await self._run(self._carrying.close)
        self._executor.shutdown()

    async def apply(self, wiring: Wiring) -> InForce:
        """Apply a wiring: rules first, then links. A revision earlier than the one in force changes nothing.

        Connections that do not pass any more are forgotten; where there are very many, some of them soon after this.
        """
        try:
            return await self._run(lambda: self._apply(wiring))
        finally:
            if self._forgetting.under_way and (self._forgetting_rest is None or self._forgetting_rest.done()):
                self._forgetting_rest = asyncio.create_task(self._forget_rest(), name="forget-connections")

    async def _forget_rest(self) -> None:
        try:
            while await self._run(self._forgetting.go_on):
                pass
        except DriverError as problem:  # They are judged at the next change.
            log.warning("connections cannot be judged: %s", problem)

    async def in_force(self) -> InForce:
        """What is in force; revision 0 before the first `apply`."""
        return await self._run(self._in_force)

    async def plug(self, port_id: str) -> int:
        """A tap for a port, as an open file, its link up. Raises `DriverError` unless the port's rules are in force."""
        return await self._run(lambda: self._plug(port_id))

    async def plug_anyway(self, port_id: str) -> int:
        """As `plug`. A port without rules, because it was deleted, perhaps, has a tap that leads nowhere until it has
        some. DriverError before the first wiring: nobody knows then which ports have rules."""

        def work() -> int:
            if self._wiring is None or any(port.id == port_id for port in self._wiring.ports):
                return self._plug(port_id)
            return _opened(port_id)

        return await self._run(work)

    @property
    def wiring(self) -> Wiring | None:
        """What is in force, or was asked for last."""
        return self._wiring

    async def tell(self, port_id: str, files: dict[str, bytes] | None) -> None:
        """Set what the metadata service tells the guest on a port of this host; None: nothing."""

        def tell() -> None:
            tap = names.tap(port_id)
            if tap in self._numbers.ports:
                if files is None:
                    self._told.pop(tap, None)
                else:
                    self._told[tap] = files
                self._responding.tell({self._numbers.ports[tap]: files})
                if self._wiring is not None:
                    self._tell_subports(self._wiring)

        await self._run(tell)

    async def counters(self) -> dict[str, int]:
        """Packets dropped so far, by cause."""
        return await self._run(self._dropped)

    async def traffic(self, port_ids: Collection[str]) -> Traffic:
        """Packets dropped, what went through these ports, and what routers have metered."""

        def work() -> Traffic:
            counted = {port_id: self._links.traffic(port_id) for port_id in port_ids}
            plugged = {port_id: traffic for port_id, traffic in counted.items() if traffic is not None}
            return Traffic(dropped=self._dropped(), ports=plugged, metered=self._routers.metered())

        return await self._run(work)

    async def remove(self) -> None:
        """Remove everything of ours: interfaces, rules, forwarding entries."""

        def remove() -> None:
            self._forgetting.reset()
            self._responding.close()
            self._links.remove()
            self._routers.remove()
            self._nft.remove()
            self._wiring = None

        await self._run(remove)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except (OSError, NftFailed, NetlinkError, NoDevice, NumbersExhausted) as problem:
            raise DriverError(f"NETWORK: {problem}") from problem

    # -- in the thread

    def _apply(self, wiring: Wiring) -> InForce:
        before = self._wiring
        if before is not None and wiring.revision < before.revision:
            return self._in_force()
        taps = [names.tap(port.id) for port in wiring.ports]
        zones = numbered(self._numbers.zones, [names.bridge(network.id) for network in wiring.networks])
        numbers = Numbers(ports=numbered(self._numbers.ports, taps), zones=zones)
        self._nft.apply(ruleset(wiring, numbers))
        former, self._numbers = self._numbers, numbers
        # Documents and connections of ports that are gone go before anything that may fail: a later try does not know
        # these ports any more, and the next port may get the number of one of them.
        gone = {tap: number for tap, number in former.ports.items() if tap not in numbers.ports}
        self._responding.tell(dict.fromkeys(gone.values()))
        for tap in gone:
            self._told.pop(tap, None)
            self._told_by_parent.pop(tap, None)
        self._forgetting.change(before, wiring, former.zones, zones)
        self._wiring = wiring
        unconnected = self._links.apply(wiring)
        uncarried = self._carrying.apply(wiring, but={entry.subject for entry in unconnected})
        self._tell_subports(wiring)
        unrouted = self._routers.apply(wiring, but={entry.subject for entry in unconnected})
        self._not_done = (*unconnected, *uncarried, *unrouted)
        # On a flat network there are machines that are not guests of this cloud: hosts do not answer there.
        silent = {network.id for network in wiring.networks if network.kind == "flat"}
        self._responding.apply(wiring, but=silent | {entry.subject for entry in unconnected})
        return self._in_force()

    def _subports_on(self, port_id: str) -> list[Port]:
        ports = self._wiring.ports if self._wiring is not None else ()
        return [port for port in ports if port.carried is not None and port.carried.parent == port_id]

    def _tell_subports(self, wiring: Wiring) -> None:
        """A guest is told the same about itself on its subports as on their parent."""
        subports = {names.tap(port.id): port.carried for port in wiring.ports if port.carried is not None}
        for tap in {*self._told_by_parent, *subports}:
            carried = subports.get(tap)
            files = None if carried is None else self._told.get(names.tap(carried.parent))
            if self._told_by_parent.get(tap) != files and tap in self._numbers.ports:
                self._responding.tell({self._numbers.ports[tap]: files})
            if files is None:
                self._told_by_parent.pop(tap, None)
            else:
                self._told_by_parent[tap] = files

    def _dropped(self) -> dict[str, int]:
        return self._nft.counters() | self._routers.dropped()

    def _in_force(self) -> InForce:
        if self._wiring is None:
            return InForce(revision=0)
        present = self._links.present()
        undone = {entry.subject for entry in self._not_done}
        ports = [port for port in self._wiring.ports if undone.isdisjoint((port.id, port.network_id))]
        up = {name for name, link in present.items() if link.up and link.master is not None}
        return InForce(
            revision=self._wiring.revision,
            ports=tuple(port.id for port in ports),
            linked=tuple(
                port.id
                for port in ports
                if names.tap(port.id) in up and (port.carried is None or names.tap(port.carried.parent) in up)
            ),
            not_done=self._not_done,
        )

    def _plug(self, port_id: str) -> int:
        wiring = self._wiring
        port = next((port for port in wiring.ports if port.id == port_id), None) if wiring is not None else None
        if wiring is None or port is None:
            raise DriverError(f"NOT_WIRED: this host has no rules for port {port_id} yet")
        refused = next((entry for entry in self._not_done if entry.subject == port.network_id), None)
        if refused is not None:
            raise DriverError(f"NOT_WIRED: port {port_id}: {refused.reason}")
        network = next(network for network in wiring.networks if network.id == port.network_id)
        fd = _opened(port_id)
        try:
            self._links.attach(names.tap(port_id), network, mac=port.mac, active=port.active)
            subports = {port.id for port in self._subports_on(port_id)}
            others = [entry for entry in self._not_done if entry.subject not in subports]
            unconnected = {entry.subject for entry in others}
            self._not_done = (*others, *self._carrying.apply(wiring, but=unconnected, parent=port_id))
        except BaseException:
            os.close(fd)  # Otherwise the tap stays, and looks as if a guest had it.
            raise
        return fd


def _opened(port_id: str) -> int:
    """A port's tap, its link down."""
    try:
        return open_tap(names.tap(port_id))
    except OSError as problem:
        if problem.errno == errno.EBUSY:
            raise DriverError(f"TAP_IN_USE: a guest of this host is plugged into port {port_id}") from problem
        raise


def _hear_guests() -> None:
    """Settings of the host's namespace: a connection keeps the mark of its port, and packets of guests are accepted
    although no route leads back to their addresses."""
    settings = Path("/proc/sys/net/ipv4")
    (settings / "tcp_fwmark_accept").write_text("1")
    for interface in ("all", "default"):
        (settings / "conf" / interface / "rp_filter").write_text("0")


async def removed(namespace: str | None) -> int:
    """Remove all that any earlier process of ours has made; returns how many interfaces there were. NotAlone: an agent
    makes the network there."""

    def work() -> int:
        _enter(namespace)
        links = Links("127.0.0.1")
        try:
            count = len(links.present())
            links.remove()
            Routers(links).remove()
        finally:
            links.close()
        for tracking in Tracking:
            Nft(tracking).remove()
        return count

    where = OWN if namespace is None else namespaces.FOLDER / namespace
    try:
        with alone("`cumulet host clean`", where), ThreadPoolExecutor(1, "network") as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
    except (OSError, NftFailed, NetlinkError) as problem:
        raise DriverError(f"NETWORK: {problem}") from problem


def _enter(namespace: str | None) -> None:
    if namespace is not None:
        from pyroute2 import netns

        netns.setns(namespace, flags=0)  # With the default flags a missing namespace would be made.
