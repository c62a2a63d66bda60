"""Imports that are converted, by real qemu-img: what the image is then, what is refused, what no failure leaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

import cumulet.testing
from cumulet import space
from cumulet.confined import qemu_img, user_ids, users
from cumulet.image import conversion, files, left_data
from cumulet.image.uploads import Place, Receiver
from cumulet.part import SettingRefused
from cumulet.settings import Settings
from cumulet.testing import Answer, Client, JsonObject, TestCloud
from tests.api.test_image_imports import DATA, ask, ended, image, import_, internet_has, left, new, stage, tasks_of

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")

MIB = 1 << 20
DISK = b"\xfa\x33\xc0" + os.urandom(MIB).replace(b"\0", b"\1") + bytes(3 * MIB)
"""A disk of an odd size, mostly empty."""
WHOLE = DISK.ljust(-(-len(DISK) // 512) * 512, b"\0")
"""The same in whole sectors."""


@pytest.fixture
def to_qcow2() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(image_conversion_output_format="qcow2", web_download_hosts="*.example.org") as made:
        yield made


@pytest.fixture
def to_raw() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(image_conversion_output_format="raw", image_project_quota_gib=1) as made:
        yield made


def run(*arguments: str | Path) -> str:
    return subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


def qcow2_of(tmp_path: Path, content: bytes = WHOLE, *options: str) -> bytes:
    (tmp_path / "raw").write_bytes(content)
    run("convert", "-f", "raw", "-O", "qcow2", *options, tmp_path / "raw", tmp_path / "qcow2")
    return (tmp_path / "qcow2").read_bytes()


def empty(tmp_path: Path, size: str, *options: str) -> bytes:
    run("create", "-q", "-f", "qcow2", *options, tmp_path / "empty", size)
    return (tmp_path / "empty").read_bytes()


def imported(client: Client, content: bytes, **body: object) -> JsonObject:
    image_id = new(client, **body)
    assert stage(client, image_id, content).status == 204
    assert import_(client, image_id).status == 202
    return ended(client, image_id)


def stored(cloud: TestCloud, found: JsonObject) -> Path:
    """The image's data, once all else of its import is gone."""
    image_id = str(found["id"])
    cloud.persona("member").wait("the staged file to go", lambda: left(cloud, image_id) == [image_id])
    return files.image_folder(cloud.embedded.settings.state_dir) / image_id


def nothing_left(cloud: TestCloud, image_id: str) -> None:
    folder = files.image_folder(cloud.embedded.settings.state_dir)
    cloud.persona("member").wait("all to be given back", lambda: left(cloud, image_id) == [])
    assert list((folder / files.CONVERT_FOLDER).iterdir()) == []
    assert cloud.embedded.context.space.promised == 0
    if os.geteuid() == 0:
        assert not [note for note in users.IN_USE.iterdir() if str(folder) in note.read_text()]


def refused(cloud: TestCloud, found: JsonObject) -> str:
    """The image can be imported again, nothing is left, and its quota is free. Returns the reason in its task."""
    assert (found["status"], found["size"], found["os_glance_failed_import"]) == ("queued", None, "file")
    nothing_left(cloud, str(found["id"]))
    usage: Answer = ask(cloud.persona("member"), "GET", "/info/usage")
    assert usage["usage"]["image_size_total"]["usage"] == 0
    (task,) = tasks_of(cloud.persona("member"), str(found["id"]))
    assert task["status"] == "failure"
    message: str = task["message"]
    return message


def matches(found: JsonObject, content: bytes) -> bool:
    hashes = (hashlib.md5(content, usedforsecurity=False).hexdigest(), hashlib.sha512(content).hexdigest())
    return (found["size"], found["checksum"], found["os_hash_value"]) == (len(content), *hashes)


def test_raw_data_becomes_qcow2(to_qcow2: TestCloud, tmp_path: Path) -> None:
    member = to_qcow2.persona("member")
    found = imported(member, DISK)
    assert (found["status"], found["disk_format"], found["virtual_size"]) == ("active", "qcow2", len(WHOLE))
    path = stored(to_qcow2, found)
    assert matches(found, path.read_bytes())
    told = json.loads(run("info", "--output", "json", "-f", "qcow2", path))
    assert (told["format"], told["virtual-size"], "backing-filename" in told) == ("qcow2", len(WHOLE), False)
    run("convert", "-f", "qcow2", "-O", "raw", path, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == WHOLE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_uid == os.geteuid()
    assert ask(member, "DELETE", f"/images/{found['id']}").status == 204
    nothing_left(to_qcow2, str(found["id"]))


def test_qcow2_data_becomes_raw_and_stays_sparse(to_raw: TestCloud, tmp_path: Path) -> None:
    found = imported(to_raw.persona("member"), qcow2_of(tmp_path, WHOLE + bytes(64 * MIB), "-c"), disk_format="qcow2")
    content = WHOLE + bytes(64 * MIB)
    assert (found["status"], found["disk_format"], found["virtual_size"]) == ("active", "raw", len(content))
    path = stored(to_raw, found)
    assert (path.read_bytes() == content, matches(found, content)) == (True, True)
    assert path.stat().st_blocks * 512 < 8 * MIB
    nothing = imported(to_raw.persona("member"), empty(tmp_path, "16M"), disk_format="qcow2")
    assert (nothing["status"], nothing["disk_format"], matches(nothing, bytes(16 * MIB))) == ("active", "raw", True)


@pytest.mark.parametrize("size", [512, MIB, 1 << 30, (1 << 30) + 512, 1 << 36, 1 << 40])
def test_no_qcow2_file_is_larger_than_what_is_reserved_for_it(size: int) -> None:
    told = json.loads(run("measure", "--output", "json", "-O", "qcow2", "--size", str(size)))
    assert size < told["fully-allocated"] <= conversion.largest_bytes("qcow2", size)


@pytest.mark.parametrize(
    ("disk_format", "container_format", "content"),
    [("qcow2", "bare", None), ("vmdk", "bare", b"KDMV" + bytes(600)), ("raw", "ovf", bytes(600))],
)
def test_what_has_the_format_already_or_is_not_inspected_stays_as_it_comes(
    to_qcow2: TestCloud, tmp_path: Path, disk_format: str, container_format: str, content: bytes | None
) -> None:
    content = qcow2_of(tmp_path) if content is None else content
    formats = {"disk_format": disk_format, "container_format": container_format}
    found = imported(to_qcow2.persona("member"), content, **formats)
    assert (found["status"], found["disk_format"], matches(found, content)) == ("active", disk_format, True)


def test_an_upload_is_not_converted(to_qcow2: TestCloud) -> None:
    member = to_qcow2.persona("member")
    image_id = new(member)
    assert ask(member, "PUT", f"/images/{image_id}/file", content=DISK, headers=DATA).status == 204
    found = image(member, image_id)
    assert (found["disk_format"], matches(found, DISK)) == ("raw", True)


def test_what_comes_from_the_internet_is_converted_too(to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    internet_has(monkeypatch, DISK[:1000], DISK[1000:])
    member = to_qcow2.persona("member")
    image_id = new(member)
    assert import_(member, image_id, "web-download", uri="https://images.example.org/disk.raw").status == 202
    found = ended(member, image_id)
    assert (found["disk_format"], found["virtual_size"]) == ("qcow2", len(WHOLE))


def test_qemu_img_sees_nothing_that_inspection_refuses(
    to_raw: TestCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: object, **_more: object) -> list[str]:
        raise AssertionError

    monkeypatch.setattr(qemu_img, "convert", never)
    member = to_raw.persona("member")
    assert "qcow2" in refused(to_raw, imported(member, DISK, disk_format="qcow2")), "it is raw"
    ask(member, "DELETE", f"/images/{ask(member, 'GET', '/images')['images'][0]['id']}")
    (tmp_path / "base").write_bytes(WHOLE)
    backed = empty(tmp_path, "4M", "-F", "raw", "-b", str(tmp_path / "base"))
    assert "backing file" in refused(to_raw, imported(member, backed, disk_format="qcow2"))
    outside = empty(tmp_path, "4M", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on")
    assert "external data file" in refused(to_raw, imported(member, outside, disk_format="qcow2"))


def test_data_that_says_it_is_raw_and_is_not_is_refused(to_qcow2: TestCloud, tmp_path: Path) -> None:
    assert "qcow2" in refused(to_qcow2, imported(to_qcow2.persona("member"), qcow2_of(tmp_path)))


def test_a_disk_with_another_disk_inside_is_not_taken_for_that_one(to_raw: TestCloud, tmp_path: Path) -> None:
    """What the guest wrote at the beginning of its disk would be the header of the raw image."""
    inner = qcow2_of(tmp_path)
    outer = qcow2_of(tmp_path, inner)
    assert "qcow2" in refused(to_raw, imported(to_raw.persona("member"), outer, disk_format="qcow2"))


def test_a_raw_image_that_its_project_may_not_have_is_refused_before(to_raw: TestCloud, tmp_path: Path) -> None:
    message = refused(to_raw, imported(to_raw.persona("member"), empty(tmp_path, "1025M"), disk_format="qcow2"))
    assert message == f"As raw the image has {1025 * MIB} bytes, which is more than it or its project may have."


def test_no_larger_file_is_written_than_the_quota_has_left(
    to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reserve(_receiver: object, _size: int) -> int:
        return MIB // 2

    monkeypatch.setattr(Receiver, "reserve", reserve)
    message = refused(to_qcow2, imported(to_qcow2.persona("member"), DISK))
    assert message == "As qcow2 the image is larger than it or its project may be."


def test_without_room_for_all_that_may_be_written_nothing_begins(
    to_raw: TestCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, settings = to_raw.persona("member"), to_raw.embedded.settings
    floor = space.floor_bytes(settings.state_dir, settings.free_space_floor_mib)
    monkeypatch.setattr(space, "free_bytes", lambda _: floor + 32 * MIB)
    message = refused(to_raw, imported(member, empty(tmp_path, "33M"), disk_format="qcow2"))
    assert "storage is full" in message
    assert imported(member, empty(tmp_path, "31M"), disk_format="qcow2")["status"] == "active"
    assert to_raw.embedded.context.space.promised == 0


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """qemu-img takes for ever."""
    monkeypatch.setattr(qemu_img, "convert", lambda *_, **__: ["/bin/sleep", "3600"])
    monkeypatch.setattr(conversion, "WATCH_SECONDS", 0.01)


def under_way(cloud: TestCloud) -> Path:
    """The folder of the conversion that is under way."""
    folder = files.image_folder(cloud.embedded.settings.state_dir) / files.CONVERT_FOLDER
    member = cloud.persona("member")
    member.wait("a conversion", lambda: folder.is_dir() and any((one / "root").is_dir() for one in folder.iterdir()))
    return next(folder.iterdir())


def test_a_conversion_that_takes_too_long_is_ended(to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch)
    monkeypatch.setattr(conversion, "LONGEST_SECONDS", 1)
    message = refused(to_qcow2, imported(to_qcow2.persona("member"), DISK))
    assert message == "The conversion to qcow2 took more than 1 seconds."


def test_where_conversion_is_not_possible_the_setting_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path, database_url="", image_conversion_output_format="raw")
    conversion.require(settings)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "which", lambda _: None)
        conversion.require(msgspec.structs.replace(settings, image_conversion_output_format=None))
        with (
            pytest.raises(SettingRefused, match=r"^image_conversion_output_format: qemu-img is not installed"),
            cumulet.testing.cloud(image_conversion_output_format="raw"),
        ):
            pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(user_ids, "are_the_machines_own", lambda: True)
    with pytest.raises(SettingRefused, match="qemu-img would run as root; set `guest_uids`"):
        conversion.require(msgspec.structs.replace(settings, guest_uids="none"))
    with pytest.raises(SettingRefused, match=r"overlap .* set `guest_uids` to others"):
        conversion.require(msgspec.structs.replace(settings, guest_uids="1000-2000"))


def test_a_conversion_ends_with_its_image(to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch)
    member = to_qcow2.persona("member")
    image_id = new(member)
    stage(member, image_id, DISK)
    import_(member, image_id)
    under_way(to_qcow2)
    assert ask(member, "DELETE", f"/images/{image_id}").status == 204
    to_qcow2.idle()
    nothing_left(to_qcow2, image_id)


def test_one_that_waits_ends_with_its_image_and_the_next_gets_its_turn(
    to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[str] = []
    convert = conversion.convert

    async def coming(
        cloud: Place, receiver: Receiver, output: str, source: Path, found: files.Written
    ) -> files.Written:
        arrived.append(receiver.image.id)
        return await convert(cloud, receiver, output, source, found)

    member = to_qcow2.persona("member")
    images = [new(member) for _ in range(3)]
    with monkeypatch.context() as patched:
        slow(patched)
        patched.setattr(conversion, "convert", coming)
        for image_id in images:
            stage(member, image_id, DISK)
            import_(member, image_id)
            member.wait("its arrival", partial(arrived.__contains__, image_id))
        assert ask(member, "DELETE", f"/images/{images[1]}").status == 204
        member.wait("it to go", lambda: len(left(to_qcow2, images[1])) == 2)
        assert under_way(to_qcow2).is_dir(), "the first goes on, and the third waits"
    assert ask(member, "DELETE", f"/images/{images[0]}").status == 204
    assert ended(member, images[2])["disk_format"] == "qcow2"
    nothing_left(to_qcow2, images[0])


def test_one_is_converted_at_a_time(to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[str] = []
    all_there = asyncio.Event()
    running: list[int] = []
    most: list[int] = []
    convert, run = conversion.convert, conversion._Work.run

    async def coming(
        cloud: Place, receiver: Receiver, output: str, source: Path, found: files.Written
    ) -> files.Written:
        arrived.append(receiver.image.id)
        if len(arrived) == 3:
            all_there.set()
        return await convert(cloud, receiver, output, source, found)

    async def watched(work: conversion._Work, source_format: str, output: str, limit: int) -> None:
        running.append(1)
        most.append(len(running))
        try:
            await all_there.wait()
            await run(work, source_format, output, limit)
        finally:
            running.pop()

    monkeypatch.setattr(conversion, "convert", coming)
    monkeypatch.setattr(conversion._Work, "run", watched)
    member = to_qcow2.persona("member")
    images = [new(member) for _ in range(3)]
    for image_id in images:
        stage(member, image_id, DISK)
    for image_id in images:
        import_(member, image_id)
    assert [ended(member, image_id)["disk_format"] for image_id in images] == ["qcow2"] * 3
    assert most == [1, 1, 1]


def test_what_a_killed_conversion_leaves_goes_with_the_next_attempt_or_start(
    to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, embedded = to_qcow2.persona("member"), to_qcow2.embedded
    folder = files.image_folder(embedded.settings.state_dir)
    with monkeypatch.context() as patched:
        slow(patched)
        patched.setattr(conversion._Work, "remove", lambda _: None)
        image_id = new(member)
        stage(member, image_id, DISK)
        import_(member, image_id)
        first = under_way(to_qcow2)
        to_qcow2.kill_conductor()
        tasks = list(embedded.runner._tasks.values())
        member.wait("it to end", lambda: all(task.done() for task in tasks))
    (first / "disk").write_bytes(b"half")
    dead = folder / files.CONVERT_FOLDER / "of a dead process"
    (dead / "vm").mkdir(parents=True)
    assert left_data.clear_alone(embedded.db, embedded.settings.state_dir, embedded.clock.now_us()) == 1
    assert (first.exists(), dead.exists()) == (True, False), "the next attempt needs to know what to remove"
    to_qcow2.await_(to_qcow2._revive_conductor())
    assert ended(member, image_id)["disk_format"] == "qcow2"
    assert not first.exists()


def test_a_server_boots_from_what_was_converted(to_qcow2: TestCloud) -> None:
    member = to_qcow2.persona("member")
    found = imported(member, DISK)
    flavor = next(f["id"] for f in member.compute("GET", "/flavors")["flavors"] if f["name"] == "m1.nano")
    wanted = {"name": "s", "imageRef": found["id"], "flavorRef": flavor, "networks": "none"}
    server_id: str = member.compute("POST", "/servers", {"server": wanted}, version="2.37")["server"]["id"]
    assert member.wait_for_status(server_id, "ACTIVE")["image"]["id"] == found["id"]


def test_where_qemu_img_has_gone_nothing_is_converted(to_qcow2: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_TOOL", "no-such-qemu-img")
    found = imported(to_qcow2.persona("member"), DISK)
    assert refused(to_qcow2, found) == "The data could not be converted to qcow2."
