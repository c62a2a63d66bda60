"""What a host's record of a guest says after a move, where no process of the guest is left to ask."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cumulet.drivers.qemu import cold_migration, live_migration_destination
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.record import GuestRecord, Intent, Role
from cumulet.host.driver import DriverError, Guest

from .qemu_host import qemu_host

SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"
GUEST = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None)


def host_with(folder: Path, record: GuestRecord) -> QemuHost:
    host = qemu_host(folder)
    place = host.folder(SERVER)
    place.path.mkdir(parents=True)
    place.write(record)
    return host


def test_a_destination_that_has_died_after_the_commit_is_this_host_s_guest(tmp_path: Path) -> None:
    """Its disk is the only one: as one that never belonged here, it would give way to the next request."""
    arrived = GuestRecord(guest=GUEST, uid=None, role=Role.INCOMING, intent=Intent.RUNNING)

    async def story() -> None:
        host = host_with(tmp_path, arrived)
        with pytest.raises(DriverError, match="NOT_RUNNING"):
            await live_migration_destination.resume_destination(host, SERVER)
        assert host.record(SERVER).role is Role.OWN

    asyncio.run(story())


def test_a_guest_that_has_stood_down_stands_by_no_longer(tmp_path: Path) -> None:
    """Else it could neither be copied nor moved again before it was started."""
    standing_by = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.STOPPED, user_paused=True)

    async def story() -> None:
        host = host_with(tmp_path, standing_by)
        assert host.record(SERVER).standing_by
        await cold_migration.stand_down(host, SERVER)
        assert not host.record(SERVER).standing_by

    asyncio.run(story())
