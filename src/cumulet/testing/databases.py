"""Which database a test's cloud is on: a file in its folder, or one of its own on a PostgreSQL server.

With the environment variable ``CUMULET_TEST_DATABASE``, the URL of a server on which databases may be made, all clouds
of tests that name no database are on PostgreSQL (`make test-postgresql`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

VARIABLE = "CUMULET_TEST_DATABASE"


@contextlib.contextmanager
def own_database(folder: Path, *, temporary: bool) -> Iterator[str]:
    """The URL; the same for the same folder. `temporary`: nobody starts on it again, so it goes in the end."""
    server = os.environ.get(VARIABLE)
    if server is None:
        yield f"sqlite:///{folder / 'cumulet.db'}"
        return
    name = f"cumulet_{hashlib.sha256(str(folder).encode()).hexdigest()[:20]}"
    there = sa.make_url(server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(there, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        known = sa.text("SELECT count(*) FROM pg_database WHERE datname = :name")
        if not connection.execute(known, {"name": name}).scalar():
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield there.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    finally:
        if temporary:
            with engine.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
