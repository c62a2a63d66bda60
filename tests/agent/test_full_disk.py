"""A host whose disk is full to the last byte: it keeps its lease, and removes guests. On a small disk of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from cumulet.agent import fence as fences
from cumulet.agent import lease, watchdog
from cumulet.agent.agent import Agent
from cumulet.agent.fence import NEVER_SEEN, FileFence, Mark
from cumulet.drivers.qemu import guest_files, life
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from cumulet.host import messages as m
from cumulet.host.driver import Driver, Guest
from tests.drivers.qemu_host import qemu_host

SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"
GUEST = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root makes a file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(folder: Path, name: str = "filler") -> None:
    with open(folder / name, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    with pytest.raises(OSError, match="No space left"):
        (folder / "more").write_bytes(b"x")
    (folder / "more").unlink()


def test_a_lease_is_renewed(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "now", lambda: 1000.0)
    noted = lease.ExpiryFile(disk / "lease.json")
    noted.end_at(1010.0)
    fill(disk)
    for seconds in (20.0, 30.125, 5000.0, 1.5):
        noted.end_at(1000.0 + seconds)
        assert noted.left() == seconds
        assert lease.seconds_left(disk / "lease.json") == seconds


def test_a_lease_of_an_earlier_version_is_read_and_then_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an earlier version's watchdog, which lives on, reads those of today."""
    monkeypatch.setattr(lease, "now", lambda: 1000.0)
    file = tmp_path / "lease.json"
    file.write_bytes(msgspec.json.encode({"boot_id": lease.boot_id(), "at": 1007.5}))
    noted = lease.ExpiryFile(file)
    assert noted.left() == 7.5
    noted.end_at(1020.0)
    inode = file.stat().st_ino
    noted.end_at(1030.0)
    assert (noted.left(), file.stat().st_ino) == (30.0, inode)

    class Before(msgspec.Struct, frozen=True):
        boot_id: str
        at: float

    assert msgspec.json.decode(file.read_bytes(), type=Before) == Before(lease.boot_id(), 1030.0)


def test_a_part_of_each_of_two_leases_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads while it is written must not take 1999.9 and 2000.0 for 2099.9."""
    monkeypatch.setattr(lease, "now", lambda: 1000.0)
    file = tmp_path / "lease.json"
    noted = lease.ExpiryFile(file)
    noted.end_at(1999.9)
    before = file.read_bytes()
    noted.end_at(2000.0)
    after = file.read_bytes()
    differ = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    for place in range(differ[0] + 1, differ[-1] + 1):
        file.write_bytes(after[:place] + before[place:])
        assert noted.left() == 0.0
    file.write_bytes(after)
    assert noted.left() == 1000.0


def test_an_agent_and_a_watchdog_say_who_they_are(disk: Path) -> None:
    (disk / watchdog.AGENT_LOCK).write_bytes(b"{}")
    fill(disk)
    watchdog.note_agent(disk)
    noted = watchdog.noted_agent(disk)
    assert noted is not None
    assert noted.pid == os.getpid()
    size = (disk / watchdog.AGENT_LOCK).stat().st_size
    assert size == watchdog._NOTE_BYTES, "written over: no other's note is shorter, and its block is never given back"


def destroy(generation: int) -> m.Destroy:
    return m.Destroy(server_id=SERVER, operation_id="deletion", generation=generation, step=3)


class Guests:
    def __init__(self, state: Path) -> None:
        self.host = qemu_host(state)

    async def destroy(self, server_id: str) -> None:
        await life.destroy(self.host, server_id)

    async def stop(self, server_id: str, *, grace_seconds: float) -> None:
        await life.stop(self.host, server_id, grace_seconds=grace_seconds)


def agent_on(disk: Path) -> Agent:
    driver = cast("Driver", Guests(disk / "qemu"))
    return Agent(name="host1", driver=driver, fence=FileFence(disk / "fence"))


def test_a_guest_is_removed_and_what_comes_late_for_it_is_refused(disk: Path) -> None:
    agent = agent_on(disk)
    folder = GuestFolder(disk / "qemu" / "guests", SERVER)
    folder.path.mkdir(parents=True)
    folder.make()
    folder.write(GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.RUNNING))
    fill(folder.vm, guest_files.DISK)
    stop = m.Stop(server_id=SERVER, operation_id="stop", generation=7, step=1, grace_seconds=0.0)
    with pytest.raises(m.VerbFailed, match="DISK_FULL: the disk of host1 is full"):
        asyncio.run(agent.handle(stop))
    asyncio.run(agent.handle(destroy(8)))
    assert not folder.path.exists()
    for later in (agent, agent_on(disk)):
        with pytest.raises(m.StaleGeneration):
            asyncio.run(later.handle(stop))


def test_marks_that_were_set_on_a_full_disk_are_found_again_and_get_files_of_their_own(disk: Path) -> None:
    fence = FileFence(disk / "fence")
    fence.set_mark("a", Mark(1, 1))
    fill(disk)
    marks = {"a": Mark(4, 2), "b": Mark(7, 0), "c": Mark(9, 9)}
    for step in range(5):
        for name, mark in marks.items():
            fence.set_mark(name, Mark(mark.generation, mark.step + step))
    now = {name: Mark(mark.generation, mark.step + 4) for name, mark in marks.items()}
    for found in (fence, FileFence(disk / "fence")):
        assert {name: found.mark(name) for name in marks} == now
    (disk / "filler").unlink()
    again = FileFence(disk / "fence")
    for step in range(3):
        again.set_mark("d", Mark(1, step))
    (disk / "fence.spare").unlink()
    assert {name: FileFence(disk / "fence").mark(name) for name in marks} == now


def test_a_mark_that_was_half_written_was_never_accepted(disk: Path) -> None:
    fence = FileFence(disk / "fence")
    fill(disk)
    fence.set_mark("a", Mark(3, 1))
    before = (disk / "fence.spare").read_bytes()
    fence.set_mark("a", Mark(4, 2))
    after = (disk / "fence.spare").read_bytes()
    second = after.index(b"a 4/2")
    for length in (0, 1, 7, 12):
        (disk / "fence.spare").write_bytes(
            before[:second] + after[second : second + length].ljust(128) + before[second + 128 :]
        )
        assert FileFence(disk / "fence").mark("a") == Mark(3, 1)


def test_so_many_marks_and_no_more(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fences, "SPARE_MARKS", 4)
    fence = FileFence(disk / "fence")
    fill(disk)
    for number in range(4):
        fence.set_mark(str(number), Mark(1, 1))
    with pytest.raises(OSError, match="No space left"):
        fence.set_mark("one more", Mark(1, 1))
    assert fence.mark("one more") == NEVER_SEEN


def test_a_host_that_starts_on_a_full_disk_takes_room_for_marks_later(disk: Path) -> None:
    (disk / "fence").mkdir()
    fill(disk)
    fence = FileFence(disk / "fence")
    with pytest.raises(OSError, match="No space left"):
        fence.set_mark("a", Mark(1, 1))
    (disk / "filler").unlink()
    fence.set_mark("a", Mark(1, 1))
    fill(disk)
    fence.set_mark("a", Mark(2, 1))
    assert FileFence(disk / "fence").mark("a") == Mark(2, 1)
