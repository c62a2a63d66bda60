"""A transaction that PostgreSQL could not serialize is tried again; after many tries, it runs alone."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.db.engine import ALONE_AFTER_TRIES, SERIALIZATION_RETRIES, Tx, opened
from cumulet.db.reach import is_away
from cumulet.db.turns import Turns
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]

pytestmark = pytest.mark.postgres
REFUSE = sa.text("DO $$ BEGIN RAISE EXCEPTION 'another try' USING ERRCODE = '40001'; END $$")


def test_a_read_that_could_not_be_serialized_is_tried_again(database_url: str) -> None:
    tries: list[int] = []

    def fails_twice(tx: Tx) -> int:
        tries.append(1)
        if len(tries) < 3:
            tx.execute(REFUSE)
        return int(tx.scalar(sa.text("SELECT 7")))

    with opened(database_url) as database:
        assert database.read(fails_twice) == 7
        assert len(tries) == 3
        tries.clear()

        def fails(tx: Tx) -> None:
            tries.append(1)
            tx.execute(REFUSE)

        with pytest.raises(DBAPIError) as problem:
            database.read(fails)
        assert not is_away(problem.value)
        assert len(tries) == SERIALIZATION_RETRIES
        assert database.read(lambda tx: tx.scalar(sa.text("SELECT 1"))) == 1


@pytest.mark.parametrize("inline", [False, True])
def test_a_connection_that_has_gone_costs_a_reader_nothing_and_two_in_a_row_are_told(
    database_url: str, inline: bool
) -> None:
    """As after a restart of the server, or of what stands between."""
    number = sa.text("SELECT pg_backend_pid()")
    with opened(database_url, inline=inline) as database, opened(database_url) as other:

        def end(pid: int) -> None:
            other.write(lambda tx: tx.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid}))

        end(database.read(lambda tx: int(tx.scalar(number))))
        assert database.read(lambda tx: tx.scalar(sa.text("SELECT 2"))) == 2
        tries: list[int] = []

        def dies(tx: Tx) -> None:
            tries.append(int(tx.scalar(number)))
            end(tries[-1])
            tx.scalar(number)

        with pytest.raises(DBAPIError) as problem:
            database.read(dies)
        assert is_away(problem.value)
        assert len(tries) == 2
        assert database.read(lambda tx: tx.scalar(sa.text("SELECT 3"))) == 3


@pytest.mark.parametrize(
    ("state", "away"),
    [
        *((state, True) for state in ("57P01", "57014", "53200", "53300", "25006", "25P03", "08006")),
        *((state, False) for state in ("53100", "23505", "42P01", "22021", "40001")),
    ],
)
def test_who_is_told_that_the_database_is_away(database_url: str, state: str, away: bool) -> None:
    """Errors about the server's state, not about a statement."""
    refuse = sa.text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")
    with opened(database_url, inline=True) as database, pytest.raises(DBAPIError) as problem:
        database.write(lambda tx: tx.execute(refuse))
    assert is_away(problem.value) is away


def test_a_long_transaction_among_short_ones_comes_to_its_end(database_url: str) -> None:
    """Each try fails because another transaction has written meanwhile, until it runs alone."""
    tries: list[int] = []
    add, found = sa.text("UPDATE counter SET n = n + :more"), sa.text("SELECT n FROM counter")
    with opened(database_url) as database:
        database.write(lambda tx: tx.execute(sa.text("CREATE TABLE counter (n INTEGER)")))
        database.write(lambda tx: tx.execute(sa.text("INSERT INTO counter VALUES (0)")))

        def long(tx: Tx) -> None:
            tries.append(int(tx.scalar(found)))
            if len(tries) <= ALONE_AFTER_TRIES:
                database.write(lambda other: other.execute(add, {"more": 1}))
            tx.execute(add, {"more": 100})

        database.write(long)
        assert tries == [*range(ALONE_AFTER_TRIES + 1)]
        assert database.read(lambda tx: tx.scalar(found)) == ALONE_AFTER_TRIES + 100


def test_who_wants_to_be_alone_waits_for_those_before_and_keeps_back_those_after() -> None:
    turns, said = Turns(), []
    begun, let_go, came = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with turns.beside_others():
            begun.set()
            let_go.wait(30)
            said.append("first")

    def alone() -> None:
        came.set()
        with turns.alone():
            said.append("alone")

    def later() -> None:
        with turns.beside_others():
            said.append("later")

    threads = [threading.Thread(target=one) for one in (first, alone, later)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    assert came.wait(30)
    deadline = time.monotonic() + 30
    while not turns._want_alone:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    threads[2].start()
    let_go.set()
    for one in threads:
        one.join(30)
    assert said == ["first", "alone", "later"]
