"""Two conductors on one PostgreSQL and one NATS; the one that leads dies, and can tell nobody."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from cumulet.agent.lease import Lease
from cumulet.compute import joined_hosts
from cumulet.compute.part import COMPUTE_PART
from cumulet.conductor import findings
from cumulet.fleet.nats_server import BusUser
from cumulet.part import SettingRefused
from cumulet.processes.conductor import conductor_alone
from cumulet.processes.parts import PARTS
from cumulet.settings import Settings
from cumulet.testing import JsonObject
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import agent_of, join, joinable_cloud, membership, until
from tests.fleet.test_lost_bus import Noted, led_by
from tests.fleet.test_moved_bus import nats_of
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
LEASE_SECONDS, SILENT_SECONDS = 5.0, 10.0
HOST_LEASE_SECONDS = 2 * LEASE_SECONDS + SILENT_SECONDS
"""The shortest that is allowed."""


@pytest.mark.postgres
@needs_nats
def test_another_one_renews_the_leases_of_hosts_before_they_end(database_url: str, tmp_path: Path) -> None:
    folder, of = tmp_path / "cloud", membership(tmp_path / "rack1")
    folder.mkdir(mode=0o700)

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            nats = await stack.enter_async_context(nats_of(folder, tmp_path / "nats"))
            bus = f"nats://127.0.0.1:{nats.port}"
            settings: JsonObject = {
                "database_url": database_url,
                "host_names": (),
                "fence_silent_hosts": True,
                "lease_seconds": LEASE_SECONDS,
                "host_silent_seconds": SILENT_SECONDS,
                "host_lease_seconds": HOST_LEASE_SECONDS,
            }
            cloud = await stack.enter_async_context(joinable_cloud(folder, bus=bus, **settings))
            lease = Lease(noted := Noted(), seconds=HOST_LEASE_SECONDS)
            await join(of, await cloud.invite("rack1"))
            members = await cloud.cloud.db.read_async(joined_hosts.members)
            nats.admit([BusUser(identity=one.identity, host=one.name) for one in members])
            await stack.enter_async_context(agent_of(of, "first", bus_at=bus, lease=lease))
            await until(lambda: cloud.up("rack1"))
            theirs = msgspec.structs.replace(cloud.cloud.settings, bus=bus)
            other = await stack.enter_async_context(conductor_alone(PARTS, theirs))
            await until(noted.more_than(2))
            cloud.cloud.conductor.leadership.kill()
            await until(led_by(other))
            renewals = noted.renewals
            await until(noted.more_than(renewals))
            assert noted.lapses == 0, "the guests of a host with a watchdog would have ended"
            assert await cloud.up("rack1")
            assert [row.finding for row in await cloud.cloud.db.read_async(findings.newest)] == []

    async def told() -> None:
        async with asyncio.timeout(120):
            await story()

    asyncio.run(told())


@pytest.mark.parametrize(
    ("fenced", "host_lease_seconds", "refused"), [(True, 29.0, True), (True, 30.0, False), (False, 1.0, False)]
)
def test_a_lease_that_would_not_last_so_long_is_refused(
    tmp_path: Path, fenced: bool, host_lease_seconds: float, refused: bool
) -> None:
    settings = Settings(
        state_dir=tmp_path,
        database_url="sqlite://",
        fence_silent_hosts=fenced,
        host_lease_seconds=host_lease_seconds,
    )
    require = COMPUTE_PART.require
    assert require is not None
    if refused:
        with pytest.raises(SettingRefused, match=r"host_lease_seconds: at least 30 with these lease_seconds"):
            require(settings)
    else:
        require(settings)
