"""A cloud is copied from SQLite to PostgreSQL with all its records, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.cli.program import run
from cumulet.db import schema
from cumulet.db.engine import Database, Tx, metadata
from cumulet.db.schema import OtherState
from cumulet.processes import database_copy
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]

pytestmark = pytest.mark.postgres


def boot(cloud: cumulet.testing.TestCloud, name: str, persona: str = "member") -> str:
    member = cloud.persona(persona)
    flavor = member.compute("GET", "/flavors")["flavors"][0]["id"]
    image = member.request("GET", "/image/v2/images")["images"][0]["id"]
    body = {"server": {"name": name, "flavorRef": flavor, "imageRef": image, "networks": "none"}}
    server: str = member.compute("POST", "/servers", body, version="2.37")["server"]["id"]
    member.wait_for_status(server, "ACTIVE")
    return server


def test_a_cloud_goes_on_where_it_was_copied_to(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    with cumulet.testing.cloud(hosts=2, state=state) as cloud:
        admin = cloud.persona("admin")
        for region, parent in (("z", None), ("a", "z")):  # A row that names another one of its table.
            body = {"region": {"id": region, "parent_region_id": parent}}
            assert admin.request("POST", "/identity/v3/regions", body).status == 201
        before = boot(cloud, "before")
    monkeypatch.setenv("CUMULET_DATABASE", database_url)
    assert run(["database", "copy", "--state", str(state)]) == 0
    assert "are the same" in capsys.readouterr().out
    with cumulet.testing.cloud(hosts=2, state=state, database_url=database_url) as cloud:
        admin = cloud.persona("admin")
        found = admin.compute("GET", "/servers?all_tenants=1")["servers"]
        assert [one["id"] for one in found] == [before]
        assert admin.request("GET", "/identity/v3/regions/a")["region"]["parent_region_id"] == "z"
        after = boot(cloud, "after", "member2")  # Numbers that the database gives have gone on.
        assert after != before
    assert run(["database", "copy", "--state", str(state)]) == 1
    assert "were copied to postgresql://" in capsys.readouterr().err
    monkeypatch.delenv("CUMULET_DATABASE")
    assert run(["up", "--state", str(state), "--driver", "simulated", "--listen", "127.0.0.1:0"]) == 1
    assert "go on there: name that database with --database" in " ".join(capsys.readouterr().err.split())
    assert run(["backup", str(tmp_path / "old.tar"), "--state", str(state)]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "were copied to postgresql://" in told
    assert "name that database with --database" in told
    assert not (tmp_path / "old.tar").exists()
    assert run(["database", "keep", "--state", str(state)]) == 0
    assert run(["backup", str(tmp_path / "kept.tar"), "--state", str(state)]) == 0
    capsys.readouterr()
    assert run(["database", "keep", "--state", str(state)]) == 1
    assert "copied nowhere" in capsys.readouterr().err
    with cumulet.testing.cloud(hosts=2, state=state) as cloud:
        found = cloud.persona("admin").compute("GET", "/servers?all_tenants=1")["servers"]
        assert [one["id"] for one in found] == [before], "as it was when it was copied"
    monkeypatch.setenv("CUMULET_DATABASE", database_url)
    assert run(["database", "copy", "--state", str(state)]) == 1
    assert "holds a cloud already" in capsys.readouterr().err


def test_a_database_is_brought_forward_while_nothing_of_it_starts(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Database(database_url)
    with empty.engine.connect() as connection, connection.begin():
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    monkeypatch.setenv("CUMULET_DATABASE", database_url)
    assert run(["database", "upgrade"]) == 1
    assert "there is no cloud in this database" in capsys.readouterr().err
    schema.prepare(empty)
    assert run(["database", "upgrade"]) == 0
    assert "as it was" in capsys.readouterr().out
    (tmp_path / "driver").write_text("simulated\n")
    role = ["conductor", "--state", str(tmp_path), "--bus", "nats://127.0.0.1:1"]
    for there, words in (("0001", "this version of Cumulet knows"), ("9999", "database upgrade")):
        empty.write(lambda tx, there=there: tx.execute(sa.text(f"UPDATE alembic_version SET version_num = '{there}'")))  # type: ignore[misc]
        assert run(role) == 1
        told = " ".join(capsys.readouterr().err.split())
        assert f"the database has schema {there}" in told
        assert words in told
    assert run(["database", "upgrade"]) == 1
    assert "the database has schema 9999" in capsys.readouterr().err
    empty.close()


def test_what_does_not_arrive_as_it_is_is_not_copied_at_all(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cumulet.testing.cloud(hosts=1, state=tmp_path / "state"):
        pass
    empty = Database(database_url)
    with empty.engine.connect() as connection, connection.begin():
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    monkeypatch.setattr(database_copy, "_go_on_counting", _lose_a_row)
    source = Database(f"sqlite:///{tmp_path / 'state' / 'cumulet.db'}")
    with pytest.raises(OtherState, match="did not arrive"):
        database_copy.copy(source, empty)
    for table in metadata.sorted_tables:
        assert empty.read(lambda tx, table=table: tx.all(sa.select(table))) == []  # type: ignore[misc]
    source.close()
    empty.close()


def _lose_a_row(tx: Tx, table: sa.Table) -> None:
    if table.name == "flavors":
        tx.execute(sa.delete(table))


def test_only_from_one_to_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["database", "copy", "--state", str(tmp_path), "--to", "postgresql:///x"]) == 1
    assert "no cloud on SQLite" in capsys.readouterr().err
    (tmp_path / "cumulet.db").touch()
    assert run(["database", "copy", "--state", str(tmp_path), "--to", f"sqlite:///{tmp_path}/other.db"]) == 1
    assert "from SQLite to PostgreSQL" in capsys.readouterr().err
