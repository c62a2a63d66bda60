"""The database of a test's cloud: a file in its folder, or a database of its own on a PostgreSQL server.

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
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

VARIABLE = "CUMULET_TEST_DATABASE"


@contextlib.contextmanager
def own_database(folder: Path, *, temporary: bool) -> Iterator[str]:
    """The URL of a database, the same for the same folder. `temporary`: it is dropped at the end of the block."""
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
    """PostgreSQL is not installed."""


class PostgresqlServer:
    """A PostgreSQL server of our own, on a unix socket in a folder of its own; it may be killed and started again."""

    def __init__(self, tools: Path, folder: Path, account: str | None, options: Sequence[str]) -> None:
        self.folder = folder
        self.url = f"postgresql://cumulet@/postgres?host={folder}"
        self._tools = tools
        self._account = account
        self._served = " ".join((f"-k {folder} -c listen_addresses='' -c fsync=off", *options))

    def run(self, tool: str, *arguments: str) -> None:
        command = [str(self._tools / tool), "-D", f"{self.folder}/data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self._account, cwd=self.folder)

    def start(self) -> None:
        self.run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", self._served, "start")

    def stop(self, mode: str = "fast") -> None:
        """`mode`: as of `pg_ctl`; ``immediate`` is as if the machine had died."""
        self.run("pg_ctl", "-w", "-m", mode, "stop")

    @property
    def main_process(self) -> int:
        return int((self.folder / "data/postmaster.pid").read_text().split()[0])


@contextlib.contextmanager
def own_postgresql(*options: str) -> Iterator[PostgresqlServer]:
    """A server in a temporary folder, which is removed even if the server does not start. Raises NoPostgresql."""
    installed = [str(path) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    initdb = shutil.which("initdb") or max(installed, default="")
    if not initdb:
        raise NoPostgresql("PostgreSQL is not installed (no initdb)")
    with tempfile.TemporaryDirectory(prefix="cumulet-pg-", dir="/tmp") as folder:  # short: a socket's path has a limit
        account = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            account = "postgres"
            shutil.chown(folder, account)
        server = PostgresqlServer(Path(initdb).resolve().parent, Path(folder), account, options)
        server.run("initdb", "-A", "trust", "-U", "cumulet", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def postgresql_server(*options: str) -> Iterator[str]:
    """The URL of a database on a server of our own. Raises NoPostgresql."""
    with own_postgresql(*options) as server:
        yield server.url
