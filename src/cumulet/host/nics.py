"""The NICs of a guest, and how its description changes with them."""

from __future__ import annotations

from msgspec.structs import replace

from cumulet.host.devices import E1000E, Devices
from cumulet.host.driver import Guest, Nic

MOST_NICS = 16
"""How many ports a guest may have."""

_MOST_E1000E = 8
"""With QEMU 7.2 a guest with 9 of them behind root ports booted, and one with 15 did not. It is not known why."""

DEVICE_TAGS = "device-tags"
"""Of `HostFacts.features`: its metadata service tells the tags of ports that were attached later."""


def most(devices: Devices) -> int:
    """How many a guest with these devices may have."""
    return _MOST_E1000E if devices.nic_model == E1000E else MOST_NICS


def placed(guest: Guest) -> tuple[Nic, ...]:
    """Its NICs, each with its slot."""
    return tuple(replace(nic, slot=number if nic.slot is None else nic.slot) for number, nic in enumerate(guest.nics))


def with_nic(guest: Guest, nic: Nic) -> Guest:
    """The description with this NIC added, ordered by place; a NIC on the same port is replaced."""
    kept = without_nic(guest, nic.port_id).nics
    return replace(guest, nics=tuple(sorted((*kept, nic), key=lambda each: each.slot or 0)))


def without_tags(guest: Guest) -> Guest:
    """The description for a host that does not offer `DEVICE_TAGS`: an agent of the version before would refuse it."""
    return replace(guest, nics=tuple(replace(nic, tag="") for nic in guest.nics))


def without_nic(guest: Guest, port_id: str) -> Guest:
    """The description without that port's NIC; the other NICs keep their places."""
    return replace(guest, nics=tuple(nic for nic in placed(guest) if nic.port_id != port_id))
