"""Counting logins beside other writers, with PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.clock import SystemClock
from cumulet.db.engine import Database, Tx, opened
from cumulet.identity import store
from cumulet.identity.password_rules import note_login, note_nothing, password_states
from tests.api.identity.place import Place
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres
CLOCK = SystemClock()


@pytest.fixture(scope="module")
def place(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"), database_url=database_url)
    yield place
    place.close()


def _nothing(tx: Tx) -> None:
    note_nothing(tx, CLOCK)


def _revoke(tx: Tx) -> None:
    store.revoke_token(tx, CLOCK.uuid(), CLOCK.now_us() + 60_000_000, CLOCK.now_us())


@pytest.mark.parametrize("beside", [_nothing, _revoke])
def test_a_login_with_nothing_to_count_has_nobody_try_again(
    place: Place, database_url: str, beside: Callable[[Tx], None]
) -> None:
    """Many wrong names are looked for at once, and tokens are revoked meanwhile."""
    tries: list[int] = []
    with opened(database_url) as other:

        def work(tx: Tx) -> None:
            tries.append(1)
            _nothing(tx)
            if len(tries) == 1:
                other.write(beside)

        place.database.write(work)
    assert len(tries) == 1


def test_a_login_with_nothing_to_count_waits_for_the_disk_as_others_do(place: Place) -> None:
    """Its time would tell: a transaction that wrote nothing does not wait."""
    written = sa.text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL, pg_current_wal_insert_lsn()::text")

    def work(tx: Tx) -> tuple[object, object, object]:
        before = tx.first(written)
        _nothing(tx)
        after = tx.first(written)
        assert before is not None
        assert after is not None
        return before[0], after[0], before[1] != after[1]

    assert place.database.write(work) == (False, True, True)


@pytest.mark.parametrize("counted_before", [False, True])
def test_a_user_who_is_deleted_while_a_password_is_counted_is_no_error(
    place: Place, database_url: str, counted_before: bool
) -> None:
    user_id = place.admin().made("user", "users", name=f"short-lived-{counted_before}")["id"]
    settings = msgspec.structs.replace(place.settings, lockout_failures=5)

    def count(tx: Tx) -> None:
        note_login(tx, settings, user_id, CLOCK.now_us(), right=False)

    if counted_before:
        place.database.write(count)
    tries: list[bool] = []
    with opened(database_url) as other:

        def work(tx: Tx) -> None:
            tries.append(store.user_by_id(tx, user_id) is not None)
            if len(tries) == 1:
                _delete(other, user_id)
            count(tx)

        place.database.write(work)
    assert tries == [True, False]
    states = sa.select(sa.func.count()).where(password_states.c.user_id == user_id)
    assert place.database.read(lambda tx: tx.scalar(states)) == 0


def _delete(database: Database, user_id: str) -> None:
    database.write(lambda tx: tx.execute(sa.delete(store.users).where(store.users.c.id == user_id)))
