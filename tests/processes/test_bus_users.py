"""Who may be on the bus follows every change of the members, and is not read again without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cumulet.compute import joined_hosts
from cumulet.db import schema
from cumulet.db.engine import Database, Tx, opened
from cumulet.processes.bus_users import BusUsers, bus_user
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
NOW_US = 1_800_000_000_000_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    url = "sqlite://" if request.param == "sqlite" else request.getfixturevalue("database_url")
    with opened(url, inline=request.param == "sqlite") as made:
        schema.prepare(made)
        made.write(lambda tx: tx.execute(joined_hosts.joined_hosts.delete()))
        yield made


def joins(tx: Tx, name: str, *, key: str = "key", known: str | None = None, now_us: int = NOW_US) -> None:
    token = joined_hosts.invite(tx, name, now_us=now_us)
    joined_hosts.redeem(tx, token, key_sha256=key, known_sha256=known, machine=f"machine of {name}", now_us=now_us)


def remove_all(tx: Tx) -> None:
    for member in joined_hosts.members(tx):
        joined_hosts.remove(tx, member.name)


CHANGES: dict[str, Callable[[Tx], None]] = {
    "another joins": lambda tx: joins(tx, "rack3", now_us=NOW_US + 9),
    "one joins again": lambda tx: joins(tx, "rack1", key="another", known="key", now_us=NOW_US + 9),
    "one joins again by a clock that is behind": lambda tx: joins(
        tx, "rack2", key="another", known="key", now_us=NOW_US + 2
    ),
    "one is removed": lambda tx: joined_hosts.remove(tx, "rack1"),
    "the last is removed": remove_all,
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_followed(database: Database, change: str) -> None:
    users = BusUsers()
    assert database.read(users.read) == frozenset()
    database.write(lambda tx: joins(tx, "rack1"))
    database.write(lambda tx: joins(tx, "rack2", now_us=NOW_US + 1))
    assert {one.host for one in database.read(users.read)} == {"rack1", "rack2"}
    before = database.read(users.read)
    database.write(CHANGES[change])
    after = database.read(users.read)
    assert after == frozenset(map(bus_user, database.read(joined_hosts.members)))
    assert after != before


def test_without_a_change_the_members_are_not_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    users = BusUsers()
    database.write(lambda tx: joins(tx, "rack1"))
    known = database.read(users.read)
    monkeypatch.setattr(joined_hosts, "members", None)
    database.write(lambda tx: joined_hosts.invite(tx, "rack2", now_us=NOW_US))
    assert database.read(users.read) == known


def test_as_many_members_as_may_join_have_a_mark(database: Database) -> None:
    """The sum of their moments is a number that either database holds."""
    row = {"identity": "", "added_at_us": NOW_US, "joined_at_us": NOW_US}
    many = [row | {"name": f"h{n}", "identity": f"h{n}"} for n in range(joined_hosts.MOST_JOINED)]
    database.write(lambda tx: tx.execute(joined_hosts.joined_hosts.insert(), many))
    assert database.read(joined_hosts.mark_of_members)[0] == joined_hosts.MOST_JOINED
