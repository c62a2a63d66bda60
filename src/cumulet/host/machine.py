"""What a machine has, and which part each of its hosts offers, so that together they offer no more than it has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Cores, memory in MiB, disk in GiB."""

    vcpus: int
    memory_mib: int
    disk_gib: int


def capacity(folder: Path) -> Capacity:
    """The capacity of this machine. `folder`: on the file system of the guests' disks."""
    memory_kib = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    return Capacity(
        vcpus=os.cpu_count() or 1, memory_mib=memory_kib >> 10, disk_gib=shutil.disk_usage(folder).total >> 30
    )


def part(whole: Capacity, hosts: int) -> Capacity:
    """What each of `hosts` offers. Each has at least one core: cores may be shared, memory may not."""
    return Capacity(
        vcpus=max(1, whole.vcpus // hosts), memory_mib=whole.memory_mib // hosts, disk_gib=whole.disk_gib // hosts
    )
