"""Records of which a column is one of many values."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.network.store import TABLES, RecordT, select


def find_many(tx: Tx, record: type[RecordT], column: str, values: Iterable[str]) -> list[RecordT]:
    """The records whose column is one of these values, which may be many."""
    return [record(**row._mapping) for row in _many(record, column).rows(tx, sorted(values))]


@functools.cache
def _many(record: type[object], column: str) -> OfMany[*tuple[object, ...]]:
    return OfMany(select(record), TABLES[record].c[column])
