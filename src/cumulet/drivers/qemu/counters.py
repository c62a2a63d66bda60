"""What a guest has used: QEMU counts its disks, the kernel its processors' threads and its memory."""

from __future__ import annotations

import os
from pathlib import Path

from cumulet.drivers.qemu.answers import DiskStatistics
from cumulet.drivers.qemu.host import QemuHost
from cumulet.host.diagnostics import DiskCounters, GuestCounters
from cumulet.host.driver import DriverError

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_KIB_PER_PAGE = os.sysconf("SC_PAGE_SIZE") // 1024


async def counters(host: QemuHost, server_id: str) -> GuestCounters:
    hypervisor = await host.living_hypervisor(server_id)
    pid = hypervisor.process.pid
    threads = [cpu.thread_id for cpu in sorted(await hypervisor.processors(), key=lambda cpu: cpu.cpu_index)]
    disks = await hypervisor.disk_statistics()
    try:
        return GuestCounters(
            cpu_times_ns=tuple(_cpu_ns(Path(f"/proc/{pid}/task/{thread}/stat")) for thread in threads),
            disks=tuple(_disk(disk) for disk in disks),
            resident_kib=int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _KIB_PER_PAGE,
        )
    except (FileNotFoundError, ProcessLookupError) as gone:
        raise DriverError("NOT_RUNNING: the guest's process has ended") from gone


def _cpu_ns(stat: Path) -> int:
    """User and system time, the 14th and 15th field; the second may hold blanks and brackets."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _NS_PER_TICK


def _disk(told: DiskStatistics) -> DiskCounters:
    return DiskCounters(
        read_bytes=told.rd_bytes,
        read_requests=told.rd_operations,
        write_bytes=told.wr_bytes,
        write_requests=told.wr_operations,
        errors=told.failed_rd_operations + told.failed_wr_operations,
    )
