"""A guest's life on one host, and what a restarted agent finds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.host.driver import DriverError, GuestState, Image, MigrationPhase, Nic
from cumulet.testing.moving import prepared

from .conftest import SLOW, Rig, follow, gone, guest_of, newest, printed, runs_on, until


def test_a_guest_boots_stops_by_its_power_button_and_starts_again(rig: Rig, image: Image) -> None:
    async def story() -> None:
        driver = await rig.open("host1")
        guest = await driver.create(guest_of(image))
        assert (guest.machine_type, guest.cpu_model) == (rig.facts.machine_type, rig.facts.cpu_model)
        assert await driver.create(guest) == guest
        identity = guest.server_id.encode()
        await until(lambda: printed(driver, guest, b"tick 3 " + identity + b"\r"), "the guest ticks its identity")
        await driver.stop(guest.server_id, grace_seconds=30.0)
        await driver.stop(guest.server_id, grace_seconds=30.0)
        assert await driver.observe(guest.server_id) is GuestState.STOPPED
        assert await printed(driver, guest, b"power button"), "it was asked, and its last words were kept"
        await driver.start(guest.server_id)
        await driver.start(guest.server_id)
        assert await driver.observe(guest.server_id) is GuestState.RUNNING
        await driver.destroy(guest.server_id)
        assert await driver.observe(guest.server_id) is GuestState.ABSENT
        await driver.close()

    asyncio.run(story())


def test_a_guest_that_powers_itself_off_is_stopped_and_one_that_is_killed_has_crashed(rig: Rig, image: Image) -> None:
    async def story() -> None:
        driver = await rig.open("host1")
        guest = await driver.create(guest_of(image, user_data="poweroff_after_s=1\n"))

        async def stopped() -> bool:
            return await driver.observe(guest.server_id) is GuestState.STOPPED

        await until(stopped, "it powers itself off")
        await driver.start(guest.server_id)
        await driver.destroy(guest.server_id)
        await driver.close()
        driver = await rig.resumed()
        rig.signal("host1", signal.SIGKILL)
        await gone(driver, rig.id)
        assert await driver.observe(rig.id) is GuestState.CRASHED
        await driver.start(rig.id)
        assert await driver.observe(rig.id) is GuestState.RUNNING
        await driver.close()

    asyncio.run(story())


def test_pause_suspend_and_reboot(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        await driver.pause(rig.id)
        await driver.pause(rig.id)
        assert await driver.observe(rig.id) is GuestState.PAUSED
        await driver.unpause(rig.id)
        await runs_on(driver, rig.id)
        ticked = await newest(driver, rig.id, b"tick")
        await driver.suspend(rig.id)
        await driver.suspend(rig.id)
        assert await driver.observe(rig.id) is GuestState.SUSPENDED
        await driver.close()
        driver = await rig.open("host1")
        with pytest.raises(DriverError, match="SUSPENDED"):
            await driver.start(rig.id)
        await driver.resume(rig.id)
        await driver.resume(rig.id)
        await runs_on(driver, rig.id)
        assert await newest(driver, rig.id, b"tick") > ticked, "it went on where it was, it did not boot"
        before = rig.process("host1")
        await driver.reboot(rig.id, hard=False)
        assert rig.process("host1") == before
        assert await driver.observe(rig.id) is GuestState.RUNNING
        await driver.reboot(rig.id, hard=True)
        assert rig.process("host1") != before
        assert await driver.observe(rig.id) is GuestState.RUNNING
        await driver.close()

    asyncio.run(story())


DROPS_MEMORY: dict[str, Callable[[QemuDriver, str], Awaitable[None]]] = {
    "start": lambda driver, server_id: driver.start(server_id, drop_saved=True),
    "hard reboot": lambda driver, server_id: driver.reboot(server_id, hard=True),
}


@pytest.mark.parametrize("verb", DROPS_MEMORY)
def test_a_suspended_guest_boots_without_the_memory_that_it_has_saved(rig: Rig, verb: str) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        await driver.suspend(rig.id)
        saved = driver._host.folder(rig.id).memory
        assert saved.exists()
        with pytest.raises(DriverError, match="SUSPENDED"):
            await driver.reboot(rig.id, hard=False)
        assert saved.exists()
        assert await driver.observe(rig.id) is GuestState.SUSPENDED
        first = (await driver.console_output(rig.id, max_bytes=1 << 20)).count(b"tick 1 ")
        await DROPS_MEMORY[verb](driver, rig.id)
        assert await driver.observe(rig.id) is GuestState.RUNNING
        assert not saved.exists()
        await driver.start(rig.id, drop_saved=True)  # It runs already.

        async def booted() -> bool:
            return (await driver.console_output(rig.id, max_bytes=1 << 20)).count(b"tick 1 ") == first + 1

        await until(booted, "it counts from the beginning")
        await driver.stop(rig.id, grace_seconds=0.0)
        assert await driver.observe(rig.id) is GuestState.STOPPED
        await driver.close()

    asyncio.run(story())


def test_what_cannot_be_is_refused_with_its_reason(rig: Rig, image: Image, tmp_path: Path) -> None:
    async def story() -> None:
        driver = await rig.open("host1")
        guest = guest_of(image)
        forged = tmp_path / "forged.qcow2"
        forged.write_bytes(b"x" * image.size_bytes)
        rig.images.give("1" * 128, forged)
        wrongs: dict[str, dict[str, object]] = {
            "NO_NETWORKS": {"nics": (Nic(port_id="p", network_id="n", mac="02:00:00:00:00:01"),)},
            "IMAGE_CHECKSUM": {"image": msgspec.structs.replace(image, sha512="1" * 128)},
            "IMAGE_FORMAT": {"image": msgspec.structs.replace(image, disk_format="vmdk")},
            "IMAGE_UNREADABLE": {"image": msgspec.structs.replace(image, sha512="0" * 128)},
            "MACHINE_TYPE": {"machine_type": "pc-q35-99.0"},
            "SERVER_ID": {"server_id": "../../etc"},
        }
        (rig.base / "host1" / "images").mkdir(exist_ok=True)
        for reason, change in wrongs.items():
            for cached in (rig.base / "host1" / "images").iterdir():
                cached.unlink()
            with pytest.raises(DriverError, match=reason):
                await driver.create(msgspec.structs.replace(guest, **change))
            if reason != "SERVER_ID":
                await driver.destroy(guest.server_id)
        assert await driver.guests() == []
        await driver.close()

    asyncio.run(story())


def test_killing_the_agent_stops_no_guest_and_the_next_one_finds_it(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        process = rig.process("host1")
        await driver.close()
        half = driver._host.disks.images.folder / ".half an image"
        half.parent.mkdir(exist_ok=True)
        half.write_bytes(b"x")
        driver = await rig.open("host1")
        assert not half.exists()
        assert [(report.server_id, report.state) for report in await driver.guests()] == [(rig.id, GuestState.RUNNING)]
        await runs_on(driver, rig.id)
        assert rig.process("host1") == process
        await driver.close()

    asyncio.run(story())


@pytest.mark.parametrize("when", [MigrationPhase.DISK, MigrationPhase.ACTIVE, MigrationPhase.COMPLETED])
def test_a_restarted_agent_carries_a_copy_on(rig: Rig, when: MigrationPhase) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        slow = msgspec.structs.replace(SLOW, bandwidth_mib_s=16, downtime_limit_ms=2000)
        endpoint = await prepared(source, destination, rig.guest, slow)
        await source.start_copy(rig.id, endpoint, slow)
        assert (await follow(source, rig.id, when)).phase is when
        await source.close()
        await destination.close()
        source, destination = await rig.open("host1"), await rig.open("host2")
        await source.start_copy(rig.id, endpoint, slow)  # Begun already.
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        await source.close()
        source = await rig.open("host1")
        assert await source.observe(rig.id) is GuestState.HANDED_OVER
        await destination.resume_destination(rig.id)
        await destination.close()
        destination = await rig.open("host2")
        await destination.resume_destination(rig.id)
        await source.destroy(rig.id)
        await runs_on(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_two_agents_of_one_machine_keep_their_guests_apart(rig: Rig, image: Image) -> None:
    async def story() -> None:
        first, second = await rig.open("host1"), await rig.open("host2")
        one, two = guest_of(image), guest_of(image)
        await first.create(one)
        await second.create(two)
        assert [report.server_id for report in await first.guests()] == [one.server_id]
        assert [report.server_id for report in await second.guests()] == [two.server_id]
        with pytest.raises(DriverError, match="ABSENT"):
            await first.stop(two.server_id, grace_seconds=0.0)
        await first.destroy(one.server_id)
        await second.destroy(two.server_id)
        await first.close()
        await second.close()

    asyncio.run(story())


def test_the_console_is_bounded_whatever_a_guest_prints(rig: Rig, image: Image) -> None:
    async def story() -> None:
        driver = await rig.open("host1")
        guest = await driver.create(guest_of(image, user_data="tick_ms=1\n"))
        await until(lambda: printed(driver, guest, b"tick 20 "), "it prints")
        log = rig.base / "host1" / "guests" / guest.server_id / "console.log"
        log.write_bytes(b"x" * (3 << 20))
        before = await newest(driver, guest.server_id, b"tick")

        async def more() -> bool:
            return await newest(driver, guest.server_id, b"tick") > before

        await until(more, "it prints on")
        assert log.stat().st_size <= 2 << 20
        assert len(await driver.console_output(guest.server_id, max_bytes=100)) == 100
        await driver.destroy(guest.server_id)
        await driver.close()

    asyncio.run(story())


def test_facts_describe_this_host(rig: Rig) -> None:
    async def story() -> None:
        driver: QemuDriver = await rig.open("host1")
        facts = await driver.facts()
        assert facts.name == "host1"
        assert facts.hypervisor_version >= 7_002_000
        assert facts.machine_types[0].startswith("pc-q35-")
        await driver.close()

    asyncio.run(story())
