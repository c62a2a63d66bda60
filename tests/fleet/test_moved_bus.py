"""A bus that has moved to another address: agents learn it at the door, and go there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from cumulet.agent import staying_joined
from cumulet.agent.staying_joined import keep_admitted
from cumulet.bus.nats import NatsAgent
from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.ca import CertificateAuthority
from cumulet.compute import joined_hosts
from cumulet.fleet.nats_server import BusUser, NatsServer
from cumulet.host.messages import HostError
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, agent_of, join, joinable_cloud, membership

pytestmark = needs_nats


@contextlib.asynccontextmanager
async def nats_of(cloud: Path, folder: Path) -> AsyncIterator[NatsServer]:
    """An operator's NATS server for the cloud in this state folder."""
    issued = CertificateAuthority.load_or_create(cloud / "ca").issue_bus(SERVER_NAME)
    server = NatsServer(folder, issued, address="127.0.0.1", port=-1)
    await server.start([])
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def kept(state: Path, agent: NatsAgent) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(keep_admitted(membership(state), agent, "first"))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def answers(cloud: JoinableCloud, name: str) -> None:
    while True:
        with contextlib.suppress(HostError):
            assert (await cloud.cloud.hosts.facts(name)).session == "first"
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("goes_on", [False, True], ids=["the old one ends", "the old one goes on"])
def test_an_agent_goes_where_the_bus_is_now(goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staying_joined, "CUT_OFF_SECONDS", 0.05)
    monkeypatch.setattr(staying_joined, "QUIET_SECONDS", 1.0)
    folder, state = tmp_path / "cloud", tmp_path / "rack1"
    folder.mkdir(mode=0o700)

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            old, new = [await stack.enter_async_context(nats_of(folder, tmp_path / name)) for name in ("old", "new")]
            async with joinable_cloud(folder, bus=f"nats://127.0.0.1:{old.port}") as cloud:
                joined = await join(membership(state), await cloud.invite("rack1"))
                members = await cloud.cloud.db.read_async(joined_hosts.members)
                for server in (old, new):
                    server.admit([BusUser(identity=one.identity, host=one.name) for one in members])
                agent = await stack.enter_async_context(agent_of(membership(state), "first"))
                admitted = await stack.enter_async_context(kept(state, agent))
                await answers(cloud, "rack1")
            if not goes_on:
                await old.stop()
            async with joinable_cloud(folder, bus=f"nats://127.0.0.1:{new.port}") as cloud:
                door = cloud.cloud.context.door
                assert door is not None
                there = msgspec.structs.replace(joined, url=door.url)
                (state / "joined.json").write_bytes(msgspec.json.encode(there))
                await answers(cloud, "rack1")
            assert not admitted.done()

    async def told() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(told())
