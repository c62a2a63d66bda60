"""The schema changes only together with a migration that brings older databases forward."""

from __future__ import annotations

import importlib.util
import io
import re
import uuid
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from cumulet.db import schema
from cumulet.db.engine import Database, metadata, opened
from cumulet.processes.parts import load_services

ALEMBIC_VERSION = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"


def described(database: Database) -> str:
    """The whole schema of an SQLite database as SQL, in a fixed order, with its version in the first line."""
    rows = database.read(
        lambda tx: [
            row[0]
            for row in tx.connection.exec_driver_sql(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name"
            )
        ]
    )
    return f"-- {schema.HEAD}\n" + "".join(re.sub(r"\s+", " ", text).strip() + ";\n" for text in rows)


def migration(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_tables_change_only_with_a_migration() -> None:
    """When this fails: write db/migrations/versions/NNNN_*.py, set `schema.HEAD`, and record the new schema."""
    load_services()
    with opened("sqlite://", inline=True) as database:
        metadata.create_all(database.engine)
        database.write(lambda tx: tx.execute(sa.text(ALEMBIC_VERSION)))
        assert described(database) == schema.RECORDED.read_text(encoding="utf-8")


def test_an_empty_database_gets_the_recorded_schema() -> None:
    with opened("sqlite://", inline=True) as database:
        schema.prepare(database)
        assert described(database) == schema.RECORDED.read_text(encoding="utf-8")
        assert database.read(lambda tx: tx.scalar(sa.text("SELECT version_num FROM alembic_version"))) == schema.HEAD


def test_each_migration_has_a_number_of_its_own() -> None:
    """Two migrations were written at the same time: the later one takes the next number."""
    numbers = [path.name[:4] for path in (schema.MIGRATIONS / "versions").glob("[0-9]*.py")]
    assert sorted(numbers) == sorted(set(numbers))


def test_the_head_is_the_newest_migration() -> None:
    newest = max(path.name[:4] for path in (schema.MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert newest == schema.HEAD


def test_a_database_made_by_a_newer_program_is_not_touched(tmp_path: Path) -> None:
    load_services()
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with opened(url, inline=True) as database:
        schema.prepare(database)
        database.write(lambda tx: tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    with opened(url, inline=True) as database, pytest.raises(schema.SchemaTooNew):
        schema.prepare(database)


def test_an_older_database_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one more migration, as in the next release."""
    load_services()
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        (migrations / name).write_text((schema.MIGRATIONS / name).read_text())
    for path in (schema.MIGRATIONS / "versions").glob("[0-9]*.py"):
        (migrations / "versions" / path.name).write_text(path.read_text())
    (migrations / "versions" / "9000_next.py").write_text(
        f'from alembic import op\nrevision = "9000"\ndown_revision = "{schema.HEAD}"\n'
        'def upgrade() -> None:\n    op.execute("CREATE TABLE of_the_next_release (id INTEGER)")\n'
    )
    with opened(f"sqlite:///{tmp_path / 'old.db'}", inline=True) as database:
        schema.prepare(database)
        monkeypatch.setattr(schema, "MIGRATIONS", migrations)
        monkeypatch.setattr(schema, "HEAD", "9000")
        schema.prepare(database)
        version = database.read(lambda tx: tx.scalar(sa.text("SELECT version_num FROM alembic_version")))
        assert version == "9000"
        assert database.read(lambda tx: tx.scalar(sa.text("SELECT count(*) FROM of_the_next_release"))) == 0


def test_what_was_shared_or_external_before_policies_has_one() -> None:
    path = schema.MIGRATIONS / "versions" / "0022_rbac_policies.py"
    module = migration(path)
    columns = "id, project_id, created_at_us, updated_at_us, shared"
    both, pool, neither = (str(uuid.UUID(int=n, version=4)) for n in (1 << 127, 2 << 100, 3))
    with sa.create_engine("sqlite://").begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE networks ({columns}, external)")
        connection.exec_driver_sql(f"CREATE TABLE subnet_pools ({columns})")
        connection.exec_driver_sql("INSERT INTO networks VALUES (?, 'p', 1, 2, 1, 1)", (both,))
        connection.exec_driver_sql("INSERT INTO networks VALUES (?, 'p', 1, 2, 0, 0)", (neither,))
        connection.exec_driver_sql("INSERT INTO subnet_pools VALUES (?, 'q', 3, 4, 1)", (pool,))
        with Operations.context(MigrationContext.configure(connection)):
            module.upgrade()
        rows = connection.exec_driver_sql(
            "SELECT object_type, object_id, action, target_project, project_id, id FROM rbac_policies ORDER BY 1, 3"
        ).all()
    assert [tuple(row)[:5] for row in rows] == [
        ("network", both, "access_as_external", "*", "p"),
        ("network", both, "access_as_shared", "*", "p"),
        ("subnetpool", pool, "access_as_shared", "*", "q"),
    ]
    assert len({row[5] for row in rows}) == 3
    assert all(str(uuid.UUID(row[5])) == row[5] for row in rows)


def test_what_users_of_deleted_servers_wrote_goes_and_of_the_others_stays() -> None:
    (path,) = (schema.MIGRATIONS / "versions").glob("0040_*.py")
    module = migration(path)
    wrote = ('{"hw_x": "y"}', "ssh-ed25519 A", "c2VjcmV0", '{"a": "b"}', '{"group": "g"}')
    with sa.create_engine("sqlite://").begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE servers (id, image_properties, public_key, user_data, metadata, scheduler_hints,"
            " deleted_at_us)"
        )
        for row in ((1, *wrote, None), (2, *wrote, 5)):
            connection.exec_driver_sql("INSERT INTO servers VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        with Operations.context(MigrationContext.configure(connection)):
            module.upgrade()
        rows = connection.exec_driver_sql("SELECT * FROM servers ORDER BY id").all()
    assert [tuple(row) for row in rows] == [(1, *wrote, None), (2, "{}", None, None, "{}", "{}", 5)]


def test_deleted_images_have_no_name_any_more_and_living_ones_have() -> None:
    (path,) = (schema.MIGRATIONS / "versions").glob("0043_*.py")
    module = migration(path)
    with sa.create_engine("sqlite://").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE images (id, name, owner, visibility, deleted_at_us)")
        for row in ((1, "a", "p", "private", None), (2, "a", "p", "private", 5)):
            connection.exec_driver_sql("INSERT INTO images VALUES (?, ?, ?, ?, ?)", row)
        with Operations.context(MigrationContext.configure(connection)):
            module.upgrade()
        assert [*connection.exec_driver_sql("SELECT name FROM images ORDER BY id").scalars()] == ["a", None]


LATER = sorted(path for path in (schema.MIGRATIONS / "versions").glob("[0-9]*.py") if path.stem >= "0010")
"""Earlier migrations have run on existing clouds."""
WHILE_OLD_PROCESSES_RUN = "0017"
"""From here on a schema is brought forward while processes of the version before read and write it."""


@pytest.mark.parametrize("path", LATER, ids=lambda path: path.stem)
def test_each_migration_can_be_said_to_postgresql(path: Path) -> None:
    """SQLite allows a column without a type; this test finds one."""
    said = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": said})
    module = migration(path)
    with Operations.context(context):
        module.upgrade()
    assert said.getvalue()
    if path.stem >= WHILE_OLD_PROCESSES_RUN:
        assert stricter(said.getvalue()) == [], "the version before still reads and writes here"


def stricter(said: str) -> list[str]:
    """The statements of a migration that remove or forbid what the version before reads or writes."""
    own = set(re.findall(r"^CREATE TABLE (\w+)", said, re.MULTILINE))
    forbids = r"DROP|RENAME|SET NOT NULL|TYPE |ADD CONSTRAINT|ADD COLUMN (?!.*DEFAULT).*NOT NULL"
    added = set(re.findall(r"^ALTER TABLE (\w+) ADD COLUMN (\w+)", said, re.MULTILINE))
    found = []
    for table, change in re.findall(r"^ALTER TABLE (\w+) (.*?);", said, re.MULTILINE | re.DOTALL):
        of_new = re.match(r"ADD CONSTRAINT \w+ FOREIGN KEY\((\w+)\)", change)
        if of_new and (table, of_new[1]) in added:
            continue
        if table not in own and re.search(forbids, change):
            found.append(f"{table}: {change}")
    for index, table in re.findall(r"^CREATE UNIQUE INDEX (\w+) ON (\w+)", said, re.MULTILINE):
        if table not in own:
            found.append(f"{table}: {index}")
    return found + re.findall(r"^(?:DROP|DELETE|TRUNCATE) .*$", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("ALTER TABLE servers DROP COLUMN name;", True),
        ("ALTER TABLE servers RENAME name TO label;", True),
        ("ALTER TABLE servers ALTER COLUMN name SET NOT NULL;", True),
        ("ALTER TABLE servers ALTER COLUMN name TYPE VARCHAR(10);", True),
        ("ALTER TABLE servers ADD COLUMN a INTEGER NOT NULL;", True),
        ("ALTER TABLE servers ADD CONSTRAINT c UNIQUE (name);", True),
        ("CREATE UNIQUE INDEX i ON servers (name);", True),
        ("DROP INDEX ix_servers_host;", True),
        ("DROP TABLE servers;", True),
        ("ALTER TABLE servers ADD COLUMN a INTEGER DEFAULT 0 NOT NULL;", False),
        ("ALTER TABLE servers ADD COLUMN a INTEGER;", False),
        ("CREATE INDEX i ON servers (name);", False),
        (
            "CREATE TABLE t (a INTEGER);\nALTER TABLE t ADD CONSTRAINT c UNIQUE (a);\nCREATE UNIQUE INDEX i ON t (a);",
            False,
        ),
        ("ALTER TABLE servers ADD COLUMN a INTEGER;\nALTER TABLE servers ADD CONSTRAINT c FOREIGN KEY(a) x;", False),
        ("ALTER TABLE servers ADD CONSTRAINT c FOREIGN KEY(name) REFERENCES t (a);", True),
    ],
)
def test_what_a_migration_may_not_do_while_old_processes_run(statement: str, refused: bool) -> None:
    assert bool(stricter(statement)) is refused


def test_every_foreign_key_has_an_index() -> None:
    """Without one, each deletion of what it points to reads the whole table."""
    load_services()
    for table in metadata.sorted_tables:
        first: set[object] = {index.expressions[0] for index in table.indexes}
        unique = [one for one in table.constraints if isinstance(one, sa.UniqueConstraint | sa.PrimaryKeyConstraint)]
        first |= {next(iter(one.columns), None) for one in unique}
        missing = [f"{table.name}.{key.parent.name}" for key in table.foreign_keys if key.parent not in first]
        assert missing == []
