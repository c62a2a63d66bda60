"""Moves of a guest from host1 to host2, begun or brought to some point, and what is looked at afterwards."""

from __future__ import annotations

import subprocess

from cumulet.drivers.qemu import move_authority
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.qmp import Qmp
from cumulet.host.driver import MigrationParameters, MigrationPhase
from cumulet.host.endpoint import Endpoint
from cumulet.image.tiny import newest_record
from cumulet.image.tiny_init import RECORD_AREA_OFFSET, RECORD_BYTES, RECORD_COUNT
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, SLOW, Rig, follow, runs_on, until


async def begin(rig: Rig, *, slow: bool = False) -> tuple[QemuDriver, QemuDriver, Endpoint]:
    """The guest runs on host1 and is being copied to host2."""
    parameters = SLOW if slow else PARAMETERS
    source, destination = await rig.resumed(), await rig.open("host2")
    endpoint = await prepared(source, destination, rig.guest, parameters)
    await source.start_copy(rig.id, endpoint, parameters)
    return source, destination, endpoint


async def expecting_a_stranger(rig: Rig, driver: QemuDriver, parameters: MigrationParameters = PARAMETERS) -> Endpoint:
    """A destination that waits for a source which does not come."""
    stranger = move_authority.peer(move_authority.new_authority("source", "another"), "host1")
    return await driver.prepare_incoming(rig.guest, source=stranger, parameters=parameters)


async def copy(
    source: QemuDriver, destination: QemuDriver, rig: Rig, parameters: MigrationParameters = PARAMETERS
) -> None:
    """All of the guest goes to the destination, and stands still there."""
    endpoint = await prepared(source, destination, rig.guest, parameters)
    await source.start_copy(rig.id, endpoint, parameters)
    progress = await follow(source, rig.id)
    assert progress.phase is MigrationPhase.COMPLETED, progress


async def move(rig: Rig) -> tuple[QemuDriver, QemuDriver]:
    source, destination = await rig.resumed(), await rig.open("host2")
    await copy(source, destination, rig)
    return source, destination


async def stays_on_the_console(driver: QemuDriver, rig: Rig) -> None:
    """The guest runs on, and whoever has opened session `one` reads it."""
    await runs_on(driver, rig.id)
    said = await driver.read_console(rig.id, "one", position=0, wait_seconds=10.0)
    assert (said.ended, b"tick" in said.data) == (None, True)


def records_on_disk(rig: Rig, host: str) -> int:
    """The newest record in the guest's disk file, read from outside while nobody has it open."""
    raw = rig.base / "disk.raw"
    disk = rig.base / host / "guests" / rig.id / "vm" / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(raw)], check=True)
    with open(raw, "rb") as file:
        file.seek(RECORD_AREA_OFFSET)
        return newest_record(file.read(RECORD_BYTES * RECORD_COUNT))


async def stands_still(rig: Rig) -> tuple[QemuDriver, Endpoint]:
    """The source's agent dies while memory is copied, so that nobody tells QEMU to go on when the guest has stopped."""
    source, destination, endpoint = await begin(rig)
    await follow(source, rig.id, MigrationPhase.ACTIVE)
    await source.close()
    monitor = await Qmp.connect(rig.base / "host1" / "guests" / rig.id / "monitor2.sock")

    async def stopped() -> bool:
        answer = await monitor.execute("query-migrate")
        return isinstance(answer, dict) and answer.get("status") == "pre-switchover"

    await until(stopped, "the guest stands still")
    await monitor.close()
    return destination, endpoint
