"""Which database a test's cloud is on: a file in its folder, or one of its own on a PostgreSQL server.

With the environment variable ``CUMULET_TEST_DATABASE``, the URL of a server on which databases may be made, all clouds
of tests that name no database are on PostgreSQL (`make test-postgresql`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
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


class NoPostgresql(Exception):
    """It is not installed."""


@contextlib.contextmanager
def postgresql_server(*options: str) -> Iterator[str]:
    """A PostgreSQL server of our own, on a unix socket in a folder of its own; the URL of a database on it.

    Raises NoPostgresql. The folder goes with the server, also with one that does not start.
    """
    installed = [str(path) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    initdb = shutil.which("initdb") or max(installed, default="")
    if not initdb:
        raise NoPostgresql("PostgreSQL is not installed (no initdb)")
    tools = Path(initdb).resolve().parent
    with tempfile.TemporaryDirectory(prefix="cumulet-pg-", dir="/tmp") as folder:  # short: a socket's path has a limit
        account = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            account = "postgres"
            shutil.chown(folder, account)

        def run(tool: str, *arguments: str) -> None:
            command = [str(tools / tool), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=account, cwd=folder)

        run("initdb", "-A", "trust", "-U", "cumulet", "--no-sync")
        served = " ".join((f"-k {folder} -c listen_addresses='' -c fsync=off", *options))
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", served, "start")
        try:
            yield f"postgresql://cumulet@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-m", "fast", "stop")
