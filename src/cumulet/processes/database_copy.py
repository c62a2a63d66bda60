"""Copies a cloud's records from SQLite to PostgreSQL: all tables in one transaction, compared before it commits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa

from cumulet.db import schema
from cumulet.db.engine import Database, Tx, metadata
from cumulet.db.schema import OtherState
from cumulet.processes.parts import PARTS as PARTS  # Importing them declares every table.
from cumulet.web.log import redact

BATCH_ROWS = 500


class Copied(msgspec.Struct, frozen=True):
    """A table, and how many rows of it were copied."""

    table: str
    rows: int


def copy(source: Database, target: Database, *, told: Callable[[Copied], None] = lambda _one: None) -> list[Copied]:
    """Copy all records of `source`, which no other process uses, into the empty `target`. Raises OtherState.

    Either all records are copied or none. Afterwards `source` has a note of the copy, and no cloud starts on it.
    """
    if (source.kind, target.kind) != ("sqlite", "postgresql"):
        raise OtherState("a cloud is copied from SQLite to PostgreSQL")
    if not schema.is_current(source):
        raise OtherState("the state was made by another version of Cumulet: start `cumulet up` on it once, and stop it")
    if (elsewhere := schema.moved_to(source)) is not None:
        raise OtherState(f"these records were copied to {elsewhere} already, and may be older than what is there")
    _require_empty(target)
    schema.prepare(target)
    done = source.read(lambda read: target.write(lambda write: _copy_all(read, write, told)))
    place = target.engine.url.set(drivername="postgresql").render_as_string(hide_password=True)
    schema.mark_moved(source, redact(place))
    return done


def keep(source: Database) -> str | None:
    """Let a cloud start on `source` again. Returns where it was copied to; None: nowhere."""
    elsewhere = schema.moved_to(source)
    schema.keep(source)
    return elsewhere


def upgrade(database: Database) -> tuple[str, str]:
    """Upgrade the schema of a cloud to this version. Returns the schema before and now. Raises OtherState."""
    before = schema.version_of(database)
    if before is None:
        raise OtherState("there is no cloud in this database: `cumulet up --database` makes one")
    schema.refuse_moved(database)
    try:
        schema.prepare(database)
    except schema.SchemaTooNew as error:
        raise OtherState(str(error)) from error
    return before, schema.HEAD


def _require_empty(target: Database) -> None:
    with target.engine.connect() as connection:
        present = set(sa.inspect(connection).get_table_names())
        for table in metadata.sorted_tables:
            if (
                table.name in present
                and connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first()
            ):
                raise OtherState(f"the database holds a cloud already (table {table.name}): name an empty one")


def _copy_all(read: Tx, write: Tx, told: Callable[[Copied], None]) -> list[Copied]:
    done = []
    for table in metadata.sorted_tables:
        rows = [dict(row._mapping) for row in read.all(sa.select(table))]
        for batch in _parents_first(table, rows):
            write.execute(sa.insert(table), batch)
        _go_on_counting(write, table)
        arrived = [dict(row._mapping) for row in write.all(sa.select(table))]
        if _digest(rows) != _digest(arrived):
            raise OtherState(f"table {table.name} did not arrive as it is: nothing was copied")
        done.append(Copied(table.name, len(rows)))
        told(done[-1])
    return done


def _parents_first(table: sa.Table, rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows in batches. In a table whose rows refer to rows of the same table, the referred ones come first."""
    own = [(key.parent.name, key.column.name) for key in table.foreign_keys if key.column.table is table]
    there: dict[str, set[Any]] = {column: set() for _, column in own}
    left = rows
    while left:
        ready = [row for row in left if all(row[name] is None or row[name] in there[column] for name, column in own)]
        if not ready:
            raise OtherState(f"rows of table {table.name} name each other in a circle")
        for column, known in there.items():
            known.update(row[column] for row in ready)
        for start in range(0, len(ready), BATCH_ROWS):
            yield ready[start : start + BATCH_ROWS]
        chosen = {id(row) for row in ready}
        left = [row for row in left if id(row) not in chosen]


def _go_on_counting(write: Tx, table: sa.Table) -> None:
    """Let the numbers that the database gives continue after the copied ones."""
    column = table.autoincrement_column
    if column is None:
        return
    sequence = write.scalar(sa.select(sa.func.pg_get_serial_sequence(table.name, column.name)))
    highest = write.scalar(sa.select(sa.func.max(column)))
    if sequence is not None and highest is not None:
        write.execute(sa.select(sa.func.setval(sequence, highest)))


def _digest(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """The number of rows and a hash of them, the same in any order."""
    total = 0
    for row in rows:
        text = msgspec.json.encode({name: row[name] for name in sorted(row)}, order="deterministic")
        total = (total + int.from_bytes(hashlib.sha256(text).digest())) % 2**256
    return len(rows), total
