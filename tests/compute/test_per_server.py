"""A reconciler that sees to servers: one transaction for each, and one that fails holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from cumulet.clock import SystemClock
from cumulet.compute.per_server import PerServer
from cumulet.conductor import findings
from cumulet.db import schema
from cumulet.db.engine import Database, Tx, opened


class Seen(PerServer):
    """Notes whom it saw to, and whether it might write meanwhile."""

    def __init__(self, db: Database, failing: dict[str, Exception]) -> None:
        super().__init__(db=db, name="seen", clock=SystemClock(), seconds=None)
        self.failing = failing
        self.looked: list[bool] = []
        self.transactions: list[tuple[str, Tx]] = []

    def find(self, tx: Tx) -> Sequence[str]:
        self.looked.append(tx.writable)
        return ["one", "two", "three"]

    def see_to(self, tx: Tx, server_id: str) -> None:
        self.transactions.append((server_id, tx))
        if server_id in self.failing:
            raise self.failing[server_id]
        tx.execute(sa.text("INSERT INTO seen VALUES (:id)"), {"id": server_id})

    def kept(self) -> list[str]:
        return self._db.read(lambda tx: [str(row[0]) for row in tx.all(sa.text("SELECT id FROM seen"))])


@pytest.fixture
def db() -> Iterator[Database]:
    with opened("sqlite://") as database:
        schema.prepare(database)
        database.write(lambda tx: tx.execute(sa.text("CREATE TABLE seen (id TEXT)")))
        yield database


def test_it_looks_without_writing_and_sees_to_each_in_a_transaction_of_its_own(db: Database) -> None:
    seen = Seen(db, {})
    asyncio.run(seen.round())
    assert seen.looked == [False]
    assert [server_id for server_id, _ in seen.transactions] == ["one", "two", "three"]
    assert len({id(tx) for _, tx in seen.transactions}) == 3
    assert seen.kept() == ["one", "two", "three"]


@pytest.mark.parametrize("error", [RuntimeError("no"), IntegrityError("", {}, Exception("taken"))])
def test_a_server_that_fails_holds_up_no_other(
    db: Database, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    seen = Seen(db, {"two": error})
    asyncio.run(seen.round())
    assert seen.kept() == ["one", "three"]
    assert "seen: server two failed, will retry" in caplog.text
    (noted,) = db.read(findings.newest)
    assert (noted.reconciler, noted.finding, noted.subject) == ("seen", "round-failed", "two")
    assert noted.done == f"failed, will retry: {type(error).__name__}"


def test_a_database_that_is_away_ends_the_round(db: Database) -> None:
    """The others would fail as well, and wait as long."""
    seen = Seen(db, {"two": OperationalError("", {}, Exception("away"))})
    with pytest.raises(OperationalError):
        asyncio.run(seen.round())
    assert seen.kept() == ["one"]
