"""A guest that its user paused, moved from host to host before it runs again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from cumulet.host.driver import GuestState, MigrationPhase
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, Rig, follow, runs_on

pytestmark = pytest.mark.qemu


def test_it_moves_there_and_back_and_runs_again(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        await source.pause(rig.id)
        parameters = msgspec.structs.replace(PARAMETERS, paused=True)
        for here, there in ((source, destination), (destination, source)):
            endpoint = await prepared(here, there, rig.guest, parameters)
            await here.start_copy(rig.id, endpoint, PARAMETERS)
            assert (await follow(here, rig.id)).phase is MigrationPhase.COMPLETED
            await there.resume_destination(rig.id)
            await here.destroy(rig.id)
            assert await there.observe(rig.id) is GuestState.PAUSED
            assert there._host.record(rig.id).user_paused, "its agent would let it run on after a restart"
        await source.unpause(rig.id)
        await runs_on(source, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())
