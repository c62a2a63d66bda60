"""Records found by many values of one column."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.network.store import TABLES, RecordT, select

_MANY: dict[tuple[type[object], str], OfMany[*tuple[object, ...]]] = {}


def find_many(tx: Tx, record: type[RecordT], column: str, values: Iterable[str]) -> list[RecordT]:
    """The records whose column has one of these values. There may be any number of values."""
    wanted = _MANY.get((record, column))
    if wanted is None:
        wanted = _MANY[record, column] = OfMany(select(record), TABLES[record].c[column])
    return [record(**row._mapping) for row in wanted.rows(tx, sorted(values))]
