"""One transaction as stores see it, and what follows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVarTuple, overload

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Executable
from sqlalchemy.engine import CursorResult

from cumulet.db.prepared import Prepared, Statements

Row: TypeAlias = sa.Row[*tuple[object, ...]]
"""Of whichever columns: they are its attributes."""
Select: TypeAlias = sa.Select[*tuple[object, ...]]
"""Of whichever columns."""

Columns = TypeVarTuple("Columns")


class Keeper(Protocol):
    """Keeps something of the database in memory; see `Tx.touch`."""

    def correction(self, tx: Tx, touched: Iterable[str | int]) -> Callable[[], None]: ...


_ANNOUNCED = "announced"
_SAY = sa.text("SELECT pg_notify(:channel, :words)")
WRITTEN = "cumulet_written"
"""The channel on which a commit says which announced tables it has written to; see `announced` and `Written`."""


def announced(tables: Iterable[sa.Table]) -> frozenset[str]:
    """From now on each commit that writes to one of these tables tells the other processes on its database; their
    names. On SQLite there are no others."""
    for table in (found := tuple(tables)):
        table.info[_ANNOUNCED] = True
    return frozenset(table.name for table in found)


class Written(msgspec.Struct, frozen=True):
    """What is said on `WRITTEN`, as JSON. `writer`: the `Database` that has committed; names of tables."""

    writer: str
    tables: tuple[str, ...]


Watch: TypeAlias = tuple[frozenset[str], Callable[[], None]]
"""Names of tables, and what is called after each commit that has written to any of them; see `Database.watch`."""


class Tx:
    """One transaction. Thin over a SQLAlchemy Connection, with the few calls that stores use."""

    __slots__ = (
        "_after_commit",
        "_driver",
        "_statements",
        "_watches",
        "_writer",
        "_written",
        "connection",
        "keeper",
        "touched",
        "writable",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        writable: bool,
        statements: Statements | None = None,
        keeper: Keeper | None = None,
        watches: Sequence[Watch] = (),
        writer: str = "",
    ) -> None:
        """`statements`: prepared ones, which may be run on the driver's connection itself. `writer`: for `Written`."""
        self.connection = connection
        self.writable = writable
        self.keeper = keeper
        self.touched: set[str | int] = set()
        self._statements = statements
        self._driver: Any = None if statements is None else connection.connection.dbapi_connection
        self._after_commit: list[Callable[[], None]] = []
        self._watches = watches
        self._writer = writer
        self._written: set[sa.Table] = set()

    def execute(
        self, statement: Executable, rows: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None
    ) -> CursorResult[Any]:
        self._note(statement)
        return self.connection.execute(statement, rows)

    # Building a statement costs five times what running it does: what is asked often is built once, with `bindparam`s,
    # and given its `values` here; then it is prepared, too (`db.prepared`).

    @overload
    def all(
        self, statement: sa.Select[*Columns], values: Mapping[str, object] | None = None
    ) -> list[sa.Row[*Columns]]: ...

    @overload
    def all(self, statement: Executable, values: Mapping[str, object] | None = None) -> list[Row]: ...

    def all(self, statement: Executable, values: Mapping[str, object] | None = None) -> Sequence[object]:
        self._note(statement)
        if values is not None and (prepared := self._prepared(statement, values)) is not None:
            return prepared.rows(self._driver, values)
        return list(self.connection.execute(statement, values).all())

    @overload
    def first(
        self, statement: sa.Select[*Columns], values: Mapping[str, object] | None = None
    ) -> sa.Row[*Columns] | None: ...

    @overload
    def first(self, statement: Executable, values: Mapping[str, object] | None = None) -> Row | None: ...

    def first(self, statement: Executable, values: Mapping[str, object] | None = None) -> object:
        self._note(statement)
        if values is not None and (prepared := self._prepared(statement, values)) is not None:
            return prepared.first(self._driver, values)
        return self.connection.execute(statement, values).first()

    def scalar(self, statement: Executable, values: Mapping[str, object] | None = None) -> Any:
        row = self.first(statement, values)
        return None if row is None else row[0]

    def changed(self, statement: Executable, values: Mapping[str, object] | None = None) -> int:
        """Run an UPDATE or DELETE and return how many rows it matched: the compare-and-swap answer."""
        self._note(statement)
        if values is not None and (prepared := self._prepared(statement, values)) is not None:
            return prepared.changed(self._driver, values)
        return self.connection.execute(statement, values).rowcount

    def run(self, statement: Executable, values: Mapping[str, object]) -> None:
        """Run an INSERT, UPDATE or DELETE, whatever it matches."""
        self.changed(statement, values)

    def _note(self, statement: Executable) -> None:
        if isinstance(statement, sa.UpdateBase) and isinstance(statement.table, sa.Table):
            self._written.add(statement.table)

    def _prepared(self, statement: Executable, values: Mapping[str, object]) -> Prepared | None:
        return None if self._statements is None else self._statements.prepared(statement, values)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """What the block wrote is taken back if it raises; the transaction goes on."""
        if self.connection.dialect.name != "sqlite":
            with self.connection.begin_nested():
                yield
            return
        # On the driver's connection, like BEGIN below. SQLite takes the innermost savepoint of a name.
        driver: Any = self.connection.connection.dbapi_connection
        driver.execute("SAVEPOINT block")
        try:
            yield
        except BaseException:
            if driver.in_transaction:  # a full disk, for one, has rolled all of it back by itself
                driver.execute("ROLLBACK TO block")
                driver.execute("RELEASE block")
            raise
        driver.execute("RELEASE block")

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, after this transaction is durable, on the thread that committed. It must not block."""
        self._after_commit.append(callback)

    @property
    def alone(self) -> bool:
        """Whether nobody but this process writes to the database."""
        return self.connection.dialect.name == "sqlite"

    def touch(self, key: str | int) -> None:
        """Something of which the database's keeper keeps a copy has been, or will be, written in this transaction."""
        self.touched.add(key)

    def finish(self) -> None:
        """All is written: what is kept in memory will be corrected after the commit, before anybody hears of it. Other
        processes hear of the commit, if it is of a table that is announced."""
        if self.touched and self.keeper is not None:
            self._after_commit.insert(0, self.keeper.correction(self, self.touched))
        told = sorted(str(table.name) for table in self._written if _ANNOUNCED in table.info)
        if told and not self.alone:
            self.say(WRITTEN, msgspec.json.encode(Written(self._writer, tuple(told))).decode())

    def say(self, channel: str, words: str) -> None:
        """To other processes that listen, once this transaction is durable; on SQLite nobody else is there. At most
        7,999 bytes."""
        if not self.alone:
            self.connection.execute(_SAY, {"channel": channel, "words": words})

    def committed(self) -> None:
        for callback in self._after_commit:
            callback()
        names = {table.name for table in self._written}
        for tables, callback in self._watches:
            if not tables.isdisjoint(names):
                callback()
