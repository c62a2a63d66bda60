"""Where a guest of a real host sees its disks and its ports. Part of what a guest sees: never change one, only add."""

from __future__ import annotations

from cumulet.host.devices import E1000, RTL8139, SCSI, USB, Devices

ROOT_DISK = 0x3
CONFIG_DRIVE = 0x5
FURTHER_DISKS = 0x6
"""Further disks are the functions of this device, in the order of their places from 1 on."""

GUEST_AGENT = 0x7
"""The channel to the agent in the guest."""


LAST_RESCUE = 0x1B
"""A virtio disk that the guest is rescued from, behind all of its own."""
INPUT = 0x1C
SCSI_CONTROLLER = 0x1D
USB_CONTROLLER = 0x1E


def disk_bus(devices: Devices) -> str:
    """What Nova's metadata call the bus of a guest's disks. They have no word for SATA."""
    return "pci" if not devices.disk_bus else devices.disk_bus if devices.disk_bus in (SCSI, USB) else "none"


def disk_address(place: int, devices: Devices) -> str:
    """Of the disk at a place, the first one at 0: domain, bus, device and function. Nova tells those of no other bus
    than PCI."""
    if devices.disk_bus:
        return "none"
    return f"0000:00:{FURTHER_DISKS:02x}.{place - 1}" if place else f"0000:00:{ROOT_DISK:02x}.0"


def nic_address(slot: int, model: str) -> str:
    """Each NIC is alone behind a root port, whose bus the guest's firmware numbers from 1 on; `on_bridge` all are
    beside each other."""
    return f"0000:01:{slot + 1:02x}.0" if on_bridge(model) else f"0000:{slot + 1:02x}:00.0"


def on_bridge(model: str) -> bool:
    """Whether NICs of a model are conventional PCI devices: behind a root port each would need a share of its own of
    the I/O ports, of which there are too few."""
    return model in (E1000, RTL8139)


def disk_name(place: int, devices: Devices, *, config_drive: bool) -> str:
    """The name by which Linux calls it: disks in the order of their addresses, among them a config drive that is one.
    Nova has the same prefixes."""
    before = place + (1 if config_drive and place and not devices.cdrom_bus else 0)
    return f"/dev/{'sd' if devices.disk_bus else 'vd'}{chr(ord('a') + before)}"


def disk_serial(place: int) -> str:
    """The serial number that the disk reports."""
    return f"disk{place}"
