"""Hosts as network namespaces, and guests as open files of taps. Needs root; all is removed at the end."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from cumulet.drivers.linux_network import nft, taps
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.linux_network.skeleton import Tracking
from cumulet.host import wiring as w
from tests.linux_network import frames
from tests.linux_network.stacks import PUBLIC_DEVICE, Outside
from tests.qemu.crash_network import HostNetworks

WAIT_SECONDS = 10.0


def problem() -> str | None:
    """Why packets cannot be sent here, None where they can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces, taps and rules"
    if nft.binary() is None:
        return "nft is not installed (Debian package: nftables)"
    if not os.path.exists(taps.TUN):
        return f"there is no {taps.TUN}"
    return None


needs_packets = pytest.mark.skipif(problem() is not None, reason=problem() or "")


class Guest:
    """Sends and receives any frames on its tap, as a hostile guest could."""

    def __init__(self, fd: int, port: w.Port) -> None:
        self.fd = fd
        self.port = port

    def send(self, frame: bytes) -> None:
        os.write(self.fd, bytes(taps.HEADER_BYTES) + frame)

    async def receive(self) -> bytes:
        """The next frame. Fails if none comes."""

        def wait() -> bytes:
            ready, _, _ = select.select([self.fd], [], [], WAIT_SECONDS)
            assert ready, f"nothing came to {self.port.id}"
            return os.read(self.fd, 65_536)[taps.HEADER_BYTES :]

        return await asyncio.to_thread(wait)

    async def until(self, last: bytes) -> list[bytes]:
        """The frames that arrive before the frame `last`."""
        got: list[bytes] = []
        while (frame := await self.receive()) != last:
            got.append(frame)
        return got

    async def gets(self, sender: Guest, frame: bytes) -> bool:
        """Whether a frame of another guest arrives here. A marker follows on its path, so no time-out is needed."""
        mark = frames.marker(sender.port.mac)
        sender.send(frame)
        sender.send(mark)
        return frame in await self.until(mark)

    def close(self) -> None:
        os.close(self.fd)


@dataclass
class Lab:
    """Hosts by name, `host1` on 192.0.2.1 and so on."""

    networks: dict[str, LinuxNetwork]
    namespaces: dict[str, str]
    guests: list[Guest] = field(default_factory=list)

    async def plug(self, host: str, port: w.Port) -> Guest:
        guest = Guest(await self.networks[host].plug(port.id), port)
        self.guests.append(guest)
        return guest


async def reopened(address: str, namespace: str, *, public: bool = False) -> LinuxNetwork:
    return await LinuxNetwork.open(
        local_address=address,
        tracking=Tracking.BR_NETFILTER,
        namespace=namespace,
        physical={"public": PUBLIC_DEVICE} if public else None,
    )


@asynccontextmanager
async def lab(hosts: Sequence[str], *, outside: Outside | None = None) -> AsyncIterator[Lab]:
    """`outside`: where the physical network `public` of every host leads."""
    wire = HostNetworks(hosts)
    try:
        made = Lab({}, {host: wire.namespace(host) for host in hosts})
        try:
            for number, (host, namespace) in enumerate(made.namespaces.items(), start=1):
                if outside is not None:
                    outside.join(namespace)
                made.networks[host] = await reopened(f"192.0.2.{number}", namespace, public=outside is not None)
            yield made
        finally:
            for guest in made.guests:
                guest.close()
            for network in made.networks.values():
                await network.remove()
                await network.close()
    finally:
        wire.remove()  # Also after a test that has closed a network.
