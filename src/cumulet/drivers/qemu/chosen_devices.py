"""QEMU's devices for what an image can choose (`host.devices`), and which of them a QEMU has.

Where they are is part of what a guest sees: never change a place, only add.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from cumulet.host import devices as d
from cumulet.host import pci
from cumulet.host.consoles import SESSIONS_OF_ONE
from cumulet.host.devices import Devices

BEFORE, FIRST, CONFIG_DRIVE = 0, 1, 2
"""Places of disks on their bus: of the rescue disk that comes before the guest's first, of that, and of the config
drive. Further disks follow; the one at place 1 is at 3."""
LAST = 11
"""The place of a rescue disk behind all others."""
_LAST_PORT_OF_SATA = 5
_TABLET_PORT, _KEYBOARD_PORT, _USB_PORTS = "14", "15", 15

NIC_DRIVERS = {d.VIRTIO: "virtio-net-pci", d.E1000: "e1000", d.E1000E: "e1000e", d.RTL8139: "rtl8139"}
_SCREENS = {d.VGA: "VGA", d.VIRTIO: "virtio-vga", "cirrus": "cirrus-vga", "bochs": "bochs-display"}
_SCREEN_BYTES = (3 + 5 * SESSIONS_OF_ONE) * (d.VIDEO_MIB << 20)
"""A screen's video memory, two pictures of it, and five more for each client. QEMU drops a client that has not taken
five."""
_TWO_PICTURES_MIB = 2 * d.VIDEO_MIB
"""Pictures of a virtio screen are in the guest's memory, and QEMU has copies: of one while it draws the next."""

_OFFERED: Mapping[str, Collection[str]] = {
    d.bus_feature(d.VIRTIO): ("virtio-blk-pci",),
    d.bus_feature(d.SCSI): ("virtio-scsi-pci", "scsi-hd", "scsi-cd"),
    d.bus_feature(d.SATA): ("ich9-ahci", "ide-hd", "ide-cd"),
    d.bus_feature(d.USB): ("qemu-xhci", "usb-storage"),
    **{
        d.nic_feature(model): (driver, *(["pcie-pci-bridge"] if pci.on_bridge(model) else []))
        for model, driver in NIC_DRIVERS.items()
    },
    **{d.video_feature(model): (driver,) for model, driver in _SCREENS.items()},
    d.video_feature(d.NO_SCREEN): (),
    d.input_feature(d.USB): ("qemu-xhci", "usb-tablet", "usb-kbd"),
    d.input_feature(d.VIRTIO): ("virtio-tablet-pci", "virtio-keyboard-pci"),
}
"""By feature: the drivers that it takes."""


def offered(drivers: Collection[str]) -> tuple[str, ...]:
    """The features of a host whose QEMU has these drivers."""
    return tuple(feature for feature, needed in _OFFERED.items() if set(needed) <= set(drivers))


def controllers(devices: Devices, rescue_bus: str) -> list[str]:
    """What disks and input devices are attached to. SATA's controller is part of the chipset."""
    buses = {devices.disk_bus, devices.cdrom_bus, rescue_bus}
    line: list[str] = []
    if d.SCSI in buses:
        line += _pci("virtio-scsi-pci", "scsi0", pci.SCSI_CONTROLLER)
    if d.USB in buses | {devices.pointer_bus, devices.keyboard_bus}:
        line += _pci("qemu-xhci", "usb0", pci.USB_CONTROLLER, p2=_USB_PORTS, p3=_USB_PORTS)
    return line


def disk(bus: str, place: int, name: str, *, cdrom: bool) -> dict[str, object]:
    """The device by which the guest sees a disk, or a CD-ROM: on SCSI or SATA."""
    if bus == d.SCSI:
        target = {"bus": "scsi0.0", "channel": 0, "scsi-id": place, "lun": 0}
        return {"driver": "scsi-cd" if cdrom else "scsi-hd", "id": name, **target}
    if bus == d.SATA:
        port = _LAST_PORT_OF_SATA if place == LAST else place
        return {"driver": "ide-cd" if cdrom else "ide-hd", "id": name, "bus": f"ide.{port}"}
    if bus == d.USB:
        return {"driver": "usb-storage", "id": name, "bus": "usb0.0", "port": str(place + 1)}
    return {"driver": "virtio-blk-pci", "id": name, "bus": "pcie.0", **_virtio_place(place)}


def _virtio_place(place: int) -> dict[str, object]:
    devices = {BEFORE: 0x2, FIRST: pci.ROOT_DISK, CONFIG_DRIVE: pci.CONFIG_DRIVE, LAST: pci.LAST_RESCUE}
    if place in devices:
        return {"addr": hex(devices[place])}
    function = place - CONFIG_DRIVE - 1
    return {"addr": f"{hex(pci.FURTHER_DISKS)}.{function}", **({"multifunction": True} if function == 0 else {})}


def screen(devices: Devices) -> tuple[str, dict[str, object]]:
    """Its driver, and the property of that for its memory."""
    model = devices.video_model or d.VGA
    if model == d.VIRTIO:
        return _SCREENS[model], {"max_hostmem": _TWO_PICTURES_MIB << 20}
    return _SCREENS[model], {"vgamem": d.VIDEO_MIB << 20} if model == "bochs" else {"vgamem_mb": d.VIDEO_MIB}


def screen_bytes(devices: Devices) -> int:
    """What QEMU needs for a screen."""
    return _SCREEN_BYTES * (2 if devices.video_model == d.VIRTIO else 1)


def input_devices(devices: Devices) -> list[str]:
    line: list[str] = []
    if devices.pointer_bus == d.VIRTIO:
        line += _pci("virtio-tablet-pci", "tablet0", pci.INPUT, multifunction=True)
    if devices.pointer_bus == d.USB:
        line += _usb("usb-tablet", "tablet0", _TABLET_PORT)
    if devices.keyboard_bus == d.VIRTIO:
        line += _pci("virtio-keyboard-pci", "keyboard0", pci.INPUT, 1)
    if devices.keyboard_bus == d.USB:
        line += _usb("usb-kbd", "keyboard0", _KEYBOARD_PORT)
    return line


def _pci(driver: str, name: str, device: int, function: int = 0, **properties: object) -> list[str]:
    place = {"bus": "pcie.0", "addr": f"{hex(device)}.{function}"}
    return ["-device", json.dumps({"driver": driver, "id": name, **place, **properties})]


def _usb(driver: str, name: str, port: str) -> list[str]:
    return ["-device", json.dumps({"driver": driver, "id": name, "bus": "usb0.0", "port": port})]
