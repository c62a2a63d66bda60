"""Uploading and downloading image data: hashed, inspected, durable, once."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import stat
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

from cumulet.image import files, sending, uploads

from . import attack_images
from .conftest import DATA, World

HOSTILE = attack_images.hostile()
HONEST = attack_images.honest()


def test_an_uploaded_image_becomes_active_with_size_and_hashes(world: World) -> None:
    content = bytes(range(256)) * 20_000
    image = world.active(content)
    assert image["status"] == "active"
    assert image["size"] == image["virtual_size"] == len(content)
    assert image["checksum"] == hashlib.md5(content).hexdigest()
    assert (image["os_hash_algo"], image["os_hash_value"]) == ("sha512", hashlib.sha512(content).hexdigest())


def test_data_lies_in_the_store_readable_by_nobody_else(world: World) -> None:
    image = world.active(b"secret data")
    path = world.store / image["id"]
    assert path.read_bytes() == b"secret data"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.store.stat().st_mode) == 0o700
    assert world.files() == {image["id"]}


def test_data_comes_back_as_it_was(world: World) -> None:
    content = bytes(range(256)) * 20_000
    image = world.active(content)
    answer = world.ask("reader", "GET", f"/images/{image['id']}/file")
    assert answer.status_code == 403  # downloading asks for the role member
    answer = world.ask("member", "GET", f"/images/{image['id']}/file")
    assert answer.status_code == 200
    assert answer.content == content
    assert answer.headers["content-md5"] == image["checksum"]
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-type"] == "application/octet-stream"


def test_head_is_not_allowed_as_with_glance(world: World) -> None:
    image = world.active()
    for path, allowed in (("", "DELETE, GET, PATCH"), ("/file", "GET, PUT")):
        answer = world.ask("member", "HEAD", f"/images/{image['id']}{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("wanted", "piece", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=8-", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=5-99", b"56789", "bytes 5-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_a_range_of_the_data(world: World, wanted: str, piece: bytes, content_range: str) -> None:
    image = world.active(b"0123456789")
    answer = world.ask("member", "GET", f"/images/{image['id']}/file", headers={"Range": wanted})
    assert (answer.status_code, answer.content, answer.headers["content-range"]) == (206, piece, content_range)


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=3-2", "bytes=-", "bytes=-0", "bytes=a-b", "lines=1-2"])
def test_an_impossible_range_is_refused(world: World, wanted: str) -> None:
    image = world.active(b"0123456789")
    assert world.ask("member", "GET", f"/images/{image['id']}/file", headers={"Range": wanted}).status_code == 416


def test_several_ranges_at_once_are_refused_as_glance_does(world: World) -> None:
    image = world.active(b"0123456789")
    headers = {"Range": "bytes=0-1,3-4"}
    assert world.ask("member", "GET", f"/images/{image['id']}/file", headers=headers).status_code == 400


def test_an_image_without_data_has_no_content(world: World) -> None:
    image = world.create()
    answer = world.ask("member", "GET", f"/images/{image['id']}/file")
    assert (answer.status_code, answer.content) == (204, b"")


def test_data_is_uploaded_once(world: World) -> None:
    image = world.active(b"first")
    assert world.upload(image["id"], b"second").status_code == 409
    assert world.upload(image["id"], b"second", who="admin").status_code == 409
    assert world.ask("member", "GET", f"/images/{image['id']}/file").content == b"first"
    assert world.show(image["id"]) == image


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_upload_is_refused_and_leaves_nothing(world: World, name: str) -> None:
    disk_format, content = HOSTILE[name]
    image = world.create(disk_format=disk_format)
    answer = world.upload(image["id"], content)
    assert answer.status_code == 415, answer.text
    assert "shadow" not in answer.text
    after = world.show(image["id"])
    assert (after["status"], after["size"], after["checksum"], after["os_hash_value"]) == ("queued", None, None, None)
    assert world.files() == set()
    assert (
        world.upload(image["id"], attack_images.GOOD.build() if disk_format == "qcow2" else b"fine").status_code == 204
    )


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_upload_is_accepted(world: World, name: str) -> None:
    disk_format, content = HONEST[name]
    image = world.active(content, disk_format=disk_format)
    assert (image["status"], image["size"]) == ("active", len(content))


def test_a_disk_larger_than_the_limit_is_refused(small_world: World) -> None:
    big = attack_images.Qcow2(virtual_size=(1 << 30) + 1).build()
    image = small_world.create(disk_format="qcow2")
    assert small_world.upload(image["id"], big).status_code == 415
    fits = attack_images.Qcow2(virtual_size=1 << 30).build()
    assert small_world.upload(image["id"], fits).status_code == 204
    assert small_world.show(image["id"])["virtual_size"] == 1 << 30


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_is_read(small_world: World) -> None:
    image = small_world.create()
    headers = {**DATA, "X-OpenStack-Image-Size": str((1 << 30) + 1)}
    answer = small_world.ask("member", "PUT", f"/images/{image['id']}/file", content=b"x", headers=headers)
    assert answer.status_code == 413
    assert small_world.show(image["id"])["status"] == "queued"


def test_a_projects_images_may_take_up_its_quota_and_no_more(small_world: World) -> None:
    first = small_world.active(b"x" * 1000)
    second = small_world.create()
    headers = {**DATA, "X-OpenStack-Image-Size": str((1 << 30) - 999)}
    refused = small_world.ask("member", "PUT", f"/images/{second['id']}/file", content=b"x", headers=headers)
    assert refused.status_code == 413
    assert small_world.ask("member", "DELETE", f"/images/{first['id']}").status_code == 204
    room = small_world.ask("member", "PUT", f"/images/{second['id']}/file", content=b"x", headers=headers)
    assert (room.status_code, "its sender said" in room.text) == (400, True), "less came than there is room for"


@pytest.mark.parametrize("media", ["application/json", "text/plain", "application/octet-streams"])
def test_data_is_sent_as_octets(world: World, media: str) -> None:
    image = world.create()
    answer = world.ask("member", "PUT", f"/images/{image['id']}/file", content=b"x", headers={"Content-Type": media})
    assert answer.status_code == 415
    assert world.show(image["id"])["status"] == "queued"


def test_formats_come_before_data(world: World) -> None:
    image = world.ask("member", "POST", "/images", json={"name": "bare bones"}).json()
    assert world.upload(image["id"], b"x").status_code == 400
    assert world.show(image["id"])["status"] == "queued"


def test_an_upload_without_length_is_taken_chunk_by_chunk(world: World) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"\0" * 100_000

    image = world.create()
    answer = world.ask("member", "PUT", f"/images/{image['id']}/file", content=chunks(), headers=DATA)
    assert answer.status_code == 204
    assert world.show(image["id"])["size"] == 4_000_000


def test_an_upload_without_length_ends_where_the_quota_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_most", lambda *_: 300_000)
    image = world.create()
    pieces = iter([b"\0" * 100_000] * 40)
    answer = world.ask("member", "PUT", f"/images/{image['id']}/file", content=pieces, headers=DATA)
    assert (answer.status_code, "storage quota" in answer.text) == (413, True), answer.text
    assert world.show(image["id"])["status"] == "queued"
    assert world.files() == set()


def test_an_upload_that_the_disk_has_no_room_for_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: files.Upload, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Upload, "write", full)
    image = world.create()
    answer = world.upload(image["id"], b"content")
    assert (answer.status_code, "storage media is full" in answer.text) == (507, True), answer.text
    assert world.show(image["id"])["status"] == "queued"
    assert world.files() == set()


def test_an_image_deleted_during_its_upload_leaves_nothing(world: World) -> None:
    image = world.create()

    def chunks() -> Iterator[bytes]:
        yield b"\0" * (2 << 20)
        assert world.ask("member", "DELETE", f"/images/{image['id']}").status_code == 204
        yield b"\0" * 100

    answer = world.ask("member", "PUT", f"/images/{image['id']}/file", content=chunks(), headers=DATA)
    assert answer.status_code == 410
    assert world.files() == set()
    assert world.ask("member", "GET", f"/images/{image['id']}").status_code == 404


def test_a_second_upload_at_the_same_time_is_refused(world: World) -> None:
    image = world.create()
    seen: list[int] = []

    def chunks() -> Iterator[bytes]:
        yield b"\0" * (2 << 20)
        seen.append(world.upload(image["id"], b"mine").status_code)
        yield b"\0" * 100

    answer = world.ask("member", "PUT", f"/images/{image['id']}/file", content=chunks(), headers=DATA)
    assert (answer.status_code, seen) == (204, [409])
    assert world.show(image["id"])["size"] == (2 << 20) + 100


@pytest.mark.parametrize("stalls_after", [b"", b"some bytes"])
def test_an_upload_that_stops_sending_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, stalls_after: bytes
) -> None:
    monkeypatch.setattr(sending, "IDLE_SECONDS", 0.05)
    image = world.create()
    scope = {
        "type": "http",
        "method": "PUT",
        "path": f"/image/v2/images/{image['id']}/file",
        "query_string": b"",
        "headers": [(b"x-auth-token", b"member"), (b"content-type", b"application/octet-stream")],
    }
    sent: list[MutableMapping[str, object]] = []
    pieces = [stalls_after] if stalls_after else []

    async def receive() -> MutableMapping[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(message)

    async def request() -> None:
        await world.client.app(scope, receive, send)

    asyncio.run(request())
    assert sent[0]["status"] == 400
    assert world.show(image["id"])["status"] == "queued"
    assert world.files() == set()


def test_deleting_an_image_removes_its_data_but_not_from_under_a_reader(world: World) -> None:
    image = world.active(b"still here")
    with (world.store / image["id"]).open("rb") as reading:
        assert world.ask("member", "DELETE", f"/images/{image['id']}").status_code == 204
        assert world.files() == set()
        assert reading.read() == b"still here"


def test_a_deactivated_image_is_downloaded_by_admins_only(world: World) -> None:
    image = world.active(b"data")
    path = f"/images/{image['id']}"
    assert world.ask("member", "POST", f"{path}/actions/deactivate").status_code == 204
    assert world.ask("member", "GET", f"{path}/file").status_code == 403
    assert world.ask("admin", "GET", f"{path}/file").content == b"data"
    assert world.ask("member", "POST", f"{path}/actions/reactivate").status_code == 204
    assert world.ask("member", "GET", f"{path}/file").content == b"data"
