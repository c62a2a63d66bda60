"""All rows of a cloud's database, to return to. A test changes few tables of many: only these are written again."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from cumulet.db.engine import Tx, metadata


class Snapshot:
    """The rows of all tables at the moment it is made."""

    def __init__(self, tx: Tx) -> None:
        self._tables = metadata.sorted_tables
        self._refers_to = {table: {key.column.table for key in table.foreign_keys} for table in self._tables}
        found = {table: _rows(tx, table) for table in self._tables}
        self._rows = {table: rows for table, rows in found.items() if rows}
        empty = [table for table, rows in found.items() if not rows]
        self._begun = sa.union_all(
            *(sa.select(sa.literal(table.name)).where(sa.exists(sa.select(1).select_from(table))) for table in empty)
        )
        """The names of the tables that were empty and are not now, in one question."""

    def restore(self, tx: Tx) -> None:
        changed = {metadata.tables[str(row[0])] for row in tx.all(self._begun)}
        changed.update(table for table, rows in self._rows.items() if _rows(tx, table) != rows)
        written = self._with_those_that_refer_to(changed)
        for table in reversed(written):
            tx.execute(sa.delete(table))
        for table in written:
            if rows := self._rows.get(table):
                tx.execute(sa.insert(table), rows)

    def _with_those_that_refer_to(self, changed: Iterable[sa.Table]) -> list[sa.Table]:
        """In the order in which they are filled. Deleting a row deletes or forbids what refers to it elsewhere."""
        found = set(changed)
        for table in self._tables:
            if self._refers_to[table] & found:
                found.add(table)
        return [table for table in self._tables if table in found]


def _rows(tx: Tx, table: sa.Table) -> list[dict[str, object]]:
    return [dict(row._mapping) for row in tx.all(sa.select(table))]
