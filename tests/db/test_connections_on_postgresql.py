"""The connections of a process to PostgreSQL are few: only its own threads keep one, and who gets none is told so."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from cumulet.clock import SystemClock
from cumulet.db.clock import AskedAgain, DatabaseClock
from cumulet.db.engine import Database, opened
from cumulet.db.reach import NoAnswer, is_away
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]

pytestmark = pytest.mark.postgres
ONE = sa.text("SELECT 1")
THREADS = 8


def pool_of(db: Database) -> QueuePool:
    pool = db.engine.pool
    assert isinstance(pool, QueuePool)
    return pool


def test_a_thread_that_is_not_the_databases_keeps_no_connection(database_url: str) -> None:
    """Those of a default executor are as many as there are processors and four more, and never end."""
    together = threading.Barrier(THREADS)

    def reads(db: Database) -> int:
        together.wait(30)
        return int(db.read(lambda tx: tx.scalar(ONE)))

    with opened(database_url) as db, ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(reads, [db] * THREADS)) == [1] * THREADS
        assert pool_of(db).checkedout() == 0


def test_to_ask_for_the_time_takes_only_the_readers_connections(database_url: str) -> None:
    async def ask(db: Database) -> int:
        clock = DatabaseClock(db, SystemClock())
        await clock.ask()
        threads = set(threading.enumerate())
        await AskedAgain(clock).round()
        assert set(threading.enumerate()) == threads
        return clock.now_us()

    with opened(database_url) as db:
        assert abs(asyncio.run(ask(db)) / 1e6 - time.time()) < 60
        assert pool_of(db).checkedout() >= 1, "a reader's"


def test_who_gets_no_connection_is_told_that_the_database_does_not_answer(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(database_url) as db:
        monkeypatch.setattr(pool_of(db), "_timeout", 0.01)
        monkeypatch.setattr(pool_of(db), "_max_overflow", 0)
        held = [db.engine.connect() for _ in range(pool_of(db).size())]
        for work in (db.write, db.read):
            with pytest.raises(NoAnswer) as problem:
                work(lambda tx: tx.scalar(ONE))
            assert is_away(problem.value)
        for connection in held:
            connection.close()
        assert [work(lambda tx: tx.scalar(ONE)) for work in (db.write, db.read)] == [1, 1]
