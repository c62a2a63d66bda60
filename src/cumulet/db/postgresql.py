"""How to connect to PostgreSQL: every wait is bounded, and only a server that takes changes is used."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec
from sqlalchemy import URL, Engine, Integer, create_engine, event

from cumulet.db.compiled import CompiledStatements
from cumulet.db.prepared import tell_little

CONNECTION: dict[str, str | int] = {
    "connect_timeout": 5,  # seconds
    # A connection is given up if what was sent is not acknowledged for so many milliseconds, or if the server is silent
    # for 10 + 3 * 5 seconds and answers no probe. By default, a machine that is gone is waited for for 15 minutes.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # If the URL names several servers: the one that is not a standby.
    "target_session_attrs": "read-write",
}
"""Parameters of libpq. Those in the URL take precedence."""


class _Number(Integer):
    """Numbers are given to statements as BIGINT. A request may name a number too large for a column of INTEGER. With
    SQLAlchemy's cast to INTEGER the statement would fail, although it only finds no row."""

    __visit_name__ = "big_integer"
    render_bind_cast = True


def postgresql_engine(url: URL, encode: Callable[[object], str]) -> Engine:
    """Its transactions are serializable. `encode`: JSON."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="SERIALIZABLE",
        pool_size=10,
        pool_pre_ping=True,
        connect_args={name: value for name, value in CONNECTION.items() if name not in url.query},
        hide_parameters=True,  # Errors are logged, and a row's values may be secrets.
        json_serializer=encode,
        json_deserializer=msgspec.json.decode,
        execution_options={"compiled_cache": CompiledStatements()},
    )
    event.listen(engine, "handle_error", tell_little)
    engine.dialect.colspecs = {**engine.dialect.colspecs, Integer: _Number}
    return engine


@contextlib.asynccontextmanager
async def notices_of(
    engine: Engine, url: URL, channels: Iterable[str]
) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
    """See `Database.notices`."""
    from psycopg import AsyncConnection, sql  # Most clouds are on SQLite.

    parameters = {**CONNECTION, **engine.dialect.create_connect_args(url)[1]}
    async with await AsyncConnection.connect(autocommit=True, **parameters) as connection:
        for channel in channels:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        yield ((notice.channel, notice.payload) async for notice in connection.notifies())
