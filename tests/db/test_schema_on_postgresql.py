"""The schema is made and brought forward beside other processes that use the same database."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.db import schema
from cumulet.db.engine import Database, opened
from cumulet.processes.parts import load_services
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres

NEXT = """from alembic import op
revision = "9000"
down_revision = {head!r}
def upgrade() -> None:
    for statement in {statements!r}:
        op.execute(statement)
"""
WAITING = sa.text("SELECT count(*) FROM pg_locks WHERE relation = 'leases'::regclass AND NOT granted")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    load_services()
    with opened(database_url) as database:
        with database.engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        yield database


def test_two_processes_that_start_on_an_empty_database(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        for made in [pool.submit(schema.prepare, database) for _ in range(4)]:
            made.result()
    assert schema.is_current(database)


def test_who_waits_for_others_at_the_schema_may_be_told_to_stop(database: Database) -> None:
    cancelled = threading.Event()
    with schema._alone(database, threading.Event()), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(schema.prepare, database, cancelled)
        cancelled.set()
        with pytest.raises(schema.Cancelled):
            waiting.result()
    assert schema.version_of(database) is None


NextRelease = Callable[..., None]


@pytest.fixture
def next_release(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NextRelease:
    """From now on this program has one more migration than the database, with these statements."""

    def begin(*statements: str) -> None:
        schema.prepare(database)
        versions = tmp_path / "migrations" / "versions"
        versions.mkdir(parents=True)
        for path in (*schema.MIGRATIONS.glob("*.py*"), *schema.MIGRATIONS.glob("versions/[0-9]*.py")):
            (tmp_path / "migrations" / path.relative_to(schema.MIGRATIONS)).write_text(path.read_text())
        (versions / "9000_next.py").write_text(NEXT.format(head=schema.HEAD, statements=statements))
        monkeypatch.setattr(schema, "MIGRATIONS", tmp_path / "migrations")
        monkeypatch.setattr(schema, "HEAD", "9000")

    return begin


@pytest.fixture
def begun_again(caplog: pytest.LogCaptureFixture) -> Iterator[threading.Event]:
    """Set once a migration has begun again."""
    event = threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "begins again" in record.getMessage():
                event.set()

    told = Told()
    schema.log.addHandler(told)
    caplog.set_level(logging.INFO, logger=schema.log.name)
    yield event
    schema.log.removeHandler(told)


def test_a_migration_begins_again_when_others_use_its_tables(
    database: Database, next_release: NextRelease, begun_again: threading.Event
) -> None:
    """One who has read `networks` reads `subnets` next: with the migration waiting for `networks`, a deadlock."""
    next_release(*(f"ALTER TABLE {table} ADD COLUMN next_release INTEGER" for table in ("subnets", "networks")))
    with ThreadPoolExecutor(1) as pool, database.engine.connect() as other:
        other.execute(sa.text("SELECT count(*) FROM networks"))
        upgraded = pool.submit(schema.prepare, database)
        assert begun_again.wait(60), "it does not wait for the tables without an end"
        other.execute(sa.text("SELECT count(*) FROM subnets"))  # Nothing of the attempt holds it now.
        other.rollback()
        upgraded.result(60)
    assert schema.is_current(database)


def test_a_migration_that_changes_rows_begins_again_when_another_has_changed_them_meanwhile(
    database: Database, next_release: NextRelease, begun_again: threading.Event
) -> None:
    """Its snapshot is older than its lock: PostgreSQL cannot serialize it."""
    next_release("ALTER TABLE leases ADD COLUMN next_release INTEGER", "UPDATE leases SET next_release = 1")
    database.write(lambda tx: tx.execute(sa.text("INSERT INTO leases VALUES ('reconcilers', 'other', 1)")))
    with ThreadPoolExecutor(1) as pool, database.engine.connect() as other:
        other.execute(sa.text("UPDATE leases SET beat = 2"))
        upgraded = pool.submit(schema.prepare, database)
        deadline = time.monotonic() + 60
        while not database.read(lambda tx: tx.scalar(WAITING)) and not upgraded.done():
            assert time.monotonic() < deadline, "the migration waits for its table"
        other.commit()
        upgraded.result(60)
    assert begun_again.is_set()
    assert database.read(lambda tx: tuple(tx.all(sa.text("SELECT beat, next_release FROM leases"))[0])) == (2, 1)
