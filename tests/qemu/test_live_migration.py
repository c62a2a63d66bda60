"""A guest moves between two hosts over TLS with its disk, and nothing that fails on the way loses or doubles it."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import msgspec
import pytest

from cumulet.drivers.qemu.process import identify
from cumulet.host.driver import DriverError, GuestState, MigrationPhase
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, SLOW, Rig, follow, gone, newest, runs_on, wire
from .moves import begin, copy, expecting_a_stranger, move, records_on_disk, stands_still, stays_on_the_console


def test_a_guest_moves_with_memory_and_disk_and_nothing_is_left_behind(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await move(rig)
        assert await source.observe(rig.id) is GuestState.HANDED_OVER
        assert await destination.observe(rig.id) is GuestState.INCOMING
        written = await newest(source, rig.id, b"seq")
        ticked = await newest(source, rig.id, b"tick")
        await destination.resume_destination(rig.id)
        await destination.open_console(rig.id, "one")
        await destination.resume_destination(rig.id)
        await stays_on_the_console(destination, rig)
        assert await newest(destination, rig.id, b"tick") > ticked
        await source.destroy(rig.id)
        await source.destroy(rig.id)
        assert await source.observe(rig.id) is GuestState.ABSENT
        assert await source.guests() == []
        assert list((rig.base / "host1" / "guests").iterdir()) == []
        await destination.stop(rig.id, grace_seconds=30.0)
        assert await destination.observe(rig.id) is GuestState.STOPPED
        assert records_on_disk(rig, "host2") > written
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_guest_moves_there_and_back_again(rig: Rig) -> None:
    async def story() -> None:
        first, second = await move(rig)
        await second.resume_destination(rig.id)
        await first.destroy(rig.id)
        await copy(second, first, rig)
        await first.resume_destination(rig.id)
        await second.destroy(rig.id)
        await runs_on(first, rig.id)
        await first.close()
        await second.close()

    asyncio.run(story())


def test_a_guest_that_its_user_paused_stays_paused(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        await source.pause(rig.id)
        parameters = msgspec.structs.replace(PARAMETERS, paused=True)
        await copy(source, destination, rig, parameters)
        await source.resume_source(rig.id)  # Aborted at the last moment, then moved again.
        assert await source.observe(rig.id) is GuestState.PAUSED
        await destination.destroy(rig.id)
        await copy(source, destination, rig, parameters)
        await destination.resume_destination(rig.id)
        assert await destination.observe(rig.id) is GuestState.PAUSED
        await source.destroy(rig.id)
        await destination.unpause(rig.id)
        await runs_on(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_no_verb_but_the_move_s_own_wakes_either_side(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await move(rig)
        for driver in (source, destination):
            for verb in (driver.unpause, driver.start, driver.pause, driver.suspend, driver.resume):
                with pytest.raises(DriverError, match="MOVING"):
                    await verb(rig.id)
            with pytest.raises(DriverError, match="MOVING"):
                await driver.reboot(rig.id, hard=True)
        for driver, match in ((destination, "HOLDS_STATE"), (source, "ALREADY_HERE")):
            with pytest.raises(DriverError, match=match):
                await expecting_a_stranger(rig, driver)
        assert await source.observe(rig.id) is GuestState.HANDED_OVER
        assert await destination.observe(rig.id) is GuestState.INCOMING
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_was_left_gives_way_to_the_guest_made_anew(rig: Rig) -> None:
    """Its host was away when the move was called off; now the server is evacuated to that very host."""

    async def story() -> None:
        destination = await rig.open("host2")
        await expecting_a_stranger(rig, destination)
        left = identify(rig.process("host2"))
        assert left is not None
        await destination.create(rig.guest, run=False)
        assert await destination.observe(rig.id) is GuestState.STOPPED
        assert identify(left.pid) != left  # Ended, be it that whoever adopted it has not taken notice yet.
        await destination.start(rig.id)
        assert await destination.observe(rig.id) is GuestState.RUNNING
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_waits_for_one_source_gives_way_to_another_s_move(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        left = await expecting_a_stranger(rig, destination)
        endpoint = await prepared(source, destination, rig.guest, PARAMETERS, move="this one")
        assert endpoint.peer != left.peer
        assert await prepared(source, destination, rig.guest, PARAMETERS, move="this one") == endpoint
        await source.start_copy(rig.id, endpoint, PARAMETERS)
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        await destination.resume_destination(rig.id)
        await runs_on(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_cancelled_copy_leaves_the_guest_where_it_was_and_can_be_tried_again(rig: Rig) -> None:
    async def story() -> None:
        source, destination, _ = await begin(rig, slow=True)
        assert (await follow(source, rig.id, MigrationPhase.ACTIVE)).phase is MigrationPhase.ACTIVE
        await source.open_console(rig.id, "one")
        assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.CANCELLED
        assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.CANCELLED
        await source.resume_source(rig.id)
        await stays_on_the_console(source, rig)
        await destination.destroy(rig.id)
        endpoint = await prepared(source, destination, rig.guest, PARAMETERS, move="again")
        assert endpoint == await prepared(source, destination, rig.guest, PARAMETERS, move="again")
        await source.start_copy(rig.id, endpoint, PARAMETERS)
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.COMPLETED
        assert await source.observe(rig.id) is GuestState.HANDED_OVER
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_slow_copy_is_forced_to_complete(rig: Rig) -> None:
    async def story() -> None:
        source, destination, _ = await begin(rig, slow=True)
        await follow(source, rig.id, MigrationPhase.ACTIVE)
        await source.force_complete(rig.id)
        progress = await follow(source, rig.id)
        assert progress.phase is MigrationPhase.COMPLETED
        await destination.resume_destination(rig.id)
        await runs_on(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_dies_while_memory_is_copied_costs_nothing(rig: Rig) -> None:
    async def story() -> None:
        source, destination, _ = await begin(rig, slow=True)
        await follow(source, rig.id, MigrationPhase.ACTIVE)
        rig.signal("host2", signal.SIGKILL)
        progress = await follow(source, rig.id)
        assert progress.phase is MigrationPhase.FAILED
        assert progress.error
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        assert await destination.observe(rig.id) is GuestState.CRASHED
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_source_that_dies_while_memory_is_copied_is_started_again_from_its_disk(rig: Rig) -> None:
    async def story() -> None:
        source, destination, _ = await begin(rig, slow=True)
        await follow(source, rig.id, MigrationPhase.ACTIVE)
        written = await newest(source, rig.id, b"seq")
        rig.signal("host1", signal.SIGKILL)
        await gone(destination, rig.id)
        assert await source.observe(rig.id) is GuestState.CRASHED
        assert (await follow(source, rig.id)).phase is MigrationPhase.FAILED
        assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.FAILED
        await destination.destroy(rig.id)
        assert records_on_disk(rig, "host1") >= written
        await source.start(rig.id)
        assert await source.observe(rig.id) is GuestState.RUNNING
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_hangs_is_left_and_killed(rig: Rig) -> None:
    async def story() -> None:
        source, destination, _ = await begin(rig, slow=True)
        await follow(source, rig.id, MigrationPhase.ACTIVE)
        rig.signal("host2", signal.SIGSTOP)
        assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.CANCELLED
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        with pytest.raises(DriverError, match="QEMU_HANGS"):
            await destination.observe(rig.id)
        await destination.destroy(rig.id)
        assert await destination.observe(rig.id) is GuestState.ABSENT
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_dies_while_the_disk_is_copied_costs_nothing(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        endpoint = await prepared(source, destination, rig.guest, PARAMETERS)
        assert endpoint.nbd_port is not None
        async with wire(endpoint.nbd_port, bytes_s=1e6) as slow:
            through = msgspec.structs.replace(endpoint, nbd_port=slow.port)
            await source.start_copy(rig.id, through, PARAMETERS)
            assert (await follow(source, rig.id, MigrationPhase.DISK)).phase is MigrationPhase.DISK
            rig.signal("host2", signal.SIGKILL)
            assert (await follow(source, rig.id)).phase is MigrationPhase.FAILED
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


@pytest.mark.parametrize("what", ["disk", "memory"])
def test_a_network_that_is_cut_is_noticed_by_nobody_and_survived_by_cancelling(rig: Rig, what: str) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        parameters = PARAMETERS if what == "disk" else SLOW
        endpoint = await prepared(source, destination, rig.guest, parameters)
        assert endpoint.nbd_port is not None
        async with wire(endpoint.nbd_port, bytes_s=2e6 if what == "disk" else None) as nbd, wire(endpoint.port) as ram:
            through = msgspec.structs.replace(endpoint, port=ram.port, nbd_port=nbd.port)
            await source.start_copy(rig.id, through, parameters)
            wanted = MigrationPhase.DISK if what == "disk" else MigrationPhase.ACTIVE
            assert (await follow(source, rig.id, wanted)).phase is wanted
            nbd.cut()
            ram.cut()
            assert (await source.copy_progress(rig.id, wait_seconds=1.0, seen=wanted)).phase is wanted
            assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.CANCELLED
            await source.resume_source(rig.id)
            await runs_on(source, rig.id)
            await destination.destroy(rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_network_that_is_cut_in_the_switchover_blocks_qemu_and_yank_frees_it(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        # So much may remain that the guest is stopped at once, and what remains takes seconds through the wire.
        parameters = msgspec.structs.replace(PARAMETERS, bandwidth_mib_s=16, downtime_limit_ms=60_000)
        endpoint = await prepared(source, destination, rig.guest, parameters)
        async with wire(endpoint.port, bytes_s=8e6) as ram:
            through = msgspec.structs.replace(endpoint, port=ram.port)
            await source.start_copy(rig.id, through, parameters)
            assert (await follow(source, rig.id, MigrationPhase.SWITCHOVER)).phase is MigrationPhase.SWITCHOVER
            ram.cut()
            seen = await source.copy_progress(rig.id, wait_seconds=1.0, seen=MigrationPhase.SWITCHOVER)
            assert seen.phase is MigrationPhase.SWITCHOVER
            assert (await source.cancel_copy(rig.id)).phase is MigrationPhase.CANCELLED
            await source.resume_source(rig.id)
            await runs_on(source, rig.id)
            await destination.destroy(rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_an_agent_that_died_while_the_guest_stood_still_carries_on_when_it_is_back(rig: Rig) -> None:
    async def story() -> None:
        destination, _ = await stands_still(rig)
        source = await rig.open("host1")
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        await destination.resume_destination(rig.id)
        await runs_on(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_dies_while_the_guest_stands_still_costs_nothing(rig: Rig) -> None:
    async def story() -> None:
        destination, _ = await stands_still(rig)
        rig.signal("host2", signal.SIGKILL)
        await gone(destination, rig.id)
        source = await rig.open("host1")
        assert (await follow(source, rig.id)).phase is MigrationPhase.FAILED
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_is_built_differently_refuses_and_the_source_runs_on(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        other = msgspec.structs.replace(rig.guest, memory_mib=rig.guest.memory_mib * 2)
        endpoint = await prepared(source, destination, other, PARAMETERS)
        await source.start_copy(rig.id, endpoint, PARAMETERS)
        assert (await follow(source, rig.id)).phase is MigrationPhase.FAILED
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        await gone(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("number", "last_words"), [(signal.SIGKILL, "ended$"), (signal.SIGTERM, r"ended \(.*terminating on signal 15")]
)
def test_a_destination_that_dies_with_everything_gives_the_guest_back(
    rig: Rig, number: signal.Signals, last_words: str
) -> None:
    async def story() -> None:
        source, destination = await move(rig)
        rig.signal("host2", number)
        await gone(destination, rig.id)
        with pytest.raises(DriverError, match=last_words):
            await destination.resume_destination(rig.id)
        ticked = await newest(source, rig.id, b"tick")
        await source.resume_source(rig.id)
        await source.resume_source(rig.id)
        await runs_on(source, rig.id)
        assert await newest(source, rig.id, b"tick") > ticked
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_garbage_does_not_end_a_waiting_destination(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        endpoint = await prepared(source, destination, rig.guest, PARAMETERS)
        assert endpoint.nbd_port is not None
        for port in (endpoint.port, endpoint.nbd_port):
            for words in (b"GET / HTTP/1.1\r\n\r\n", b"QEVM\0\0\0\3", b"\x16\x03\x01\xff\xff" + b"A" * 5000):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(words)
                with contextlib.suppress(OSError):
                    writer.write_eof()
                    await asyncio.wait_for(reader.read(), 5)
                writer.close()
        assert await destination.observe(rig.id) is GuestState.INCOMING
        await source.start_copy(rig.id, endpoint, PARAMETERS)
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_destination_that_nobody_uses_ends_by_itself(rig: Rig) -> None:
    async def story() -> None:
        destination = await rig.open("host2", listen_seconds=0.5)
        endpoint = await expecting_a_stranger(rig, destination)
        _, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)  # Being connected is not enough.
        await gone(destination, rig.id)
        writer.close()
        assert await expecting_a_stranger(rig, destination) != endpoint
        await destination.close()

    asyncio.run(story())
