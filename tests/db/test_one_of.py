"""A condition on many values is one statement, with the same rows on every database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from cumulet.db.engine import Database, opened
from cumulet.db.one_of import how_many, one_of
from tests import sql_plans
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]

metadata = sa.MetaData()
things = sa.Table(
    "of_many", metadata, sa.Column("id", sa.String(36), primary_key=True), sa.Column("size", sa.Integer, index=True)
)
tags = sa.Table(
    "of_many_tags",
    metadata,
    sa.Column("thing_id", sa.String(36), primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
)
HARD = 'a "quoted" \\ é\u2028 \' text%s'


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.postgres)], ids=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    url = request.getfixturevalue("database_url") if request.param else "sqlite://"
    with opened(url, inline=True) as database:
        metadata.drop_all(database.engine)
        metadata.create_all(database.engine)
        rows: list[dict[str, object]] = [
            {"id": "a", "size": 1},
            {"id": "b", "size": None},
            {"id": HARD, "size": 2**31 - 1},
        ]
        held = [{"thing_id": "a", "tag": "red"}, {"thing_id": "a", "tag": HARD}, {"thing_id": "b", "tag": "red"}]
        database.write(lambda tx: (tx.execute(sa.insert(things), rows), tx.execute(sa.insert(tags), held)))
        yield database


def found(database: Database, condition: sa.ColumnElement[bool]) -> list[str]:
    rows = database.read(lambda tx: tx.all(sa.select(things.c.id).where(condition).order_by(things.c.id)))
    return [row.id for row in rows]


def test_it_finds_what_has_one_of_the_values(database: Database) -> None:
    many = [f"none {n}" for n in range(5000)]
    assert found(database, one_of(things.c.id, ["a", HARD, *many])) == sorted(["a", HARD])
    assert found(database, one_of(things.c.id, ["a"])) == ["a"]
    assert found(database, one_of(things.c.id, [])) == []
    assert found(database, one_of(things.c.size, [1, 2, 2**31 - 1, 2**63 - 1])) == sorted(["a", HARD])
    assert found(database, ~one_of(things.c.size, [1, 2])) == [HARD], "what is null is neither in nor out"
    assert found(database, ~one_of(things.c.id, many)) == sorted(["a", "b", HARD])


def test_it_counts_what_another_table_has(database: Database) -> None:
    def held(*wanted: str) -> sa.ColumnElement[int]:
        return how_many(tags.c.tag, wanted, tags.c.thing_id == things.c.id)

    assert found(database, held("red", HARD) >= 2) == ["a"]
    assert found(database, held("red", "blue") >= 1) == ["a", "b"]
    assert found(database, held("red") < 1) == [HARD]


def test_it_is_the_same_statement_for_any_number_of_values_and_uses_the_index(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sql_plans.statements(monkeypatch) as seen:
        for number in (2, 3, 500):
            found(database, one_of(things.c.size, range(number)))
    assert len([sql for sql in seen if "of_many" in sql]) == 1
    if database.is_sqlite:
        plan = "EXPLAIN QUERY PLAN SELECT id FROM of_many WHERE (size IN (SELECT value FROM json_each('[1, 2]')))"
        assert "size IN (SELECT value FROM json_each(?))" in next(sql for sql in seen if "of_many" in sql)
        lines = database.read(lambda tx: tx.all(sa.text(plan)))
        assert any("SEARCH of_many USING" in str(line) for line in lines)
