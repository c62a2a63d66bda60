"""The simulated driver refuses what a real one refuses (`tests/qemu`), so that whoever relies on it can be tested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host.driver import DriverError, Guest, GuestState, MigrationParameters, MigrationPhase
from cumulet.settings import Settings

SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"
GUEST = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None)
PARAMETERS = MigrationParameters(bandwidth_mib_s=1024, downtime_limit_ms=300, copy_disk=True)


def opener(tmp_path: Path) -> Callable[[str], SimulatedDriver]:
    settings = Settings(state_dir=tmp_path, database_url="sqlite://", simulated_speed=1000.0)
    world = World()
    return lambda name: SimulatedDriver(name=name, world=world, clock=SystemClock(), settings=settings, directory=None)


async def completed(source: SimulatedDriver) -> None:
    phase = MigrationPhase.DISK
    while not phase.ended:
        phase = (await source.copy_progress(SERVER, wait_seconds=5.0, seen=phase)).phase
    assert phase is MigrationPhase.COMPLETED


def test_a_copy_of_an_earlier_move_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """That move was called off while this host was away, so nobody has told it."""
    open_ = opener(tmp_path)

    async def story() -> None:
        source, destination = open_("host1"), open_("host2")
        guest = await source.create(GUEST)
        endpoint = await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        await source.start_copy(SERVER, endpoint, PARAMETERS)
        await completed(source)
        await source.start_copy(SERVER, endpoint, PARAMETERS)
        await destination.destroy(SERVER)
        again = await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        with pytest.raises(DriverError, match="to another place"):
            await source.start_copy(SERVER, again, PARAMETERS)
        await source.cancel_copy(SERVER)
        await source.resume_source(SERVER)
        await source.start_copy(SERVER, again, PARAMETERS)
        await completed(source)
        assert await destination.arrival(SERVER) is MigrationPhase.COMPLETED
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_late_request_to_prepare_does_not_throw_away_what_has_arrived(tmp_path: Path) -> None:
    """Sent once, delivered twice: the second time the destination holds what may be the only copy."""
    open_ = opener(tmp_path)

    async def story() -> None:
        source, destination = open_("host1"), open_("host2")
        guest = await source.create(GUEST)
        await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        endpoint = await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        await source.start_copy(SERVER, endpoint, PARAMETERS)
        await completed(source)
        with pytest.raises(DriverError, match="HOLDS_STATE"):
            await destination.prepare_incoming(guest, source_host="host1", parameters=PARAMETERS)
        await destination.resume_destination(SERVER)
        assert await destination.observe(SERVER) is GuestState.RUNNING
        await source.close()
        await destination.close()

    asyncio.run(story())
