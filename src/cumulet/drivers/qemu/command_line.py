"""QEMU's arguments from a frozen guest description. The same description gives the same machine on every host.

They contain nothing that a user has written: names are our own ids, options with values are JSON objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from cumulet.drivers.qemu import chosen_devices as chosen
from cumulet.drivers.qemu.guest_files import further_disk
from cumulet.drivers.qemu.qmp import Json
from cumulet.host import pci, uneven_memory
from cumulet.host.devices import CDROM, VIRTIO
from cumulet.host.driver import Guest, Nic
from cumulet.host.nics import placed

CONSOLE_RING_BYTES = 1 << 20
"""The serial console is kept by QEMU itself in a ring of this size: a guest can print for ever and fill no disk,
and the newest output is there after the agent was dead for a while."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

DISK_NODE = "disk0"
CONFIG_DRIVE_NODE = "config0"
DISK_DEVICE = "virtio0"
CONFIG_DRIVE_DEVICE = "virtio1"
"""The names of devices are part of what is sent in a move; whatever their bus is."""
RESCUE_DEVICE = "rescue0"
CONSOLE_CHARDEV = "console0"
PRODUCT = "OpenStack Nova"
"""The machine's product name: cloud-init asks the metadata service if it is this one."""


def disk_nodes(guest: Guest) -> tuple[str, ...]:
    """Names of its disks' block devices, in the order of the disks."""
    return (DISK_NODE, *(pci.disk_serial(disk.place) for disk in guest.disks))


# Addresses on the root bus. They are part of what a guest sees: never change one, only add.
_ADDRESS_SCREEN = "0x1"
_ADDRESS_RNG = "0x4"
_FIRST_ADDRESS_NIC = 0x8
"""A root bus has 32 places. The chipset has the last one, and those from here to there are for NICs."""
_PORTS_PER_ADDRESS = 8
PLUGGED_AT = "0x0"
"""The one place behind a root port. While a guest runs, devices can be plugged only there, or on a bridge."""
NIC_BRIDGE = "nics"
"""A bus for conventional PCI devices. Its first place is its controller's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the host adds to the arguments; the guest sees nothing of it."""

    binary: str
    accelerator: str
    folder: PurePosixPath
    """The guest's own folder as QEMU sees it."""
    monitor_fds: tuple[int, ...]
    """Listening sockets that QEMU inherits, one per monitor."""
    incoming: bool
    config_drive: bool
    agent_fd: int | None = None
    """A listening socket that QEMU inherits, which leads to the guest's own agent."""
    rescued: bool = False
    """It boots from a rescue disk."""
    rescue_bus: str = ""
    rescue_device: str = ""
    """As in `Devices`."""
    tap_fds: tuple[int, ...] = ()
    """Open taps that QEMU inherits, one for each of the guest's ports."""


def arguments(guest: Guest, machine: Machine) -> list[str]:
    """The whole command line, program first. The guest never starts by itself (`-S`)."""
    memory_kib = (guest.memory_mib << 10) + (uneven_memory.KIB if guest.uneven_memory else 0)
    memory = {"qom-type": "memory-backend-ram", "id": "memory0", "size": memory_kib << 10}
    line = [
        machine.binary,
        *("-nodefaults", "-no-user-config", "-S", "-no-shutdown"),
        *("-sandbox", SANDBOX),
        *("-name", f"{guest.server_id},debug-threads=on"),
        *("-uuid", guest.server_id),
        *("-machine", f"{guest.machine_type},accel={machine.accelerator},memory-backend=memory0,{_MACHINE_OPTIONS}"),
        *("-cpu", guest.cpu_model),
        *("-smp", f"cpus={guest.vcpus},sockets=1,cores={guest.vcpus},threads=1"),
        *("-m", f"size={memory_kib}K"),
        *("-object", _json(memory)),
        *("-display", "none", "-vga", "none", "-rtc", "base=utc"),
        *("-smbios", f"type=1,manufacturer=Cumulet,product={PRODUCT},serial={guest.server_id},uuid={guest.server_id}"),
    ]
    for number, fd in enumerate(machine.monitor_fds):
        line += ["-chardev", f"socket,id=monitor{number},fd={fd},server=on,wait=off"]
        line += ["-mon", f"chardev=monitor{number},mode=control"]
    line += ["-chardev", f"ringbuf,id={CONSOLE_CHARDEV},size={CONSOLE_RING_BYTES}"]
    line += ["-device", _json({"driver": "isa-serial", "id": "serial0", "chardev": CONSOLE_CHARDEV, "index": 0})]
    line += chosen.controllers(guest.devices, machine.rescue_bus if machine.rescued else "")
    line += _disks(guest, machine)
    line += ["-object", _json({"qom-type": "rng-random", "id": "rng0", "filename": "/dev/urandom"})]
    line += ["-device", _device("virtio-rng-pci", "random0", _ADDRESS_RNG, rng="rng0")]
    if machine.agent_fd is not None:
        line += _agent(machine.agent_fd)
    if guest.screen:
        # A VNC server that nobody can connect to: it is handed each client (`screens`).
        model, memory_of_it = chosen.screen(guest.devices)
        line += ["-device", _device(model, "screen0", _ADDRESS_SCREEN, **memory_of_it)]
        line += ["-vnc", "none,share=force-shared"]
    line += chosen.input_devices(guest.devices)
    if pci.on_bridge(guest.devices.nic_model):
        line += ["-device", _device("pcie-pci-bridge", NIC_BRIDGE, hex(_FIRST_ADDRESS_NIC))]
    else:
        for number in range(guest.nic_slots):
            line += ["-device", _root_port(number)]
    for nic, fd in zip(placed(guest), machine.tap_fds, strict=True):
        line += ["-netdev", f"tap,id={net_name(nic)},fd={fd}", "-device", _json(nic_device(guest, nic))]
    if machine.incoming:
        line += ["-incoming", "defer"]
    return line


_MACHINE_OPTIONS = "usb=off,vmport=off,smm=off,hpet=off,dump-guest-core=off"


def _disks(guest: Guest, machine: Machine) -> list[str]:
    """In the order in which the guest finds them, and QEMU lists them."""
    bus = guest.devices.disk_bus or VIRTIO
    line: list[str] = []
    last = bool(machine.rescue_device)
    rescue = _rescue_disk(machine, last=last) if machine.rescued else []
    if not last:
        line += rescue
    line += _disk(machine, "disk.qcow2", DISK_NODE, DISK_DEVICE, bus, chosen.FIRST, boot_index=int(machine.rescued))
    if machine.config_drive:
        line += _config_drive(machine, guest.devices.cdrom_bus)
    for disk, node in zip(guest.disks, disk_nodes(guest)[1:], strict=True):
        name, place = f"further{disk.place}", chosen.CONFIG_DRIVE + disk.place
        line += _disk(machine, further_disk(disk.place), node, name, bus, place)
    return line + rescue if last else line


def _rescue_disk(machine: Machine, *, last: bool) -> list[str]:
    cdrom, place = machine.rescue_device == CDROM, chosen.LAST if last else chosen.BEFORE
    bus = machine.rescue_bus or VIRTIO
    return _disk(machine, "rescue.qcow2", RESCUE_DEVICE, RESCUE_DEVICE, bus, place, boot_index=0, cdrom=cdrom)


def _disk(
    machine: Machine,
    file: str,
    node: str,
    name: str,
    bus: str,
    place: int,
    *,
    boot_index: int | None = None,
    cdrom: bool = False,
) -> list[str]:
    storage: dict[str, object] = {
        "driver": "file",
        "node-name": f"{node}-file",
        "filename": str(machine.folder / file),
        "locking": "on",
        "discard": "unmap",
    }
    image: dict[str, object] = {
        "driver": "qcow2",
        "node-name": node,
        "file": f"{node}-file",
        "backing": None,
        "discard": "unmap",
    }
    if cdrom:
        storage["read-only"] = image["read-only"] = True
    told: dict[str, object] = {"drive": node, "serial": node}
    if boot_index is not None:
        told["bootindex"] = boot_index
    device = _json({**chosen.disk(bus, place, name, cdrom=cdrom), **told})
    return ["-blockdev", _json(storage), "-blockdev", _json(image), "-device", device]


def _config_drive(machine: Machine, cdrom_bus: str) -> list[str]:
    storage = {
        "driver": "file",
        "node-name": f"{CONFIG_DRIVE_NODE}-file",
        "filename": str(machine.folder / "config.iso"),
        "read-only": True,
        "locking": "on",
    }
    node = CONFIG_DRIVE_NODE
    image = {"driver": "raw", "node-name": node, "file": f"{node}-file", "read-only": True}
    seen_as = chosen.disk(cdrom_bus or VIRTIO, chosen.CONFIG_DRIVE, CONFIG_DRIVE_DEVICE, cdrom=bool(cdrom_bus))
    device = _json({**seen_as, "drive": node, "serial": node})
    return ["-blockdev", _json(storage), "-blockdev", _json(image), "-device", device]


def _agent(fd: int) -> list[str]:
    """The agent in the guest finds the port by its name."""
    port = {"driver": "virtserialport", "id": "agent0", "bus": "serial1.0", "chardev": "agent0"}
    return [
        *("-chardev", f"socket,id=agent0,fd={fd},server=on,wait=off"),
        *("-device", _device("virtio-serial-pci", "serial1", hex(pci.GUEST_AGENT), max_ports=2)),
        *("-device", _json({**port, "nr": 1, "name": "org.qemu.guest_agent.0"})),
    ]


def _root_port(number: int) -> str:
    address = f"{hex(_FIRST_ADDRESS_NIC + number // _PORTS_PER_ADDRESS)}.{number % _PORTS_PER_ADDRESS}"
    # No I/O ports are reserved behind it: there are enough for 16 root ports only, and virtio needs none.
    first = number % _PORTS_PER_ADDRESS == 0
    return _device(
        "pcie-root-port", port_name(number), address, chassis=number + 1, multifunction=first, **{"io-reserve": 0}
    )


def port_name(slot: int) -> str:
    return f"port{slot}"


def nic_name(nic: Nic) -> str:
    return f"nic{nic.slot}"


def net_name(nic: Nic) -> str:
    return f"net{nic.slot}"


def nic_device(guest: Guest, nic: Nic) -> dict[str, Json]:
    """A NIC that has its slot, as QEMU's device.

    Without a boot ROM: no guest boots from the network, and to try takes seconds.
    """
    assert nic.slot is not None
    model = guest.devices.nic_model
    on_root_bus: dict[str, Json] = {"bus": "pcie.0", "addr": hex(_FIRST_ADDRESS_NIC + nic.slot)}
    behind_a_port: dict[str, Json] = {"bus": port_name(nic.slot), "addr": PLUGGED_AT}
    on_bridge: dict[str, Json] = {"bus": NIC_BRIDGE, "addr": hex(nic.slot + 1)}
    return {
        "driver": chosen.NIC_DRIVERS[model or VIRTIO],
        "id": nic_name(nic),
        **(on_bridge if pci.on_bridge(model) else behind_a_port if guest.nic_slots else on_root_bus),
        "netdev": net_name(nic),
        "mac": nic.mac,
        "romfile": "",
    }


def _device(driver: str, name: str, address: str, **properties: object) -> str:
    return _json({"driver": driver, "id": name, "bus": "pcie.0", "addr": address, **properties})


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
