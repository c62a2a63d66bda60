"""Two conductors on one PostgreSQL and one NATS; the one that leads loses its way to NATS, without being told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from cumulet.agent.lease import Lease
from cumulet.compute import joined_hosts
from cumulet.conductor import findings
from cumulet.conductor.conductor import Conductor
from cumulet.fleet.nats_server import BusUser
from cumulet.processes.conductor import conductor_alone
from cumulet.processes.parts import PARTS
from cumulet.testing import JsonObject
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, agent_of, join, joinable_cloud, membership, until
from tests.fleet.test_moved_bus import nats_of
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = [pytest.mark.postgres, needs_nats]
LEASE_SECONDS, SILENT_SECONDS, HOST_LEASE_SECONDS = 5.0, 10.0, 20.0
SERVERS = "/compute/v2.1/servers"


class Noted:
    """The end of a host's lease, for `agent.lease`. `lapses`: how often it had run out before it was renewed."""

    def __init__(self) -> None:
        self._end: float | None = None
        self.renewals = self.lapses = 0

    def now(self) -> float:
        return time.monotonic()

    def left(self) -> float:
        return 0.0 if self._end is None else self._end - self.now()

    def end_at(self, at: float) -> None:
        self.renewals += 1
        self.lapses += self._end is not None and self.left() <= 0
        self._end = at

    def more_than(self, renewals: int) -> Callable[[], Awaitable[bool]]:
        async def were() -> bool:
            await asyncio.sleep(0)
            return self.renewals > renewals

        return were


class Cable:
    """A way to a TCP server on this machine. While it is cut, nothing passes, and neither side is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.whole = asyncio.Event()
        self.whole.set()

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[int]:
        """Yields its port."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pass(reader, to), self._pass(there, writer))
        finally:
            to.close()
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                await self.whole.wait()
                writer.write(piece)
                await writer.drain()
        writer.close()


def led_by(one: Conductor) -> Callable[[], Awaitable[bool]]:
    async def leads() -> bool:
        await asyncio.sleep(0)
        return one.leadership.leads

    return leads


async def active_on(cloud: JoinableCloud, host: str) -> str:
    """The id of a new server, once it is active on this host."""
    flavors = (await cloud.ask("GET", "/compute/v2.1/flavors")).json["flavors"]
    images = (await cloud.ask("GET", "/image/v2/images")).json["images"]
    named = {"name": "one", "flavorRef": flavors[0]["id"], "imageRef": images[0]["id"], "networks": "none"}
    made = await cloud.ask("POST", SERVERS, {"server": {**named, "host": host}})
    assert made.status == 202, made.text
    server_id = str(made.json["server"]["id"])

    async def is_active() -> bool:
        server = (await cloud.ask("GET", f"{SERVERS}/{server_id}")).json["server"]
        assert server["status"] != "ERROR", server
        return bool(server["status"] == "ACTIVE")

    await until(is_active)
    return server_id


def test_the_other_one_leads_and_carries_and_no_host_is_down(database_url: str, tmp_path: Path) -> None:
    folder, of = tmp_path / "cloud", membership(tmp_path / "rack1")
    folder.mkdir(mode=0o700)

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            nats = await stack.enter_async_context(nats_of(folder, tmp_path / "nats"))
            cable = Cable(nats.port)
            cut = f"nats://127.0.0.1:{await stack.enter_async_context(cable.laid())}"
            direct = f"nats://127.0.0.1:{nats.port}"
            settings: JsonObject = {"database_url": database_url, "host_names": (), "fence_silent_hosts": True}
            settings |= {
                "lease_seconds": LEASE_SECONDS,
                "host_silent_seconds": SILENT_SECONDS,
                "host_lease_seconds": HOST_LEASE_SECONDS,
            }
            cloud = await stack.enter_async_context(joinable_cloud(folder, bus=cut, **settings))
            lease = Lease(noted := Noted(), seconds=HOST_LEASE_SECONDS)
            await join(of, await cloud.invite("rack1"))
            members = await cloud.cloud.db.read_async(joined_hosts.members)
            nats.admit([BusUser(identity=one.identity, host=one.name) for one in members])
            await stack.enter_async_context(agent_of(of, "first", bus_at=direct, lease=lease))
            await until(lambda: cloud.up("rack1"))
            theirs = msgspec.structs.replace(cloud.cloud.settings, bus=direct)
            other = await stack.enter_async_context(conductor_alone(PARTS, theirs))
            first = cloud.cloud.conductor
            assert (first.leadership.leads, other.leadership.leads) == (True, False)
            cable.whole.clear()
            await until(led_by(other))
            assert not first.leadership.leads
            renewals = noted.renewals
            await until(noted.more_than(renewals + 1))
            assert noted.left() > 0
            assert noted.lapses == 0, "between two leaders the guests of a host with a watchdog would have ended"
            await active_on(cloud, "rack1")
            assert await cloud.up("rack1")
            rows = await cloud.cloud.db.read_async(findings.newest)
            assert [row.finding for row in rows] == []
            cable.whole.set()

    async def told() -> None:
        async with asyncio.timeout(120):
            await story()

    asyncio.run(told())
