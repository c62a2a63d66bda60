"""When a port is attached or detached, the metadata service tells that on every port of the guest."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import cast

from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.qemu import hotplug
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import GuestRecord, Intent, Role
from cumulet.host.driver import DriveFile, Guest, Nic
from tests.drivers.qemu_host import qemu_host
from tests.drivers.test_config_drive import nic

SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"


class Network:
    """Keeps what is told, by port."""

    wiring = None

    def __init__(self) -> None:
        self.told: dict[str, dict[str, bytes] | None] = {}

    async def plug(self, port_id: str) -> int:
        return os.open(os.devnull, os.O_RDONLY)

    async def tell(self, port_id: str, files: dict[str, bytes] | None) -> None:
        self.told[port_id] = files

    def tags(self) -> dict[str, list[str] | None]:
        """By port: the tags of all devices that its guest is told of."""
        return {
            port_id: None if files is None else [tag for one in self._devices(files) for tag in one.get("tags", [])]
            for port_id, files in self.told.items()
        }

    def _devices(self, files: dict[str, bytes]) -> list[dict[str, list[str]]]:
        found: list[dict[str, list[str]]] = json.loads(files["meta_data.json"])["devices"]
        return found


class Process:
    """A guest's QEMU that does at once what it is told."""

    alive = True

    def __init__(self) -> None:
        self.present = {"nic0"}

    async def run_state(self) -> str:
        return "running"

    async def devices(self) -> set[str]:
        return set(self.present)

    async def device_add(self, device: dict[str, object]) -> None:
        self.present.add(str(device["id"]))

    async def device_del(self, name: str) -> None:
        self.present.discard(name)

    async def netdev_del(self, name: str) -> None: ...
    async def netdev_add_tap(self, name: str, fd: str) -> None: ...
    async def getfd(self, name: str, fd: int) -> None: ...
    async def set_link(self, name: str, *, up: bool) -> None: ...

    def change(self) -> None: ...


def test_every_port_of_a_guest_is_told_of_ports_that_come_and_go(tmp_path: Path) -> None:
    network = Network()
    host = qemu_host(tmp_path, cast("LinuxNetwork", network))
    first: Nic = nic(0)
    device = {"type": "nic", "mac": first.mac, "address": "0000:01:00.0", "tags": ["front"]}
    drive = json.dumps({"devices": [device]}).encode()
    guest = Guest(
        server_id=SERVER,
        name="one",
        vcpus=1,
        memory_mib=64,
        disk_gib=1,
        image=None,
        nics=(first,),
        nic_slots=16,
        config_drive=(DriveFile(paths=("openstack/latest/meta_data.json",), content=drive),),
    )
    folder = host.folder(SERVER)
    folder.path.mkdir(parents=True)
    folder.write(GuestRecord(guest=guest, uid=None, role=Role.OWN, intent=Intent.RUNNING))
    host.hypervisors[SERVER] = cast("Hypervisor", Process())

    asyncio.run(hotplug.plug(host, SERVER, nic(2, "back")))
    assert network.tags() == {"p0": ["front", "back"], "p2": ["front", "back"]}
    asyncio.run(hotplug.unplug(host, SERVER, "p2"))
    assert network.tags() == {"p0": ["front"], "p2": None}
