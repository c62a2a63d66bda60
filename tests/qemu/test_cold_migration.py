"""A stopped guest's disk moves to another host and grows there; until the end either host can be the one to run it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess

import msgspec
import pytest

from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.host.driver import DriverError, GuestState, MigrationPhase
from cumulet.image.tiny import newest_record
from cumulet.image.tiny_init import RECORD_AREA_OFFSET, RECORD_BYTES, RECORD_COUNT
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, Rig, follow, newest, runs_on, until


async def stopped(rig: Rig) -> tuple[QemuDriver, QemuDriver]:
    source, destination = await rig.resumed(), await rig.open("host2")
    await runs_on(source, rig.id)
    await source.stop(rig.id, grace_seconds=0.0)
    assert await source.observe(rig.id) is GuestState.STOPPED
    return source, destination


async def copied(rig: Rig, source: QemuDriver, destination: QemuDriver) -> None:
    await source.stand_by(rig.id)
    await source.stand_by(rig.id)
    assert await source.observe(rig.id) is GuestState.PAUSED
    endpoint = await prepared(source, destination, rig.guest, PARAMETERS)
    await source.start_copy(rig.id, endpoint, PARAMETERS)
    progress = await follow(source, rig.id)
    assert progress.phase is MigrationPhase.COMPLETED, progress
    assert await destination.observe(rig.id) is GuestState.INCOMING


async def boots_again(driver: QemuDriver, server_id: str) -> None:
    """Started afresh where it ran before, it counts from the beginning: what it prints gets more all the same."""

    async def printed() -> int:
        return (await driver.console_output(server_id, max_bytes=1 << 20)).count(b"tick ")

    before = await printed()
    await driver.start(server_id)

    async def more() -> bool:
        return await printed() > before

    await until(more, "new ticks after a boot")
    assert await driver.observe(server_id) is GuestState.RUNNING


def newest_on_disk(rig: Rig, host: str) -> int:
    """The newest record in the guest's disk file, read from outside while nobody has it open."""
    raw = rig.base / f"{host}.raw"
    disk = rig.base / host / "guests" / rig.id / "vm" / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(raw)], check=True)
    with open(raw, "rb") as file:
        file.seek(RECORD_AREA_OFFSET)
        return newest_record(file.read(RECORD_BYTES * RECORD_COUNT))


def size_of_disk(rig: Rig, host: str) -> int:
    disk = rig.base / host / "guests" / rig.id / "vm" / "disk.qcow2"
    told = subprocess.run(["qemu-img", "info", "--output=json", str(disk)], check=True, capture_output=True)
    size = json.loads(told.stdout)["virtual-size"]
    assert isinstance(size, int)
    return size


def test_a_stopped_guest_moves_grows_and_starts_while_the_source_keeps_its_disk(rig: Rig) -> None:
    larger = msgspec.structs.replace(rig.guest, disk_gib=2, memory_mib=192, vcpus=2)

    async def story() -> None:
        source, destination = await stopped(rig)
        written = await newest(source, rig.id, b"seq")
        await copied(rig, source, destination)
        await destination.take_in(larger)
        await destination.take_in(larger)
        await source.stand_down(rig.id)
        await source.stand_down(rig.id)
        assert await source.observe(rig.id) is GuestState.STOPPED
        assert await destination.observe(rig.id) is GuestState.STOPPED
        kept, moved = newest_on_disk(rig, "host1"), newest_on_disk(rig, "host2")
        assert kept == moved >= written, "every write that was told to be safe is on both disks"
        assert (size_of_disk(rig, "host1"), size_of_disk(rig, "host2")) == (1 << 30, 2 << 30)
        await boots_again(destination, rig.id)
        assert await source.observe(rig.id) is GuestState.STOPPED
        await destination.stop(rig.id, grace_seconds=0.0)
        await boots_again(source, rig.id)

    asyncio.run(story())


def test_a_move_given_up_leaves_a_stopped_guest_that_starts(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await stopped(rig)
        await copied(rig, source, destination)
        await source.cancel_copy(rig.id)
        await destination.destroy(rig.id)
        await source.stand_down(rig.id)
        assert await destination.observe(rig.id) is GuestState.ABSENT
        assert await source.observe(rig.id) is GuestState.STOPPED
        await boots_again(source, rig.id)

    asyncio.run(story())


def test_the_source_may_stand_by_again_after_its_agent_has_died(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await stopped(rig)
        await source.stand_by(rig.id)
        await source.close()
        source = await rig.open("host1")
        await copied(rig, source, destination)
        await destination.close()
        destination = await rig.open("host2")
        await destination.take_in(rig.guest)
        await boots_again(destination, rig.id)

    asyncio.run(story())


def test_only_a_stopped_guest_stands_by_and_only_one_that_does_stands_down(rig: Rig) -> None:
    async def story() -> None:
        source = await rig.resumed()
        with pytest.raises(DriverError, match="NOT_STOPPED"):
            await source.stand_by(rig.id)
        await source.stand_down(rig.id)
        await runs_on(source, rig.id)
        with pytest.raises(DriverError, match="NOT_STOPPED"):
            await source.take_in(rig.guest)
        await runs_on(source, rig.id)

    asyncio.run(story())


def test_a_guest_made_not_to_run_does_not(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.open("host1")
        await driver.create(rig.guest, run=False)
        await driver.create(rig.guest, run=False)
        assert await driver.observe(rig.id) is GuestState.STOPPED
        with contextlib.suppress(FileNotFoundError):
            assert rig.process("host1") == 0, "it never had a process"
        await boots_again(driver, rig.id)

    asyncio.run(story())


def test_a_guest_that_was_interrupted_before_it_stood_by_can_be_copied(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent died when the process was there, and had not run. QEMU copies no machine that was never switched on."""

    async def story() -> None:
        source, destination = await stopped(rig)
        with monkeypatch.context() as planted:
            planted.setattr(Hypervisor, "cont", dies)
            with pytest.raises(DriverError, match="planted"):
                await source.stand_by(rig.id)
        assert await source._host.running_hypervisor(rig.id).run_state() == "prelaunch"
        await copied(rig, source, destination)
        await destination.take_in(rig.guest)
        await boots_again(destination, rig.id)

    asyncio.run(story())


async def dies(hypervisor: Hypervisor) -> None:
    raise DriverError("planted")
