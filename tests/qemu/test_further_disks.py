"""Ephemeral and swap disks of real guests: made, moved with the guest, grown or made anew."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import uuid
from pathlib import Path

import msgspec
import pytest

from cumulet.drivers.qemu import further_disks, guest_files
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.host.disks import Disk
from cumulet.host.driver import DriverError, Guest, GuestState, Image, MigrationPhase
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, Rig, follow, guest_of, printed, runs_on, until

EPHEMERAL = Disk(place=1, size_mib=64, content="ext4", label="ephemeral0")
SWAP = Disk(place=2, size_mib=32, content="swap")
MARK = ("-c", "write -P 0x5a 20M 64k")
MARKED = ("-c", "read -P 0x5a 20M 64k")

pytestmark = pytest.mark.skipif(bool(further_disks.lacking()), reason=f"no {', '.join(further_disks.lacking())}")


def file(rig: Rig, host: str, guest: Guest, place: int) -> Path:
    return rig.base / host / "guests" / guest.server_id / "vm" / guest_files.further_disk(place)


def done(path: Path, *what: str) -> bool:
    """Whether `qemu-io` could do it on a disk that nobody uses."""
    command = ["qemu-io", "-f", "qcow2", *what, str(path)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def content(rig: Rig, path: Path) -> bytes:
    raw = rig.base / "content.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw)], check=True)
    return raw.read_bytes()


def is_file_system(rig: Rig, path: Path, label: bytes) -> bool:
    """An ext superblock says its magic number at 1080, and its label at 1144."""
    found = content(rig, path)
    program = shutil.which("e2fsck", path="/usr/sbin:/sbin")
    assert program is not None
    checked = subprocess.run([program, "-fn", str(rig.base / "content.raw")], check=False)
    return checked.returncode == 0 and found[1080:1082] == b"\x53\xef" and found[1144:1160].rstrip(b"\0") == label


def is_swap(rig: Rig, path: Path, mib: int) -> bool:
    found = content(rig, path)
    return len(found) == mib << 20 and found[4086:4096] == b"SWAPSPACE2"


async def made(rig: Rig, image: Image, *disks: Disk) -> tuple[QemuDriver, Guest]:
    driver = await rig.open("host1")
    guest = msgspec.structs.replace(guest_of(image), server_id=str(uuid.uuid4()), disks=disks)
    return driver, await driver.create(guest)


async def started_again(driver: QemuDriver, guest: Guest) -> None:
    async def more() -> bool:
        return (await driver.console_output(guest.server_id, max_bytes=1 << 20)).count(b"tick ") > before

    before = (await driver.console_output(guest.server_id, max_bytes=1 << 20)).count(b"tick ")
    await driver.start(guest.server_id)
    await until(more, "it boots again")


async def copied(source: QemuDriver, destination: QemuDriver, guest: Guest) -> None:
    endpoint = await prepared(source, destination, guest, PARAMETERS)
    await source.start_copy(guest.server_id, endpoint, PARAMETERS)
    progress = await follow(source, guest.server_id)
    assert progress.phase is MigrationPhase.COMPLETED, progress
    assert progress.disk_total >= (1 << 30) + (96 << 20), "all of its disks are copied"


def test_they_are_made_and_move_with_the_running_guest(rig: Rig, image: Image) -> None:
    async def story() -> None:
        source, guest = await made(rig, image, EPHEMERAL, SWAP)
        destination = await rig.open("host2")
        await until(lambda: printed(source, guest, b"tick"), "it boots", 120.0)
        await source.stop(guest.server_id, grace_seconds=0.0)
        assert is_file_system(rig, file(rig, "host1", guest, 1), b"ephemeral0")
        assert is_swap(rig, file(rig, "host1", guest, 2), 32)
        for place in (1, 2):
            assert done(file(rig, "host1", guest, place), *MARK)
        await started_again(source, guest)
        await copied(source, destination, guest)
        await destination.resume_destination(guest.server_id)
        await source.destroy(guest.server_id)
        await runs_on(destination, guest.server_id)
        # And back, to a host that has nothing of it any more.
        await copied(destination, source, guest)
        await source.resume_destination(guest.server_id)
        await destination.destroy(guest.server_id)
        await runs_on(source, guest.server_id)
        await source.stop(guest.server_id, grace_seconds=0.0)
        for place in (1, 2):
            assert done(file(rig, "host1", guest, place), *MARKED), "what was written is there"
        assert not file(rig, "host2", guest, 1).exists()
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_move_that_is_cancelled_leaves_the_guest_and_its_disks(rig: Rig, image: Image) -> None:
    async def story() -> None:
        source, guest = await made(rig, image, EPHEMERAL, SWAP)
        destination = await rig.open("host2")
        await until(lambda: printed(source, guest, b"tick"), "it boots", 120.0)
        for _ in range(2):  # Nothing of the first is in the way of the second.
            endpoint = await prepared(source, destination, guest, PARAMETERS)
            await source.start_copy(guest.server_id, endpoint, PARAMETERS)
            await source.cancel_copy(guest.server_id)
            await source.resume_source(guest.server_id)
            await destination.destroy(guest.server_id)
            await runs_on(source, guest.server_id)
        await copied(source, destination, guest)
        await destination.resume_destination(guest.server_id)
        await runs_on(destination, guest.server_id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_an_agent_that_dies_while_disks_are_copied_carries_on(rig: Rig, image: Image) -> None:
    async def story() -> None:
        source, guest = await made(rig, image, EPHEMERAL, SWAP)
        destination = await rig.open("host2")
        await until(lambda: printed(source, guest, b"tick"), "it boots", 120.0)
        endpoint = await prepared(source, destination, guest, PARAMETERS)
        await source.start_copy(guest.server_id, endpoint, PARAMETERS)
        await source.close()
        source = await rig.open("host1")
        progress = await follow(source, guest.server_id)
        assert progress.phase is MigrationPhase.COMPLETED, progress
        await destination.resume_destination(guest.server_id)
        await runs_on(destination, guest.server_id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_a_resize_grows_the_ephemeral_disk_and_makes_swap_anew(rig: Rig, image: Image) -> None:
    larger = msgspec.structs.replace(EPHEMERAL, size_mib=128)
    other_swap = msgspec.structs.replace(SWAP, size_mib=48)

    async def story() -> None:
        source, guest = await made(rig, image, EPHEMERAL, SWAP)
        destination = await rig.open("host2")
        await source.stop(guest.server_id, grace_seconds=0.0)
        for place in (1, 2):
            assert done(file(rig, "host1", guest, place), *MARK)
        await source.stand_by(guest.server_id)
        await copied(source, destination, guest)
        resized = msgspec.structs.replace(guest, disks=(larger, other_swap))
        for _ in range(2):
            await destination.take_in(resized)
        await source.stand_down(guest.server_id)
        assert done(file(rig, "host2", guest, 1), *MARKED), "the ephemeral disk is the same one"
        assert len(content(rig, file(rig, "host2", guest, 1))) == 128 << 20
        assert is_swap(rig, file(rig, "host2", guest, 2), 48)
        assert not done(file(rig, "host2", guest, 2), *MARKED), "swap is another"
        for place in (1, 2):
            assert done(file(rig, "host1", guest, place), *MARKED), "the source keeps its own, for a revert"
        await started_again(destination, resized)
        await destination.stop(guest.server_id, grace_seconds=0.0)
        with pytest.raises(DriverError):
            await destination.take_in(msgspec.structs.replace(resized, disks=(EPHEMERAL, SWAP)))
        await destination.take_in(msgspec.structs.replace(resized, disks=(larger,)))
        assert not file(rig, "host2", guest, 2).exists()
        await source.close()
        await destination.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("disks", "words"),
    [
        ((msgspec.structs.replace(EPHEMERAL, content="ntfs"),), "FILE_SYSTEM"),
        ((SWAP,), "DISKS"),
        (tuple(msgspec.structs.replace(SWAP, place=n) for n in range(1, 10)), "TOO_MANY_DISKS"),
        ((msgspec.structs.replace(EPHEMERAL, size_mib=1 << 30),), "DISK_FULL"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    rig: Rig, image: Image, disks: tuple[Disk, ...], words: str
) -> None:
    async def story() -> None:
        with pytest.raises(DriverError, match=words):
            await made(rig, image, *disks)
        driver = await rig.open("host1")
        for report in await driver.guests():
            await driver.destroy(report.server_id)
            assert await driver.observe(report.server_id) is GuestState.ABSENT
        await driver.close()

    asyncio.run(story())
