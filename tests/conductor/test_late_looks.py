"""A process that is stopped in the middle of a look has not seen for so long what it finds afterwards."""

from __future__ import annotations

import asyncio

import pytest

from tests.conductor.test_leadership import SECONDS, World, run


@pytest.mark.parametrize("stopped", [0.5 * SECONDS, 1.1 * SECONDS, 5.3 * SECONDS])
def test_it_does_not_take_the_lead_from_one_that_renews_it(stopped: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        one, _ = world.conductor("one")
        two, way = world.conductor("two")
        await one.start()
        await two.start()
        at_once = way.write_async

        async def late(fn: object) -> object:
            monkeypatch.setattr(way, "write_async", at_once)
            await asyncio.sleep(stopped)
            two.look()  # It looks again before the other one renews the lease.
            return await at_once(fn)  # type: ignore[arg-type]

        for _ in range(20):
            monkeypatch.setattr(way, "write_async", late)
            await asyncio.sleep(stopped + 1.7 * SECONDS)
            assert world.leading == ["one"]

    run(story)
