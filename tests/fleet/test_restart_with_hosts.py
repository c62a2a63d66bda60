"""A cloud that starts anew, with its own bus: the hosts that have joined lost theirs, and come back to it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cumulet.agent.joining import Membership
from cumulet.compute.host_recorder import WATCH
from cumulet.compute.host_watch import HostWatch
from cumulet.conductor import findings
from cumulet.processes import remote_hosts
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, agent_of, join, joinable_cloud, membership, until

pytestmark = needs_nats


async def joined(cloud: JoinableCloud, of: Membership) -> int:
    """Joins a host and sees it up; the port of the cloud's bus."""
    await join(of, await cloud.invite("rack1"))
    async with agent_of(of, "before"):
        await until(lambda: cloud.up("rack1"))
    granted = await of.claim("first")
    return int(granted.bus[0].rpartition(":")[2])


def marked_down(cloud: JoinableCloud) -> list[str]:
    rows = cloud.cloud.db.read(findings.newest)
    return [row.host for row in rows if row.reconciler == WATCH and row.finding == "host-silent"]


def test_hosts_that_were_up_are_heard_before_operations_go_on(tmp_path: Path) -> None:
    async def told() -> None:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            folder, of = tmp_path / "cloud", membership(tmp_path / "rack1")
            async with joinable_cloud(folder, host_silent_seconds=30.0) as cloud:
                port = await joined(cloud, of)
                await stack.enter_async_context(agent_of(of, "first"))
                await until(lambda: cloud.up("rack1"))
            async with joinable_cloud(folder, bus_port=port, host_silent_seconds=30.0) as cloud:
                assert "rack1" in cloud.cloud.conductor.reconciler(HostWatch)._records, "it has answered"
                assert marked_down(cloud) == []

    asyncio.run(told())


def test_a_host_that_does_not_come_back_holds_up_the_start_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_hosts, "RETURN_SECONDS", 0.5)

    async def told() -> None:
        async with asyncio.timeout(60):
            folder, of = tmp_path / "cloud", membership(tmp_path / "rack1")
            async with joinable_cloud(folder, host_silent_seconds=30.0) as cloud:
                port = await joined(cloud, of)
            async with joinable_cloud(folder, bus_port=port, host_silent_seconds=30.0) as cloud:
                assert await cloud.up("rack1"), "it was not silent for 30 seconds yet"
                assert marked_down(cloud) == []

    asyncio.run(told())
