"""The schema is made and brought forward beside other processes that use the same database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
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
    op.execute("ALTER TABLE subnets ADD COLUMN next_release INTEGER")
    op.execute("ALTER TABLE networks ADD COLUMN next_release INTEGER")
"""


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


def test_a_migration_begins_again_when_others_use_its_tables(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One who has read `networks` reads `subnets` next: with the migration waiting for `networks`, a deadlock."""
    schema.prepare(database)
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    for path in (*schema.MIGRATIONS.glob("*.py*"), *schema.MIGRATIONS.glob("versions/[0-9]*.py")):
        (tmp_path / "migrations" / path.relative_to(schema.MIGRATIONS)).write_text(path.read_text())
    (versions / "9000_next.py").write_text(NEXT.format(head=schema.HEAD))
    monkeypatch.setattr(schema, "MIGRATIONS", tmp_path / "migrations")
    monkeypatch.setattr(schema, "HEAD", "9000")
    begun_again = threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "begins again" in record.getMessage():
                begun_again.set()

    told = Told()
    schema.log.addHandler(told)
    caplog.set_level(logging.INFO, logger=schema.log.name)
    try:
        with ThreadPoolExecutor(1) as pool, database.engine.connect() as other:
            other.execute(sa.text("SELECT count(*) FROM networks"))
            upgraded = pool.submit(schema.prepare, database)
            assert begun_again.wait(60), "it does not wait for the tables without an end"
            other.execute(sa.text("SELECT count(*) FROM subnets"))  # Nothing of the attempt holds it now.
            other.rollback()
            upgraded.result(60)
    finally:
        schema.log.removeHandler(told)
    assert schema.is_current(database)
