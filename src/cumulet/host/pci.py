"""Where a guest of a real host sees its disks and its ports. Part of what a guest sees: never change one, only add."""

from __future__ import annotations

ROOT_DISK = 0x3
CONFIG_DRIVE = 0x5
FURTHER_DISKS = 0x6
"""Further disks are the functions of this device, in the order of their places from 1 on."""

GUEST_AGENT = 0x7
"""The channel to the agent in the guest."""


def disk_address(place: int) -> str:
    """Of the disk at a place, the first one at 0: domain, bus, device and function."""
    return f"0000:00:{FURTHER_DISKS:02x}.{place - 1}" if place else f"0000:00:{ROOT_DISK:02x}.0"


def nic_address(slot: int) -> str:
    """Each NIC is alone behind a root port, whose bus the guest's firmware numbers from 1 on."""
    return f"0000:{slot + 1:02x}:00.0"


def disk_name(place: int, *, config_drive: bool) -> str:
    """The name by which Linux calls it: disks in the order of their addresses, the config drive among them."""
    before = place + (1 if config_drive and place else 0)
    return f"/dev/vd{chr(ord('a') + before)}"


def disk_serial(place: int) -> str:
    """The serial number that the disk reports."""
    return f"disk{place}"
