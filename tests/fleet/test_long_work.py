"""Work on much data has the time that it needs, as long as its host is there. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from cumulet.drivers.qemu import room
from cumulet.drivers.qemu.disks import Disks
from cumulet.drivers.qemu.image_cache import ImageCache
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.fleet.hosts import COMMAND_SECONDS, MOST_UNANSWERED, QUESTION_SECONDS, Hosts
from cumulet.fleet.nats_server import LONGEST_ANSWER_SECONDS
from cumulet.host import disk_messages as disk
from cumulet.host import messages as m
from cumulet.host.driver import DriverError, Guest, Image
from cumulet.host.patience import LEAST_BYTES_PER_SECOND, LONGEST_WORK_SECONDS, WORK_SECONDS, seconds_for
from cumulet.testing import Client
from cumulet.testing.simulation.virtual_time import VirtualLoop
from tests.api.test_compute_servers import create

T = TypeVar("T")
GIB = 1 << 30
SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"
IMAGE = Image(id="image", disk_format="qcow2", size_bytes=10 * GIB, virtual_size_bytes=50 * GIB, sha512="")
GUEST = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=50, image=IMAGE)
NEEDED = 60 * GIB / LEAST_BYTES_PER_SECOND
NAMED = {"server_id": SERVER, "operation_id": "boot", "generation": 2, "step": 0}
MAKES_A_DISK = [m.Create(**NAMED, guest=GUEST), disk.Rescue(**NAMED, guest=GUEST)]  # type: ignore[arg-type]


class Busy:
    """A host at one command, for so long. It answers questions until it is gone."""

    def __init__(self, *, seconds: float, gone_at: float = float("inf")) -> None:
        self._seconds = seconds
        self._gone_at = gone_at

    async def send(self, message: m.Message[T]) -> T:
        loop = asyncio.get_running_loop()
        if isinstance(message, m.Command):
            await asyncio.sleep(self._seconds)
        elif loop.time() < self._gone_at:
            raise m.VerbFailed("it says nothing of use, and is there")
        if loop.time() >= self._gone_at:
            await asyncio.Event().wait()
        return None  # type: ignore[return-value]

    async def close(self) -> None: ...


def told(host: Busy, message: m.Message[object], work_seconds: float | None = None) -> float:
    """Seconds until the host has done it."""

    async def story() -> float:
        hosts = Hosts()
        hosts.add("host1", host)
        loop = asyncio.get_running_loop()
        try:
            await hosts.send("host1", message, work_seconds=work_seconds)
        finally:
            took.append(loop.time())
            assert len(asyncio.all_tasks()) == 1, "who watched has ended"
        return loop.time()

    took.clear()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())


took: list[float] = []


@pytest.mark.parametrize("command", MAKES_A_DISK, ids=["create", "rescue"])
def test_a_large_image_has_the_time_that_it_needs(command: m.Command[object]) -> None:
    assert told(Busy(seconds=NEEDED), command) == NEEDED
    with pytest.raises(m.HostUnreachable, match="did not answer"):
        told(Busy(seconds=2 * NEEDED), command)
    assert took == [COMMAND_SECONDS + WORK_SECONDS + NEEDED]


@pytest.mark.parametrize("command", MAKES_A_DISK, ids=["create", "rescue"])
@pytest.mark.parametrize("gone_at", [0.0, 45.0, NEEDED / 2])
def test_a_host_that_is_gone_is_found_out_as_soon_as_before(command: m.Command[object], gone_at: float) -> None:
    with pytest.raises(m.HostUnreachable, match="did not answer"):
        told(Busy(seconds=NEEDED, gone_at=gone_at), command)
    assert took[0] <= max(gone_at, COMMAND_SECONDS / 2) + 2 * (MOST_UNANSWERED + 1) * QUESTION_SECONDS
    assert took[0] <= max(gone_at, 0.0) + COMMAND_SECONDS


def test_other_commands_have_as_long_as_before() -> None:
    with pytest.raises(m.HostUnreachable, match=r"did not answer Start in 120 s"):
        told(Busy(seconds=2 * COMMAND_SECONDS), m.Start(**NAMED))  # type: ignore[arg-type]
    assert took == [COMMAND_SECONDS]


def test_no_work_has_more_than_half_a_day() -> None:
    assert seconds_for(1 << 60) == LONGEST_WORK_SECONDS
    assert LONGEST_WORK_SECONDS + COMMAND_SECONDS <= LONGEST_ANSWER_SECONDS, "the bus lets it answer for so long"


class Hangs:
    """A source whose images do not come to an end."""

    async def stream(self, image: Image) -> AsyncGenerator[bytes, None]:
        while True:
            await asyncio.sleep(60.0)
            yield b""


def test_a_host_gives_up_before_it_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_place(function: Callable[..., T], *args: object) -> T:
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", in_place)
    monkeypatch.setattr(room, "require", lambda *_args, **_options: None)
    image = msgspec.structs.replace(IMAGE, sha512="a" * 128)
    guest = msgspec.structs.replace(GUEST, image=image)
    folder = GuestFolder(tmp_path / "guests", SERVER)
    folder.path.mkdir(parents=True)
    folder.make()

    cache = ImageCache(folder=tmp_path / "images", source=Hangs())
    disks = Disks(images=cache, qemu_img="qemu-img", sandbox=Sandbox("host1"))

    async def story() -> None:
        for make in (disks.make_disk, disks.make_rescue_disk):
            began = asyncio.get_running_loop().time()
            with pytest.raises(DriverError, match="TOO_SLOW"):
                await make(guest, folder, None)
            assert asyncio.get_running_loop().time() == began + WORK_SECONDS + NEEDED

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())
    assert not list((tmp_path / "images").iterdir())


def test_to_save_and_to_load_memory_has_the_time_that_it_needs(member: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float | None]] = []
    send = Hosts.send

    async def noted(self: Hosts, host: str, message: m.Message[T], **options: float | None) -> T:
        if isinstance(message, m.Command):
            asked.append((m.name_of(type(message)), options.get("work_seconds")))
        return await send(self, host, message, **options)

    server = create(member)["id"]
    monkeypatch.setattr(Hosts, "send", noted)
    for action, status in (("suspend", "SUSPENDED"), ("resume", "ACTIVE"), ("pause", "PAUSED")):
        assert member.action(server, {action: None}).status == 202
        member.wait_for_status(server, status)
    memory = member.server(server)["flavor"]["ram"] << 20
    assert asked == [("suspend", seconds_for(memory)), ("resume", seconds_for(memory)), ("pause", None)]
