"""A token once examined is remembered, but never past a change of anything, here or in another process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event

from cumulet.db.engine import Database
from cumulet.identity import service, store
from cumulet.identity.service import Identity
from cumulet.web.operation import Caller
from tests.api.identity.place import Place, project


def ask(identity: Identity, token: str | None) -> Caller | None:
    return asyncio.run(identity.authenticate(str(token), service="compute", method="GET", path="/servers"))


class Statements:
    """Counts what reaches the database."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        event.listen(database.engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.count += statement != "BEGIN"


def test_a_remembered_token_costs_no_query(place: Place) -> None:
    token = place.login("demo", scope=project("demo")).token
    assert place.identity.cached(str(token)) is None
    first = ask(place.identity, token)
    assert first is not None
    assert (first.user_name, first.project_name, sorted(first.roles)) == ("demo", "demo", ["member", "reader"])
    statements = Statements(place.database)
    assert ask(place.identity, token) is first
    assert place.identity.cached(str(token)) is first
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


def test_an_examination_that_a_write_overtook_is_not_remembered(place: Place) -> None:
    token = str(place.login("demo").token)
    opened = place.identity.open(token)
    assert opened is not None
    generation, live = place.database.read(lambda tx: place.identity._examined(tx, opened))
    assert live is not None
    place.database.write(place.identity.changed)
    # What a slow reader would now do with what it saw before the write:
    place.identity._remember(service._digest(token), service._Known(generation, opened.expires_at_us, live.caller()))
    assert place.identity.cached(token) is None


class SharedDatabase:
    """The same database as another process sees it: not ours alone, as with PostgreSQL."""

    is_sqlite = False

    def __init__(self, database: Database) -> None:
        self.read_async = database.read_async
        self.write = database.write


def test_another_process_learns_of_a_revocation_at_its_next_request(place: Place) -> None:
    shared: Any = SharedDatabase(place.database)
    one, other = (
        Identity(db=shared, clock=place.clock, settings=place.settings, state_dir=place.folder) for _ in range(2)
    )
    session = place.login("demo", scope=project("demo"))
    assert ask(other, session.token) is not None
    statements = Statements(place.database)
    assert ask(other, session.token) is not None
    assert statements.count == 1  # the generation, nothing else
    assert other.cached(str(session.token)) is None

    def revoke(tx: Any) -> None:
        store.revoke_token(tx, session.body["audit_ids"][0], 2**62, 0)
        one.changed(tx)

    place.database.write(revoke)
    assert ask(other, session.token) is None
    one.close()
    other.close()


def test_the_memory_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CACHED_TOKENS", 3)
    tokens = [str(place.login("demo").token) for _ in range(5)]
    for token in tokens:
        assert ask(place.identity, token) is not None
    assert [place.identity.cached(token) is not None for token in tokens] == [False, False, True, True, True]


@pytest.mark.parametrize("token", ["", "x" * 5000, "gAAAAA"])
def test_what_is_no_token_is_refused_without_the_database(place: Place, token: str) -> None:
    statements = Statements(place.database)
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
