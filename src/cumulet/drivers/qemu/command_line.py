"""A frozen guest description becomes QEMU's arguments. The same description gives the same machine on every host.

Nothing a user has written gets here: names in arguments are our own ids, options with values are JSON objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from cumulet.host.driver import Guest, Nic

CONSOLE_RING_BYTES = 1 << 20
"""The serial console is kept by QEMU itself in a ring of this size: a guest can print for ever and fill no disk,
and the newest output is there after the agent was dead for a while."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

DISK_NODE = "disk0"
DISK_DEVICE = "virtio0"
CONSOLE_CHARDEV = "console0"

# Addresses on the root bus. They are part of what a guest sees: never change one, only add.
_ADDRESS_DISK = "0x3"
_ADDRESS_RNG = "0x4"
_ADDRESS_CONFIG_DRIVE = "0x5"
_FIRST_ADDRESS_NIC = 0x8
MOST_NICS = 16
"""A root bus has 32 places; the chipset sits in the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What decides the arguments beside the guest: the host's part, none of it visible in the guest."""

    binary: str
    accelerator: str
    folder: PurePosixPath
    """The guest's own folder as QEMU sees it."""
    monitor_fds: tuple[int, ...]
    """Listening sockets that QEMU inherits, one per monitor."""
    incoming: bool
    config_drive: bool
    tap_fds: tuple[int, ...] = ()
    """Open taps that QEMU inherits, one for each of the guest's ports."""


def arguments(guest: Guest, machine: Machine) -> list[str]:
    """The whole command line, program first. The guest never starts by itself (`-S`)."""
    memory = {"qom-type": "memory-backend-ram", "id": "memory0", "size": guest.memory_mib << 20}
    line = [
        machine.binary,
        *("-nodefaults", "-no-user-config", "-S", "-no-shutdown"),
        *("-sandbox", SANDBOX),
        *("-name", f"{guest.server_id},debug-threads=on"),
        *("-uuid", guest.server_id),
        *("-machine", f"{guest.machine_type},accel={machine.accelerator},memory-backend=memory0,{_MACHINE_OPTIONS}"),
        *("-cpu", guest.cpu_model),
        *("-smp", f"cpus={guest.vcpus},sockets=1,cores={guest.vcpus},threads=1"),
        *("-m", f"size={guest.memory_mib}M"),
        *("-object", _json(memory)),
        *("-display", "none", "-vga", "none", "-rtc", "base=utc"),
        *("-smbios", f"type=1,manufacturer=Cumulet,product=Server,serial={guest.server_id},uuid={guest.server_id}"),
    ]
    for number, fd in enumerate(machine.monitor_fds):
        line += ["-chardev", f"socket,id=monitor{number},fd={fd},server=on,wait=off"]
        line += ["-mon", f"chardev=monitor{number},mode=control"]
    line += ["-chardev", f"ringbuf,id={CONSOLE_CHARDEV},size={CONSOLE_RING_BYTES}"]
    line += ["-device", _json({"driver": "isa-serial", "id": "serial0", "chardev": CONSOLE_CHARDEV, "index": 0})]
    line += _disk(machine)
    line += ["-object", _json({"qom-type": "rng-random", "id": "rng0", "filename": "/dev/urandom"})]
    line += ["-device", _device("virtio-rng-pci", "random0", _ADDRESS_RNG, rng="rng0")]
    if machine.config_drive:
        line += _config_drive(machine)
    for number, (nic, fd) in enumerate(zip(guest.nics, machine.tap_fds, strict=True)):
        line += _nic(number, nic, fd)
    if machine.incoming:
        line += ["-incoming", "defer"]
    return line


_MACHINE_OPTIONS = "usb=off,vmport=off,smm=off,hpet=off,dump-guest-core=off"


def _disk(machine: Machine) -> list[str]:
    storage = {
        "driver": "file",
        "node-name": "disk0-file",
        "filename": str(machine.folder / "disk.qcow2"),
        "locking": "on",
        "discard": "unmap",
    }
    image = {
        "driver": "qcow2",
        "node-name": DISK_NODE,
        "file": "disk0-file",
        "backing": None,
        "discard": "unmap",
    }
    device = _device("virtio-blk-pci", DISK_DEVICE, _ADDRESS_DISK, drive=DISK_NODE, bootindex=0, serial="disk0")
    return ["-blockdev", _json(storage), "-blockdev", _json(image), "-device", device]


def _config_drive(machine: Machine) -> list[str]:
    storage = {
        "driver": "file",
        "node-name": "config0-file",
        "filename": str(machine.folder / "config.iso"),
        "read-only": True,
        "locking": "on",
    }
    image = {"driver": "raw", "node-name": "config0", "file": "config0-file", "read-only": True}
    device = _device("virtio-blk-pci", "virtio1", _ADDRESS_CONFIG_DRIVE, drive="config0", serial="config0")
    return ["-blockdev", _json(storage), "-blockdev", _json(image), "-device", device]


def _nic(number: int, nic: Nic, fd: int) -> list[str]:
    """Without a boot ROM: no guest boots from the network, and looking for a server there takes seconds."""
    address = hex(_FIRST_ADDRESS_NIC + number)
    device = _device("virtio-net-pci", f"nic{number}", address, netdev=f"net{number}", mac=nic.mac, romfile="")
    return ["-netdev", f"tap,id=net{number},fd={fd}", "-device", device]


def _device(driver: str, name: str, address: str, **properties: object) -> str:
    return _json({"driver": driver, "id": name, "bus": "pcie.0", "addr": address, **properties})


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
