"""A start with a forgotten or a wrong --database, or with another folder than the cloud's, changes nothing: it once
removed guests and images of the cloud, or made new passwords and keys for it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.cli.program import run
from cumulet.db.engine import opened
from cumulet.db.schema import OtherState
from cumulet.identity import store
from cumulet.part import SEEDED
from cumulet.processes.same_cloud import note_cloud, require_keys, require_same_cloud
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]

UP = ["up", "--driver", "simulated", "--hosts", "1", "--listen", "127.0.0.1:0"]


def content(state: Path) -> dict[str, bytes]:
    """Of all files of a state folder, but its lock."""
    files = (path for path in state.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(state)): path.read_bytes() for path in files}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The folder of a cloud that has been used, with its database beside it."""
    state, url = tmp_path / "state", f"sqlite:///{tmp_path / 'records.db'}"
    with cumulet.testing.cloud(hosts=1, state=state, database_url=url):
        pass
    return state


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(arguments) == 1
    return " ".join(capsys.readouterr().err.split())


def test_a_forgotten_database_is_asked_for(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(state)
    told = refused([*UP, "--state", str(state)], capsys)
    assert "is the folder of a cloud whose records are not here" in told
    assert "Name its database with --database" in told
    assert content(state) == before, "and no empty database was made"


def test_the_database_of_another_cloud_is_refused(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with cumulet.testing.cloud(hosts=1, state=tmp_path / "other", database_url=url):
        pass
    before = content(state)
    told = refused([*UP, "--state", str(state), "--database", url], capsys)
    assert "is the folder of another cloud than that in" in told
    assert content(state) == before


def test_a_folder_of_before_learns_whose_it_is(state: Path, tmp_path: Path) -> None:
    known = (state / SEEDED).read_text()
    assert known.strip()
    (state / SEEDED).write_text("")
    with cumulet.testing.cloud(hosts=1, state=state, database_url=f"sqlite:///{tmp_path / 'records.db'}"):
        pass
    assert (state / SEEDED).read_text() == known


def test_a_cloud_whose_first_role_has_another_name_starts(state: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    with opened(url) as database:
        renamed = sa.update(store.roles).where(store.roles.c.name == "admin").values(name="chief")
        database.write(lambda tx: tx.execute(renamed))
        require_same_cloud(state, url)
        (state / SEEDED).write_text("")
        note_cloud(state, database)
    assert (state / SEEDED).read_text() == ""


def test_a_role_of_a_domain_is_not_taken_for_the_first_one(state: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    with cumulet.testing.cloud(hosts=1, state=state, database_url=url) as cloud:
        role = {"name": "admin", "domain_id": "default"}
        assert cloud.persona("admin").request("POST", "/identity/v3/roles", {"role": role}).status == 201
    with opened(url) as database:
        of_the_cloud = (store.roles.c.name == "admin") & store.roles.c.domain_id.is_(None)
        database.write(lambda tx: tx.execute(sa.update(store.roles).where(of_the_cloud).values(name="chief")))
    require_same_cloud(state, url)


def passwords(url: str) -> list[tuple[object, ...]]:
    """Of all users: the hash, and until when their tokens are void."""
    with opened(url) as database:
        found = sa.select(store.users.c.name, store.users.c.password_hash, store.users.c.tokens_not_before_us)
        return sorted(tuple(row) for row in database.read(lambda tx: tx.all(found)))


@pytest.mark.postgres
def test_a_folder_that_is_not_mounted_or_not_restored_yet_changes_nothing_in_the_database(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, saved, place = tmp_path / "state", tmp_path / "saved.tar", tmp_path / "not-mounted"
    with cumulet.testing.cloud(hosts=1, state=state, database_url=database_url):
        pass
    monkeypatch.setenv("CUMULET_DATABASE", database_url)
    assert run(["backup", str(saved), "--state", str(state), "--database", database_url]) == 0
    before = passwords(database_url)
    with socket.socket() as taken:  # Else a start that is not refused would go on.
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        told = refused([*UP[:-1], listen, "--state", str(place)], capsys)
    assert f"holds a cloud, and none of its keys are in {place}: its folder is elsewhere" in told
    assert content(place) == {}, "nothing was made"
    assert passwords(database_url) == before
    assert run(["restore", str(saved), "--state", str(place)]) == 0
    for folder in (state, place):
        with cumulet.testing.cloud(hosts=1, state=folder, database_url=database_url) as cloud:
            assert cloud.embedded.passwords.origin == "kept"
            assert cloud.persona("admin").compute("GET", "/servers").status == 200


@pytest.mark.parametrize(
    ("lost", "starts"),
    [(["clouds.yaml"], True), (["ca"], True), (["fernet-keys"], True), (["ca", "fernet-keys"], False)],
)
def test_a_cloud_that_still_has_a_key_starts(lost: list[str], *, starts: bool, state: Path, tmp_path: Path) -> None:
    """New passwords, a new authority and new keys of tokens are made where the operator took the old ones away."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    for name in lost:
        (state / name).rename(tmp_path / name)
    if starts:
        with cumulet.testing.cloud(hosts=1, state=state, database_url=url) as cloud:
            assert cloud.embedded.passwords.origin == ("replaced" if lost == ["clouds.yaml"] else "kept")
    else:
        with pytest.raises(OtherState, match="its folder is elsewhere"):
            require_keys(state, url)
