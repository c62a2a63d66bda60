"""A caller that gives up does not stop the database's threads, which serve the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.db.engine import Database, Tx, opened
from cumulet.db.health import problem_of
from cumulet.db.transaction import ROWS_AT_ONCE


class Given:
    """In place of `GivingWay`: notes on which thread it is called."""

    def __init__(self, others: Callable[[], bool]) -> None:
        self.others = others
        self.threads: list[str] = []
        given.append(self)

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name)


given: list[Given] = []


def test_a_thread_that_reads_a_long_list_may_give_way_before_it_and_after_each_piece_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.clear()
    monkeypatch.setattr("cumulet.db.engine.GivingWay", Given)
    table = sa.Table("numbers", sa.MetaData(), sa.Column("number", sa.Integer))

    def fill(tx: Tx) -> None:
        table.create(tx.connection)
        tx.execute(table.insert(), [{"number": number} for number in range(3 * ROWS_AT_ONCE + 1)])

    def by_sqlalchemy(tx: Tx) -> int:
        return len(tx.all(sa.select(table)))

    def prepared(tx: Tx) -> int:
        return len(tx.all(sa.select(table), {}))

    with opened(f"sqlite:///{tmp_path / 'cumulet.db'}") as database:
        database.write(fill)
        for count in (by_sqlalchemy, prepared):
            assert asyncio.run(database.read_async(count)) == 3 * ROWS_AT_ONCE + 1
            called = [name for one in given for name in one.threads]
            assert len(called) == 4
            assert all(name.startswith("db-read") for name in called)
            # Nobody waits for a thread that did not take the job from the queue.
            assert asyncio.run(database.look_up(count)) == 3 * ROWS_AT_ONCE + 1
            assert sum(len(one.threads) for one in given) == 4
            for one in given:
                one.threads.clear()


def test_readers_give_way_to_the_event_loop_and_to_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given.clear()
    monkeypatch.setattr("cumulet.db.engine.GivingWay", Given)
    with opened(f"sqlite:///{tmp_path / 'cumulet.db'}") as database:
        seen: list[bool] = []
        database.write(lambda tx: seen.append(given[0].others()))
        assert seen == [True]
        assert not given[0].others()
        database.busy = lambda: True
        assert given[0].others()


@pytest.mark.parametrize("when", ["waits its turn", "is being done"])
def test_a_caller_that_gives_up_while_its_write_does_not_end_the_writer(tmp_path: Path, when: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'cumulet.db'}")
    begun, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def slow(tx: Tx) -> None:
        begun.set()
        assert go_on.wait(10)
        done.append("slow")

    async def story() -> None:
        first = asyncio.create_task(database.write_async(slow))
        await asyncio.to_thread(begun.wait, 10)
        second = asyncio.create_task(database.write_async(lambda tx: done.append("second")))
        await asyncio.sleep(0)
        gives_up = second if when == "waits its turn" else first
        gives_up.cancel()
        await asyncio.gather(gives_up, return_exceptions=True)
        go_on.set()
        async with asyncio.timeout(10):
            await database.write_async(lambda tx: done.append("last"))

    asyncio.run(story())
    database.close()
    assert done[-1] == "last"
    assert ("second" in done) == (when == "is being done")


def test_a_transaction_that_cannot_begin_does_not_end_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds SQLite's lock for too long, and the caller has given up meanwhile."""
    begins, given_up = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def locked(*_: object, **__: object) -> Iterator[None]:
        begins.set()
        assert given_up.wait(60)
        raise sa.exc.OperationalError("BEGIN IMMEDIATE", None, Exception("database is locked"))
        yield

    async def story(database: Database) -> None:
        with monkeypatch.context() as broken:
            broken.setattr("cumulet.db.engine.transaction", locked)
            gives_up = asyncio.create_task(database.write_async(lambda tx: None))
            await asyncio.to_thread(begins.wait, 60)
            gives_up.cancel()
            await asyncio.gather(gives_up, return_exceptions=True)
            given_up.set()
            with pytest.raises(sa.exc.OperationalError):
                await database.write_async(lambda tx: None)
        async with asyncio.timeout(60):
            assert await database.write_async(lambda tx: 7) == 7
        assert await problem_of(database) is None

    with opened(f"sqlite:///{tmp_path / 'cumulet.db'}") as database:
        asyncio.run(story(database))


def test_a_process_whose_database_thread_has_ended_is_not_well() -> None:
    """Reads still answer, and nothing is written any more."""
    with opened("sqlite://") as database:
        database._writes.close()
        database.threads[0].join()
        assert asyncio.run(problem_of(database)) == "the database cannot be written or read by this process"


def test_a_new_file_has_its_log_before_others_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two connections that change it together: one of them is told at once that the database is locked."""
    monkeypatch.setattr(Database, "_sqlite_writer", lambda _, connection: connection.close())
    file = tmp_path / "cumulet.db"
    database = Database(f"sqlite:///{file}")
    other = sqlite3.connect(file)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
    database.close()


@pytest.mark.parametrize("inline", [False, True])
def test_what_fails_after_a_commit_stops_nobody_and_is_logged(
    tmp_path: Path, inline: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that writes serves everybody: it goes on, and so do other callbacks of the same commit."""
    called: list[str] = []
    things = sa.table("things", sa.column("n"))

    def fail() -> None:
        raise RuntimeError("Event loop is closed")

    def work(tx: Tx) -> str:
        tx.after_commit(fail)
        tx.after_commit(lambda: called.append("a callback"))
        tx.execute(sa.insert(sa.Table("things", sa.MetaData(), sa.Column("n", sa.Integer))).values(n=1))
        return "done"

    with opened(f"sqlite:///{tmp_path / 'cumulet.db'}", inline=inline) as database:
        database.write(lambda tx: tx.execute(sa.text("CREATE TABLE things (n INTEGER)")))
        watched = frozenset({"things"})
        database.watch(watched, fail)
        database.watch(watched, lambda: called.append("who watches"))
        with caplog.at_level(logging.ERROR):
            assert [database.write(work) for _ in range(2)] == ["done"] * 2
        assert database.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(things))) == 2
    assert called == ["a callback", "who watches"] * 2
    assert len(caplog.records) == 4
