"""What an image of a running guest's disk costs the guest, beside a raw QMP backup job of the disk in the same run.

1 GiB of the disk is written. Both ways make the same kind of target and copy the whole disk to it, by turns. How long
the guest stands still is seen from outside, by its ticks. The time of the copy is from the first command until QEMU is
done; ours goes on to send the copy, which is a row of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from benchmarks.qemu_migration import Monitor, Place, Ticks, tiny_guest
from benchmarks.report import Measure, Result
from cumulet.drivers.qemu import guest_files
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import probe
from cumulet.host.disks import SnapshotPhase
from cumulet.host.driver import DriverError, Guest
from cumulet.image import tiny
from cumulet.testing.image_files import ImageFiles

TIMES = int(os.environ.get("CUMULET_BENCH_SNAPSHOTS", "5"))
"""Of each kind."""
WRITTEN_MIB, WRITTEN_AT_MIB, DISK_GIB = 1024, 512, 2
_NODE = "raw-copy"

RAW_GAP = Measure(name="snapshot_gap_raw", title="raw backup job, 1 GiB: longest gap of ticks", unit="ms", goal=None)
MORE_GAP = Measure(name="snapshot_gap_more", title="what a snapshot adds to that", unit="ms", goal=50)
RAW_RATE = Measure(name="snapshot_rate_raw", title="raw backup job", unit="MiB/s", goal=None, better="higher")
RATE = Measure(
    name="snapshot_rate", title="a snapshot's copy, of the raw job's rate", unit="", goal=0.8, better="higher"
)
WHOLE = Measure(name="snapshot_whole", title="a snapshot of 1 GiB until it is sent", unit="s", goal=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    seconds: float
    gap_ms: float
    sent_seconds: float = 0.0
    """Until the copy was sent, too."""


def measure() -> Iterator[Result]:
    """Medians. Needs QEMU and the tiny image; cleans up after itself."""
    raw, ours = asyncio.run(_measured())
    gap = statistics.median(one.gap_ms for one in raw)
    seconds = statistics.median(one.seconds for one in raw)
    yield Result(RAW_GAP, gap)
    yield Result(MORE_GAP, statistics.median(one.gap_ms for one in ours) - gap)
    yield Result(RAW_RATE, WRITTEN_MIB / seconds)
    yield Result(RATE, seconds / statistics.median(one.seconds for one in ours))
    yield Result(WHOLE, statistics.median(one.sent_seconds for one in ours))


class _Nowhere:
    """`host.images.ImageSink` that counts what it gets."""

    def __init__(self) -> None:
        self.bytes = 0

    async def send(self, image_id: str, size_bytes: int, pieces: AsyncIterator[bytes]) -> None:
        self.bytes = 0
        async for piece in pieces:
            self.bytes += len(piece)


async def _measured() -> tuple[list[Copied], list[Copied]]:
    base, sink = Path(tempfile.mkdtemp(prefix="cumulet-bench-")), _Nowhere()
    driver = await QemuDriver.open(
        name="host1", state=base, images=ImageFiles(tiny.build()), facts=await probe(), sink=sink
    )
    place = Place("host1", base, driver)
    guest = replace(tiny_guest(128, b"tick_ms=10\n"), disk_gib=DISK_GIB)
    raw, ours = [], []
    try:
        guest = await driver.create(guest)
        await driver.stop(guest.server_id, grace_seconds=0.0)
        disk = place.folder(guest) / "vm" / guest_files.DISK
        write = ["qemu-io", "-f", "qcow2", "-c", f"write -P 171 {WRITTEN_AT_MIB}M {WRITTEN_MIB}M", str(disk)]
        await asyncio.to_thread(subprocess.run, write, check=True, capture_output=True)
        await driver.start(guest.server_id)
        ticks = Ticks()
        await ticks.listen(place.monitor(guest))
        await ticks.after(0.0, 20, seconds=600.0)  # It boots.
        for _ in range(TIMES):
            raw.append(await _by_qmp(place, guest, ticks))
            ours.append(await _by_driver(place, guest, ticks))
            assert sink.bytes > WRITTEN_MIB << 20, "it was sent whole"
        ticks.stop()
    finally:
        await driver.destroy(guest.server_id)
        await driver.close()
        shutil.rmtree(base)
    return raw, ours


async def _by_qmp(place: Place, guest: Guest, ticks: Ticks) -> Copied:
    host = place.driver._host
    folder, record = host.folder(guest.server_id), host.record(guest.server_id)
    begun = time.monotonic()
    await host.disks.make_copy_target(record.guest, folder, record.uid)
    path = str(host.sandbox.folder_inside(folder) / guest_files.SNAPSHOT)
    async with Monitor.open(place.monitor(guest)) as ask:
        file = {"driver": "file", "filename": path, "locking": "on"}
        await ask("blockdev-add", driver="qcow2", node_name=_NODE, file=file, backing=None)
        await ask("blockdev-backup", job_id="raw", device="disk0", target=_NODE, sync="full")
        await ask.event("BLOCK_JOB_COMPLETED")
        ended = time.monotonic()
        await ticks.after(ended, 20)
        await ask("blockdev-del", node_name=_NODE)
    guest_files.remove(folder, guest_files.SNAPSHOT)
    return Copied(seconds=ended - begun, gap_ms=ticks.worst_gap_ms(begun))


async def _by_driver(place: Place, guest: Guest, ticks: Ticks) -> Copied:
    image_id = str(uuid.uuid4())
    begun = time.monotonic()
    await place.driver.begin_snapshot(guest.server_id, image_id=image_id)
    copied, seen = None, SnapshotPhase.COPYING
    while not seen.ended:
        found = await place.driver.snapshot_progress(guest.server_id, image_id=image_id, wait_seconds=5.0, seen=seen)
        seen = found.phase
        if copied is None and seen is not SnapshotPhase.COPYING:
            copied = time.monotonic()
    if seen is not SnapshotPhase.DONE or copied is None:
        raise DriverError(f"SNAPSHOT: {found.error}")
    ended = time.monotonic()
    await ticks.after(ended, 20)
    await place.driver.end_snapshot(guest.server_id)
    return Copied(seconds=copied - begun, gap_ms=ticks.worst_gap_ms(begun), sent_seconds=ended - begun)


if __name__ == "__main__":
    for result in measure():
        print(f"{result.measure.title}: {result.value:.4g} {result.measure.unit}", flush=True)
