"""A cloud of simulated hosts that machines can join over real HTTPS and a real NATS, and such machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cumulet.agent.agent import Agent, HostLease
from cumulet.agent.fence import MemoryFence
from cumulet.agent.joining import Joined, Membership
from cumulet.bus.nats import NatsAgent
from cumulet.cli.client import Answer, Persona, credentials_of, https, log_in
from cumulet.clock import Clock, SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.processes.all import start_cloud
from cumulet.processes.embedded_cloud import EmbeddedCloud
from cumulet.settings import Settings
from cumulet.testing import JsonObject

HOSTS = "/compute/v2.1/cumulet/hosts"


class SkewedClock(SystemClock):
    """Of a machine whose clock is wrong."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._off_us = round(seconds * 1_000_000)

    def now_us(self) -> int:
        return super().now_us() + self._off_us


class JoinableCloud:
    """An administrator's view of it, off the event loop."""

    def __init__(self, cloud: EmbeddedCloud, admin: Persona) -> None:
        self.cloud = cloud
        self.admin = admin

    async def ask(self, method: str, path: str, body: object | None = None) -> Answer:
        return await asyncio.to_thread(self.admin.ask, method, path, body)

    async def invite(self, name: str) -> JsonObject:
        """``join``, ``token`` and ``ca_fingerprint``, once the door is open."""
        answer = await self.ask("POST", HOSTS, {"host": {"name": name}})
        assert answer.status == 201, answer.text
        made: JsonObject = answer.json["host"]
        port = int(made["join"].rpartition(":")[2])
        while True:  # The door opens after the answer.
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            writer.close()
            return made

    async def joined(self) -> list[str]:
        answer = await self.ask("GET", HOSTS)
        return [one["name"] for one in answer.json["hosts"] if one["joined_at"] is not None]

    async def up(self, name: str) -> bool:
        found = await self.ask("GET", "/compute/v2.1/os-services?binary=nova-compute")
        return any(one["host"] == name and one["state"] == "up" for one in found.json["services"])


@asynccontextmanager
async def joinable_cloud(folder: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[JoinableCloud]:
    chosen: JsonObject = {
        "host_names": ("host1",),
        "hosts_port": 0,
        "bus_port": 0,
        "host_silent_seconds": 1.0,
        "database_url": f"sqlite:///{folder / 'cumulet.db'}",
    } | settings
    all_of_them = Settings(
        state_dir=folder,
        listen_port=0,
        argon2_memory_kib=64,
        **chosen,
    )
    cloud = await start_cloud(all_of_them, clock=clock)
    try:
        credentials, authority = credentials_of(folder / "clouds.yaml", "cumulet")
        http = await asyncio.to_thread(https, cloud.url, authority)
        admin = await asyncio.to_thread(log_in, http, "admin", credentials)
        yield JoinableCloud(cloud, admin)
        http.close()
    finally:
        await cloud.stop()


def membership(state: Path, clock: SystemClock | None = None, *, driver: str = "simulated") -> Membership:
    return Membership(state, clock or SystemClock(), driver=driver)


async def join(of: Membership, made: JsonObject) -> Joined:
    return await of.join(made["join"], made["token"], made["ca_fingerprint"])


def driver_of(name: str) -> SimulatedDriver:
    settings = Settings(state_dir=Path("state"), database_url="sqlite://")
    return SimulatedDriver(name=name, world=World(), clock=SystemClock(), settings=settings, directory=None)


@asynccontextmanager
async def agent_of(
    of: Membership,
    session: str,
    driver: SimulatedDriver | None = None,
    *,
    bus_at: str | None = None,
    lease: HostLease | None = None,
) -> AsyncIterator[NatsAgent]:
    """A machine's agent, from its start until it is switched off. `driver`: with the guests that it has already.
    `bus_at`: where it reaches the bus, if not where the cloud does."""
    granted = await of.claim(session)
    joined = of.joined()
    assert joined is not None
    driver = driver or driver_of(joined.name)
    agent = Agent(name=joined.name, driver=driver, fence=MemoryFence(), lease=lease, session=session)
    servers = granted.bus if bus_at is None else (bus_at,)
    bus = NatsAgent(agent, name=joined.name, servers=servers, tls=of.tls, incarnation=session)
    await bus.start()
    await bus.connected()
    try:
        yield bus
    finally:
        await bus.close()


def tell(
    folder: Path, story: Callable[[JoinableCloud], Awaitable[None]], clock: Clock | None = None, **settings: object
) -> None:
    async def told() -> None:
        async with asyncio.timeout(60), joinable_cloud(folder / "cloud", clock, **settings) as cloud:
            await story(cloud)

    asyncio.run(told())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        pass
