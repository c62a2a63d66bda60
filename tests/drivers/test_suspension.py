"""The moment in which QEMU says that a save is completed, and its machine does not say so yet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from cumulet.drivers.qemu import suspension
from cumulet.drivers.qemu.answers import Migration
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import GuestFolder, GuestRecord, Intent, Role
from tests.drivers.qemu_host import qemu_host
from tests.drivers.test_telling import GUEST
from tests.drivers.test_told_when_plugged import SERVER


class Saved:
    """A process that has written its guest's memory. Its machine is in one more run state each time it is asked."""

    def __init__(self) -> None:
        self.run_states = ["finish-migrate", "finish-migrate", "postmigrate"]
        self.alive = True
        self.runs = False

    def change(self) -> asyncio.Event:
        return asyncio.Event()

    async def wait_for_change(self, change: asyncio.Event, timeout_s: float) -> None: ...
    async def migration_status(self) -> Migration:
        return Migration(status="completed")

    async def run_state(self) -> str:
        return self.run_states.pop(0) if len(self.run_states) > 1 else self.run_states[0]

    async def cont(self) -> None:
        assert await self.run_state() == "postmigrate"
        self.runs = True


def of_a_suspend_that_was_interrupted(state: Path) -> tuple[Saved, GuestFolder]:
    folder = GuestFolder(state / "guests", SERVER)
    folder.path.mkdir(parents=True)
    folder.write(GuestRecord(guest=GUEST, uid=None, role=Role.OWN, intent=Intent.RUNNING))
    folder.memory.write_bytes(b"memory")
    return Saved(), folder


def test_a_guest_that_nobody_asks_for_again_runs_on(tmp_path: Path) -> None:
    saved, folder = of_a_suspend_that_was_interrupted(tmp_path)
    host = qemu_host(tmp_path)
    host.hypervisors[SERVER] = cast("Hypervisor", saved)
    asyncio.run(suspension.put_right(host, SERVER))
    assert saved.runs
    assert not folder.memory.exists()


def test_the_file_is_whole(tmp_path: Path) -> None:
    saved, folder = of_a_suspend_that_was_interrupted(tmp_path)
    assert asyncio.run(suspension._saved_or_being_saved(cast("Hypervisor", saved), folder))
