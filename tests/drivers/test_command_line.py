"""What QEMU is started with, as far as somebody counts on it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import PurePosixPath

import msgspec
import pytest

from cumulet.drivers.qemu import chosen_devices
from cumulet.drivers.qemu.command_line import Machine, arguments, nic_device
from cumulet.host import nics, pci
from cumulet.host.devices import ALL_FEATURES, BUSES, NIC_MODELS, USUAL, VIDEO_MODELS, Devices, lacking, needed
from cumulet.host.disks import Disk
from cumulet.host.driver import Guest, Nic

GUEST = Guest(
    server_id="a",
    name="a",
    vcpus=1,
    memory_mib=64,
    disk_gib=1,
    image=None,
    machine_type="q35",
    cpu_model="max",
    nic_slots=16,
    screen=True,
    nics=(Nic(port_id="p", network_id="n", mac="fa:16:3e:00:00:01", slot=0),),
    disks=(Disk(place=1, size_mib=8, content="ext4"), Disk(place=2, size_mib=8, content="swap")),
)
MACHINE = Machine(
    binary="qemu",
    accelerator="tcg",
    folder=PurePosixPath("/vm"),
    monitor_fds=(3,),
    tap_fds=(9,),
    incoming=False,
    config_drive=True,
    rescued=True,
)


def guest_with(**devices: str) -> Guest:
    return msgspec.structs.replace(GUEST, devices=Devices(**devices))


@pytest.mark.parametrize(("uneven", "kib"), [(False, 65_536), (True, 65_544)])
def test_a_guest_has_the_memory_of_its_flavor_and_where_it_is_uneven_a_little_more(uneven: bool, kib: int) -> None:
    words = arguments(msgspec.structs.replace(GUEST, uneven_memory=uneven), MACHINE)
    assert f"size={kib}K" in words
    sizes = [msgspec.json.decode(word).get("size") for word in words if word.startswith("{")]
    assert kib << 10 in sizes
    words_of_the_dirty_bitmap = 64 * 4096
    assert ((kib << 10) % words_of_the_dirty_bitmap == 0) is not uneven


class Made(msgspec.Struct, frozen=True, rename="kebab"):
    """A device of the command line, with what is asked of it here."""

    driver: str
    id: str
    bus: str = ""
    addr: str = ""
    scsi_id: int | None = None
    lun: int | None = None
    port: str = ""
    drive: str = ""
    serial: str = ""
    bootindex: int | None = None

    @property
    def place(self) -> tuple[object, ...]:
        return self.bus, self.addr, self.scsi_id, self.port


def devices_of(guest: Guest, machine: Machine = MACHINE) -> list[Made]:
    pairs = itertools.pairwise(arguments(guest, machine))
    return [msgspec.json.decode(word, type=Made) for option, word in pairs if option == "-device"]


def disks_of(guest: Guest, machine: Machine = MACHINE) -> list[Made]:
    return [device for device in devices_of(guest, machine) if device.drive]


def test_disks_are_in_the_order_in_which_the_guest_finds_them() -> None:
    """By this order QEMU tells what each of them has done (`counters`)."""
    found = disks_of(GUEST)
    assert [disk.drive for disk in found] == ["rescue0", "disk0", "config0", "disk1", "disk2"]
    assert found == sorted(found, key=lambda one: float(one.addr.removeprefix("0x")))
    assert {disk.driver for disk in found} == {"virtio-blk-pci"}


@pytest.mark.parametrize("bus", BUSES)
@pytest.mark.parametrize("rescue_bus", BUSES)
@pytest.mark.parametrize("rescue_device", ["", "disk"])
def test_no_two_devices_have_one_place(bus: str, rescue_bus: str, rescue_device: str) -> None:
    cdrom_bus = "" if bus == "virtio" else "sata"
    guest = guest_with(disk_bus=bus, cdrom_bus=cdrom_bus, pointer_bus="usb", keyboard_bus="usb")
    machine = replace(MACHINE, rescue_bus=rescue_bus, rescue_device=rescue_device)
    devices = devices_of(guest, machine)
    places = [device.place for device in devices if device.bus]
    assert len(places) == len(set(places))
    assert len({device.id for device in devices}) == len(devices)
    order = [disk.drive for disk in disks_of(guest, machine)]
    own = ["disk0", "config0", "disk1", "disk2"]
    assert order == ([*own, "rescue0"] if rescue_device else ["rescue0", *own])
    first = {disk.drive: disk.bootindex for disk in disks_of(guest, machine)}
    assert (first["rescue0"], first["disk0"]) == (0, 1)


@pytest.mark.parametrize(
    ("bus", "driver", "seat"),
    [
        ("scsi", "scsi-hd", Made(driver="", id="", bus="scsi0.0", scsi_id=1)),
        ("sata", "ide-hd", Made(driver="", id="", bus="ide.1")),
        ("usb", "usb-storage", Made(driver="", id="", bus="usb0.0", port="2")),
    ],
)
def test_disks_are_on_the_bus_that_the_image_asks_for_whether_it_is_rescued_or_not(
    bus: str, driver: str, seat: Made
) -> None:
    guest = guest_with(disk_bus=bus, cdrom_bus="sata")
    for machine in (MACHINE, replace(MACHINE, rescued=False)):
        first, config, *further = [one for one in disks_of(guest, machine) if one.drive != "rescue0"]
        assert (first.driver, first.drive, first.serial, first.place) == (driver, "disk0", "disk0", seat.place)
        assert (config.driver, config.bus) == ("ide-cd", "ide.2")
        assert [one.driver for one in further] == [driver, driver]


def test_a_rescue_disk_changes_no_place_of_a_guest_that_says_where_it_is_to_be() -> None:
    without = disks_of(guest_with(disk_bus="sata", cdrom_bus="sata"), replace(MACHINE, rescued=False))
    with_one = disks_of(
        guest_with(disk_bus="sata", cdrom_bus="sata"), replace(MACHINE, rescue_bus="sata", rescue_device="cdrom")
    )
    rescue = with_one.pop()
    assert (rescue.driver, rescue.bus, rescue.bootindex) == ("ide-cd", "ide.5", 0)
    assert [one.place for one in with_one] == [one.place for one in without]
    words = arguments(guest_with(), replace(MACHINE, rescue_bus="sata", rescue_device="cdrom"))
    nodes = [word for word in words if '"node-name":"rescue0' in word]
    assert ['"read-only":true' in node for node in nodes] == [True, True]


@pytest.mark.parametrize("model", NIC_MODELS)
def test_a_nic_is_where_the_metadata_say(model: str) -> None:
    guest = guest_with(nic_model=model if model != "virtio" else "")
    (nic,) = [device for device in devices_of(guest) if device.id == "nic0"]
    assert nic == msgspec.convert(nic_device(guest, guest.nics[0]), Made)
    ports = [device for device in devices_of(guest) if device.driver == "pcie-root-port"]
    if pci.on_bridge(model):
        assert (nic.bus, nic.addr, ports) == ("nics", "0x1", [])
        assert pci.nic_address(0, model) == "0000:01:01.0"
    else:
        assert (nic.bus, nic.addr, len(ports)) == ("port0", "0x0", 16)
        assert pci.nic_address(0, model) == "0000:01:00.0"


def test_a_guest_has_no_more_nics_than_its_firmware_finds() -> None:
    assert [nics.most(Devices(nic_model=model)) for model in NIC_MODELS] == [16, 16, 8, 16]


@pytest.mark.parametrize("model", [model for model in VIDEO_MODELS if model != "none"])
def test_a_screen_is_where_it_always_is(model: str) -> None:
    (screen,) = [device for device in devices_of(guest_with(video_model=model)) if device.id == "screen0"]
    assert (screen.bus, screen.addr) == ("pcie.0", "0x1")


@pytest.mark.parametrize("bus", ["usb", "virtio"])
def test_there_is_a_tablet_and_a_keyboard_where_an_image_asks(bus: str) -> None:
    found = {device.id: device.driver for device in devices_of(guest_with(pointer_bus=bus, keyboard_bus=bus))}
    assert bus in found["tablet0"]
    assert bus in found["keyboard0"]
    assert not {"tablet0", "keyboard0", "usb0"} & {device.id for device in devices_of(GUEST)}


def test_a_host_offers_what_its_qemu_has() -> None:
    drivers = {driver for needs in chosen_devices._OFFERED.values() for driver in needs}
    assert set(chosen_devices.offered(drivers)) == set(ALL_FEATURES)
    asked = Devices(disk_bus="sata", nic_model="e1000")
    assert lacking(asked, chosen_devices.offered(drivers)) is None
    assert lacking(asked, chosen_devices.offered(drivers - {"ide-cd"})) == "COMPUTE_STORAGE_BUS_SATA"
    assert lacking(asked, chosen_devices.offered(drivers - {"pcie-pci-bridge"})) == "COMPUTE_NET_VIF_MODEL_E1000"
    assert lacking(Devices(disk_bus="floppy"), chosen_devices.offered(drivers)) == "COMPUTE_STORAGE_BUS_FLOPPY"
    assert lacking(USUAL, chosen_devices.offered(())) is None


def test_an_older_agent_is_told_nothing_of_usual_devices() -> None:
    assert b"devices" not in msgspec.json.encode(GUEST)
    assert b"devices" not in msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(GUEST), type=Guest))
    assert list(needed(USUAL)) == []
