"""One guest, moved to and fro by raw QMP and by the driver in turn: what the driver adds in time and in standstill.

Both ways use the same command line, TLS, disk mirror and limits. The standstill is seen from outside: the guest prints
a tick every 10 ms, its console is switched to a socket, and arrivals are timed there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cumulet.ca import CertificateAuthority
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import probe
from cumulet.host.driver import Guest, Image, MigrationParameters, MigrationPhase
from cumulet.image import tiny
from cumulet.testing.image_files import ImageFiles

PARAMETERS = MigrationParameters(bandwidth_mib_s=1024, downtime_limit_ms=300, copy_disk=True)
_USER_DATA = b"tick_ms=10\nfill_mib=40\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move, from the first command to the guest running on the destination."""

    total_s: float
    gap_ms: float
    qemu_downtime_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians; what the driver has more than raw QMP is the difference of medians."""

    raw_total_s: float
    raw_gap_ms: float
    driver_total_s: float
    driver_gap_ms: float
    more_total_s: float
    more_gap_ms: float
    moves: int


class Monitor:
    """As little QMP as a script needs, on a guest's second monitor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Monitor]:
        folder = os.open(path.parent, os.O_PATH)
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}", limit=1 << 24)
        finally:
            os.close(folder)
        monitor = cls(reader, writer)
        await reader.readline()
        await monitor("qmp_capabilities")
        try:
            yield monitor
        finally:
            writer.close()

    async def __call__(self, command: str, **arguments: object) -> object:
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._writer.write(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            answer = json.loads(await self._reader.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")

    async def event(self, name: str, **wanted: object) -> None:
        while True:
            message = json.loads(await self._reader.readline())
            if message.get("event") == name and wanted.items() <= message.get("data", {}).items():
                return


class Ticks:
    """Times at which the guest's ticks arrive, from both hosts' consoles."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._arrived = asyncio.Event()

    async def listen(self, monitor: Path, place: Path) -> None:
        """Switch a guest's console to a socket and time what comes out of it."""
        address = {"type": "unix", "data": {"path": f"/vm/{place.name}" if os.geteuid() == 0 else str(place)}}
        async with Monitor.open(monitor) as ask:
            backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
            await ask("chardev-change", id="console0", backend=backend)
        folder = os.open(place.parent, os.O_PATH)
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{place.name}")
        finally:
            os.close(folder)
        self._tasks.append(asyncio.create_task(self._time(reader, writer)))

    async def _time(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while line := await reader.readline():
                if line.startswith(b"tick"):
                    self._times.append(time.monotonic())
                    self._arrived.set()

    async def after(self, when: float, count: int) -> None:
        async with asyncio.timeout(120):
            while sum(stamp > when for stamp in self._times) < count:
                self._arrived.clear()
                await self._arrived.wait()

    def worst_gap_ms(self, start: float) -> float:
        times = sorted(stamp for stamp in self._times if stamp > start)
        return 1000 * max(later - earlier for earlier, later in itertools.pairwise(times))

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


@dataclass(slots=True)
class Place:
    """A host of the benchmark."""

    name: str
    state: Path
    driver: QemuDriver

    def folder(self, guest: Guest) -> Path:
        return self.state / "guests" / guest.server_id

    def monitor(self, guest: Guest) -> Path:
        return self.folder(guest) / "monitor2.sock"

    def console(self, guest: Guest) -> Path:
        """A place for a socket, a new one each time: QEMU removes the old one only after it has made the new one."""
        return self.folder(guest) / "vm" / f"ticks-{time.monotonic_ns()}.sock"


async def move_by_driver(guest: Guest, source: Place, destination: Place) -> Move:
    ticks = Ticks()
    await ticks.listen(source.monitor(guest), source.console(guest))
    begun = time.monotonic()
    endpoint = await destination.driver.prepare_incoming(guest, source_host=source.name, parameters=PARAMETERS)
    prepared = time.monotonic()
    await ticks.listen(destination.monitor(guest), destination.console(guest))
    observing = time.monotonic() - prepared
    await source.driver.start_copy(guest.server_id, endpoint, PARAMETERS)
    seen = MigrationPhase.NONE
    while seen is not MigrationPhase.COMPLETED:
        progress = await source.driver.copy_progress(guest.server_id, wait_seconds=5.0, seen=seen)
        seen = progress.phase
        if seen.ended and seen is not MigrationPhase.COMPLETED:
            raise RuntimeError(f"the move ended in {progress}")
    await destination.driver.resume_destination(guest.server_id)
    ended = time.monotonic()
    await ticks.after(ended, 20)
    ticks.stop()
    await source.driver.destroy(guest.server_id)
    gap = ticks.worst_gap_ms(prepared + observing)
    return Move(total_s=ended - begun - observing, gap_ms=gap, qemu_downtime_ms=progress.downtime_ms)


async def move_by_qmp(guest: Guest, source: Place, destination: Place) -> Move:
    """The same by hand. Only starting the destination's process is the driver's: it must be the same command."""
    ticks = Ticks()
    await ticks.listen(source.monitor(guest), source.console(guest))
    begun = time.monotonic()
    endpoint = await destination.driver.prepare_incoming(guest, source_host=source.name, parameters=PARAMETERS)
    prepared = time.monotonic()
    await ticks.listen(destination.monitor(guest), destination.console(guest))
    lent = source.folder(guest) / "vm" / "raw-tls"
    shutil.copytree(source.state.parent / "ca" / "hosts" / source.name, lent)
    for path in (lent, *lent.iterdir()):
        owner = os.stat(source.folder(guest) / "vm")
        os.chown(path, owner.st_uid, owner.st_gid)
    observing = time.monotonic() - prepared
    async with Monitor.open(source.monitor(guest)) as ask, Monitor.open(destination.monitor(guest)) as ask_destination:
        await ask(
            "object-add",
            qom_type="tls-creds-x509",
            id="raw-tls",
            endpoint="client",
            dir="/vm/raw-tls" if os.geteuid() == 0 else str(lent),
            verify_peer=True,
            priority="NORMAL:-VERS-ALL:+VERS-TLS1.3",
        )
        names = ("events", "return-path", "late-block-activate", "pause-before-switchover")
        await ask("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])
        await ask(
            "migrate-set-parameters",
            max_bandwidth=PARAMETERS.bandwidth_mib_s << 20,
            downtime_limit=PARAMETERS.downtime_limit_ms,
            tls_creds="raw-tls",
            tls_hostname=endpoint.tls_hostname,
        )
        await ask(
            "blockdev-add",
            driver="nbd",
            node_name="raw-target",
            server={"type": "inet", "host": endpoint.address, "port": str(endpoint.nbd_port)},
            export="disk0",
            tls_creds="raw-tls",
            tls_hostname=endpoint.tls_hostname,
        )
        await ask("blockdev-mirror", job_id="raw", device="disk0", target="raw-target", sync="full")
        await ask.event("BLOCK_JOB_READY")
        await ask("migrate", uri=f"tcp:{endpoint.address}:{endpoint.port}")
        await ask.event("MIGRATION", status="pre-switchover")
        await ask("block-job-cancel", device="raw")
        await ask.event("BLOCK_JOB_COMPLETED")
        await ask("migrate-continue", state="pre-switchover")
        await ask.event("MIGRATION", status="completed")
        await ask_destination("nbd-server-stop")
        await ask_destination("cont")
        ended = time.monotonic()
        answer = await ask("query-migrate")
    await ticks.after(ended, 20)
    ticks.stop()
    await destination.driver.resume_destination(guest.server_id)
    await source.driver.destroy(guest.server_id)
    downtime = answer.get("downtime") if isinstance(answer, dict) else None
    gap = ticks.worst_gap_ms(prepared + observing)
    return Move(total_s=ended - begun - observing, gap_ms=gap, qemu_downtime_ms=downtime)


async def measure(*, rounds: int = 5, memory_mib: int = 256, folder: Path | None = None) -> Result:
    """Move the same guest `rounds` times each way, by turns. Needs QEMU and the tiny image; cleans up after itself."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="cumulet-bench-", dir=folder))
    facts = await probe()
    authority = CertificateAuthority.load_or_create(base / "ca")
    places = []
    for name in ("host1", "host2"):
        driver = await QemuDriver.open(
            name=name, state=base / name, tls=authority.issue_host(name), images=ImageFiles(tiny.build()), facts=facts
        )
        places.append(Place(name, base / name, driver))
    moves: dict[str, list[Move]] = {"raw": [], "driver": []}
    guest = _guest(memory_mib)
    try:
        guest = await places[0].driver.create(guest)
        ticks = Ticks()
        await ticks.listen(places[0].monitor(guest), places[0].console(guest))
        await ticks.after(0.0, 20)
        ticks.stop()
        here, there = places
        for _ in range(rounds):
            moves["raw"].append(await move_by_qmp(guest, here, there))
            moves["driver"].append(await move_by_driver(guest, there, here))
    finally:
        for place in places:
            await place.driver.destroy(guest.server_id)
            await place.driver.close()
        shutil.rmtree(base)
    raw_total, driver_total = (statistics.median(move.total_s for move in moves[how]) for how in ("raw", "driver"))
    raw_gap, driver_gap = (statistics.median(move.gap_ms for move in moves[how]) for how in ("raw", "driver"))
    return Result(
        raw_total_s=raw_total,
        raw_gap_ms=raw_gap,
        driver_total_s=driver_total,
        driver_gap_ms=driver_gap,
        more_total_s=driver_total - raw_total,
        more_gap_ms=driver_gap - raw_gap,
        moves=rounds,
    )


def _guest(memory_mib: int) -> Guest:
    path = tiny.build()
    content = path.read_bytes()
    image = Image(
        id=str(uuid.uuid4()),
        disk_format="qcow2",
        size_bytes=len(content),
        virtual_size_bytes=32 << 20,
        sha512=hashlib.sha512(content).hexdigest(),
    )
    return Guest(
        server_id=str(uuid.uuid4()),
        name="benchmark",
        vcpus=1,
        memory_mib=memory_mib,
        disk_gib=1,
        image=image,
        user_data=base64.b64encode(_USER_DATA).decode(),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(measure())), indent=2))
