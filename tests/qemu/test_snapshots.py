"""Images of real guests' disks: of one moment, while the guest writes on; sent whole; nothing left of them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from cumulet.confined import qemu_img, tools
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.guest_files import SNAPSHOT
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.driver import DriverError, GuestState
from cumulet.image.inspection import Inspection
from cumulet.image.tiny_init import RECORD_AREA_OFFSET, RECORD_BYTES, RECORD_COUNT
from tests.drivers.contract import tells_how_far_a_copy_is

from .conftest import Rig, newest, runs_on, until

IMAGE_ID = str(uuid.uuid4())


@dataclass
class Sink:
    """`host.images.ImageSink` that keeps what it gets, or waits for ever, or refuses."""

    path: Path
    hold: asyncio.Event | None = None
    refuses: bool = False
    got: list[str] = field(default_factory=list)

    async def send(self, image_id: str, size_bytes: int, pieces: AsyncIterator[bytes]) -> None:
        if self.refuses:
            raise DriverError("IMAGE_NOT_TAKEN: planted")
        if self.hold is not None:
            await self.hold.wait()
        inspection = Inspection("qcow2", virtual_size_limit=1 << 40)
        with self.path.open("wb") as file:
            async for piece in pieces:
                inspection.feed(piece)
                file.write(piece)
            assert file.tell() == size_bytes
        assert inspection.finish() == 1 << 30
        self.got.append(image_id)


async def made(driver: QemuDriver, server_id: str, image_id: str = IMAGE_ID) -> SnapshotProgress:
    await driver.begin_snapshot(server_id, image_id=image_id)
    seen = SnapshotProgress(phase=SnapshotPhase.COPYING)
    while not seen.phase.ended:
        seen = await driver.snapshot_progress(server_id, image_id=image_id, wait_seconds=20.0, seen=seen.phase)
    return seen


def left(rig: Rig) -> bool:
    return (rig.base / "host1" / "guests" / rig.id / "vm" / SNAPSHOT).exists()


def records(image: Path) -> list[int]:
    """The numbers of the records on a disk, as its guest wrote and fsynced them; all must be whole."""
    raw = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "check", "-q", str(image)], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image), str(raw)], check=True)
    with raw.open("rb") as file:
        file.seek(RECORD_AREA_OFFSET)
        area = file.read(RECORD_BYTES * RECORD_COUNT)
    raw.unlink()
    found = []
    for at in range(0, len(area), RECORD_BYTES):
        record = area[at : at + RECORD_BYTES]
        if record.strip(b"\0"):
            whole = re.fullmatch(rb"seq (\d+) \S+ *\n", record)
            assert whole is not None, record
            found.append(int(whole[1]))
    return sorted(found)


def with_sink(rig: Rig, story: Callable[[QemuDriver, Sink], Awaitable[None]]) -> None:
    async def run() -> None:
        sink = Sink(rig.base / "image.qcow2")
        rig.sink = sink
        driver = await rig.resumed()
        await story(driver, sink)
        assert not left(rig)
        await driver.close()

    asyncio.run(run())


def test_an_image_is_of_the_moment_it_was_asked_for_and_the_guest_writes_on(rig: Rig) -> None:
    async def story(driver: QemuDriver, sink: Sink) -> None:
        before = await newest(driver, rig.id, b"seq")
        sink.hold = asyncio.Event()
        await driver.begin_snapshot(rig.id, image_id=IMAGE_ID)
        sending = await driver.snapshot_progress(
            rig.id, image_id=IMAGE_ID, wait_seconds=60.0, seen=SnapshotPhase.COPYING
        )
        assert sending.phase is SnapshotPhase.SENDING, sending
        copied = await newest(driver, rig.id, b"seq")

        async def written_on() -> bool:
            return await newest(driver, rig.id, b"seq") > copied + 20

        await until(written_on, "the guest writes on")
        sink.hold.set()
        assert (await made(driver, rig.id)).phase is SnapshotPhase.DONE
        assert sink.got == [IMAGE_ID]
        found = records(sink.path)
        assert before <= found[-1] <= copied + 1, "what was on the disk when it was asked for, and nothing after it"
        assert found == list(range(found[0], found[-1] + 1)), "without a hole"
        await runs_on(driver, rig.id)

    with_sink(rig, story)


@pytest.mark.parametrize("how", ["paused", "suspended", "stopped"])
def test_an_image_of_a_guest_that_does_not_run(rig: Rig, how: str) -> None:
    async def story(driver: QemuDriver, sink: Sink) -> None:
        if how == "paused":
            await driver.pause(rig.id)
        elif how == "suspended":
            await driver.suspend(rig.id)
        else:
            await driver.stop(rig.id, grace_seconds=0.0)
        written = await newest(driver, rig.id, b"seq")
        assert (await made(driver, rig.id)).phase is SnapshotPhase.DONE
        assert records(sink.path)[-1] in (written, written + 1)
        assert await driver.observe(rig.id) is GuestState(how)
        if how == "suspended":
            await driver.resume(rig.id)
            await runs_on(driver, rig.id)

    with_sink(rig, story)


@pytest.mark.parametrize("readable", [True, False])
def test_how_far_the_copy_of_a_stopped_guests_disk_is_can_be_seen(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """Also where the agent may not read its tools' counters. The tool takes some seconds here."""
    convert = qemu_img.convert

    def slowly(program: str, **options: str) -> list[str]:
        command = convert(program, **options)
        return [*command[:2], "-r", str(1 << 20), *command[2:]]

    monkeypatch.setattr(qemu_img, "convert", slowly)
    monkeypatch.setattr(tools, "LOOK_SECONDS", 0.05)
    if not readable:
        monkeypatch.setattr(tools, "_bytes_moved", lambda _pid: 0)

    async def story(driver: QemuDriver, sink: Sink) -> None:
        await driver.stop(rig.id, grace_seconds=0.0)
        await tells_how_far_a_copy_is(driver, rig.id)
        assert sink.got == []

    with_sink(rig, story)


def test_one_that_is_refused_or_given_up_leaves_nothing(rig: Rig) -> None:
    async def story(driver: QemuDriver, sink: Sink) -> None:
        sink.refuses = True
        failed = await made(driver, rig.id)
        assert (failed.phase, failed.error) == (SnapshotPhase.FAILED, "IMAGE_NOT_TAKEN: planted")
        assert not left(rig)
        sink.refuses, sink.hold = False, asyncio.Event()
        await driver.begin_snapshot(rig.id, image_id=IMAGE_ID.replace("-4", "-5"))
        await driver.end_snapshot(rig.id)
        await driver.end_snapshot(rig.id)
        assert not left(rig)
        hypervisor = driver._host.running_hypervisor(rig.id)
        assert not {node for node in await hypervisor.block_nodes() if node.startswith("snapshot")}
        sink.hold = None
        assert (await made(driver, rig.id)).phase is SnapshotPhase.DONE
        await runs_on(driver, rig.id)

    with_sink(rig, story)


def test_an_agent_that_is_started_again_removes_what_its_predecessor_had_begun(rig: Rig) -> None:
    async def story() -> None:
        rig.sink = Sink(rig.base / "image.qcow2", hold=asyncio.Event())
        first = await rig.resumed()
        await first.begin_snapshot(rig.id, image_id=IMAGE_ID)
        await first.snapshot_progress(rig.id, image_id=IMAGE_ID, wait_seconds=60.0, seen=SnapshotPhase.COPYING)
        assert left(rig)
        await first.close()
        assert left(rig), "as after a crash"
        driver = await rig.open("host1")
        assert not left(rig)
        progress = await driver.snapshot_progress(rig.id, image_id=IMAGE_ID, wait_seconds=0.0, seen=SnapshotPhase.NONE)
        assert progress.phase is SnapshotPhase.NONE
        await runs_on(driver, rig.id)
        await driver.close()

    asyncio.run(story())


class BlockNode(msgspec.Struct):
    file: str
    cache: dict[str, bool]
    name: str = msgspec.field(name="node-name")


def test_no_copy_is_flushed_while_its_guest_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU closes the copy with the lock held that the guest's processors need, and would flush it there."""
    seen: list[bool] = []
    remove = Hypervisor.blockdev_del

    async def looked_at(hypervisor: Hypervisor, node: str) -> None:
        nodes = msgspec.convert(await hypervisor.ask("query-named-block-nodes"), list[BlockNode])
        copy = next(one for one in nodes if one.name == node)
        seen.extend(one.cache["no-flush"] for one in nodes if one.file == copy.file)
        await remove(hypervisor, node)

    monkeypatch.setattr(Hypervisor, "blockdev_del", looked_at)

    async def story(driver: QemuDriver, sink: Sink) -> None:
        assert (await made(driver, rig.id)).phase is SnapshotPhase.DONE

    with_sink(rig, story)
    assert seen == [True, True], "the image, and the file that it is in"
