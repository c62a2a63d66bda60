"""How operations are carried, on a virtual clock: how soon a step is tried again, by whom, and what is remembered."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from cumulet.conductor.carried import (
    BACK_OFF_FIRST_SECONDS,
    BACK_OFF_LAST_SECONDS,
    STUCK_AFTER_ATTEMPTS,
)
from cumulet.conductor.conductor import Conductor, Surroundings
from cumulet.conductor.saga import (
    Context,
    request_abort,
    request_force,
)
from cumulet.db.engine import Tx
from cumulet.fleet.hosts import Hosts
from cumulet.periodic import Reconciler
from cumulet.wake import Wake
from tests.conductor.carrying import LEASE_SECONDS, TRY_SECONDS, Play, Told, World


def test_what_fails_is_tried_again_after_longer_and_longer_pauses(play: Play) -> None:
    async def story(world: World) -> None:
        runner = world.runner("one")
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(60.0)
        await runner.stop()
        pauses = [after - before for before, after in itertools.pairwise(world.tried)]
        for number, pause in enumerate(pauses, start=1):
            usual = min(BACK_OFF_FIRST_SECONDS * 2**number, BACK_OFF_LAST_SECONDS)
            assert 0.75 * usual <= pause - TRY_SECONDS <= 1.25 * usual, number
        assert sum(pauses) > 60.0 - 1.5 * BACK_OFF_LAST_SECONDS, "it has not given up"

    play(story)


@pytest.mark.parametrize("alone", [True, False])
def test_what_another_process_has_left_is_taken_at_once_by_who_is_alone_and_else_when_its_lease_has_run_out(
    play: Play, alone: bool
) -> None:
    async def story(world: World) -> None:
        world.hangs = True
        first = world.runner("one", alone=alone)
        await first.start()
        world.begin(first)
        await world.clock.sleep(1.0)
        await first.stop()
        world.hangs = world.broken = False
        second = world.runner("another", alone=alone)
        began = world.clock.monotonic()
        await second.start()
        await world.clock.sleep(2 * LEASE_SECONDS)
        await second.stop()
        _, again = world.tried
        waited = again - began
        assert waited < 0.1 if alone else LEASE_SECONDS <= waited <= 1.5 * LEASE_SECONDS

    play(story)


def test_who_takes_over_counts_on_from_the_tries_of_the_one_before(play: Play) -> None:
    async def story(world: World) -> None:
        first = world.runner("one")
        await first.start()
        world.begin(first)
        while len(world.tried) < STUCK_AFTER_ATTEMPTS - 1:
            await world.clock.sleep(0.01)
        await first.stop()
        assert (world.row().attempts, world.row().stuck_cause) == (STUCK_AFTER_ATTEMPTS - 1, None)
        second = world.runner("another")
        await second.start()
        await world.clock.sleep(0.01)
        await second.stop()
        assert world.row().attempts == STUCK_AFTER_ATTEMPTS == len(world.tried)
        assert "the disk is full" in world.row().stuck_cause
        world.broken = False
        third = world.runner("a third")
        await third.start()
        await third.idle()
        await third.stop()
        assert (world.row().status, world.row().stuck_cause) == ("done", None)

    play(story)


@pytest.mark.parametrize("above_the_line", [True, False])
def test_what_a_state_held_is_gone_when_the_operation_has_ended(play: Play, above_the_line: bool) -> None:
    async def story(world: World) -> None:
        world.may_be_undone(above_the_line)
        world.hangs = True
        runner = world.runner("one")
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(1.0)
        await runner.stop()
        assert world.row().state == {"password": "dragon"}
        world.hangs, world.broken = False, above_the_line
        runner = world.runner("another")
        await runner.start()
        await runner.idle()
        await runner.stop()
        assert (world.row().status, world.row().state) == ("unwound" if above_the_line else "done", {})

    play(story)


def test_an_abort_that_nobody_has_heard_is_heeded_by_who_takes_over(play: Play) -> None:
    async def story(world: World) -> None:
        world.may_be_undone(True)
        world.hangs = True
        first = world.runner("one")
        await first.start()
        world.begin(first)
        await world.clock.sleep(1.0)
        await first.stop()
        world.hangs = world.broken = False
        world.database.write(lambda tx: request_abort(tx, first, "one"))
        second = world.runner("another")
        await second.start()
        await second.idle()
        await second.stop()
        assert (world.row().status, world.row().error["reason"]) == ("unwound", "ABORTED")
        assert len(world.tried) == 1, "the step was not begun again"

    play(story)


def test_who_was_overtaken_goes_on_to_find_what_nobody_holds(play: Play) -> None:
    """The one that has overtaken it lives, and keeps what it took."""

    async def story(world: World) -> None:
        world.hangs = True
        runner = world.runner("one", alone=False)
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(1.0)
        world.taken_by("one that lives")
        await runner.sweep()
        await runner.idle()
        world.hangs = world.broken = False
        world.begin(world.runner("one that never starts"), "two")
        await runner.sweep()
        await runner.idle()
        await runner.stop()
        assert (world.row("one").lease_owner, world.row("two").status) == ("one that lives", "done")

    play(story)


def test_one_that_ends_as_it_was_told_gives_back_what_it_carried(play: Play) -> None:
    async def story(world: World) -> None:
        def conductor(name: str) -> Conductor:
            def none(around: Surroundings) -> list[Reconciler]:
                return []

            return Conductor(
                {world.saga.name: world.saga},
                none,
                none,
                db=world.database,
                clock=world.clock,
                settings=world.settings,
                hosts=Hosts(),
                name=name,
                alone=False,
            )

        world.hangs = True
        first, second = conductor("one"), conductor("another")
        await first.start()
        world.begin(first.runner)
        await world.clock.sleep(1.0)
        await first.stop()
        world.hangs = world.broken = False
        ended = world.clock.monotonic()
        await second.start()
        await second.runner.idle()
        await second.stop()
        assert world.row().status == "done"
        assert world.tried[-1] - ended < LEASE_SECONDS / 8

    play(story)


@pytest.mark.parametrize("wish", [request_abort, request_force])
def test_a_step_that_waits_for_a_wish_hears_of_it_at_once(play: Play, wish: Callable[[Tx, Wake, str], None]) -> None:
    async def story(world: World) -> None:
        heard: list[float] = []

        async def waits(context: Context) -> None:
            await context.wait_for_wish(3600.0)
            heard.append(world.clock.monotonic())
            wishes = await context.record(lambda tx: None)
            assert (wishes.abort, wishes.force) == (wish is request_abort, wish is request_force)

        world.meanwhile, world.broken = waits, False  # type: ignore[method-assign]
        runner = world.runner("one")
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(5.0)
        world.database.write(lambda tx: wish(tx, runner, "one"))
        await runner.idle()
        await runner.stop()
        assert world.row().status == "done"
        assert heard[0] == pytest.approx(5.0, abs=0.1)

    play(story)


def test_a_step_records_nothing_once_its_operation_is_another_s(play: Play) -> None:
    async def story(world: World) -> None:
        recorded: list[str] = []

        async def overtaken(context: Context) -> None:
            await context.record(lambda tx: recorded.append("mine"))
            world.taken_by("one that lives")
            await context.record(lambda tx: recorded.append("the other's"))

        world.meanwhile = overtaken  # type: ignore[method-assign]
        runner = world.runner("one", alone=False)
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(1.0)
        await runner.stop()
        assert recorded == ["mine"]
        assert (world.row().lease_owner, world.row().attempts) == ("one that lives", 0)

    play(story)


@pytest.mark.parametrize("fails", [False, True])
def test_what_comes_afterwards_comes_once_the_end_is_saved(play: Play, fails: bool) -> None:
    """Its failure is no longer the operation's."""

    async def story(world: World) -> None:
        seen: list[str] = []

        async def afterwards(context: Context, state: Told) -> None:
            seen.append(world.row().status)
            if fails:
                raise OSError("the disk is broken")

        world.broken = False
        world.saga = dataclasses.replace(world.saga, afterwards=afterwards)
        runner = world.runner("one")
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(2 * LEASE_SECONDS)
        await runner.stop()
        assert seen == ["done"]
        assert (world.row().status, world.row().attempts, len(world.tried)) == ("done", 0, 1)

    play(story)


def test_nothing_comes_after_an_operation_that_unwound(play: Play) -> None:
    async def story(world: World) -> None:
        async def afterwards(context: Context, state: Told) -> None:
            raise AssertionError(state)

        world.may_be_undone(True)
        world.saga = dataclasses.replace(world.saga, afterwards=afterwards)
        runner = world.runner("one")
        await runner.start()
        world.begin(runner)
        await world.clock.sleep(1.0)
        await runner.stop()
        assert world.row().status == "unwound"

    play(story)
