"""A host's disk: what guests were given is never given twice, a floor stays free, the image cache is bounded."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from cumulet.drivers.qemu import guest_files, host, room, sandbox
from cumulet.drivers.qemu.disks import Disks
from cumulet.drivers.qemu.image_cache import ImageCache, _Incoming
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from cumulet.drivers.qemu.sandbox import Bounds, Sandbox
from cumulet.host.driver import DriverError, Guest, Image
from cumulet.host.limits import USUAL_LIMITS as USUAL
from cumulet.host.limits import HostLimits, limits_of
from cumulet.settings import Settings
from cumulet.space import floor_bytes
from cumulet.testing.image_files import ImageFiles

GIB = 1 << 30


def image_at(path: Path, content: bytes) -> Image:
    path.write_bytes(content)
    return Image(
        id=str(uuid.uuid4()),
        disk_format="raw",
        size_bytes=len(content),
        virtual_size_bytes=len(content),
        sha512=hashlib.sha512(content).hexdigest(),
    )


def guest(disk_gib: int, image: Image | None = None) -> Guest:
    return Guest(server_id=str(uuid.uuid4()), name="g", vcpus=1, memory_mib=64, disk_gib=disk_gib, image=image)


def given(state: Path, disk_gib: int, *, written: int = 0) -> Guest:
    """A guest that is on the host already, with so much of its disk written."""
    described = guest(disk_gib)
    folder = GuestFolder(state / "guests", described.server_id)
    folder.path.mkdir(parents=True)
    folder.make()
    folder.write(GuestRecord(guest=described, uid=None, role=Role.OWN, intent=Intent.RUNNING))
    (folder.vm / guest_files.DISK).write_bytes(b"x" * written)
    return described


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's folder, with 10 GiB to give away."""
    floor = floor_bytes(tmp_path, USUAL.free_space_floor_mib)
    monkeypatch.setattr(room, "free_bytes", lambda _: floor + 10 * GIB)
    found = tmp_path / "host1" / "qemu"
    found.mkdir(parents=True)
    return found


class Tools(Sandbox):
    """Writes no disk."""

    async def run_tool(self, command: object, **_options: object) -> None:
        pass


def disks(state: Path, limits: HostLimits = USUAL) -> Disks:
    source = ImageFiles(*(path for path in state.parents[1].iterdir() if path.is_file()))
    images = ImageCache(folder=state / "images", source=source, limits=limits)
    return Disks(images=images, qemu_img="qemu-img", sandbox=Tools("host1"))


def make(state: Path, described: Guest, limits: HostLimits = USUAL) -> None:
    folder = GuestFolder(state / "guests", described.server_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    asyncio.run(disks(state, limits).make_disk(described, folder, None))


def test_a_disk_that_does_not_fit_beside_what_others_were_given_is_refused(state: Path) -> None:
    given(state, 4, written=1 << 20)
    given(state.parent.parent / "host2" / "qemu", 4)  # another host of the same machine
    make(state, guest(2))
    with pytest.raises(DriverError, match="DISK_FULL: 3072 MiB are needed, and 2049 MiB are left"):
        make(state, guest(3))


def as_recorded(state: Path, described: Guest, **changes: object) -> GuestFolder:
    folder = GuestFolder(state / "guests", described.server_id)
    record = folder.read()
    assert record is not None
    folder.write(msgspec.structs.replace(record, **changes))
    return folder


def left_to_give(state: Path) -> int:
    """MiB."""
    with pytest.raises(DriverError) as refused:
        room.require(state, 1 << 50, USUAL, besides="")
    return int(str(refused.value).split(", and ")[1].split()[0])


def test_a_rescue_s_disk_is_promised_until_it_is_gone(state: Path) -> None:
    described = given(state, 4)
    before = left_to_give(state)
    folder = as_recorded(state, described, rescue_bytes=GIB)
    assert left_to_give(state) == before - 1024
    (folder.vm / guest_files.RESCUE).write_bytes(b"x" * (32 << 20))
    assert left_to_give(state) == before - 1024 + 32, "what is written is seen on the disk"
    as_recorded(state, described, rescue_bytes=0)
    assert left_to_give(state) == before


def test_a_guest_writes_to_all_of_a_rescue_s_disk_though_it_is_larger_than_its_own(state: Path) -> None:
    """The kernel allows no larger files than its disks."""
    record = as_recorded(state, given(state, 4), rescue_bytes=8 * GIB).read()
    assert record is not None
    assert host._bounds(record).file_bytes == room.file_bytes(8 * GIB)
    own = msgspec.structs.replace(record, rescue_bytes=0)
    assert host._bounds(own).file_bytes == room.file_bytes(4 * GIB)


def test_the_memory_of_a_guest_is_promised_while_it_is_saved(state: Path) -> None:
    described = given(state, 4)
    before = left_to_give(state)
    folder = as_recorded(state, described)
    folder.memory.touch()
    whole = room.saved_bytes(described) >> 20
    assert whole > described.memory_mib
    assert left_to_give(state) == before - whole
    folder.memory.write_bytes(b"x" * (16 << 20))
    assert left_to_give(state) == before - whole + 16
    as_recorded(state, described, intent=Intent.SUSPENDED)
    assert left_to_give(state) == before, "a saved guest's file does not grow"


def test_how_much_stays_free_is_set(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _: 10 * GIB)
    with pytest.raises(DriverError, match="DISK_FULL"):
        make(state, guest(10))
    make(state, guest(10), HostLimits(free_space_floor_mib=0))


def test_the_limits_of_a_host_are_the_settings_of_these_names(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, database_url="sqlite://")
    assert limits_of(settings) == USUAL
    set_so = {name: getattr(settings, name) + 1 for name in HostLimits.__struct_fields__}
    assert limits_of(msgspec.structs.replace(settings, **set_so)).given() == set_so


def test_a_guest_may_be_made_again_where_an_attempt_was_cut_short(state: Path) -> None:
    described = given(state, 8)
    make(state, described)


def test_an_image_that_does_not_fit_is_refused_and_leaves_nothing(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = floor_bytes(tmp_path, USUAL.free_space_floor_mib)
    monkeypatch.setattr(room, "free_bytes", lambda _: floor + 999)
    with pytest.raises(DriverError, match="DISK_FULL"):
        make(state, guest(1, image_at(tmp_path / "image", b"x" * 1000)))
    assert not list((state / "images").glob("*"))


def test_the_image_cache_keeps_to_its_bound_by_dropping_what_was_not_used_for_longest(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageCache, "_most_bytes", 1_200_000)
    images = [image_at(tmp_path / f"image{n}", bytes([n]) * 500_000) for n in range(4)]
    for number, image in enumerate(images):
        make(state, guest(1, image))
        cached = state / "images" / f"{image.sha512}.raw"
        os.utime(cached, (time.time() - 100 + number,) * 2)
        if number == 1:
            make(state, guest(1, images[0]))  # used again: now the second is the oldest
    kept = {path.name for path in (state / "images").iterdir()}
    assert kept == {f"{images[0].sha512}.raw", f"{images[3].sha512}.raw"}


def test_a_tool_has_the_time_that_its_disk_needs(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[object] = []

    async def run_tool(_self: Tools, command: object, **options: object) -> None:
        allowed.append(options["timeout_s"])

    monkeypatch.setattr(Tools, "run_tool", run_tool)
    make(state, guest(8, image_at(tmp_path / "image", b"x" * 1000)))
    assert set(allowed) == {600.0 + 8 * 128}


def test_an_image_that_is_in_use_stays(state: Path, tmp_path: Path) -> None:
    image = image_at(tmp_path / "image", b"x" * 1000)
    place = disks(state, HostLimits(image_cache_gib=0)).images

    async def story() -> None:
        async with place.hold("server", image) as cached:
            place.tidy()
            assert cached.exists()
        place.tidy()
        assert not cached.exists()

    asyncio.run(story())


def test_what_a_killed_agent_had_received_of_an_image_is_removed(state: Path, tmp_path: Path) -> None:
    image, half = image_at(tmp_path / "image", b"x" * 1000), image_at(tmp_path / "half", b"y" * 1000)
    make(state, guest(1, image))
    _Incoming(half, state / "images" / f"{half.sha512}.raw").write(b"y" * 500)
    assert len(list((state / "images").iterdir())) == 2
    disks(state).images.remove_unfinished()
    assert [path.name for path in (state / "images").iterdir()] == [f"{image.sha512}.raw"]


def test_an_image_that_nobody_used_for_long_leaves_the_cache(state: Path, tmp_path: Path) -> None:
    image = image_at(tmp_path / "image", b"x" * 1000)
    make(state, guest(1, image))
    cached = state / "images" / f"{image.sha512}.raw"
    disks(state).images.tidy()
    assert cached.exists()
    old = time.time() - (USUAL.image_cache_days + 1) * 86_400
    os.utime(cached, (old, old))
    disks(state).images.tidy()
    assert not cached.exists()


def test_a_guest_without_bounds_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "memory").write_text("a file where a folder of groups should be")
    (tmp_path / "cpu").mkdir()
    monkeypatch.setattr(sandbox, "_CGROUP", tmp_path)
    monkeypatch.setattr(sandbox, "_controllers", lambda: [tmp_path / "memory", tmp_path / "cpu"])
    Sandbox("host1", as_root=True)._make_cgroups("server", Bounds(memory_bytes=1, cpus=1, file_bytes=1))
    assert "a guest runs without a bound of its cpu and memory and pids" in caplog.messages
    assert any(message.startswith(f"no cgroup at {tmp_path / 'memory'}") for message in caplog.messages)


@pytest.mark.parametrize(
    ("controllers", "bounds"),
    [
        ({""}, {"memory.max": "1000", "cpu.max": "300000 100000", "pids.max": "256"}),
        (
            {"memory", "cpu", "pids"},
            {
                "memory.limit_in_bytes": "1000",
                "cpu.cfs_period_us": "100000",
                "cpu.cfs_quota_us": "300000",
                "pids.max": "256",
            },
        ),
    ],
    ids=["v2", "v1"],
)
def test_a_guest_has_its_memory_its_cpus_and_one_for_its_hypervisor_and_so_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, controllers: set[str], bounds: dict[str, str]
) -> None:
    monkeypatch.setattr(sandbox, "_CGROUP", tmp_path)
    groups = [tmp_path / name / "cumulet" / "host1-server" for name in controllers]
    for group in groups:
        group.mkdir(parents=True)
        for name in bounds:  # Stands for what the kernel shows in a group.
            if group.parts[-3] in (tmp_path.name, name.partition(".")[0]):
                (group / name).touch()
    if "" in controllers:
        (tmp_path / "cgroup.controllers").touch()
    entered = Sandbox("host1", as_root=True)._make_cgroups("server", Bounds(memory_bytes=1000, cpus=2, file_bytes=1))
    assert {file.name: file.read_text() for group in groups for file in group.iterdir()} == bounds
    assert set(entered) == {str(group / "cgroup.procs") for group in groups}


def test_cgroups_that_were_left_are_removed_when_a_host_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_CGROUP", tmp_path)
    groups = tmp_path / "pids" / "cumulet"
    left, used, fresh, other = (groups / name for name in ("host1-left", "host1-used", "host1-fresh", "other"))
    for group in (left, used, fresh, other):
        group.mkdir(parents=True)
    (used / "a process").touch()  # Stands for what the kernel refuses: a group with a process in it.
    long_ago = time.time() - 7200
    for group in (left, used, other):
        os.utime(group, (long_ago, long_ago))
    Sandbox("host2", as_root=False).remove_left_groups()
    assert left.exists(), "without root there are no cgroups of ours"
    Sandbox("host2", as_root=True).remove_left_groups()
    assert [group.exists() for group in (left, used, fresh, other)] == [False, True, True, True]
