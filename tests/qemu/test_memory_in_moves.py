"""A guest that writes its memory all the time, and compares, misses nothing after a live move."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from functools import partial
from pathlib import Path

from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Guest, Image, MigrationParameters, MigrationPhase
from cumulet.testing.image_files import ImageFiles
from cumulet.testing.moving import prepared

from .conftest import follow, printed, until

_IN_ROUNDS = MigrationParameters(bandwidth_mib_s=2, downtime_limit_ms=300, copy_disk=True)
"""Slow enough that the guest writes on while its memory is sent, and fast enough for the 512 KiB that it writes."""

_WRITES_AND_COMPARES = bytes.fromhex(
    "fa fc 31db"  # no interrupts; bx, the number of the round, is 0
    "43"  # round: the next one
    "b80010 8ec0 31ff"  # in each 64 KiB from 64 KiB to 576 KiB
    "26891d 81c70010 75f7"  # write the number into each page
    "050010 3d0090 75eb"
    "b80010 8ec0 31ff"  # and in each of them
    "26391d 7516 81c70010 75f5"  # compare, and go to `lost` at another one
    "050010 3d0090 75e9"
    "85db 75c9"  # 65,536 times
    "b02e eb02"  # say "."
    "b058"  # lost: say "X"
    "baf803 ee ebbd"  # on the serial port, and go on
)
"""A boot sector's program for the 8086. It needs no system, so that what it finds is the machine's doing."""


def disk_of(program: bytes) -> bytes:
    return (program.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")


def test_what_a_guest_writes_while_it_moves_is_there_after_the_move(tmp_path: Path, facts: QemuFacts) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(content := disk_of(_WRITES_AND_COMPARES))
    image = Image(
        id=str(uuid.uuid4()),
        disk_format="raw",
        size_bytes=len(content),
        virtual_size_bytes=len(content),
        sha512=hashlib.sha512(content).hexdigest(),
    )

    async def story() -> None:
        hosts = [
            await QemuDriver.open(name=name, state=tmp_path / name, images=ImageFiles(path), facts=facts)
            for name in ("host1", "host2")
        ]
        source, destination = hosts
        server_id = str(uuid.uuid4())
        guest = await source.create(
            Guest(server_id=server_id, name="x", vcpus=1, memory_mib=64, disk_gib=1, image=image)
        )
        try:
            await until(lambda: printed(source, guest, b"."), "the first rounds")
            for _ in range(3):
                endpoint = await prepared(source, destination, guest, _IN_ROUNDS)
                await source.start_copy(server_id, endpoint, _IN_ROUNDS)
                progress = await follow(source, server_id)
                assert progress.phase is MigrationPhase.COMPLETED, progress
                before = await said(destination, server_id)
                await destination.resume_destination(server_id)
                await source.destroy(server_id)
                await until(partial(printed, destination, guest, before + b"."), "further rounds")
                assert b"X" not in await said(destination, server_id), "memory was lost in the move"
                source, destination = destination, source
        finally:
            for host in hosts:
                await host.destroy(server_id)
                await host.close()

    asyncio.run(story())


async def said(host: QemuDriver, server_id: str) -> bytes:
    return await host.console_output(server_id, max_bytes=1 << 20)
