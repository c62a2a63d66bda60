"""Long lists of ids, cut into parts that every database takes in one IN list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVarTuple

import sqlalchemy as sa

from cumulet.db.engine import Tx

Columns = TypeVarTuple("Columns")


def in_parts(ids: Sequence[str], size: int = 1000) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


class OfMany(Generic[*Columns]):
    """A SELECT of rows whose `column` is one of many values.

    It is built once for each power of two, so that it can be prepared (`db.prepared`). A shorter list is filled up
    with one of its own values.
    """

    MOST = 512

    def __init__(
        self, statement: sa.Select[*Columns], column: sa.ColumnElement[str] | sa.ColumnElement[str | None]
    ) -> None:
        self._statement = statement
        self._column = column
        self._made: dict[int, sa.Select[*Columns]] = {}

    def rows(self, tx: Tx, values: Sequence[str], **others: object) -> list[sa.Row[*Columns]]:
        """`others`: the statement's own parameters."""
        found: list[sa.Row[*Columns]] = []
        for part in in_parts(values, self.MOST):
            size = 1 << (len(part) - 1).bit_length()
            if size not in self._made:
                places = [sa.bindparam(f"one_of_{n}", type_=sa.String) for n in range(size)]
                self._made[size] = self._statement.where(self._column.in_(places))
            filled = [*part, *([part[0]] * (size - len(part)))]
            found += tx.all(self._made[size], {f"one_of_{n}": value for n, value in enumerate(filled)} | others)
        return found
