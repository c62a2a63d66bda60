"""Many records at once: found by values of one column, or changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany, in_parts
from cumulet.network.store import TABLES, RecordT, select

_MANY: dict[tuple[type[object], str], OfMany[*tuple[object, ...]]] = {}


def find_many(tx: Tx, record: type[RecordT], column: str, values: Iterable[str]) -> list[RecordT]:
    """The records whose column has one of these values. There may be any number of values."""
    wanted = _MANY.get((record, column))
    if wanted is None:
        wanted = _MANY[record, column] = OfMany(select(record), TABLES[record].c[column])
    return [record(**row._mapping) for row in wanted.rows(tx, sorted(values))]


def change_many(tx: Tx, record: type[RecordT], record_ids: Sequence[str], **values: object) -> None:
    """Set columns of many resources, and count the revision of each that this changes. No user asked for it: their
    `updated_at` stays."""
    table = TABLES[record]
    changes = sa.or_(*(table.c[name].is_distinct_from(value) for name, value in values.items()))
    for part in in_parts(record_ids):
        tx.changed(
            sa.update(table).where(table.c.id.in_(part), changes).values(revision=table.c.revision + 1, **values)
        )
