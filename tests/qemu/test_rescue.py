"""Real guests are rescued: they boot from another disk, before their own, and get that back unharmed."""

from __future__ import annotations

import asyncio
import shutil

import msgspec
import pytest

from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.guest_files import RESCUE
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.host.driver import DriverError, GuestState, Image
from cumulet.host.limits import USUAL_LIMITS

from .conftest import Rig, newest, runs_on, until
from .test_cold_migration import dies
from .test_snapshots import records


class Limited(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    node_name: str
    iops: int
    bps: int
    group: str = ""


class SeenDisk(msgspec.Struct):
    inserted: Limited


async def every_disk_is_limited(driver: QemuDriver, server_id: str, disks: set[str]) -> None:
    """They share the bounds of one guest, whatever it may read or write."""
    answer = await driver._host.running_hypervisor(server_id).ask("query-block")
    seen = [one.inserted for one in msgspec.convert(answer, list[SeenDisk])]
    all_of_one = Limited(
        node_name="",
        group="disks",
        iops=USUAL_LIMITS.disk_requests_per_second,
        bps=USUAL_LIMITS.disk_mib_per_second << 20,
    )
    assert {msgspec.structs.replace(disk, node_name="") for disk in seen} == {all_of_one}
    assert {disk.node_name for disk in seen} == disks


def test_a_guest_is_rescued_and_taken_back_with_its_disk_as_it_was(rig: Rig, image: Image) -> None:
    vm = rig.base / "host1" / "guests" / rig.id / "vm"

    def on_disk() -> list[int]:
        copy = rig.base / "copy.qcow2"
        shutil.copy(vm / "disk.qcow2", copy)
        return records(copy)

    async def boots(driver: QemuDriver, before: int) -> None:
        async def ticks() -> bool:
            return await newest(driver, rig.id, b"tick") > 0 and await _boots(driver) > before

        await until(ticks, "it boots")

    async def _boots(driver: QemuDriver) -> int:
        return (await driver.console_output(rig.id, max_bytes=1 << 20)).count(b"cumulet-tiny: kernel")

    async def story() -> None:
        driver = await rig.resumed()
        await driver.stop(rig.id, grace_seconds=0.0)
        written, count = on_disk(), await _boots(driver)
        assert written
        rescue = msgspec.structs.replace(rig.guest, image=image)
        await driver.rescue(rescue)
        await driver.rescue(rescue)
        assert await driver.observe(rig.id) is GuestState.RUNNING
        assert await driver.rescued(rig.id)
        await every_disk_is_limited(driver, rig.id, {"rescue0", "disk0", "config0"})
        await boots(driver, count)
        assert (vm / RESCUE).exists()
        await driver.close()
        driver = await rig.open("host1")
        assert await driver.rescued(rig.id), "an agent that is started again knows"
        await driver.unrescue(rig.id, run=False)
        assert not (vm / RESCUE).exists()
        assert on_disk() == written, "the guest wrote to the rescue disk, which was the first, or to none"
        assert await driver.observe(rig.id) is GuestState.STOPPED
        count = await _boots(driver)
        await driver.unrescue(rig.id, run=True)
        await driver.unrescue(rig.id, run=True)
        assert not await driver.rescued(rig.id)
        await boots(driver, count)

        async def written_on() -> bool:
            return await newest(driver, rig.id, b"seq") > 0

        await until(written_on, "it writes to its own disk")
        await driver.close()

    asyncio.run(story())


def test_a_guest_that_is_sent_an_interrupt_says_so(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        await driver.inject_nmi(rig.id)

        async def said() -> bool:
            return b"NMI" in await driver.console_output(rig.id, max_bytes=1 << 20)

        await until(said, "its kernel tells of an NMI that nobody expected")
        await runs_on(driver, rig.id)
        await driver.close()

    asyncio.run(story())


@pytest.mark.parametrize("verb", ["rescue", "unrescue", "start"])
def test_what_was_interrupted_before_the_guest_ran_is_begun_anew(
    rig: Rig, image: Image, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The agent died when the process was there, and had neither limits nor run. Asked again, the guest runs."""

    async def story() -> None:
        driver = await rig.resumed()
        await driver.stop(rig.id, grace_seconds=0.0)
        rescue = msgspec.structs.replace(rig.guest, image=image)

        async def ask() -> None:
            if verb == "rescue":
                await driver.rescue(rescue)
            elif verb == "unrescue":
                await driver.unrescue(rig.id, run=True)
            else:
                await driver.start(rig.id)

        if verb == "unrescue":
            await driver.rescue(rescue)
        with monkeypatch.context() as planted:
            planted.setattr(Hypervisor, "cont", dies)
            planted.setattr(Hypervisor, "block_set_io_throttle", nothing)
            with pytest.raises(DriverError, match="planted"):
                await ask()
        assert await driver.observe(rig.id) is GuestState.STOPPED
        await driver.close()
        driver = await rig.open("host1")
        await ask()
        assert await driver.observe(rig.id) is GuestState.RUNNING
        assert await driver.rescued(rig.id) is (verb == "rescue")
        await every_disk_is_limited(driver, rig.id, {"disk0", "config0"} | ({"rescue0"} if verb == "rescue" else set()))
        process = rig.process("host1")
        await ask()
        assert rig.process("host1") == process, "one that runs is left alone"
        await driver.close()

    asyncio.run(story())


async def nothing(*_args: object, **_options: object) -> None: ...
