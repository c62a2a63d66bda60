"""The process on a host: one agent with its driver, fence and lease. It ends with the process that started it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet.agent import watchdog
from cumulet.agent.agent import Agent, HostLease, Unleased
from cumulet.agent.fence import FileFence
from cumulet.agent.images import ImagesOfControlPlane
from cumulet.agent.lease import ExpiryFile, Lease
from cumulet.bus.unix_socket import serve_agent
from cumulet.confined import user_ids
from cumulet.fleet.local_agents import AgentPlace

if TYPE_CHECKING:
    from cumulet.drivers.linux_network.network import LinuxNetwork

log = logging.getLogger(__name__)


async def run_agent(place: AgentPlace) -> None:
    """Be the agent of one host until standard input closes."""
    from cumulet.drivers.qemu.driver import QemuDriver

    async with only_one(place.state):
        lease = await lease_of(place.state, place.lease_seconds)
        network = (
            None
            if place.network_namespace is None
            else await network_of(place.name, place.address, place.public_device)
        )
        images = ImagesOfControlPlane(place.images, place.tls)
        driver = await QemuDriver.open(
            name=place.name,
            state=place.state / "qemu",
            images=images,
            sink=images,
            address=place.address,
            network=network,
            sharing=place.sharing,
            guest_uids=user_ids.of(place.guest_uids),
            limits=place.limits,
        )
        agent = Agent(
            name=place.name, driver=driver, fence=FileFence(place.state / "fence"), lease=lease,
            session=secrets.token_hex(8),
        )  # fmt: skip
        server = await serve_agent(agent, place.socket)
        try:
            await asyncio.to_thread(_until_parent_ends)
        finally:
            server.close()
            await driver.close()


async def network_of(host: str, address: str, public_device: str | None) -> LinuxNetwork | None:
    """Wires the guests of a host that is alone in its network namespace. None: that is not possible here."""
    from cumulet.drivers.linux_network.network import LinuxNetwork
    from cumulet.drivers.linux_network.probe import probe

    answer = await asyncio.to_thread(probe)
    if answer.tracking is None:
        log.warning("%s cannot wire guests: %s", host, answer.problem)
        return None
    physical = {} if public_device is None else {"public": public_device}
    return await LinuxNetwork.open(local_address=address, tracking=answer.tracking, physical=physical)


class WatchedLease(Lease):
    """A lease that is renewed only while the watchdog lives. A watchdog that has ended is started again first."""

    def __init__(self, state: Path, *, seconds: float) -> None:
        """TimeoutError: no watchdog starts."""
        file = watchdog.lease_file(state)
        super().__init__(ExpiryFile(file), seconds=seconds)
        self._state = state
        if not file.exists():
            self.begin()  # Guests that ran here without a lease go on.
        watchdog.ensure(state)
        self._watched = True

    @property
    def held(self) -> bool:
        return self._watched and super().held

    def asked(self, session: str, number: int, heard: int | None) -> None:
        try:
            watchdog.ensure(self._state)
        except (TimeoutError, OSError) as problem:
            log.error("guests of this host would not end with its lease, which is not renewed: %s", problem)
            self._watched = False
            return
        self._watched = True
        super().asked(session, number, heard)


class DismissedLease(Unleased):
    """For a host without a watchdog. One of an earlier agent is ended once the control plane knows of the change."""

    def __init__(self, state: Path) -> None:
        self._state = state

    async def welcomed(self) -> None:
        try:
            await asyncio.to_thread(watchdog.dismiss, self._state)
        except (TimeoutError, OSError) as problem:
            log.error("guests of this host end with a lease that nobody renews any more: %s", problem)


async def lease_of(state: Path, seconds: float | None) -> HostLease:
    """The lease of the host with this state folder. `seconds` None: it has no watchdog."""
    if seconds is None:
        return DismissedLease(state)
    return await asyncio.to_thread(WatchedLease, state, seconds=seconds)


def _until_parent_ends() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass


@contextlib.asynccontextmanager
async def only_one(state: Path) -> AsyncIterator[None]:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state / watchdog.AGENT_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        watchdog.note_agent(state)
        yield
    finally:
        os.close(lock)
