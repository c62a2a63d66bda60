"""A thread wakes an event loop once for all that it tells together, and nothing that it tells is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.db.engine import Database, Tx, opened
from cumulet.db.waking import awaited, soon, together
from tests.db.test_fair_queue import Occupied


class Counting(asyncio.SelectorEventLoop):
    """Counts how often it is woken by other threads."""

    woken = 0

    def _write_to_self(self) -> None:  # the byte in its pipe
        self.woken += 1
        super()._write_to_self()  # type: ignore[misc]


def run(coroutine: Coroutine[object, object, None]) -> int:
    """How often its loop was woken."""
    loop = Counting()
    try:
        loop.run_until_complete(asyncio.wait_for(coroutine, 30))
    finally:
        loop.close()
    return loop.woken


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_group_commit_has_done_wakes_the_loop_once(tmp_path: Path, fails: bool) -> None:
    """And what those wake who want to know of the commit comes with it."""
    heard: list[int] = []

    async def all_at_once(database: Database) -> None:
        loop = asyncio.get_running_loop()

        def job(tx: Tx, number: int) -> int:
            tx.after_commit(lambda: soon(loop, lambda: heard.append(number)))
            if fails and number % 2:
                raise ValueError(f"{number} is odd")
            return number

        occupied = Occupied(database)
        waiting = [asyncio.ensure_future(database.write_async(partial(job, number=n))) for n in range(20)]
        await asyncio.sleep(0)
        occupied.released.set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        good = [number for number in range(20) if not (fails and number % 2)]
        assert [one for one in told if not isinstance(one, Exception)] == good == heard
        assert [str(one) for one in told if isinstance(one, Exception)] == [
            f"{number} is odd" for number in range(20) if number not in good
        ]

    with pytest.MonkeyPatch.context() as patch, opened(f"sqlite:///{tmp_path / 'a.db'}") as database:
        patch.setattr("cumulet.db.engine.GROUP_SECONDS", 1000.0)
        patch.setattr("cumulet.db.engine.GROUP_LEAST_SECONDS", 1000.0)
        assert run(all_at_once(database)) == 1


def test_who_waits_is_told_that_the_group_could_not_be_committed(tmp_path: Path) -> None:
    """Whoever failed before it is told of that."""

    async def both(database: Database) -> None:
        def fails(tx: Tx) -> None:
            raise ValueError("no")

        def ends_the_group(tx: Tx) -> None:
            tx.execute(sa.text("ROLLBACK"))
            raise OSError("lost")

        occupied = Occupied(database)
        jobs = [fails, lambda tx: None, ends_the_group]
        waiting = [asyncio.ensure_future(database.write_async(job)) for job in jobs]
        await asyncio.sleep(0)
        occupied.released.set()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in told] == [ValueError, OSError, OSError]

    with pytest.MonkeyPatch.context() as patch, opened(f"sqlite:///{tmp_path / 'a.db'}") as database:
        patch.setattr("cumulet.db.engine.GROUP_SECONDS", 1000.0)
        patch.setattr("cumulet.db.engine.GROUP_LEAST_SECONDS", 1000.0)
        run(both(database))


def test_one_callback_that_fails_keeps_no_other_from_being_called() -> None:
    async def told() -> None:
        loop = asyncio.get_running_loop()
        problems: list[object] = []
        loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))
        done = asyncio.Event()

        def fails() -> None:
            raise ValueError("no")

        def thread() -> None:
            with together():
                soon(loop, fails)
                soon(loop, done.set)

        threading.Thread(target=thread).start()
        await done.wait()
        assert [str(one) for one in problems] == ["no"]

    run(told())


def test_a_loop_that_is_closed_is_not_told() -> None:
    loop = Counting()
    loop.close()
    soon(loop, lambda: None)
    with together():
        soon(loop, lambda: None)
    assert loop.woken == 0


def test_who_stops_waiting_cancels_what_has_not_begun() -> None:
    async def waits() -> None:
        future: Future[int] = Future()
        answer = awaited(future)
        answer.cancel()
        await asyncio.sleep(0)
        assert future.cancelled()
        begun: Future[int] = Future()
        answer = awaited(begun)
        begun.set_running_or_notify_cancel()
        answer.cancel()
        await asyncio.sleep(0)
        begun.set_result(1)  # nobody is told

    run(waits())
