"""The devices of a guest that an image can choose, and by which features of `HostFacts` hosts offer them.

Where there is a standard trait for a device, the feature has its name (``COMPUTE_STORAGE_BUS_SATA``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cumulet.host.record import Record

VIRTIO, SCSI, SATA, USB = "virtio", "scsi", "sata", "usb"
BUSES = (VIRTIO, SCSI, SATA, USB)
"""Of disks. SCSI's controller is virtio-scsi."""
CDROM_BUSES = (SCSI, SATA)
E1000, E1000E, RTL8139 = "e1000", "e1000e", "rtl8139"
NIC_MODELS = (VIRTIO, E1000, E1000E, RTL8139)
VGA, NO_SCREEN = "vga", "none"
VIDEO_MODELS = (VGA, VIRTIO, "cirrus", "bochs", NO_SCREEN)
INPUT_BUSES = (USB, VIRTIO)
DISK, CDROM = "disk", "cdrom"
VIDEO_MIB = 8
"""Memory of every screen, whatever its model: enough for 1920 x 1080."""
MOST_ON_SATA = 2
"""Disks beside the first, of a guest whose disks are on SATA: the chipset has six ports."""


class Devices(Record, frozen=True):
    """What a guest has instead of the usual devices; an empty field: the usual one.

    An agent of the version before refuses the description of a guest that has any; so a host is told of those only
    that it offers.
    """

    disk_bus: str = ""
    """Of all its disks; usually virtio."""
    cdrom_bus: str = ""
    """Of the config drive, which is a CD-ROM then; usually it is a virtio disk."""
    nic_model: str = ""
    """Usually virtio."""
    video_model: str = ""
    """Usually VGA; `NO_SCREEN`: it has no screen, and nothing to see."""
    pointer_bus: str = ""
    """Of a tablet; usually it has only a mouse of the type PS/2."""
    keyboard_bus: str = ""
    """Of a keyboard; usually it has one of the type PS/2."""
    rescue_bus: str = ""
    """Of the disk from which it is rescued; usually virtio."""
    rescue_device: str = ""
    """`DISK` or `CDROM`: which of them that is, behind all other disks; usually a disk before its own."""


USUAL = Devices()


def bus_feature(bus: str) -> str:
    return f"COMPUTE_STORAGE_BUS_{bus.upper()}"


def nic_feature(model: str) -> str:
    return f"COMPUTE_NET_VIF_MODEL_{model.upper()}"


def video_feature(model: str) -> str:
    return f"COMPUTE_GRAPHICS_MODEL_{model.upper()}"


def input_feature(bus: str) -> str:
    return f"input-{bus}"


ALL_FEATURES = (
    *map(bus_feature, BUSES),
    *map(nic_feature, NIC_MODELS),
    *map(video_feature, VIDEO_MODELS),
    *map(input_feature, INPUT_BUSES),
)


def needed(devices: Devices) -> Iterator[tuple[str, str]]:
    """(field of `devices`, feature that a host must offer) for each device that is not the usual one."""
    for field in ("disk_bus", "cdrom_bus", "rescue_bus"):
        if bus := getattr(devices, field):
            yield field, bus_feature(bus)
    if devices.rescue_device and not devices.rescue_bus:
        yield "rescue_device", bus_feature(VIRTIO)
    if devices.nic_model:
        yield "nic_model", nic_feature(devices.nic_model)
    if devices.video_model:
        yield "video_model", video_feature(devices.video_model)
    for field in ("pointer_bus", "keyboard_bus"):
        if bus := getattr(devices, field):
            yield field, input_feature(bus)


def lacking(devices: Devices, offered: Collection[str]) -> str | None:
    """The first feature that a guest with these devices needs and a host that offers these features lacks."""
    return next((feature for _, feature in needed(devices) if feature not in offered), None)
