"""Real guests: two hosts of this machine, one tiny guest that is booted once and then resumed for each test."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import QemuFacts, QemuMissing, probe
from cumulet.host.driver import (
    DriverError,
    Guest,
    GuestState,
    Image,
    MigrationParameters,
    MigrationPhase,
    MigrationProgress,
)
from cumulet.host.images import ImageSink
from cumulet.image import tiny
from cumulet.testing.image_files import ImageFiles

PARAMETERS = MigrationParameters(bandwidth_mib_s=1024, downtime_limit_ms=300, copy_disk=True)
SLOW = MigrationParameters(bandwidth_mib_s=4, downtime_limit_ms=1, copy_disk=True)
PATIENCE_SECONDS = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.qemu)


@pytest.fixture(scope="session")
def facts() -> QemuFacts:
    try:
        return asyncio.run(probe())
    except QemuMissing as missing:
        pytest.skip(f"QEMU: {missing}")


@pytest.fixture(scope="session")
def image() -> Image:
    reason = tiny.available()
    if reason is not None:
        pytest.skip(f"tiny image: {reason}")
    path = tiny.build()
    content = path.read_bytes()
    return Image(
        id=str(uuid.uuid4()),
        disk_format="qcow2",
        size_bytes=len(content),
        virtual_size_bytes=32 << 20,
        sha512=hashlib.sha512(content).hexdigest(),
    )


def guest_of(image: Image, *, user_data: str = "", memory_mib: int = 128) -> Guest:
    return Guest(
        server_id=str(uuid.uuid4()),
        name="guest; rm -rf $HOME,id=x",
        vcpus=1,
        memory_mib=memory_mib,
        disk_gib=1,
        image=image,
        user_data=base64.b64encode(user_data.encode()).decode(),
    )


@dataclass(frozen=True, kw_only=True)
class Template:
    """A guest that was booted, has ticked, and was suspended: what `Rig.resumed` copies."""

    guest: Guest
    guests: Path


@pytest.fixture(scope="session")
def template(facts: QemuFacts, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    base = tmp_path_factory.mktemp("template")

    async def make() -> Template:
        driver = await QemuDriver.open(
            name="template", state=base / "state", images=ImageFiles(tiny.build()), facts=facts
        )
        guest = await driver.create(guest_of(image, user_data="disk_writer=1\ndirty_mib_s=20\n"))
        await until(lambda: printed(driver, guest, b"seq 5\r"), "the guest boots and writes")
        await driver.suspend(guest.server_id)
        await driver.close()
        return Template(guest=guest, guests=base / "state" / "guests")

    made = asyncio.run(make())
    yield made

    async def remove() -> None:
        driver = await QemuDriver.open(name="template", state=base / "state", images=ImageFiles(), facts=facts)
        await driver.destroy(made.guest.server_id)
        await driver.close()

    asyncio.run(remove())


class Rig:
    """Two hosts, and what tests do with them."""

    def __init__(self, base: Path, facts: QemuFacts, template: Template) -> None:
        self.base = base
        self.facts = facts
        self.template = template
        self.images = ImageFiles(tiny.build())
        self.sink: ImageSink | None = None
        self.guest = template.guest
        self.id = template.guest.server_id

    async def open(self, name: str, *, listen_seconds: float = 600.0) -> QemuDriver:
        """The driver of a host; opened again, it is the agent after a restart."""
        return await QemuDriver.open(
            name=name,
            state=self.base / name,
            images=self.images,
            sink=self.sink,
            facts=self.facts,
            listen_seconds=listen_seconds,
        )

    async def resumed(self, name: str = "host1") -> QemuDriver:
        """A host with the ticking guest on it."""
        target = self.base / name / "guests" / self.id
        source = self.template.guests / self.id
        await asyncio.to_thread(shutil.copytree, source, target, ignore=shutil.ignore_patterns("*.sock"))
        for path in source.rglob("*"):
            copied = target / path.relative_to(source)
            if copied.exists():
                os.chown(copied, path.stat().st_uid, path.stat().st_gid)
        driver = await self.open(name)
        await driver.resume(self.id)
        return driver

    def process(self, name: str) -> int:
        """The number of the guest's QEMU process on a host."""
        note = msgspec.json.decode((self.base / name / "guests" / self.id / "process.json").read_bytes())
        assert isinstance(note["pid"], int)
        return note["pid"]

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.process(name), number)

    async def remove_all(self) -> None:
        for name in ("host1", "host2"):
            if (self.base / name / "guests").exists():
                driver = await self.open(name)
                for report in await driver.guests():
                    await driver.destroy(report.server_id)
                await driver.close()


@pytest.fixture
def rig(tmp_path: Path, facts: QemuFacts, template: Template) -> Iterator[Rig]:
    made = Rig(tmp_path, facts, template)
    yield made
    asyncio.run(made.remove_all())


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Ask again until it holds: for what a guest does by itself, which tells nobody."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        if loop.time() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.05)


async def printed(driver: QemuDriver, guest: Guest, words: bytes) -> bool:
    return words in await driver.console_output(guest.server_id, max_bytes=1 << 20)


async def newest(driver: QemuDriver, server_id: str, word: bytes) -> int:
    """The newest number the guest has printed after `word` (0: none)."""
    numbers = [0]
    for line in (await driver.console_output(server_id, max_bytes=1 << 20)).split(b"\n"):
        parts = line.split()
        if len(parts) >= 2 and parts[0] == word and parts[1].isdigit() and line.endswith(b"\r"):
            numbers.append(int(parts[1]))
    return max(numbers)


async def runs_on(driver: QemuDriver, server_id: str) -> None:
    """The guest is alive: it prints new ticks."""
    assert await driver.observe(server_id) is GuestState.RUNNING
    before = await newest(driver, server_id, b"tick")

    async def more() -> bool:
        return await newest(driver, server_id, b"tick") > before

    await until(more, "new ticks", 15.0)


async def follow(driver: QemuDriver, server_id: str, until_phase: MigrationPhase | None = None) -> MigrationProgress:
    """Watch a copy until it has ended, or is in the phase given."""
    seen = MigrationPhase.NONE
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            progress = await driver.copy_progress(server_id, wait_seconds=5.0, seen=seen)
            seen = progress.phase
            if seen is until_phase or seen.ended:
                return progress


async def gone(driver: QemuDriver, server_id: str) -> None:
    """The guest's process on this host ends by itself."""

    async def ended() -> bool:
        with suppress(DriverError):
            return await driver.observe(server_id) in (GuestState.CRASHED, GuestState.ABSENT)
        return False

    await until(ended, "the process ends", 20.0)


class Wire:
    """A network between two hosts that can be slow, and be cut without either end being told."""

    def __init__(self, port: int, *, bytes_s: float | None = None) -> None:
        self._target = port
        self._bytes_s = bytes_s
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        self._whole.set()

    def hurry(self) -> None:
        """From now on it is as fast as it can be."""
        self._bytes_s = None

    async def break_off(self) -> None:
        """Both ends are told: their connections are reset."""
        await self._stop()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(16_384):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
                if self._bytes_s is not None:
                    await asyncio.sleep(len(data) / self._bytes_s)
        except OSError:
            pass
        finally:
            sink.close()

    async def _stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wire(port: int, *, bytes_s: float | None = None) -> AsyncIterator[Wire]:
    made = Wire(port, bytes_s=bytes_s)
    server = await asyncio.start_server(made._connected, "127.0.0.1", 0, limit=65_536)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made._stop()
