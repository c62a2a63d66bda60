"""All rows of a cloud's database and all files of its images, to return to. A test changes few tables of many: only
these are written again.

Rows are kept as the driver has them. Every start of a cloud reads them all, and SQLAlchemy's statements and types for
that took as long as the rest of the start.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa

from cumulet.db.engine import Database, Tx, metadata
from cumulet.image.files import remove_at, stored


class Snapshot:
    """The rows of all tables at the moment it is made."""

    def __init__(self, tx: Tx) -> None:
        self._rows = {table: _rows(tx, table) for table in _filled(tx)}

    def restore(self, tx: Tx) -> None:
        filled = _filled(tx)
        changed = {table for table in filled if table not in self._rows}
        changed.update(table for table, rows in self._rows.items() if table not in filled or _rows(tx, table) != rows)
        written = _with_those_that_refer_to(changed)
        for table in reversed(written):
            tx.execute(sa.delete(table))
        for table in written:
            if rows := self._rows.get(table):
                tx.connection.exec_driver_sql(_insert(table, tx.connection.dialect.paramstyle), rows)


class ImageFiles:
    """The files of an image store at the moment it is made. FileNotFoundError: one of them was taken away meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = [name for name in stored(folder) if not (folder / name).is_dir()]
        self._content = {name: (folder / name).read_bytes() for name in names}

    def restore(self) -> None:
        there = stored(self._folder)
        for name in there - self._content.keys():
            remove_at(self._folder / name)
        for name in self._content.keys() - there:
            (self._folder / name).write_bytes(self._content[name])


def records_and_files(db: Database, folder: Path) -> tuple[Snapshot, ImageFiles]:
    """A cloud that has just started may go on with an import and take its files away: then all is read once more."""
    while True:
        records = db.read(Snapshot)
        try:
            return records, ImageFiles(folder)
        except FileNotFoundError:
            continue


def _with_those_that_refer_to(changed: Iterable[sa.Table]) -> list[sa.Table]:
    """In the order in which they are filled. Deleting a row deletes or forbids what refers to it elsewhere."""
    found = set(changed)
    for table in metadata.sorted_tables:
        if any(key.column.table in found for key in table.foreign_keys):
            found.add(table)
    return [table for table in metadata.sorted_tables if table in found]


def _filled(tx: Tx) -> set[sa.Table]:
    """The tables that have rows, by one question."""
    asked = " UNION ALL ".join(
        f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM \"{name}\")"  # noqa: S608 - our own tables
        for name in metadata.tables
    )
    return {metadata.tables[str(row[0])] for row in tx.connection.exec_driver_sql(asked)}


def _rows(tx: Tx, table: sa.Table) -> list[tuple[object, ...]]:
    return [tuple(row) for row in tx.connection.exec_driver_sql(_select(table))]


@functools.cache
def _select(table: sa.Table) -> str:
    """JSON as its text: a driver may have read it already, and would not write what it made of it."""
    texts = {column for column in table.columns if isinstance(column.type, sa.JSON)}
    read = ", ".join(f'CAST("{c.name}" AS TEXT)' if c in texts else f'"{c.name}"' for c in table.columns)
    return f'SELECT {read} FROM "{table.name}"'  # noqa: S608


@functools.cache
def _insert(table: sa.Table, paramstyle: str) -> str:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    places = ", ".join(["?" if paramstyle == "qmark" else "%s"] * len(table.columns))
    return f'INSERT INTO "{table.name}" ({columns}) VALUES ({places})'  # noqa: S608
