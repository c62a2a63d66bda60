"""A runner that has lost the bus gives what it carries to others, and fails nothing that another could go on with."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest
import sqlalchemy as sa

from cumulet.conductor.runner import Runner
from cumulet.conductor.saga import Context, request_abort
from cumulet.host.messages import BusLost, Message

from .carrying import LEASE_SECONDS, Play, World

AnswerT = TypeVar("AnswerT")


class NoLink:
    """A `host.link.Link` that nobody asks."""

    async def send(self, message: Message[AnswerT]) -> AnswerT:
        raise AssertionError(message)

    async def close(self) -> None: ...


def bus_lost(world: World, runner: Runner) -> None:
    at = world.clock.monotonic()
    runner.hosts.lost_bus = lambda: world.clock.monotonic() - at


def bus_back(runner: Runner) -> None:
    runner.hosts.lost_bus = lambda: None


def test_another_goes_on_with_what_it_carried(play: Play) -> None:
    async def story(world: World) -> None:
        world.hangs = True
        one, other = world.runner("one", alone=False), world.runner("other", alone=False)
        await one.start()
        world.begin(one)
        await world.clock.sleep(1.0)
        await other.start()
        world.hangs = world.broken = False
        bus_lost(world, one)
        await world.clock.sleep(LEASE_SECONDS * 0.6)
        assert (world.row().status, world.row().lease_owner, len(world.tried)) == ("done", "other", 2)
        assert not one._tasks
        await one.stop()
        await other.stop()

    play(story)


def test_what_is_free_is_left_to_others_for_a_lease(play: Play) -> None:
    async def story(world: World) -> None:
        world.broken = False
        one = world.runner("one", alone=False)
        await one.start()
        bus_lost(world, one)
        await world.clock.sleep(1.0)
        begun = world.clock.monotonic()
        world.begin(one)
        await world.clock.sleep(3 * LEASE_SECONDS)
        await one.stop()
        assert world.row().status == "done", "nobody else is there"
        assert LEASE_SECONDS <= world.tried[0] - begun <= 1.5 * LEASE_SECONDS

    play(story)


def test_who_has_hosts_of_its_own_machine_keeps_what_it_carries(play: Play) -> None:
    """Nobody else reaches these: without this runner their leases would end."""

    async def story(world: World) -> None:
        world.hangs = True
        one, other = world.runner("one", alone=False), world.runner("other", alone=False)
        one.hosts.add("host1", NoLink(), own=True)
        await one.start()
        await other.start()
        world.begin(one)
        bus_lost(world, one)
        await world.clock.sleep(3 * LEASE_SECONDS)
        assert (world.row().lease_owner, len(world.tried)) == ("one", 1)
        await one.stop()
        await other.stop()

    play(story)


def test_what_it_took_because_nobody_was_there_it_gives_to_who_comes(play: Play) -> None:
    async def story(world: World) -> None:
        world.hangs = True
        one, other = world.runner("one", alone=False), world.runner("other", alone=False)
        await one.start()
        bus_lost(world, one)
        world.begin(one)
        await world.clock.sleep(2 * LEASE_SECONDS)
        assert world.row().lease_owner == "one"
        await other.start()
        await world.clock.sleep(3 * LEASE_SECONDS)
        assert world.row().lease_owner == "other"
        await one.stop()
        await other.stop()

    play(story)


def test_while_the_database_does_not_answer_it_tries_again_to_give_it_back(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        world.hangs = True
        one = world.runner("one", alone=False)
        await one.start()
        world.begin(one)
        await world.clock.sleep(1.0)
        bus_lost(world, one)

        async def away(fn: object) -> object:
            raise sa.exc.OperationalError("BEGIN", None, Exception("away"))

        with monkeypatch.context() as broken:
            broken.setattr(world.database, "write_async", away)
            await world.clock.sleep(LEASE_SECONDS / 2)
        assert world.row().lease_owner == "one"
        await world.clock.sleep(LEASE_SECONDS / 2)
        assert world.row().lease_owner is None
        await one.stop()

    play(story)


@pytest.mark.parametrize("alone", [True, False])
def test_a_step_that_asked_nobody_has_not_failed_as_long_as_the_bus_may_come_back(play: Play, alone: bool) -> None:
    """Nor is a wish forgotten that was known before."""

    async def story(world: World) -> None:
        world.may_be_undone(True)
        one = world.runner("one", alone=alone)

        async def ask(context: Context) -> None:
            if one.hosts.lost_bus() is not None:
                raise BusLost("the bus is not connected")

        world.meanwhile, world.broken = ask, False  # type: ignore[method-assign]
        await one.start()
        bus_lost(world, one)
        world.begin(one)
        await world.clock.sleep(LEASE_SECONDS / 11)
        assert (world.row().status, world.row().attempts) == ("forward", 0)
        bus_back(one)
        await one.sweep()
        await one.idle()
        await one.stop()
        assert (world.row().status, world.row().error) == ("done", None)
        assert 2 < len(world.tried) < 8

    play(story)


def test_another_goes_on_with_a_step_whose_answer_was_lost_with_the_bus(play: Play) -> None:
    async def story(world: World) -> None:
        world.may_be_undone(True)
        one, other = world.runner("one", alone=False), world.runner("other", alone=False)
        lost = asyncio.Event()

        async def ask(context: Context) -> None:
            if len(world.tried) == 1:
                await lost.wait()
            if one.hosts.lost_bus() is not None and one._tasks:
                raise BusLost("the connection to the bus was lost")

        world.meanwhile, world.broken = ask, False  # type: ignore[method-assign]
        await one.start()
        world.begin(one)
        await world.clock.sleep(1.0)
        await other.start()
        bus_lost(world, one)
        one.hosts.bus_is_lost()
        lost.set()
        await world.clock.sleep(LEASE_SECONDS * 0.6)
        assert (world.row().status, world.row().lease_owner) == ("done", "other")
        await one.stop()
        await other.stop()

    play(story)


def test_who_waits_for_the_bus_asks_less_and_less_and_hears_that_it_is_to_be_aborted(play: Play) -> None:
    async def story(world: World) -> None:
        world.may_be_undone(True)
        one = world.runner("one")

        async def ask(context: Context) -> None:
            raise BusLost("the bus is not connected")

        world.meanwhile, world.broken = ask, False  # type: ignore[method-assign]
        await one.start()
        bus_lost(world, one)
        world.begin(one)
        await world.clock.sleep(LEASE_SECONDS * 0.8)
        assert 8 < len(world.tried) < 14
        world.database.write(lambda tx: request_abort(tx, one, "one"))
        await world.clock.sleep(LEASE_SECONDS * 0.1)
        await one.stop()
        assert (world.row().status, world.row().error["reason"]) == ("unwound", "ABORTED")

    play(story)


def test_a_step_fails_once_the_bus_has_been_away_for_a_lease(play: Play) -> None:
    async def story(world: World) -> None:
        world.may_be_undone(True)

        async def ask(context: Context) -> None:
            raise BusLost("the bus is not connected")

        world.meanwhile, world.broken = ask, False  # type: ignore[method-assign]
        one = world.runner("one")
        await one.start()
        bus_lost(world, one)
        world.begin(one)
        await world.clock.sleep(LEASE_SECONDS / 2)
        assert world.row().status == "forward"
        await world.clock.sleep(LEASE_SECONDS)
        await one.stop()
        assert (world.row().status, world.row().error["reason"]) == ("unwound", "HOST_UNREACHABLE")

    play(story)
