"""Partial indexes, made by DDL with their table."""

from __future__ import annotations

import sqlalchemy as sa


def index_where(table: sa.Table, name: str, *columns: str, where: str) -> None:
    """Index `columns` of those rows of `table` for which `where` holds.

    `where` is SQL that SQLite and PostgreSQL both read. `sa.Index(postgresql_where=...)` would do the same, but imports
    SQLAlchemy's whole PostgreSQL dialect into every process: a fifteenth of a cloud's start.
    """
    _made(table, "INDEX", name, columns, where)


def unique_where(table: sa.Table, name: str, *columns: str, where: str) -> None:
    """Make `columns` unique among the rows of `table` for which `where` holds, as `index_where`."""
    _made(table, "UNIQUE INDEX", name, columns, where)


def _made(table: sa.Table, what: str, name: str, columns: tuple[str, ...], where: str) -> None:
    statement = f"CREATE {what} {name} ON {table.name} ({', '.join(columns)}) WHERE {where}"
    sa.event.listen(table, "after_create", sa.DDL(statement))  # type: ignore[no-untyped-call]
