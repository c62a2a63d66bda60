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
import socket
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cumulet.drivers.qemu import move_authority, sockets
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import probe
from cumulet.host.driver import Guest, Image, MigrationParameters, MigrationPhase
from cumulet.image import tiny
from cumulet.testing.image_files import ImageFiles
from cumulet.testing.moving import prepared

PARAMETERS = MigrationParameters(bandwidth_mib_s=1024, downtime_limit_ms=300, copy_disk=True)
USER_DATA = b"tick_ms=10\nfill_mib=40\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move, from the first command to the guest running on the destination."""

    total_s: float
    gap_ms: float
    qemu_downtime_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians. What the driver adds to raw QMP is the difference of the medians."""

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

    async def hand_over(self, name: str, handed: socket.socket) -> None:
        """QEMU has no network and makes no sockets, so it is handed those that it needs."""
        message = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}).encode() + b"\n"
        with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as monitor:
            socket.send_fds(monitor, [message], [handed.fileno()])
        while not {"return", "error"} & json.loads(await self._reader.readline()).keys():
            pass

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

    async def listen(self, monitor: Path) -> None:
        """Switch a guest's console to a socket and time what comes out of it."""
        ours, theirs = socket.socketpair()
        async with Monitor.open(monitor) as ask:
            with theirs:
                await ask.hand_over("ticks", theirs)
            address = {"type": "fd", "data": {"str": "ticks"}}
            await ask(
                "chardev-change", id="console0", backend={"type": "socket", "data": {"addr": address, "server": False}}
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        self._tasks.append(asyncio.create_task(self._time(reader, writer)))

    async def _time(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while line := await reader.readline():
                if line.startswith(b"tick"):
                    self._times.append(time.monotonic())
                    self._arrived.set()

    async def after(self, when: float, count: int, *, seconds: float = 120.0) -> None:
        async with asyncio.timeout(seconds):
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


async def move_by_driver(guest: Guest, source: Place, destination: Place) -> Move:
    ticks = Ticks()
    await ticks.listen(source.monitor(guest))
    begun = time.monotonic()
    endpoint = await prepared(source.driver, destination.driver, guest, PARAMETERS)
    ready = time.monotonic()
    await ticks.listen(destination.monitor(guest))
    observing = time.monotonic() - ready
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
    gap = ticks.worst_gap_ms(ready + observing)
    return Move(total_s=ended - begun - observing, gap_ms=gap, qemu_downtime_ms=progress.downtime_ms)


async def move_by_qmp(
    guest: Guest, source: Place, destination: Place, *, switch: Callable[[], Awaitable[None]] | None = None
) -> Move:
    """The same by hand. Only starting the destination's process is the driver's: it must be the same command.

    `switch`: what has to be done to its network before the guest runs on.
    """
    ticks = Ticks()
    await ticks.listen(source.monitor(guest))
    begun = time.monotonic()
    authority = move_authority.new_authority("source", "raw")
    endpoint = await destination.driver.prepare_incoming(
        guest, source=move_authority.peer(authority, source.name), parameters=PARAMETERS
    )
    ready = time.monotonic()
    await ticks.listen(destination.monitor(guest))
    lent = source.folder(guest) / "vm" / "raw-tls"
    lent.mkdir(exist_ok=True)
    own = move_authority.lent(authority, "source", move_authority.LENT)
    (lent / "ca-cert.pem").write_text(endpoint.peer.authority)
    (lent / "client-cert.pem").write_bytes(own.certificate)
    (lent / "client-key.pem").write_bytes(own.key)
    for path in (lent, *lent.iterdir()):
        owner = os.stat(source.folder(guest) / "vm")
        os.chown(path, owner.st_uid, owner.st_gid)
    hostname = move_authority.name_of("destination", "raw")
    observing = time.monotonic() - ready
    async with Monitor.open(source.monitor(guest)) as ask, Monitor.open(destination.monitor(guest)) as ask_destination:
        await ask(
            "object-add",
            qom_type="tls-creds-x509",
            id="raw-tls",
            endpoint="client",
            dir="/vm/raw-tls" if os.geteuid() == 0 else str(lent),
            verify_peer=True,
            sanity_check=False,
            priority="NORMAL:-VERS-ALL:+VERS-TLS1.3",
        )
        names = ("events", "return-path", "late-block-activate", "pause-before-switchover")
        await ask("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])
        await ask(
            "migrate-set-parameters",
            max_bandwidth=PARAMETERS.bandwidth_mib_s << 20,
            downtime_limit=PARAMETERS.downtime_limit_ms,
            tls_creds="raw-tls",
            tls_hostname=hostname,
        )
        assert endpoint.nbd_port is not None
        with await sockets.connected(endpoint.address, endpoint.nbd_port) as connection:
            await ask.hand_over("raw-disk", connection)
        await ask(
            "blockdev-add",
            driver="nbd",
            node_name="raw-target",
            server={"type": "fd", "str": "raw-disk"},
            export="disk0",
            tls_creds="raw-tls",
            tls_hostname=hostname,
        )
        await ask("blockdev-mirror", job_id="raw", device="disk0", target="raw-target", sync="full")
        await ask.event("BLOCK_JOB_READY")
        with await sockets.connected(endpoint.address, endpoint.port) as connection:
            await ask.hand_over("raw-memory", connection)
        await ask("migrate", uri="fd:raw-memory")
        await ask.event("MIGRATION", status="pre-switchover")
        await ask("block-job-cancel", device="raw")
        await ask.event("BLOCK_JOB_COMPLETED")
        await ask("migrate-continue", state="pre-switchover")
        await ask.event("MIGRATION", status="completed")
        await ask_destination("nbd-server-stop")
        if switch is not None:
            await switch()
        await ask_destination("cont")
        ended = time.monotonic()
        answer = await ask("query-migrate")
    await ticks.after(ended, 20)
    ticks.stop()
    await destination.driver.resume_destination(guest.server_id)
    await source.driver.destroy(guest.server_id)
    downtime = answer.get("downtime") if isinstance(answer, dict) else None
    gap = ticks.worst_gap_ms(ready + observing)
    return Move(total_s=ended - begun - observing, gap_ms=gap, qemu_downtime_ms=downtime)


async def measure(*, rounds: int = 5, memory_mib: int = 256, folder: Path | None = None) -> Result:
    """Move the same guest `rounds` times each way, by turns. Needs QEMU and the tiny image; cleans up after itself."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="cumulet-bench-", dir=folder))
    facts = await probe()
    places = []
    for name in ("host1", "host2"):
        driver = await QemuDriver.open(name=name, state=base / name, images=ImageFiles(tiny.build()), facts=facts)
        places.append(Place(name, base / name, driver))
    moves: dict[str, list[Move]] = {"raw": [], "driver": []}
    guest = tiny_guest(memory_mib)
    try:
        guest = await places[0].driver.create(guest)
        ticks = Ticks()
        await ticks.listen(places[0].monitor(guest))
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


def tiny_guest(memory_mib: int, user_data: bytes = USER_DATA) -> Guest:
    """It prints a tick every 10 ms unless its user data say otherwise."""
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
        user_data=base64.b64encode(user_data).decode(),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(measure())), indent=2))
