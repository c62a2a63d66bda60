"""The schema: made whole on an empty database, brought forward by alembic on an older one."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cumulet.db.engine import Database, Tx, metadata
from cumulet.db.reach import asks_for_another_try

HEAD = "0043"
"""The newest migration in `db/migrations`; a test compares."""

MIGRATIONS = Path(__file__).parent / "migrations"
RECORDED = Path(__file__).parent / "schema.sql"
"""The schema for SQLite, one statement a line; a test compares it with the tables that the services declare."""


CHANGES_OF_THE_SCHEMA = 7_300_117
"""PostgreSQL's advisory lock of who makes or changes the schema. The number means nothing; no other lock has it."""

LOCK_SECONDS = 2
PAUSE_SECONDS = 0.2
ATTEMPTS = 30
LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's SQLSTATE after `LOCK_SECONDS`."""

log = logging.getLogger(__name__)


MOVED = (
    "the records of this cloud were copied to {place}, and go on there: name that database with --database; to go back "
    "to what is here, and lose what came since, run `cumulet database keep` first"
)


class SchemaTooNew(Exception):
    """The database was made by a newer Cumulet."""


class Cancelled(Exception):
    """Nobody waits any more for the schema."""


class OtherState(Exception):
    """What is there is not this process's to use, such as the state of another kind of cloud, whose servers would be
    lost. The message says what to do."""


async def prepare_unless_cancelled(database: Database) -> None:
    """As `prepare`; if this is cancelled, the wait for others who make or change the schema ends. Raises Cancelled."""
    if database.embedded:
        prepare(database)
        return
    cancelled = threading.Event()
    try:
        await asyncio.to_thread(prepare, database, cancelled)
    finally:
        cancelled.set()


def prepare(database: Database, cancelled: threading.Event | None = None) -> None:
    """Make sure the schema is the one this program knows. Importing the services has filled `metadata`."""
    if database.is_sqlite and database.read(_is_empty):
        database.write(_make_recorded)
        return
    if version_of(database) == HEAD:
        return
    with _alone(database, cancelled or threading.Event()) as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            metadata.create_all(connection, checkfirst=False)  # Asking for each table first costs as much as making it.
            connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
            connection.commit()
            return
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        connection.rollback()
        if version != HEAD:
            _upgrade(connection, str(version))


@contextmanager
def _alone(database: Database, cancelled: threading.Event) -> Iterator[sa.Connection]:
    """A connection whose holder alone makes or brings forward the schema: others who want to wait for it."""
    with database.engine.connect() as connection:
        if not database.is_sqlite:
            connection.detach()  # Its session ends with it, and so do the lock and the setting.
            taken = sa.text("SELECT pg_try_advisory_lock(:number)")
            while not connection.scalar(taken, {"number": CHANGES_OF_THE_SCHEMA}):
                connection.commit()
                if cancelled.wait(PAUSE_SECONDS):
                    raise Cancelled("others are at the schema")
            connection.execute(sa.text("SELECT set_config('lock_timeout', :most, false)"), {"most": f"{LOCK_SECONDS}s"})
            connection.commit()
        yield connection


def is_current(database: Database) -> bool:
    """Whether the schema is the one this program knows, as `prepare` leaves it. Changes nothing."""
    return version_of(database) == HEAD


def version_of(database: Database) -> str | None:
    """The number of the newest migration that the database has seen; None: there is no cloud in it."""
    with database.engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar())


def mark_moved(database: Database, where: str) -> None:
    """Note that the records of this SQLite database were copied to `where`, so that no cloud starts on it by mistake.

    The table of this note is in no schema. Only a database that was copied has it.
    """

    def mark(tx: Tx) -> None:
        tx.execute(sa.text("CREATE TABLE IF NOT EXISTS moved_to (place TEXT NOT NULL)"))
        tx.execute(sa.text("INSERT INTO moved_to VALUES (:place)"), {"place": where})

    database.write(mark)


def keep(database: Database) -> None:
    """Remove the note of `mark_moved`: a cloud may start on this SQLite database again."""
    database.write(lambda tx: tx.execute(sa.text("DROP TABLE IF EXISTS moved_to")))


def moved_to(database: Database) -> str | None:
    """Where the records of this SQLite database went; None: they are here."""

    def found(tx: Tx) -> str | None:
        if not tx.scalar(sa.text("SELECT count(*) FROM sqlite_master WHERE name = 'moved_to'")):
            return None
        return str(tx.scalar(sa.text("SELECT place FROM moved_to")))

    return database.read(found) if database.is_sqlite else None


def refuse_moved(database: Database) -> None:
    """Raise OtherState if the records of this SQLite database went elsewhere."""
    if (elsewhere := moved_to(database)) is not None:
        raise OtherState(MOVED.format(place=elsewhere))


def _is_empty(tx: Tx) -> bool:
    return not tx.scalar(sa.text("SELECT count(*) FROM sqlite_master"))


def _make_recorded(tx: Tx) -> None:
    """Do what `metadata.create_all` would. If SQLAlchemy wrote the statements, that would take a tenth of a start."""
    driver: Any = tx.connection.connection.dbapi_connection
    for statement in RECORDED.read_text(encoding="utf-8").splitlines():
        driver.execute(statement)
    tx.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def _upgrade(connection: sa.Connection, version: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    if version not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
        raise SchemaTooNew(f"the database has schema {version}, this program knows {HEAD}")
    config.attributes["connection"] = connection
    _beside_others(connection, lambda: command.upgrade(config, "head"))


def _beside_others(connection: sa.Connection, upgrade: Callable[[], None]) -> None:
    """Processes of the version before go on reading and writing, and a migration locks whole tables.

    All later readers of a table wait behind a migration that waits for it, so the migration does not wait long. One
    that did not get its tables, or that PostgreSQL chose to end a deadlock, is undone as a whole and begins again.
    sa.exc.OperationalError: it did not get them `ATTEMPTS` times.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            upgrade()
            return
        except sa.exc.OperationalError as error:
            connection.rollback()
            in_use = asks_for_another_try(error) or getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE
            if not in_use or attempt == ATTEMPTS:
                raise
            log.info("tables are in use, the migration begins again: attempt %d of %d", attempt + 1, ATTEMPTS)
            time.sleep(PAUSE_SECONDS)
