"""A destination waits for as long as its disk is written, and no longer."""

from __future__ import annotations

import asyncio
import os

import pytest

from cumulet.drivers.qemu import guest_files
from cumulet.host.driver import GuestState
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, Rig, gone

pytestmark = pytest.mark.qemu
LISTEN_SECONDS = 1.0


def test_a_disk_that_is_copied_for_longer_than_a_destination_listens_keeps_it(rig: Rig) -> None:
    async def story() -> None:
        source = await rig.resumed()
        destination = await rig.open("host2", listen_seconds=LISTEN_SECONDS)
        await prepared(source, destination, rig.guest, PARAMETERS)
        disk = rig.base / "host2" / "guests" / rig.id / "vm" / guest_files.DISK
        loop = asyncio.get_running_loop()
        until = loop.time() + 5 * LISTEN_SECONDS
        while loop.time() < until:
            os.utime(disk)  # As a piece of the copy that is written does.
            await asyncio.sleep(0.05)
        assert await destination.observe(rig.id) is GuestState.INCOMING
        await gone(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())
