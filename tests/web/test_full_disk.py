"""When storage is full, the cloud says so: members cannot add anything, and deleting always works."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import click
import msgspec
import pytest
import sqlalchemy as sa

from cumulet import space
from cumulet.cli import fleet
from cumulet.db import full_disk
from cumulet.db.engine import Database, Tx, opened
from cumulet.db.full_disk import RESERVE_BYTES, SPARE, Reserve, is_full, is_full_here
from cumulet.db.schema import OtherState
from cumulet.processes.api import api_alone
from cumulet.processes.bus import bus_alone, bus_users_alone
from cumulet.processes.conductor import conductor_alone
from cumulet.settings import Settings
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


def test_the_index_of_the_log_without_room_is_a_full_disk_too() -> None:
    """SQLite calls it an I/O error."""
    original = sqlite3.OperationalError("disk I/O error")
    original.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    error = sa.exc.OperationalError("COMMIT", (), original)
    assert (is_full(error), is_full_here(error)) == (True, True)
    original.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    assert (is_full(error), is_full_here(error)) == (False, False)
    assert is_full_here(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_full_here(OSError(errno.EROFS, "Read-only file system"))


def test_a_start_with_little_room_takes_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve, file = Reserve(tmp_path), tmp_path / "reserve"
    assert not reserve.spare()  # it is made by the cloud's own start alone
    reserve.fill()
    monkeypatch.setattr(full_disk, "free_bytes", lambda _: RESERVE_BYTES)
    assert reserve.spare()  # this is enough for a start
    assert file.exists()
    monkeypatch.setattr(full_disk, "free_bytes", lambda _: RESERVE_BYTES - 1)
    assert not reserve.spare()
    assert not file.exists()


def test_a_process_that_may_not_write_in_the_state_folder_starts_and_serves_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Reserve(tmp_path / "nowhere")
    assert not nowhere.spare()
    monkeypatch.setattr(full_disk, "free_bytes", lambda _: SPARE * RESERVE_BYTES)
    assert not nowhere.fill()


@pytest.mark.parametrize("role", ["api", "conductor", "bus", "users of a bus"])
def test_every_role_takes_the_reserve_at_a_start_without_room(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Reserve(tmp_path).fill()
    monkeypatch.setattr(full_disk, "free_bytes", lambda _: 0)
    settings = Settings(state_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'none.db'}", bus="nats://127.0.0.1:1")
    roles: dict[str, AbstractAsyncContextManager[object]] = {
        "api": api_alone((), settings, tmp_path),
        "conductor": conductor_alone((), settings),
        "bus": bus_alone(settings, tmp_path),
        "users of a bus": bus_users_alone(settings, tmp_path / "users", None),
    }

    async def start() -> None:
        async with roles[role]:
            pass

    with pytest.raises(OtherState, match="needs PostgreSQL"):
        asyncio.run(start())
    assert not (tmp_path / "reserve").exists()


def test_a_role_without_room_names_the_folder(tmp_path: Path) -> None:
    @asynccontextmanager
    async def role() -> AsyncIterator[None]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    settings = Settings(state_dir=tmp_path, database_url="sqlite://")
    with pytest.raises(click.ClickException, match=f"cannot use the state folder {tmp_path}: its disk is full"):
        fleet._run(role(), settings, str, own=tmp_path / "missing")
