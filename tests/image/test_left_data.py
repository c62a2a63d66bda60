"""What dead processes have left of image data is ended and removed; what lives is let alone."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import sqlalchemy as sa

from cumulet.conductor.findings import findings
from cumulet.db.engine import Database
from cumulet.errors import Gone
from cumulet.image import builtin, files, store
from cumulet.image.inspection import Inspection
from cumulet.image.left_data import LeftData, clear_alone
from cumulet.image.part import IMAGE_PART
from cumulet.image.uploads import Receiver
from cumulet.space import Promise

from .conftest import UNKNOWN, World
from .test_room import piecewise

_UPLOADER = """
import sys, time
from pathlib import Path
from cumulet.image.files import Upload
from cumulet.image.inspection import OpaqueContent
upload = Upload(Path(sys.argv[1]), sys.argv[2], OpaqueContent(size_limit=1 << 30))
print("under way", flush=True)
time.sleep(600)
"""


@contextmanager
def uploader(folder: Path, upload_id: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that is at an upload, and does not get on."""
    command = [sys.executable, "-c", _UPLOADER, str(folder), upload_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "under way\n"
            yield process
        finally:
            process.kill()


def looks(world: World) -> Callable[[], None]:
    """The reconciler looks once, each time."""
    reconciler = LeftData(db=world.cloud.db, clock=world.cloud.clock, settings=world.cloud.settings)
    return lambda: asyncio.run(reconciler.round())


@pytest.fixture
def look(world: World) -> Callable[[], None]:
    return looks(world)


def in_thread(work: Callable[[], None]) -> None:
    """For what runs an event loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def found(world: World) -> list[tuple[str, str, str]]:
    rows = world.cloud.db.read(lambda tx: tx.all(sa.select(findings).order_by(findings.c.id)))
    return [(row.finding, row.subject, row.done) for row in rows]


def begun(world: World, upload_id: str = "u1") -> str:
    """An image whose data comes, by its record; its id."""
    image_id, now_us = world.create()["id"], world.cloud.clock.now_us()
    assert world.cloud.db.write(lambda tx: store.begin_upload(tx, image_id, upload_id, 1, now_us))
    return str(image_id)


def test_the_upload_of_a_process_that_was_killed_ends_and_its_image_takes_data_again(world: World) -> None:
    look, image_id = looks(world), begun(world)
    with uploader(world.store, "u1") as process:
        for _ in range(3):
            look()
        process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            look()
        assert (world.show(image_id)["status"], found(world)) == ("saving", []), "a paused process goes on some day"
        assert world.files() == {f"{files.UPLOAD_FOLDER}/u1"}
        process.kill()
        process.wait()
        look()
        assert world.show(image_id)["status"] == "saving", "one look may come in a moment between its steps"
        look()
    assert world.show(image_id)["status"] == "queued"
    assert found(world) == [("upload-without-process", image_id, "ended: its image waits for data again")]
    look()
    assert world.files() == set()
    assert found(world)[1:] == [("file-without-image", "", "removed 1")]
    assert world.upload(image_id, b"again").status_code == 204
    look()
    assert world.files() == {image_id}


def test_an_upload_that_comes_slowly_is_never_taken_for_a_dead_one(world: World, look: Callable[[], None]) -> None:
    image = world.create()

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield b"\0" * 1000
            in_thread(look)

    assert piecewise(world, image["id"], pieces()) == 204
    look()
    assert (world.show(image["id"])["size"], found(world)) == (3000, [])


def test_an_upload_whose_file_grows_has_a_process_that_lives(world: World, look: Callable[[], None]) -> None:
    """It has no lock: of a version before, or on a file system without locks."""
    image_id = begun(world)
    files.prepare(world.store)
    file = world.store / files.UPLOAD_FOLDER / "u1"
    for length in range(1, 4):
        file.write_bytes(b"\0" * length)
        look()
    assert world.show(image_id)["status"] == "saving"
    look()
    assert world.show(image_id)["status"] == "queued"


def test_an_upload_goes_on_where_the_file_system_has_no_locks(
    world: World, look: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    image_id = world.active(b"the data")["id"]
    dead = begun(world)
    (world.store / files.UPLOAD_FOLDER / "u1").write_bytes(b"half")
    look()
    look()
    assert (world.show(image_id)["status"], world.show(dead)["status"]) == ("active", "queued")


def test_an_upload_that_was_ended_removes_nothing_of_the_next_one(world: World) -> None:
    """It had placed its data, and was paused before it could say so. The next one has placed its own meanwhile."""
    image_id, now_us = world.create()["id"], world.cloud.clock.now_us()

    async def story() -> bool:
        late = await Receiver.begin(world.cloud, image_id, cast(Promise, SimpleNamespace()), None, _always)
        world.cloud.db.write(lambda tx: store.end_upload(tx, image_id, late.upload_id, now_us, status="queued"))
        assert world.cloud.db.write(lambda tx: store.begin_upload(tx, image_id, "next", 1, now_us))
        return await world.cloud.db.write_async(late.give_up)

    assert not asyncio.run(story())
    assert world.show(image_id)["status"] == "saving"


def test_what_comes_with_the_cloud_has_its_record_before_its_files(
    world: World, look: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shared database a conductor may look meanwhile."""
    place = files.Upload.place

    def placed(upload: files.Upload, image_id: str, *, staged: bool = False) -> files.Written:
        in_thread(look)
        written = place(upload, image_id, staged=staged)
        in_thread(look)
        return written

    monkeypatch.setattr(files.Upload, "place", placed)
    db, clock, folder = world.cloud.db, world.cloud.clock, world.cloud.state_dir
    image_id = builtin.add_builtin_image(db, clock, folder, name="tiny", owner=None, source=None)
    look()
    assert (world.files(), found(world)) == ({image_id}, [])
    assert world.show(image_id)["status"] == "active"


def test_two_uploads_of_one_image_are_two(world: World, look: Callable[[], None]) -> None:
    """The first ended between two looks, and in each of them the record of one was there and its file was not."""
    image_id = begun(world, "u1")
    look()
    now_us = world.cloud.clock.now_us()
    world.cloud.db.write(lambda tx: store.end_upload(tx, image_id, "u1", now_us, status="queued"))
    assert world.cloud.db.write(lambda tx: store.begin_upload(tx, image_id, "u2", 1, now_us))
    look()
    assert world.show(image_id)["status"] == "saving"


@pytest.mark.parametrize("staged", [False, True])
def test_what_a_dead_upload_left_in_the_place_of_the_data_is_no_hindrance(
    world: World, look: Callable[[], None], staged: bool
) -> None:
    """It died between giving the file its name and recording that."""
    image_id, other_id = begun(world), world.active(b"other")["id"]
    place = files.place_of(world.store, image_id, staged=staged)
    place.write_bytes(b"what a dead upload has left")
    for _ in range(3):
        look()
    assert place.exists(), "only who has the image may remove it"
    last, headers = ("stage" if staged else "file"), {"Content-Type": "application/octet-stream"}
    answer = world.ask("member", "PUT", f"/images/{image_id}/{last}", content=b"the data", headers=headers)
    assert (answer.status_code, place.read_bytes()) == (204, b"the data")
    look()
    assert world.files() == {str(place.relative_to(world.store)), other_id}


def test_an_upload_that_was_taken_for_dead_removes_nobodys_data(world: World) -> None:
    """Its process was paused before it had a file, for longer than the upload was waited for."""
    image_id, now_us = world.create()["id"], world.cloud.clock.now_us()

    async def story() -> None:
        late = await Receiver.begin(world.cloud, image_id, cast(Promise, SimpleNamespace()), None, _always)
        world.cloud.db.write(lambda tx: store.end_upload(tx, image_id, late.upload_id, now_us, status="queued"))
        answer = await asyncio.to_thread(world.upload, image_id, b"the data")
        assert answer.status_code == 204
        with pytest.raises(Gone):
            await late.receive(_no_pieces())

    asyncio.run(story())
    assert world.files() == {image_id}
    assert (world.store / image_id).read_bytes() == b"the data"


async def _always() -> None:
    """The right to send."""


async def _no_pieces() -> AsyncIterator[bytes]:
    for piece in list[bytes]():
        yield piece


STATUSES = {
    "active": {"{id}"},
    "deactivated": {"{id}"},
    "importing": {"{id}", ".staged/{id}", ".uploads/u1"},
    "uploading": {".staged/{id}"},
}
"""The files that an image of each status may have."""


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("alone", [False, True], ids=["on the way", "at a start"])
def test_what_images_have_stays(world: World, look: Callable[[], None], status: str, alone: bool) -> None:
    image_id = world.create()["id"]
    size = 4 if status in ("active", "deactivated") else None
    upload_id = "u1" if status == "importing" else None
    taken = sa.update(store.images).values(status=status, size=size, upload_id=upload_id)
    world.cloud.db.write(lambda tx: tx.execute(taken))
    files.prepare(world.store)
    mine = {path.format(id=image_id) for path in STATUSES[status]}
    nobodys = {UNKNOWN, f".staged/{UNKNOWN}", f".uploads/{UNKNOWN}"}
    for path in mine | nobodys:
        (world.store / path).write_bytes(b"data")
    (world.store / files.CONVERT_FOLDER / UNKNOWN / "vm").mkdir(parents=True)
    if alone:
        assert clear_alone(world.cloud.db, world.cloud.state_dir, world.cloud.clock.now_us()) == 4
    else:
        look()
        look()
        assert found(world) == [("file-without-image", "", "removed 4")]
    assert world.files() == mine
    assert list((world.store / files.CONVERT_FOLDER).iterdir()) == []
    assert world.show(image_id)["status"] == status


def test_a_look_leaves_what_others_have_brought_meanwhile(
    world: World, look: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = files.stored
    brought: list[str] = []

    def stored(folder: Path) -> frozenset[str]:
        before = listed(folder)
        brought.append(world.active(b"meanwhile")["id"])
        return before

    monkeypatch.setattr(files, "stored", stored)
    look()
    assert clear_alone(world.cloud.db, world.cloud.state_dir, world.cloud.clock.now_us()) == 0
    assert world.files() == set(brought)
    assert len(brought) == 2


def test_the_start_of_one_process_of_several_ends_nobodys_upload(world: World) -> None:
    """On a database of its own a process is the only one."""
    assert IMAGE_PART.mend is not None
    image_id = begun(world)
    IMAGE_PART.mend(cast(Database, SimpleNamespace(embedded=False)), world.cloud.settings, world.cloud.clock)
    assert world.show(image_id)["status"] == "saving"
    IMAGE_PART.mend(world.cloud.db, world.cloud.settings, world.cloud.clock)
    assert world.show(image_id)["status"] == "queued"


def test_a_late_upload_never_replaces_data(world: World) -> None:
    image = world.active(b"the data")
    late = files.Upload(world.store, "late", Inspection("raw", virtual_size_limit=1 << 30))
    with files.threads:
        late.write(b"other data")
    with pytest.raises(FileExistsError):
        late.place(image["id"])
    late.discard()
    assert (world.store / image["id"]).read_bytes() == b"the data"
    assert world.files() == {image["id"]}


def test_after_a_start_dead_uploads_are_gone_and_their_images_can_be_uploaded_again(world: World) -> None:
    alive = world.active(b"alive")
    half, placed = begun(world, "u1"), begun(world, "u2")
    (world.store / files.UPLOAD_FOLDER / "u1").write_bytes(b"half")
    (world.store / placed).write_bytes(b"placed but never committed")
    (world.store / UNKNOWN).write_bytes(b"of nobody")
    assert clear_alone(world.cloud.db, world.cloud.state_dir, world.cloud.clock.now_us()) == 3
    assert world.files() == {alive["id"]}
    for image_id in (half, placed):
        assert world.show(image_id)["status"] == "queued"
        assert world.upload(image_id, b"again").status_code == 204
    assert world.show(alive["id"]) == alive
