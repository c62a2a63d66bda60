"""What turns cost whom, on a loop whose time goes on by what a turn says that it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from cumulet.testing.simulation.virtual_time import VirtualLoop
from cumulet.web.turns import FREE_SECONDS, Turns


class Asker:
    """Asks again as soon as it was served, or a while later; `served`: when each turn began, and `seconds` in all."""

    def __init__(self, turns: Turns, lane: str, costs: float, *, pause: float = 0.0) -> None:
        self.turns = turns
        self.lane = lane
        self.costs = costs
        self.pause = pause
        self.served: list[float] = []

    @property
    def seconds(self) -> float:
        return len(self.served) * self.costs

    async def turn(self) -> None:
        await self.turns.take(self.lane)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.served.append(loop.now)
        loop.now += self.costs

    async def ask(self, until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            await self.turn()
            await asyncio.sleep(self.pause)


def in_virtual_time(story: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story)


async def compete(*callers: tuple[Asker, int], seconds: float = 2.0) -> None:
    """Each with so many connections."""
    until = asyncio.get_running_loop().time() + seconds
    await asyncio.gather(*(caller.ask(until) for caller, connections in callers for _ in range(connections)))


@pytest.mark.parametrize("costs", [0.0005, 0.003, 0.02])
def test_who_has_long_turns_has_half_of_the_time_while_another_asks(costs: float) -> None:
    turns = Turns()
    flooder, somebody = Asker(turns, "flooder", costs), Asker(turns, "somebody", 0.0002, pause=0.002)
    in_virtual_time(compete((flooder, 3), (somebody, 1)))
    assert 0.9 < flooder.seconds < 1.1
    # In each turn of the flooder one comes and waits; in the pause after it nobody does.
    assert len(somebody.served) > 2.0 * 0.45 / 0.0022


def test_a_long_rest_is_no_credit() -> None:
    turns = Turns()
    flooder, somebody = Asker(turns, "flooder", 0.001), Asker(turns, "somebody", 0.0002, pause=0.002)

    async def story() -> None:
        await compete((flooder, 1), (somebody, 1), seconds=0.01)
        await asyncio.sleep(60.0)
        flooder.served.clear()
        await compete((flooder, 3), (somebody, 1))
        assert 0.9 < flooder.seconds < 1.1

    in_virtual_time(story())


def test_nobody_waits_where_nobody_else_asks() -> None:
    flooder = Asker(Turns(), "flooder", 0.003)
    in_virtual_time(compete((flooder, 3)))
    assert flooder.seconds >= 2.0


def test_callers_that_ask_alike_leave_no_time_unused() -> None:
    turns = Turns()
    callers = [Asker(turns, name, 0.001) for name in ("one", "another")]
    in_virtual_time(compete(*((caller, 3) for caller in callers)))
    one, another = (caller.seconds for caller in callers)
    assert one + another > 1.95
    assert abs(one - another) < 0.01


def test_somebody_who_comes_finds_the_loop_free_after_the_turn_that_lasts() -> None:
    """A request has a turn at its beginning, one after its body has come, and one after the database has answered."""
    turns = Turns()
    flooder, somebody = Asker(turns, "flooder", 0.001), Asker(turns, "somebody", 0.0002)

    async def story() -> None:
        flood = asyncio.create_task(compete((flooder, 3)))
        await asyncio.sleep(1.0)
        begun = asyncio.get_running_loop().time()
        for _ in range(3):
            await somebody.turn()
            await asyncio.sleep(0.0005)
        ended = asyncio.get_running_loop().time()
        await flood
        assert sum(begun <= at < ended for at in flooder.served) == 0

    in_virtual_time(story())


def test_what_threads_compute_for_a_caller_counts() -> None:
    turns = Turns()
    flooder, somebody = Asker(turns, "flooder", 0.0001), Asker(turns, "somebody", 0.0001)

    async def story() -> None:
        await somebody.turn()
        await asyncio.sleep(0)
        turns.note("flooder", 0.006)
        await flooder.turn()
        await flooder.turn()
        first, second = flooder.served
        assert second - first >= 0.006 - FREE_SECONDS

    in_virtual_time(story())


def test_callers_that_are_not_ahead_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.web.turns.MOST_CHARGED", 10)
    turns = Turns()

    async def story() -> None:
        for n in range(100):
            await Asker(turns, f"{n}", 0.001).turn()
            await asyncio.sleep(0.1)

    in_virtual_time(story())
    assert len(turns._ahead_until) <= 10


def test_who_floods_makes_way_for_a_guest_that_stands_still_and_others_do_not() -> None:
    turns = Turns()
    flooder, somebody = Asker(turns, "flooder", 0.002), Asker(turns, "somebody", 0.0002, pause=0.01)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        floods = asyncio.create_task(compete((flooder, 3), (somebody, 1)))
        await asyncio.sleep(0.5)
        begun = loop.time()
        turns.make_way(0.25)
        await asyncio.sleep(0.1)
        assert [at for at in flooder.served if at > begun] == []
        assert len([at for at in somebody.served if at > begun]) > 5
        turns.make_way(0.0)
        await asyncio.sleep(0.01)
        assert [at for at in flooder.served if at > begun], "it goes on at once"
        begun = loop.time()
        turns.make_way(0.25)
        await floods
        assert 0.25 <= min(at for at in flooder.served if at > begun) - begun < 0.26, "nor does it wait for longer"

    in_virtual_time(story())


def test_who_begins_to_flood_meanwhile_makes_way_too() -> None:
    turns = Turns()
    somebody, flooder = Asker(turns, "somebody", 0.0002, pause=0.01), Asker(turns, "flooder", 0.002)

    async def story() -> None:
        asks = asyncio.create_task(compete((somebody, 1)))
        await asyncio.sleep(0.5)
        turns.make_way(0.25)
        await compete((flooder, 3), seconds=0.2)
        assert flooder.seconds <= 3 * FREE_SECONDS
        await asks

    in_virtual_time(story())
