"""What is done every so often: also when woken, also after a failure, and not when it is stopped or switched off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from cumulet.clock import SystemClock
from cumulet.periodic import Periodic

SECONDS = 7.0


class HeldClock(SystemClock):
    """Its sleepers sleep until they are let go on."""

    def __init__(self) -> None:
        self.asleep: asyncio.Queue[tuple[float, asyncio.Event]] = asyncio.Queue()

    async def sleep(self, seconds: float) -> None:
        until = asyncio.Event()
        self.asleep.put_nowait((seconds, until))
        await until.wait()

    async def pass_(self) -> float:
        """Let the next sleep end; answers how long it would have been."""
        seconds, until = await self.asleep.get()
        until.set()
        return seconds


class Counted(Periodic):
    def __init__(self, clock: HeldClock, *, seconds: float | None = SECONDS, fails: bool = False) -> None:
        self.woken = asyncio.Event()
        super().__init__(name="counted", clock=clock, seconds=seconds, woken=self.woken)
        self.rounds: asyncio.Queue[int] = asyncio.Queue()
        self.done = 0
        self.fails = fails

    async def round(self) -> None:
        self.done += 1
        self.rounds.put_nowait(self.done)
        if self.fails:
            raise RuntimeError("as planned")


def run(story: Coroutine[object, object, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story

    asyncio.run(bounded())


def test_a_round_follows_each_pause_and_none_goes_before() -> None:
    async def story() -> None:
        clock = HeldClock()
        counted = Counted(clock)
        await counted.start()
        for number in (1, 2, 3):
            assert counted.done == number - 1
            assert await clock.pass_() == SECONDS
            assert await counted.rounds.get() == number
        await counted.stop()

    run(story())


def test_who_wakes_it_need_not_wait_for_the_pause_to_end() -> None:
    async def story() -> None:
        clock = HeldClock()
        counted = Counted(clock)
        counted.woken.set()
        await counted.start()
        assert await counted.rounds.get() == 1, "woken before it slept"
        for _ in range(2):
            await clock.asleep.get()
        for _ in range(10):
            await asyncio.sleep(0)
        assert counted.done == 1, "once woken is one round"
        counted.woken.set()
        assert await counted.rounds.get() == 2
        await counted.stop()

    run(story())


def test_a_round_that_fails_is_told_and_the_next_comes_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        clock = HeldClock()
        counted = Counted(clock, fails=True)
        await counted.start()
        for number in (1, 2):
            await clock.pass_()
            assert await counted.rounds.get() == number
        await counted.stop()

    run(story())
    assert [record.getMessage() for record in caplog.records] == ["counted failed, will retry"] * 2
    assert "as planned" in caplog.text


def test_once_stopped_it_does_nothing_more() -> None:
    async def story() -> None:
        clock = HeldClock()
        counted = Counted(clock)
        await counted.start()
        await clock.asleep.get()
        await counted.stop()
        counted.woken.set()
        assert "counted" not in {task.get_name() for task in asyncio.all_tasks()}
        assert counted.done == 0

    run(story())


def test_one_that_is_switched_off_has_no_task() -> None:
    async def story() -> None:
        counted = Counted(HeldClock(), seconds=None)
        await counted.start()
        assert len(asyncio.all_tasks()) == 1
        await counted.stop()

    run(story())
