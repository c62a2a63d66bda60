"""The shapes of what QEMU answers, as far as Cumulet reads it. Reference: QEMU's `qapi/*.json`."""

from __future__ import annotations

import msgspec


class Answer(msgspec.Struct, frozen=True, rename="kebab"):
    """An answer of QEMU, with the fields that are used here."""


class Memory(Answer, frozen=True):
    """`MigrationStats`: in bytes; `mbps` in megabits a second; rates and rounds are counts."""

    total: int = 0
    transferred: int = 0
    remaining: int = 0
    mbps: float = 0.0
    dirty_pages_rate: int = 0
    """Pages a second."""
    page_size: int = 0
    dirty_sync_count: int = 0
    """Rounds over the memory."""


class Migration(Answer, frozen=True):
    """`MigrationInfo`; its status is "none" if there was no migration."""

    status: str = "none"
    ram: Memory = Memory()
    downtime: int | None = None
    """Milliseconds, once it has completed."""
    total_time: int = 0
    """Milliseconds since it began."""
    error_desc: str = ""


class Job(Answer, frozen=True):
    """`JobInfo`; the unit of progress is the job's own (bytes for a mirror)."""

    id: str
    status: str
    current_progress: int = 0
    total_progress: int = 0
    error: str | None = None


class DiskStatistics(msgspec.Struct, frozen=True):
    """`BlockDeviceStats` since the process started."""

    rd_bytes: int = 0
    wr_bytes: int = 0
    rd_operations: int = 0
    wr_operations: int = 0
    failed_rd_operations: int = 0
    failed_wr_operations: int = 0


class Chardev(Answer, frozen=True):
    """`ChardevInfo`."""

    label: str
    filename: str = ""


class Status(Answer, frozen=True):
    """`StatusInfo`."""

    status: str


class Disk(Answer, frozen=True):
    """`BlockStats`."""

    stats: DiskStatistics


class Inserted(Answer, frozen=True):
    """`BlockDeviceInfo` of a disk."""

    node_name: str = ""


class SeenDisk(Answer, frozen=True):
    """`BlockInfo`; `qdev`: the device by which the guest sees it, by its QOM path or id."""

    qdev: str = ""
    inserted: Inserted | None = None


class Node(Answer, frozen=True):
    """`BlockDeviceInfo`."""

    node_name: str = ""


class Identified(Answer, frozen=True):
    """One of a list, by its id."""

    id: str


class Named(Answer, frozen=True):
    """One of a list, by name."""

    name: str


class Processor(Answer, frozen=True):
    """`CpuInfoFast`: a virtual processor and the host's thread that runs it."""

    cpu_index: int
    thread_id: int
