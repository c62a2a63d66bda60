"""The simulated driver refuses what a real one refuses (`tests/qemu`), so that whoever relies on it can be tested."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cumulet.clock import SystemClock
from cumulet.host.driver import DriverError, Guest, GuestState, MigrationParameters, MigrationPhase
from cumulet.host.simulated import SimulatedDriver, World
from cumulet.settings import Settings

SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"
GUEST = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None)
PARAMETERS = MigrationParameters(bandwidth_mib_s=1024, downtime_limit_ms=300, copy_disk=True)


def test_a_late_request_to_prepare_does_not_throw_away_what_has_arrived(tmp_path: Path) -> None:
    """Sent once, delivered twice: the second time the destination holds what may be the only copy."""
    settings = Settings(state_dir=tmp_path, database_url="sqlite://", simulated_speed=1000.0)
    world = World()

    def open_(name: str) -> SimulatedDriver:
        return SimulatedDriver(name=name, world=world, clock=SystemClock(), settings=settings, directory=None)

    async def story() -> None:
        source, destination = open_("host1"), open_("host2")
        guest = await source.create(GUEST)
        await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        endpoint = await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        await source.start_copy(SERVER, endpoint, PARAMETERS)
        phase = MigrationPhase.DISK
        while not phase.ended:
            phase = (await source.copy_progress(SERVER, wait_seconds=5.0, seen=phase)).phase
        assert phase is MigrationPhase.COMPLETED
        with pytest.raises(DriverError, match="HOLDS_STATE"):
            await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        await destination.resume_destination(SERVER)
        assert await destination.observe(SERVER) is GuestState.RUNNING
        await source.close()
        await destination.close()

    asyncio.run(story())
