"""What QEMU is started with, as far as somebody counts on it."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from cumulet.drivers.qemu.command_line import Machine, arguments
from cumulet.host.disks import Disk
from cumulet.host.driver import Guest


def test_disks_are_in_the_order_in_which_the_guest_finds_them() -> None:
    """By this order QEMU tells what each of them has done (`counters`)."""
    guest = Guest(
        server_id="a",
        name="a",
        vcpus=1,
        memory_mib=64,
        disk_gib=1,
        image=None,
        machine_type="q35",
        cpu_model="max",
        disks=(Disk(place=1, size_mib=8, content="ext4"), Disk(place=2, size_mib=8, content="swap")),
    )
    machine = Machine(
        binary="qemu",
        accelerator="tcg",
        folder=PurePosixPath("/vm"),
        monitor_fds=(3,),
        incoming=False,
        config_drive=True,
        rescued=True,
    )
    devices = [json.loads(word) for word in arguments(guest, machine) if word.startswith('{"driver":"virtio-blk-pci"')]
    found = [(device["drive"], device["addr"]) for device in devices]
    assert [drive for drive, _ in found] == ["rescue0", "disk0", "config0", "disk1", "disk2"]
    assert found == sorted(found, key=lambda one: float(one[1].removeprefix("0x")))
