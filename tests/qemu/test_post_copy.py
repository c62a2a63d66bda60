"""Post-copy with real guests: the guest runs at its destination before all of its memory has come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from cumulet.drivers.qemu import sockets
from cumulet.drivers.qemu.commands import Commands
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.live_migration_outcome import MEMORY
from cumulet.host.driver import DriverError, GuestState, MigrationPhase
from cumulet.testing.moving import prepared

from . import userfaultfd
from .conftest import PATIENCE_SECONDS, SLOW, Rig, Wire, follow, newest, runs_on, until, wire
from .moves import expecting_a_stranger, records_on_disk

POST_COPY = msgspec.structs.replace(SLOW, post_copy=True)


@pytest.fixture(autouse=True)
def allowed(request: pytest.FixtureRequest) -> Iterator[None]:
    with userfaultfd.allowed(alone=request.node.get_closest_marker("alone") is not None):
        yield


async def ready(rig: Rig) -> tuple[QemuDriver, QemuDriver]:
    """The copy of a guest was forced to complete, and waits for the commit."""
    source, destination = await rig.resumed(), await rig.open("host2")
    endpoint = await prepared(source, destination, rig.guest, POST_COPY)
    await source.start_copy(rig.id, endpoint, POST_COPY)
    await follow(source, rig.id, MigrationPhase.ACTIVE)
    await source.force_complete(rig.id)
    await source.force_complete(rig.id)
    assert (await follow(source, rig.id, MigrationPhase.POST_COPY_READY)).phase is MigrationPhase.POST_COPY_READY
    return source, destination


@asynccontextmanager
async def begun(rig: Rig) -> AsyncIterator[tuple[QemuDriver, QemuDriver, Wire, int]]:
    """The guest runs at its destination, and fetches its memory over a wire; and its newest tick at the source."""
    source, destination = await rig.resumed(), await rig.open("host2")
    endpoint = await prepared(source, destination, rig.guest, POST_COPY)
    async with wire(endpoint.port) as ram:
        await source.start_copy(rig.id, msgspec.structs.replace(endpoint, port=ram.port), POST_COPY)
        await follow(source, rig.id, MigrationPhase.ACTIVE)
        await source.force_complete(rig.id)
        await follow(source, rig.id, MigrationPhase.POST_COPY_READY)
        ticked = await newest(source, rig.id, b"tick")
        await source.begin_post_copy(rig.id)
        await let_run(destination, rig)
        yield source, destination, ram, ticked


async def let_run(destination: QemuDriver, rig: Rig) -> None:
    """Again and again until it does, as the control plane would: loading the devices' state may need pages, too."""

    async def runs() -> bool:
        with contextlib.suppress(DriverError):
            await destination.resume_destination(rig.id)
            return True
        return False

    await until(runs, "the destination runs the guest")


async def hurry(source: QemuDriver, rig: Rig) -> None:
    """What was slow, so that it could be interrupted, need not be so for ever."""
    hypervisor = source._host.running_hypervisor(rig.id)
    await hypervisor.migrate_set_parameters(max_postcopy_bandwidth=128 << 20)


async def arrived(destination: QemuDriver, rig: Rig, phase: MigrationPhase) -> None:
    async def seen() -> bool:
        return await destination.arrival(rig.id) is phase

    await until(seen, f"the destination says {phase}")


def test_a_copy_that_is_forced_to_complete_just_when_its_memory_begins_to_go_is_in_post_copy(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sockets.hand_over

    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")

        async def connect_and_force(hypervisor: Commands, name: str, address: str, port: int) -> None:
            await connect(hypervisor, name, address, port)
            if name == MEMORY:
                await source.force_complete(rig.id)

        monkeypatch.setattr(sockets, "hand_over", connect_and_force)
        endpoint = await prepared(source, destination, rig.guest, POST_COPY)
        await source.start_copy(rig.id, endpoint, POST_COPY)
        progress = await follow(source, rig.id, MigrationPhase.POST_COPY_READY)
        assert progress.phase is MigrationPhase.POST_COPY_READY
        await source.cancel_copy(rig.id)
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_the_guest_runs_at_its_destination_and_the_rest_of_its_memory_follows(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await ready(rig)
        assert await source.observe(rig.id) is GuestState.HANDED_OVER
        assert await destination.observe(rig.id) is GuestState.INCOMING
        ticked = await newest(source, rig.id, b"tick")
        written = await newest(source, rig.id, b"seq")
        await source.begin_post_copy(rig.id)
        await source.begin_post_copy(rig.id)
        assert await destination.observe(rig.id) is GuestState.INCOMING, "it runs when it is told to"
        await let_run(destination, rig)
        await destination.resume_destination(rig.id)
        await runs_on(destination, rig.id)
        await hurry(source, rig)
        await arrived(destination, rig, MigrationPhase.COMPLETED)
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        await source.destroy(rig.id)
        await destination.give_up_memory(rig.id)
        await runs_on(destination, rig.id)
        assert await newest(destination, rig.id, b"tick") > ticked, "it was not booted anew"
        await destination.stop(rig.id, grace_seconds=0.0)
        assert records_on_disk(rig, "host2") >= written
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_up_to_the_commit_it_can_be_called_off(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await ready(rig)
        ticked = await newest(source, rig.id, b"tick")
        assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.CANCELLED
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        assert await newest(source, rig.id, b"tick") > ticked
        with pytest.raises(DriverError):
            await destination.resume_destination(rig.id)
        await destination.destroy(rig.id)
        with pytest.raises(DriverError, match="NOT_COPYING"):
            await source.begin_post_copy(rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_dies_before_the_commit_costs_nothing(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await ready(rig)
        rig.signal("host2", signal.SIGKILL)
        assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.CANCELLED
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_an_agent_that_is_restarted_goes_on_waiting_for_the_commit(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await ready(rig)
        await source.close()
        source = await rig.open("host1")
        assert (await follow(source, rig.id, MigrationPhase.POST_COPY_READY)).phase is MigrationPhase.POST_COPY_READY
        assert await source.observe(rig.id) is GuestState.HANDED_OVER
        await source.begin_post_copy(rig.id)
        await let_run(destination, rig)
        await destination.close()
        destination = await rig.open("host2")
        await runs_on(destination, rig.id)
        await hurry(source, rig)
        await arrived(destination, rig, MigrationPhase.COMPLETED)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_source_that_dies_takes_memory_along_and_the_guest_is_booted_from_its_whole_disk(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await ready(rig)
        written = await newest(source, rig.id, b"seq")
        await source.begin_post_copy(rig.id)
        await let_run(destination, rig)
        rig.signal("host1", signal.SIGKILL)
        await arrived(destination, rig, MigrationPhase.FAILED)
        assert (await follow(source, rig.id)).phase is MigrationPhase.FAILED
        await destination.give_up_memory(rig.id)
        await destination.give_up_memory(rig.id)
        assert await destination.observe(rig.id) is GuestState.STOPPED
        assert records_on_disk(rig, "host2") >= written
        await destination.start(rig.id)
        assert await destination.observe(rig.id) is GuestState.RUNNING
        await source.destroy(rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


@pytest.mark.parametrize("noticed", [False, True])
def test_a_network_that_is_cut_in_post_copy_is_mended_by_another_connection(rig: Rig, noticed: bool) -> None:
    """Noticed by QEMU itself, or only by whoever sees that nothing arrives."""

    async def story() -> None:
        async with begun(rig) as (source, destination, ram, ticked):
            if noticed:
                await ram.break_off()
                await arrived(destination, rig, MigrationPhase.FAILED)
            else:
                ram.cut()
            assert await destination.arrival(rig.id) is not MigrationPhase.COMPLETED
            again = await destination.recover_incoming(rig.id)
            again = await destination.recover_incoming(rig.id) if noticed else again
            await hurry(source, rig)
            await source.recover_copy(rig.id, again)
            await arrived(destination, rig, MigrationPhase.COMPLETED)
            assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
            await source.recover_copy(rig.id, again)
            await runs_on(destination, rig.id)
            assert await newest(destination, rig.id, b"tick") > ticked, "it was not booted anew"
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_connection_that_is_just_taking_over_is_let_alone(rig: Rig) -> None:
    """QEMU's destination would not survive its end; found by a network that was cut for longer than patience."""

    async def story() -> None:
        async with begun(rig) as (source, destination, ram, ticked):
            ram.cut()
            again = await destination.recover_incoming(rig.id)
            hypervisor = destination._host.running_hypervisor(rig.id)

            async with wire(again.port, bytes_s=1500) as slow:
                await hurry(source, rig)
                await source.recover_copy(rig.id, msgspec.structs.replace(again, port=slow.port))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while True:  # By its event, for it lasts a moment only.
                        change = hypervisor.change()
                        if hypervisor.migration == "postcopy-recover":
                            break
                        await change.wait()
                slow.cut()
                assert await destination.arrival(rig.id) is MigrationPhase.POST_COPY
                with pytest.raises(DriverError, match="RECOVERING"):
                    await destination.recover_incoming(rig.id)
                slow.hurry()
                slow.heal()
                await arrived(destination, rig, MigrationPhase.COMPLETED)
            await runs_on(destination, rig.id)
            assert await newest(destination, rig.id, b"tick") > ticked, "it was not booted anew"
        await source.close()
        await destination.close()

    asyncio.run(story())


@pytest.mark.alone
def test_a_host_says_whether_guests_can_arrive_in_post_copy(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.open("host2")
        assert "post-copy" in (await driver.facts()).features
        userfaultfd.SETTING.write_text("0")
        assert "post-copy" not in (await driver.facts()).features
        with pytest.raises(DriverError, match="Postcopy is not supported"):
            await expecting_a_stranger(rig, driver, POST_COPY)
        assert await driver.observe(rig.id) is GuestState.ABSENT
        userfaultfd.SETTING.write_text("1")
        await driver.close()

    if os.geteuid() != 0:
        pytest.skip("only root changes what unprivileged processes may do")
    asyncio.run(story())
