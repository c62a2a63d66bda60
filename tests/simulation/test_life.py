"""A request that takes too long is cancelled and may clean up; one whose process was killed does nothing any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from cumulet.testing.simulation.database import Memory, SimulatedDatabase
from cumulet.testing.simulation.life import LIFE, Life
from cumulet.testing.simulation.process import DatabaseOfProcess, Process
from cumulet.testing.simulation.virtual_time import VirtualLoop

Work = Callable[[Process, DatabaseOfProcess], Awaitable[object]]


async def _read(_process: Process, database: DatabaseOfProcess) -> object:
    return await database.read_async(lambda tx: None)


async def _write(_process: Process, database: DatabaseOfProcess) -> object:
    return await database.write_async(lambda tx: None)


async def _use_a_thread(_process: Process, _database: DatabaseOfProcess) -> object:
    return await asyncio.get_running_loop().run_in_executor(None, int)


@pytest.mark.parametrize("work", [_read, _write, _use_a_thread])
@pytest.mark.parametrize("killed", [False, True])
def test_what_is_cancelled_cleans_up_and_what_was_killed_does_not(work: Work, killed: bool) -> None:
    loop, life, done = VirtualLoop(), Life(), []
    process = Process(loop, Random(0))
    database = DatabaseOfProcess(SimulatedDatabase(), process, Memory(), alone=True)

    async def request() -> None:
        LIFE.set(life)
        try:
            async with asyncio.timeout(None if killed else 1.0):
                try:
                    await process.sleep(60.0)
                finally:
                    await work(process, database)
                    done.append("cleaned up")
        except TimeoutError:
            done.append("too late")

    async def story() -> None:
        task = asyncio.ensure_future(request())
        await asyncio.sleep(2.0)
        if killed:
            life.over = True
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(story())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert done == ([] if killed else ["cleaned up", "too late"])
