"""One transaction as stores see it, and what follows it."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, TypeVarTuple, overload

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Executable
from sqlalchemy.engine import CursorResult

from cumulet.db.prepared import Prepared, Statements

log = logging.getLogger(__name__)

Row: TypeAlias = sa.Row[*tuple[object, ...]]
"""A row of any columns; they are its attributes."""
Select: TypeAlias = sa.Select[*tuple[object, ...]]
"""A SELECT of any columns."""

Columns = TypeVarTuple("Columns")
One = TypeVar("One")

ROWS_AT_ONCE = 16
"""Rows of a long list that are read, shown or encoded before others have a chance: a tenth of a millisecond's work."""


class Keeper(Protocol):
    """Keeps a copy of some records in memory; see `Tx.touch`."""

    def correction(self, tx: Tx, touched: Iterable[str | int]) -> Callable[[], None]: ...


_ANNOUNCED = "announced"
_SAY = sa.text("SELECT pg_notify(:channel, :words)")
WRITTEN = "cumulet_written"
"""The channel that carries the names of the announced tables a commit wrote to; see `announced` and `Written`."""


def announced(tables: Iterable[sa.Table]) -> frozenset[str]:
    """Announce these tables: each commit that writes to one tells the other processes on the database. Returns the
    names. On SQLite there are no other processes."""
    for table in (found := tuple(tables)):
        table.info[_ANNOUNCED] = True
    return frozenset(table.name for table in found)


class Written(msgspec.Struct, frozen=True):
    """A notice on `WRITTEN`, as JSON. `writer`: the `Database` that committed; `tables`: their names."""

    writer: str
    tables: tuple[str, ...]


Watch: TypeAlias = tuple[frozenset[str], Callable[[], None]]
"""Names of tables, and a function to call after each commit that wrote to one of them; see `Database.watch`."""


class Tx:
    """One transaction. Thin over a SQLAlchemy Connection, with the few calls that stores use."""

    __slots__ = (
        "_after_commit",
        "_driver",
        "_pause",
        "_statements",
        "_watches",
        "_writer",
        "_written",
        "connection",
        "keeper",
        "kept",
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
        kept: dict[str, object] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> None:
        """`statements`: prepared ones, which may be run on the driver's connection itself. `writer`: for `Written`.
        `pause`: may let other threads work; None where nobody has to wait for this one."""
        self.connection = connection
        self.writable = writable
        self.keeper = keeper
        self.kept: dict[str, object] = {} if kept is None else kept
        """What transactions of this process leave to each other: a few things, each under a name of its own."""
        self.touched: set[str | int] = set()
        self._statements = statements
        self._driver: object = None if statements is None else connection.connection.dbapi_connection
        self._after_commit: list[Callable[[], None]] = []
        self._pause = pause
        self._watches = watches
        self._writer = writer
        self._written: set[sa.Table] = set()

    def execute(
        self, statement: Executable, rows: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None
    ) -> CursorResult[Any]:
        self._note(statement)
        return self.connection.execute(statement, rows)

    # Building a statement costs five times what running it does. So a frequent statement is built once, with
    # `bindparam`s, and gets its `values` here; then it is also prepared (`db.prepared`).

    @overload
    def all(
        self, statement: sa.Select[*Columns], values: Mapping[str, object] | None = None
    ) -> list[sa.Row[*Columns]]: ...

    @overload
    def all(self, statement: Executable, values: Mapping[str, object] | None = None) -> list[Row]: ...

    def all(self, statement: Executable, values: Mapping[str, object] | None = None) -> Sequence[object]:
        self._note(statement)
        if values is not None and (prepared := self._prepared(statement, values)) is not None:
            return prepared.rows(self._driver, values, self.in_pieces)
        result = self.connection.execute(statement, values)
        if self._pause is None:
            return list(result.all())
        return list(self.in_pieces(itertools.chain.from_iterable(result.partitions(ROWS_AT_ONCE))))

    def in_pieces(self, rows: Iterable[One]) -> Iterable[One]:
        """`rows`; after each `ROWS_AT_ONCE` of them there may be a pause. For lists that may be long."""
        return rows if self._pause is None else _in_pieces(rows, self._pause)

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
        """Run an INSERT, UPDATE or DELETE; it may match no row."""
        self.changed(statement, values)

    def _note(self, statement: Executable) -> None:
        if self._pause is not None:
            self._pause()
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
            if driver.in_transaction:  # after a full disk, for example, SQLite has rolled everything back itself
                driver.execute("ROLLBACK TO block")
                driver.execute("RELEASE block")
            raise
        driver.execute("RELEASE block")

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, after this transaction is durable, on the thread that committed. It must not block. If
        it fails, that is logged: what was committed is, and its caller is told so."""
        self._after_commit.append(callback)

    @property
    def alone(self) -> bool:
        """Whether nobody but this process writes to the database."""
        return self.connection.dialect.name == "sqlite"

    def touch(self, key: str | int) -> None:
        """This transaction writes the record `key`, of which the database's keeper has a copy."""
        self.touched.add(key)

    def finish(self) -> None:
        """All is written. After the commit the keeper's copies are corrected first, then other callbacks run. Other
        processes are told of a commit that wrote to an announced table."""
        if self.touched and self.keeper is not None:
            self._after_commit.insert(0, self.keeper.correction(self, self.touched))
        told = sorted(str(table.name) for table in self._written if _ANNOUNCED in table.info)
        if told and not self.alone:
            self.say(WRITTEN, msgspec.json.encode(Written(self._writer, tuple(told))).decode())

    def say(self, channel: str, words: str) -> None:
        """Send `words` to the processes that listen, after the commit. On SQLite no other process listens. At most
        7,999 bytes."""
        if not self.alone:
            self.connection.execute(_SAY, {"channel": channel, "words": words})

    def committed(self) -> None:
        for callback in self._after_commit:
            _call_safely(callback)
        call_watches(self._watches, {table.name for table in self._written})


def _in_pieces(rows: Iterable[One], pause: Callable[[], None]) -> Iterator[One]:
    left = iter(rows)
    while piece := list(itertools.islice(left, ROWS_AT_ONCE)):
        yield from piece
        if len(piece) == ROWS_AT_ONCE:
            pause()


def call_watches(watches: Iterable[Watch], written: Collection[str]) -> None:
    """Call who watches one of the tables `written`."""
    for tables, callback in watches:
        if not tables.isdisjoint(written):
            _call_safely(callback)


def _call_safely(callback: Callable[[], None]) -> None:
    """The thread that committed goes on to other callbacks and other transactions, whatever becomes of this one."""
    try:
        callback()
    except Exception:
        log.exception("after a commit: %r failed", callback)
