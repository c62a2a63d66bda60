"""Guests that let go of a NIC late, or of one that they should keep: in the end they have what their records say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import cast

import pytest

from cumulet.drivers.linux_network import taps
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.qemu import hotplug
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.host.driver import DriverError, Guest, Image
from tests.drivers.test_config_drive import nic
from tests.linux_network.lab import problem
from tests.linux_network.stacks import Stack

from .conftest import PATIENCE_SECONDS, Rig, guest_of, printed, until

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(problem() is not None, reason=problem() or "")]
NIC = nic(0)


class Network:
    """Gives guests taps that lead nowhere."""

    wiring = None
    posts = None

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def plug(self, port_id: str) -> int:
        return self._stack.do(lambda: taps.open_tap(f"{port_id}tap"))

    plug_anyway = plug

    async def tell(self, port_id: str, files: dict[str, bytes] | None) -> None: ...
    async def close(self) -> None: ...


@pytest.fixture
def network() -> Iterator[LinuxNetwork]:
    stack = Stack("guests")
    yield cast("LinuxNetwork", Network(stack))
    stack.remove()


async def opened(rig: Rig, network: LinuxNetwork) -> QemuDriver:
    return await QemuDriver.open(
        name="host1", state=rig.base / "host1", images=rig.images, facts=rig.facts, network=network
    )


async def booted(driver: QemuDriver, image: Image) -> Guest:
    guest = await driver.create(guest_of(image))
    await until(lambda: printed(driver, guest, b"tick 5 "), "it boots")
    await driver.plug(guest.server_id, NIC)
    await until(lambda: printed(driver, guest, b"tick 25 "), "it finds the NIC")
    return guest


async def asked_in_vain(
    rig: Rig, image: Image, network: LinuxNetwork, monkeypatch: pytest.MonkeyPatch
) -> tuple[QemuDriver, Guest, Hypervisor]:
    """A guest whose NIC was asked for. It stands still, as one does to which nobody listens while it is busy."""
    driver = await opened(rig, network)
    guest = await booted(driver, image)
    hypervisor = driver._host.running_hypervisor(guest.server_id)
    await hypervisor.stop()
    with monkeypatch.context() as patched:
        patched.setattr(hotplug, "UNPLUG_SECONDS", 0.5)
        patched.setattr(hotplug, "_refuse_standing_still", _nothing)
        with pytest.raises(DriverError, match="NOT_LET_GO"):
            await driver.unplug(guest.server_id, NIC.port_id)
    return driver, guest, hypervisor


async def _nothing(hypervisor: Hypervisor) -> None: ...


async def has_its_nic(driver: QemuDriver, guest: Guest) -> None:
    async def has_it() -> bool:
        return "nic0" in await driver._host.running_hypervisor(guest.server_id).devices()

    await until(has_it, "the guest is given its NIC again")


def test_a_guest_that_lets_go_of_a_nic_that_is_its_servers_again_is_given_it_again(
    rig: Rig, image: Image, network: LinuxNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        driver, guest, hypervisor = await asked_in_vain(rig, image, network, monkeypatch)
        await driver.plug(guest.server_id, NIC)
        put_right, let_go = hypervisor.on_let_go, asyncio.Event()
        assert put_right is not None

        def heard() -> None:
            let_go.set()
            put_right()

        hypervisor.on_let_go = heard
        await hypervisor.cont()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await let_go.wait()
        await has_its_nic(driver, guest)
        await driver.close()

    asyncio.run(story())


def test_so_it_is_when_it_lets_go_of_it_while_there_is_no_agent(
    rig: Rig, image: Image, network: LinuxNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        driver, guest, hypervisor = await asked_in_vain(rig, image, network, monkeypatch)
        await driver.plug(guest.server_id, NIC)
        driver._host.on_let_go = hypervisor.on_let_go = None  # As dead as need be: it still reads the console.
        await hypervisor.cont()
        await until(lambda: printed(driver, guest, b"eth0 is gone"), "the guest lets go of it")
        assert "nic0" not in await hypervisor.devices()
        await driver.close()
        driver = await opened(rig, network)
        await driver.guests()
        await has_its_nic(driver, guest)
        await driver.close()

    asyncio.run(story())


def test_a_nic_that_is_no_longer_its_servers_is_gone_with_its_tap_when_the_guest_lets_go(
    rig: Rig, image: Image, network: LinuxNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        driver, _guest, hypervisor = await asked_in_vain(rig, image, network, monkeypatch)
        await hypervisor.cont()

        async def without_it() -> bool:
            """The tap is the network's again: a second one of this name could not be made."""
            if "nic0" in await hypervisor.devices():
                return False
            try:
                tap = await network.plug(NIC.port_id)
            except OSError:
                return False
            os.close(tap)
            return True

        await until(without_it, "its tap ends")
        await driver.close()

    asyncio.run(story())


def test_a_paused_guest_is_not_asked_for_a_nic_and_one_that_has_powered_itself_off_has_let_go_of_it(
    rig: Rig, image: Image, network: LinuxNetwork
) -> None:
    async def story() -> None:
        driver = await opened(rig, network)
        guest = await booted(driver, image)
        await driver.pause(guest.server_id)
        with pytest.raises(DriverError, match="STANDS_STILL"):
            await driver.unplug(guest.server_id, NIC.port_id)
        assert [one.port_id for one in driver._host.record(guest.server_id).guest.nics] == [NIC.port_id]
        await driver.unpause(guest.server_id)
        hypervisor = driver._host.running_hypervisor(guest.server_id)
        await hypervisor.system_powerdown()

        async def off() -> bool:
            return await hypervisor.run_state() == "shutdown"

        await until(off, "it powers itself off")
        await driver.unplug(guest.server_id, NIC.port_id)
        await driver.start(guest.server_id)
        assert "nic0" not in await driver._host.running_hypervisor(guest.server_id).devices()
        await driver.close()

    asyncio.run(story())
