"""Many jobs of one caller do not delay the few of another, and the cloud's own work comes first."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.db import fair_queue
from cumulet.db.engine import GROUP_JOBS, GROUP_SECONDS, Database, Tx, opened
from cumulet.db.fair_queue import CLOUD, CLOUD_SECONDS, LEASES, LEASES_SECONDS, MOST_WAITING, FairQueue, Job, served
from cumulet.errors import Unavailable


def queued(queue: FairQueue, lane: str, number: int = 1) -> None:
    for _ in range(number):
        queue.put(Job(lambda _: None, lane=lane))


def order(queue: FairQueue, cost: Callable[[str], float] = lambda _: 0.01) -> list[str]:
    """The lanes served until nobody waits, each for as long as `cost` says."""
    lanes = []
    while (job := queue.get(wait=False)) is not None:
        lanes.append(job.lane)
        queue.done(job, cost(job.lane))
    return lanes


def test_one_that_comes_after_many_of_another_waits_for_one_of_them() -> None:
    queue = FairQueue(most_at_once=1)
    queued(queue, "many", 100)
    first = queue.get()
    assert first is not None
    queued(queue, "few")
    queue.done(first, 0.01)
    assert order(queue)[0] == "few"


def test_time_is_shared_and_not_turns() -> None:
    queue = FairQueue(most_at_once=1)
    queued(queue, "dear", 20)
    queued(queue, "cheap", 20)
    served_first = order(queue, lambda lane: 0.1 if lane == "dear" else 0.01)[:11]
    assert served_first.count("cheap") >= 9


def test_who_asks_for_much_work_without_a_pause_is_served_by_one_thread() -> None:
    """The first jobs have all threads. After a pause they have them again."""
    queue = FairQueue(most_at_once=2, long_seconds=1.0)

    def taken(most: int) -> list[Job]:
        jobs = [queue.get(wait=False) for _ in range(most)]
        return [job for job in jobs if job is not None]

    queued(queue, "many", 10)
    first = taken(3)
    assert len(first) == 2
    for job in first:
        queue.done(job, 0.6)
    (alone,) = taken(2)
    queued(queue, "few")
    (few,) = taken(2)
    assert few.lane == "few"
    queue.done(few, 0.1)
    queue.done(alone, 0.6)
    order(queue)
    queued(queue, "many", 2)
    assert len(taken(2)) == 2


def test_a_pause_counts_also_while_others_are_served() -> None:
    queue = FairQueue(most_at_once=2, long_seconds=1.0)
    queued(queue, "many", 2)
    first = [queue.get(wait=False) for _ in range(2)]
    queued(queue, "few")
    for job in first:
        assert job is not None
        queue.done(job, 0.6)
    queued(queue, "many", 3)
    taken = [queue.get(wait=False) for _ in range(4)]
    assert [None if job is None else job.lane for job in taken] == ["few", "many", "many", None]


def test_who_was_away_has_saved_nothing_up() -> None:
    queue = FairQueue(most_at_once=1)
    queued(queue, "always", 50)
    for _ in range(40):
        job = queue.get()
        assert job is not None
        queue.done(job, 0.01)
    queued(queue, "back", 10)
    assert order(queue)[:10].count("back") <= 6


def test_the_clouds_own_work_comes_first_but_not_for_ever() -> None:
    queue = FairQueue(most_at_once=1)
    queued(queue, "user", 3)
    queued(queue, CLOUD, 30)
    lanes = order(queue, lambda _: CLOUD_SECONDS / 5)
    assert lanes[:6] == [CLOUD] * 5 + ["user"]
    assert lanes.count("user") == 3
    assert len(lanes) == 33


def test_what_keeps_leases_comes_before_all_else_but_not_for_ever() -> None:
    queue = FairQueue(most_at_once=1)
    queued(queue, "user", 3)
    queued(queue, CLOUD, 30)
    queued(queue, LEASES, 30)
    lanes = order(queue, lambda _: LEASES_SECONDS / 5)
    assert lanes[:13] == [*[LEASES] * 5, CLOUD, *[LEASES] * 5, CLOUD, LEASES]
    assert lanes.index("user") < 40
    assert len(lanes) == 63


def test_who_keeps_leases_may_have_as_many_wait_as_come() -> None:
    queue = FairQueue(most_at_once=1)
    queued(queue, LEASES, MOST_WAITING + 1)
    assert order(queue) == [LEASES] * (MOST_WAITING + 1)


def test_one_of_the_threads_is_left_for_others() -> None:
    queue = FairQueue(most_at_once=2)
    queued(queue, "many", 5)
    taken = [queue.get(wait=False) for _ in range(3)]
    assert [job is not None for job in taken] == [True, True, False]
    queued(queue, "few")
    few = queue.get(wait=False)
    assert few is not None
    assert few.lane == "few"


def test_how_many_wait_is_bounded_and_the_clouds_own_are_not_refused() -> None:
    queue = FairQueue(most_at_once=1)
    queued(queue, "many", MOST_WAITING)
    with pytest.raises(Unavailable):
        queued(queue, "many")
    queued(queue, "few")
    queued(queue, CLOUD, MOST_WAITING + 1)


def test_lanes_that_nobody_uses_are_forgotten() -> None:
    queue = FairQueue(most_at_once=1)
    for n in range(100):
        queued(queue, f"lane {n}")
    order(queue)
    assert queue._lanes == {}


# -- in the database


notes = sa.Table("notes", sa.MetaData(), sa.Column("text", sa.Text, primary_key=True))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(f"sqlite:///{tmp_path / 'db'}") as database:
        notes.metadata.create_all(database.engine)
        yield database


class Occupied:
    """The writer, busy until it is `released`; what is written meanwhile waits."""

    def __init__(self, database: Database) -> None:
        entered = threading.Event()
        self.released = threading.Event()
        self._database = database

        def busy(tx: Tx) -> None:
            entered.set()
            self.released.wait(10)

        self.write(CLOUD, busy)
        assert entered.wait(10)

    def write(self, lane: str, fn: Callable[[Tx], Any]) -> Future[Any]:
        job = Job(fn, lane=lane)
        self._database._writes.put(job)
        return job.future


def test_a_flood_that_fails_again_and_again_does_not_hold_up_what_another_wrote(database: Database) -> None:
    """Each failing job is followed by another, for as long as what came between has not been committed."""
    committed = threading.Event()
    occupied = Occupied(database)

    def fails(tx: Tx) -> None:
        if not committed.is_set():
            occupied.write("flood", fails)
        raise ValueError("no")

    occupied.write("flood", fails)
    written = occupied.write("other", lambda tx: tx.execute(sa.insert(notes).values(text="kept")) and None)
    written.add_done_callback(lambda _: committed.set())
    occupied.released.set()
    written.result(10)
    assert database.read(lambda tx: [row.text for row in tx.all(sa.select(notes))]) == ["kept"]


@pytest.fixture
def groups(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number for each group commit that has begun. The jobs of a test count there."""
    begun: list[int] = []
    commit = database._commit_group

    def counted(connection: Any, first: Job) -> Any:
        begun.append(0)
        return commit(connection, first)

    monkeypatch.setattr(database, "_commit_group", counted)
    return begun


def test_a_group_is_bounded_by_its_jobs_those_that_fail_among_them(
    database: Database, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cumulet.db.engine.GROUP_SECONDS", 1000.0)
    occupied = Occupied(database)

    def fails(tx: Tx) -> None:
        groups[-1] += 1
        raise ValueError("no")

    futures = [occupied.write("flood", fails) for _ in range(3 * GROUP_JOBS)]
    occupied.released.set()
    for future in futures:
        with pytest.raises(ValueError, match="no"):
            future.result(10)
    assert max(groups) <= GROUP_JOBS


def test_a_group_takes_in_jobs_for_as_long_as_a_commit_takes(
    database: Database, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cumulet.db.engine.GROUP_LEAST_SECONDS", 0.0)
    occupied = Occupied(database)

    def works(tx: Tx) -> None:
        groups[-1] += 1
        begun = time.perf_counter()
        while time.perf_counter() <= begun + min(GROUP_SECONDS, database._commit_seconds):
            pass

    futures = [occupied.write("flood", works) for _ in range(20)]
    occupied.released.set()
    for future in futures:
        future.result(10)
    assert sum(groups) == 20
    assert max(groups) == 1, "each commits before the next begins"


def test_a_write_that_cannot_begin_is_answered(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("cumulet.db.engine.transaction", refused)
    job = Job(lambda tx: None)
    database._writes.put(job)
    with pytest.raises(OSError, match="no room"):
        job.future.result(10)


def test_on_sqlite_one_thread_at_a_time_reads_for_a_project(database: Database) -> None:
    entered, released = threading.Event(), threading.Event()

    def busy(tx: Tx) -> None:
        entered.set()
        released.wait(10)

    first, second, of_another = Job(busy, lane="many"), Job(lambda tx: None, lane="many"), Job(lambda tx: 7, lane="few")
    database._reads.put(first)
    assert entered.wait(10)
    database._reads.put(second)
    database._reads.put(of_another)
    assert of_another.future.result(10) == 7
    assert not second.future.running()
    assert not second.future.done()
    released.set()
    assert second.future.result(10) is None


def test_a_write_is_of_the_lane_of_whoever_asks(database: Database) -> None:
    assert Job(lambda tx: None).lane == CLOUD
    token = served.set("project 1")
    try:
        assert Job(lambda tx: None).lane == "project 1"
    finally:
        served.reset(token)
    lanes = database.write(lambda tx: fair_queue.served.get())
    assert lanes == CLOUD  # what follows a commit (waking the conductor) is the cloud's own again


@pytest.mark.parametrize("write", [False, True])
def test_for_whom_the_threads_compute_is_told_but_not_the_clouds_own_work(tmp_path: Path, write: bool) -> None:
    told: list[tuple[str, float]] = []
    with opened(f"sqlite:///{tmp_path / 'cumulet.db'}") as database:
        database.computed = lambda lane, seconds: told.append((lane, seconds))

        async def ask(lane: str) -> None:
            served.set(lane)
            await (database.write_async if write else database.read_async)(lambda tx: sum(range(100_000)))

        for lane in ("somebody", CLOUD):
            asyncio.run(ask(lane))
    assert [lane for lane, _ in told] == ["somebody"]
    assert told[0][1] > 0
