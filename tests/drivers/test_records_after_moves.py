"""What a host's record of a guest says after a move, where no process of the guest is left to ask."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from cumulet.drivers.qemu import adoption, cold_migration, life, live_migration_destination
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import Copy, GuestRecord, Intent, Role
from cumulet.host.driver import DriverError, Guest, GuestState, MigrationParameters, MigrationPhase
from cumulet.host.endpoint import Endpoint, Peer

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


@pytest.mark.parametrize("outcome", [None, MigrationPhase.COMPLETED])
def test_a_source_whose_process_has_ended_is_in_no_move(tmp_path: Path, outcome: MigrationPhase | None) -> None:
    endpoint = Endpoint(address="127.0.0.1", port=1, nbd_port=2, peer=Peer(host="host2", move="move", authority=""))
    parameters = MigrationParameters(bandwidth_mib_s=1, downtime_limit_ms=1, copy_disk=True)
    copy = Copy(endpoint=endpoint, authority=None, parameters=parameters, outcome=outcome)
    sent = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.RUNNING, copy=copy)

    async def story() -> None:
        host = host_with(tmp_path, sent)
        assert await host.observe(SERVER) is GuestState.CRASHED
        await life.stop(host, SERVER, grace_seconds=0.0)
        assert await host.observe(SERVER) is GuestState.STOPPED
        assert host.record(SERVER).copy is None

    asyncio.run(story())


def test_a_guest_whose_disk_was_never_made_whole_is_not_started(tmp_path: Path) -> None:
    half_made = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.CREATING)

    async def story() -> None:
        host = host_with(tmp_path, half_made)
        for asked in (life.start, cold_migration.stand_by):
            with pytest.raises(DriverError, match="HALF_MADE"):
                await asked(host, SERVER)

    asyncio.run(story())


class Deaf:
    """A guest that runs, and whose power button does nothing."""

    def __init__(self) -> None:
        self.alive = True
        self.asked = asyncio.Event()

    async def run_state(self) -> str:
        return "running"

    async def system_powerdown(self) -> None:
        self.asked.set()

    def change(self) -> asyncio.Event:
        return asyncio.Event()

    async def wait_for_change(self, change: asyncio.Event, timeout_s: float) -> None:
        await change.wait()


def test_a_guest_whose_stop_was_interrupted_runs_and_should(tmp_path: Path) -> None:
    """Else the end of a move that failed would not let it run on: it lets only those run that should."""
    running = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.RUNNING)

    async def story() -> None:
        host, deaf = host_with(tmp_path, running), Deaf()
        host.hypervisors[SERVER] = cast("Hypervisor", deaf)
        stopping = asyncio.create_task(life.stop(host, SERVER, grace_seconds=60.0))
        await deaf.asked.wait()
        stopping.cancel()
        await asyncio.wait([stopping])
        assert host.record(SERVER) == running

    asyncio.run(story())


def test_a_guest_that_is_found_running_should_run(tmp_path: Path) -> None:
    """The agent died between the record of a stop and the end of the process."""
    stopped = GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.STOPPED)
    host = host_with(tmp_path, stopped)
    adoption._mended(host.folder(SERVER), stopped, "running")
    assert host.record(SERVER).intent is Intent.RUNNING
