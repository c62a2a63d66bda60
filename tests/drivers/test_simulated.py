"""The simulated driver refuses what a real one refuses (`tests/qemu`), so that whoever relies on it can be tested."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host.consoles import SESSIONS_OF_ONE
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import DriverError, Guest, GuestState, MigrationParameters, MigrationPhase
from cumulet.host.endpoint import Peer
from cumulet.host.telling import META_DATA, Told
from cumulet.settings import Settings
from cumulet.testing.moving import prepared

from .contract import Pair
from .test_contract import paired

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
        endpoint = await prepared(source, destination, guest, PARAMETERS)
        await source.start_copy(SERVER, endpoint, PARAMETERS)
        await completed(source)
        await source.start_copy(SERVER, endpoint, PARAMETERS)
        await destination.destroy(SERVER)
        again = await prepared(source, destination, guest, PARAMETERS)
        with pytest.raises(DriverError, match="to another place"):
            await source.start_copy(SERVER, again, PARAMETERS)
        await source.cancel_copy(SERVER)
        await source.resume_source(SERVER)
        with pytest.raises(DriverError, match="was not told of this move"):
            await source.start_copy(SERVER, endpoint, PARAMETERS)
        await source.prepare_outgoing(SERVER, move="third")
        third = msgspec.structs.replace(again.peer, move="third")
        with pytest.raises(DriverError, match="by this certificate"):
            await source.start_copy(SERVER, msgspec.structs.replace(again, peer=third), PARAMETERS)
        again = await prepared(source, destination, guest, PARAMETERS)
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
        await prepared(source, destination, guest, PARAMETERS)
        endpoint = await prepared(source, destination, guest, PARAMETERS)
        await source.start_copy(SERVER, endpoint, PARAMETERS)
        await completed(source)
        with pytest.raises(DriverError, match="HOLDS_STATE"):
            await destination.prepare_incoming(
                guest, source=Peer(host="host1", move="late", authority=""), parameters=PARAMETERS
            )
        await destination.resume_destination(SERVER)
        assert await destination.observe(SERVER) is GuestState.RUNNING
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_late_request_to_prepare_does_not_end_a_copy_that_is_under_way(tmp_path: Path) -> None:
    """As with QEMU, whose destination would lose what has come so far."""

    async def story() -> None:
        pair = await paired(tmp_path)
        await pair.source.start_copy(pair.id, await pair.prepared(pair.slow), pair.slow)
        with pytest.raises(DriverError, match="RECEIVING"):
            await pair.prepared()
        assert await pair.destination.arrival(pair.id) is MigrationPhase.ACTIVE
        await pair.source.cancel_copy(pair.id)
        await pair.source.resume_source(pair.id)
        await pair.copied()
        await pair.source.close()
        await pair.destination.close()

    asyncio.run(story())


def test_what_a_guest_was_told_before_it_was_taken_in_is_told_afterwards(tmp_path: Path) -> None:
    """And a password that it has posted waits on: nobody else has it."""
    open_ = opener(tmp_path)

    async def story() -> None:
        source, destination = open_("host1"), open_("host2")
        guest = await source.create(GUEST, run=False)
        await source.stand_by(SERVER)
        await source.start_copy(SERVER, await prepared(source, destination, guest, PARAMETERS), PARAMETERS)
        await completed(source)
        await destination.tell(SERVER, Told(revision=3, documents={META_DATA: b"{}"}))
        assert destination.post_password(SERVER, "encrypted")
        await destination.take_in(msgspec.structs.replace(guest, memory_mib=128))
        assert destination.tells(SERVER)[META_DATA] == b"{}"
        (report,) = await destination.guests()
        assert report.posted
        assert (await destination.tell(SERVER, Told(revision=2, documents={}))).revision == 4
        await source.close()
        await destination.close()

    asyncio.run(story())


# -- what it refuses beside what the contract says


def refusing(tmp_path: Path, act: Callable[[Pair], Awaitable[object]]) -> str:
    """What the driver says to `act`; raises AssertionError if it does as it is told."""

    async def story() -> str:
        pair = await paired(tmp_path)
        try:
            await act(pair)
        except DriverError as error:
            return str(error)
        finally:
            await pair.source.close()
            await pair.destination.close()
        raise AssertionError("it was not refused")

    return asyncio.run(story())


def test_a_guest_of_another_machine_is_not_received(tmp_path: Path) -> None:
    async def prepare(pair: Pair) -> None:
        guest = msgspec.structs.replace(pair.guest, machine_type="pc-q35-9.9")
        await prepared(pair.source, pair.destination, guest, pair.parameters)

    assert "cannot run pc-q35-9.9" in refusing(tmp_path, prepare)


def test_a_copy_that_is_not_is_not_mended(tmp_path: Path) -> None:
    async def recover(pair: Pair) -> None:
        await pair.source.recover_copy(pair.id, await pair.prepared())

    assert "no copy of guest" in refusing(tmp_path, recover)


@pytest.mark.parametrize("verb", ["begin_post_copy", "cancel_copy"])
def test_post_copy_needs_its_destination_and_has_no_way_back(tmp_path: Path, verb: str) -> None:
    """It does not begin where the destination is gone; once it has begun, it is not cancelled."""

    async def act(pair: Pair) -> None:
        never = MigrationParameters(bandwidth_mib_s=1, downtime_limit_ms=1, copy_disk=False, post_copy=True)
        await pair.source.start_copy(pair.id, await pair.prepared(never), never)
        await pair.source.force_complete(pair.id)
        seen = MigrationPhase.NONE
        while seen is not MigrationPhase.POST_COPY_READY:
            seen = (await pair.source.copy_progress(pair.id, wait_seconds=5.0, seen=seen)).phase
        if verb == "begin_post_copy":
            await pair.destination.destroy(pair.id)
        await pair.source.begin_post_copy(pair.id)
        await pair.source.cancel_copy(pair.id)

    expected = {"begin_post_copy": "closed the connection", "cancel_copy": "too late to cancel"}
    assert expected[verb] in refusing(tmp_path, act)


@pytest.mark.parametrize(
    ("disk_gib", "words"), [(1, "there is no Image service"), (5000, "larger than a simulated host can describe")]
)
def test_an_image_that_cannot_be_made_has_failed_and_says_why(tmp_path: Path, disk_gib: int, words: str) -> None:
    """Nobody waits for it for ever."""
    settings = Settings(state_dir=tmp_path, database_url="sqlite://", simulated_speed=1e9)
    driver = SimulatedDriver(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)

    async def story() -> SnapshotProgress:
        await driver.create(msgspec.structs.replace(GUEST, disk_gib=disk_gib))
        await driver.begin_snapshot(SERVER, image_id="an-image")
        progress = SnapshotProgress(phase=SnapshotPhase.COPYING)
        async with asyncio.timeout(10):
            while not progress.phase.ended:
                progress = await driver.snapshot_progress(
                    SERVER, image_id="an-image", wait_seconds=5.0, seen=progress.phase
                )
        return progress

    progress = asyncio.run(story())
    assert progress.phase is SnapshotPhase.FAILED
    assert words in (progress.error or "")


def test_a_console_is_of_a_guest_that_runs_and_a_session_of_somebody_who_opened_it(tmp_path: Path) -> None:
    async def story() -> None:
        driver = opener(tmp_path)("host1")
        with pytest.raises(DriverError, match="NOT_RUNNING"):
            await driver.open_console(SERVER, "a")
        with pytest.raises(DriverError, match="NOT_RUNNING"):
            await driver.open_screen(SERVER, "a")
        with pytest.raises(DriverError, match="NO_SESSION"):
            await driver.read_console(SERVER, "a", position=0, wait_seconds=0.0)
        await driver.create(GUEST)
        await driver.open_console(SERVER, "a")
        with pytest.raises(DriverError, match="NO_SESSION"):
            await driver.write_console(SERVER, "b", position=0, data=b"\n")
        for number in range(1, SESSIONS_OF_ONE):
            await driver.open_console(SERVER, f"more {number}")
        with pytest.raises(DriverError, match="TOO_MANY_CONSOLES"):
            await driver.open_console(SERVER, "one too many")
        await driver.open_console(SERVER, "a")  # It is open, and stays so.

    asyncio.run(story())


def test_a_guest_that_stands_still_answers_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        driver = opener(tmp_path)("host1")
        await driver.create(msgspec.structs.replace(GUEST, agent=True))
        await driver.set_password(SERVER, user="root", password="a")
        await driver.pause(SERVER)
        with pytest.raises(DriverError, match="AGENT_NO_ANSWER"):
            await driver.set_password(SERVER, user="root", password="b")

    asyncio.run(story())
