"""Numbers too large for a column of INTEGER: a request that names one finds nothing, and does not fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.db.engine import Database, opened
from cumulet.db.reach import is_away
from cumulet.web.annotations import LARGEST_INTEGER
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres

metadata = sa.MetaData()
counted = sa.Table(
    "counted",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("number", sa.Integer, nullable=False),
)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with opened(database_url, inline=True) as database:
        metadata.drop_all(database.engine)
        metadata.create_all(database.engine)
        database.write(lambda tx: tx.execute(sa.insert(counted), [{"number": 5}, {"number": 6}]))
        yield database


@pytest.mark.parametrize("number", [2**31, LARGEST_INTEGER, -LARGEST_INTEGER])
def test_it_is_compared_with_what_is_there(database: Database, number: int) -> None:
    def found(condition: sa.ColumnElement[bool]) -> list[int]:
        rows = database.read(lambda tx: tx.all(sa.select(counted.c.id).where(condition).limit(LARGEST_INTEGER)))
        return sorted(row.id for row in rows)

    assert found(counted.c.id == number) == []
    assert found(counted.c.id.in_([number, 2])) == [2]
    assert found(counted.c.number < number) == ([1, 2] if number > 0 else [])


def test_columns_stay_as_they_are_and_keep_no_such_number(database: Database) -> None:
    types = sa.text("SELECT data_type FROM information_schema.columns WHERE table_name = 'counted'")
    assert {row.data_type for row in database.read(lambda tx: tx.all(types))} == {"integer"}
    with pytest.raises(DBAPIError) as problem:
        database.write(lambda tx: tx.changed(sa.update(counted).values(number=2**31)))
    assert not is_away(problem.value)
    assert str(2**31) not in str(problem.value), "errors are logged"
