"""The simulated driver does what the contract says, as the real one does (`tests/qemu/test_contract.py`)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host.disks import Rescue, Snapshots
from cumulet.host.driver import Console, Copy, Driver, Guest, GuestState, Life, MigrationParameters
from cumulet.host.guest_agent import GuestAgent
from cumulet.host.telling import Telling
from cumulet.settings import Settings

from .contract import (
    ASKED_OF_ITS_PROCESS,
    OVER,
    STATES,
    TABLE,
    VERBS,
    Pair,
    broken,
    has_its_ports_changed_when_it_is_over,
    keeps_devices,
    shared,
    stopped,
    tells_how_far_a_copy_is,
)

FAST = MigrationParameters(bandwidth_mib_s=100_000, downtime_limit_ms=300, copy_disk=True)
SLOW = MigrationParameters(bandwidth_mib_s=4, downtime_limit_ms=1, copy_disk=True)
GUEST = Guest(
    server_id="3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10", name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None
)


async def paired(tmp_path: Path, parameters: MigrationParameters = FAST) -> Pair:
    settings = Settings(state_dir=tmp_path, database_url="sqlite://", simulated_speed=1.0)
    world = World()
    source, destination = (
        SimulatedDriver(name=name, world=world, clock=SystemClock(), settings=settings, directory=None)
        for name in ("host1", "host2")
    )
    guest = await source.create(GUEST)
    return Pair(
        source=source,
        destination=destination,
        guest=guest,
        parameters=parameters,
        slow=SLOW,
        end=end_simulated,
        power_off=power_off_simulated,
        fail=end_simulated,
    )


async def end_simulated(driver: Driver, server_id: str) -> None:
    assert isinstance(driver, SimulatedDriver)
    driver.crash_guest(server_id)


async def power_off_simulated(driver: Driver, server_id: str) -> None:
    assert isinstance(driver, SimulatedDriver)
    driver.power_off_guest(server_id)


@pytest.mark.parametrize(("state", "verb"), [(state, verb) for state, verbs in TABLE.items() for verb in verbs])
def test_a_verb_does_what_the_contract_says(tmp_path: Path, state: str, verb: str) -> None:
    async def story() -> list[str]:
        pair = await paired(tmp_path)
        wrong = await broken(pair, state, [verb])
        await pair.source.close()
        await pair.destination.close()
        return wrong

    assert asyncio.run(story()) == []


@pytest.mark.parametrize("state", TABLE)
def test_verbs_that_leave_a_guest_as_it_is_do_so_one_after_the_other(tmp_path: Path, state: str) -> None:
    async def story() -> list[str]:
        pair = await paired(tmp_path)
        wrong = await broken(pair, state, shared(state))
        await pair.source.close()
        await pair.destination.close()
        return wrong

    assert asyncio.run(story()) == []


def test_the_contract_has_every_state_and_every_verb_of_a_drivers() -> None:
    """What post-copy needs beside is told by `tests/qemu/test_post_copy.py` and the simulation; what is plugged in, and
    pulled out, by `tests/qemu/test_hotplug.py`."""
    sessions = {
        name for name in vars(Console) if name.startswith(("open_", "read_", "write_", "close_"))
    }  # `test_consoles.py`, `test_screens.py`
    verbs = {
        name
        for part in (Life, Console, Copy, Snapshots, Rescue, GuestAgent, Telling)
        for name in vars(part)
        if not name.startswith("_")
    }
    elsewhere = {"start_copy", "recover_copy", "plug", *sessions}
    assert TABLE.keys() == STATES.keys()
    assert {verb.partition(",")[0] for verb in VERBS} - {"diagnostics"} == verbs - elsewhere
    for state, outcomes in TABLE.items():
        assert VERBS.keys() - outcomes.keys() <= (ASKED_OF_ITS_PROCESS if state in OVER else {"arrival"}), state


@pytest.mark.parametrize("paused", [False, True])
def test_whether_it_stays_paused_is_told_to_the_destination_and_not_seen_at_the_source(
    tmp_path: Path, paused: bool
) -> None:
    async def story() -> GuestState:
        told = MigrationParameters(bandwidth_mib_s=100_000, downtime_limit_ms=300, copy_disk=True, paused=paused)
        pair = await paired(tmp_path, told)
        await pair.source.pause(pair.id)
        await pair.copied()
        await pair.destination.resume_destination(pair.id)
        state = await pair.destination.observe(pair.id)
        await pair.source.close()
        await pair.destination.close()
        return state

    assert asyncio.run(story()) is (GuestState.PAUSED if paused else GuestState.RUNNING)


def test_a_guest_has_the_devices_that_its_host_offers_and_no_others(tmp_path: Path) -> None:
    async def story() -> None:
        pair = await paired(tmp_path)
        await keeps_devices(pair.destination, GUEST)
        await pair.source.close()
        await pair.destination.close()

    asyncio.run(story())


def test_how_far_the_copy_of_a_stopped_guests_disk_is_can_be_seen(tmp_path: Path) -> None:
    async def story() -> None:
        pair = await paired(tmp_path)
        await tells_how_far_a_copy_is(await stopped(pair), pair.id)
        await pair.source.close()
        await pair.destination.close()

    asyncio.run(story())


@pytest.mark.parametrize("state", ["failed", "powered_off"])
def test_a_guest_that_is_over_has_its_ports_changed(tmp_path: Path, state: str) -> None:
    async def story() -> None:
        pair = await paired(tmp_path)
        await has_its_ports_changed_when_it_is_over(pair, state)
        await pair.source.close()
        await pair.destination.close()

    asyncio.run(story())
