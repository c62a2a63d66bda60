"""A host's image cache is disposable: it makes way for guests, and is tidied by an agent that fetches nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from cumulet.drivers.qemu import image_cache, rescue, room, snapshots, suspension
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.host import QemuHost, Snapshot
from cumulet.drivers.qemu.image_cache import ImageCache, _Incoming
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.driver import DriverError, Image
from cumulet.host.limits import USUAL_LIMITS as USUAL
from cumulet.testing.image_files import ImageFiles
from tests.drivers.qemu_host import qemu_host
from tests.drivers.test_room import disks, given, guest, image_at
from tests.fleet.test_unfit_machines import FACTS


def cached(state: Path) -> set[str]:
    return {path.name for path in (state / "images").iterdir()}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's folder, with room for guests' bytes where its cache has no image called old."""
    found = tmp_path / "host1" / "qemu"
    (found / "images").mkdir(parents=True)
    for name in ("old1", "old2"):
        (found / "images" / name).write_bytes(b"x" * 1000)

    def require(*_args: object, **_more: object) -> None:
        if any(name.startswith("old") for name in cached(found)):
            raise DriverError("DISK_FULL")

    monkeypatch.setattr(room, "require", require)
    return found


def host_on(state: Path) -> QemuHost:
    host = qemu_host(state)
    host.disks = disks(state)
    return host


async def make_disk(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    await host.disks.make_disk(record.guest, folder, None)


async def make_empty_disk(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    await host.disks.make_empty_disk(record.guest, folder, None)


async def grow(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    await host.disks.grow(record.guest, folder, None)


async def copy(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    await snapshots._copy(host, folder, record, Snapshot(image_id="image"))


async def rescue_it(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    image = Image(id="i", disk_format="raw", size_bytes=9, virtual_size_bytes=9, sha512="")
    await rescue._promise_disk(host, msgspec.structs.replace(record.guest, image=image), folder, record)


async def save(host: QemuHost, folder: GuestFolder, record: GuestRecord) -> None:
    os.close(await suspension._new_file(host, folder, record))


Verb = Callable[[QemuHost, GuestFolder, GuestRecord], Awaitable[None]]
VERBS: list[Verb] = [make_disk, make_empty_disk, grow, copy, rescue_it, save]


async def do(state: Path, verb: Verb) -> None:
    folder = GuestFolder(state / "guests", given(state, 1).server_id)
    record = folder.read()
    assert record is not None
    await verb(host_on(state), folder, record)


@pytest.mark.parametrize("verb", VERBS)
def test_images_that_nobody_uses_make_way_for_what_a_guest_needs(state: Path, verb: Verb) -> None:
    asyncio.run(do(state, verb))
    assert cached(state) == set()


@pytest.mark.parametrize("verb", VERBS)
def test_where_that_is_not_enough_it_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb) -> None:
    def require(*_args: object, **_more: object) -> None:
        raise DriverError("DISK_FULL")

    monkeypatch.setattr(room, "require", require)
    with pytest.raises(DriverError, match="DISK_FULL"):
        asyncio.run(do(state, verb))


def test_where_there_is_room_the_cache_stays(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "require", lambda *_args, **_more: None)
    asyncio.run(do(state, make_disk))
    assert cached(state) == {"old1", "old2"}


def test_an_image_that_is_held_or_fetched_makes_no_way(state: Path, tmp_path: Path) -> None:
    image, half = image_at(tmp_path / "image", b"x" * 1000), image_at(tmp_path / "half", b"y" * 1000)

    async def story() -> None:
        images = disks(state).images
        fetching = _Incoming(half, state / "images" / f"{half.sha512}.raw")
        async with images.hold("server", image) as used:
            for name in ("old1", "old2"):
                (state / "images" / name).write_bytes(b"x")
            fetching.write(b"y" * 500)
            await images.require_room(1, besides="")
            assert cached(state) == {used.name, fetching._new.name}
        fetching.discard()

    asyncio.run(story())


def test_a_guest_s_own_image_is_not_fetched_again(state: Path, tmp_path: Path) -> None:
    image = image_at(tmp_path / "image", b"x" * 1000)

    async def story() -> None:
        made = disks(state)
        source = made.images.source
        assert isinstance(source, ImageFiles)
        for _ in range(2):
            described = guest(1, image)
            folder = GuestFolder(state / "guests", described.server_id)
            folder.path.mkdir(parents=True)
            (state / "images" / "old3").write_bytes(b"x")
            await made.make_disk(described, folder, None)
        host, folder = host_on(state), GuestFolder(state / "guests", given(state, 1).server_id)
        host.disks, record = made, folder.read()
        assert record is not None
        (state / "images" / "old3").write_bytes(b"x")
        await rescue._promise_disk(host, msgspec.structs.replace(record.guest, image=image), folder, record)
        assert cached(state) == {f"{image.sha512}.raw"}
        assert source.fetched == [image.sha512]

    asyncio.run(story())


def test_nobody_begins_to_use_an_image_while_it_is_found_unused_and_removed(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_at(tmp_path / "image", b"x" * 1000)
    images = disks(state).images
    seen = list[tuple[str, bool]]()

    class Uses(Counter[Path]):
        def __setitem__(self, path: Path, times: int) -> None:
            if times > self[path]:
                seen.append(("used", images._claiming.locked()))
            super().__setitem__(path, times)

    unlink = Path.unlink

    def removes(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("old"):
            seen.append(("removed", images._claiming.locked()))
        unlink(path, missing_ok)

    async def story() -> None:
        async with images.hold("server", image):
            pass

    object.__setattr__(images, "_in_use", Uses())
    monkeypatch.setattr(Path, "unlink", removes)
    asyncio.run(story())
    assert seen == [("used", True), ("removed", True), ("removed", True)]


def test_an_agent_that_fetches_nothing_removes_images_that_have_become_old(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whatever keeps it from that one day does not keep it from that the next day."""
    tidy, problems, rounds = ImageCache.tidy, [OSError("Input/output error")], list[set[str]]()
    old = time.time() - (USUAL.image_cache_days + 1) * 86_400

    async def probed(_: Sandbox) -> None: ...

    async def story() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def round_(images: ImageCache, wanted_bytes: int = 0) -> None:
            if rounds and problems:
                raise problems.pop()
            tidy(images, wanted_bytes)
            rounds.append(cached(state))
            if len(rounds) == 1:
                os.utime(state / "images" / "old1", (old, old))
            else:
                loop.call_soon_threadsafe(ended.set)

        monkeypatch.setattr(ImageCache, "tidy", round_)
        driver = await QemuDriver.open(name="host1", state=state, images=ImageFiles(), facts=FACTS)
        assert rounds == [{"old1", "old2"}], "at its start, when both are new"
        async with asyncio.timeout(30.0):
            await ended.wait()
        await driver.close()
        assert driver._tidying is not None
        await asyncio.wait([driver._tidying])
        assert driver._tidying.cancelled()

    monkeypatch.setattr(Sandbox, "probe", probed)
    monkeypatch.setattr(image_cache, "TIDY_SECONDS", 0.0)
    monkeypatch.setattr("cumulet.drivers.qemu.host.AGAIN_SECONDS", 0.0)
    asyncio.run(story())
    assert rounds[:2] == [{"old1", "old2"}, {"old2"}]
