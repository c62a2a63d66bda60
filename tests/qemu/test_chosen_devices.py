"""Real guests with the devices that an image chooses: firmware boots from each bus, and they are copied and moved.

The tiny image's kernel has drivers for virtio devices alone. It is loaded by the firmware, and needs no disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

import cumulet.testing
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.devices import ALL_FEATURES, Devices
from cumulet.host.disks import Disk, SnapshotPhase
from cumulet.host.driver import Guest, Image, MigrationPhase
from cumulet.image import tiny
from cumulet.testing import Client
from cumulet.testing.image_files import ImageFiles
from cumulet.testing.moving import prepared
from tests.api.servers import image_and_flavor
from tests.api.test_guest_agent import say
from tests.drivers.contract import keeps_devices
from tests.linux_network.lab import problem

from .conftest import PARAMETERS, follow, guest_of, runs_on, until
from .test_hotplug import attach, move_to_and_fro, ports
from .test_networks import network_of
from .test_snapshots import IMAGE_ID, Sink, made

FURTHER = (Disk(place=1, size_mib=8, content="swap"),)


@contextlib.asynccontextmanager
async def host(base: Path, facts: QemuFacts, name: str, sink: Sink | None = None) -> AsyncIterator[QemuDriver]:
    driver = await QemuDriver.open(
        name=name, state=base / name, images=ImageFiles(tiny.build()), facts=facts, sink=sink, listen_seconds=600.0
    )
    try:
        yield driver
    finally:
        for report in await driver.guests():
            await driver.destroy(report.server_id)
        await driver.close()


async def seen(driver: QemuDriver, guest: Guest) -> dict[str, str]:
    """By name of a block device: the device by which the guest sees it."""
    return await driver._host.running_hypervisor(guest.server_id).devices_of_nodes()


async def boots(driver: QemuDriver, guest: Guest, times: int = 1) -> None:
    async def kernels() -> bool:
        output = await driver.console_output(guest.server_id, max_bytes=1 << 20)
        return output.count(b"cumulet-tiny: kernel") >= times

    await until(kernels, "it boots from its disk")
    await runs_on(driver, guest.server_id)


def with_devices(image: Image, **devices: str) -> Guest:
    guest = msgspec.structs.replace(guest_of(image), server_id=str(uuid.uuid4()), disks=FURTHER)
    return msgspec.structs.replace(guest, devices=Devices(**devices))


def test_this_qemu_has_all_devices_and_refuses_others(tmp_path: Path, facts: QemuFacts, image: Image) -> None:
    async def story() -> None:
        async with host(tmp_path, facts, "host1") as driver:
            assert set(ALL_FEATURES) <= set((await driver.facts()).features)
            await keeps_devices(driver, guest_of(image))

    asyncio.run(story())


@pytest.mark.parametrize(
    ("bus", "devices"),
    [
        ("sata", {"cdrom_bus": "sata", "video_model": "cirrus", "pointer_bus": "usb", "keyboard_bus": "usb"}),
        ("scsi", {"cdrom_bus": "scsi", "video_model": "virtio", "pointer_bus": "virtio", "keyboard_bus": "virtio"}),
        ("usb", {"cdrom_bus": "sata", "video_model": "bochs"}),
    ],
)
def test_a_guest_boots_from_each_bus_is_copied_moved_and_rescued(
    tmp_path: Path, facts: QemuFacts, image: Image, bus: str, devices: dict[str, str]
) -> None:
    async def story() -> None:
        sink = Sink(tmp_path / "image.qcow2")
        async with host(tmp_path, facts, "host1", sink) as source, host(tmp_path, facts, "host2") as destination:
            guest = await source.create(with_devices(image, disk_bus=bus, **devices))
            await boots(source, guest)
            before = await seen(source, guest)
            assert list(before) == ["disk0", "config0", "disk1"]
            assert (await made(source, guest.server_id)).phase is SnapshotPhase.DONE
            assert sink.got == [IMAGE_ID]
            endpoint = await prepared(source, destination, guest, PARAMETERS)
            await source.start_copy(guest.server_id, endpoint, PARAMETERS)
            progress = await follow(source, guest.server_id)
            assert progress.phase is MigrationPhase.COMPLETED, progress
            await destination.resume_destination(guest.server_id)
            await runs_on(destination, guest.server_id)
            assert await seen(destination, guest) == before
            await source.destroy(guest.server_id)
            rescue = msgspec.structs.replace(guest.devices, rescue_bus=bus, rescue_device="disk")
            await destination.rescue(msgspec.structs.replace(guest, devices=rescue))
            await boots(destination, guest, times=1)
            assert list(await seen(destination, guest)) == ["disk0", "config0", "disk1", "rescue0"]
            await destination.unrescue(guest.server_id, run=True)
            assert await seen(destination, guest) == before
            cdrom = Devices(rescue_bus=guest.devices.cdrom_bus, rescue_device="cdrom")
            await destination.rescue(msgspec.structs.replace(guest, devices=cdrom))
            assert list(await seen(destination, guest)) == ["disk0", "config0", "disk1", "rescue0"]

    asyncio.run(story())


@pytest.mark.skipif(problem() is not None, reason=problem() or "")
@pytest.mark.parametrize("model", ["e1000", "e1000e"])
def test_a_nic_of_each_model_is_plugged_in_moves_along_and_is_pulled_out(
    facts: QemuFacts, image: Image, model: str
) -> None:
    del facts, image
    with cumulet.testing.cloud(hosts=2, driver="qemu") as cloud:
        admin = cloud.persona("admin")
        say(admin, hw_disk_bus="sata", hw_vif_model=model)
        server = booted(admin, network_of(admin, "10.9.6.0/24"))
        second = attach(admin, server, network_of(admin, "10.9.7.0/24"))["port_id"]
        move_to_and_fro(admin, server)
        assert set(ports(admin, server).values()) == {"ACTIVE"}
        assert admin.compute("DELETE", f"/servers/{server}/os-interface/{second}").status == 202
        admin.wait("the port's end", lambda: second not in ports(admin, server), seconds=60)


def booted(client: Client, network: str) -> str:
    """A server whose kernel runs: one that is still in its firmware lets go of nothing."""
    wanted = image_and_flavor(client) | {"name": "one", "networks": [{"uuid": network}]}
    server: str = client.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    client.wait_for_status(server, "ACTIVE")

    def runs() -> bool:
        answer = client.action(server, {"os-getConsoleOutput": {"length": 200}})
        return "tick" in answer["output"]

    client.wait("its kernel", runs, seconds=120)
    return server
