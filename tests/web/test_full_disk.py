"""When storage is full, the cloud says so: members cannot add anything, and deleting always works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from cumulet import space
from cumulet.db import full_disk
from cumulet.db.engine import Database, Tx, opened
from cumulet.db.full_disk import RESERVE_BYTES, Reserve, is_full
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.operation import Call
from tests.web.conftest import Answer, Client
from tests.web.widgets import SERVICES

W = "/compute/v2.1/widgets"


def send(cloud: Cloud, method: str, path: str, body: object = None, *, token: str = "member") -> Answer:
    return asyncio.run(Client(App(cloud, SERVICES)).send(method, path, body, token=token))


@pytest.fixture
def nearly_full(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    floor = space.floor_bytes(cloud.state_dir, cloud.settings.free_space_floor_mib)
    monkeypatch.setattr(space, "free_bytes", lambda _: floor // space.NEARLY_FULL_SHARE - 1)
    return cloud


def test_where_storage_is_nearly_full_members_may_read_and_delete_only(nearly_full: Cloud) -> None:
    body = {"widget": {"name": "x"}}
    refused = send(nearly_full, "POST", W, body)
    assert (refused.status, "storage is full" in refused.message) == (507, True)
    assert send(nearly_full, "GET", f"{W}/w1").status == 200
    assert send(nearly_full, "DELETE", f"{W}/w1").status == 204
    assert send(nearly_full, "POST", W, body, token="admin").status == 202  # an administrator can still mend it


@pytest.fixture
def full(tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A real database with no room for another page; every request writes."""
    with opened(f"sqlite:///{tmp_path / 'full.db'}") as database:
        database.write(lambda tx: tx.execute(sa.text("CREATE TABLE notes (text TEXT)")))
        _limit_pages(database, 3)

        async def writes(_operation: object, call: Call[object, object]) -> None:
            def insert(tx: Tx) -> None:
                tx.execute(sa.text("INSERT INTO notes VALUES (:text)"), {"text": "x" * 50_000})

            await call.cloud.db.write_async(insert)

        monkeypatch.setattr("cumulet.web.perform._perform", writes)
        yield msgspec.structs.replace(cloud, db=database)


def _limit_pages(database: Database, pages: int) -> None:
    def limit(tx: Tx) -> None:
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    database.write(limit)


def test_a_database_without_room_is_507_in_words_and_not_500(full: Cloud) -> None:
    answer = send(full, "POST", W, {"widget": {"name": "x"}})
    assert (answer.status, answer.message) == (507, "The cloud's storage is full. Delete something first.")


def test_deleting_has_room_that_is_kept_for_it(full: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    Reserve(full.state_dir).fill()
    given = Reserve.give

    def give(reserve: Reserve) -> bool:
        _limit_pages(full.db, 1000)
        return given(reserve)

    monkeypatch.setattr(Reserve, "give", give)
    assert send(full, "DELETE", f"{W}/w1").status == 204
    assert not (full.state_dir / "reserve").exists()
    assert send(full, "DELETE", f"{W}/w1").status == 204
    assert (full.state_dir / "reserve").exists()  # there is room again, and it is kept again


def test_the_reserve_takes_real_room_and_only_where_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path)
    reserve.fill()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    assert reserve.give()
    assert not reserve.give()
    monkeypatch.setattr(full_disk, "free_bytes", lambda _: RESERVE_BYTES)
    reserve.fill()
    assert not (tmp_path / "reserve").exists()


def test_other_errors_of_a_database_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path / 'some.db'}") as database, pytest.raises(sa.exc.DBAPIError) as caught:
        database.read(lambda tx: tx.execute(sa.text("SELECT * FROM nothing")))
    assert not is_full(caught.value)
