"""The schema: made whole on an empty database, brought forward by alembic on an older one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cumulet.db.engine import Database, Tx, metadata

HEAD = "0029"
"""The newest migration in `db/migrations`; a test compares."""

MIGRATIONS = Path(__file__).parent / "migrations"
RECORDED = Path(__file__).parent / "schema.sql"
"""All of it as SQLite has it, a statement a line; a test compares it with the tables that the services declare."""


class SchemaTooNew(Exception):
    """The database was made by a newer Cumulet."""


def prepare(database: Database) -> None:
    """Make sure the schema is the one this program knows. Importing the services has filled `metadata`."""
    if database.is_sqlite and database.read(_is_empty):
        database.write(_make_recorded)
        return
    with database.engine.connect() as connection, connection.begin():
        tables = set(sa.inspect(connection).get_table_names())
        if "alembic_version" not in tables:
            metadata.create_all(connection, checkfirst=False)  # Asking for each table first costs as much as making it.
            connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
            return
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if version != HEAD:
        _upgrade(database, str(version))


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
    """What is in this SQLite database goes on elsewhere: nobody is to start on it by mistake.

    The table that says so is in no schema: only in a database that was copied.
    """

    def mark(tx: Tx) -> None:
        tx.execute(sa.text("CREATE TABLE IF NOT EXISTS moved_to (place TEXT NOT NULL)"))
        tx.execute(sa.text("INSERT INTO moved_to VALUES (:place)"), {"place": where})

    database.write(mark)


def keep(database: Database) -> None:
    """What is in this SQLite database counts again."""
    database.write(lambda tx: tx.execute(sa.text("DROP TABLE IF EXISTS moved_to")))


def moved_to(database: Database) -> str | None:
    """Where the records of this SQLite database went; None: they are here."""

    def found(tx: Tx) -> str | None:
        if not tx.scalar(sa.text("SELECT count(*) FROM sqlite_master WHERE name = 'moved_to'")):
            return None
        return str(tx.scalar(sa.text("SELECT place FROM moved_to")))

    return database.read(found) if database.is_sqlite else None


def _is_empty(tx: Tx) -> bool:
    return not tx.scalar(sa.text("SELECT count(*) FROM sqlite_master"))


def _make_recorded(tx: Tx) -> None:
    """As `metadata.create_all` would: to have SQLAlchemy write the statements takes a tenth of a start."""
    driver: Any = tx.connection.connection.dbapi_connection
    for statement in RECORDED.read_text(encoding="utf-8").splitlines():
        driver.execute(statement)
    tx.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def _upgrade(database: Database, version: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    if version not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
        raise SchemaTooNew(f"the database has schema {version}, this program knows {HEAD}")
    config.attributes["engine"] = database.engine
    command.upgrade(config, "head")
