"""A guest that was frozen for an image by an agent that has died since is thawed by the next one."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cumulet.drivers.qemu import guest_agent
from cumulet.host.driver import DriverError, Image

from .conftest import Rig, guest_of, printed, until


def test_the_next_agent_thaws_what_the_last_has_frozen(rig: Rig, image: Image) -> None:
    async def story() -> None:
        driver = await rig.open("host1")
        guest = await driver.create(msgspec.structs.replace(guest_of(image), agent=True))
        server_id = guest.server_id
        await until(lambda: printed(driver, guest, b"tick"), "it boots", 120.0)
        await guest_agent.freeze(driver._host, server_id)
        await until(lambda: printed(driver, guest, b"at rest"), "it rests")
        await driver.close()
        driver = await rig.open("host1")
        await until(lambda: printed(driver, guest, b"goes on"), "it goes on")
        folder = driver._host.folder(server_id)

        async def forgotten() -> bool:
            return not folder.frozen.exists()

        await until(forgotten, "nothing is left to do")
        await driver.close()

    asyncio.run(story())


def test_one_whose_description_has_no_agent_has_no_channel_either(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        with pytest.raises(DriverError, match="NO_AGENT"):
            await driver.set_password(rig.id, user="root", password="x")
        assert not driver._host.folder(rig.id).agent.exists()
        await driver.close()

    asyncio.run(story())
