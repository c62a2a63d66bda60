"""Of several conductors one leads; when it dies or cannot reach the database another does, and never two at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from cumulet.conductor.leadership import Leadership, LeadsNoMore
from cumulet.conductor.without_bus import WithoutBus
from cumulet.db import schema
from cumulet.db.engine import Database, Tx
from cumulet.db.fair_queue import LEASES, served
from cumulet.fleet.hosts import Hosts
from cumulet.testing.simulation.virtual_time import VirtualClock, VirtualLoop

T = TypeVar("T")
SECONDS = 4.0


class Led:
    """A reconciler that notes the name of its leader."""

    def __init__(self, name: str, leading: list[str], at_once: list[tuple[str, ...]]) -> None:
        self.name = name
        self.leading = leading
        self.at_once = at_once

    async def start(self) -> None:
        self.leading.append(self.name)
        if len(self.leading) > 1:  # Noted, because what a start raises only leads to another try.
            self.at_once.append(tuple(self.leading))

    async def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        self.leading.remove(self.name)


class Failing(Led):
    """It cannot be started the first time."""

    failed = False

    async def start(self) -> None:
        if not self.failed:
            self.failed = True
            raise OperationalError("BEGIN", None, Exception("away"))
        await super().start()

    def kill(self) -> None:
        if self.name in self.leading:
            super().kill()


class Slow(Led):
    """Its start takes longer than the lease runs."""

    async def start(self) -> None:
        await super().start()
        await asyncio.sleep(3 * SECONDS)

    def kill(self) -> None:
        if self.name in self.leading:
            super().kill()


class CutOff(Database):
    """The database as one process reaches it, and for how long it has lost its bus."""

    bus_lost_at: float | None = None
    away = False
    hangs = False

    def __init__(self, url: str, *, inline: bool) -> None:
        super().__init__(url, inline=inline)
        self.lanes: list[str] = []

    async def write_async(self, fn: Callable[[Tx], T]) -> T:
        self.lanes.append(served.get())
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise OperationalError("BEGIN", None, Exception("away"))
        return self.write(fn)


class World:
    """Conductors on one database, on a virtual clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.leading: list[str] = []
        self.at_once: list[tuple[str, ...]] = []
        """Those that have led at the same time: never any."""
        self.loop = loop
        self.database = CutOff("sqlite://", inline=True)
        schema.prepare(self.database)

    def conductor(self, name: str, *, alone: bool = False, kind: type[Led] = Led) -> tuple[Leadership, CutOff]:
        way = CutOff.__new__(CutOff)
        way.__dict__ = dict(self.database.__dict__)

        def lost_seconds() -> float | None:
            return self.loop.now - way.bus_lost_at if way.bus_lost_at is not None else None

        hosts = Hosts()
        hosts.lost_bus = lost_seconds
        led = Leadership(
            db=way,
            clock=VirtualClock(self.loop, Random(1)),
            name="test",
            owner=name,
            seconds=SECONDS,
            alone=alone,
            led=[kind(name, self.leading, self.at_once)],
            bus=WithoutBus(hosts, SECONDS, alone=alone),
        )
        return led, way


def run(story: Callable[[World], Coroutine[object, object, None]]) -> None:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    world = World(loop)
    try:
        loop.run_until_complete(story(world))
        assert world.at_once == []
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        asyncio.set_event_loop(None)
        world.database.close()


def test_the_first_leads_and_the_second_waits() -> None:
    async def story(world: World) -> None:
        one, _ = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await two.start()
        await asyncio.sleep(10 * SECONDS)
        assert world.leading == ["one"]

    run(story)


def test_its_renewal_waits_behind_no_operations_steps() -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one")
        await one.start()
        await asyncio.sleep(10 * SECONDS)
        assert len(way.lanes) > 10
        assert set(way.lanes) == {LEASES}

    run(story)


def test_when_the_leader_dies_another_leads_soon() -> None:
    async def story(world: World) -> None:
        one, _ = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await two.start()
        one.kill()
        assert world.leading == []
        await asyncio.sleep(2 * SECONDS)
        assert world.leading == ["two"]

    run(story)


def test_one_that_ends_as_it_was_told_is_not_waited_for() -> None:
    async def story(world: World) -> None:
        one, _ = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await two.start()
        await two.stop()
        assert world.leading == ["one"], "who does not lead has nothing to give back"
        await one.stop()
        assert world.leading == []
        three, _ = world.conductor("three")
        await three.start()
        assert world.leading == ["three"]

    run(story)


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_one_that_ends_while_the_database_is_away_ends_all_the_same(how: str) -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one")
        await one.start()
        setattr(way, how, True)
        await one.stop()
        two, _ = world.conductor("two")
        await two.start()
        assert world.leading == []
        await asyncio.sleep(2 * SECONDS)
        assert world.leading == ["two"]

    run(story)


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_a_leader_that_cannot_reach_the_database_stops_before_another_begins(how: str) -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await two.start()
        await asyncio.sleep(SECONDS)
        setattr(way, how, True)
        await asyncio.sleep(3 * SECONDS)
        assert world.leading == ["two"]
        setattr(way, how, False)
        await asyncio.sleep(3 * SECONDS)
        assert world.leading == ["two"]

    run(story)


def test_a_short_absence_of_the_database_changes_nothing() -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one")
        await one.start()
        way.away = True
        await asyncio.sleep(SECONDS / 3)
        way.away = False
        await asyncio.sleep(2 * SECONDS)
        assert world.leading == ["one"]

    run(story)


def test_a_leader_that_loses_the_bus_gives_way_to_one_that_has_it() -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await two.start()
        way.bus_lost_at = world.loop.now
        one._bus.wake()
        await asyncio.sleep(SECONDS * 0.11)
        assert world.leading == []
        two.look()  # As the notice does.
        await asyncio.sleep(SECONDS * 0.01)
        assert world.leading == ["two"], "before the lease of a host has run out that was renewed just before"
        await asyncio.sleep(10 * SECONDS)
        assert world.leading == ["two"]
        way.bus_lost_at = None
        two.kill()
        await asyncio.sleep(2 * SECONDS)
        assert world.leading == ["one"]

    run(story)


def test_a_lease_that_is_given_back_is_taken_as_soon_as_that_is_said() -> None:
    async def story(world: World) -> None:
        one, _ = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await asyncio.sleep(SECONDS / 8)
        await two.start()
        await one.stop()
        one.look()
        two.look()
        await asyncio.sleep(SECONDS / 100)
        assert world.leading == ["two"]

    run(story)


def test_where_nobody_has_the_bus_one_leads_all_the_same_until_another_has_it() -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one")
        await one.start()
        await asyncio.sleep(10 * SECONDS)
        way.bus_lost_at = world.loop.now
        one._bus.wake()  # As the bus does.
        await asyncio.sleep(SECONDS / 4)
        assert world.leading == []
        await asyncio.sleep(SECONDS * 0.75)
        assert world.leading == [], "another one would have had a whole lease"
        await asyncio.sleep(SECONDS)
        assert world.leading == ["one"]
        two, _ = world.conductor("two")
        await two.start()
        await asyncio.sleep(SECONDS * 3)
        assert world.leading == ["two"]

    run(story)


def test_a_short_absence_of_the_bus_changes_nothing() -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await two.start()
        for _ in range(20):
            way.bus_lost_at = world.loop.now
            await asyncio.sleep(SECONDS / 11)
            way.bus_lost_at = None
            assert world.leading == ["one"]
            await asyncio.sleep(SECONDS / 3)

    run(story)


def test_what_could_not_be_started_is_started_in_a_later_round() -> None:
    async def story(world: World) -> None:
        first, _ = world.conductor("first")
        await first.start()
        second, _ = world.conductor("second", kind=Failing)
        await second.start()
        first.kill()
        await asyncio.sleep(3 * SECONDS)
        assert world.leading == ["second"]

    run(story)


def test_a_start_that_takes_longer_than_the_lease_lets_nobody_else_begin() -> None:
    async def story(world: World) -> None:
        first, _ = world.conductor("first", kind=Slow)
        second, _ = world.conductor("second")
        starting = asyncio.create_task(first.start())
        await asyncio.sleep(0.1)
        await second.start()
        await asyncio.sleep(4 * SECONDS)
        assert starting.done()
        assert (first.leads, second.leads) == (True, False)
        assert world.leading == ["first"]

    run(story)


def test_one_that_loses_its_lease_while_it_starts_stops_before_another_begins() -> None:
    async def story(world: World) -> None:
        first, way = world.conductor("first", kind=Slow)
        second, _ = world.conductor("second")
        starting = asyncio.create_task(first.start())
        await asyncio.sleep(0.1)
        await second.start()
        way.away = True
        await asyncio.sleep(4 * SECONDS)
        assert starting.done()
        assert (first.leads, second.leads) == (False, True)

    run(story)


def test_what_the_leader_must_say_is_refused_once_another_leads() -> None:
    async def story(world: World) -> None:
        one, _ = world.conductor("one")
        two, _ = world.conductor("two")
        await one.start()
        await two.start()
        world.database.read(one.require)
        with pytest.raises(LeadsNoMore):
            world.database.read(two.require)
        one.kill()
        await asyncio.sleep(2 * SECONDS)
        world.database.read(two.require)
        with pytest.raises(LeadsNoMore):
            world.database.read(one.require)

    run(story)


def test_one_that_is_alone_needs_no_lease() -> None:
    async def story(world: World) -> None:
        one, way = world.conductor("one", alone=True)
        way.away = True
        await one.start()
        await asyncio.sleep(2 * SECONDS)
        assert world.leading == ["one"]
        await one.stop()
        assert world.leading == []

    run(story)
