"""A token that was examined is remembered until what it rests on changes, here or in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from cumulet.db.engine import Database, Tx
from cumulet.db.prepared import Prepared
from cumulet.identity import service, store
from cumulet.identity.service import Identity
from cumulet.testing.databases import VARIABLE
from cumulet.web.operation import Caller
from tests.api.identity.place import Place, project


def ask(identity: Identity, token: str | None) -> Caller | None:
    return asyncio.run(identity.authenticate(str(token), service="compute", method="GET", path="/servers"))


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The only process on its database, which is SQLite also where the suite's clouds are not: it asks nobody again."""
    monkeypatch.delenv(VARIABLE, raising=False)
    made = Place(tmp_path)
    yield made
    made.close()


class Statements:
    """Counts what reaches the database."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        event.listen(database.engine, "before_cursor_execute", self._note)
        real = Prepared._run

        def run(prepared: Prepared, driver: Any, values: Any) -> Any:
            self.count += 1
            return real(prepared, driver, values)

        monkeypatch.setattr(Prepared, "_run", run)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.count += statement != "BEGIN"


def test_a_remembered_token_costs_no_query(alone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    token = alone.login("demo", scope=project("demo")).token
    assert alone.identity.cached(str(token)) is None
    first = ask(alone.identity, token)
    assert first is not None
    assert (first.user_name, first.project_name, sorted(first.roles)) == ("demo", "demo", ["member", "reader"])
    statements = Statements(alone.database, monkeypatch)
    assert ask(alone.identity, token) is first
    assert alone.identity.cached(str(token)) is first
    assert statements.count == 0


def test_a_remembered_token_expires(place: Place) -> None:
    token = place.login("demo").token
    assert ask(place.identity, token) is not None
    place.clock.advance(3600)
    assert place.identity.cached(str(token)) is None
    assert ask(place.identity, token) is None


def test_nothing_is_remembered_past_a_write(place: Place) -> None:
    token = place.login("demo").token
    assert ask(place.identity, token) is not None
    place.database.write(place.identity.changed)
    assert place.identity.cached(str(token)) is None
    assert ask(place.identity, token) is not None


def test_what_is_new_ends_nothing(alone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token rests on it yet. Whoever made users all the time had every request of everybody examined anew."""
    admin, token = alone.admin(), alone.login("demo", scope=project("demo")).token
    first = ask(alone.identity, token)
    assert first is not None
    for kind, collection in (("user", "users"), ("project", "projects"), ("group", "groups"), ("role", "roles")):
        admin.made(kind, collection, name="new")
        assert alone.identity.cached(str(token)) is first, kind
    made = admin.made("domain", "domains", name="new")
    assert alone.identity.cached(str(token)) is first
    admin.patch(f"/domains/{made['id']}", {"domain": {"enabled": False}})
    assert alone.identity.cached(str(token)) is None, "a change counts"


def test_an_examination_that_a_write_overtook_is_not_remembered(place: Place) -> None:
    token = str(place.login("demo").token)
    opened = place.identity.open(token)
    assert opened is not None
    generation, live = place.database.read(lambda tx: place.identity._examined(tx, opened))
    assert live is not None
    place.database.write(place.identity.changed)
    # What a slow reader would now do with what it saw before the write:
    place.identity._remember(service._digest(token), service._Known(generation, opened, live.caller()))
    assert place.identity.cached(token) is None


class SharedDatabase:
    """The same database as another process sees it: not ours alone, as with PostgreSQL."""

    embedded = False

    def __init__(self, database: Database) -> None:
        self.read_async = database.read_async
        self.write = database.write


def test_another_process_learns_of_a_revocation_at_its_next_request(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: Any = SharedDatabase(place.database)
    one, other = (
        Identity(db=shared, clock=place.clock, settings=place.settings, state_dir=place.folder) for _ in range(2)
    )
    session = place.login("demo", scope=project("demo"))
    assert ask(other, session.token) is not None
    statements = Statements(place.database, monkeypatch)
    assert ask(other, session.token) is not None
    assert statements.count == 1  # whether anything ended it, nothing else
    assert other.cached(str(session.token)) is None

    def revoke(tx: Any) -> None:
        opened = one.open(str(session.token))
        assert opened is not None
        one.end_token(tx, opened)

    place.database.write(revoke)
    assert ask(other, session.token) is None
    one.close()
    other.close()


def test_another_process_learns_of_a_password_s_change_at_its_next_request(place: Place) -> None:
    shared: Any = SharedDatabase(place.database)
    one, other = (
        Identity(db=shared, clock=place.clock, settings=place.settings, state_dir=place.folder) for _ in range(2)
    )
    session, another = place.login("demo", scope=project("demo")), place.login("admin", scope=project("admin"))
    assert ask(other, session.token) is not None
    kept = ask(other, another.token)
    place.database.write(lambda tx: one.end_tokens_of_user(tx, session.body["user"]["id"]))
    assert ask(other, session.token) is None
    assert ask(other, another.token) is kept
    one.close()
    other.close()


def test_the_end_of_one_token_ends_those_made_from_it_and_no_other(alone: Place) -> None:
    session = alone.login("demo", scope=project("demo"))
    made, same_user = alone.exchanged(session, project("demo")), alone.login("demo", scope=project("demo"))
    other = alone.admin()
    kept = [str(same_user.token), str(other.token)]
    for token in (str(session.token), str(made.token), *kept):
        assert ask(alone.identity, token) is not None
    assert other.delete("/auth/tokens", {"X-Subject-Token": str(session.token)}).status_code == 204
    assert [alone.identity.cached(token) is not None for token in kept] == [True, True]
    assert ask(alone.identity, session.token) is None
    assert ask(alone.identity, made.token) is None


def test_a_changed_password_ends_its_user_s_tokens_and_no_other(alone: Place) -> None:
    session, other = alone.login("demo"), alone.login("admin")
    assert ask(alone.identity, session.token) is not None
    assert ask(alone.identity, other.token) is not None
    user_id = session.body["user"]["id"]
    alone.database.write(lambda tx: alone.identity.end_tokens_of_user(tx, user_id))
    assert alone.identity.cached(str(other.token)) is not None
    assert ask(alone.identity, session.token) is None
    assert ask(alone.identity, alone.login("demo").token) is not None


def test_an_examination_that_a_revocation_overtook_is_not_remembered(place: Place) -> None:
    session = place.login("demo")
    token = str(session.token)
    opened = place.identity.open(token)
    assert opened is not None
    generation, live = place.database.read(lambda tx: place.identity._examined(tx, opened))
    assert live is not None
    session.delete("/auth/tokens", {"X-Subject-Token": token})
    place.identity._remember(service._digest(token), service._Known(generation, opened, live.caller()))
    assert place.identity.cached(token) is None


def test_what_is_remembered_of_ends_is_bounded_and_forgetting_it_revives_nothing(
    alone: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_ENDED", 3)
    sessions = [alone.login("demo") for _ in range(6)]
    for session in sessions:
        assert ask(alone.identity, session.token) is not None
    for session in sessions[:5]:
        session.delete("/auth/tokens", {"X-Subject-Token": str(session.token)})
        assert len(alone.identity._ended) <= 3
    assert [ask(alone.identity, session.token) is not None for session in sessions] == [False] * 5 + [True]
    alone.clock.advance(1800)
    later = [alone.login("demo") for _ in range(2)]
    alone.clock.advance(1801)
    for session in later:
        session.delete("/auth/tokens", {"X-Subject-Token": str(session.token)})
    assert len(alone.identity._ended) == 2  # those whose tokens have expired were forgotten


def test_the_memory_is_bounded(alone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CACHED_TOKENS", 3)
    tokens = [str(alone.login("demo").token) for _ in range(5)]
    for token in tokens:
        assert ask(alone.identity, token) is not None
    assert [alone.identity.cached(token) is not None for token in tokens] == [False, False, True, True, True]


@pytest.mark.parametrize("token", ["", "x" * 5000, "gAAAAA"])
def test_what_is_no_token_is_refused_without_the_database(
    place: Place, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = Statements(place.database, monkeypatch)
    assert ask(place.identity, token) is None
    assert statements.count == 0


def test_revocations_are_forgotten_when_their_tokens_have_expired(place: Place) -> None:
    for _ in range(3):
        session = place.login("demo")
        session.delete("/auth/tokens", {"X-Subject-Token": str(session.token)})
    assert place.database.read(lambda tx: len(tx.all(store.revoked_tokens.select()))) == 3
    place.clock.advance(3600)
    session = place.login("demo")
    session.delete("/auth/tokens", {"X-Subject-Token": str(session.token)})
    assert place.database.read(lambda tx: len(tx.all(store.revoked_tokens.select()))) == 1


def test_no_revocation_forgets_many_others_in_its_transaction(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have ended any number of tokens, and nobody waits while they are forgotten."""
    monkeypatch.setattr(store, "MOST_FORGOTTEN", 2)
    now_us = place.clock.now_us()

    def ended(tx: Tx) -> None:
        for n in range(5):
            tx.execute(store.revoked_tokens.insert().values(audit_id=f"ended-{n}", expires_at_us=now_us))

    def left() -> int:
        return place.database.read(lambda tx: len(tx.all(store.revoked_tokens.select())))

    place.database.write(ended)
    found = []
    for n in range(4):
        place.database.write(partial(store.revoke_token, audit_id=f"now-{n}", expires_at_us=now_us + 1, now_us=now_us))
        found.append(left())
    assert found == [4, 3, 3, 4]
