"""How PostgreSQL is connected to: waiting for it has an end, and only a server that takes changes is the right one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import URL, Engine, Integer, create_engine

CONNECTION: dict[str, str | int] = {
    "connect_timeout": 5,  # seconds
    # What was sent and is not acknowledged for so many milliseconds, and a server that is silent for 10 + 3 * 5 seconds
    # and answers no probe: the connection is given up. Without, a machine that has gone is waited for for a quarter of
    # an hour.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # Of several servers that the URL names, the one that is no standby.
    "target_session_attrs": "read-write",
}
"""Parameters of libpq; the URL's own count more."""


class _Number(Integer):
    """A number that a statement is given is a BIGINT. Requests may name a larger one than a column of INTEGER can have:
    SQLAlchemy would cast it to INTEGER, and the statement fail, where no row is equal to it."""

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
        hide_parameters=True,  # An error is logged; what a row was to have may be a secret.
        json_serializer=encode,
        json_deserializer=msgspec.json.decode,
    )
    engine.dialect.colspecs = {**engine.dialect.colspecs, Integer: _Number}
    return engine
