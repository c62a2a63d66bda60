"""SQLite's engine, and connections that stay open, whose transactions this module begins and ends itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, StaticPool

from cumulet.db.compiled import CompiledStatements
from cumulet.db.prepared import as_sqlalchemys, tell_little
from cumulet.db.reach import connected


def sqlite_engine(url: URL, encode: Callable[[object], str]) -> Engine:
    """`encode`: JSON."""
    memory = not url.database
    engine = create_engine(
        url,
        poolclass=StaticPool if memory else NullPool,
        # Python's default of 128 prepared statements is fewer than we have: each was prepared again and again.
        connect_args={"check_same_thread": False, "cached_statements": 1024},
        hide_parameters=True,  # Errors are logged, and a row's values may be secrets.
        json_serializer=encode,
        json_deserializer=msgspec.json.decode,
        execution_options={"compiled_cache": CompiledStatements()},
    )
    event.listen(engine, "handle_error", tell_little)

    @event.listens_for(engine, "connect")
    def _connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = dbapi_connection.cursor()
        if not memory:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA busy_timeout=10000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if not connection.get_execution_options().get(_BY_HAND):
            driver: Any = connection.connection.dbapi_connection
            driver.execute("BEGIN")

    return engine


_BY_HAND = "cumulet_by_hand"


def own_connection(engine: Engine) -> Connection:
    """A connection that stays open. On SQLite, `transaction` begins and ends its transactions, and SQLAlchemy sees one
    long transaction: its own begin and commit cost as much as a lookup."""
    if engine.dialect.name != "sqlite":
        return connected(engine)
    connection = engine.connect().execution_options(**{_BY_HAND: True})
    connection.begin()
    return connection


@contextlib.contextmanager
def transaction(connection: Connection, *, immediate: bool = False) -> Iterator[None]:
    """A transaction on a connection of `own_connection`: committed at the end, rolled back if the block raises."""
    if connection.dialect.name != "sqlite":
        with connection.begin():
            yield
        return
    driver: Any = connection.connection.dbapi_connection
    _control(connection, driver, "BEGIN IMMEDIATE" if immediate else "BEGIN")
    try:
        yield
        _control(connection, driver, "COMMIT")
    except BaseException:
        if driver.in_transaction:  # after a full disk, for example, SQLite has rolled everything back itself
            driver.execute("ROLLBACK")
        raise


def _control(connection: Connection, driver: Any, statement: str) -> None:
    try:
        driver.execute(statement)
    except driver.Error as error:
        raise as_sqlalchemys(error, statement, (), driver, connection.dialect) from error
