"""Long lists of ids, cut into parts that every database takes in one IN list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVarTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from cumulet.db.engine import Tx

Columns = TypeVarTuple("Columns")


def in_parts(ids: Sequence[str], size: int = 1000) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


class OfMany(Generic[*Columns]):
    """A SELECT of rows whose `column` is one of many values.

    For SQLite it is built once for each power of two, so that it can be prepared (`db.prepared`). A shorter list is
    filled up with one of its own values. PostgreSQL gets all values as one array: psycopg takes long to read a
    statement with hundreds of parameters, and does so each time.
    """

    MOST = 512

    def __init__(
        self, statement: sa.Select[*Columns], column: sa.ColumnElement[str] | sa.ColumnElement[str | None]
    ) -> None:
        self._statement = statement
        self._column = column
        self._made: dict[int, sa.Select[*Columns]] = {}
        array = sa.bindparam("all_of", type_=ARRAY(sa.String))
        self._of_array = statement.where(column == sa.any_(array))

    def rows(self, tx: Tx, values: Sequence[str], **others: object) -> list[sa.Row[*Columns]]:
        """`others`: the statement's own parameters."""
        if tx.connection.dialect.name == "postgresql":
            return tx.all(self._of_array, {"all_of": list(values), **others}) if values else []
        found: list[sa.Row[*Columns]] = []
        for part in in_parts(values, self.MOST):
            size = 1 << (len(part) - 1).bit_length()
            if size not in self._made:
                places = [sa.bindparam(f"one_of_{n}", type_=sa.String) for n in range(size)]
                self._made[size] = self._statement.where(self._column.in_(places))
            filled = [*part, *([part[0]] * (size - len(part)))]
            found += tx.all(self._made[size], {f"one_of_{n}": value for n, value in enumerate(filled)} | others)
        return found
