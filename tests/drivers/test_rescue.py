"""A rescue that fails, or whose agent dies in it: what it had made is taken back. No QEMU is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from cumulet.drivers.qemu import config_drive, guest_files, rescue, room
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from cumulet.host.documents import files_on_drive
from cumulet.host.driver import DriverError, Guest, Image
from tests.drivers.qemu_host import qemu_host
from tests.drivers.test_telling import GUEST, drive

IMAGE = Image(id="i", disk_format="qcow2", size_bytes=9, virtual_size_bytes=512 << 20, sha512="")
RESCUE = msgspec.structs.replace(GUEST, config_drive=drive("rescue"), image=IMAGE)


class Died(Exception):
    """The agent, at this point."""


def stopped_guest(state: Path) -> tuple[QemuHost, GuestFolder]:
    folder = GuestFolder(state / "guests", GUEST.server_id)
    folder.path.mkdir(parents=True)
    folder.make()
    folder.write(GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.STOPPED))
    config_drive.write(GUEST, folder, None)
    return qemu_host(state), folder


def makes_a_disk(monkeypatch: pytest.MonkeyPatch, host: QemuHost, then: Exception | None = None) -> None:
    async def make(_disks: object, guest: Guest, folder: GuestFolder, uid: int | None) -> None:
        (folder.vm / guest_files.RESCUE).write_bytes(b"half")
        if then is not None:
            raise then

    monkeypatch.setattr(type(host.disks), "make_rescue_disk", make)


def is_as_it_was(folder: GuestFolder) -> bool:
    on_drive = (folder.vm / guest_files.CONFIG_DRIVE).read_bytes()
    record = folder.read()
    assert record is not None
    nothing = not record.rescue_bytes and not (folder.vm / guest_files.RESCUE).exists()
    return nothing and on_drive == config_drive.image(files_on_drive(GUEST))


def test_half_a_rescue_disk_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, folder = stopped_guest(tmp_path)
    makes_a_disk(monkeypatch, host, DriverError("TOOL_FAILED: no space left on device"))
    with pytest.raises(DriverError, match="TOOL_FAILED"):
        asyncio.run(rescue.rescue(host, RESCUE))
    assert not is_as_it_was(folder)
    asyncio.run(rescue.unrescue(host, GUEST.server_id, run=False))
    assert is_as_it_was(folder)


def test_a_guest_has_its_own_config_drive_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, folder = stopped_guest(tmp_path)
    makes_a_disk(monkeypatch, host)

    write = GuestFolder.write

    def dies(folder: GuestFolder, record: GuestRecord) -> None:
        if record.rescued:
            raise Died
        write(folder, record)

    with monkeypatch.context() as patched:
        patched.setattr(GuestFolder, "write", dies)
        with pytest.raises(Died):
            asyncio.run(rescue.rescue(host, RESCUE))
    assert not is_as_it_was(folder)
    for _ in range(2):
        asyncio.run(rescue.unrescue(qemu_host(tmp_path), GUEST.server_id, run=False))
        assert is_as_it_was(folder)


def test_a_guest_that_runs_keeps_the_config_drive_that_it_reads(tmp_path: Path) -> None:
    """The rescue was refused before it stopped the guest."""
    host, folder = stopped_guest(tmp_path)
    (folder.vm / guest_files.CONFIG_DRIVE).unlink()

    class Runs:
        alive = True

        async def run_state(self) -> str:
            return "running"

    host.hypervisors[GUEST.server_id] = Runs()  # type: ignore[assignment]
    asyncio.run(rescue.unrescue(host, GUEST.server_id, run=True))
    assert not (folder.vm / guest_files.CONFIG_DRIVE).exists()


def test_one_that_does_not_fit_leaves_the_guest_as_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, folder = stopped_guest(tmp_path)
    monkeypatch.setattr(room, "free_bytes", lambda _: 0)

    class Runs:
        alive = True

    host.hypervisors[GUEST.server_id] = Runs()  # type: ignore[assignment]
    with pytest.raises(DriverError, match="DISK_FULL: 512 MiB are needed"):
        asyncio.run(rescue.rescue(host, RESCUE))
    assert is_as_it_was(folder)
