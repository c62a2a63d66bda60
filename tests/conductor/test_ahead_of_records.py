"""A host that refuses a step as out of date: the records are older than it, or another runner has taken over."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from cumulet.conductor.saga import (
    Context,
    DatabaseStep,
)
from cumulet.host.messages import StaleGeneration
from tests.conductor.carrying import Play, Told, World


@pytest.mark.parametrize("above_the_line", [True, False])
def test_only_who_still_holds_an_operation_goes_past_what_a_host_has_accepted(play: Play, above_the_line: bool) -> None:
    """A host refuses what is out of date for two reasons: the records are older than it, or another has taken over."""

    async def story(world: World) -> None:
        async def overtaken(context: Context, state: Told, stale: StaleGeneration) -> DatabaseStep[Told] | None:
            assert stale.accepted == 7
            return lambda tx, context, state: msgspec.structs.replace(state, password="raised")

        async def refused(context: Context) -> None:
            if lost:
                world.taken_by("one that lives")
            if world.row().state["password"] != "raised":
                raise StaleGeneration("out of date", 7)

        world.may_be_undone(above_the_line)
        world.saga = dataclasses.replace(world.saga, overtaken=overtaken)
        world.meanwhile, world.broken = refused, False  # type: ignore[method-assign]
        lost = True
        runner = world.runner("one", alone=False)
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(1.0)
        assert (world.row().state, world.row().lease_owner) == ({"password": "dragon"}, "one that lives")
        lost = False
        world.taken_by("one")
        await runner.sweep()
        await runner.idle()
        await runner.stop()
        assert (world.row().status, len(world.tried)) == ("done", 3)

    play(story)


@pytest.mark.parametrize("above_the_line", [True, False])
def test_where_nothing_brings_it_past_what_a_host_has_accepted_a_step_has_failed(
    play: Play, above_the_line: bool
) -> None:
    async def story(world: World) -> None:
        async def overtaken(context: Context, state: Told, stale: StaleGeneration) -> None:
            return None

        async def refused(context: Context) -> None:
            raise StaleGeneration("out of date", 7)

        world.may_be_undone(above_the_line)
        world.saga = dataclasses.replace(world.saga, overtaken=overtaken)
        world.meanwhile = refused  # type: ignore[method-assign]
        runner = world.runner("one")
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(60.0)
        await runner.stop()
        if above_the_line:
            assert (world.row().status, world.row().error["reason"]) == ("unwound", "STALE_GENERATION")
        else:
            assert "out of date" in world.row().stuck_cause

    play(story)
