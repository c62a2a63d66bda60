"""A savepoint takes back its own block and nothing else; a failing job takes nothing from its neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.db.engine import Database, Tx, opened
from cumulet.db.fair_queue import Job

notes = sa.Table("notes", sa.MetaData(), sa.Column("text", sa.Text, primary_key=True))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(f"sqlite:///{tmp_path / 'db'}") as database:
        notes.metadata.create_all(database.engine)
        yield database


def note(tx: Tx, text: str) -> None:
    tx.execute(sa.insert(notes).values(text=text))


def noted(database: Database) -> set[str]:
    return database.read(lambda tx: {row.text for row in tx.all(sa.select(notes))})


def fail_in_a_block(tx: Tx) -> None:
    with tx.savepoint():
        note(tx, "outer block")
        with tx.savepoint():
            note(tx, "inner block that ends well")
        with tx.savepoint():
            raise ValueError("inner")


def test_a_block_that_raises_is_taken_back_and_the_transaction_goes_on(database: Database) -> None:
    def work(tx: Tx) -> None:
        note(tx, "before")
        with pytest.raises(ValueError, match="inner"):
            fail_in_a_block(tx)
        with tx.savepoint():
            note(tx, "after")

    database.write(work)
    assert noted(database) == {"before", "after"}


def test_an_inner_block_is_taken_back_alone(database: Database) -> None:
    def work(tx: Tx) -> None:
        with tx.savepoint():
            note(tx, "outer")
            with pytest.raises(ValueError, match="inner"):
                fail_in_a_block(tx)

    database.write(work)
    assert noted(database) == {"outer"}


def test_jobs_of_one_group_fail_alone(database: Database) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def first(tx: Tx) -> None:
        note(tx, "first")
        entered.set()
        go_on.wait(10)

    def refused(tx: Tx) -> None:
        note(tx, "refused")
        raise ValueError("no")

    with ThreadPoolExecutor(3) as pool:
        one = pool.submit(database.write, first)
        assert entered.wait(10)
        two = pool.submit(database.write, refused)
        three = pool.submit(database.write, lambda tx: note(tx, "third"))
        go_on.set()
        one.result(10)
        three.result(10)
        with pytest.raises(ValueError, match="no"):
            two.result(10)
    assert noted(database) == {"first", "third"}


def test_a_group_whose_transaction_is_gone_is_not_said_to_be_committed(database: Database) -> None:
    """As when the disk is full: SQLite rolls back the whole group, so none of its jobs may succeed."""

    def rolled_back(tx: Tx) -> None:
        driver = tx.connection.connection.dbapi_connection
        assert driver is not None
        driver.cursor().execute("ROLLBACK")
        raise OSError("the disk is full")

    second = Job(rolled_back)

    def first(tx: Tx) -> None:
        note(tx, "first")
        database._writes.put(second)  # so that both are in one group

    with pytest.raises(OSError, match="the disk is full"):
        database.write(first)
    with pytest.raises(OSError, match="the disk is full"):
        second.future.result(10)
    assert noted(database) == set()
    database.write(lambda tx: note(tx, "later"))
    assert noted(database) == {"later"}
