"""Suspended guests: after moves, and where the agent dies or QEMU fails in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from cumulet.drivers.qemu import room, suspension
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.qmp import Arguments, Json
from cumulet.drivers.qemu.record import Intent
from cumulet.host.driver import DriverError, GuestState, MigrationParameters, MigrationPhase
from cumulet.testing.moving import prepared

from . import userfaultfd
from .conftest import PARAMETERS, SLOW, Rig, follow, newest, runs_on, until
from .moves import copy

pytestmark = pytest.mark.qemu

SLOW_BYTES_S = 8 << 20
"""A save at this pace takes seconds."""


async def moved(rig: Rig, here: QemuDriver, there: QemuDriver, parameters: MigrationParameters) -> None:
    await copy(here, there, rig, parameters)
    await there.resume_destination(rig.id)
    await here.destroy(rig.id)


async def suspended_and_resumed(rig: Rig, driver: QemuDriver) -> None:
    ticked = await newest(driver, rig.id, b"tick")
    await driver.suspend(rig.id)
    assert await driver.observe(rig.id) is GuestState.SUSPENDED
    await driver.resume(rig.id)
    await runs_on(driver, rig.id)
    assert await newest(driver, rig.id, b"tick") > ticked, "it went on where it was, it did not boot"


@pytest.fixture
def post_copy() -> Iterator[MigrationParameters]:
    with userfaultfd.allowed():
        yield msgspec.structs.replace(PARAMETERS, post_copy=True)


def test_a_guest_that_could_have_moved_in_post_copy_is_suspended_and_resumed_and_moves_again(
    rig: Rig, post_copy: MigrationParameters
) -> None:
    async def story() -> None:
        here, there = await rig.resumed(), await rig.open("host2")
        for parameters in (post_copy, PARAMETERS):
            await moved(rig, here, there, parameters)
            here, there = there, here
            await suspended_and_resumed(rig, here)
        await moved(rig, here, there, post_copy)
        await runs_on(there, rig.id)
        await here.close()
        await there.close()

    asyncio.run(story())


def test_a_guest_whose_move_was_cancelled_is_suspended(rig: Rig, post_copy: MigrationParameters) -> None:
    async def story() -> None:
        here, there = await rig.resumed(), await rig.open("host2")
        slow = msgspec.structs.replace(SLOW, post_copy=post_copy.post_copy)
        await here.start_copy(rig.id, await prepared(here, there, rig.guest, slow), slow)
        await follow(here, rig.id, MigrationPhase.ACTIVE)
        await here.cancel_copy(rig.id)
        await here.resume_source(rig.id)
        await suspended_and_resumed(rig, here)
        await here.close()
        await there.close()

    asyncio.run(story())


async def dies_in_a_save(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> QemuDriver:
    """The agent has died in the middle of a suspend; the next one, while QEMU still writes."""
    with monkeypatch.context() as slowly:
        slowly.setattr(suspension, "_UNLIMITED_BYTES_S", SLOW_BYTES_S)
        driver = await rig.resumed()
        asked = asyncio.create_task(driver.suspend(rig.id))

        async def writes() -> bool:
            answer = await driver._host.running_hypervisor(rig.id).migration_status()
            return answer.status == "active"

        await until(writes, "QEMU writes the file")
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await driver.close()
    driver = await rig.open("host1")
    assert (await driver._host.running_hypervisor(rig.id).migration_status()).status == "active"
    return driver


def test_a_suspend_whose_agent_dies_is_finished_when_it_is_asked_for_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        driver = await dies_in_a_save(rig, monkeypatch)
        ticked = await newest(driver, rig.id, b"tick")
        monkeypatch.setattr(suspension, "_begin_save", None)  # One save is enough.
        await driver.suspend(rig.id)
        assert await driver.observe(rig.id) is GuestState.SUSPENDED
        await driver.resume(rig.id)
        await runs_on(driver, rig.id)
        assert await newest(driver, rig.id, b"tick") > ticked
        await driver.close()

    asyncio.run(story())


def test_a_guest_whose_suspend_nobody_asks_for_again_runs_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        driver = await dies_in_a_save(rig, monkeypatch)

        async def runs() -> bool:
            running = await driver.observe(rig.id) is GuestState.RUNNING
            return running and not driver._host.folder(rig.id).memory.exists()  # The file goes once the guest runs.

        await until(runs, "it runs when the save has ended, and the file is gone")
        await runs_on(driver, rig.id)
        await suspended_and_resumed(rig, driver)
        await driver.close()

    asyncio.run(story())


async def saved(rig: Rig) -> QemuDriver:
    """A guest whose agent has died when the file was whole, before its record said so."""
    driver = await rig.resumed()
    hypervisor = driver._host.running_hypervisor(rig.id)
    await hypervisor.stop()
    record = driver._host.record(rig.id)
    await suspension._begin_save(driver._host, hypervisor, driver._host.folder(rig.id), record)
    await suspension._wait_for_end(hypervisor, record)
    return driver


def test_a_guest_whose_file_was_whole_when_the_agent_died_is_suspended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        driver = await saved(rig)
        with monkeypatch.context() as patched:
            patched.setattr(suspension, "_begin_save", None)  # One save is enough.
            await driver.suspend(rig.id)
        assert await driver.observe(rig.id) is GuestState.SUSPENDED
        await driver.resume(rig.id)
        await runs_on(driver, rig.id)
        await driver.close()

    asyncio.run(story())


@pytest.mark.parametrize("has_file", [True, False])
def test_a_guest_that_is_found_standing_still_after_a_save_runs_on(rig: Rig, has_file: bool) -> None:
    """Without a file it was left so by an agent of an earlier version."""

    async def story() -> None:
        driver = await saved(rig)
        if not has_file:
            driver._host.folder(rig.id).memory.unlink()
        await driver.close()
        driver = await rig.open("host1")

        async def runs() -> bool:
            return await driver.observe(rig.id) is GuestState.RUNNING

        await until(runs, "nobody has paused it")
        assert not driver._host.folder(rig.id).memory.exists()
        await runs_on(driver, rig.id)
        await driver.close()

    asyncio.run(story())


@pytest.mark.parametrize("paused", [False, True])
def test_a_guest_that_cannot_be_saved_is_as_before(rig: Rig, monkeypatch: pytest.MonkeyPatch, paused: bool) -> None:
    ask = Hypervisor.ask

    async def refused(
        hypervisor: Hypervisor, command: str, arguments: Arguments | None = None, **more: float | None
    ) -> Json:
        if command == "migrate":
            raise DriverError("QEMU_REFUSED: no")
        return await ask(hypervisor, command, arguments, **more)  # type: ignore[arg-type]

    async def story() -> None:
        driver = await rig.resumed()
        if paused:
            await driver.pause(rig.id)
        with monkeypatch.context() as patched:
            patched.setattr(Hypervisor, "ask", refused)
            with pytest.raises(DriverError, match="QEMU_REFUSED"):
                await driver.suspend(rig.id)
        assert not driver._host.folder(rig.id).memory.exists()
        assert await driver.observe(rig.id) is (GuestState.PAUSED if paused else GuestState.RUNNING)
        await driver.suspend(rig.id)
        await driver.close()

    asyncio.run(story())


async def runs_on_and_may_be_suspended(rig: Rig, driver: QemuDriver) -> None:
    await runs_on(driver, rig.id)
    assert not driver._host.folder(rig.id).memory.exists()
    await suspended_and_resumed(rig, driver)
    await driver.close()


def test_a_guest_whose_memory_has_no_room_on_the_host_runs_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        with monkeypatch.context() as patched:
            patched.setattr(room, "free_bytes", lambda _: 0)
            with pytest.raises(DriverError, match="DISK_FULL"):
                await driver.suspend(rig.id)
        await runs_on_and_may_be_suspended(rig, driver)

    asyncio.run(story())


def test_a_save_that_takes_too_long_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        with monkeypatch.context() as slowly:
            slowly.setattr(suspension, "_UNLIMITED_BYTES_S", SLOW_BYTES_S)
            slowly.setattr(suspension, "seconds_for", lambda _: 0.2)
            with pytest.raises(DriverError, match="not done in time"):
                await driver.suspend(rig.id)
        await runs_on_and_may_be_suspended(rig, driver)

    asyncio.run(story())


def test_a_guest_whose_agent_dies_just_before_it_lets_it_run_on_is_resumed(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        await driver._host.running_hypervisor(rig.id).stop()
        assert driver._host.record(rig.id).intent is Intent.RUNNING
        await driver.resume(rig.id)
        await runs_on(driver, rig.id)
        await driver.close()

    asyncio.run(story())


@pytest.mark.parametrize("verb", ["reboot", "start"])
def test_saved_memory_stays_until_its_guest_can_be_booted(rig: Rig, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    async def boots(driver: QemuDriver) -> None:
        if verb == "reboot":
            await driver.reboot(rig.id, hard=True)
        else:
            await driver.start(rig.id, drop_saved=True)

    async def refuse(*_args: object, **_options: object) -> None:
        raise DriverError("NOT_WIRED: planted")

    async def story() -> None:
        driver = await rig.resumed()
        ticked = await newest(driver, rig.id, b"tick")
        await driver.suspend(rig.id)
        for method in ("_start", "tell_ports"):
            with monkeypatch.context() as planted:
                planted.setattr(QemuHost, method, refuse if method == "tell_ports" else _no_process)
                with pytest.raises(DriverError, match="planted"):
                    await boots(driver)
            assert await driver.observe(rig.id) is GuestState.SUSPENDED
        await driver.resume(rig.id)
        await runs_on(driver, rig.id)
        assert await newest(driver, rig.id, b"tick") > ticked
        await driver.suspend(rig.id)
        await boots(driver)
        assert await driver.observe(rig.id) is GuestState.RUNNING
        assert not driver._host.folder(rig.id).memory.exists()
        await driver.close()

    asyncio.run(story())


def _no_process(*_args: object, **_options: object) -> None:
    raise DriverError("START_FAILED: planted")


def test_a_guest_whose_boot_was_interrupted_is_still_suspended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent died when the process was there, and had not run yet."""

    async def story() -> None:
        driver = await rig.resumed()
        ticked = await newest(driver, rig.id, b"tick")
        await driver.suspend(rig.id)
        folder = driver._host.folder(rig.id)
        record = msgspec.structs.replace(driver._host.record(rig.id), intent=Intent.STOPPED)
        await driver._host.launch(folder, record, incoming=False)
        await driver.close()
        driver = await rig.open("host1")
        assert await driver.observe(rig.id) is GuestState.SUSPENDED
        await driver.resume(rig.id)
        await runs_on(driver, rig.id)
        assert await newest(driver, rig.id, b"tick") > ticked
        await driver.close()

    asyncio.run(story())
